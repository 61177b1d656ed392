//! Factors, scores, kin and null pictures of a real model against loops over examples, in float64.
//!
//! Directions are compared: scores over √(g_iᵀ P g_i), kin over both roots. They are the same whether a training example's gradient is taken of its loss or of its
//! margin, which is the loss's times 1 / (1 − p_y). Where size counts (the paper's modes), raw scores are compared to those of the loss.

use super::naive::{Factors, Naive};
use super::network::{Network, Of};
use super::scene::{SCENE, Scene, detect, small, with};
use delta_guard_contract::Seed;
use delta_guard_contract::detect::{Delta, DetectConfig, Detector, Fisher, Influence, paper_code};
use delta_influence::data::DataSet;
use delta_influence::detect::queries::{draw, picture_from_bytes, single};
use delta_influence::ekfac as library;
use delta_influence::evidence::{Answer, Evidence, Question, Scores};
use delta_influence::influence::{ModelEvidence, plan_of_scores};
use delta_influence::model::Model;
use delta_influence::passes::budget::Budget;
use delta_influence::passes::fit::{self, FitSettings};
use delta_influence::passes::stream::Stream;
use delta_influence::progress::Silent;
use tch::Tensor;

/// Largest difference, relative to the row's largest value, that float64 may leave.
const CLOSE: f64 = 1e-7;

/// The victim over a data set, in batches that do not divide anything. `kept`: bytes for pairs between passes.
fn stream<'a>(scene: &'a Scene, model: &'a Model, data: &'a DataSet, kept: u64) -> Stream<'a> {
    let layers = (0..model.graph.layers().len()).collect();
    Stream::new(model, data, &scene.prepared.image, layers, Budget { batch: 13, kept })
}

/// What a detector's settings say to queries and passes.
struct Settings {
    delta: Delta,
    asked: Influence,
    seed: u64,
}

fn settings(config: DetectConfig) -> Settings {
    Settings {
        delta: serde_json::from_value(serde_json::to_value(&config.method).unwrap()).unwrap(),
        asked: config.needs().factors.unwrap(),
        seed: config.common.seed.unwrap(),
    }
}

/// Factors of six examples: for tests that ask nothing about their values.
fn rough(scene: &Scene, model: &Model, data: &DataSet, settings: &Settings) -> library::Factors {
    let fit_settings = FitSettings::new(&settings.asked, Seed(settings.seed));
    let six = [0, 1, 2, 3, 40, 50];
    fit::fit(&mut stream(scene, model, data, 0), &fit_settings, &six, &mut Silent).unwrap().0
}

fn close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
    assert!(scale > 0.0, "{what}: nothing to compare");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= CLOSE * scale, "{what}, place {i}: {f}, the loop has {e}");
    }
}

fn over(values: &[f64], by: &[f64]) -> Vec<f64> {
    values.iter().zip(by).map(|(v, s)| v / s.sqrt()).collect()
}

/// Questions that stand alone before, between and after families; labels of several classes.
fn questions(scene: &Scene, settings: &Settings, data: &DataSet) -> Vec<Question> {
    let image = &scene.prepared.image;
    let side = |x: u32| x as usize;
    let picture = |i: usize| picture_from_bytes(data.pixels(i), 3, side(image.height), side(image.width)).unwrap();
    let alone = |at, label| Question::Alone(single(&picture(at), label, image).unwrap());
    let classes = scene.prepared.classes.len();
    let mut asked = vec![alone(7, 2)];
    for (number, at, wrong) in [(0, 30, 8), (1, 55, 3)] {
        asked.push(
            draw(&picture(at), wrong, classes, &settings.delta, settings.seed, image, number)
                .unwrap()
                .question,
        );
        asked.push(alone(at + 1, 8));
        asked.push(alone(at + 2, 0));
    }
    asked
}

/// All rows of answers.
fn rows(scores: &Scores) -> Vec<&[f64]> {
    scores.answers.iter().flat_map(Answer::rows).collect()
}

/// Rows and self-influence of queries against `examples`, by the library and by the loop.
struct Compared {
    found: Scores,
    expected: Scores,
}

