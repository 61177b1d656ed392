//! What follows from a trace.

use super::{GateLimits, Mode};
use delta_guard_contract::detect::{self, Detector};
use delta_guard_contract::method::Method;
use delta_guard_contract::{TraceReport, TraceVerdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a trace found, as far as policy needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The detector's verdict.
    pub verdict: TraceVerdict,
    /// The wrong label ŷ (class name).
    pub predicted_label: String,
    /// What a reader of the verdict must know besides, in whole sentences.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Flagged examples per training label.
    pub flagged: BTreeMap<String, u64>,
    /// Training examples in all.
    pub examples: u64,
    /// Training examples with label ŷ.
    pub examples_of_label: u64,
    /// The detector that found it.
    #[serde(default = "first_detector")]
    pub detector: String,
}

/// Records of the first version name none.
fn first_detector() -> String {
    Detector::NAMES[0].into()
}

impl Found {
    /// The part of a report that policy looks at.
    pub fn of(report: &TraceReport) -> Self {
        let mut flagged = BTreeMap::new();
        for example in &report.flagged {
            *flagged.entry(example.label.clone()).or_insert(0) += 1;
        }
        Self {
            verdict: report.verdict.clone(),
            predicted_label: report.predicted_label.clone(),
            notes: report.notes.clone(),
            flagged,
            examples: report.examples,
            examples_of_label: report.examples_of_label,
            detector: report.settings.method.name().into(),
        }
    }

    /// Code of the reason for which the detector abstained; None where it did not.
    pub fn abstained(&self) -> Option<&str> {
        match &self.verdict {
            TraceVerdict::Flagged => None,
            TraceVerdict::Undecided { why } => Some(why.code()),
        }
    }

    /// Keep the counts of ŷ and of the classes with the most flagged examples; those of the others become one, where they are too many for a record.
    pub fn merge_small(&mut self) {
        const MOST: usize = 20;
        if self.flagged.len() <= MOST + 1 {
            return;
        }
        let mut others: Vec<(String, u64)> = std::mem::take(&mut self.flagged).into_iter().collect();
        others.sort_by_key(|(label, count)| (*label != self.predicted_label, std::cmp::Reverse(*count)));
        let rest: u64 = others.split_off(MOST).iter().map(|(_, count)| count).sum();
        self.flagged = others.into_iter().collect();
        *self.flagged.entry("(the other classes)".into()).or_insert(0) += rest;
    }

    /// Number of flagged examples.
    pub fn count(&self) -> u64 {
        self.flagged.values().sum()
    }

    /// Flagged share of all training examples, 0 to 1; 1 where examples were flagged of an empty set.
    pub fn share(&self) -> f64 {
        share(self.count(), self.examples)
    }

    /// Flagged share per group of labels: of ŷ, and of all other labels together (their single sizes are not part of a trace report).
    pub fn class_shares(&self) -> Vec<(String, f64)> {
        let of_label = self.flagged.get(&self.predicted_label).copied().unwrap_or(0);
        let others = self.count() - of_label;
        let mut shares = vec![(self.predicted_label.clone(), share(of_label, self.examples_of_label))];
        if others > 0 {
            shares.push((
                "the other classes".into(),
                share(others, self.examples.saturating_sub(self.examples_of_label)),
            ));
        }
        shares
    }
}

pub(super) fn share(part: u64, whole: u64) -> f64 {
    match (part, whole) {
        (0, _) => 0.0,
        (_, 0) => 1.0,
        _ => part as f64 / whole as f64,
    }
}

/// What is done about a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Report only (mode `observe`).
    Observe,
    /// Unlearn the flagged examples and put the candidate before the gate.
    Unlearn,
    /// Nothing stands out: nothing is removed, a person decides.
    Hold,
}

/// A decision and its grounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What is done.
    pub action: Action,
    /// The mode that it was taken in; a later change of the configuration does not touch this case.
    pub mode: Mode,
    /// Why, in a sentence.
    pub reason: String,
    /// Caps that the flagged set exceeds, in sentences. The candidate is still made, but the gate will reject it.
    pub over_caps: Vec<String>,
}

/// Decide what follows from a trace. `allow_unlearn` is `detect.allow_unlearn`.
pub fn decide(found: &Found, mode: Mode, allow_unlearn: Option<bool>, limits: &GateLimits) -> Decision {
    let over_caps = over_caps(found, limits);
    let count = found.count();
    let (action, reason) = match &found.verdict {
        TraceVerdict::Undecided { why } => (Action::Hold, why.sentence()),
        TraceVerdict::Flagged if count == 0 => (Action::Hold, "the detector flagged no training example".into()),
        TraceVerdict::Flagged if mode == Mode::Observe => (
            Action::Observe,
            format!("{count} training examples were flagged; mode `observe` only reports"),
        ),
        TraceVerdict::Flagged if !detect::may_unlearn(&found.detector, allow_unlearn) => (
            Action::Observe,
            format!(
                "{count} training examples were flagged by detect.method `{}`, which only reports, whatever `mode` says, unless detect.allow_unlearn is true{}",
                found.detector,
                match detect::may_unlearn(&found.detector, None) {
                    true => "",
                    false => ": it flags clean examples, too",
                }
            ),
        ),
        TraceVerdict::Flagged => (Action::Unlearn, format!("{count} of {} training examples were flagged", found.examples)),
    };
    // Told wherever the verdict is told.
    let sentences = std::iter::once(reason.as_str()).chain(found.notes.iter().map(|note| note.trim_end_matches('.')));
    let reason = sentences.collect::<Vec<_>>().join(". ");
    Decision {
        action,
        mode,
        reason,
        over_caps,
    }
}

