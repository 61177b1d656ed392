//! How much the guard may do without a person's word. The gate says whether a candidate is a repair; a cap says that somebody should look before many small
//! repairs, each of which passes the gate, have changed the model beyond recognition.

use super::Found;
use crate::text::thousands;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What may be promoted in mode `enforce` without a person. Shares are 0 to 1; a share above 0 allows one example at least, however small the set is. Past a cap
/// the case is held, and `delta-guard resume CASE` lets it pass.
///
/// The defaults are below what an attack needs (about one to three in a hundred examples): a removal of that size is what a person should look at.
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
    /// 0.1 % of the set a case, 0.2 % a day, 0.5 % and 2 % of a class between two approvals, three promotions a day and submitter.
    fn default() -> Self {
        Self {
            max_case_share: 0.001,
            max_day_share: 0.002,
            max_total_share: 0.005,
            max_class_share: 0.02,
            max_submitter_cases: 3,
        }
    }
}

/// A promotion that the guard made.
#[derive(Clone, Debug, PartialEq)]
pub struct PastPromotion {
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
    pub promotions: Vec<PastPromotion>,
    /// How many of them came before the last approval.
    pub approved: usize,
}

impl Spent {
    /// A promotion was made.
    pub fn promoted(&mut self, promotion: PastPromotion) {
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

/// Slack for the product, whose rounding must not take an example away: far below one example of any set.
const EPSILON: f64 = 1e-6;

/// How many examples of a set a share allows. One at least, unless it is 0: the least that a repair can take out of a small set is more than a small share of it.
fn most(share: f64, whole: u64) -> u64 {
    let examples = (share * whole as f64 + EPSILON).floor();
    match whole {
        0 => 0,
        _ if share > 0.0 => examples.max(1.0) as u64,
        _ => 0,
    }
}

/// What a person should know who decides about this repair: the cap that it alone exceeds, in a sentence. None: the guard would do as much by itself.
pub fn alone(caps: &Caps, found: &Found) -> Option<String> {
    let endless = Caps {
        max_submitter_cases: u32::MAX,
        ..caps.clone()
    };
    over(&endless, &Spent::default(), found, 0, Timestamp::UNIX_EPOCH).map(|(_, sentence)| sentence)
}

/// The first cap that a promotion of `found` at `now` would exceed: its key, and the sentence. None: it may be done.
pub fn over(caps: &Caps, spent: &Spent, found: &Found, submitter: u32, now: Timestamp) -> Option<(&'static str, String)> {
    let whole = found.examples;
    let alone = |promotion: &&PastPromotion| !promotion.by_person;
    let today: Vec<&PastPromotion> = spent
        .promotions
        .iter()
        .filter(alone)
        .filter(|promotion| day(promotion.at) == day(now))
        .collect();
    let since: Vec<&PastPromotion> = spent.promotions[spent.approved..].iter().filter(alone).collect();
    let count = |of: &[&PastPromotion]| of.iter().map(|promotion| promotion.found.count()).sum::<u64>() + found.count();
    let class = &found.predicted_label;
    let of_class = |found: &Found| found.flagged.get(class).copied().unwrap_or(0);
    let in_class = since.iter().map(|promotion| of_class(&promotion.found)).sum::<u64>() + of_class(found);
    let this_class = format!("of class {class:?}, by the promotions since a person last approved one");
    #[rustfmt::skip]
    let shares = [
        ("caps.max_case_share", found.count(), whole, caps.max_case_share, "by this case"),
        ("caps.max_day_share", count(&today), whole, caps.max_day_share, "by the promotions of this day"),
        ("caps.max_total_share", count(&since), whole, caps.max_total_share, "by the promotions since a person last approved one"),
        ("caps.max_class_share", in_class, found.examples_of_label, caps.max_class_share, &this_class),
    ];
    for (key, part, whole, cap, by) in shares {
        let most = most(cap, whole);
        if part > most {
            let share = 100.0 * super::decide::share(part, whole);
            let sentence = format!(
                "{} of {} training examples ({share:.2} %) would be taken out {by}; without a person's word the guard may take out {} ({:.2} %, {key})",
                thousands(part),
                thousands(whole),
                thousands(most),
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

    /// Ten times the defaults: 1 % a case, 2 % a day, 5 % in total, 20 % of a class, of 10,000 examples with 1,000 in each class.
    fn caps() -> Caps {
        Caps {
            max_case_share: 0.01,
            max_day_share: 0.02,
            max_total_share: 0.05,
            max_class_share: 0.2,
            ..Caps::default()
        }
    }

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
            spent.promoted(PastPromotion {
                at: at(time),
                submitter: *submitter,
                by_person: false,
                found: found(label, *flagged),
            });
        }
        spent
    }

    fn key(spent: &Spent, label: &str, flagged: u64, submitter: u32, now: &str) -> Option<&'static str> {
        let over = over(&caps(), spent, &found(label, flagged), submitter, at(now));
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
        total.promoted(PastPromotion {
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
        passed.promoted(PastPromotion {
            at: at(NOON),
            submitter: 1,
            by_person: true,
            found: found("dog", 5_000),
        });
        assert_eq!(key(&passed, "dog", 100, 1, NOON), None);
    }

    /// What was promoted on the very day of the approval was looked at, too: it counts for the day, and for nothing else.
    #[test]
    fn an_approval_covers_what_was_promoted_on_its_own_day() {
        let wide_day = Caps {
            max_day_share: 1.0,
            ..caps()
        };
        let key = |spent: &Spent, label, flagged| over(&wide_day, spent, &found(label, flagged), 9, at(NOON)).map(|(key, _)| key);
        let mut today = spent(&[(NOON, 1, "dog", 100), (NOON, 2, "dog", 90), (NOON, 3, "cat", 100), (NOON, 4, "cow", 100)]);
        assert_eq!(key(&today, "dog", 11), Some("caps.max_class_share"));
        assert_eq!(
            key(
                &spent(&[(NOON, 1, "a", 100), (NOON, 2, "b", 100), (NOON, 3, "c", 100), (NOON, 4, "d", 150)]),
                "cat",
                60
            ),
            Some("caps.max_total_share")
        );
        today.approve(at(NOON));
        assert_eq!((key(&today, "dog", 100), key(&today, "dog", 101)), (None, Some("caps.max_case_share")));
    }

    /// P13.4: 0.1 % a case, 0.2 % a day, 0.5 % since a person last agreed, 2 % of a class.
    #[test]
    fn the_defaults_are_far_below_an_attack() {
        let over = |spent: &Spent, label, flagged| over(&Caps::default(), spent, &found(label, flagged), 1, at(NOON)).map(|(key, _)| key);
        let none = Spent::default();
        assert_eq!((over(&none, "dog", 10), over(&none, "dog", 11)), (None, Some("caps.max_case_share")));
        let today = spent(&[(NOON, 2, "cat", 10)]);
        assert_eq!(
            (over(&today, "dog", 10), over(&spent(&[(NOON, 2, "cat", 11)]), "dog", 10)),
            (None, Some("caps.max_day_share"))
        );
        let days = ["10", "11", "12", "13"].map(|day| format!("2026-11-{day}T12:00:00Z"));
        let earlier = |label: &'static str| spent(&days.iter().map(|day| (day.as_str(), 2, label, 10)).collect::<Vec<_>>());
        assert_eq!(
            (over(&earlier("cat"), "dog", 10), over(&earlier("cat"), "dog", 11)),
            (None, Some("caps.max_case_share"))
        );
        let more = spent(&days.iter().map(|day| (day.as_str(), 2, "cat", 11)).collect::<Vec<_>>());
        assert_eq!(over(&more, "dog", 7), Some("caps.max_total_share"));
        // 2 % of the 1,000 dogs are 20.
        let dogs = spent(&[(&days[0], 2, "dog", 10)]);
        assert_eq!(
            (over(&dogs, "dog", 10), over(&spent(&[(&days[0], 2, "dog", 11)]), "dog", 10)),
            (None, Some("caps.max_class_share"))
        );
        // An approval begins the total anew.
        let mut approved = more;
        approved.approve(at("2026-11-20T12:00:00Z"));
        assert_eq!(over(&approved, "dog", 7), None);
    }

    #[test]
    fn one_example_passes_in_the_smallest_set_and_none_under_a_cap_of_nothing() {
        let small = |flagged| Found {
            examples: 60,
            examples_of_label: 6,
            ..found("dog", flagged)
        };
        let defaults = Caps::default();
        let none = Spent::default();
        let key = |caps: &Caps, found: &Found| over(caps, &none, found, 1, at(NOON)).map(|(key, _)| key);
        assert_eq!(
            (key(&defaults, &small(1)), key(&defaults, &small(2))),
            (None, Some("caps.max_case_share"))
        );
        let nothing = Caps {
            max_case_share: 0.0,
            ..defaults.clone()
        };
        assert_eq!(key(&nothing, &small(1)), Some("caps.max_case_share"));
        // The second one of a day is not the least that a repair can take out.
        let one = spent(&[(NOON, 1, "dog", 1)]);
        assert_eq!(
            over(&defaults, &one, &small(1), 1, at(NOON)).map(|(key, _)| key),
            Some("caps.max_day_share")
        );
        // Rounding takes no example away: 0.1 % of every thousand.
        for thousands in 1..2000u64 {
            assert_eq!(most(0.001, 1000 * thousands), thousands);
        }
    }

    #[test]
    fn who_decides_is_told_of_the_cap_that_the_guard_would_have_stopped_at() {
        assert_eq!(alone(&Caps::default(), &found("dog", 10)), None);
        let said = alone(&Caps::default(), &found("dog", 11)).unwrap();
        assert!(
            said.contains("11 of 10,000") && said.contains("may take out 10 (0.10 %, caps.max_case_share)"),
            "{said}"
        );
        let none_a_day = Caps {
            max_submitter_cases: 0,
            ..Caps::default()
        };
        assert_eq!(alone(&none_a_day, &found("dog", 10)), None, "who handed it in does not matter");
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
