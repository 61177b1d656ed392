//! What a case is and what may happen to it next: pure functions of (case, event). No file, no clock, no process in here.
//!
//! A case is one accepted picture. Its history is a list of [`Event`]s in the journal; [`Case::apply`] folds them, [`next::next`] says what to do.

mod accepted;
pub mod bounds;
mod event;
mod message;
pub mod next;
pub mod phase;
mod refusal;
mod stage;
mod transitions;

pub use accepted::{Accepted, Claim, FileIdentity};
pub use bounds::Kept;
pub use event::{End, Event, HoldCause, List, Published, Regrowth, Retried, StandingUse, TraceSummary};
pub use message::{Message, message_id};
pub use phase::{Approval, By, Held, Phase, Stance};
pub use refusal::{Refusal, RefusedFile};
pub use stage::Stage;
pub use transitions::Illegal;

use crate::policy::{Decision, GateVerdict};
use delta_guard_contract::job::{CertifyResult, FitResult, Prediction, TrainResult};
use delta_guard_contract::method::Name;
use delta_guard_contract::method::unlearn::Unlearner;
use delta_guard_contract::{Code, Digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use transitions::Change;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
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
    /// Waits for a person: the candidate passed the gate, and may be approved or declined.
    Proposed,
    /// The candidate may be promoted; to be done.
    Approved,
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
    /// End: `current` points to the candidate, or its owner put it in use by hand.
    Promoted,
    /// End: a person does not want the candidate.
    Declined,
    /// End: the candidate did not pass the gate; it is kept, marked rejected.
    Rejected,
    /// End: it could not be finished.
    Failed,
}

impl State {
    /// Every state.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Its name, as in the journal.
    pub fn as_str(self) -> &'static str {
        self.into()
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
            State::Certified | State::Published | State::Approved | State::Promoting => Stage::Publish,
            _ => return None,
        })
    }

    /// Does a case in this state wait for a person?
    pub fn waits(self) -> bool {
        matches!(self, State::Held | State::Proposed)
    }

    /// Is it an end?
    pub fn is_end(self) -> bool {
        self.rests() && !self.waits()
    }

    /// Does a case in this state go no further by itself? Then that is told.
    pub fn rests(self) -> bool {
        self.stage().is_none()
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
    /// Where it stands, in a word; what follows is read from `phase` and `stance`.
    pub state: State,
    /// How far its work is, with all that the work has made.
    pub phase: Phase,
    /// Whether the work goes on.
    pub stance: Stance,
    /// What was taken in.
    pub accepted: Accepted,
    /// When it was taken in.
    pub accepted_at: Timestamp,
    /// When it ended, or began to wait for an answer.
    pub ended_at: Option<Timestamp>,
    /// Failed attempts at the present stage.
    pub failures: u32,
    /// The code of the last failure (docs/errors.md), until the stage is done or the case goes on.
    #[serde(default)]
    pub failed_code: Option<Code>,
    /// Time of the first of them.
    pub failed_since: Option<Timestamp>,
    /// Why it waits or how it ended, in a sentence.
    pub reason: String,
    /// What to do about it; may be empty.
    pub help: String,
    /// How often it was held.
    pub holds: u32,
    /// The user who let it pass the caps; that holds for one promotion.
    pub allowed_by: Option<u32>,
    /// How often a person asked for a new attempt, or a candidate came too late.
    pub attempt: u32,
    /// The method that was asked for; None: as configured.
    pub method: Option<Name<Unlearner>>,
    /// The owner's own candidate: its path below the case's folder, and its BLAKE3.
    pub given: Option<(String, Digest)>,
    /// Seconds per stage, of the attempt that finished it.
    pub seconds: BTreeMap<Stage, f64>,
    /// Results that were too long for a record, whole.
    pub kept: BTreeMap<Stage, Kept>,
    /// What stood out on its candidates of this attempt, one after another.
    #[serde(default)]
    pub regrown: Vec<Regrowth>,
    /// Were some of its messages recorded already?
    pub queued: bool,
    /// Were report and messages made, of the end, the hold or the proposal?
    pub told: bool,
}

