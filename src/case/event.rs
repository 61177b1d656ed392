//! What can happen to a case. Each event is one journal record: its kind is the record's `k`, its content the record's `d`.

use super::bounds::Kept;
use super::{Accepted, Approval, Case, Stage, State};
use crate::policy::{Decision, Found, GateVerdict};
use delta_guard_contract::job::{CertifyResult, FitResult, Prediction, TrainResult};
use delta_guard_contract::method::Name;
use delta_guard_contract::method::unlearn::Unlearner;
use delta_guard_contract::{Code, Digest, FaultKind, Flagged};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a trace found, as far as it is needed to go on. The whole report lies in a file of the case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceSummary {
    /// What policy needs.
    pub found: Found,
    /// The report's path below the case's folder; the thumbnails lie beside it.
    pub file: String,
    /// BLAKE3 of the report.
    pub digest: Digest,
    /// BLAKE3 of the flagged ids, one a line, sorted.
    pub ids: Digest,
    /// The file of the case that holds the flagged examples, strongest first. None where nothing was flagged, and in journals of the first version, whose
    /// `flagged` records hold them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flagged: Option<Kept>,
    /// Digest of the training set that was traced in. None in records of older versions.
    #[serde(default)]
    pub manifest: Option<Digest>,
}

/// What stood out when the anomaly was traced on the candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Regrowth {
    /// The detector flagged so many examples.
    pub flagged: u64,
    /// So many of them were removed already: the candidate was not trained on them.
    pub removed: u64,
    /// The file of the case that holds the others, strongest first. None: there are none, or they are too few for a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<Kept>,
    /// How many that file holds.
    pub count: u64,
    /// Were they removed, too, and another candidate made?
    pub again: bool,
}

/// Which standing exclusion list a candidate was made under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingUse {
    /// BLAKE3 of its ids, one a line, sorted.
    pub digest: Digest,
    /// How many there are.
    pub count: u64,
}

/// A new attempt at a case, and what stays valid for it. The record stands for itself: an ended case is kept nowhere but in the index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retried {
    /// The state that it had.
    pub from: State,
    /// The state that it goes on from: `accepted`, `predicted` or `traced`.
    pub to: State,
    /// Unlearn by this method; None: as configured.
    pub method: Option<Name<Unlearner>>,
    /// The owner's own candidate: its path below the case's folder, and its BLAKE3.
    pub given: Option<(String, Digest)>,
    /// The user who asked.
    pub by: u32,
    /// New attempts, this one included.
    pub attempt: u32,
    /// How often it was held so far.
    pub holds: u32,
    /// What was taken in.
    pub accepted: Accepted,
    /// When it was taken in.
    pub accepted_at: Timestamp,
    /// How the production model reads the picture; None from `accepted` on.
    pub prediction: Option<Prediction>,
    /// The factors, from `traced` on.
    pub fit: Option<FitResult>,
    /// What the trace found, from `traced` on.
    pub trace: Option<TraceSummary>,
    /// Files of what is too long for a record, per stage that stays valid.
    #[serde(default)]
    pub kept: BTreeMap<Stage, Kept>,
    /// Seconds per stage that stays valid.
    pub seconds: BTreeMap<Stage, f64>,
}

impl Retried {
    /// A new attempt at `case`, from `to` on.
    pub fn of(case: &Case, to: State, method: Option<Name<Unlearner>>, given: Option<(String, Digest)>, by: u32) -> Self {
        let predicted = to != State::Accepted;
        let traced = to == State::Traced;
        let done: &[Stage] = match to {
            State::Traced => &[Stage::Predict, Stage::Fit, Stage::Trace],
            State::Predicted => &[Stage::Predict],
            _ => &[],
        };
        Self {
            from: case.state,
            to,
            method,
            given,
            by,
            attempt: case.attempt + 1,
            holds: case.holds,
            accepted: case.accepted.clone(),
            accepted_at: case.accepted_at,
            prediction: case.prediction().cloned().filter(|_| predicted),
            fit: case.fit().cloned().filter(|_| traced),
            trace: case.trace().cloned().filter(|_| traced),
            kept: case
                .kept
                .iter()
                .filter(|(stage, _)| done.contains(stage))
                .map(|(stage, kept)| (*stage, kept.clone()))
                .collect(),
            seconds: case
                .seconds
                .iter()
                .filter(|(stage, _)| done.contains(stage))
                .map(|(stage, s)| (*stage, *s))
                .collect(),
        }
    }
}

