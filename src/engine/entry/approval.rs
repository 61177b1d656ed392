//! What a person asked for, and the fold that says what stays out and how much the guard may still do by itself.

use crate::case::{Case, CaseId, bounds};
use crate::engine::asked::Request;
use crate::engine::standing::Excluded;
use crate::policy::{PastPromotion, Spent};
use delta_guard_contract::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What is recorded of a person's word beside what happens to the case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k", content = "d", rename_all = "kebab-case")]
pub enum Note {
    /// Somebody asked for something at the command line.
    Asked {
        /// The request's id.
        id: String,
        /// The user who asked.
        by: u32,
        /// What, and why.
        request: Request,
        /// Was it done?
        done: bool,
        /// What came of it, in a sentence.
        answer: String,
    },
    /// A promoted repair is in use after all, or again: its flagged examples stay out of later ones. (In journals of the first version: a proposed one, put in
    /// use by hand.)
    Approved {
        /// The case.
        case: CaseId,
        /// BLAKE3 of its flagged ids, one a line, sorted.
        ids: Digest,
        /// How many there are.
        count: u64,
        /// The user who said so.
        by: u32,
    },
    /// A promotion or approval was taken back.
    Withdrawn {
        /// The case.
        case: CaseId,
        /// The user who said so.
        by: u32,
    },
}

impl Note {
    /// Every kind.
    pub const KINDS: [&str; 3] = ["asked", "approved", "withdrawn"];

    /// The record's kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Note::Asked { .. } => "asked",
            Note::Approved { .. } => "approved",
            Note::Withdrawn { .. } => "withdrawn",
        }
    }

    /// Must a program that does not know it stop? Without an approval it would put excluded examples back.
    pub fn is_critical(&self) -> bool {
        matches!(self, Note::Approved { .. } | Note::Withdrawn { .. })
    }

    pub(super) fn bounded(self) -> Self {
        let cut = |text: String| bounds::cut(&text, bounds::NOTE);
        match self {
            Note::Asked {
                id,
                by,
                request,
                done,
                answer,
            } => Note::Asked {
                id: cut(id),
                by,
                request: Request {
                    reason: cut(request.reason),
                    ..request
                },
                done,
                answer: cut(answer),
            },
            Note::Approved { .. } | Note::Withdrawn { .. } => self,
        }
    }
}

/// What follows from promotions and from a person's word.
#[derive(Debug, Default)]
pub struct Approvals {
    /// Cases whose flagged examples stay out of later repairs, in the order in which they came to it.
    pub excluded: Vec<Excluded>,
    /// What was promoted, as far as the caps count it.
    pub spent: Spent,
}

impl Approvals {
    pub(in crate::engine) fn fold(&mut self, note: Note, at: Timestamp) {
        match note {
            Note::Asked { .. } => {}
            Note::Approved { case, ids, count, by } => {
                self.excluded.retain(|excluded| excluded.case != case);
                self.excluded.push(Excluded {
                    case,
                    ids,
                    count,
                    at,
                    by: Some(by),
                });
                self.spent.approve(at);
            }
            Note::Withdrawn { case, .. } => self.excluded.retain(|excluded| excluded.case != case),
        }
    }

    /// A case came to be promoted: what it flagged stays out, and the caps count it.
    pub(in crate::engine) fn promoted(&mut self, case: &Case, at: Timestamp) {
        let Some(trace) = case.trace() else { return };
        let by = case.phase.approval().and_then(|approval| approval.by.user());
        self.excluded.push(Excluded {
            case: case.id.clone(),
            ids: trace.ids.clone(),
            count: trace.found.count(),
            at,
            by,
        });
        self.spent.promoted(PastPromotion {
            at,
            submitter: case.accepted.uid,
            by_person: by.is_some(),
            found: trace.found.clone(),
        });
    }
}
