//! What the daemon records of itself.

use delta_guard_contract::Digest;
use serde::{Deserialize, Serialize};

/// What the daemon says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k", content = "d", rename_all = "kebab-case")]
pub enum Note {
    /// It was started.
    DaemonStarted {
        /// Version of the program.
        version: String,
        /// BLAKE3 of its settings.
        settings: Digest,
    },
}

impl Note {
    /// Every kind.
    pub const KINDS: [&str; 1] = ["daemon-started"];

    /// The record's kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Note::DaemonStarted { .. } => "daemon-started",
        }
    }
}

/// The last start.
#[derive(Debug, Default)]
pub struct Starts {
    /// Journal number of the last start whose version or settings were others than those of the start before.
    pub changed_at: u64,
    last: Option<(String, Digest)>,
}

impl Starts {
    pub(in crate::engine) fn fold(&mut self, note: Note, seq: u64) {
        let Note::DaemonStarted { version, settings } = note;
        let now = Some((version, settings));
        if self.last != now {
            self.changed_at = seq;
            self.last = now;
        }
    }
}