/// Messages that are too many for a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Their file.
    pub file: Kept,
    /// How many there are.
    pub count: u64,
}

/// A candidate as it was published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Name of its folder in the candidates' folder.
    pub folder: String,
    /// BLAKE3 of its `MANIFEST.json`.
    pub manifest: Digest,
}

/// Why a case is held. What a fault held, a mended configuration or a new version may mend; the others wait for a person's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum HoldCause {
    /// A stage failed and is not tried again by itself.
    #[default]
    Fault,
    /// The production checkpoint or the training set is not the one that the case began with.
    Base,
    /// The guard may not do so much by itself (section `caps`).
    Cap,
}

impl HoldCause {
    /// Every cause.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Its name, as in the journal.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How a case ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the variants are those of State")]
pub enum End {
    Refused,
    NoAnomaly,
    Undecided,
    Observed,
    Promoted,
    Declined,
    Rejected,
    Failed,
}

impl End {
    /// Every end.
    pub const ALL: [End; 8] = [
        End::Refused,
        End::NoAnomaly,
        End::Undecided,
        End::Observed,
        End::Promoted,
        End::Declined,
        End::Rejected,
        End::Failed,
    ];

    /// The end that a state is.
    pub fn of(state: State) -> Option<End> {
        End::ALL.into_iter().find(|end| end.state() == state)
    }

    /// The state of a case that ended so.
    pub fn state(self) -> State {
        match self {
            End::Refused => State::Refused,
            End::NoAnomaly => State::NoAnomaly,
            End::Undecided => State::Undecided,
            End::Observed => State::Observed,
            End::Promoted => State::Promoted,
            End::Declined => State::Declined,
            End::Rejected => State::Rejected,
            End::Failed => State::Failed,
        }
    }
}

/// What can happen to a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k", content = "d", rename_all = "kebab-case")]
pub enum Event {
    /// It was taken in.
    Accepted(Accepted),
    /// A stage begins.
    StageStarted {
        /// Which.
        stage: Stage,
        /// From 1.
        attempt: u32,
    },
    /// A stage failed and may be tried again.
    StageFailed {
        /// Which.
        stage: Stage,
        /// Whose fault.
        kind: FaultKind,
        /// Its name in docs/errors.md. None: a version without codes wrote it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<Code>,
        /// What happened.
        message: String,
        /// What to do.
        help: String,
    },
    /// Predicted.
    Predicted {
        /// How the production model reads the picture. Where there are too many classes for a record, only those that matter to the case.
        prediction: Prediction,
        /// The file that has all of them, if so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        whole: Option<Kept>,
        /// Seconds of the stage.
        seconds: f64,
    },
    /// The factors are on disk.
    Fitted {
        /// Which; the first layers where all are too many for a record.
        fit: FitResult,
        /// The file that has all of them, if so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        whole: Option<Kept>,
        /// Seconds of the stage.
        seconds: f64,
    },
    /// The detector needs no factors: there is nothing to fit.
    FitSkipped {
        /// Name of the detector.
        detector: String,
    },
    /// Some of the flagged examples, in journals of the first version; `traced` follows the last of these records.
    Flagged {
        /// Evidence, strongest first.
        examples: Vec<Flagged>,
    },
    /// Traced.
    Traced {
        /// What was found.
        trace: TraceSummary,
        /// Seconds of the stage.
        seconds: f64,
    },
    /// The owner's own candidate takes the place of one that would be made.
    CandidateGiven {
        /// Its path below the case's folder.
        file: String,
        /// BLAKE3 of that file.
        digest: Digest,
    },
    /// The candidate came too late: since it was made, another repair took further examples out. It is made again without those, too.
    Outdated {
        /// Why, in a sentence.
        why: String,
    },
    /// Somebody asked for a new attempt.
    Retried(Box<Retried>),
    /// Policy was asked.
    Decided(Decision),
    /// A candidate was trained.
    Unlearned {
        /// As trained.
        result: TrainResult,
        /// Its path below the case's folder.
        file: String,
        /// BLAKE3 of that file.
        digest: Digest,
        /// Seconds of the stage.
        seconds: f64,
        /// The standing exclusion list that it was made under; None where there was none.
        #[serde(default)]
        standing: Option<StandingUse>,
    },
    /// Measured and judged.
    Certified {
        /// Before and after; without the classes' figures where they are too many for a record.
        result: CertifyResult,
        /// The file that has them, if so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        whole: Option<Kept>,
        /// The gate's verdict.
        gate: GateVerdict,
        /// Seconds of the stage.
        seconds: f64,
    },
    /// The anomaly was traced on the candidate.
    Retraced {
        /// What stood out.
        found: Regrowth,
        /// What is to be removed now, all together: another candidate is made. None: this one stays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<Box<TraceSummary>>,
        /// What a person must decide about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        doubt: Option<String>,
        /// Seconds of the stage.
        seconds: f64,
    },
    /// The candidate folder stands.
    Published {
        /// Where.
        published: Published,
        /// Seconds of the stage.
        seconds: f64,
    },
    /// The candidate passed the gate: a person is asked.
    Proposed {
        /// Why, in a sentence.
        reason: String,
        /// What to do.
        help: String,
    },
    /// The candidate may be promoted.
    Approved(Approval),
    /// It is not wanted.
    Declined {
        /// The user who said so.
        by: u32,
        /// Why; may be empty.
        why: String,
    },
    /// `current` is about to be moved.
    PromoteIntent {
        /// Where it points now, if it exists.
        from: Option<String>,
        /// Where it will point.
        to: String,
    },
    /// It waits for a person.
    Held {
        /// Whose fault.
        kind: FaultKind,
        /// Why.
        reason: String,
        /// What to do.
        help: String,
        /// What kind of hold it is.
        #[serde(default)]
        cause: HoldCause,
    },
    /// A held case is taken up again.
    Resumed {
        /// Why.
        why: String,
        /// The user who asked for it; None: the guard itself, at a start with another configuration or version.
        #[serde(default)]
        by: Option<u32>,
    },
    /// It ended.
    Ended {
        /// How.
        end: End,
        /// Why.
        reason: String,
        /// What to do; may be empty.
        help: String,
    },
    /// Some of the messages to send, in journals of the first version; `told` follows the last of these records, and only then they are sent.
    Queued {
        /// Number of messages in the records before this one; 0 begins anew.
        after: u64,
        /// Messages, each with its fixed id.
        messages: Vec<super::Message>,
    },
    /// Report and messages were made.
    Told {
        /// BLAKE3 of the report; None where it could not be made.
        report: Option<Digest>,
        /// Messages to send, each with its fixed id (in journals of the first version the last of them, where `queued` records have the others).
        messages: Vec<super::Message>,
        /// The file of the case that holds them, where they are many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<List>,
    },
}

impl Event {
    /// The event of a record. Journals of the first version end a case as proposed, where it waits now.
    ///
    /// # Errors
    /// When kind or content are unknown.
    pub fn read(kind: &str, data: serde_json::Value) -> serde_json::Result<Self> {
        let kind = if kind == "ended" && data["end"] == "proposed" {
            "proposed"
        } else {
            kind
        };
        serde_json::from_value(serde_json::json!({ "k": kind, "d": data }))
    }

