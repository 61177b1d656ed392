//! What a repair may cost: the accuracy of all validation pictures, and that of each class. A fall counts when it is larger than the limit *and* no chance.

use super::paired::{holm, how_often, mcnemar, needed};
use super::{EPSILON, GateLimits, GateVerdict};
use delta_guard_contract::job::{CertifyResult, Paired};
use std::collections::BTreeSet;

/// A fall that may be chance is a doubt, which a person decides, when it is larger than the limit by more than this factor.
const FAR: f64 = 2.0;

/// At most this many class names stand in a sentence.
const MOST_NAMES: usize = 5;

/// How many of the same pictures both models read rightly.
#[derive(Clone, Debug, PartialEq)]
struct Fall {
    /// What they are, as a sentence begins with it.
    what: String,
    examples: u64,
    before: u64,
    after: u64,
    /// Right before and wrong after, and the reverse. None: the worker is of a version that does not say, and every fall counts.
    paired: Option<(u64, u64)>,
    /// How likely chance alone makes such a fall, counted over all that are looked at.
    p: f64,
}

/// What follows from a fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ruling {
    /// It is within the limit.
    Within,
    /// It may be chance.
    Chance,
    /// It may be chance, but is so large that a person should look.
    Doubt,
    /// It is none.
    Fails,
}

impl Fall {
    fn new(what: String, (examples, before, after): (u64, u64, u64), paired: Option<(u64, u64)>) -> Self {
        let p = paired.map_or(0.0, |(lost, won)| mcnemar(lost, won));
        Self {
            what,
            examples,
            before,
            after,
            paired,
            p,
        }
    }

    fn share(&self) -> f64 {
        (self.before as f64 - self.after as f64) / self.examples as f64
    }

    fn ruling(&self, limit: f64, alpha: f64) -> Ruling {
        let pictures = self.before.saturating_sub(self.after);
        if self.share() <= limit + EPSILON {
            Ruling::Within
        } else if self.p <= alpha {
            Ruling::Fails
        } else if self.share() > FAR * limit + EPSILON && pictures > 1 {
            Ruling::Doubt
        } else {
            Ruling::Chance
        }
    }

    /// In a sentence. `looked_at`: among so many sets.
    fn told(&self, ruling: Ruling, limit: f64, key: &str, looked_at: usize) -> String {
        let percent = |correct: u64| 100.0 * correct as f64 / self.examples as f64;
        let fell = format!(
            "{} dropped by {:.2} percentage points ({:.2} % to {:.2} % of {} pictures), at most {:.2} are allowed (gate.{key})",
            self.what,
            percent(self.before) - percent(self.after),
            percent(self.before),
            percent(self.after),
            self.examples,
            100.0 * limit
        );
        let Some((lost, won)) = self.paired else { return fell };
        let follows = match ruling {
            Ruling::Within | Ruling::Chance => ", so it may be chance and passes",
            Ruling::Doubt => ", so it may be chance, but it is more than twice the limit",
            Ruling::Fails => "",
        };
        format!(
            "{fell}; {lost} were lost, {won} won, which chance alone does {}{follows}",
            how_often(self.p, looked_at)
        )
    }
}

/// Judge what `result` says of the validation set. Counts are compared, not rounded shares, so that a fall of exactly the limit passes.
pub(super) fn judge(result: &CertifyResult, limits: &GateLimits, verdict: &mut GateVerdict) {
    let (before, after) = (&result.before, &result.after);
    if before.examples == 0 || before.examples != after.examples {
        verdict.reasons.push(format!(
            "production model and candidate were not measured on the same validation set ({} and {} pictures)",
            before.examples, after.examples
        ));
        return;
    }
    if let Some(paired) = &result.paired
        && let Some(what) = contradiction(result, paired)
    {
        verdict.reasons.push(format!(
            "{what}: the pictures that were lost and won do not add up to the accuracy before and after, so nothing can be said of chance"
        ));
        return;
    }
    let paired = result.paired.as_ref().map(|paired| (paired.lost, paired.won));
    let all = Fall::new("validation accuracy".into(), (before.examples, before.correct, after.correct), paired);
    rule(&[all], (limits.max_accuracy_drop, "max_accuracy_drop"), limits.alpha, verdict);
    let falls = classes(result, limits, verdict);
    rule(&falls, (limits.max_class_drop, "max_class_drop"), limits.alpha, verdict);
    if paired.is_some() {
        verdict.notes.extend(too_few(result, limits, falls.len()));
    }
}

/// What the worker's counts contradict each other about.
fn contradiction(result: &CertifyResult, paired: &Paired) -> Option<String> {
    let fits = |(examples, before): (u64, u64), after: u64, (lost, won): (u64, u64)| {
        lost <= before && won <= examples.saturating_sub(before) && before - lost + won == after
    };
    let of = |name: &String| result.before.classes.get(name).copied().unwrap_or_default();
    let whole = fits(
        (result.before.examples, result.before.correct),
        result.after.correct,
        (paired.lost, paired.won),
    );
    if !whole {
        return Some("of all validation pictures".into());
    }
    let names: BTreeSet<&String> = result.before.classes.keys().chain(paired.classes.keys()).collect();
    let strange = names.into_iter().find(|name| {
        let after = result.after.classes.get(*name).copied().unwrap_or_default().1;
        !fits(of(name), after, paired.classes.get(*name).copied().unwrap_or_default())
    });
    strange.map(|name| format!("of class {name:?}"))
}

