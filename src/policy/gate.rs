//! The gate: what a candidate must fulfil before it may be called a repair.

use delta_guard_contract::job::{Accuracy, CertifyResult};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a candidate must fulfil. Shares are 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GateLimits {
    /// Accuracy on the validation set may drop by at most this (0.02: two percentage points).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_accuracy_drop: f64,
    /// The accuracy of no single class may drop by more than this.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_class_drop: f64,
    /// Classes with fewer validation pictures than this are judged together as one class: a single picture of ten is already ten percentage points.
    #[schemars(range(min = 1, max = 100_000))]
    pub min_class_examples: u64,
    /// Where it is known what the picture shows (`true_label` of the sidecar), the candidate must read it so. `false`: it is enough that it no longer reads it as the wrong label, and a third wrong class passes with a note.
    pub true_label: bool,
    /// At most this share of all training examples may be removed by one case.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_flagged_share: f64,
    /// At most this share of the training examples of one class may be removed by one case.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_class_flagged_share: f64,
}

impl Default for GateLimits {
    /// 2 and 10 percentage points, classes from 20 pictures, the true label, 10 % of the set and half of a class.
    fn default() -> Self {
        Self {
            max_accuracy_drop: 0.02,
            max_class_drop: 0.1,
            min_class_examples: 20,
            true_label: true,
            max_flagged_share: 0.1,
            max_class_flagged_share: 0.5,
        }
    }
}

/// What the gate says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateVerdict {
    /// Did the candidate pass?
    pub pass: bool,
    /// Why not, a sentence each; empty when it passed.
    pub reasons: Vec<String>,
    /// What was judged otherwise than one would think, a sentence each.
    pub notes: Vec<String>,
}

/// What is known of an anomaly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The wrong label ŷ.
    pub wrong: String,
    /// What it shows, where somebody said so.
    pub truth: Option<String>,
}

/// How a candidate reads an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Still as the wrong label.
    Still,
    /// As what it shows.
    Right,
    /// As something else than the wrong label; nobody said what it shows.
    Otherwise,
    /// As a third class, which is wrong too.
    Third,
}

impl Known {
    /// How `label` is to be taken.
    pub fn reading(&self, label: &str) -> Reading {
        match &self.truth {
            _ if label == self.wrong => Reading::Still,
            Some(truth) if label == truth => Reading::Right,
            Some(_) => Reading::Third,
            None => Reading::Otherwise,
        }
    }
}

/// Judge a candidate. `known` tells of the anomalies in the order of `result.anomalies_after`; `over_caps` are the caps that the
/// flagged set exceeds ([`super::Decision::over_caps`]).
pub fn judge(result: &CertifyResult, known: &[Known], over_caps: &[String], limits: &GateLimits) -> GateVerdict {
    let mut reasons = Vec::new();
    let mut notes = Vec::new();
    anomalies(result, known, limits, &mut reasons, &mut notes);
    accuracy(&result.before, &result.after, limits, &mut reasons, &mut notes);
    reasons.extend(over_caps.iter().cloned());
    GateVerdict {
        pass: reasons.is_empty(),
        reasons,
        notes,
    }
}

fn anomalies(result: &CertifyResult, known: &[Known], limits: &GateLimits, reasons: &mut Vec<String>, notes: &mut Vec<String>) {
    if known.is_empty() || result.anomalies_after.len() != known.len() {
        reasons.push(format!(
            "{} anomalies were measured, {} were asked for",
            result.anomalies_after.len(),
            known.len()
        ));
        return;
    }
    for (number, (after, known)) in (1..).zip(result.anomalies_after.iter().zip(known)) {
        let (label, probability, wrong) = (&after.label, after.probability, &known.wrong);
        match known.reading(label) {
            Reading::Right => {}
            Reading::Still => reasons.push(format!("the candidate still reads anomaly {number} as {wrong:?} (probability {probability:.3})")),
            Reading::Otherwise => notes.push(format!(
                "the candidate no longer reads anomaly {number} as {wrong:?} but as {label:?} (probability {probability:.3}); nobody said what it shows"
            )),
            Reading::Third => {
                let told = format!(
                    "the candidate reads anomaly {number} as {label:?} (probability {probability:.3}), which is wrong too: it shows {:?}",
                    known.truth.as_deref().unwrap_or_default()
                );
                match limits.true_label {
                    true => reasons.push(format!("{told} (gate.true_label)")),
                    false => notes.push(told),
                }
            }
        }
    }
}

