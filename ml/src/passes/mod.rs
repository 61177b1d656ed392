//! Passes over examples: one loop ([`stream`]), what it keeps ([`cache`]) and may use ([`budget`]), the fit made of two passes ([`fit`]), gradients of weights
//! ([`gradients`]), activations ([`features`]), and folds taken in parts by several processes ([`parts`]).

pub mod budget;
pub mod cache;
pub mod features;
pub mod fit;
pub mod gradients;
pub mod labels;
pub mod objective;
pub mod parts;
pub mod stream;
