//! What can be wrong with a journal.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused; why is the source.
    #[error("the journal could not {what} {path}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process writes it.
    #[error("another process writes the journal in {path}; stop it, or use another state folder (paths.state)", path = dir.display())]
    Locked {
        /// The journal's folder.
        dir: PathBuf,
    },
    /// It was changed or lost since it was written.
    #[error(
        "the journal is damaged in segment {segment} at byte {offset}, record {seq}: {what}. Nothing was changed; restore the segment from a copy"
    )]
    Damage {
        /// File name of the segment.
        segment: String,
        /// Where the damaged record begins.
        offset: u64,
        /// Number of the damaged record.
        seq: u64,
        /// What is wrong.
        what: String,
    },
    /// A newer version wrote it.
    #[error("segment {segment} has journal schema {found}, this program reads up to {known}; use the newer program", known = super::SCHEMA)]
    Schema {
        /// File name of the segment.
        segment: String,
        /// Its schema.
        found: u32,
    },
    /// An earlier write failed in a way that leaves the file's end unknown.
    #[error("the journal is out of use until the next start, because {why}")]
    Poisoned {
        /// What happened.
        why: String,
    },
    /// A record that no reader would accept.
    #[error("a journal record of kind {kind} would have {bytes} bytes; at most {most} are allowed")]
    TooLarge {
        /// Its kind.
        kind: String,
        /// Its size.
        bytes: usize,
        /// The most that is written.
        most: usize,
    },
    /// Whoever was shown the records could not take one.
    #[error("{0:#}")]
    Visitor(anyhow::Error),
}

impl JournalError {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
        let path = path.to_path_buf();
        move |source| JournalError::Io { what, path, source }
    }

    /// Did the disk run full (or a quota)? Then it is worth trying again later.
    pub fn is_full(&self) -> bool {
        matches!(self, JournalError::Io { source, .. } if is_full(source))
    }
}

/// Is this the error of a full disk?
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