fn compare(config: DetectConfig, examples: &[usize]) -> Compared {
    let scene = &*SCENE;
    let settings = settings(config);
    let data = scene.open(&scene.data().train);
    let model = scene.double();
    let mut training = stream(scene, &model, &data, 1 << 20);
    let fit_settings = FitSettings::new(&settings.asked, Seed(settings.seed));
    let subset = fit_settings.subset(data.len());
    let (factors, _) = fit::fit(&mut training, &fit_settings, &subset, &mut Silent).unwrap();
    let asked = questions(scene, &settings, &data);
    let mut silent = Silent;
    let mut library = ModelEvidence::new(training, &factors, &settings.asked, &mut silent);
    let found = library.scores("score", &asked, examples, true).unwrap();
    let image = &scene.prepared.image;
    let network = Network::load(&scene.victim);
    let naive = Factors::fit(&network, &data, image, &subset, settings.asked.fisher, fit_settings.seed);
    let mut loops = Naive::new(network, naive, 0.1, settings.asked.objective, &data, image, Of::Loss);
    let expected = loops.scores("score", &asked, examples, true).unwrap();
    Compared { found, expected }
}

fn same_directions(config: DetectConfig) {
    let Compared { found, expected } = compare(config, &(0..400).step_by(3).collect::<Vec<_>>());
    for (row, (f, e)) in rows(&found).into_iter().zip(rows(&expected)).enumerate() {
        close(
            &over(f, &found.self_influence),
            &over(e, &expected.self_influence),
            &format!("query {row}"),
        );
    }
}

#[test]
fn scores_of_margin_queries_are_the_loops() {
    same_directions(with(detect(), "objective", "margin".into()));
}

#[test]
fn scores_of_loss_queries_and_the_empirical_fisher_are_the_loops() {
    same_directions(with(with(detect(), "objective", "loss".into()), "fisher", "empirical".into()));
}

/// The paper's rule compares Δ with τ as it stands: there the size counts, and gradients are the loss's.
#[test]
fn scores_of_the_papers_modes_have_the_size_of_the_loss() {
    let Compared { found, expected } = compare(
        DetectConfig {
            method: Detector::PaperCode(paper_code::Keys {
                delta: small(paper_code::Keys::default().delta),
            }),
            ..detect()
        },
        &(0..400).step_by(7).collect::<Vec<_>>(),
    );
    close(&found.self_influence, &expected.self_influence, "self-influence");
    for (row, (f, e)) in rows(&found).into_iter().zip(rows(&expected)).enumerate() {
        close(f, e, &format!("query {row}"));
    }
}

#[test]
fn kin_and_null_rows_are_the_loops() {
    let scene = &*SCENE;
    let settings = settings(detect());
    let (data, validation) = (scene.open(&scene.data().train), scene.open(&scene.data().validation));
    let model = scene.double();
    let image = &scene.prepared.image;
    let fit_settings = FitSettings::new(&settings.asked, Seed(settings.seed));
    let subset = fit_settings.subset(data.len());
    let (factors, _) = fit::fit(&mut stream(scene, &model, &data, 0), &fit_settings, &subset, &mut Silent).unwrap();
    let network = Network::load(&scene.victim);
    let naive = Factors::fit(&network, &data, image, &subset, settings.asked.fisher, fit_settings.seed);
    let null: Vec<usize> = validation.by_label(scene.class(scene.target())).into_iter().step_by(2).collect();
    let mut loops = Naive::new(network, naive, 0.1, settings.asked.objective, &data, image, Of::Loss).with_null(&validation, image, &null);

    let examples = data.by_label(scene.class(scene.target()));
    let all: Vec<usize> = (0..data.len()).collect();
    let query = |number: usize| {
        let size = |x: u32| x as usize;
        let picture = picture_from_bytes(data.pixels(number), 3, size(image.height), size(image.width)).unwrap();
        vec![Question::Alone(single(&picture, 0, image).unwrap())]
    };
    let expected_own = loops.self_influence();
    // Unequal weights and signs; one group reaches outside of the examples, one is a single example.
    let outside = (0..data.len()).find(|i| !examples.contains(i)).unwrap();
    let weighted: [Vec<(usize, f64)>; 3] = [
        examples
            .iter()
            .step_by(3)
            .zip([1.0, -0.4, 2.5].into_iter().cycle())
            .map(|(&i, w)| (i, w))
            .collect(),
        vec![(examples[1], 0.7), (outside, 1.3), (examples[4], -1.0)],
        vec![(examples[2], 1.0)],
    ];
    for budget in [0, 1 << 20, 1 << 30] {
        let mut silent = Silent;
        let mut library = ModelEvidence::new(stream(scene, &model, &data, budget), &factors, &settings.asked, &mut silent)
            .with_null(stream(scene, &model, &validation, budget / 4), null.clone());
        let own = library.scores("score", &query(3), &all, true).unwrap().self_influence;
        let over_roots = |roots: &[f64]| -> Vec<Vec<(usize, f64)>> {
            let scaled = |group: &Vec<(usize, f64)>| group.iter().map(|&(i, w)| (i, w / roots[i].sqrt())).collect();
            weighted.iter().map(scaled).collect()
        };
        let expected = loops.kin("kin", &over_roots(&expected_own), &examples).unwrap();
        let of_examples = |own: &[f64]| examples.iter().map(|&i| own[i]).collect::<Vec<f64>>();
        // Twice: the second time, whatever the budget allows comes from the cache.
        for time in ["first", "second"] {
            let found = library.kin("kin", &over_roots(&own), &examples).unwrap();
            assert_eq!((found.rows.len(), found.null.len()), (3, 3));
            for group in 0..3 {
                let what = format!("group {group}, budget {budget}, {time} time");
                close(
                    &over(&found.rows[group], &of_examples(&own)),
                    &over(&expected.rows[group], &of_examples(&expected_own)),
                    &format!("kin of {what}"),
                );
                close(&found.null[group], &expected.null[group], &format!("null of {what}"));
            }
        }
    }
}

