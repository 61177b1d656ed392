//! Answers from the journal alone: for the command line, which must not depend on a running daemon, and for a daemon whose index is out of use. Reads
//! without a lock; a record that is being written at the moment is not seen.

use super::book::{Book, Folded};
use super::flags::{Flags, cases_beside};
use super::standing::{Excluded, Standing};
use crate::case::CaseId;
use crate::journal::verify::read_to_end;
use crate::journal::{JournalError, JournalTail, Reader};
use crate::vfs::{Disk, Vfs};
use anyhow::Result;
use delta_guard_contract::{Flagged, TrainId};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything that the journal says.
pub fn replay(vfs: &Arc<dyn Vfs>, journal_dir: &Path) -> Result<Book> {
    Ok(fold(vfs, journal_dir, &mut |_| {})?.0)
}

/// Everything that the journal of a state folder says, and where it ends.
pub fn read(state_dir: &Path) -> Result<(Book, JournalTail)> {
    let vfs: Arc<dyn Vfs> = Arc::new(Disk);
    fold(&vfs, &state_dir.join("journal"), &mut |_| {})
}

/// What can be said from a journal, whatever its condition.
#[derive(Debug, Default)]
pub struct Salvage {
    /// The fold of every record up to the first that is not as it was written.
    pub book: Book,
    /// What was flagged; see [`Salvage::flagged`].
    flags: Flags,
    cases_dir: PathBuf,
    /// Bytes of a record whose writing did not end, in a sentence.
    pub torn: Option<String>,
    /// Why there may be more than this.
    pub damage: Option<JournalError>,
}

impl Salvage {
    /// What was flagged, per case or for the one that is asked for, strongest first; or why that cannot be said.
    pub fn flagged(&self, only: Option<&CaseId>) -> Vec<(CaseId, Result<Vec<Flagged>>)> {
        let cases = self.flags.cases(&self.book).into_iter().filter(|id| only.is_none_or(|only| only == id));
        cases.map(|id| (id.clone(), self.flags.of(&self.book, &self.cases_dir, &id))).collect()
    }
}

/// Everything that a journal says up to where it is whole, and what is wrong there. Never an error: who asks is to be answered and told.
pub fn salvage(journal_dir: &Path) -> Salvage {
    let (mut book, mut flags) = (Book::default(), Flags::default());
    let mut reader = Reader::new(Arc::new(Disk), journal_dir);
    let outcome = read_to_end(&mut reader, &mut |record, _| {
        flags.gather(book.fold_record(record)?);
        Ok(())
    });
    let (torn, damage) = match outcome {
        Ok(tail) => ((!tail.torn.is_empty()).then(|| tail.torn_words()), None),
        Err(error) => (None, Some(error)),
    };
    Salvage {
        book,
        flags,
        cases_dir: cases_beside(journal_dir),
        torn,
        damage,
    }
}

/// The standing exclusion list of a state folder, and the cases that it comes from.
///
/// # Errors
/// When the journal cannot be read, or does not lead to what was flagged for one of them.
pub fn standing(state_dir: &Path) -> Result<(Vec<Excluded>, Standing)> {
    let vfs: Arc<dyn Vfs> = Arc::new(Disk);
    let journal_dir = state_dir.join("journal");
    let (book, flags) = flags(&vfs, &journal_dir)?;
    let excluded = book.approvals.excluded.clone();
    let standing = Standing::of(&excluded, |case| flags.of(&book, &cases_beside(&journal_dir), case))?;
    Ok((excluded, standing))
}

/// What was flagged for a case, strongest first.
///
/// # Errors
/// When the journal or the file that it names cannot be read.
pub fn flagged(vfs: &Arc<dyn Vfs>, journal_dir: &Path, case: &CaseId) -> Result<Vec<Flagged>> {
    let (book, flags) = flags(vfs, journal_dir)?;
    flags.of(&book, &cases_beside(journal_dir), case)
}

/// The cases that a training example was flagged for, in the order of their ids.
///
/// # Errors
/// When the journal or a file that it names cannot be read.
pub fn cases_of(vfs: &Arc<dyn Vfs>, journal_dir: &Path, id: &TrainId) -> Result<Vec<CaseId>> {
    let (book, flags) = flags(vfs, journal_dir)?;
    flags.cases_of(&book, &cases_beside(journal_dir), id)
}

fn flags(vfs: &Arc<dyn Vfs>, journal_dir: &Path) -> Result<(Book, Flags)> {
    let mut flags = Flags::default();
    let (book, _) = fold(vfs, journal_dir, &mut |folded| flags.gather(folded))?;
    Ok((book, flags))
}

fn fold(vfs: &Arc<dyn Vfs>, journal_dir: &Path, each: &mut dyn FnMut(Folded)) -> Result<(Book, JournalTail)> {
    let mut book = Book::default();
    let tail = Reader::new(Arc::clone(vfs), journal_dir).read(&mut |record, _| {
        each(book.fold_record(record)?);
        Ok(())
    })?;
    // A list that is gone was told by the guard at its start.
    book.outbox.open_lists(&cases_beside(journal_dir));
    Ok((book, tail))
}
