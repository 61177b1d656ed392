//! How far a case's work is, and what it has by then. Each phase holds all that the ones before it made, so that what comes next never has to ask whether it is there.

use super::event::{Published, Regrowth, StandingUse, TraceSummary};
use super::{HoldCause, State};
use crate::policy::{Decision, GateVerdict};
use delta_guard_contract::job::{CertifyResult, FitResult, Prediction, TrainResult};
use delta_guard_contract::{Digest, FaultKind};
use serde::{Deserialize, Serialize};

/// How far a case's work is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(clippy::large_enum_variant, reason = "a case has one, and most of them are far on")]
pub enum Phase {
    /// Taken in.
    #[default]
    Accepted,
    /// How the production model reads the picture is known.
    Predicted(Prediction),
    /// The factors are on disk.
    Fitted(Fitted),
    /// What was found is known.
    Traced(Traced),
    /// What follows from it is decided.
    Decided(Decided),
    /// There is a candidate.
    Unlearned(Unlearned),
    /// It was measured and judged.
    Certified(Certified),
    /// Its folder stands.
    Published(Candidate),
    /// It passed the gate and waits for a person's word.
    Proposed(Candidate),
    /// It may be promoted.
    Approved(Candidate, Approval),
    /// `current` is about to be moved to it.
    Promoting(Candidate, Approval, Promotion),
    /// A person does not want it.
    Declined(Candidate, Approval),
}

/// Of a fitted case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    /// How the production model reads the picture.
    pub prediction: Prediction,
    /// The factors. None: the detector needs none.
    pub fit: Option<FitResult>,
}

/// Of a traced case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traced {
    /// How the production model reads the picture.
    pub prediction: Prediction,
    /// The factors, where the detector needed any.
    pub fit: Option<FitResult>,
    /// What was found; the whole report is a file.
    pub trace: TraceSummary,
}

/// Of a decided case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// What it follows from.
    pub traced: Traced,
    /// What follows.
    pub decision: Decision,
}

/// Of a case with a candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unlearned {
    /// Why there is one.
    pub decided: Decided,
    /// Its path below the case's folder.
    pub file: String,
    /// BLAKE3 of that file.
    pub digest: Digest,
    /// How it was trained; None for an owner's own.
    pub result: Option<TrainResult>,
    /// The standing exclusion list that it was made under; None where there was none.
    pub standing: Option<StandingUse>,
}

/// Of a case whose candidate was judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certified {
    /// The candidate.
    pub unlearned: Unlearned,
    /// Before and after.
    pub certify: CertifyResult,
    /// The gate's verdict.
    pub gate: GateVerdict,
    /// What stands out on the candidate. None: it was not traced.
    #[serde(default)]
    pub regrowth: Option<Regrowth>,
    /// Journal number of the record of the verdict; the manifest names it.
    pub seq: u64,
}

/// Of a case whose candidate's folder stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The candidate and its verdict.
    pub certified: Certified,
    /// Where it stands.
    pub published: Published,
}

/// Who has a say in a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum By {
    /// This user.
    User(u32),
    /// Nobody: the configuration allows it (mode `enforce`, within the caps).
    Policy(Policy),
}

/// The word in the journal for [`By::Policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "one word")]
pub enum Policy {
    Policy,
}

impl By {
    /// The configuration.
    pub const POLICY: By = By::Policy(Policy::Policy);

    /// The user, where it is one.
    pub fn user(self) -> Option<u32> {
        match self {
            By::User(user) => Some(user),
            By::Policy(_) => None,
        }
    }
}

/// A word on a candidate: that it may be promoted, or that it is not wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Whose.
    pub by: By,
    /// Why.
    pub why: String,
    /// Has its owner put the candidate in use by hand? Then `current` is left alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_hand: bool,
}

/// A promotion under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Promotion {
    /// What `current` pointed to before.
    pub from: Option<String>,
    /// What it shall point to.
    pub to: String,
}

impl Phase {
    /// The state of a case in this phase that is neither held nor ended.
    pub fn state(&self) -> State {
        match self {
            Phase::Accepted => State::Accepted,
            Phase::Predicted(_) => State::Predicted,
            Phase::Fitted(_) => State::Fitted,
            Phase::Traced(_) => State::Traced,
            Phase::Decided(_) => State::Decided,
            Phase::Unlearned(_) => State::Unlearned,
            Phase::Certified(_) => State::Certified,
            Phase::Published(_) => State::Published,
            Phase::Proposed(_) => State::Proposed,
            Phase::Approved(..) => State::Approved,
            Phase::Promoting(..) => State::Promoting,
            Phase::Declined(..) => State::Declined,
        }
    }

    /// The published candidate.
    pub fn candidate(&self) -> Option<&Candidate> {
        match self {
            Phase::Published(candidate)
            | Phase::Proposed(candidate)
            | Phase::Approved(candidate, _)
            | Phase::Promoting(candidate, ..)
            | Phase::Declined(candidate, _) => Some(candidate),
            _ => None,
        }
    }

    /// Candidate and verdict.
    pub fn certified(&self) -> Option<&Certified> {
        match self {
            Phase::Certified(certified) => Some(certified),
            later => later.candidate().map(|candidate| &candidate.certified),
        }
    }

    /// The candidate.
    pub fn unlearned(&self) -> Option<&Unlearned> {
        match self {
            Phase::Unlearned(unlearned) => Some(unlearned),
            later => later.certified().map(|certified| &certified.unlearned),
        }
    }

    /// What was decided.
    pub fn decided(&self) -> Option<&Decided> {
        match self {
            Phase::Decided(decided) => Some(decided),
            later => later.unlearned().map(|unlearned| &unlearned.decided),
        }
    }

    /// What was found.
    pub fn traced(&self) -> Option<&Traced> {
        match self {
            Phase::Traced(traced) => Some(traced),
            later => later.decided().map(|decided| &decided.traced),
        }
    }

    /// The factors.
    pub fn fit(&self) -> Option<&FitResult> {
        match self {
            Phase::Fitted(fitted) => fitted.fit.as_ref(),
            later => later.traced().and_then(|traced| traced.fit.as_ref()),
        }
    }

    /// How the production model reads the picture.
    pub fn prediction(&self) -> Option<&Prediction> {
        match self {
            Phase::Accepted => None,
            Phase::Predicted(prediction) => Some(prediction),
            Phase::Fitted(fitted) => Some(&fitted.prediction),
            later => later.traced().map(|traced| &traced.prediction),
        }
    }

    /// The word on its candidate.
    pub fn approval(&self) -> Option<&Approval> {
        match self {
            Phase::Approved(_, approval) | Phase::Promoting(_, approval, _) | Phase::Declined(_, approval) => Some(approval),
            _ => None,
        }
    }
}

/// Whether the work goes on by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stance {
    /// It does, or waits for the word that its phase names.
    #[default]
    Working,
    /// Something must be mended, allowed, or put back.
    Held(Held),
    /// It ended.
    Ended(super::End),
}

/// Of a held case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Whose fault.
    pub kind: FaultKind,
    /// What kind of hold.
    pub cause: HoldCause,
    /// Journal number of the record that holds it.
    pub seq: u64,
}