/// What fits into the budget is kept and not computed again, what does not is: seen by spoiling the weights in between. A pass over the whole set is not kept.
#[test]
fn what_fits_into_the_budget_is_not_computed_again() {
    let scene = &*SCENE;
    let settings = settings(detect());
    let (data, validation) = (scene.open(&scene.data().train), scene.open(&scene.data().validation));
    let fitted = scene.double();
    let factors = rough(scene, &fitted, &data, &settings);
    let all: Vec<usize> = (0..data.len()).collect();
    // (budget, examples, are they computed again)
    for (budget, examples, again) in [
        (1 << 30, &all[..40], false),
        (0, &all[..40], true),
        (1 << 12, &all[..40], true),
        (1 << 30, &all, true),
    ] {
        let model = scene.double();
        let mut silent = Silent;
        let mut library = ModelEvidence::new(stream(scene, &model, &data, budget), &factors, &settings.asked, &mut silent)
            .with_null(stream(scene, &model, &validation, budget / 4), vec![0, 1, 2]);
        let image = &scene.prepared.image;
        let picture = Tensor::zeros([3, i64::from(image.height), i64::from(image.width)], (tch::Kind::Float, tch::Device::Cpu));
        let query = || vec![Question::Alone(single(&picture, 0, image).unwrap())];
        let before = library.scores("score", &query(), examples, true).unwrap().self_influence;
        let _ = model.weights.0["fc.weight"].shallow_clone().zero_();
        let after = library.scores("score", &query(), examples, true).unwrap().self_influence;
        assert_eq!(before != after, again, "budget {budget}, {} examples", examples.len());
    }
}

/// Half of the memory that is allowed for a batch, never no example at all, never more than 128; what a batch leaves is for what is kept.
#[test]
fn a_batch_fits_into_its_memory() {
    let model = SCENE.double();
    let example = 4 * 8 * model.graph.activation_size() as u64;
    for (memory, batch) in [
        (0, 1),
        (example, 1),
        (2 * example, 1),
        (20 * example, 10),
        (200 * example, 100),
        (2000 * example, 128),
    ] {
        let budget = Budget::new(&model, memory);
        assert_eq!(budget.batch, batch);
        assert_eq!(budget.kept, memory.saturating_sub(batch as u64 * example));
        let (training, null) = budget.shared();
        assert_eq!((training.batch, null.batch), (batch, batch));
        assert_eq!(training.kept + null.kept, budget.kept);
        assert!(null.kept <= training.kept);
    }
}

