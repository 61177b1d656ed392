//! An exported program (`.pt2`, written by `torch.export.save`) as data: nothing in it is unpickled, and nothing is believed that was not checked.
//!
//! A file is a zip of stored entries under one folder ([`Archive`]): the graph and its signature as JSON ([`Program`]), the weights as raw bytes ([`Stored`]),
//! and what the owner added under `extra/`. Pickles lie in it too (sample inputs): they are never looked at.
//!
//! Everything is bounded by the file's own length: what a header claims is held against it before anything is allocated.

pub mod archive;
mod inline;
pub mod program;
mod schema;
pub mod weights;
mod zip;

pub use archive::{Archive, Part};
pub use program::{Argument, Call, Dim, Output, Program, StateKind, StateRef, Value};
pub use weights::{Stored, state_dict};

use crate::error::Error;
use delta_guard_contract::Code;

/// How such a file is made.
const SAVE_AGAIN: &str = "save it again with torch.export.save (torch 2.11 or newer), and compare the sizes after copying it";

/// A file that is damaged or lies about itself.
fn broken(message: impl Into<String>) -> Error {
    Error::new(Code::ProgramUnusable, message, SAVE_AGAIN)
}

/// A whole program that is not read.
fn unread(message: impl Into<String>, help: impl Into<String>) -> Error {
    Error::new(Code::ProgramUnusable, message, help)
}

/// A stranger's name in a message: short, and without characters that a terminal obeys.
fn shown(name: &str) -> String {
    let mut short: String = name.chars().take(120).flat_map(char::escape_debug).collect();
    if name.chars().nth(120).is_some() {
        short.push('…');
    }
    short
}
