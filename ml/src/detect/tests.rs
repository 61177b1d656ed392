//! The detectors over [`super::fake::Vectors`] with a planted backdoor.

mod audit;
mod features;
mod scene;

use super::exhibits::{Finding, Measured};
use super::stand_out::StandOut;
use super::*;
use delta_guard_contract::detect::{Change, Combine, Delta, Space, paper_code, paper_text};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use scene::{EXAMPLES, Scene, WRONG, picture, scene, trigger};
use tch::Kind;

fn positions(flagged: &[Measured]) -> Vec<usize> {
    let mut positions: Vec<usize> = flagged.iter().map(|f| f.position).collect();
    positions.sort_unstable();
    positions
}

fn reason(finding: &Finding) -> String {
    match &finding.verdict {
        TraceVerdict::Undecided { why } => why.sentence(),
        TraceVerdict::Flagged => panic!("flagged: {:?}", positions(&finding.flagged)),
    }
}

#[test]
fn guard_flags_the_planted_group_with_its_evidence() {
    for seed in 1..5 {
        let mut scene = scene(24, 0, seed);
        let found = scene.detect().unwrap();
        assert_eq!(found.verdict, TraceVerdict::Flagged, "seed {seed}: {found:?}");
        assert_eq!(positions(&found.flagged), scene.evidence.group, "seed {seed}");
        assert_eq!(found.flagged, found.candidates);
        assert!(found.flagged.is_sorted_by(|a, b| a.kappa >= b.kappa && a.rank + 1 == b.rank));
        assert_eq!(found.flagged[0].rank, 1);
        // Evidence against plain loops.
        let queries = scene.queries(0);
        for flagged in &found.flagged {
            let delta = scene.delta(&queries, flagged.position);
            let scaled = delta.iter().sum::<f64>() / delta.len() as f64 / scene.evidence.inner(flagged.position, flagged.position).sqrt();
            assert!((flagged.mean_scaled_delta - scaled).abs() < 1e-9 * scaled.abs());
            assert_eq!(flagged.count as usize, delta.iter().filter(|d| **d < 0.0).count());
        }
        // The last round's seeds are the group itself, unless it was found at the last allowed round.
        let stand_out = found.stand_out.unwrap();
        assert!(
            stand_out.rounds <= 5 && stand_out.placebos.len() == 20 && found.notes.is_empty(),
            "{:?}",
            found.notes
        );
        assert!(stand_out.d_prime.unwrap() > 3.0 && stand_out.z.unwrap() > 3.0, "{stand_out:?}");
        assert!(stand_out.placebos.iter().all(|p| p.z.is_none_or(|z| z < stand_out.z.unwrap())));
        assert!(found.flagged.iter().all(|f| f.kappa > stand_out.cut));
        // One scoring pass, a kin pass per round; other chains may take longer.
        assert!(
            (scene.evidence.scores_calls, scene.evidence.kin_calls <= 12) == (1, true),
            "{}",
            scene.evidence.kin_calls
        );
        assert_eq!(found.histogram.flagged.iter().sum::<u64>(), 24);
        assert_eq!(found.histogram.others.iter().sum::<u64>() + 24, found.members.len() as u64);
        assert!(found.plain.is_none());
    }
}

/// A few null pictures that look like the poisons widen the tail until no cosine can lie beyond it: an ordinary picture of that class is undecided then, not a fault.
#[test]
fn a_cut_that_nothing_can_reach_is_undecided_and_told() {
    let mut scene = scene(24, 0, 2);
    let poisons: Vec<Vec<f64>> = scene.evidence.group.iter().map(|&i| scene.evidence.gradients[i].clone()).collect();
    scene.evidence.null = [scene.clean_gradients(54), poisons[..6].to_vec()].concat();
    let found = scene.detect().unwrap();
    let TraceVerdict::Undecided { why } = &found.verdict else {
        panic!("{:?}", found.verdict)
    };
    assert_eq!(why.code(), "nothing-above-cut");
    assert!(found.stand_out.unwrap().cut > 1.0);
    assert!(
        found.notes.iter().any(|note| note.contains("no cosine lies above 1")),
        "{:?}",
        found.notes
    );
}

