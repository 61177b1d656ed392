//! What can happen to a case, and what follows. What is not in here cannot happen; met in the journal, it is damage.

use super::event::{Regrowth, Retried, TraceSummary};
use super::phase::{Approval, By, Candidate, Certified, Decided, Fitted, Held, Phase, Promotion, Stance, Traced, Unlearned};
use super::{Case, End, Event, Stage, State};
use std::fmt;

/// An event that cannot happen to a case in its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Illegal {
    /// The case's state.
    pub state: State,
    /// The event.
    pub event: &'static str,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a case in state `{}` cannot have the event `{}`", self.state, self.event)
    }
}

impl std::error::Error for Illegal {}

/// What an event changes.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "one at a time, never in a collection")]
pub(super) enum Change {
    /// Neither phase nor stance.
    Nothing,
    /// The phase.
    To(Phase),
    /// The stance.
    Now(Stance),
    /// It ends in another phase.
    Ends(Phase, End),
}

/// What `event`, recorded under `seq`, changes.
pub(super) fn change(case: &Case, event: &Event, seq: u64) -> Result<Change, Illegal> {
    let found = match (&case.stance, event) {
        (_, Event::Queued { .. } | Event::Told { .. }) => case.is_to_be_told().then_some(Change::Nothing),
        (_, Event::Retried(again)) => retried(case, again),
        (_, Event::StageStarted { stage, .. } | Event::StageFailed { stage, .. }) => {
            let telling = case.is_to_be_told() && *stage == Stage::Tell;
            let retracing = case.state == State::Certified && *stage == Stage::Retrace;
            (telling || retracing || case.state.stage() == Some(*stage)).then_some(Change::Nothing)
        }
        (Stance::Held(_), Event::Resumed { .. }) => Some(Change::Now(Stance::Working)),
        (Stance::Working, Event::Held { kind, cause, .. }) => {
            let held = Held {
                kind: *kind,
                cause: *cause,
                seq,
            };
            case.state.stage().map(|_| Change::Now(Stance::Held(held)))
        }
        (Stance::Working, Event::Ended { end, .. }) => may_end(&case.phase, *end).then_some(Change::Now(Stance::Ended(*end))),
        (Stance::Working, event) => work(case, event, seq),
        _ => None,
    };
    found.ok_or_else(|| Illegal {
        state: case.state,
        event: event.kind(),
    })
}

/// A step of the work.
fn work(case: &Case, event: &Event, seq: u64) -> Option<Change> {
    Some(Change::To(match (&case.phase, event) {
        (Phase::Fitted(_), Event::Flagged { .. }) => return Some(Change::Nothing),
        (Phase::Accepted, Event::Predicted { prediction, .. }) => Phase::Predicted(prediction.clone()),
        (Phase::Predicted(prediction), Event::Fitted { fit, .. }) => Phase::Fitted(Fitted {
            prediction: prediction.clone(),
            fit: Some(fit.clone()),
        }),
        (Phase::Predicted(prediction), Event::FitSkipped { .. }) => Phase::Fitted(Fitted {
            prediction: prediction.clone(),
            fit: None,
        }),
        (Phase::Fitted(fitted), Event::Traced { trace, .. }) => Phase::Traced(Traced {
            prediction: fitted.prediction.clone(),
            fit: fitted.fit.clone(),
            trace: trace.clone(),
        }),
        (Phase::Traced(traced), Event::Decided(decision)) => Phase::Decided(Decided {
            traced: traced.clone(),
            decision: decision.clone(),
        }),
        (Phase::Decided(decided), event) => Phase::Unlearned(candidate(decided, event)?),
        (Phase::Unlearned(unlearned), Event::Certified { result, gate, .. }) => Phase::Certified(Certified {
            unlearned: unlearned.clone(),
            certify: result.clone(),
            gate: gate.clone(),
            regrowth: None,
            seq,
        }),
        (Phase::Certified(certified), Event::Retraced { found, trace, doubt, .. }) if certified.regrowth.is_none() => {
            retraced(certified, found, trace.as_deref(), doubt.as_deref())
        }
        (Phase::Certified(certified), Event::Published { published, .. }) => Phase::Published(Candidate {
            certified: certified.clone(),
            published: published.clone(),
        }),
        (Phase::Published(candidate), event) => return published(case, candidate, event),
        // An answer can only be given to a question that was put.
        (Phase::Proposed(candidate), Event::Approved(approval)) if case.told => Phase::Approved(candidate.clone(), approval.clone()),
        (Phase::Proposed(candidate), Event::Declined { by, why }) if case.told => {
            let word = Approval {
                by: By::User(*by),
                why: why.clone(),
                by_hand: false,
            };
            return Some(Change::Ends(Phase::Declined(candidate.clone(), word), End::Declined));
        }
        (Phase::Approved(candidate, approval), Event::PromoteIntent { from, to }) if !approval.by_hand => {
            let promotion = Promotion {
                from: from.clone(),
                to: to.clone(),
            };
            Phase::Promoting(candidate.clone(), approval.clone(), promotion)
        }
        (Phase::Approved(candidate, _), Event::Outdated { .. }) => outdated(candidate),
        _ => return None,
    }))
}