/// Batches that are read ahead are the batches that are asked for, kept ones left out.
#[test]
fn reading_ahead_changes_nothing() {
    let scene = &*SCENE;
    let settings = settings(detect());
    let data = scene.open(&scene.data().train);
    let model = scene.double();
    let factors = rough(scene, &model, &data, &settings);
    let examples: Vec<usize> = (0..100).collect();
    let scored = |read_ahead: bool, kept: u64| {
        let mut training = stream(scene, &model, &data, kept);
        training.read_ahead = read_ahead;
        let mut silent = Silent;
        let mut library = ModelEvidence::new(training, &factors, &settings.asked, &mut silent);
        let asked = questions(scene, &settings, &data);
        let first = library.scores("score", &asked, &examples, true).unwrap();
        assert_eq!(first, library.scores("score", &asked, &examples, true).unwrap());
        first
    };
    let plain = scored(false, 0);
    for kept in [0, 1 << 20, 1 << 30] {
        assert_eq!(scored(true, kept), plain, "{kept} bytes kept");
    }
}

/// Without null pictures there are no null rows.
#[test]
fn no_null_pictures_no_null_rows() {
    let scene = &*SCENE;
    let settings = settings(detect());
    let data = scene.open(&scene.data().train);
    let model = scene.double();
    let factors = rough(scene, &model, &data, &settings);
    let mut silent = Silent;
    let mut library = ModelEvidence::new(stream(scene, &model, &data, 0), &factors, &settings.asked, &mut silent)
        .with_null(stream(scene, &model, &data, 0), Vec::new());
    let kin = library.kin("kin", &[vec![(0, 1.0), (1, 1.0)]], &[0, 1, 2]).unwrap();
    assert_eq!((kin.rows[0].len(), kin.null.len()), (3, 0));
}

/// Nothing asked: an error, not scores.
#[test]
fn what_cannot_be_asked_is_an_error() {
    let scene = &*SCENE;
    let settings = settings(detect());
    let data = scene.open(&scene.data().train);
    let model = scene.double();
    let factors = rough(scene, &model, &data, &settings);
    let mut silent = Silent;
    let mut library = ModelEvidence::new(stream(scene, &model, &data, 0), &factors, &settings.asked, &mut silent);
    assert!(library.scores("score", &[], &[0, 1], false).is_err());
}

/// Scores that are known answer the questions that they were taken for, and no others.
#[test]
fn known_scores_answer_their_own_questions_only() {
    let scene = &*SCENE;
    let settings = settings(detect());
    let data = scene.open(&scene.data().train);
    let model = scene.double();
    let factors = rough(scene, &model, &data, &settings);
    let asked = questions(scene, &settings, &data);
    let plan = plan_of_scores(&asked, &[0, 1], true).unwrap();
    let known = Scores {
        answers: vec![Answer::Alone(vec![1.0, 2.0])],
        self_influence: vec![3.0, 4.0],
    };
    let mut silent = Silent;
    let mut library = ModelEvidence::new(stream(scene, &model, &data, 0), &factors, &settings.asked, &mut silent).with_known(plan, known.clone());
    assert_eq!(library.scores("score", &asked, &[0, 1], true).unwrap(), known);
    for (questions, examples, own) in [(&asked[..], [0, 2], true), (&asked[..], [0, 1], false), (&asked[1..], [0, 1], true)] {
        assert_ne!(library.scores("score", questions, &examples, own).unwrap(), known);
    }
}

/// Drawn at random under the seed, spread over all, each once, ascending.
#[test]
fn the_fit_subset_is_a_random_one() {
    let of = |examples, seed| {
        FitSettings {
            fisher: Fisher::True,
            examples,
            seed,
        }
        .subset(1000)
    };
    assert_eq!(of(0, 1), (0..1000).collect::<Vec<_>>());
    assert_eq!(of(1000, 1), (0..1000).collect::<Vec<_>>());
    assert_eq!(of(2000, 1), (0..1000).collect::<Vec<_>>());
    let mut drawn = vec![0; 1000];
    for seed in 0..200 {
        let subset = of(100, seed);
        assert_eq!(subset.len(), 100);
        assert!(subset.is_sorted_by(|a, b| a < b) && *subset.last().unwrap() < 1000);
        subset.iter().for_each(|&i| drawn[i] += 1);
    }
    // 20 expected of each, standard deviation 4.2; a quarter of the set together: 5,000, 67.
    assert!(drawn.iter().all(|n| (2..=45).contains(n)), "{drawn:?}");
    for quarter in drawn.chunks(250) {
        let n: i32 = quarter.iter().sum();
        assert!((4_600..5_400).contains(&n), "{n}");
    }
    assert_eq!(of(100, 3), of(100, 3));
}
