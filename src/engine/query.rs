//! Answers from the journal alone: for the command line, which must not depend on a running daemon, and for a daemon whose index is out of use. Reads
//! without a lock; a record that is being written at the moment is not seen.

use super::book::{Book, Folded};
use super::standing::{Excluded, Standing};
use crate::case::CaseId;
use crate::journal::verify::read_to_end;
use crate::journal::{JournalError, Reader, Tail};
use crate::vfs::{Disk, Vfs};
use anyhow::Result;
use delta_guard_contract::{Flagged, TrainId};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Everything that the journal says.
pub fn replay(vfs: &Arc<dyn Vfs>, journal_dir: &Path) -> Result<Book> {
    Ok(fold(vfs, journal_dir, &mut |_| {})?.0)
}

/// Everything that the journal of a state folder says, and where it ends.
pub fn read(state_dir: &Path) -> Result<(Book, Tail)> {
    let vfs: Arc<dyn Vfs> = Arc::new(Disk);
    fold(&vfs, &state_dir.join("journal"), &mut |_| {})
}

/// What can be said from a journal, whatever its condition.
#[derive(Debug, Default)]
pub struct Salvage {
    /// The fold of every record up to the first that is not as it was written.
    pub book: Book,
    /// What was flagged, per case, strongest first.
    pub flagged: BTreeMap<CaseId, Vec<Flagged>>,
    /// Bytes of a record whose writing did not end, in a sentence.
    pub torn: Option<String>,
    /// Why there may be more than this.
    pub damage: Option<JournalError>,
}

/// Everything that a journal says up to where it is whole, and what is wrong there. Never an error: who asks is to be answered and told.
pub fn salvage(journal_dir: &Path) -> Salvage {
    let mut book = Book::default();
    let mut all: BTreeMap<u64, Vec<Flagged>> = BTreeMap::new();
    let mut reader = Reader::new(Arc::new(Disk), journal_dir);
    let outcome = read_to_end(&mut reader, &mut |record, _| {
        gather(&mut all, book.fold_record(record)?);
        Ok(())
    });
    let flagged = by_case(&book, all);
    let (torn, damage) = match outcome {
        Ok(tail) => ((!tail.torn.is_empty()).then(|| tail.torn_words()), None),
        Err(error) => (None, Some(error)),
    };
    Salvage { book, flagged, torn, damage }
}

fn gather(all: &mut BTreeMap<u64, Vec<Flagged>>, folded: Folded) {
    match folded {
        Folded::Cleared(case) => drop(all.remove(&case)),
        Folded::Flagged(case, examples) => all.entry(case).or_default().extend(examples),
        Folded::Nothing | Folded::Case(_) => {}
    }
}

fn by_case(book: &Book, all: BTreeMap<u64, Vec<Flagged>>) -> BTreeMap<CaseId, Vec<Flagged>> {
    all.into_iter()
        .filter_map(|(number, examples)| Some((book.cases.get(&number)?.id.clone(), examples)))
        .collect()
}

/// The standing exclusion list of a state folder, and the cases that it comes from.
///
/// # Errors
/// When the journal cannot be read, or does not hold what was flagged for one of them.
pub fn standing(state_dir: &Path) -> Result<(Vec<Excluded>, Standing)> {
    let vfs: Arc<dyn Vfs> = Arc::new(Disk);
    let excluded = read(state_dir)?.0.approvals.excluded;
    let mut flagged = all_flagged(&vfs, &state_dir.join("journal"))?;
    let standing = Standing::of(&excluded, |case| Ok(flagged.remove(case).unwrap_or_default()))?;
    Ok((excluded, standing))
}

/// What was flagged for a case, strongest first.
pub fn flagged(vfs: &Arc<dyn Vfs>, journal_dir: &Path, case: &CaseId) -> Result<Vec<Flagged>> {
    Ok(all_flagged(vfs, journal_dir)?.remove(case).unwrap_or_default())
}

/// The cases that a training example was flagged for, in the order of their ids.
pub fn cases_of(vfs: &Arc<dyn Vfs>, journal_dir: &Path, id: &TrainId) -> Result<Vec<CaseId>> {
    let all = all_flagged(vfs, journal_dir)?;
    Ok(all
        .into_iter()
        .filter(|(_, examples)| examples.iter().any(|example| example.id == *id))
        .map(|(case, _)| case)
        .collect())
}

/// What was flagged, per case, strongest first.
pub fn all_flagged(vfs: &Arc<dyn Vfs>, journal_dir: &Path) -> Result<BTreeMap<CaseId, Vec<Flagged>>> {
    let mut all: BTreeMap<u64, Vec<Flagged>> = BTreeMap::new();
    let (book, _) = fold(vfs, journal_dir, &mut |folded| gather(&mut all, folded))?;
    Ok(by_case(&book, all))
}

fn fold(vfs: &Arc<dyn Vfs>, journal_dir: &Path, each: &mut dyn FnMut(Folded)) -> Result<(Book, Tail)> {
    let mut book = Book::default();
    let tail = Reader::new(Arc::clone(vfs), journal_dir).read(&mut |record, _| {
        each(book.fold_record(record)?);
        Ok(())
    })?;
    Ok((book, tail))
}
