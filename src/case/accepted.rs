//! A picture that was taken in, and what its submitter says of it.

use delta_guard_contract::Digest;
use serde::{Deserialize, Serialize};

/// What the submitter says, from the sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Claim {
    /// The wrong label that the model gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_label: Option<String>,
    /// The right label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub true_label: Option<String>,
    /// Where the picture comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Where the submitter wants to be told what became of it. No part of the case's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<String>,
}

/// Which file of the inbox it was. Two files with the same identity are the same file, unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// A picture that was taken in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// BLAKE3 of the content, and its name in the spool.
    pub content: Digest,
    /// Bytes.
    pub bytes: u64,
    /// The file's name as the submitter gave it, made harmless for display.
    pub name: String,
    /// The same, byte for byte.
    pub name_base64: String,
    /// What the submitter says.
    pub claim: Claim,
    /// Digest of the production checkpoint that the case is about.
    pub checkpoint: Digest,
    /// The file in the inbox.
    pub file: FileIdentity,
    /// Its sidecar, if it had one.
    pub sidecar: Option<FileIdentity>,
    /// BLAKE3 of the sidecar's content; None in journals of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar_content: Option<Digest>,
    /// Owner of the picture's file.
    pub uid: u32,
}
