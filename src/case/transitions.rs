//! The one table of legal transitions. What is not in it cannot happen; met in the journal, it is damage.

use super::{Case, End, Event, State};
use std::fmt;

/// A step from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are those of Event that move a case")]
pub enum Move {
    Predicted,
    Fitted,
    Traced,
    Decided,
    Unlearned,
    Certified,
    Published,
    CandidateGiven,
    Outdated,
    PromoteIntent,
    Held,
    End(End),
}

/// (from, step, to). Beside these rows, `stage-started`, `stage-failed` and (in `fitted`) `flagged` leave a working case where it is, `resumed` brings a
/// held case back to where it was held, `queued` leaves an ended or held one where it is, `told` marks it, once, and after that `retried` opens it
/// again, except a promoted one.
pub const TRANSITIONS: &[(State, Move, State)] = &[
    (State::Accepted, Move::Predicted, State::Predicted),
    (State::Accepted, Move::End(End::Refused), State::Refused),
    (State::Accepted, Move::Held, State::Held),
    (State::Accepted, Move::End(End::Failed), State::Failed),
    (State::Predicted, Move::Fitted, State::Fitted),
    (State::Predicted, Move::End(End::NoAnomaly), State::NoAnomaly),
    (State::Predicted, Move::End(End::Refused), State::Refused),
    (State::Predicted, Move::Held, State::Held),
    (State::Predicted, Move::End(End::Failed), State::Failed),
    (State::Fitted, Move::Traced, State::Traced),
    (State::Fitted, Move::End(End::Refused), State::Refused),
    (State::Fitted, Move::Held, State::Held),
    (State::Fitted, Move::End(End::Failed), State::Failed),
    (State::Traced, Move::Decided, State::Decided),
    (State::Traced, Move::End(End::Failed), State::Failed),
    (State::Decided, Move::Unlearned, State::Unlearned),
    (State::Decided, Move::CandidateGiven, State::Unlearned),
    (State::Decided, Move::End(End::Observed), State::Observed),
    (State::Decided, Move::End(End::Undecided), State::Undecided),
    (State::Decided, Move::Held, State::Held),
    (State::Decided, Move::End(End::Failed), State::Failed),
    (State::Unlearned, Move::Certified, State::Certified),
    (State::Unlearned, Move::Held, State::Held),
    (State::Unlearned, Move::End(End::Failed), State::Failed),
    (State::Certified, Move::Published, State::Published),
    (State::Certified, Move::Held, State::Held),
    (State::Certified, Move::End(End::Failed), State::Failed),
    (State::Published, Move::PromoteIntent, State::Promoting),
    (State::Published, Move::Outdated, State::Decided),
    (State::Published, Move::End(End::Proposed), State::Proposed),
    (State::Published, Move::End(End::Rejected), State::Rejected),
    (State::Published, Move::Held, State::Held),
    (State::Published, Move::End(End::Failed), State::Failed),
    (State::Promoting, Move::End(End::Promoted), State::Promoted),
    (State::Promoting, Move::End(End::Failed), State::Failed),
    (State::Promoting, Move::Held, State::Held),
];

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

/// The state after `event`.
pub(super) fn target(case: &Case, event: &Event) -> Result<State, Illegal> {
    let from = case.state;
    let illegal = Illegal {
        state: from,
        event: event.kind(),
    };
    let tellable = (from.is_end() || from == State::Held) && !case.told;
    let step = match event {
        Event::Accepted(_) => return Err(illegal),
        Event::StageStarted { stage, .. } | Event::StageFailed { stage, .. } => {
            let telling = tellable && *stage == super::Stage::Tell;
            return if from.stage() == Some(*stage) || telling {
                Ok(from)
            } else {
                Err(illegal)
            };
        }
        Event::Flagged { .. } => return if from == State::Fitted { Ok(from) } else { Err(illegal) },
        Event::Resumed { .. } => return case.held_at.filter(|_| from == State::Held).ok_or(illegal),
        Event::Retried(again) => {
            let over = case.told && (from == State::Held || from.is_end() && from != State::Promoted);
            let known = match again.to {
                State::Accepted => true,
                State::Predicted => again.prediction.is_some(),
                State::Traced => again.prediction.is_some() && again.trace.is_some(),
                _ => false,
            };
            return if over && known && again.from == from {
                Ok(again.to)
            } else {
                Err(illegal)
            };
        }
        Event::Queued { .. } | Event::Told { .. } => return if tellable { Ok(from) } else { Err(illegal) },
        Event::Predicted { .. } => Move::Predicted,
        Event::Fitted { .. } => Move::Fitted,
        Event::Traced { .. } => Move::Traced,
        Event::Decided(_) => Move::Decided,
        Event::Unlearned { .. } => Move::Unlearned,
        Event::Certified { .. } => Move::Certified,
        Event::Published { .. } => Move::Published,
        Event::CandidateGiven { .. } => Move::CandidateGiven,
        Event::Outdated { .. } => Move::Outdated,
        Event::PromoteIntent { .. } => Move::PromoteIntent,
        Event::Held { .. } => Move::Held,
        Event::Ended { end, .. } => Move::End(*end),
    };
    TRANSITIONS
        .iter()
        .find(|row| row.0 == from && row.1 == step)
        .map(|row| row.2)
        .ok_or(illegal)
}