fn candidate(decided: &Decided, event: &Event) -> Option<Unlearned> {
    let (file, digest, result, standing) = match event {
        Event::Unlearned {
            file,
            digest,
            result,
            standing,
            ..
        } => (file, digest, Some(result.clone()), standing.clone()),
        Event::CandidateGiven { file, digest } => (file, digest, None, None),
        _ => return None,
    };
    Some(Unlearned {
        decided: decided.clone(),
        file: file.clone(),
        digest: digest.clone(),
        result,
        standing,
    })
}

/// Either more is to be removed, and the case goes on from a trace that names it, too; or this candidate stays.
fn retraced(certified: &Certified, found: &Regrowth, trace: Option<&TraceSummary>, doubt: Option<&str>) -> Phase {
    if let Some(trace) = trace {
        return Phase::Traced(Traced {
            trace: trace.clone(),
            ..certified.unlearned.decided.traced.clone()
        });
    }
    let mut certified = certified.clone();
    certified.regrowth = Some(found.clone());
    certified.gate.doubts.extend(doubt.map(str::to_owned));
    Phase::Certified(certified)
}

fn published(case: &Case, candidate: &Candidate, event: &Event) -> Option<Change> {
    Some(Change::To(match event {
        Event::Proposed { .. } => Phase::Proposed(candidate.clone()),
        Event::Approved(approval) => Phase::Approved(candidate.clone(), approval.clone()),
        Event::Outdated { .. } => outdated(candidate),
        // Journals of the first version know no approval: the mode was one, or whoever let it pass a cap.
        Event::PromoteIntent { from, to } => {
            let approval = Approval {
                by: case.allowed_by.map_or(By::POLICY, By::User),
                why: String::new(),
                by_hand: false,
            };
            let promotion = Promotion {
                from: from.clone(),
                to: to.clone(),
            };
            Phase::Promoting(candidate.clone(), approval, promotion)
        }
        _ => return None,
    }))
}

/// The candidate is made again, from the decision on.
fn outdated(candidate: &Candidate) -> Phase {
    Phase::Decided(candidate.certified.unlearned.decided.clone())
}

fn may_end(phase: &Phase, end: End) -> bool {
    match (phase, end) {
        (Phase::Proposed(_) | Phase::Declined(..), _) => false,
        (_, End::Failed) => true,
        (Phase::Accepted | Phase::Predicted(_) | Phase::Fitted(_), End::Refused) => true,
        (Phase::Predicted(_), End::NoAnomaly) => true,
        (Phase::Decided(_), End::Observed | End::Undecided) => true,
        (Phase::Published(_), End::Rejected) => true,
        (Phase::Approved(_, approval), End::Promoted) => approval.by_hand,
        (Phase::Promoting(..), End::Promoted) => true,
        _ => false,
    }
}

/// A person may ask for another attempt when everything about this one was said, except where its candidate is in use.
fn retried(case: &Case, again: &Retried) -> Option<Change> {
    let may = case.told && case.state.rests() && case.state != State::Promoted && again.from == case.state;
    Some(Change::To(again.phase()?)).filter(|_| may)
}

impl Retried {
    /// The phase that the new attempt begins in; None where the record lacks what belongs to it.
    pub(super) fn phase(&self) -> Option<Phase> {
        Some(match self.to {
            State::Accepted => Phase::Accepted,
            State::Predicted => Phase::Predicted(self.prediction.clone()?),
            State::Traced => Phase::Traced(Traced {
                prediction: self.prediction.clone()?,
                fit: self.fit.clone(),
                trace: self.trace.clone()?,
            }),
            _ => return None,
        })
    }
}
