//! What a case is and what may happen to it next: pure functions of (case, event). No file, no clock, no process in here.
//!
//! A case is one accepted picture. Its history is a list of [`Event`]s in the journal; [`Case::apply`] folds them, [`next::next`] says what to do.

pub mod bounds;
mod event;
mod message;
pub mod next;
mod refusal;
mod transitions;

pub use bounds::Kept;
pub use event::{Accepted, Claim, End, Event, FileIdentity, HoldCause, Published, Retried, Stage, StandingUse, TraceSummary};
pub use message::{Message, message_id};
pub use refusal::{Refusal, RefusedFile};
pub use transitions::{Illegal, Move, TRANSITIONS};

use crate::policy::{Decision, GateVerdict};
use delta_guard_contract::config::UnlearnMethod;
use delta_guard_contract::job::{CertifyResult, FitResult, Prediction, TrainResult};
use delta_guard_contract::{Digest, FaultKind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Name of a case: BLAKE3 of content, claimed labels and production checkpoint (see [`case_id`]).
pub type CaseId = Digest;

/// The id of a case. Equal content with another claim, or judged against another checkpoint, is another case.
pub fn case_id(content: &Digest, claim: &Claim, checkpoint: &Digest) -> CaseId {
    let mut hasher = blake3::Hasher::new_derive_key("delta-guard case v1");
    let labels = [claim.predicted_label.as_deref(), claim.true_label.as_deref()];
    for part in [Some(content.0.as_str()), labels[0], labels[1], Some(checkpoint.0.as_str())] {
        // Length first, so that no two lists of parts run together to the same bytes; a missing part is not an empty one.
        hasher.update(&part.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
        hasher.update(part.unwrap_or_default().as_bytes());
    }
    Digest(hasher.finalize().to_hex().to_string())
}

/// Where a case stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Taken in; to be predicted.
    Accepted,
    /// Predicted; to be fitted.
    Predicted,
    /// Factors are on disk; to be traced.
    Fitted,
    /// Traced; to be decided.
    Traced,
    /// Decided; to be unlearned.
    Decided,
    /// A candidate was trained; to be certified.
    Unlearned,
    /// Measured and judged; to be published.
    Certified,
    /// The candidate folder stands.
    Published,
    /// The `current` link is about to be moved.
    Promoting,
    /// Waits for a person: something must be mended, allowed, or put back ([`HoldCause`]).
    Held,
    /// End: the submission was not acceptable.
    Refused,
    /// End: the model reads the picture correctly, or not as the submission says.
    NoAnomaly,
    /// End: nothing stands out, nothing was removed; a person decides.
    Undecided,
    /// End: reported only (mode `observe`).
    Observed,
    /// End: a candidate that passed the gate waits for a person's promotion.
    Proposed,
    /// End: `current` points to the candidate.
    Promoted,
    /// End: the candidate did not pass the gate; it is kept, marked rejected.
    Rejected,
    /// End: it could not be finished.
    Failed,
}

impl State {
    /// Every state.
    pub const ALL: [State; 18] = [
        State::Accepted,
        State::Predicted,
        State::Fitted,
        State::Traced,
        State::Decided,
        State::Unlearned,
        State::Certified,
        State::Published,
        State::Promoting,
        State::Held,
        State::Refused,
        State::NoAnomaly,
        State::Undecided,
        State::Observed,
        State::Proposed,
        State::Promoted,
        State::Rejected,
        State::Failed,
    ];

    /// Its name, as in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Accepted => "accepted",
            State::Predicted => "predicted",
            State::Fitted => "fitted",
            State::Traced => "traced",
            State::Decided => "decided",
            State::Unlearned => "unlearned",
            State::Certified => "certified",
            State::Published => "published",
            State::Promoting => "promoting",
            State::Held => "held",
            State::Refused => "refused",
            State::NoAnomaly => "no-anomaly",
            State::Undecided => "undecided",
            State::Observed => "observed",
            State::Proposed => "proposed",
            State::Promoted => "promoted",
            State::Rejected => "rejected",
            State::Failed => "failed",
        }
    }

    /// The stage that a case in this state waits for or is in; None at an end.
    pub fn stage(self) -> Option<Stage> {
        Some(match self {
            State::Accepted => Stage::Predict,
            State::Predicted => Stage::Fit,
            State::Fitted => Stage::Trace,
            State::Traced => Stage::Decide,
            State::Decided => Stage::Unlearn,
            State::Unlearned => Stage::Certify,
            State::Certified | State::Published | State::Promoting => Stage::Publish,
            _ => return None,
        })
    }

    /// Is it an end?
    pub fn is_end(self) -> bool {
        self.stage().is_none() && self != State::Held
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A case: the fold of its events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Its name.
    pub id: CaseId,
    /// Journal number of its `accepted` record: the order in which cases are worked on.
    pub seq: u64,
    /// Where it stands.
    pub state: State,
    /// Where a held case goes on.
    pub held_at: Option<State>,
    /// What was taken in.
    pub accepted: Accepted,
    /// When it was taken in.
    pub accepted_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Failed attempts at the present stage.
    pub failures: u32,
    /// Time of the first of them; None in a journal's index of an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_since: Option<Timestamp>,
    /// Why it is held or how it ended, in a sentence.
    pub reason: String,
    /// What to do about it; may be empty.
    pub help: String,
    /// Kind of the fault that it is held for.
    pub held_for: Option<FaultKind>,
    /// What kind of hold it is; None while it is not held.
    #[serde(default)]
    pub held_cause: Option<HoldCause>,
    /// Journal number of the record that holds it.
    #[serde(default)]
    pub held_seq: Option<u64>,
    /// How often it was held.
    #[serde(default)]
    pub holds: u32,
    /// The user who let it pass the caps; that holds for one promotion.
    #[serde(default)]
    pub allowed_by: Option<u32>,
    /// How often a person asked for a new attempt, or a candidate came too late.
    #[serde(default)]
    pub attempt: u32,
    /// The method that was asked for; None: as configured.
    #[serde(default)]
    pub method: Option<UnlearnMethod>,
    /// The owner's own candidate: its path below the case's folder, and its BLAKE3.
    #[serde(default)]
    pub given: Option<(String, Digest)>,
    /// The standing exclusion list that the candidate was made under; None where there was none.
    #[serde(default)]
    pub standing: Option<StandingUse>,
    /// How the production model reads the picture.
    pub prediction: Option<Prediction>,
    /// The factors.
    pub fit: Option<FitResult>,
    /// What the trace found; the whole report is a file.
    pub trace: Option<TraceSummary>,
    /// What follows from it.
    pub decision: Option<Decision>,
    /// The candidate, as trained.
    pub unlearn: Option<TrainResult>,
    /// The candidate's file below the case's folder, and its digest.
    pub candidate_file: Option<(String, Digest)>,
    /// Before and after.
    pub certify: Option<CertifyResult>,
    /// The gate's verdict.
    pub gate: Option<GateVerdict>,
    /// Journal number of the record of the verdict; the manifest names it.
    pub certified_seq: Option<u64>,
    /// The candidate, as published.
    pub published: Option<Published>,
    /// The promotion under way: what `current` pointed to before, and what it shall point to.
    pub promotion: Option<(Option<String>, String)>,
    /// Seconds per stage, of the attempt that finished it.
    pub seconds: BTreeMap<Stage, f64>,
    /// Results that were too long for a record, whole.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<Stage, Kept>,
    /// Were some of its messages recorded already?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub queued: bool,
    /// Were report and messages made, of the end or of the present hold?
    pub told: bool,
}

