//! Data sets: lists of (training id, label, pixels).
//!
//! * [`DataSet::open`] reads a [`delta_guard_contract::DataSource`] — an image folder, the same inside tar files, WebDataset
//!   shards, a list of pictures, parquet files, CIFAR binary batches — lists
//!   what is there ([`manifest`]), decodes it once into a memory-mapped file of bytes, and hands out pixels by position. Positions never leave this crate;
//!   ids are what the rest of the world sees.
//! * [`picture`] decodes single pictures; [`submission`] does so for pictures that somebody dropped into the inbox.
//! * [`tensor`] turns pixels into what a model sees.

mod archive;
mod cache;
pub mod cifar;
mod class_names;
mod folder;
mod glance;
mod jpeg;
mod labels;
mod layout;
mod links;
mod listed;
pub mod manifest;
mod origin;
mod parquet_set;
pub mod picture;
mod places;
mod raster;
mod reader;
mod resample;
mod resize;
mod rows;
mod set;
mod stat;
mod steps;
pub mod submission;
mod tars;
pub mod tensor;
mod webdataset;

pub use class_names::class_names;
pub use glance::{Glance, glance};
pub use layout::{cifar_kind, has_test_part};
pub use manifest::{KnownClasses, PassedOver, Unreadable};
pub use picture::encode_png;
pub use places::Places;
pub use set::{DataSet, peek_sizes};
pub use submission::decode_submission;
pub use tensor::{normalise, standardise};

#[cfg(test)]
mod tests;