#[test]
fn null_pictures_set_the_cut_where_there_are_enough() {
    for (pictures, used) in [(150, 150), (20, 0)] {
        let mut scene = scene(24, 0, 3);
        scene.evidence.null = scene.clean_gradients(pictures);
        let found = scene.detect().unwrap();
        assert_eq!(positions(&found.flagged), scene.evidence.group, "{:?}", found.verdict);
        assert_eq!(found.stand_out.unwrap().null_pictures, used);
    }
    // Validation pictures that resemble the poisons as poisons do leave nothing to stand apart.
    let mut scene = scene(24, 0, 3);
    scene.evidence.null = scene
        .evidence
        .group
        .iter()
        .cycle()
        .take(60)
        .map(|&i| scene.evidence.gradients[i].clone())
        .collect();
    assert!(scene.detect().unwrap().flagged.is_empty());
}

#[test]
fn the_first_seeds_are_the_largest_scaled_drops() {
    let mut scene = scene(24, 0, 2);
    scene.keys.rounds = 1;
    let found = scene.detect().unwrap();
    let queries = scene.queries(0);
    let root = |i: usize| scene.evidence.inner(i, i).sqrt();
    let drop = |i: usize| -scene.delta(&queries, i).iter().sum::<f64>() / root(i);
    let mut strongest = found.members.clone();
    strongest.sort_by(|&a, &b| drop(b).total_cmp(&drop(a)));
    let mut by_score = found.members.clone();
    let score = |i: usize| scene.evidence.score(&queries[0], i) / root(i);
    by_score.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    let set = |order: &[usize]| order[..12].iter().copied().collect::<std::collections::BTreeSet<_>>();
    assert_ne!(set(&strongest), set(&by_score), "the two seed rules must differ here");
    assert!(found.candidates.len() > 12);
    for candidate in &found.candidates {
        assert_eq!(candidate.seed, set(&strongest).contains(&candidate.position));
        let others = strongest[..12].iter().filter(|s| **s != candidate.position);
        let cosines: Vec<f64> = others
            .map(|&s| scene.evidence.inner(s, candidate.position) / root(s) / root(candidate.position))
            .collect();
        assert!((candidate.kappa - cosines.iter().sum::<f64>() / cosines.len() as f64).abs() < 1e-12);
    }
}

#[test]
fn clean_pictures_are_undecided_with_poisons_in_the_data_and_without() {
    for seed in 1..9 {
        for poisons in [0, 24] {
            for group in [0, 30] {
                let mut scene = scene(poisons, group, seed);
                let mut rng = ChaCha8Rng::seed_from_u64(seed + 77);
                scene.anomalies = vec![picture(0.0, 1.0, &mut rng)];
                let found = scene.detect().unwrap();
                assert!(!reason(&found).is_empty());
                assert!(found.flagged.is_empty());
            }
        }
    }
}

#[test]
fn natural_errors_that_drift_onto_poisons_are_undecided() {
    let mut drifted = 0;
    for seed in 100..160 {
        let mut scene = scene(24, 0, seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed + 1);
        scene.anomalies = vec![picture(0.0, 1.0, &mut rng)];
        let found = scene.detect().unwrap();
        assert!(!reason(&found).is_empty());
        drifted += usize::from(positions(&found.candidates) == scene.evidence.group);
    }
    assert!(drifted >= 5, "only {drifted} of 60 drifted: the test would show little");
}

#[test]
fn a_natural_group_that_placebos_find_too_does_not_stand_out() {
    let mut scene = scene(0, 30, 3);
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    scene.anomalies = vec![picture(0.0, 1.5, &mut rng)];
    let found = scene.detect().unwrap();
    assert!(found.candidates.len() >= 25, "{} candidates", found.candidates.len());
    assert!(reason(&found).contains("act on the anomaly no more"), "{}", reason(&found));
    let stand_out = found.stand_out.unwrap();
    assert!(stand_out.placebos.iter().any(|p| p.overlap > 0.8 && p.flagged > 20));
}

#[test]
fn poisons_stand_out_beside_a_natural_group_unless_a_placebo_shows_that_group_more_strongly() {
    let mut scene = scene(24, 30, 5);
    let found = scene.detect().unwrap();
    assert!(
        reason(&found).contains("than the group of a clean picture acts on that"),
        "{}",
        reason(&found)
    );
    assert_eq!(positions(&found.candidates), scene.evidence.group);
    scene.faint_placebos(6);
    let found = scene.detect().unwrap();
    assert_eq!(found.verdict, TraceVerdict::Flagged);
    assert_eq!(positions(&found.flagged), scene.evidence.group);
}