impl Case {
    /// A new case.
    pub fn new(id: CaseId, accepted: Accepted, seq: u64, at: Timestamp) -> Self {
        Self {
            id,
            seq,
            state: State::Accepted,
            phase: Phase::Accepted,
            stance: Stance::Working,
            accepted,
            accepted_at: at,
            ended_at: None,
            failures: 0,
            failed_code: None,
            failed_since: None,
            reason: String::new(),
            help: String::new(),
            holds: 0,
            allowed_by: None,
            attempt: 0,
            method: None,
            given: None,
            seconds: BTreeMap::new(),
            kept: BTreeMap::new(),
            regrown: Vec::new(),
            queued: false,
            told: false,
        }
    }

    /// Fold one event in. `seq` and `at` are its journal number and time. An error leaves the case as it was.
    pub fn apply(&mut self, event: &Event, seq: u64, at: Timestamp) -> Result<(), Illegal> {
        let change = transitions::change(self, event, seq)?;
        self.note(event, at);
        let was = self.state;
        match change {
            Change::Nothing => {}
            Change::To(phase) => self.phase = phase,
            Change::Now(stance) => self.stance = stance,
            Change::Ends(phase, end) => (self.phase, self.stance) = (phase, Stance::Ended(end)),
        }
        self.state = match self.stance {
            Stance::Working => self.phase.state(),
            Stance::Held(_) => State::Held,
            Stance::Ended(end) => end.state(),
        };
        if self.state == was {
            return Ok(());
        }
        // What is next starts with a clean slate; whatever rests has something to tell.
        self.clean_slate();
        self.told = false;
        self.ended_at = (self.state.is_end() || self.state == State::Proposed).then_some(at);
        (self.reason, self.help) = event.said().unwrap_or_default();
        Ok(())
    }

