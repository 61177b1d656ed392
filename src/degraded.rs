//! A guard that cannot record anything stays up and says why, instead of ending again and again: metrics, health, questions and one mail. It takes nothing
//! in and works on nothing. It goes on by itself when what is wrong may have changed: at once tries cost little where a disk is full, read-only or gone;
//! a damaged or newer journal is looked at again only after somebody changed its files.

use crate::journal::{self, JournalError};
use crate::settings::Settings;
use crate::stop::Stop;
use crate::vfs::Disk;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// First wait before another try; doubled up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two tries where the system refused something.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A journal whose files did not change is verified again after this at the latest.
const VERIFY_AGAIN: Duration = Duration::from_secs(3600);

/// What the guard cannot go on for.
#[derive(Debug)]
pub struct Degraded {
    /// In a sentence, with its causes.
    pub why: String,
    /// What to do.
    pub help: String,
    /// Is the journal itself wrong, so that trying again is of no use until its files change?
    journal: bool,
}

impl Degraded {
    /// What an error of the daemon means. None: waiting mends nothing. Another guard is at work with the same state folder (and must not be kept from its work
    /// by ours; `lived` says that an earlier life of this process may still hold the lock), or it is neither the system nor the journal that refuses.
    pub fn from(error: &anyhow::Error, lived: bool) -> Option<Self> {
        let known = error.chain().find_map(|cause| cause.downcast_ref::<JournalError>());
        let (help, journal) = match known {
            Some(JournalError::Locked { .. }) if !lived => return None,
            Some(JournalError::Damage { .. } | JournalError::Visitor(_)) => (
                "restore the journal's folder from a copy; `delta-guard journal verify` says what is whole. The guard goes on by itself then",
                true,
            ),
            Some(JournalError::Schema { .. }) => ("install the newer program, or restore the journal of this one from a copy", true),
            Some(error) if error.is_full() => ("make room; the guard goes on by itself", false),
            _ if is_full(error) => ("make room; the guard goes on by itself", false),
            None if !error.chain().any(|cause| cause.is::<std::io::Error>()) => return None,
            _ => ("mend the disk, its mount or its rights; the guard goes on by itself", false),
        };
        Some(Self {
            why: format!("{error:#}"),
            help: help.into(),
            journal,
        })
    }

    /// Wait until another try is worth it; false when the guard is asked to stop. `tries` counts those that failed in a row.
    pub async fn wait(&self, settings: &Settings, tries: u32, stop: &mut Stop) -> bool {
        let began = Instant::now();
        let dir = settings.journal_dir();
        let before = fingerprint(&dir);
        loop {
            let wait = FIRST_WAIT.saturating_mul(1 << tries.min(5)).min(LONGEST_WAIT);
            tokio::select! {
                () = stop.stopped() => return false,
                () = tokio::time::sleep(if self.journal { FIRST_WAIT } else { wait }) => {}
            }
            if !self.journal || began.elapsed() > VERIFY_AGAIN || fingerprint(&dir) != before {
                return true;
            }
        }
    }
}

/// Did the disk run full (or a quota), anywhere in this error?
fn is_full(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(journal::is_full))
}

/// Names, sizes and times of the journal's files: what somebody who mends it changes.
fn fingerprint(dir: &Path) -> Vec<(std::ffi::OsString, u64, Option<SystemTime>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let meta = entry.metadata().ok()?;
            Some((entry.file_name(), meta.len(), meta.modified().ok()))
        })
        .collect();
    files.sort();
    files
}

/// Before the journal is opened again by the process that failed to write it: an fsync that failed may have marked pages as written that are not.
///
/// # Errors
/// When the disk still refuses.
pub fn renew(settings: &Settings) -> anyhow::Result<()> {
    Ok(journal::renew_last_segment(&Disk, &settings.journal_dir())?)
}
