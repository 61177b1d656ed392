//! Is a journal what was written? Reads it without a lock, from its first byte to its last, and changes nothing.

use super::{Head, JournalError, JournalTail, Reader, Record};
use crate::vfs::Vfs;
use jiff::Timestamp;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What the index says, or why it was not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witness {
    /// It has seen this record, with this link of the chain (BLAKE3, hexadecimal).
    Seen {
        /// The record's number; 0: none.
        seq: u64,
        /// Its link.
        hash: String,
    },
    /// There is no index.
    None,
    /// It could not be asked, for this reason.
    Silent(String),
}

/// A record that is being written looks torn for a moment; so often it is looked again before it is called so.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// What a journal is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Verdict {
    /// Every byte is as it was written.
    Whole,
    /// So is every record, and after the last one there is the beginning of another whose writing did not end. Nobody was told of it, as far as the index knows.
    Torn,
    /// Something was changed or lost, acknowledged records at the end included, where the index has seen them.
    Damaged,
    /// A newer program wrote it.
    Newer,
    /// The system does not let it be read.
    Unreadable,
    /// There is none.
    None,
}

impl Verdict {
    /// The word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verified {
    /// In a word.
    pub verdict: Verdict,
    /// What is wrong and where; empty where nothing is.
    pub what: String,
    /// Records that are as they were written.
    pub records: u64,
    /// BLAKE3 link of the last of them, hexadecimal.
    pub hash: String,
    /// When it was written.
    pub last: Option<Timestamp>,
    /// Segments that were read from.
    pub segments: u32,
    /// Bytes after the last record, where the end is torn.
    pub torn_bytes: usize,
    /// What the index says about it, in a few words.
    pub index: String,
    /// The last record that the index has seen; None where it was not asked.
    pub index_seen: Option<u64>,
}

/// Verify the journal in `dir`, and hold it against what the index said before; each record that is whole is shown to `visit`, whose error counts as damage: the
/// records contradict each other.
pub fn verify(vfs: Arc<dyn Vfs>, dir: &Path, witness: &Witness, visit: &mut dyn FnMut(Record) -> anyhow::Result<()>) -> Verified {
    let (mut at, mut last) = (Head::default(), None);
    let mut agrees = None;
    let mut reader = Reader::new(vfs, dir);
    let outcome = read_to_end(&mut reader, &mut |record, head| {
        let time = record.time;
        visit(record)?;
        (at, last) = (*head, Some(time));
        if let Witness::Seen { seq, hash } = witness
            && *seq == head.seq
        {
            agrees = Some(hex::encode(head.hash) == *hash);
        }
        Ok(())
    });
    let (mut verdict, mut what, torn_bytes) = match &outcome {
        Ok(tail) if tail.segment == 0 => (Verdict::None, String::new(), 0),
        Ok(tail) if tail.torn.is_empty() => (Verdict::Whole, String::new(), 0),
        Ok(tail) => (Verdict::Torn, tail.torn_words(), tail.torn.len()),
        Err(error) => {
            let verdict = match error {
                JournalError::Schema { .. } => Verdict::Newer,
                JournalError::Io { .. } => Verdict::Unreadable,
                _ => Verdict::Damaged,
            };
            let mut what = error.to_string();
            if let Some(cause) = std::error::Error::source(error) {
                what.push_str(&format!(": {cause}"));
            }
            (verdict, what, 0)
        }
    };
    let (index, index_seen) = match witness {
        Witness::None => ("none: it could not be asked whether records are missing at the end".into(), None),
        Witness::Silent(why) => (format!("not asked whether records are missing at the end: {why}"), None),
        Witness::Seen { seq, .. } => (
            match agrees {
                _ if *seq > at.seq => format!("has seen record {seq}"),
                Some(false) => format!("is of another journal: its record {seq} is not this one's; the next start makes it again"),
                _ if *seq < at.seq => format!(
                    "is behind: it has seen record {seq} of {} and does not know whether one is missing at the end",
                    at.seq
                ),
                _ => format!("agrees: it has seen record {seq} and no later one"),
            },
            Some(*seq),
        ),
    };
    if let Some(seen) = index_seen.filter(|seen| *seen > at.seq)
        && matches!(verdict, Verdict::Whole | Verdict::Torn | Verdict::None)
    {
        let missing = seen - at.seq;
        let records = if missing == 1 { "record is" } else { "records are" };
        let end = match torn_bytes {
            0 => String::new(),
            bytes => format!(", and {bytes} bytes of the next"),
        };
        what = format!(
            "{missing} acknowledged {records} missing at the end: the journal ends with record {}{end}, but the index has seen record {seen}",
            at.seq
        );
        verdict = Verdict::Damaged;
    }
    Verified {
        index,
        index_seen,
        verdict,
        what,
        records: at.seq,
        hash: hex::encode(at.hash),
        last,
        segments: reader.segment(),
        torn_bytes,
    }
}

/// Read on to the end. An end that looks torn is looked at again for a moment: a guard may be writing there just now.
///
/// # Errors
/// Those of [`Reader::read`].
pub fn read_to_end(reader: &mut Reader, visit: &mut dyn FnMut(Record, &Head) -> anyhow::Result<()>) -> Result<JournalTail, JournalError> {
    let mut tail = reader.read(visit)?;
    for _ in 0..LOOKS {
        if tail.torn.is_empty() {
            break;
        }
        std::thread::sleep(PAUSE);
        let again = reader.read(visit)?;
        // Each look must find the very same bytes; a writer that is at work changes them.
        tail = again;
    }
    Ok(tail)
}

impl JournalTail {
    /// The torn end in a sentence.
    pub fn torn_words(&self) -> String {
        format!(
            "the journal ends with {} bytes of a record whose writing did not end ({}, byte {}, after record {}). Nothing is acknowledged before it is whole, so \
             after a crash nothing is missing; the next start of the guard cuts these bytes off and keeps them in quarantine",
            self.torn.len(),
            super::segment_name(self.segment),
            self.offset,
            self.head.seq
        )
    }
}