impl Case {
    /// A new case.
    pub fn new(id: CaseId, accepted: Accepted, seq: u64, at: Timestamp) -> Self {
        Self {
            id,
            seq,
            state: State::Accepted,
            held_at: None,
            accepted,
            accepted_at: at,
            ended_at: None,
            failures: 0,
            failed_since: None,
            reason: String::new(),
            help: String::new(),
            held_for: None,
            held_cause: None,
            held_seq: None,
            holds: 0,
            allowed_by: None,
            attempt: 0,
            method: None,
            given: None,
            standing: None,
            prediction: None,
            fit: None,
            trace: None,
            decision: None,
            unlearn: None,
            candidate_file: None,
            certify: None,
            gate: None,
            certified_seq: None,
            published: None,
            promotion: None,
            seconds: BTreeMap::new(),
            kept: BTreeMap::new(),
            queued: false,
            told: false,
        }
    }

    /// Fold one event in. `seq` and `at` are its journal number and time. An error leaves the case as it was.
    pub fn apply(&mut self, event: &Event, seq: u64, at: Timestamp) -> Result<(), Illegal> {
        let to = transitions::target(self, event)?;
        match event {
            Event::Accepted(_) | Event::StageStarted { .. } | Event::Flagged { .. } => {}
            Event::Queued { .. } => self.queued = true,
            Event::PromoteIntent { from, to } => self.promotion = Some((from.clone(), to.clone())),
            Event::StageFailed { message, help, .. } => {
                self.failures += 1;
                self.failed_since.get_or_insert(at);
                // Why a case ended outlives the trouble of telling it.
                if !self.state.is_end() && self.state != State::Held {
                    (self.reason, self.help) = (message.clone(), help.clone());
                }
            }
            Event::Predicted { prediction, whole, seconds } => {
                self.prediction = Some(prediction.clone());
                self.keep(Stage::Predict, whole);
                self.seconds.insert(Stage::Predict, *seconds);
            }
            Event::Fitted { fit, whole, seconds } => {
                self.fit = Some(fit.clone());
                self.keep(Stage::Fit, whole);
                self.seconds.insert(Stage::Fit, *seconds);
            }
            Event::Traced { trace, seconds } => {
                self.trace = Some(trace.clone());
                self.seconds.insert(Stage::Trace, *seconds);
            }
            Event::Decided(decision) => self.decision = Some(decision.clone()),
            Event::Unlearned {
                result,
                file,
                digest,
                seconds,
                standing,
            } => {
                self.standing = standing.clone();
                self.unlearn = Some(result.clone());
                self.candidate_file = Some((file.clone(), digest.clone()));
                self.seconds.insert(Stage::Unlearn, *seconds);
            }
            Event::CandidateGiven { file, digest } => self.candidate_file = Some((file.clone(), digest.clone())),
            Event::Outdated { .. } => {
                self.attempt += 1;
                self.allowed_by = None;
                self.forget_candidate();
            }
            Event::Retried(again) => *self = Self::again(self.id.clone(), self.seq, again),
            Event::Certified {
                result,
                whole,
                gate,
                seconds,
            } => {
                self.certify = Some(result.clone());
                self.keep(Stage::Certify, whole);
                self.gate = Some(gate.clone());
                self.certified_seq = Some(seq);
                self.seconds.insert(Stage::Certify, *seconds);
            }
            Event::Published { published, seconds } => {
                self.published = Some(published.clone());
                self.seconds.insert(Stage::Publish, *seconds);
            }
            Event::Held { kind, reason, help, cause } => {
                self.held_at = Some(self.state);
                self.held_for = Some(*kind);
                self.held_cause = Some(*cause);
                self.held_seq = Some(seq);
                self.holds += 1;
                self.clean_slate();
                self.told = false;
                (self.reason, self.help) = (reason.clone(), help.clone());
            }
            Event::Resumed { by, .. } => {
                if self.held_cause == Some(HoldCause::Cap) {
                    self.allowed_by = *by;
                }
                self.held_at = None;
                self.held_for = None;
                self.held_cause = None;
                self.held_seq = None;
                self.told = false;
                self.clean_slate();
                self.reason.clear();
                self.help.clear();
            }
            Event::Ended { reason, help, .. } => {
                self.ended_at = Some(at);
                (self.reason, self.help) = (reason.clone(), help.clone());
            }
            Event::Told { .. } => (self.told, self.queued) = (true, false),
        }
        let moved = to != self.state;
        if moved && to != State::Held && !matches!(event, Event::Ended { .. }) {
            // The next stage starts with a clean slate.
            self.clean_slate();
            self.reason.clear();
            self.help.clear();
        }
        self.state = to;
        Ok(())
    }

