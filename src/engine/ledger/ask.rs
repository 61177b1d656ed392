//! Questions: open cases are in memory, everything else comes from the index. Where there is none, or it fails or contradicts what is known, the answer comes
//! from the journal, and the index is made again.

use super::Ledger;
use crate::case::{Case, CaseId};
use crate::engine::query;
use crate::engine::standing::digest_ids;
use crate::index::Lookup;
use anyhow::{Result, ensure};
use delta_guard_contract::{Flagged, TrainId};
use std::collections::BTreeSet;

/// Cases that are looked up for a list before its order is looked at again.
const LIST_STEP: usize = 256;

impl Ledger {
    /// Ask the index; where that does not do, the journal.
    fn ask<T>(&self, index: impl FnOnce(&Lookup) -> Result<T>, journal: impl FnOnce() -> Result<T>) -> Result<T> {
        // Reading it takes no lock of ours.
        let lookup = self.inner().store.as_ref().map(crate::index::Store::lookup);
        if let Some(lookup) = lookup {
            match index(&lookup) {
                Ok(answer) => return Ok(answer),
                Err(error) => self.doubt_index(&lookup, &error),
            }
        }
        journal()
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
    pub fn flagged(&self, id: &CaseId) -> Result<Vec<Flagged>> {
        let case = self.case(id)?;
        self.ask(
            |lookup| {
                let found = lookup.flagged(id)?;
                // A case that goes on may have its examples written at this moment.
                if let Some(trace) = case.as_ref().filter(|case| case.told).and_then(Case::trace) {
                    let ids: BTreeSet<&TrainId> = found.iter().map(|example| &example.id).collect();
                    let ids: Vec<TrainId> = ids.into_iter().cloned().collect();
                    ensure!(digest_ids(&ids) == trace.ids, "it has other examples for case {id} than were flagged");
                }
                Ok(found)
            },
            || query::flagged(&self.vfs, &self.journal_dir, id),
        )
    }

    /// The cases that a training example was flagged for.
    pub fn cases_of(&self, id: &TrainId) -> Result<Vec<CaseId>> {
        self.ask(|lookup| lookup.cases_of(id), || query::cases_of(&self.vfs, &self.journal_dir, id))
    }
}

/// A case that there is.
fn known(lookup: &Lookup, id: &CaseId) -> Result<Case> {
    match lookup.case(id)? {
        Some(case) => Ok(case),
        None => anyhow::bail!("it does not know case {id}"),
    }
}
