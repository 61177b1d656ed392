//! SCRUB and bad teaching on a linear network: whole steps against their formulas in float64, and a job that is killed and repeated.

use crate::bench::{Bench, plain};
use crate::modes::linear;
use delta_guard_contract::method::unlearn::{badt, scrub};
use delta_influence::data::normalise;
use delta_influence::model::{Graph, Weights};
use delta_influence::progress::{Report, Silent};
use delta_influence::train::Trained;
use delta_influence::unlearn::Unlearner;
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};

const LR: f64 = 1e-3;
const FLAGGED: [usize; 4] = [3, 4, 20, 41];

/// A linear production model, its pictures, and what stays.
struct School {
    bench: Bench,
    graph: Graph,
    production: Weights,
    retained: Vec<usize>,
}

impl School {
    fn new() -> Self {
        let bench = Bench::new();
        let graph = linear(&bench);
        let retained = (0..bench.data.len()).filter(|i| !FLAGGED.contains(i)).collect();
        let production = Weights::init(&graph, 2).unwrap();
        Self {
            bench,
            graph,
            production,
            retained,
        }
    }

    fn unlearn(&self, method: &dyn Unlearner, out: &str, report: &mut dyn Report) -> Trained {
        let (recipe, out) = (plain(9, 1.0), self.bench.out(out));
        let case = self
            .bench
            .case((&self.graph, &self.production), (&self.retained, &FLAGGED), &recipe, &out);
        method.unlearn(&case, report).unwrap()
    }

    /// Pixels of some examples, a row each.
    fn pixels(&self, examples: &[usize]) -> Tensor {
        let images = normalise(&self.bench.data.batch(examples).unwrap(), &self.bench.image, Kind::Float, Device::Cpu).unwrap();
        images.flatten(1, -1).to_kind(Kind::Double)
    }

    fn labels(&self, examples: &[usize]) -> Tensor {
        self.bench.data.labels_tensor(examples).unwrap().onehot(10).to_kind(Kind::Double)
    }
}

/// Weights and bias of a linear network, in float64.
struct Linear(Tensor, Tensor);

impl Linear {
    fn of(weights: &Weights) -> Self {
        let part = |name: &str| weights.0[name].to_kind(Kind::Double).copy();
        Self(part("fc.weight"), part("fc.bias"))
    }

    /// Softmax of the answers at a temperature.
    fn soft(&self, x: &Tensor, temperature: f64) -> Tensor {
        ((x.matmul(&self.0.tr()) + &self.1) / temperature).softmax(1, Kind::Double)
    }

    /// A step along `pull`, the gradient with regard to the logits of each example of a batch, summed.
    fn step(&mut self, x: &Tensor, pull: &Tensor, lr: f64) {
        let n = x.size()[0] as f64;
        self.0 -= pull.tr().matmul(x) * (lr / n);
        self.1 -= pull.sum_dim_intlist([0i64].as_slice(), false, Kind::Double) * (lr / n);
    }

    /// That a network went from `start` to here.
    fn is(&self, found: &Weights, start: &Weights) {
        let (found, start) = (Self::of(found), Self::of(start));
        let moved = (&self.0 - &start.0).abs().max().double_value(&[]);
        let apart = (&self.0 - &found.0)
            .abs()
            .max()
            .double_value(&[])
            .max((&self.1 - &found.1).abs().max().double_value(&[]));
        assert!(apart < 2e-3 * moved, "{apart} beside a way of {moved}");
    }
}

/// One max-step and its min-step, then a min-step alone. A student that is where its teacher is feels no divergence, so the first max-step moves nothing; hence a second one.
#[test]
fn scrub_ascends_on_the_flagged_and_descends_on_the_others() {
    let school = School::new();
    let keys = scrub::Keys {
        epochs: 3,
        max_epochs: 2,
        lr: Some(LR),
        alpha: 0.5,
        gamma: 0.8,
        temperature: 2.0,
        flagged_batch: 100,
    };
    let trained = school.unlearn(&keys, "scrub", &mut Silent);
    let (teacher, mut student) = (Linear::of(&school.production), Linear::of(&school.production));
    let (x, y, away) = (school.pixels(&school.retained), school.labels(&school.retained), school.pixels(&FLAGGED));
    // d/ds T²·KL(t ‖ softmax(s / T)) = T·(softmax(s / T) − t).
    let apart = |student: &Linear, x: &Tensor| (student.soft(x, 2.0) - teacher.soft(x, 2.0)) * 2.0;
    for ascends in [true, true, false] {
        if ascends {
            let pull = -apart(&student, &away);
            student.step(&away, &pull, LR);
        }
        let pull = (student.soft(&x, 1.0) - &y) * 0.8 + apart(&student, &x) * 0.5;
        student.step(&x, &pull, LR);
    }
    student.is(&trained.model.weights, &school.production);
}