    fn clean_slate(&mut self) {
        self.failures = 0;
        self.failed_since = None;
    }

    fn keep(&mut self, stage: Stage, whole: &Option<Kept>) {
        match whole {
            Some(kept) => self.kept.insert(stage, kept.clone()),
            None => self.kept.remove(&stage),
        };
    }

    /// The case at the beginning of a new attempt.
    fn again(id: CaseId, seq: u64, again: &Retried) -> Self {
        Self {
            state: again.to,
            holds: again.holds,
            attempt: again.attempt,
            method: again.method,
            given: again.given.clone(),
            prediction: again.prediction.clone(),
            fit: again.fit.clone(),
            trace: again.trace.clone(),
            kept: again.kept.clone(),
            seconds: again.seconds.clone(),
            ..Self::new(id, again.accepted.clone(), seq, again.accepted_at)
        }
    }

    /// An ended case, as far as a new attempt needs it: for a journal that is read without an index.
    pub fn ended(id: CaseId, seq: u64, again: &Retried) -> Self {
        Self {
            state: again.from,
            told: true,
            ..Self::again(id, seq, again)
        }
    }

    fn forget_candidate(&mut self) {
        self.unlearn = None;
        self.candidate_file = None;
        self.standing = None;
        self.certify = None;
        self.gate = None;
        self.certified_seq = None;
        self.published = None;
        self.promotion = None;
        for stage in [Stage::Unlearn, Stage::Certify, Stage::Publish] {
            self.seconds.remove(&stage);
            self.kept.remove(&stage);
        }
    }

    /// Is there anything left to do by itself? A hold is still to be told.
    pub fn is_open(&self) -> bool {
        !self.told
    }

    /// What messages about it are about: a hold, or an end. Empty for the first end.
    pub fn occasion(&self) -> String {
        match self.state {
            State::Held => format!("hold {}", self.holds),
            _ if self.attempt > 0 => format!("attempt {}", self.attempt),
            _ => String::new(),
        }
    }

    /// Has it ended, and was that told? Then only a person's word can make it go on.
    pub fn is_over(&self) -> bool {
        self.told && self.state.is_end()
    }

    /// The production checkpoint that everything in this case is about: the one that predict read. None before.
    pub fn base(&self) -> Option<&Digest> {
        self.prediction.as_ref().map(|prediction| &prediction.checkpoint)
    }

    /// The training set that it is about: the one of the trace, before that the one of the fit. None before, and for cases of older versions.
    pub fn manifest(&self) -> Option<&Digest> {
        let traced = self.trace.as_ref().and_then(|trace| trace.manifest.as_ref());
        traced.or_else(|| self.fit.as_ref().and_then(|fit| fit.manifest.as_ref()))
    }
}

#[cfg(test)]
pub(crate) mod tests;
