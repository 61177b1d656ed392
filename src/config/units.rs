//! Lengths of time and sizes as people write them. They are the contract's: methods have such keys, too.

pub use delta_guard_contract::units::{Size, Span};
