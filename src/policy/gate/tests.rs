use super::*;
use delta_guard_contract::Digest;
use delta_guard_contract::job::{Accuracy, Paired, Prediction};
use proptest::prelude::*;

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
        paired: None,
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
            ..GateVerdict::default()
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

/// Classes as (name, pictures, right before, lost, won).
type Class<'a> = (&'a str, u64, u64, u64, u64);

fn measured_in_pairs(classes: &[Class]) -> CertifyResult {
    let before: Vec<_> = classes.iter().map(|(name, n, right, ..)| (*name, *n, *right)).collect();
    let after: Vec<_> = classes
        .iter()
        .map(|(name, n, right, lost, won)| (*name, *n, right - lost + won))
        .collect();
    CertifyResult {
        paired: Some(Paired {
            lost: classes.iter().map(|class| class.3).sum(),
            won: classes.iter().map(|class| class.4).sum(),
            classes: classes
                .iter()
                .map(|(name, _, _, lost, won)| ((*name).to_string(), (*lost, *won)))
                .collect(),
        }),
        ..certify("cat", &before, &after)
    }
}

fn in_pairs(classes: &[Class], limits: &GateLimits) -> GateVerdict {
    judge(&measured_in_pairs(classes), &[known(Some("cat"))], &[], limits)
}

/// Sums of binomial coefficients over powers of two, made by hand.
#[test]
fn mcnemar_is_the_tail_of_a_coin() {
    let rows: [(u64, u64, f64); 9] = [
        (0, 0, 1.0),
        (0, 7, 1.0),
        (1, 0, 0.5),
        (3, 0, 0.125),
        (5, 5, 638.0 / 1024.0),
        (8, 2, 56.0 / 1024.0),
        (9, 1, 11.0 / 1024.0),
        (10, 0, 1.0 / 1024.0),
        (15, 5, 21_700.0 / 1_048_576.0),
    ];
    for (lost, won, p) in rows {
        assert!(
            (mcnemar(lost, won) - p).abs() < 1e-12,
            "{lost} lost, {won} won: {} for {p}",
            mcnemar(lost, won)
        );
    }
    // Far out in the tail it is still a number above zero, and of numbers that nobody counted there is no panic.
    assert!(mcnemar(300, 20) > 0.0 && mcnemar(300, 20) < 1e-60);
    assert!((0.0..=1.0).contains(&mcnemar(u64::MAX, u64::MAX)));
}

/// Four hypotheses as textbooks have them: 0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02.
#[test]
fn holm_corrects_as_in_the_worked_example() {
    let corrected = paired::holm(&[0.01, 0.04, 0.03, 0.005]);
    for (found, wanted) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
        assert!((found - wanted).abs() < 1e-12, "{corrected:?}");
    }
    assert_eq!(paired::holm(&[0.4, 0.9]), [0.8, 0.9]);
    assert_eq!(paired::holm(&[0.7, 0.6]), [1.0, 1.0]);
    assert_eq!((paired::holm(&[]), paired::holm(&[0.2])), (vec![], vec![0.2]));
}

/// Two retrainings that differ by their seed alone lost so much; the fixed limits rejected it.
#[test]
fn a_fall_that_may_be_chance_passes_and_says_so() {
    let limits = GateLimits::default();
    let chance = in_pairs(&[("cat", 40, 36, 7, 2), ("dog", 160, 150, 4, 5)], &limits);
    assert!(chance.pass && chance.doubts.is_empty(), "{chance:?}");
    let told = chance.notes.iter().find(|note| note.contains("class \"cat\" dropped by 12.50")).unwrap();
    // 7 of 9: 46 of 512, times two classes.
    for word in [
        "7 were lost, 2 won",
        "in 18 of 100 measurements",
        "p = 0.18 over 2 classes",
        "may be chance",
    ] {
        assert!(told.contains(word), "{told}");
    }
    // The same fall with nothing won back: 5 of 5, 1 in 32 times two. Over all pictures it is 5 of 5 of 2.5 points.
    let all = in_pairs(&[("cat", 40, 36, 5, 0), ("dog", 160, 150, 0, 0)], &limits);
    assert!(
        !all.pass && all.reasons.len() == 1 && all.reasons[0].contains("gate.max_accuracy_drop"),
        "{all:?}"
    );
    assert!(
        all.reasons[0].contains("5 were lost, 0 won, which chance alone does in 31 of 1,000 measurements (p = 0.03)"),
        "{all:?}"
    );
    // One more is no chance in the class, either; what is within the limit is none of the gate's business, however sure.
    let class = in_pairs(&[("cat", 40, 36, 6, 0), ("dog", 1000, 900, 20, 12)], &limits);
    assert!(
        !class.pass && class.reasons.len() == 1 && class.reasons[0].contains("class \"cat\" dropped by 15.00"),
        "{class:?}"
    );
    let small = in_pairs(&[("cat", 1000, 900, 19, 0), ("dog", 1000, 900, 0, 0)], &limits);
    assert!(small.pass && small.notes.is_empty(), "{small:?}");
    // α = 1 is the fixed limit of old.
    let fixed = GateLimits {
        alpha: 1.0,
        ..GateLimits::default()
    };
    assert!(!in_pairs(&[("cat", 40, 36, 7, 2), ("dog", 160, 150, 4, 5)], &fixed).pass);
}