    /// Why a case rests from here on, and what to do about it.
    pub(super) fn said(&self) -> Option<(String, String)> {
        match self {
            Event::Held { reason, help, .. } | Event::Ended { reason, help, .. } | Event::Proposed { reason, help } => {
                Some((reason.clone(), help.clone()))
            }
            Event::Declined { by, why } if why.is_empty() => Some((format!("user {by} declined the candidate"), String::new())),
            Event::Declined { by, why } => Some((format!("user {by} declined the candidate: {why}"), String::new())),
            _ => None,
        }
    }

    /// The record's kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Accepted(_) => "accepted",
            Event::StageStarted { .. } => "stage-started",
            Event::StageFailed { .. } => "stage-failed",
            Event::Predicted { .. } => "predicted",
            Event::Fitted { .. } => "fitted",
            Event::FitSkipped { .. } => "fit-skipped",
            Event::Flagged { .. } => "flagged",
            Event::Traced { .. } => "traced",
            Event::CandidateGiven { .. } => "candidate-given",
            Event::Outdated { .. } => "outdated",
            Event::Retried(_) => "retried",
            Event::Decided(_) => "decided",
            Event::Unlearned { .. } => "unlearned",
            Event::Certified { .. } => "certified",
            Event::Retraced { .. } => "retraced",
            Event::Published { .. } => "published",
            Event::Proposed { .. } => "proposed",
            Event::Approved(_) => "approved",
            Event::Declined { .. } => "declined",
            Event::PromoteIntent { .. } => "promote-intent",
            Event::Held { .. } => "held",
            Event::Resumed { .. } => "resumed",
            Event::Ended { .. } => "ended",
            Event::Queued { .. } => "queued",
            Event::Told { .. } => "told",
        }
    }
}
