//! Questions: open cases are in memory, everything else comes from the index. Where there is none, or it fails or contradicts what is known, the answer comes
//! from the journal, and the index is made again.

use super::Ledger;
use crate::case::{Case, CaseId};
use crate::engine::flags::{self, cases_beside};
use crate::engine::query;
use crate::engine::standing::digest_ids;
use crate::index::Lookup;
use anyhow::{Result, ensure};
use delta_guard_contract::{Digest, Flagged, TrainId};
use std::collections::BTreeSet;

/// Cases that are looked up for a list before its order is looked at again.
const LIST_STEP: usize = 256;

impl Ledger {
    /// Ask the index; where that does not do, the journal.
    fn ask<T>(&self, index: impl FnOnce(&Lookup) -> Result<T>, journal: impl FnOnce() -> Result<T>) -> Result<T> {
        if let Some(lookup) = self.lookup() {
            match index(&lookup) {
                Ok(answer) => return Ok(answer),
                Err(error) => self.doubt_index(&lookup, &error),
            }
        }
        journal()
    }

    /// A way to read the index, where there is one. Reading takes no lock of ours.
    fn lookup(&self) -> Option<Lookup> {
        self.inner().store.as_ref().map(crate::index::Store::lookup)
    }

    /// A case, whatever its state. Ended ones come from the index, or without it from the journal.
    pub fn case(&self, id: &CaseId) -> Result<Option<Case>> {
        let number = {
            let inner = self.inner();
            let Some(number) = inner.book.numbers.get(id).copied() else {
                return Ok(None);
            };
            if let Some(case) = inner.book.cases.get(&number) {
                return Ok(Some(case.clone()));
            }
            number
        };
        self.ask(
            |lookup| known(lookup, id).map(Some),
            || Ok(query::replay(&self.vfs, &self.journal_dir)?.cases.remove(&number)),
        )
    }

    /// Every case, in journal order.
    pub fn cases(&self) -> Result<Vec<Case>> {
        let least = self.order().len();
        self.ask(
            |lookup| {
                let cases = lookup.cases()?;
                ensure!(cases.len() >= least, "it has {} of {least} cases", cases.len());
                Ok(cases)
            },
            || Ok(query::replay(&self.vfs, &self.journal_dir)?.cases.into_values().collect()),
        )
    }

    /// At most `limit` of the cases that `wanted` takes, the newest first. Reads no more cases than it must.
    pub fn newest(&self, limit: usize, wanted: impl Fn(&Case) -> bool) -> Result<Vec<Case>> {
        self.ask(
            |lookup| {
                let mut found = Vec::new();
                let mut before = self.order().len();
                while before > 0 && found.len() < limit {
                    let some: Vec<CaseId> = self.order()[before.saturating_sub(LIST_STEP)..before].to_vec();
                    before = before.saturating_sub(LIST_STEP);
                    for id in some.iter().rev() {
                        found.extend(Some(known(lookup, id)?).filter(&wanted));
                        if found.len() == limit {
                            break;
                        }
                    }
                }
                Ok(found)
            },
            || {
                let all = query::replay(&self.vfs, &self.journal_dir)?.cases.into_values().rev();
                Ok(all.filter(&wanted).take(limit).collect())
            },
        )
    }

    /// At most `limit` cases whose id begins with `digits`, in journal order.
    pub fn begin_with(&self, digits: &str, limit: usize) -> Result<Vec<Case>> {
        if digits.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<CaseId> = self.order().iter().filter(|id| id.0.starts_with(digits)).take(limit).cloned().collect();
        ids.iter().filter_map(|id| self.case(id).transpose()).collect()
    }

    /// What was flagged for a case, strongest first.
    ///
    /// # Errors
    /// When it cannot be read; where a file of the case is gone or was changed, the sentence says what to do.
    pub fn flagged(&self, id: &CaseId) -> Result<Vec<Flagged>> {
        let case = self.case(id)?;
        let trace = case.as_ref().and_then(Case::trace);
        if let Some(trace) = trace
            && let Some(file) = &trace.flagged
        {
            let known = |found: &Vec<Flagged>| are(found, &trace.ids);
            // The index has a copy, which its digest proves.
            return flags::load(&cases_beside(&self.journal_dir), id, file)
                .or_else(|error| self.lookup().and_then(|lookup| lookup.flagged(id).ok()).filter(known).ok_or(error));
        }
        self.ask(
            |lookup| {
                let found = lookup.flagged(id)?;
                // A case that goes on may have its examples written at this moment.
                if let Some(trace) = trace.filter(|_| case.as_ref().is_some_and(|case| case.told)) {
                    ensure!(are(&found, &trace.ids), "it has other examples for case {id} than were flagged");
                }
                Ok(found)
            },
            || query::flagged(&self.vfs, &self.journal_dir, id),
        )
    }

    /// The cases that a training example was flagged for.
    ///
    /// # Errors
    /// When that cannot be said of a case, because what it flagged cannot be read.
    pub fn cases_of(&self, id: &TrainId) -> Result<Vec<CaseId>> {
        let (mut found, unread) = self.ask(
            |lookup| Ok((lookup.cases_of(id)?, lookup.unread()?)),
            || Ok((query::cases_of(&self.vfs, &self.journal_dir, id)?, Vec::new())),
        )?;
        for case in unread {
            if self.flagged(&case)?.iter().any(|example| example.id == *id) {
                found.push(case);
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
}

/// Are these the examples whose ids have this digest?
fn are(found: &[Flagged], ids: &Digest) -> bool {
    let found: BTreeSet<&TrainId> = found.iter().map(|example| &example.id).collect();
    digest_ids(&found.into_iter().cloned().collect::<Vec<_>>()) == *ids
}

/// A case that there is.
fn known(lookup: &Lookup, id: &CaseId) -> Result<Case> {
    match lookup.case(id)? {
        Some(case) => Ok(case),
        None => anyhow::bail!("it does not know case {id}"),
    }
}