/// The classes that are looked at; small ones also together. Without paired counts a small class alone says nothing: one picture of ten is ten percentage points.
fn classes(result: &CertifyResult, limits: &GateLimits, verdict: &mut GateVerdict) -> Vec<Fall> {
    let (before, after) = (&result.before.classes, &result.after.classes);
    let mut unequal: Vec<String> = Vec::new();
    let mut falls = Vec::new();
    let mut small: Vec<(&str, Fall)> = Vec::new();
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let (examples, right) = before.get(name).copied().unwrap_or_default();
        let (examples_after, right_after) = after.get(name).copied().unwrap_or_default();
        let paired = result.paired.as_ref().map(|paired| paired.classes.get(name).copied().unwrap_or_default());
        let fall = Fall::new(format!("accuracy of class {name:?}"), (examples, right, right_after), paired);
        if examples != examples_after {
            unequal.push(format!(
                "class {name:?} was measured on {examples} pictures before and {examples_after} after"
            ));
        } else if examples >= limits.min_class_examples {
            falls.push(fall);
        } else if examples > 0 {
            small.push((name, fall));
        }
    }
    let more = unequal.len().saturating_sub(MOST_NAMES);
    verdict.reasons.extend(unequal.into_iter().take(MOST_NAMES));
    if more > 0 {
        verdict.reasons.push(format!("so were {more} other classes"));
    }
    if !small.is_empty() {
        falls.extend(small_classes(small, limits, verdict));
    }
    falls
}

fn small_classes(small: Vec<(&str, Fall)>, limits: &GateLimits, verdict: &mut GateVerdict) -> Vec<Fall> {
    let names = names_of(&small.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    let least = limits.min_class_examples;
    let sum = |of: fn(&Fall) -> u64| small.iter().map(|(_, fall)| of(fall)).sum::<u64>();
    let paired = small
        .iter()
        .map(|(_, fall)| fall.paired)
        .try_fold((0, 0), |all, one| one.map(|one| (all.0 + one.0, all.1 + one.1)));
    let together = Fall::new(
        format!("accuracy of the small {names}"),
        (sum(|fall| fall.examples), sum(|fall| fall.before), sum(|fall| fall.after)),
        paired,
    );
    match (paired, together.examples < least) {
        (None, true) => {
            verdict.notes.push(format!(
                "{names} have only {} validation pictures together and were judged by the overall accuracy alone",
                together.examples
            ));
            Vec::new()
        }
        (None, false) => {
            verdict.notes.push(format!(
                "{names} have fewer than {least} validation pictures each and were judged together"
            ));
            vec![together]
        }
        // One alone is all of them.
        (Some(_), _) => {
            let several = small.len() > 1;
            small.into_iter().map(|(_, fall)| fall).chain(several.then_some(together)).collect()
        }
    }
}

/// What follows from the falls of one limit: the worst of each kind speaks for all of them, since a thousand sentences are none.
fn rule(falls: &[Fall], (limit, key): (f64, &str), alpha: f64, verdict: &mut GateVerdict) {
    let corrected = holm(&falls.iter().map(|fall| fall.p).collect::<Vec<_>>());
    let mut ruled: Vec<(Ruling, Fall)> = falls
        .iter()
        .zip(corrected)
        .map(|(fall, p)| Fall { p, ..fall.clone() })
        .map(|fall| (fall.ruling(limit, alpha), fall))
        .collect();
    ruled.sort_by(|a, b| b.1.share().total_cmp(&a.1.share()));
    for (ruling, list) in [
        (Ruling::Fails, &mut verdict.reasons),
        (Ruling::Doubt, &mut verdict.doubts),
        (Ruling::Chance, &mut verdict.notes),
    ] {
        let mut of_kind = ruled.iter().filter(|(one, _)| *one == ruling).map(|(_, fall)| fall);
        let Some(worst) = of_kind.next() else { continue };
        let told = worst.told(ruling, limit, key, falls.len());
        let so = match ruling {
            Ruling::Fails => "that limit, too",
            _ => "that limit, too, which may be chance",
        };
        list.push(match of_kind.count() {
            0 => told,
            1 => format!("{told}; another class exceeds {so}"),
            others => format!("{told}; {others} other classes exceed {so}"),
        });
    }
}

/// Of which classes a fall above the limit cannot be told from chance, for want of pictures.
fn too_few(result: &CertifyResult, limits: &GateLimits, looked_at: usize) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(least) = needed(limits.max_accuracy_drop, limits.alpha, 1).filter(|least| result.before.examples < *least) {
        said.push(format!(
            "the validation set has {} pictures: that a fall of just over {:.2} percentage points is no chance can only be said of {least} or more (gate.alpha)",
            result.before.examples,
            100.0 * limits.max_accuracy_drop
        ));
    }
    let Some(least) = needed(limits.max_class_drop, limits.alpha, looked_at) else {
        return said;
    };
    let mut few: Vec<(u64, &String)> = result
        .before
        .classes
        .iter()
        .filter(|(_, (examples, _))| (1..least).contains(examples))
        .map(|(name, (examples, _))| (*examples, name))
        .collect();
    few.sort();
    if !few.is_empty() {
        let names: Vec<String> = few.iter().map(|(examples, name)| format!("{name} ({examples})")).collect();
        said.push(format!(
            "too few validation pictures to tell a fall of just over {:.2} percentage points from chance, where {looked_at} are looked at: {}; {least} of each are needed (gate.alpha)",
            100.0 * limits.max_class_drop,
            names_of(&names),
        ));
    }
    said
}

fn names_of(small: &[String]) -> String {
    match small.len().saturating_sub(MOST_NAMES) {
        0 => format!("classes {small:?}"),
        more => format!("classes {:?} and {more} others", &small[..MOST_NAMES]),
    }
}
