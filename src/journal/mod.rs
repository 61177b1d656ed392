//! The append-only truth. One record per line: length, chained BLAKE3, JSON; readable with `cut` and `jq`.
//!
//! ```text
//! <len:8 hex> <hash:64 hex> <json, len bytes, no raw newline>\n
//! hash = BLAKE3-derive_key("delta-guard journal v1")(prev_hash(32) ‖ seq(u64 LE) ‖ len(u32 LE) ‖ json)
//! ```
//!
//! Segments `00000001.dgj`, … begin with a `segment` record and end, when full, with a `sealed` one. A record is one write and one fsync; nothing is
//! acknowledged before. A torn last record is cut, kept in `quarantine/` and reported by a `journal.tail_cut` record; damage anywhere else is
//! an error that names segment, offset and sequence number, and nothing is deleted or skipped.

mod error;
pub mod frame;
mod reader;
mod segment;
mod tail;
pub mod verify;
mod writer;

pub use error::{JournalError, is_full};
pub use reader::{JournalTail, Reader};
pub use segment::{SEGMENT_BYTES, segment_name};
pub use verify::Witness;
pub use writer::{Appended, Journal, Opened, Options, renew_last_segment};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Version of the format.
pub const SCHEMA: u32 = 1;

/// A link of the chain.
pub type Hash = [u8; 32];

/// The end of the journal: number and hash of its last record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Number of the last record; 0 before the first.
    pub seq: u64,
    /// Its hash; zeros before the first.
    pub hash: Hash,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Number, from 1, without gaps. The order of everything.
    #[serde(rename = "s")]
    pub seq: u64,
    /// Wall-clock time; never before that of the record before. Order is the number's.
    #[serde(rename = "t")]
    pub time: Timestamp,
    /// How often the journal had been opened for writing.
    #[serde(rename = "e")]
    pub epoch: u64,
    /// Kind.
    #[serde(rename = "k")]
    pub kind: String,
    /// A reader that does not know the kind must not go on.
    #[serde(rename = "crit", default, skip_serializing_if = "std::ops::Not::not")]
    pub critical: bool,
    /// The case that it is about.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// Content.
    #[serde(rename = "d", default)]
    pub data: serde_json::Value,
}