#[test]
fn a_tiny_class_is_not_lost_in_silence() {
    let limits = GateLimits::default();
    // Three of three: one in eight, so nobody can call it a loss, and nobody should promote it unseen.
    let three = in_pairs(&[("big", 1000, 900, 10, 12), ("rare", 3, 3, 3, 0)], &limits);
    assert!(three.pass && three.doubts.len() == 1, "{three:?}");
    for word in [
        "\"rare\" dropped by 100.00",
        "of 3 pictures",
        "p = 0.25 over 2 classes",
        "more than twice the limit",
    ] {
        assert!(three.doubts[0].contains(word), "{three:?}");
    }
    assert!(
        three
            .notes
            .iter()
            .any(|note| note.contains("rare (3)") && note.contains("50 of each are needed")),
        "{three:?}"
    );
    // Ten of ten is no chance, although the class has fewer pictures than `min_class_examples`.
    let ten = in_pairs(&[("big", 1000, 900, 10, 12), ("rare", 10, 10, 10, 0)], &limits);
    assert!(!ten.pass && ten.reasons[0].contains("\"rare\""), "{ten:?}");
    // A class of one picture loses it or not: that is said, no more.
    let one = in_pairs(&[("big", 1000, 900, 10, 12), ("rare", 1, 1, 1, 0)], &limits);
    assert!(
        one.pass && one.doubts.is_empty() && one.notes[0].contains("\"rare\" dropped by 100.00"),
        "{one:?}"
    );
    // Many tiny classes, none of which says anything alone, say it together.
    let names: Vec<String> = (0..12).map(|n| format!("rare {n}")).collect();
    let mut many: Vec<Class> = names.iter().map(|name| (name.as_str(), 4, 4, 1, 0)).collect();
    many.push(("big", 1000, 900, 10, 12));
    let together = in_pairs(&many, &limits);
    assert!(
        !together.pass && together.reasons.len() == 1 && together.reasons[0].contains("the small classes"),
        "{together:?}"
    );
    assert!(
        together.reasons[0].contains("over 14 classes") && together.reasons[0].contains("and 7 others"),
        "{together:?}"
    );
}

/// At and beyond twice the limit, both of what may be chance.
#[test]
fn beyond_twice_the_limit_a_person_decides() {
    let limits = GateLimits::default();
    let at = in_pairs(&[("cat", 20, 16, 7, 3), ("dog", 980, 900, 10, 12)], &limits);
    assert!(
        at.pass && at.doubts.is_empty() && at.notes.iter().any(|note| note.contains("20.00")),
        "{at:?}"
    );
    let beyond = in_pairs(&[("cat", 20, 16, 8, 3), ("dog", 980, 900, 10, 12)], &limits);
    assert!(
        beyond.pass && beyond.doubts.len() == 1 && beyond.doubts[0].contains("25.00"),
        "{beyond:?}"
    );
    let all = in_pairs(&[("cat", 100, 80, 15, 10)], &limits);
    assert!(
        all.pass && all.doubts.len() == 1 && all.doubts[0].contains("validation accuracy"),
        "{all:?}"
    );
}

/// Told apart from chance by the smallest number of pictures: tried one by one.
#[test]
fn the_number_of_pictures_that_is_needed_is_the_smallest() {
    assert_eq!(needed(0.02, 0.05, 1), Some(200));
    assert_eq!((needed(0.1, 0.05, 10), needed(0.1, 0.05, 2)), (Some(70), Some(50)));
    assert_eq!([needed(0.0, 0.05, 1), needed(1.0, 0.05, 1), needed(0.1, 1.0, 1)], [None; 3]);
    for (limit, alpha, sets) in [
        (0.1, 0.05, 10),
        (0.1, 0.05, 1000),
        (0.03, 0.01, 3),
        (0.25, 0.2, 7),
        (0.5, 0.05, 1),
        (0.9, 0.5, 1),
    ] {
        let tells = |n: u64| {
            let lost = (1..=n).find(|lost| *lost as f64 / n as f64 > limit + 1e-9);
            lost.is_some_and(|lost| sets as f64 * mcnemar(lost, 0) <= alpha)
        };
        let least = needed(limit, alpha, sets).unwrap();
        assert!(tells(least) && !tells(least - 1), "{limit} {alpha} {sets}: {least}");
    }
}