    /// What an event says beside where the case stands then.
    fn note(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Queued { .. } => self.queued = true,
            Event::Told { .. } => (self.told, self.queued) = (true, false),
            Event::StageFailed { code, message, help, .. } => {
                self.failures += 1;
                self.failed_code = *code;
                self.failed_since.get_or_insert(at);
                // Why a case ended outlives the trouble of telling it.
                if !self.state.rests() {
                    (self.reason, self.help) = (message.clone(), help.clone());
                }
            }
            Event::Predicted { whole, seconds, .. } => self.done(Stage::Predict, *seconds, whole.as_ref()),
            Event::Fitted { whole, seconds, .. } => self.done(Stage::Fit, *seconds, whole.as_ref()),
            Event::Traced { seconds, .. } => self.done(Stage::Trace, *seconds, None),
            Event::Unlearned { seconds, .. } => self.done(Stage::Unlearn, *seconds, None),
            Event::Certified { whole, seconds, .. } => self.done(Stage::Certify, *seconds, whole.as_ref()),
            Event::Retraced { found, seconds, .. } => {
                self.done(Stage::Retrace, *seconds, None);
                self.regrown.push(found.clone());
                // The state may stay, but what is next starts with a clean slate all the same.
                self.clean_slate();
            }
            Event::Published { seconds, .. } => self.done(Stage::Publish, *seconds, None),
            Event::Outdated { .. } => {
                self.attempt += 1;
                self.allowed_by = None;
                for stage in [Stage::Unlearn, Stage::Certify, Stage::Retrace, Stage::Publish] {
                    self.seconds.remove(&stage);
                    self.kept.remove(&stage);
                }
            }
            Event::Retried(again) => *self = Self::again(self.id.clone(), self.seq, again),
            Event::Held { .. } => self.holds += 1,
            Event::Resumed { by, .. } => {
                self.failed_code = None;
                if matches!(self.stance, Stance::Held(held) if held.cause == HoldCause::Cap) {
                    self.allowed_by = *by;
                }
            }
            Event::Accepted(_)
            | Event::StageStarted { .. }
            | Event::Flagged { .. }
            | Event::FitSkipped { .. }
            | Event::CandidateGiven { .. }
            | Event::Decided(_)
            | Event::Proposed { .. }
            | Event::Approved(_)
            | Event::Declined { .. }
            | Event::PromoteIntent { .. }
            | Event::Ended { .. } => {}
        }
    }

    fn clean_slate(&mut self) {
        self.failures = 0;
        self.failed_since = None;
    }

    fn done(&mut self, stage: Stage, seconds: f64, whole: Option<&Kept>) {
        self.failed_code = None;
        self.seconds.insert(stage, seconds);
        match whole {
            Some(kept) => self.kept.insert(stage, kept.clone()),
            None => self.kept.remove(&stage),
        };
    }

    /// The case at the beginning of a new attempt.
    fn again(id: CaseId, seq: u64, again: &Retried) -> Self {
        Self {
            holds: again.holds,
            attempt: again.attempt,
            method: again.method,
            given: again.given.clone(),
            kept: again.kept.clone(),
            seconds: again.seconds.clone(),
            ..Self::new(id, again.accepted.clone(), seq, again.accepted_at)
        }
    }

    /// An ended case, as far as a new attempt needs it: for a journal that is read without an index. None where the record is not one of an ended case.
    pub fn ended(id: CaseId, seq: u64, again: &Retried) -> Option<Self> {
        Some(Self {
            state: again.from,
            phase: again.phase()?,
            stance: Stance::Ended(End::of(again.from)?),
            told: true,
            ..Self::again(id, seq, again)
        })
    }

    /// Is there anything left to do by itself? A hold or a proposal is still to be told.
    pub fn is_open(&self) -> bool {
        !self.told
    }

    /// Does it go no further by itself, and was that not told yet?
    pub fn is_to_be_told(&self) -> bool {
        self.state.rests() && !self.told
    }

    /// Has it ended, and was that told? Then only a person's word can make it go on.
    pub fn is_over(&self) -> bool {
        self.told && self.state.is_end()
    }

    /// What messages about it are about: a hold, an end, or what became of a proposal. Empty for the first end or proposal.
    pub fn occasion(&self) -> String {
        let answered = self.phase.approval().is_some_and(|approval| approval.by.user().is_some());
        match (self.state, self.attempt) {
            (State::Held, _) => format!("hold {}", self.holds),
            (_, 0) if answered => "answer".into(),
            (_, attempt) if answered => format!("attempt {attempt} answer"),
            (_, 0) => String::new(),
            (_, attempt) => format!("attempt {attempt}"),
        }
    }

    /// The hold, while it is held.
    pub fn held(&self) -> Option<&Held> {
        match &self.stance {
            Stance::Held(held) => Some(held),
            _ => None,
        }
    }

    /// What kind of hold it is; None while it is not held.
    pub fn held_cause(&self) -> Option<HoldCause> {
        self.held().map(|held| held.cause)
    }

    /// How the production model reads the picture.
    pub fn prediction(&self) -> Option<&Prediction> {
        self.phase.prediction()
    }

    /// The factors.
    pub fn fit(&self) -> Option<&FitResult> {
        self.phase.fit()
    }

    /// What the trace found; the whole report is a file.
    pub fn trace(&self) -> Option<&TraceSummary> {
        self.phase.traced().map(|traced| &traced.trace)
    }

    /// What follows from it.
    pub fn decision(&self) -> Option<&Decision> {
        self.phase.decided().map(|decided| &decided.decision)
    }

    /// The candidate, as trained.
    pub fn unlearn(&self) -> Option<&TrainResult> {
        self.phase.unlearned().and_then(|unlearned| unlearned.result.as_ref())
    }

    /// The candidate's file below the case's folder, and its digest.
    pub fn candidate_file(&self) -> Option<(&str, &Digest)> {
        self.phase.unlearned().map(|unlearned| (unlearned.file.as_str(), &unlearned.digest))
    }

    /// The standing exclusion list that the candidate was made under; None where there was none.
    pub fn standing(&self) -> Option<&StandingUse> {
        self.phase.unlearned().and_then(|unlearned| unlearned.standing.as_ref())
    }

    /// Before and after.
    pub fn certify(&self) -> Option<&CertifyResult> {
        self.phase.certified().map(|certified| &certified.certify)
    }

    /// The gate's verdict.
    pub fn gate(&self) -> Option<&GateVerdict> {
        self.phase.certified().map(|certified| &certified.gate)
    }

    /// The candidate, as published.
    pub fn published(&self) -> Option<&Published> {
        self.phase.candidate().map(|candidate| &candidate.published)
    }

    /// The production checkpoint that everything in this case is about: the one that predict read. None before.
    pub fn base(&self) -> Option<&Digest> {
        self.prediction().map(|prediction| &prediction.checkpoint)
    }

    /// The training set that it is about: the one of the trace, before that the one of the fit. None before, and for cases of older versions.
    pub fn manifest(&self) -> Option<&Digest> {
        let traced = self.trace().and_then(|trace| trace.manifest.as_ref());
        traced.or_else(|| self.fit().and_then(|fit| fit.manifest.as_ref()))
    }
}

#[cfg(test)]
pub(crate) mod tests;