/// Sentences about each cap that the flagged set exceeds.
fn over_caps(found: &Found, limits: &GateLimits) -> Vec<String> {
    let mut over = Vec::new();
    if found.share() > limits.max_flagged_share {
        over.push(format!(
            "{} of {} training examples are flagged ({:.2} %), the cap is {:.2} % (gate.max_flagged_share)",
            found.count(),
            found.examples,
            100.0 * found.share(),
            100.0 * limits.max_flagged_share
        ));
    }
    for (label, share) in found.class_shares() {
        if share > limits.max_class_flagged_share {
            over.push(format!(
                "{:.2} % of the training examples of {label:?} are flagged, the cap is {:.2} % (gate.max_class_flagged_share)",
                100.0 * share,
                100.0 * limits.max_class_flagged_share
            ));
        }
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta_guard_contract::finding::Abstain;

    fn found(verdict: TraceVerdict, flagged: &[(&str, u64)]) -> Found {
        Found {
            verdict,
            predicted_label: "dog".into(),
            notes: Vec::new(),
            flagged: flagged.iter().map(|(label, n)| ((*label).to_string(), *n)).collect(),
            examples: 1000,
            examples_of_label: 100,
            detector: "guard".into(),
        }
    }

    #[test]
    fn undecided_removes_nothing_in_any_mode() {
        for mode in [Mode::Observe, Mode::Propose, Mode::Enforce] {
            let undecided = found(
                TraceVerdict::Undecided {
                    why: Abstain::other("as-placebos", "placebos do as well"),
                },
                &[],
            );
            let decision = decide(&undecided, mode, None, &GateLimits::default());
            assert_eq!((decision.action, decision.reason.as_str()), (Action::Hold, "placebos do as well"));
            assert_eq!(
                decide(&found(TraceVerdict::Flagged, &[]), mode, None, &GateLimits::default()).action,
                Action::Hold
            );
        }
    }

    #[test]
    fn notes_of_the_trace_are_told_with_the_verdict() {
        let undecided = TraceVerdict::Undecided {
            why: Abstain::other("none", "none"),
        };
        for (verdict, flagged) in [(TraceVerdict::Flagged, &[("dog", 30)][..]), (undecided, &[])] {
            let mut found = found(verdict, flagged);
            let plain = decide(&found, Mode::Propose, None, &GateLimits::default());
            found.notes = vec!["Two were not compared.".into(), "One more thing.".into()];
            let noted = decide(&found, Mode::Propose, None, &GateLimits::default());
            assert_eq!(noted.action, plain.action);
            assert_eq!(noted.reason, format!("{}. Two were not compared. One more thing", plain.reason));
        }
    }

    #[test]
    fn modes() {
        let some = found(TraceVerdict::Flagged, &[("dog", 30)]);
        for (mode, action) in [
            (Mode::Observe, Action::Observe),
            (Mode::Propose, Action::Unlearn),
            (Mode::Enforce, Action::Unlearn),
        ] {
            let decision = decide(&some, mode, None, &GateLimits::default());
            assert_eq!((decision.action, decision.mode), (action, mode));
            assert!(decision.over_caps.is_empty());
        }
    }

    /// What the paper's rule flags is never unlearned unless the owner says so.
    #[test]
    fn the_papers_modes_only_observe() {
        let row = |detector: &str, mode, allow| {
            let found = Found {
                detector: detector.into(),
                ..found(TraceVerdict::Flagged, &[("dog", 30)])
            };
            decide(&found, mode, allow, &GateLimits::default())
        };
        for mode in [Mode::Observe, Mode::Propose, Mode::Enforce] {
            for detector in ["paper-code", "paper-text"] {
                for allow in [None, Some(false)] {
                    let decision = row(detector, mode, allow);
                    assert_eq!(decision.action, Action::Observe, "{mode} {detector} {allow:?}");
                    assert!(
                        mode == Mode::Observe || (decision.reason.contains(detector) && decision.reason.contains("detect.allow_unlearn")),
                        "{decision:?}"
                    );
                }
                let allowed = row(detector, mode, Some(true)).action;
                assert_eq!(allowed, if mode == Mode::Observe { Action::Observe } else { Action::Unlearn });
            }
        }
        assert_eq!(row("guard", Mode::Enforce, Some(false)).action, Action::Observe);
        assert_eq!(row("guard", Mode::Enforce, None).action, Action::Unlearn);
    }

    #[test]
    fn caps_are_inclusive_and_named() {
        let limits = GateLimits {
            max_flagged_share: 0.03,
            max_class_flagged_share: 0.3,
            ..GateLimits::default()
        };
        assert!(
            decide(&found(TraceVerdict::Flagged, &[("dog", 30)]), Mode::Propose, None, &limits)
                .over_caps
                .is_empty()
        );
        let over = decide(&found(TraceVerdict::Flagged, &[("dog", 31)]), Mode::Propose, None, &limits).over_caps;
        assert_eq!(over.len(), 2, "{over:?}");
        assert!(over[0].contains("31 of 1000") && over[0].contains("gate.max_flagged_share"));
        assert!(over[1].contains("31.00 %") && over[1].contains("\"dog\""));
        // 27 of the 900 examples of other classes are 3 %
        let others = decide(
            &found(TraceVerdict::Flagged, &[("cat", 27)]),
            Mode::Propose,
            None,
            &GateLimits {
                max_class_flagged_share: 0.029,
                ..limits
            },
        );
        assert_eq!(others.over_caps.len(), 1, "{others:?}");
        assert!(others.over_caps[0].contains("other classes"));
    }
}
