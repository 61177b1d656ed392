//! What becomes of a file that was handed in: the journal is read as it grows, from where it stood before.

use super::lookup;
use crate::case::{Case, CaseId, Event};
use crate::engine::entry::inbox::Note;
use crate::engine::{Book, Entry, RefusedFile};
use crate::journal::Reader;
use crate::text::escape;
use crate::vfs::Disk;
use anyhow::Context;
use std::path::Path;
use std::sync::Arc;

/// What the guard made of the file so far.
pub(super) enum Became<'a> {
    /// It has not been dealt with.
    Nothing,
    /// It is this case; the second says whether it was one already.
    Case(&'a Case, bool),
    /// The inbox did not take it.
    Refused(&'a RefusedFile),
}

/// Waits for one file of the inbox to be dealt with, and follows the case that it becomes.
pub(super) struct Arrival {
    reader: Reader,
    book: Book,
    /// The file's name in the inbox, as the journal writes it.
    name: String,
    case: Option<CaseId>,
    /// Was it a case already?
    again: bool,
    refused: Option<RefusedFile>,
}

impl Arrival {
    /// To be called before the file is handed in: what the journal already says of its name is about an earlier file.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn expect(state: &Path, name: &str) -> anyhow::Result<Self> {
        lookup::journal(state)?;
        let mut arrival = Self {
            reader: Reader::new(Arc::new(Disk), &state.join("journal")),
            book: Book::default(),
            name: escape(name.as_bytes()),
            case: None,
            again: false,
            refused: None,
        };
        arrival.read()?;
        (arrival.case, arrival.refused) = (None, None);
        Ok(arrival)
    }

    /// Read on.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn look(&mut self) -> anyhow::Result<Became<'_>> {
        self.read()?;
        let case = self.case.as_ref().and_then(|id| self.book.cases.get(self.book.numbers.get(id)?));
        Ok(match (case, &self.refused) {
            (Some(case), _) => Became::Case(case, self.again),
            (None, Some(refused)) => Became::Refused(refused),
            (None, None) => Became::Nothing,
        })
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let Self {
            reader,
            book,
            name,
            case,
            again,
            refused,
        } = self;
        reader
            .read(&mut |record, _| {
                let (seq, at) = (record.seq, record.time);
                let entry = Entry::read(record)?;
                match said(&entry, name) {
                    Some(Said::Case(id, known)) => (*case, *again) = (Some(id), known),
                    Some(Said::Refused(file)) => *refused = Some(file),
                    None => {}
                }
                book.fold(entry, seq, at)?;
                Ok(())
            })
            .context("the journal cannot be read")?;
        Ok(())
    }
}

enum Said {
    Case(CaseId, bool),
    Refused(RefusedFile),
}

/// What an entry says of the file of this name.
fn said(entry: &Entry, wanted: &str) -> Option<Said> {
    match entry {
        Entry::Case(case, Event::Accepted(accepted)) if accepted.name == wanted => Some(Said::Case(case.clone(), false)),
        Entry::Inbox(Note::Duplicate { of, name, .. }) if name == wanted => Some(Said::Case(of.clone(), true)),
        Entry::Inbox(Note::FileRefused(file)) if file.name == wanted => Some(Said::Refused(file.clone())),
        _ => None,
    }
}