/// Two steps over all examples towards the two teachers; the random one is not the production model's beginning, and follows from the seed.
#[test]
fn bad_teaching_goes_towards_the_teacher_of_each_example() {
    let school = School::new();
    let keys = badt::Keys {
        epochs: 2,
        lr: Some(LR),
        temperature: 2.0,
    };
    let trained = school.unlearn(&keys, "badt", &mut Silent);
    let all: Vec<usize> = (0..school.bench.data.len()).collect();
    // The recipe's seed is 1.
    let random = Linear::of(&Weights::init(&school.graph, 7).unwrap());
    let (teacher, mut student, x) = (Linear::of(&school.production), Linear::of(&school.production), school.pixels(&all));
    let target = teacher.soft(&x, 2.0);
    for example in FLAGGED {
        target.get(example as i64).copy_(&random.soft(&x, 2.0).get(example as i64));
    }
    for _ in 0..2 {
        // d/ds KL(t ‖ softmax(s / T)) = (softmax(s / T) − t) / T.
        let pull = (student.soft(&x, 2.0) - &target) / 2.0;
        student.step(&x, &pull, LR);
    }
    student.is(&trained.model.weights, &school.production);
}

/// What a watcher was shown of a training; at step `keep.0` it copies the epoch file of one folder to another, as a kill would have left it.
#[derive(Default)]
struct Steps {
    seen: Vec<u64>,
    total: u64,
    keep: Option<(u64, PathBuf, PathBuf)>,
}

impl Report for Steps {
    fn progress(&mut self, step: &str, done: u64, total: u64, _: &str) {
        if step == "train" {
            self.seen.push(done);
            self.total = total;
        }
        if let Some((at, from, to)) = &self.keep
            && *at == done
        {
            std::fs::copy(from.join("epoch.safetensors"), to.join("epoch.safetensors")).unwrap();
        }
    }

    fn log(&mut self, _: &str) {}
}

/// Passes of unlike lengths: 2 steps over the flagged, 1 over the others. A job that is killed in its third pass goes on there; one with other keys begins anew.
#[test]
fn what_was_killed_goes_on_and_nothing_else_goes_on_from_it() {
    let school = School::new();
    let keys = scrub::Keys {
        epochs: 2,
        max_epochs: 2,
        lr: Some(LR),
        flagged_batch: 2,
        ..scrub::Keys::default()
    };
    let mut steps = Steps {
        keep: Some((5, school.bench.out("whole"), school.bench.out("killed"))),
        ..Steps::default()
    };
    let whole = school.unlearn(&keys, "whole", &mut steps);
    assert_eq!((steps.seen, steps.total), (vec![2, 3, 5, 6], 6));
    let same = |a: &Trained, b: &Trained| a.model.weights.0.iter().all(|(name, tensor)| tensor.equal(&b.model.weights.0[name]));
    let went_on = school.unlearn(&keys, "killed", &mut Silent);
    assert_eq!(went_on.resumed_epochs, 2);
    assert!(same(&whole, &went_on));
    let other = scrub::Keys { alpha: 0.5, ..keys };
    assert_eq!(school.unlearn(&other, "killed", &mut Silent).resumed_epochs, 0);

    let keys = badt::Keys {
        epochs: 3,
        ..badt::Keys::default()
    };
    let mut steps = Steps {
        keep: Some((3, school.bench.out("bad"), school.bench.out("bad-killed"))),
        ..Steps::default()
    };
    let whole = school.unlearn(&keys, "bad", &mut steps);
    let went_on = school.unlearn(&keys, "bad-killed", &mut Silent);
    assert_eq!(went_on.resumed_epochs, 2);
    assert!(same(&whole, &went_on));
    let other = badt::Keys { temperature: 3.0, ..keys };
    assert_eq!(school.unlearn(&other, "bad-killed", &mut Silent).resumed_epochs, 0);
}

/// Without anything to forget there is nothing to do.
#[test]
fn methods_that_look_at_the_flagged_want_some() {
    let school = School::new();
    let (recipe, out) = (plain(1, LR), school.bench.out("none"));
    let case = school
        .bench
        .case((&school.graph, &school.production), (&school.retained, &[]), &recipe, &out);
    let methods: [&dyn Unlearner; 3] = [
        &scrub::Keys::default(),
        &badt::Keys::default(),
        &delta_guard_contract::method::unlearn::potion::Keys::default(),
    ];
    for method in methods {
        assert!(method.unlearn(&case, &mut Silent).unwrap_err().to_string().contains("nothing to forget"));
    }
}
