//! The standing exclusion list: training examples that promoted and approved repairs took out. They stay out of every later one: a second repair's candidate,
//! trained on everything but its own flagged examples, would hold the first case's poisons again.
//!
//! The journal says which cases count ([`Approvals::excluded`](super::entry::approval::Approvals::excluded)); the ids are those that were flagged for them.

use crate::case::{CaseId, StandingUse};
use crate::publish;
use anyhow::{Context, Result, ensure};
use delta_guard_contract::{Digest, Flagged, TrainId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

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
    /// Where they come from, in the order in which the cases came to the list.
    pub cases: Vec<Earlier>,
}

/// A case from which the list comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// The case.
    pub case: CaseId,
    /// How many it flagged; another case may have flagged some of them, too.
    pub count: u64,
}

impl Standing {
    /// The union of what was flagged for these cases.
    ///
    /// # Errors
    /// When `flagged` fails, or does not give what the journal says was flagged: a list with holes would let poisons back in.
    pub fn of(cases: &[Excluded], mut flagged: impl FnMut(&CaseId) -> Result<Vec<Flagged>>) -> Result<Self> {
        let mut all = BTreeSet::new();
        for excluded in cases {
            let examples = flagged(&excluded.case).with_context(|| {
                let short = excluded.case.short();
                format!("the exclusion list would have a hole (`delta-guard approve {short} --undo` takes case {short} off it)")
            })?;
            let ids: BTreeSet<TrainId> = examples.into_iter().map(|example| example.id).collect();
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
        let earlier = |excluded: &Excluded| Earlier {
            case: excluded.case.clone(),
            count: excluded.count,
        };
        Ok(Self {
            ids: all.into_iter().collect(),
            cases: cases.iter().map(earlier).collect(),
        })
    }

    /// Keep the cases beside the case whose candidate is made under the list, for its report.
    pub(super) fn keep_cases(&self, case_dir: &Path) -> Result<()> {
        let Some(named) = self.named() else { return Ok(()) };
        publish::make_dir(case_dir)?;
        publish::publish_file(case_dir, &cases_file(&named), &serde_json::to_vec(&self.cases)?)
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

/// The cases of a list under which a candidate was made. Empty where nobody kept them (older versions).
pub(super) fn read_cases(case_dir: &Path, named: Option<&StandingUse>) -> Vec<Earlier> {
    let read = named.and_then(|named| fs_err::read(case_dir.join(cases_file(named))).ok());
    read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn cases_file(named: &StandingUse) -> String {
    format!("standing-{}-cases.json", named.digest.short())
}

/// BLAKE3 of ids, one a line.
pub(super) fn digest_ids(ids: &[TrainId]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for id in ids {
        hasher.update(id.0.as_bytes()).update(b"\n");
    }
    Digest(hasher.finalize().to_hex().to_string())
}
