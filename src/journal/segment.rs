//! Segments: their names, their first and last records.

use super::{Head, SCHEMA};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;

/// A segment is closed when the next record would make it longer than this.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// Kind of a segment's first record.
pub(super) const FIRST: &str = "segment";
/// Kind of a full segment's last record.
pub(super) const SEALED: &str = "sealed";
/// Kind of the record after a cut.
pub(super) const TAIL_CUT: &str = "journal.tail_cut";

/// File name of a segment, counted from 1.
pub fn segment_name(number: u32) -> String {
    format!("{number:08}.dgj")
}

/// The number of a segment's file name.
pub(super) fn segment_number(name: &OsStr) -> Option<u32> {
    let number = name.to_str()?.strip_suffix(".dgj")?.parse().ok()?;
    (OsStr::new(&segment_name(number)) == name).then_some(number)
}

/// Content of a segment's first record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct First {
    pub schema: u32,
    pub segment: u32,
    pub first_seq: u64,
    /// Hash of the record before, hexadecimal.
    pub prev_hash: String,
    /// Version of the program that began it.
    pub version: String,
}

impl First {
    /// Of the segment that follows `head`.
    pub fn after(head: &Head, segment: u32) -> Self {
        Self {
            schema: SCHEMA,
            segment,
            first_seq: head.seq + 1,
            prev_hash: hex::encode(head.hash),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// Content of a full segment's last record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sealed {
    /// Records of the segment, this one included.
    pub count: u64,
}
