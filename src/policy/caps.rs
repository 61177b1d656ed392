//! How much the guard may do without a person's word. The gate says whether a candidate is a repair; a cap says that somebody should look before many small
//! repairs, each of which passes the gate, have changed the model beyond recognition.

use super::Found;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What may be promoted in mode `enforce` without a person. Shares are 0 to 1. Past a cap the case is held, and `delta-guard resume CASE` lets it pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Caps {
    /// At most this share of the training examples may be taken out by one case.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_case_share: f64,
    /// At most this share by all promotions of one day (UTC, by the journal, whose time never goes back).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_day_share: f64,
    /// At most this share by all promotions since a person last let one pass or approved one.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_total_share: f64,
    /// At most this share of the training examples of one class, by all promotions since then.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_class_share: f64,
    /// At most this many promotions a day by pictures of one submitter (the user whose file it was).
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_submitter_cases: u32,
}

impl Default for Caps {
    /// 1 % of the set a case, 2 % a day, 5 % and 20 % of a class between two approvals, three promotions a day and submitter.
    fn default() -> Self {
        Self {
            max_case_share: 0.01,
            max_day_share: 0.02,
            max_total_share: 0.05,
            max_class_share: 0.2,
            max_submitter_cases: 3,
        }
    }
}

/// A promotion that the guard made.
#[derive(Clone, Debug, PartialEq)]
pub struct Promotion {
    /// When, by the journal.
    pub at: Timestamp,
    /// Whose picture it was.
    pub submitter: u32,
    /// Did a person let it pass the caps? Then it uses none of them up.
    pub by_person: bool,
    /// What was taken out.
    pub found: Found,
}

/// What was promoted so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spent {
    /// Every promotion of the day of the last record, and every one since the last approval; in order.
    pub promotions: Vec<Promotion>,
    /// How many of them came before the last approval.
    pub approved: usize,
}

impl Spent {
    /// A promotion was made.
    pub fn promoted(&mut self, promotion: Promotion) {
        let (by_person, at) = (promotion.by_person, promotion.at);
        self.promotions.push(promotion);
        if by_person {
            self.approve(at);
        }
    }

    /// A person looked, and agreed with what was done so far. What is of another day does not matter any more.
    pub fn approve(&mut self, at: Timestamp) {
        self.promotions.retain(|promotion| day(promotion.at) == day(at));
        self.approved = self.promotions.len();
    }
}

/// The day of a time, UTC, counted from 1970.
fn day(at: Timestamp) -> i64 {
    at.as_second().div_euclid(86_400)
}

/// Slack for the division: far below one example of any set.
const EPSILON: f64 = 1e-12;