/// Compare two measurements of the same set. Counts are compared, not rounded shares, so that a drop of exactly the limit passes.
fn accuracy(before: &Accuracy, after: &Accuracy, limits: &GateLimits, reasons: &mut Vec<String>, notes: &mut Vec<String>) {
    if before.examples == 0 || before.examples != after.examples {
        reasons.push(format!(
            "production model and candidate were not measured on the same validation set ({} and {} pictures)",
            before.examples, after.examples
        ));
        return;
    }
    if dropped(before.correct, after.correct, before.examples) > limits.max_accuracy_drop + EPSILON {
        reasons.push(sentence(
            "validation accuracy",
            before.correct,
            after.correct,
            before.examples,
            limits.max_accuracy_drop,
            "max_accuracy_drop",
        ));
    }
    classes(before, after, limits, reasons, notes);
}

/// The same class by class; small classes are judged together.
fn classes(before: &Accuracy, after: &Accuracy, limits: &GateLimits, reasons: &mut Vec<String>, notes: &mut Vec<String>) {
    let mut small: Vec<&str> = Vec::new();
    let mut unequal: Vec<String> = Vec::new();
    let mut worse: Vec<(f64, String)> = Vec::new();
    let mut pooled = (0, 0, 0);
    let names: BTreeSet<&String> = before.classes.keys().chain(after.classes.keys()).collect();
    for name in names {
        let (examples, correct) = before.classes.get(name).copied().unwrap_or((0, 0));
        let (examples_after, correct_after) = after.classes.get(name).copied().unwrap_or((0, 0));
        if examples != examples_after {
            unequal.push(format!(
                "class {name:?} was measured on {examples} pictures before and {examples_after} after"
            ));
        } else if examples >= limits.min_class_examples {
            let drop = dropped(correct, correct_after, examples);
            if drop > limits.max_class_drop + EPSILON {
                let what = format!("accuracy of class {name:?}");
                let told = sentence(&what, correct, correct_after, examples, limits.max_class_drop, "max_class_drop");
                worse.push((drop, told));
            }
        } else if examples > 0 {
            small.push(name);
            pooled = (pooled.0 + examples, pooled.1 + correct, pooled.2 + correct_after);
        }
    }
    let more = unequal.len().saturating_sub(MOST_NAMES);
    reasons.extend(unequal.into_iter().take(MOST_NAMES));
    if more > 0 {
        reasons.push(format!("so were {more} other classes"));
    }
    // The worst class speaks for all of them: a thousand sentences are none.
    worse.sort_by(|a, b| b.0.total_cmp(&a.0));
    let others = worse.len().saturating_sub(1);
    reasons.extend(worse.into_iter().next().map(|(_, told)| match others {
        0 => told,
        1 => format!("{told}; another class exceeds that limit, too"),
        _ => format!("{told}; {others} other classes exceed that limit, too"),
    }));
    if !small.is_empty() {
        small_classes(&small, pooled, limits, reasons, notes);
    }
}

/// `pooled`: their pictures, how many of these were read rightly before, and after.
fn small_classes(names: &[&str], pooled: (u64, u64, u64), limits: &GateLimits, reasons: &mut Vec<String>, notes: &mut Vec<String>) {
    let (examples, correct, correct_after) = pooled;
    let small = names_of(names);
    if examples < limits.min_class_examples {
        notes.push(format!(
            "{small} have only {examples} validation pictures together and were judged by the overall accuracy alone"
        ));
        return;
    }
    notes.push(format!(
        "{small} have fewer than {} validation pictures each and were judged together",
        limits.min_class_examples
    ));
    if dropped(correct, correct_after, examples) > limits.max_class_drop + EPSILON {
        let what = format!("accuracy of the small {small}");
        reasons.push(sentence(&what, correct, correct_after, examples, limits.max_class_drop, "max_class_drop"));
    }
}

/// At most this many class names stand in a sentence.
const MOST_NAMES: usize = 5;

fn names_of(small: &[&str]) -> String {
    match small.len().saturating_sub(MOST_NAMES) {
        0 => format!("classes {small:?}"),
        more => format!("classes {:?} and {more} others", &small[..MOST_NAMES]),
    }
}

/// Slack for the division: far below one picture of any set.
const EPSILON: f64 = 1e-12;