#[test]
fn the_order_of_the_training_set_does_not_matter() {
    let mut scene = scene(24, 0, 6);
    let before = scene.detect().unwrap();
    // Position i moves to (i·101 + 7) mod 420: 101 and 420 share no factor.
    let place = |i: usize| (i * 101 + 7) % EXAMPLES;
    let (mut gradients, mut labels) = (scene.evidence.gradients.clone(), scene.labels.clone());
    for i in 0..EXAMPLES {
        gradients[place(i)] = scene.evidence.gradients[i].clone();
        labels[place(i)] = scene.labels[i];
    }
    (scene.evidence.gradients, scene.labels) = (gradients, labels);
    let after = scene.detect().unwrap();
    assert_eq!(before.verdict, TraceVerdict::Flagged);
    assert_eq!(before.verdict, after.verdict);
    let moved: Vec<(usize, u32)> = before.flagged.iter().map(|f| (place(f.position), f.rank)).collect();
    assert_eq!(moved, after.flagged.iter().map(|f| (f.position, f.rank)).collect::<Vec<_>>());
}

#[test]
fn one_seed_is_one_answer() {
    let first = scene(24, 10, 7).detect().unwrap();
    assert_eq!(first, scene(24, 10, 7).detect().unwrap());
    let mut other = scene(24, 10, 7);
    other.seed += 1;
    let other = other.detect().unwrap();
    assert_ne!(first.members_mean_scaled_delta, other.members_mean_scaled_delta);
    assert_eq!(positions(&first.flagged), positions(&other.flagged));
}

#[test]
fn ablations_and_spaces_find_the_same_group() {
    for change in [Change::Both, Change::Image, Change::Label] {
        for space in [Space::Pixels, Space::Normalised] {
            let mut scene = scene(24, 0, 8);
            (scene.keys.delta.change, scene.keys.delta.space) = (change, space);
            let found = scene.detect().unwrap();
            assert_eq!(
                positions(&found.flagged),
                scene.evidence.group,
                "{change:?} {space:?} {:?}",
                found.verdict
            );
        }
    }
}

#[test]
fn the_plain_rule_comes_from_the_same_pass() {
    let mut scene = scene(24, 0, 9);
    let without = scene.detect().unwrap();
    scene.keys.plain = true;
    scene.evidence.scores_calls = 0;
    let with = scene.detect().unwrap();
    assert_eq!(scene.evidence.scores_calls, 1);
    assert_eq!(positions(&without.flagged), positions(&with.flagged));
    let queries = scene.queries(0);
    let least = (scene.keys.delta.queries - scene.keys.delta.n_tol) as usize;
    let mut expected: Vec<usize> = (0..EXAMPLES)
        .filter(|&i| scene.delta(&queries, i).iter().filter(|d| **d < 0.0).count() >= least)
        .collect();
    let mut plain = with.plain.unwrap().flagged;
    plain.sort_unstable();
    expected.sort_unstable();
    assert_eq!(plain, expected);
    assert!(
        expected.iter().any(|i| scene.labels[*i] as usize != WRONG),
        "the rule looks at every class"
    );
}

#[test]
fn the_papers_modes_are_the_count_rule_over_everything() {
    for delta in [paper_code::Keys::default().delta, paper_text::Keys::default().delta] {
        let mut scene = scene(24, 0, 10);
        (scene.rule, scene.seed) = (true, 3);
        scene.keys.delta = Delta {
            queries: 20,
            tau: -1.0,
            ..delta
        };
        let found = scene.detect().unwrap();
        let queries = scene.queries(0);
        let least = (scene.keys.delta.queries - scene.keys.delta.n_tol) as usize;
        let count = |i: usize| scene.delta(&queries, i).iter().filter(|d| **d < -1.0).count();
        let expected: Vec<usize> = (0..EXAMPLES).filter(|&i| count(i) >= least).collect();
        assert!(!expected.is_empty() && expected.len() < EXAMPLES / 2);
        assert_eq!(positions(&found.flagged), expected);
        assert!(found.flagged.iter().all(|f| f.count as usize == count(f.position)));
        assert!(found.flagged.is_sorted_by(|a, b| a.count >= b.count));
        assert_eq!(found.verdict, TraceVerdict::Flagged);
        assert_eq!(found.plain.unwrap().flagged, found.flagged.iter().map(|f| f.position).collect::<Vec<_>>());
        scene.keys.delta.tau = -1e9;
        assert!(reason(&scene.detect().unwrap()).contains("below -1000000000"));
    }
}