#[test]
fn counts_that_do_not_add_up_are_no_measurement() {
    let right = measured_in_pairs(&[("cat", 100, 90, 5, 4), ("dog", 100, 90, 3, 3)]);
    let spoil: [fn(&mut Paired); 5] = [
        |paired| paired.lost += 1,
        |paired| (paired.lost, paired.won) = (paired.lost + 200, paired.won + 200),
        |paired| {
            paired.classes.insert("cat".into(), (4, 4));
        },
        |paired| {
            paired.classes.remove("cat");
        },
        |paired| {
            paired.classes.insert("ship".into(), (1, 1));
        },
    ];
    for (n, spoil) in spoil.into_iter().enumerate() {
        let mut spoilt = right.clone();
        spoil(spoilt.paired.as_mut().unwrap());
        let verdict = judge(&spoilt, &[known(Some("cat"))], &[], &GateLimits::default());
        assert!(!verdict.pass && verdict.reasons[0].contains("do not add up"), "{n}: {verdict:?}");
    }
    assert!(judge(&right, &[known(Some("cat"))], &[], &GateLimits::default()).pass);
}

prop_compose! {
    fn classes()(of in prop::collection::vec((1u64..60, 0.0..1.0f64, 0.0..1.0f64, 0.0..1.0f64), 1..9)) -> Vec<(u64, u64, u64, u64)> {
        of.into_iter().map(|(n, right, lost, won)| {
            let right = (n as f64 * right) as u64;
            (n, right, (right as f64 * lost) as u64, ((n - right) as f64 * won * won) as u64)
        }).collect()
    }
}

/// 0: rejected, 1: doubtful, 2: it passes.
fn mark(verdict: &GateVerdict) -> u8 {
    match (verdict.pass, verdict.doubts.is_empty()) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    }
}

proptest! {
    /// Which class comes first is chance.
    #[test]
    fn the_order_of_the_classes_does_not_matter(of in classes(), turn in 0usize..9) {
        let named = |of: &[(u64, u64, u64, u64)], names: &[String]| -> GateVerdict {
            let of: Vec<Class> = of.iter().zip(names).map(|(c, name)| (name.as_str(), c.0, c.1, c.2, c.3)).collect();
            in_pairs(&of, &GateLimits::default())
        };
        let names: Vec<String> = (0..of.len()).map(|n| format!("{n}")).collect();
        let mut turned = names.clone();
        turned.rotate_left(turn % of.len());
        prop_assert_eq!(mark(&named(&of, &names)), mark(&named(&of, &turned)));
    }

    /// One picture more that is lost never mends anything.
    #[test]
    fn losing_more_is_never_better(of in classes(), at in 0usize..9) {
        let names: Vec<String> = (0..of.len()).map(|n| format!("{n}")).collect();
        let named = |of: &[(u64, u64, u64, u64)]| -> GateVerdict {
            let of: Vec<Class> = of.iter().zip(&names).map(|(c, name)| (name.as_str(), c.0, c.1, c.2, c.3)).collect();
            in_pairs(&of, &GateLimits::default())
        };
        let mut worse = of.clone();
        let class = &mut worse[at % of.len()];
        class.2 = (class.2 + 1).min(class.1);
        prop_assert!(mark(&named(&worse)) <= mark(&named(&of)));
    }

    #[test]
    fn p_falls_with_what_is_lost_and_rises_with_what_is_won(lost in 0u64..200, won in 0u64..200) {
        prop_assert!(mcnemar(lost + 1, won) <= mcnemar(lost, won));
        prop_assert!(mcnemar(lost, won + 1) >= mcnemar(lost, won));
        // The rest of the coin.
        prop_assert!((mcnemar(lost + 1, won) - (1.0 - mcnemar(won, lost + 1)) - tie(lost + 1, won)).abs() < 1e-9);
    }
}

/// The probability of exactly this outcome.
fn tie(lost: u64, won: u64) -> f64 {
    (1..=won).fold(0.5f64.powi(lost as i32), |p, k| p * (lost + k) as f64 / k as f64 / 2.0)
}
