//! What was flagged, case by case, as the journal tells it: the record names a file of the case, and its digest. (Journals of the first version hold the examples
//! themselves.)

use super::book::{Book, Folded};
use super::kept;
use crate::case::{CaseId, Kept};
use anyhow::{Context, Result};
use delta_guard_contract::{Flagged, TrainId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the folders of the cases lie: beside the journal's.
pub(super) fn cases_beside(journal_dir: &Path) -> PathBuf {
    journal_dir.with_file_name("cases")
}

/// What was flagged for a case, strongest first, from its file.
///
/// # Errors
/// When the file is gone or was changed; the sentence says what to do.
pub(super) fn load(cases_dir: &Path, id: &CaseId, file: &Kept) -> Result<Vec<Flagged>> {
    kept::load(&cases_dir.join(&id.0), file).with_context(|| {
        format!(
            "the flagged examples of case {} cannot be read; put their file back from a copy",
            id.short()
        )
    })
}

/// Gathers it as the journal is folded. Files are read only when they are asked for.
#[derive(Debug, Default)]
pub struct Flags(BTreeMap<u64, Of>);

#[derive(Debug)]
enum Of {
    /// They were in records.
    Here(Vec<Flagged>),
    /// They are in this file.
    There(Kept),
}

impl Flags {
    /// Take in what a record changed.
    pub(super) fn gather(&mut self, folded: Folded) {
        match folded {
            Folded::Cleared(case) => drop(self.0.remove(&case)),
            Folded::Traced(case, file) => drop(self.0.insert(case, Of::There(file))),
            Folded::Flagged(case, examples) => match self.0.entry(case).or_insert_with(|| Of::Here(Vec::new())) {
                Of::Here(all) => all.extend(examples),
                there => *there = Of::Here(examples),
            },
            Folded::Nothing | Folded::Case(_) => {}
        }
    }

    /// What was flagged for a case, strongest first.
    ///
    /// # Errors
    /// See [`load`].
    pub fn of(&self, book: &Book, cases_dir: &Path, id: &CaseId) -> Result<Vec<Flagged>> {
        match book.numbers.get(id).and_then(|number| self.0.get(number)) {
            None => Ok(Vec::new()),
            Some(Of::Here(all)) => Ok(all.clone()),
            Some(Of::There(file)) => load(cases_dir, id, file),
        }
    }

    /// The cases for which something was flagged, by their ids.
    pub fn cases(&self, book: &Book) -> Vec<CaseId> {
        let flagged = |(id, number): (&CaseId, &u64)| self.0.contains_key(number).then(|| id.clone());
        let mut ids: Vec<CaseId> = book.numbers.iter().filter_map(flagged).collect();
        ids.sort();
        ids
    }

    /// The cases that a training example was flagged for, by their ids.
    ///
    /// # Errors
    /// See [`load`].
    pub(super) fn cases_of(&self, book: &Book, cases_dir: &Path, id: &TrainId) -> Result<Vec<CaseId>> {
        let mut found = Vec::new();
        for case in self.cases(book) {
            if self.of(book, cases_dir, &case)?.iter().any(|example| example.id == *id) {
                found.push(case);
            }
        }
        Ok(found)
    }
}
