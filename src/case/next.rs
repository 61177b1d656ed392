//! What a case needs next: a pure function of the case and the rules.

use super::phase::{Certified, Phase, Stance};
use super::{Case, Claim, End, Event, Stage, bounds};
use crate::policy::{self, Action, Decision, GateLimits, Mode};
use delta_guard_contract::Digest;
use delta_guard_contract::job::Prediction;

/// What the conclusions depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// How far the guard may act.
    pub mode: Mode,
    /// Name of the detector where it needs no factors: there is nothing to fit then.
    pub without_factors: Option<String>,
    /// May what the detector flags be unlearned? None: as the detector says.
    pub allow_unlearn: Option<bool>,
    /// End the case when the picture is no anomaly.
    pub check_prediction: bool,
    /// Caps and gate.
    pub gate: GateLimits,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "one at a time, never in a collection")]
pub enum Step {
    /// Run the worker for this stage.
    Work(Stage),
    /// A conclusion: record it.
    Record(Event),
    /// Publish the candidate folder.
    Publish,
    /// Approve the candidate, as the mode says, where the caps allow that.
    Approve,
    /// Move `current` (the intent is recorded first).
    Promote,
    /// Write the report, queue the messages.
    Tell,
    /// Nothing, until a person acts.
    Wait,
}

/// What `case` needs next.
pub fn next(case: &Case, rules: &Rules) -> Step {
    let rests = || if case.told { Step::Wait } else { Step::Tell };
    match case.stance {
        Stance::Held(_) | Stance::Ended(_) => return rests(),
        Stance::Working => {}
    }
    match &case.phase {
        Phase::Accepted => Step::Work(Stage::Predict),
        Phase::Predicted(prediction) => {
            let whole = !case.kept.contains_key(&Stage::Predict);
            match objection(prediction, whole, &case.accepted.claim, rules.check_prediction) {
                Some((end, reason, help)) => Step::Record(Event::Ended { end, reason, help }),
                None => match &rules.without_factors {
                    Some(detector) => Step::Record(Event::FitSkipped { detector: detector.clone() }),
                    None => Step::Work(Stage::Fit),
                },
            }
        }
        Phase::Fitted(_) => Step::Work(Stage::Trace),
        Phase::Traced(traced) => Step::Record(Event::Decided(policy::decide(
            &traced.trace.found,
            rules.mode,
            rules.allow_unlearn,
            &rules.gate,
        ))),
        Phase::Decided(decided) => after_decision(&decided.decision, case.given.as_ref()),
        Phase::Unlearned(_) => Step::Work(Stage::Certify),
        // What an owner's own candidate was trained without, only the owner knows.
        Phase::Certified(certified) if rules.gate.regrowth > 0 && certified.gate.pass && certified.regrowth.is_none() && case.given.is_none() => {
            Step::Work(Stage::Retrace)
        }
        Phase::Certified(_) => Step::Publish,
        Phase::Published(candidate) => after_gate(&candidate.certified, case.given.is_some()),
        Phase::Proposed(_) | Phase::Declined(..) => rests(),
        Phase::Approved(_, approval) if approval.by_hand => ended(End::Promoted, "its owner has put the candidate in use", ""),
        Phase::Approved(..) | Phase::Promoting(..) => Step::Promote,
    }
}

fn after_decision(decision: &Decision, given: Option<&(String, Digest)>) -> Step {
    match decision.action {
        Action::Unlearn => match given {
            Some((file, digest)) => Step::Record(Event::CandidateGiven {
                file: file.clone(),
                digest: digest.clone(),
            }),
            None => Step::Work(Stage::Unlearn),
        },
        Action::Observe => ended(End::Observed, &decision.reason, ""),
        Action::Hold => ended(
            End::Undecided,
            &decision.reason,
            "nothing was removed; look at the report, and submit more pictures of the same kind if it is a real anomaly",
        ),
    }
}

fn after_gate(certified: &Certified, given: bool) -> Step {
    let gate = &certified.gate;
    if !gate.pass {
        return ended(End::Rejected, &gate.reasons.join("; "), "the candidate is kept, marked rejected");
    }
    // What an owner's own candidate was trained on is not ours to vouch for, and a doubt is a person's to decide.
    if certified.unlearned.decided.decision.mode == Mode::Enforce && !given && gate.doubts.is_empty() {
        return Step::Approve;
    }
    Step::Record(Event::Proposed {
        reason: match gate.doubts.as_slice() {
            [] => "the candidate passed the gate".into(),
            doubts => format!("the candidate passed the gate, but a person should look: {}", doubts.join("; ")),
        },
        help: "look at the report and approve or decline the candidate".into(),
    })
}

fn ended(end: End, reason: &str, help: &str) -> Step {
    Step::Record(Event::Ended {
        end,
        reason: reason.into(),
        help: help.into(),
    })
}

/// The classes to choose from, as far as they fit into a sentence. `whole`: are these all of them?
fn known(classes: &[String], whole: bool) -> String {
    const MOST: usize = 40;
    let shown = classes.iter().take(MOST).map(|name| bounds::cut(name, 40)).collect::<Vec<_>>().join(", ");
    match (whole, classes.len().saturating_sub(MOST)) {
        (true, 0) => format!("the classes are: {shown}"),
        (true, more) => format!("the classes are: {shown} and {more} more"),
        (false, _) => format!("some of the classes are: {shown}; the folders of the training set have their names"),
    }
}

/// Why a predicted picture is not worked on: a label that does not exist is always refused, the rest is the prediction check.
fn objection(prediction: &Prediction, whole: bool, claim: &Claim, check: bool) -> Option<(End, String, String)> {
    for (key, label) in [("predicted_label", &claim.predicted_label), ("true_label", &claim.true_label)] {
        if let Some(label) = label
            && !prediction.classes.contains(label)
        {
            return Some((
                End::Refused,
                format!("the sidecar's {key} {:?} is no class of the model", bounds::cut(label, bounds::LABEL)),
                known(&prediction.classes, whole),
            ));
        }
    }
    if !check {
        return None;
    }
    if claim.true_label.as_ref() == Some(&prediction.label) {
        let reason = format!(
            "the model reads it correctly, as {:?} (probability {:.3})",
            prediction.label, prediction.probability
        );
        return Some((End::NoAnomaly, reason, String::new()));
    }
    match &claim.predicted_label {
        Some(claimed) if *claimed != prediction.label => Some((
            End::NoAnomaly,
            format!(
                "the sidecar says that the model predicts {claimed:?}; the production checkpoint predicts {:?}",
                prediction.label
            ),
            "check that model.checkpoint is the checkpoint that made the wrong prediction, and that the picture was not changed since".into(),
        )),
        _ => None,
    }
}
