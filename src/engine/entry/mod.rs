//! What a record of the journal says. Each room owns its kinds and their fold; here is the one place where a record becomes an entry, and an entry a record.

pub mod approval;
pub mod daemon;
pub mod inbox;
pub mod mail;

use crate::case::{CaseId, Event};
use crate::journal::Record;
use anyhow::{Context, Result, anyhow, bail};
use delta_guard_contract::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A record's meaning.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "one at a time, never in a collection")]
pub enum Entry {
    /// Something happened to a case.
    Case(CaseId, Event),
    /// The inbox dealt with a file that did not become one.
    Inbox(inbox::Note),
    /// A message came or went.
    Mail(mail::Note),
    /// A person asked for something.
    Approval(approval::Note),
    /// The daemon speaks of itself.
    Daemon(daemon::Note),
    /// The journal speaks of itself: where a segment begins and ends, what was cut off.
    Journal,
    /// Written by a newer program, which says that it may be skipped.
    Unknown,
}

/// An entry as it is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The record's kind.
    pub kind: &'static str,
    /// Must a program that does not know it stop?
    pub critical: bool,
    /// The case that it is about.
    pub case: Option<CaseId>,
    /// The content, as JSON.
    pub data: String,
}

/// Kinds of the journal's own records.
const JOURNAL: [&str; 3] = ["segment", "sealed", "journal.tail_cut"];

impl Entry {
    /// What a record says.
    ///
    /// # Errors
    /// When it must be understood, and is not.
    pub fn read(record: Record) -> Result<Self> {
        let Record {
            kind, critical, case, data, ..
        } = record;
        let found = match case {
            Some(case) => Event::read(&kind, data).map(|event| Entry::Case(Digest(case), event)),
            None if JOURNAL.contains(&kind.as_str()) => return Ok(Entry::Journal),
            None if inbox::Note::KINDS.contains(&kind.as_str()) => tagged(&kind, data).map(Entry::Inbox),
            None if mail::Note::KINDS.contains(&kind.as_str()) => tagged(&kind, data).map(Entry::Mail),
            None if approval::Note::KINDS.contains(&kind.as_str()) => tagged(&kind, data).map(Entry::Approval),
            None if daemon::Note::KINDS.contains(&kind.as_str()) => tagged(&kind, data).map(Entry::Daemon),
            None if critical => bail!("a record of kind `{kind}` that this program does not know"),
            None => return Ok(Entry::Unknown),
        };
        match found {
            Ok(entry) => Ok(entry),
            Err(error) if critical => Err(anyhow!(error).context(format!("a record of kind `{kind}` cannot be understood"))),
            Err(_) => Ok(Entry::Unknown),
        }
    }

    /// How it is recorded. Its texts are cut to their bounds first ([`Entry::bounded`]).
    ///
    /// # Errors
    /// When it cannot be written as JSON, or is none of ours to write.
    pub fn write(&self) -> Result<Written> {
        let (kind, critical, case, data) = match self {
            Entry::Case(id, event) => (event.kind(), true, Some(id.clone()), content(event.kind(), event)?),
            Entry::Inbox(note) => (note.kind(), false, None, content(note.kind(), note)?),
            Entry::Mail(note) => (note.kind(), false, None, content(note.kind(), note)?),
            Entry::Approval(note) => (note.kind(), note.is_critical(), None, content(note.kind(), note)?),
            Entry::Daemon(note) => (note.kind(), false, None, content(note.kind(), note)?),
            Entry::Journal | Entry::Unknown => bail!("this is not for us to record"),
        };
        Ok(Written { kind, critical, case, data })
    }

    /// With every text cut to its bound: what is recorded.
    pub fn bounded(self) -> Self {
        match self {
            Entry::Case(id, event) => Entry::Case(id, event.bounded()),
            Entry::Inbox(note) => Entry::Inbox(note.bounded()),
            Entry::Mail(note) => Entry::Mail(note.bounded()),
            Entry::Approval(note) => Entry::Approval(note.bounded()),
            Entry::Daemon(_) | Entry::Journal | Entry::Unknown => self,
        }
    }
}

impl From<inbox::Note> for Entry {
    fn from(note: inbox::Note) -> Self {
        Entry::Inbox(note)
    }
}

impl From<mail::Note> for Entry {
    fn from(note: mail::Note) -> Self {
        Entry::Mail(note)
    }
}

impl From<approval::Note> for Entry {
    fn from(note: approval::Note) -> Self {
        Entry::Approval(note)
    }
}

impl From<daemon::Note> for Entry {
    fn from(note: daemon::Note) -> Self {
        Entry::Daemon(note)
    }
}

/// Kind and content lie side by side in a record; together they are one of a room's notes.
fn tagged<T: DeserializeOwned>(kind: &str, data: Value) -> serde_json::Result<T> {
    serde_json::from_value(serde_json::json!({ "k": kind, "d": data }))
}

/// The content alone: `{"k":…,"d":…}` without what the record's head says.
fn content<T: Serialize>(kind: &str, note: &T) -> Result<String> {
    let text = serde_json::to_string(note)?;
    let head = format!("{{\"k\":\"{kind}\",\"d\":");
    let data = text.strip_prefix(&head).and_then(|rest| rest.strip_suffix('}'));
    Ok(data
        .with_context(|| format!("a note of kind `{kind}` is written in another form"))?
        .into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests;