/// The first cap that a promotion of `found` at `now` would exceed: its key, and the sentence. None: it may be done.
pub fn over(caps: &Caps, spent: &Spent, found: &Found, submitter: u32, now: Timestamp) -> Option<(&'static str, String)> {
    let whole = found.examples;
    let alone = |promotion: &&Promotion| !promotion.by_person;
    let today: Vec<&Promotion> = spent
        .promotions
        .iter()
        .filter(alone)
        .filter(|promotion| day(promotion.at) == day(now))
        .collect();
    let since: Vec<&Promotion> = spent.promotions[spent.approved..].iter().filter(alone).collect();
    let count = |of: &[&Promotion]| of.iter().map(|promotion| promotion.found.count()).sum::<u64>() + found.count();
    let class = &found.predicted_label;
    let of_class = |found: &Found| found.flagged.get(class).copied().unwrap_or(0);
    let in_class = since.iter().map(|promotion| of_class(&promotion.found)).sum::<u64>() + of_class(found);
    let shares = [
        (
            "caps.max_case_share",
            found.count(),
            whole,
            caps.max_case_share,
            "by this case".to_string(),
        ),
        (
            "caps.max_day_share",
            count(&today),
            whole,
            caps.max_day_share,
            "by the promotions of this day".into(),
        ),
        (
            "caps.max_total_share",
            count(&since),
            whole,
            caps.max_total_share,
            "by the promotions since a person last approved one".into(),
        ),
        (
            "caps.max_class_share",
            in_class,
            found.examples_of_label,
            caps.max_class_share,
            format!("of class {class:?}, by the promotions since a person last approved one"),
        ),
    ];
    for (key, part, whole, cap, by) in shares {
        let share = super::decide::share(part, whole);
        if share > cap + EPSILON {
            let sentence = format!(
                "{part} of {whole} training examples ({:.2} %) would be taken out {by}; without a person's word the guard may take out {:.2} % ({key})",
                100.0 * share,
                100.0 * cap
            );
            return Some((key, sentence));
        }
    }
    let theirs = today.iter().filter(|promotion| promotion.submitter == submitter).count() as u64 + 1;
    (theirs > u64::from(caps.max_submitter_cases)).then(|| {
        let sentence = format!(
            "it would be promotion {theirs} of this day by pictures of user {submitter}; without a person's word {} are allowed (caps.max_submitter_cases)",
            caps.max_submitter_cases
        );
        ("caps.max_submitter_cases", sentence)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    const NOON: &str = "2026-11-23T12:00:00Z";

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn found(label: &str, flagged: u64) -> Found {
        let flagged: std::collections::BTreeMap<&str, u64> = [(label, flagged)].into();
        serde_json::from_value(serde_json::json!({
            "verdict": {"kind": "flagged"}, "predicted_label": label, "flagged": flagged, "examples": 10_000, "examples_of_label": 1_000,
        }))
        .unwrap()
    }

    fn spent(promotions: &[(&str, u32, &str, u64)]) -> Spent {
        let mut spent = Spent::default();
        for (time, submitter, label, flagged) in promotions {
            spent.promoted(Promotion {
                at: at(time),
                submitter: *submitter,
                by_person: false,
                found: found(label, *flagged),
            });
        }
        spent
    }

    fn key(spent: &Spent, label: &str, flagged: u64, submitter: u32, now: &str) -> Option<&'static str> {
        let over = over(&Caps::default(), spent, &found(label, flagged), submitter, at(now));
        if let Some((key, sentence)) = &over {
            assert!(sentence.contains(key), "{sentence}");
        }
        over.map(|(key, _)| key)
    }

    #[test]
    fn each_cap_holds_what_is_one_above_it_and_nothing_below() {
        let none = Spent::default();
        assert_eq!(key(&none, "dog", 100, 1, NOON), None);
        assert_eq!(key(&none, "dog", 101, 1, NOON), Some("caps.max_case_share"));
        // 150 on this day already: 50 more are 2 %.
        let day = spent(&[("2026-11-23T00:00:00Z", 1, "cat", 100), ("2026-11-23T01:00:00Z", 2, "cow", 50)]);
        assert_eq!(key(&day, "dog", 50, 3, "2026-11-23T23:59:59Z"), None);
        assert_eq!(key(&day, "dog", 51, 3, "2026-11-23T23:59:59Z"), Some("caps.max_day_share"));
        assert_eq!(key(&day, "dog", 51, 3, "2026-11-24T00:00:00Z"), None, "another day");
        // 450 on earlier days: 50 more are 5 %.
        let days: Vec<_> = (10..19).map(|day| format!("2026-11-{day}T12:00:00Z")).collect();
        let labels = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let total = spent(
            &days
                .iter()
                .zip(labels)
                .map(|(day, label)| (day.as_str(), 1, label, 50))
                .collect::<Vec<_>>(),
        );
        assert_eq!(key(&total, "dog", 50, 1, NOON), None);
        assert_eq!(key(&total, "dog", 51, 1, NOON), Some("caps.max_total_share"));
        // 150 of the 1,000 dogs: 50 more are 20 % of them.
        let class = spent(&[("2026-11-10T12:00:00Z", 1, "dog", 100), ("2026-11-11T12:00:00Z", 1, "dog", 50)]);
        assert_eq!(key(&class, "dog", 50, 1, NOON), None);
        assert_eq!(key(&class, "dog", 51, 1, NOON), Some("caps.max_class_share"));
        assert_eq!(key(&class, "cat", 51, 1, NOON), None, "another class");
        // Three promotions of one user on one day.
        let three = spent(&[(NOON, 7, "a", 1), (NOON, 7, "b", 1), (NOON, 8, "c", 1)]);
        assert_eq!(key(&three, "dog", 1, 7, NOON), None);
        let four = spent(&[(NOON, 7, "a", 1), (NOON, 7, "b", 1), (NOON, 7, "c", 1)]);
        assert_eq!(key(&four, "dog", 1, 7, NOON), Some("caps.max_submitter_cases"));
        assert_eq!(key(&four, "dog", 1, 8, NOON), None, "another user");
        assert_eq!(key(&four, "dog", 1, 7, "2026-11-24T12:00:00Z"), None, "another day");
    }

    #[test]
    fn an_approval_begins_the_count_anew_but_not_the_day() {
        let mut total = spent(&[
            ("2026-11-10T12:00:00Z", 1, "dog", 100),
            ("2026-11-11T12:00:00Z", 1, "dog", 100),
            (NOON, 1, "cat", 100),
        ]);
        assert_eq!(key(&total, "dog", 1, 2, NOON), Some("caps.max_class_share"));
        total.approve(at(NOON));
        assert_eq!(key(&total, "dog", 100, 2, NOON), None);
        assert_eq!(key(&total, "cow", 101, 2, NOON), Some("caps.max_case_share"));
        total.promoted(Promotion {
            at: at(NOON),
            submitter: 3,
            by_person: false,
            found: found("cow", 100),
        });
        assert_eq!(
            key(&total, "dog", 1, 2, NOON),
            Some("caps.max_day_share"),
            "the day's share is used up, whoever looked"
        );
        // What a person let pass uses nothing up, and is an approval.
        let mut passed = spent(&[("2026-11-10T12:00:00Z", 1, "dog", 100), ("2026-11-11T12:00:00Z", 1, "dog", 100)]);
        passed.promoted(Promotion {
            at: at(NOON),
            submitter: 1,
            by_person: true,
            found: found("dog", 5_000),
        });
        assert_eq!(key(&passed, "dog", 100, 1, NOON), None);
    }

    #[test]
    fn a_share_of_nothing_does_not_pass() {
        let empty = Found {
            examples: 0,
            examples_of_label: 0,
            ..found("dog", 1)
        };
        assert!(over(&Caps::default(), &Spent::default(), &empty, 1, at(NOON)).is_some());
    }
}