#[test]
fn several_anomalies_intersect_or_pool() {
    for combine in [Combine::Intersect, Combine::Pool] {
        let mut scene = scene(24, 0, 11);
        let mut rng = ChaCha8Rng::seed_from_u64(12);
        scene.anomalies.extend([picture(1.0, 0.0, &mut rng), picture(0.9, 1.0, &mut rng)]);
        scene.keys.delta.combine = combine;
        let found = scene.detect().unwrap();
        assert_eq!(found.verdict, TraceVerdict::Flagged, "{combine:?}");
        assert_eq!(positions(&found.flagged), scene.evidence.group);
        let queries: Vec<_> = (0..3).map(|a| scene.queries(a)).collect();
        for flagged in &found.flagged {
            let counts = queries
                .iter()
                .map(|q| scene.delta(q, flagged.position).iter().filter(|d| **d < 0.0).count() as u32);
            let root = scene.evidence.inner(flagged.position, flagged.position).sqrt();
            let all: Vec<f64> = queries.iter().flat_map(|q| scene.delta(q, flagged.position)).collect();
            let scaled = all.iter().sum::<f64>() / all.len() as f64 / root;
            assert!((flagged.mean_scaled_delta - scaled).abs() < 1e-9 * scaled.abs());
            assert_eq!(flagged.count, if combine == Combine::Pool { counts.sum() } else { counts.min().unwrap() });
        }
        assert_eq!(scene.evidence.scores_calls, 1);
    }
    // One clean picture among them: with `Intersect` nothing is removed, and it is named.
    let mut scene = scene(24, 0, 11);
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    scene.anomalies.push(picture(0.0, 0.0, &mut rng));
    let found = scene.detect().unwrap();
    assert!(reason(&found).starts_with("anomaly 2: "), "{}", reason(&found));
}

#[test]
fn too_little_to_go_by_is_undecided() {
    // Placebos: none, and fewer than five.
    for (left, words) in [(0, "only 0 placebos"), (4, "only 4 placebos")] {
        let mut scene = scene(24, 0, 14);
        scene.placebos.truncate(left);
        let found = scene.detect().unwrap();
        assert!(reason(&found).contains(words), "{}", reason(&found));
        assert_eq!(
            positions(&found.candidates),
            scene.evidence.group,
            "the candidates are shown all the same"
        );
    }
    // Examples: fewer than four for each of five seeds.
    for plain in [false, true] {
        let mut scene = scene(24, 0, 14);
        let members: Vec<usize> = (0..EXAMPLES).filter(|&i| scene.labels[i] as usize == WRONG).collect();
        members[19..].iter().for_each(|&i| scene.labels[i] = 0);
        scene.keys.plain = plain;
        let found = scene.detect().unwrap();
        assert!(
            reason(&found).contains("only 19 ") && reason(&found).contains("20 are needed") && reason(&found).contains("detect.seeds"),
            "{}",
            reason(&found)
        );
        assert_eq!(found.plain.is_some(), plain);
        assert_eq!(scene.evidence.scores_calls, usize::from(plain));
        assert!(found.stand_out.is_none());
    }
    // None at all of that label.
    let mut scene = scene(0, 0, 14);
    scene.labels = vec![0; EXAMPLES];
    assert!(reason(&scene.detect().unwrap()).contains("only 0 training examples"));
}

#[test]
fn examples_without_gradient_take_no_part() {
    let mut scene = scene(24, 0, 15);
    let members: Vec<usize> = (0..EXAMPLES).filter(|&i| scene.labels[i] as usize == WRONG).collect();
    let silenced: Vec<usize> = members.iter().copied().filter(|i| !scene.evidence.group.contains(i)).take(30).collect();
    for &i in &silenced {
        scene.evidence.gradients[i].iter_mut().for_each(|g| *g = 0.0);
    }
    let found = scene.detect().unwrap();
    assert_eq!(positions(&found.flagged), scene.evidence.group);
    assert_eq!(found.notes.len(), 1);
    assert!(found.notes[0].starts_with("30 of the 168 training examples") && found.notes[0].contains("detect.precision"));
    assert_eq!(found.members, members);
    assert!(
        members
            .iter()
            .zip(&found.members_mean_scaled_delta)
            .all(|(i, v)| silenced.contains(i) == (*v == 0.0))
    );
    for gradient in &mut scene.evidence.gradients {
        gradient.iter_mut().for_each(|g| *g = 0.0);
    }
    assert!(reason(&scene.detect().unwrap()).contains("only 0 training examples"));
}