fn dropped(before: u64, after: u64, examples: u64) -> f64 {
    (before as f64 - after as f64) / examples as f64
}

fn sentence(what: &str, before: u64, after: u64, examples: u64, limit: f64, key: &str) -> String {
    let percent = |correct: u64| 100.0 * correct as f64 / examples as f64;
    format!(
        "{what} dropped by {:.2} percentage points ({:.2} % to {:.2} % of {examples} pictures), at most {:.2} are allowed (gate.{key})",
        percent(before) - percent(after),
        percent(before),
        percent(after),
        100.0 * limit
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta_guard_contract::Digest;
    use delta_guard_contract::job::Prediction;

    fn prediction(label: &str) -> Prediction {
        Prediction {
            label: label.into(),
            probability: 0.9,
            top: vec![],
            classes: vec!["cat".into(), "dog".into()],
            checkpoint: Digest("0".into()),
        }
    }

    fn measured(classes: &[(&str, u64, u64)]) -> Accuracy {
        Accuracy {
            examples: classes.iter().map(|c| c.1).sum(),
            correct: classes.iter().map(|c| c.2).sum(),
            classes: classes.iter().map(|(name, n, right)| ((*name).to_string(), (*n, *right))).collect(),
        }
    }

    fn certify(after_label: &str, before: &[(&str, u64, u64)], after: &[(&str, u64, u64)]) -> CertifyResult {
        CertifyResult {
            anomalies_before: vec![prediction("dog")],
            anomalies_after: vec![prediction(after_label)],
            before: measured(before),
            after: measured(after),
            flagged: None,
            candidate: Digest("1".into()),
            manifest: None,
            seconds: 0.0,
        }
    }

    fn verdict(after_label: &str, before: &[(&str, u64, u64)], after: &[(&str, u64, u64)]) -> GateVerdict {
        judge(&certify(after_label, before, after), &[known(Some("cat"))], &[], &GateLimits::default())
    }

    fn known(truth: Option<&str>) -> Known {
        Known {
            wrong: "dog".into(),
            truth: truth.map(Into::into),
        }
    }

    /// What the candidate reads and what the picture shows, against what the gate says: a reason, a note, or nothing.
    #[test]
    fn a_third_wrong_class_is_no_repair() {
        let strict = GateLimits::default();
        let lenient = GateLimits {
            true_label: false,
            ..GateLimits::default()
        };
        // Read as, shows, limits, passes?, words of the reason, words of the note.
        type Row<'a> = (&'a str, Option<&'a str>, &'a GateLimits, bool, &'a [&'a str], &'a [&'a str]);
        let rows: [Row; 8] = [
            ("cat", Some("cat"), &strict, true, &[], &[]),
            (
                "ship",
                Some("cat"),
                &strict,
                false,
                &["\"ship\"", "it shows \"cat\"", "gate.true_label"],
                &[],
            ),
            ("ship", Some("cat"), &lenient, true, &[], &["\"ship\"", "wrong too", "it shows \"cat\""]),
            ("ship", None, &strict, true, &[], &["no longer", "\"dog\"", "\"ship\"", "nobody said"]),
            ("dog", None, &strict, false, &["still reads anomaly 1 as \"dog\""], &[]),
            ("dog", Some("cat"), &lenient, false, &["still reads anomaly 1 as \"dog\""], &[]),
            // A placebo, handed in although it is read rightly: nothing that it is read as is a repair.
            ("dog", Some("dog"), &strict, false, &["still reads"], &[]),
            ("cat", Some("dog"), &strict, false, &["it shows \"dog\"", "gate.true_label"], &[]),
        ];
        for (label, truth, limits, pass, reason, note) in rows {
            let verdict = judge(&certify(label, BEFORE, BEFORE), &[known(truth)], &[], limits);
            assert_eq!(verdict.pass, pass, "{label} {truth:?}: {verdict:?}");
            for (said, wanted) in [(&verdict.reasons, reason), (&verdict.notes, note)] {
                assert_eq!(said.len(), usize::from(!wanted.is_empty()), "{label} {truth:?}: {verdict:?}");
                assert!(wanted.iter().all(|word| said[0].contains(word)), "{label} {truth:?}: {verdict:?}");
            }
        }
        // Each anomaly is held against what is known of it.
        let mut two = certify("cat", BEFORE, BEFORE);
        two.anomalies_after.push(prediction("ship"));
        let verdict = judge(&two, &[known(Some("cat")), known(Some("cat"))], &[], &strict);
        assert!(verdict.reasons.len() == 1 && verdict.reasons[0].contains("anomaly 2"), "{verdict:?}");
        assert!(!judge(&two, &[known(Some("cat"))], &[], &strict).pass, "one of two was judged");
    }

    const BEFORE: &[(&str, u64, u64)] = &[("cat", 100, 90), ("dog", 100, 90)];

    #[test]
    fn passes_at_the_limits() {
        // 4 of 200 are exactly 2 points; 10 of 100 exactly 10.
        assert_eq!(
            verdict("cat", BEFORE, &[("cat", 100, 90), ("dog", 100, 86)]),
            GateVerdict {
                pass: true,
                reasons: vec![],
                notes: vec![]
            }
        );
        assert!(verdict("cat", BEFORE, &[("cat", 100, 96), ("dog", 100, 80)]).pass);
    }

    #[test]
    fn each_limit_rejects_with_its_own_reason() {
        type Row<'a> = (&'a str, &'a [(&'a str, u64, u64)], &'a str);
        let rows: [Row; 4] = [
            ("dog", BEFORE, "still reads anomaly 1 as \"dog\""),
            ("cat", &[("cat", 100, 90), ("dog", 100, 85)], "gate.max_accuracy_drop"),
            ("cat", &[("cat", 100, 99), ("dog", 100, 79)], "gate.max_class_drop"),
            ("cat", &[("cat", 100, 90), ("dog", 99, 89)], "not measured on the same"),
        ];
        for (label, after, word) in rows {
            let verdict = verdict(label, BEFORE, after);
            assert!(!verdict.pass);
            assert_eq!(verdict.reasons.len(), 1, "{verdict:?}");
            assert!(verdict.reasons[0].contains(word), "{verdict:?}");
        }
        let capped = judge(
            &certify("cat", BEFORE, BEFORE),
            &[known(Some("cat"))],
            &["too many".into()],
            &GateLimits::default(),
        );
        assert_eq!(capped.reasons, ["too many"]);
    }

    #[test]
    fn the_worst_class_speaks_for_all() {
        let before: &[(&str, u64, u64)] = &[("a", 100, 90), ("b", 100, 90), ("c", 100, 90), ("d", 1000, 500)];
        let one = verdict("cat", before, &[("a", 100, 90), ("b", 100, 79), ("c", 100, 90), ("d", 1000, 511)]);
        assert!(one.reasons.len() == 1 && one.reasons[0].ends_with("(gate.max_class_drop)"), "{one:?}");
        let two = verdict("cat", before, &[("a", 100, 79), ("b", 100, 60), ("c", 100, 90), ("d", 1000, 541)]);
        assert!(two.reasons[0].ends_with("; another class exceeds that limit, too"), "{two:?}");
        let three = verdict("cat", before, &[("a", 100, 79), ("b", 100, 60), ("c", 100, 70), ("d", 1000, 561)]);
        assert_eq!(three.reasons.len(), 1, "{three:?}");
        assert!(
            three.reasons[0].starts_with("accuracy of class \"b\"") && three.reasons[0].contains("2 other classes"),
            "{three:?}"
        );
    }

    #[test]
    fn small_classes_are_judged_together() {
        let before: &[(&str, u64, u64)] = &[("big", 1000, 900), ("x", 10, 10), ("y", 15, 15)];
        // One of ten is lost: 10 points of x, but 1 of 25 together.
        let one = verdict("cat", before, &[("big", 1000, 900), ("x", 10, 8), ("y", 15, 15)]);
        assert!(one.pass && one.notes.len() == 1, "{one:?}");
        let many = verdict("cat", before, &[("big", 1000, 900), ("x", 10, 8), ("y", 15, 14)]);
        assert!(!many.pass && many.reasons[0].contains("small classes"), "{many:?}");
        let lone = verdict("cat", &[("big", 1000, 900), ("x", 10, 10)], &[("big", 1000, 900), ("x", 10, 0)]);
        assert!(lone.pass && lone.notes[0].contains("overall accuracy alone"), "{lone:?}");
    }

    #[test]
    fn an_empty_measurement_never_passes() {
        assert!(!verdict("cat", &[], &[]).pass);
        assert!(!judge(&certify("cat", BEFORE, BEFORE), &[], &[], &GateLimits::default()).pass);
    }
}
