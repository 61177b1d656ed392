//! The laboratory's tables: many stories from one file, each told once and kept as a row.
//!
//! A grid names data, networks, attacks, detectors and unlearners, and runs over them ([`file`]). It becomes a list of victims with what is asked of each ([`plan`]). Each answer is
//! a [`GridRow`], one line of JSON; a row that is there is never made again, on whatever machine it was made. Tables, figures and a page are made from the rows alone.

pub mod chance;
pub mod curve;
pub mod file;
pub mod page;
pub mod plan;
pub mod row;
pub mod rows;
pub mod run;
pub mod tables;

pub use file::GridFile;
pub use plan::{Forgotten, GridAsk, Planned, plan};
pub use row::{GridRow, Shown, VictimName};
pub use rows::RowFile;
