//! The standing exclusion list: training examples that promoted and approved repairs took out. They stay out of every later one: a second repair's candidate,
//! trained on everything but its own flagged examples, would hold the first case's poisons again.
//!
//! The journal says which cases count ([`super::Book::excluded`]); the ids are those that were flagged for them.

use crate::case::{CaseId, StandingUse};
use anyhow::{Result, ensure};
use delta_guard_contract::{Digest, FlaggedExample, TrainId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A case whose flagged examples stay out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Excluded {
    /// The case.
    pub case: CaseId,
    /// BLAKE3 of its flagged ids, one a line, sorted.
    pub ids: Digest,
    /// How many it flagged.
    pub count: u64,
    /// Since when.
    pub at: Timestamp,
    /// The user who approved it; None: it was promoted.
    pub by: Option<u32>,
}

/// The list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// The ids, sorted, each once.
    pub ids: Vec<TrainId>,
}

impl Standing {
    /// The union of what was flagged for these cases.
    ///
    /// # Errors
    /// When `flagged` fails, or does not give what the journal says was flagged: a list with holes would let poisons back in.
    pub fn of(cases: &[Excluded], mut flagged: impl FnMut(&CaseId) -> Result<Vec<FlaggedExample>>) -> Result<Self> {
        let mut all = BTreeSet::new();
        for excluded in cases {
            let ids: BTreeSet<TrainId> = flagged(&excluded.case)?.into_iter().map(|example| example.id).collect();
            let ids: Vec<TrainId> = ids.into_iter().collect();
            let found = digest_ids(&ids);
            ensure!(
                found == excluded.ids,
                "the flagged examples of case {} are not those that were excluded: their BLAKE3 is {found}, not {}",
                excluded.case,
                excluded.ids
            );
            all.extend(ids);
        }
        Ok(Self {
            ids: all.into_iter().collect(),
        })
    }

    /// BLAKE3 of the ids, one a line; None for an empty list.
    pub fn digest(&self) -> Option<Digest> {
        (!self.ids.is_empty()).then(|| digest_ids(&self.ids))
    }

    /// How a candidate names it; None for an empty list.
    pub fn named(&self) -> Option<StandingUse> {
        self.digest().map(|digest| StandingUse {
            digest,
            count: self.ids.len() as u64,
        })
    }
}

/// BLAKE3 of ids, one a line.
pub(super) fn digest_ids(ids: &[TrainId]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for id in ids {
        hasher.update(id.0.as_bytes()).update(b"\n");
    }
    Digest(hasher.finalize().to_hex().to_string())
}