/// 38 of the wrong label, 8 of them poisons: with the usual 20 seeds most would be clean.
#[test]
fn a_small_class_is_judged_with_fewer_seeds() {
    for seed in 30..36 {
        let mut scene = scene(8, 0, seed);
        scene.keys.seeds = 20;
        let members: Vec<usize> = (0..EXAMPLES).filter(|&i| scene.labels[i] as usize == WRONG).collect();
        members[38..].iter().for_each(|&i| scene.labels[i] = 0);
        let found = scene.detect().unwrap();
        assert_eq!(found.members.len(), 38);
        assert_eq!(positions(&found.flagged), scene.evidence.group, "seed {seed}: {:?}", found.verdict);
    }
}

#[test]
fn a_group_that_did_not_settle_is_told() {
    let mut scene = scene(24, 0, 2);
    scene.keys.rounds = 1;
    let found = scene.detect().unwrap();
    assert_eq!(found.verdict, TraceVerdict::Flagged);
    assert!(
        found.notes.len() == 1 && found.notes[0].contains("did not settle: after 1 rounds"),
        "{:?}",
        found.notes
    );
    scene.keys.rounds = 30;
    let settled = scene.detect().unwrap();
    assert!(settled.notes.is_empty() && settled.stand_out.unwrap().rounds > 1);
}

#[test]
fn a_cut_above_every_cosine_is_a_fault() {
    let mut scene = scene(24, 0, 3);
    scene.keys.alpha = 1e-300; // z = 37: beyond 1 by far
    let error = scene.detect().unwrap_err();
    assert_eq!(error.fault().kind, delta_guard_contract::FaultKind::Numeric);
    assert!(error.to_string().contains("the cut of the kinship κ is "), "{error}");
}

#[test]
fn examples_that_are_all_alike_are_undecided() {
    let mut scene = scene(0, 0, 16);
    for i in 0..EXAMPLES {
        scene.evidence.gradients[i] = trigger();
    }
    let found = scene.detect().unwrap();
    assert!(!reason(&found).is_empty());
    let json = serde_json::to_string(&found.stand_out).unwrap();
    assert_eq!(serde_json::from_str::<Option<StandOut>>(&json).unwrap(), found.stand_out);
}

#[test]
fn values_that_are_no_numbers_are_named() {
    let message = |scene: &mut Scene| scene.detect().unwrap_err().to_string();
    let mut broken = scene(24, 0, 17);
    broken.evidence.broken_score = Some((3, 1, f64::NAN));
    let text = message(&mut broken);
    // The second example of the wrong label stands at position 4.
    assert!(
        text.contains("query 3 of anomaly 1 (") && text.contains("training example 4 ") && text.contains("NaN"),
        "{text}"
    );
    broken.evidence.broken_score = Some((21, 0, f64::INFINITY));
    assert!(message(&mut broken).contains("placebo val/0.png"));
    broken.evidence.broken_score = None;
    broken.evidence.broken_self = Some((0, f64::NAN));
    assert!(message(&mut broken).contains("self-influence"));
    broken.evidence.broken_self = Some((0, -50.0));
    assert!(message(&mut broken).contains("is negative"));
    broken.evidence.broken_self = None;
    broken.evidence.broken_kin = Some(f64::NAN);
    assert!(message(&mut broken).contains("kinship of a group of 12 in round 1"));
    broken.evidence.broken_kin = None;
    broken.evidence.short = true;
    assert!(message(&mut broken).contains("another shape"));
}

#[test]
fn pictures_that_are_none_are_refused_by_name() {
    let mut scene = scene(0, 0, 18);
    scene.anomalies = vec![Tensor::zeros([1, 8, 8], (Kind::Float, tch::Device::Cpu))];
    assert!(scene.detect().unwrap_err().to_string().contains("anomaly 1: "));
    scene.anomalies.clear();
    assert!(scene.detect().is_err());
}
