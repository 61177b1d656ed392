//! POTION against a plain computation in float64, its search, and its limit.

use crate::bench::{Bench, plain};
use crate::modes::linear;
use delta_guard_contract::Recipe;
use delta_guard_contract::method::unlearn::potion::{Importance, Keys};
use delta_influence::data::normalise;
use delta_influence::model::{Graph, Model, Weights};
use delta_influence::progress::{Report, Silent};
use delta_influence::train::loss::CrossEntropy;
use delta_influence::train::{Trained, Training, train};
use delta_influence::unlearn::Unlearner;
use tch::{Device, Kind, Tensor};

const FLAGGED: [usize; 3] = [4, 17, 31];

fn others(bench: &Bench) -> Vec<usize> {
    (0..bench.data.len()).filter(|i| !FLAGGED.contains(i)).collect()
}

fn unlearn(bench: &Bench, keys: &Keys, (graph, production): (&Graph, &Weights), report: &mut dyn Report) -> Trained {
    let (recipe, out, retained) = (Recipe::default(), bench.out("potion"), others(bench));
    let case = bench.case((graph, production), (&retained, &FLAGGED), &recipe, &out);
    keys.unlearn(&case, report).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

/// What each number of each parameter matters to some examples, each alone or all in one batch; in float64, example by example.
fn importance(bench: &Bench, model: &Model, examples: &[usize], (kind, alone): (Importance, bool)) -> Vec<(String, Vec<f64>)> {
    let size = |gradient: f64| match kind {
        Importance::Length => gradient.abs(),
        Importance::Loss | Importance::Margin => gradient * gradient,
    };
    let parameters = model.parameters();
    let mut sums: Vec<Vec<f64>> = parameters.iter().map(|(_, p)| vec![0.0; p.numel()]).collect();
    for &example in examples {
        let leaves: Vec<Tensor> = parameters.iter().map(|(_, p)| p.set_requires_grad(true)).collect();
        let images = normalise(&bench.data.batch(&[example]).unwrap(), &bench.image, Kind::Double, Device::Cpu).unwrap();
        let logits = model.forward_differentiable(&images).unwrap();
        let of = match kind {
            Importance::Length => logits.norm(),
            // z_y − ln Σ e^z of the others.
            Importance::Margin => {
                let label = i64::from(bench.data.labels()[example]);
                let others: Vec<i64> = (0..10).filter(|&class| class != label).collect();
                logits.select(1, label).sum(Kind::Double) - logits.index_select(1, &Tensor::from_slice(&others)).exp().sum(Kind::Double).log()
            }
            Importance::Loss => -logits
                .log_softmax(1, Kind::Double)
                .select(1, i64::from(bench.data.labels()[example]))
                .sum(Kind::Double),
        };
        let gradients = Tensor::run_backward(&[of], &leaves.iter().collect::<Vec<_>>(), false, false);
        for (sum, gradient) in sums.iter_mut().zip(gradients) {
            sum.iter_mut().zip(numbers(&gradient)).for_each(|(sum, g)| {
                *sum += if alone { size(g) } else { g } / examples.len() as f64;
            });
        }
    }
    let last = |sum: f64| if alone { sum } else { size(sum) };
    let names = parameters.into_iter().map(|(name, _)| name);
    names.zip(sums.into_iter().map(|sum| sum.into_iter().map(last).collect())).collect()
}

#[test]
fn weights_are_those_of_a_plain_computation() {
    let bench = Bench::new();
    let graph = bench.graph();
    let production = Weights::init(&graph, 4).unwrap();
    // The first channel never sees anything: nothing depends on its weights, and 0 / 0 is no reason to shrink them.
    let _ = production.0["bn1.bias"].get(0).fill_(-1e3);
    for (kind, batch_size) in [
        (Importance::Length, 1000),
        (Importance::Loss, 1000),
        (Importance::Margin, 1000),
        (Importance::Margin, 1),
    ] {
        // Three of sixty, taken for 20 × so many: ln(1 + 100) percent of the weights, by the percentile of NumPy.
        let keys = Keys {
            importance: kind,
            batch_size,
            start: 20.0,
            tries: 1,
            max_drop: 1.0,
            ..Keys::default()
        };
        let after = unlearn(&bench, &keys, (&graph, &production), &mut Silent).model.weights;
        let model = Model::new(graph.clone(), production.to(Device::Cpu, Kind::Double));
        let (to_flagged, to_others) = (
            importance(&bench, &model, &FLAGGED, (kind, batch_size == 1)),
            importance(&bench, &model, &others(&bench), (kind, batch_size == 1)),
        );
        let ratios: Vec<(String, Vec<f64>)> = to_flagged
            .into_iter()
            .zip(to_others)
            .map(|((name, f), (_, o))| (name, f.iter().zip(o).map(|(f, o)| f / o).collect()))
            .collect();
        let mut sorted: Vec<f64> = ratios.iter().flat_map(|(_, r)| r).copied().filter(|r| r.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let place = (100.0 - 101f64.ln()) / 100.0 * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        let cut = low + (high - low) * place.fract();
        let (mut shrunk, mut dead) = (0, 0);
        for (name, ratios) in ratios {
            for ((was, is), r) in numbers(&production.0[&name]).into_iter().zip(numbers(&after.0[&name])).zip(ratios) {
                // Where float32 may choose otherwise.
                if (r - cut).abs() < 1e-3 * cut {
                    continue;
                }
                let factor = if r > cut { (1.0 / r).min(1.0) } else { 1.0 };
                assert!(
                    (is - was * factor).abs() <= 2e-3 * was.abs() * factor + 1e-9,
                    "{name}: {is} for {was} × {factor}"
                );
                shrunk += usize::from(factor < 1.0);
                dead += usize::from(r.is_nan());
            }
        }
        let expected = sorted.len() as f64 * 101f64.ln() / 100.0;
        assert!(
            (shrunk as f64 - expected).abs() <= 3.0 && dead > 20,
            "{kind:?}: {shrunk} of {} shrunk, {dead} dead",
            sorted.len()
        );
        assert!(
            graph
                .state()
                .iter()
                .filter(|e| !e.parameter)
                .all(|e| after.0[&e.name].equal(&production.0[&e.name]))
        );
    }
}

/// What the search says.
#[derive(Default)]
struct Said {
    tries: u64,
    log: String,
}

impl Report for Said {
    fn progress(&mut self, step: &str, done: u64, _: u64, _: &str) {
        if step == "search" {
            self.tries = done;
        }
    }

    fn log(&mut self, message: &str) {
        self.log += message;
    }
}

/// A linear model that has learnt all sixty: the search ends at the first try that forgets the three, and a limit on what else is lost stops it earlier.
#[test]
fn the_search_goes_until_the_flagged_are_forgotten_and_no_further_than_the_limit() {
    let bench = Bench::new();
    let graph = linear(&bench);
    let all: Vec<usize> = (0..bench.data.len()).collect();
    let (recipe, out) = (plain(60, 1e-2), bench.out("production"));
    let run = Training {
        graph: &graph,
        data: &bench.data,
        image: &bench.image,
        examples: &all,
        recipe: &recipe,
        start: None,
        loss: &CrossEntropy,
        trainable: graph.last_layers(0),
        device: Device::Cpu,
        out_dir: &out,
        key: "production".into(),
    };
    let production = train(run, &mut Silent).unwrap().model.weights;
    let retained = others(&bench);
    let (recipe, out) = (Recipe::default(), bench.out("none"));
    let case = bench.case((&graph, &production), (&retained, &FLAGGED), &recipe, &out);
    let read = |model: &Model, examples: &[usize]| case.look(model, examples, &mut Silent).unwrap().1;
    assert_eq!(
        (read(&case.model(), &FLAGGED), read(&case.model(), &retained)),
        (1.0, 1.0),
        "it has learnt all"
    );

    let keys = Keys {
        importance: Importance::Length,
        batch_size: 512,
        stop: 0.4,
        step: 1.3,
        max_drop: 1.0,
        ..Keys::default()
    };
    let mut said = Said::default();
    let made = unlearn(&bench, &keys, (&graph, &production), &mut said);
    let tries = said.tries;
    assert!(tries > 2 && read(&made.model, &FLAGGED) < 0.4, "{tries} tries, {}", said.log);
    let lost = 1.0 - read(&made.model, &retained);
    assert!((made.accuracy - (1.0 - lost)).abs() < 1e-9 && lost > 0.0, "{lost}");
    // One try fewer: not forgotten yet, and said.
    let fewer = Keys {
        tries: tries as u32 - 1,
        ..keys.clone()
    };
    let mut said = Said::default();
    let early = unlearn(&bench, &fewer, (&graph, &production), &mut said);
    assert!(read(&early.model, &FLAGGED) > 0.4 && said.log.contains("not forgotten"), "{}", said.log);
    // Nothing may be lost: the strongest try that loses nothing.
    let careful = Keys { max_drop: 0.0, ..keys };
    let mut said = Said::default();
    let within = unlearn(&bench, &careful, (&graph, &production), &mut said);
    assert_eq!((read(&within.model, &retained), said.tries), (1.0, tries));
    assert!(said.log.contains("max_drop"), "{}", said.log);
}
