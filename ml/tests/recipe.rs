//! What a recipe may say, against PyTorch's own numbers (fixtures/recipe/make.py), and trainings by it that are cut off and go on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "unlearn/bench.rs"]
mod bench;

use bench::{Bench, plain};
use delta_guard_contract::method::unlearn::eu;
use delta_guard_contract::{Augment, Mixing, Optimizer, RandomCrop, Recipe, Schedule};
use delta_influence::model::Weights;
use delta_influence::progress::Report;
use delta_influence::train::augment::cut;
use delta_influence::train::average::Average;
use delta_influence::train::loss::{CrossEntropy, Loss, Seen};
use delta_influence::train::optimizer::Stepper;
use delta_influence::train::schedule::learning_rate;
use delta_influence::train::{Trained, Training, train};
use delta_influence::unlearn::Unlearner;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/recipe/recipe.json")).unwrap()
}

/// Nested lists as a tensor of doubles.
fn tensor(value: &Value) -> Tensor {
    let (mut shape, mut inner) = (Vec::new(), value);
    while let Value::Array(list) = inner {
        shape.push(list.len() as i64);
        inner = &list[0];
    }
    fn flat(value: &Value, out: &mut Vec<f64>) {
        match value {
            Value::Array(list) => list.iter().for_each(|one| flat(one, out)),
            one => out.push(one.as_f64().unwrap()),
        }
    }
    let mut numbers = Vec::new();
    flat(value, &mut numbers);
    Tensor::from_slice(&numbers).view(&shape[..])
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    (a.to_kind(Kind::Double) - b).abs().max().double_value(&[])
}

/// The linear layer of the script, with its loss.
struct Net {
    weight: Tensor,
    bias: Tensor,
    images: Tensor,
    labels: Tensor,
}

impl Net {
    fn new(fixture: &Value) -> Self {
        let leaf = |name: &str| tensor(&fixture["start"][name]).set_requires_grad(true);
        Self {
            weight: leaf("weight"),
            bias: leaf("bias"),
            images: tensor(&fixture["images"]),
            labels: tensor(&fixture["labels"]).to_kind(Kind::Int64),
        }
    }

    fn logits(&self, images: &Tensor) -> Tensor {
        images.matmul(&self.weight.tr()) + &self.bias
    }

    fn loss(&self, smoothing: f64) -> Tensor {
        let student = self.logits(&self.images);
        CrossEntropy.of(&seen(&student, &self.labels, None, smoothing)).unwrap()
    }
}

fn seen<'a>(student: &'a Tensor, labels: &'a Tensor, others: Option<(&'a Tensor, f64)>, smoothing: f64) -> Seen<'a> {
    Seen {
        images: student,
        student,
        teacher: None,
        labels,
        others,
        smoothing,
        examples: &[],
        epoch: 0,
    }
}

fn adamw() -> Recipe {
    Recipe {
        optimizer: Optimizer::Adamw {
            betas: [0.8, 0.95],
            eps: 1e-6,
        },
        weight_decay: 5e-2,
        ..Recipe::default()
    }
}

fn sgd() -> Recipe {
    Recipe {
        weight_decay: 5e-2,
        ..Recipe::default()
    }
}

#[test]
fn ten_steps_of_each_optimiser_are_pytorchs() {
    let fixture = fixture();
    let clipped = Recipe {
        clip_norm: Some(0.5),
        ..sgd()
    };
    let bias_apart = Recipe {
        no_decay_norm_bias: true,
        ..adamw()
    };
    let averaged = Recipe { ema: Some(0.9), ..sgd() };
    for (name, recipe) in [
        ("sgd", sgd()),
        ("sgd_clipped", clipped),
        ("adamw", adamw()),
        ("adamw_bias_apart", bias_apart),
        ("ema", averaged),
    ] {
        let net = Net::new(&fixture);
        let parameters = [("fc.weight", &net.weight), ("fc.bias", &net.bias)];
        let mut stepper = Stepper::new(
            Vec::from(parameters.map(|(name, tensor)| (name.to_string(), tensor.shallow_clone()))),
            &recipe,
        );
        let mut average = recipe.ema.map(|decay| Average::new(decay, None));
        let rows = fixture[name].as_array().unwrap();
        assert_eq!(rows.len(), 10);
        for (step, row) in rows.iter().enumerate() {
            stepper.step(&net.loss(0.0), 0.1 / (1 + step) as f64).unwrap();
            let now = Weights(BTreeMap::from(parameters.map(|(name, tensor)| (name.into(), tensor.detach().copy()))));
            for (part, tensor) in [("weight", &net.weight), ("bias", &net.bias)] {
                let far = apart(tensor, &self::tensor(&row[part]));
                assert!(far < 1e-9, "{name}, step {step}, {part}: {far:e}");
            }
            if let Some(average) = &mut average {
                average.update(&now).unwrap();
                for part in ["weight", "bias"] {
                    let far = apart(
                        &average.weights().unwrap().0[&format!("fc.{part}")],
                        &self::tensor(&row[format!("ema_{part}")]),
                    );
                    assert!(far < 1e-9, "{name}, step {step}, average of {part}: {far:e}");
                }
            }
        }
    }
}

#[test]
fn rates_losses_and_crops_are_pytorchs() {
    let fixture = fixture();
    for course in fixture["rates"].as_array().unwrap() {
        let number = |key: &str| course[key].as_f64().unwrap();
        let (warm, steps) = (number("warm"), number("steps") as u64);
        let schedule = |warmup, by_epoch| Schedule::WarmupCosine {
            warmup,
            start: number("start"),
            least: number("least"),
            by_epoch,
        };
        for (step, wanted) in course["rates"].as_array().unwrap().iter().enumerate() {
            let (step, wanted) = (step as u64, wanted.as_f64().unwrap());
            // As a share of the steps; in epochs of one step; once an epoch, where one has three steps.
            for got in [
                learning_rate(&schedule(warm / steps as f64, false), number("lr"), step, 5, steps),
                learning_rate(&schedule(warm, false), number("lr"), step, 1, steps),
                learning_rate(&schedule(warm, true), number("lr"), 3 * step + 2, 3, 3 * steps),
            ] {
                assert!((got - wanted).abs() < 1e-12, "{warm} of {steps}, step {step}: {got} instead of {wanted}");
            }
        }
    }
    let net = Net::new(&fixture);
    let smoothed = &fixture["smoothed"];
    let loss = net.loss(smoothed["smoothing"].as_f64().unwrap()).double_value(&[]);
    assert!((loss - smoothed["loss"].as_f64().unwrap()).abs() < 1e-12);
    let mixed = &fixture["mixed"];
    let share = mixed["share"].as_f64().unwrap();
    let images = &net.images * share + net.images.roll([1], [0]) * (1.0 - share);
    let (student, others) = (net.logits(&images), net.labels.roll([1], [0]));
    let loss = CrossEntropy.of(&seen(&student, &net.labels, Some((&others, share)), 0.1)).unwrap();
    assert!((loss.double_value(&[]) - mixed["loss"].as_f64().unwrap()).abs() < 1e-12);
    let gradient = Tensor::run_backward(&[loss], &[&net.weight], false, false);
    assert!(apart(&gradient[0], &tensor(&mixed["gradient"])) < 1e-12);
    let cropped = &fixture["cropped"];
    let picture = tensor(&cropped["picture"]).to_kind(Kind::Float).unsqueeze(0);
    for (part, wanted) in cropped["boxes"].as_array().unwrap().iter().zip(cropped["cropped"].as_array().unwrap()) {
        let part: Vec<i64> = part.as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
        let got = cut(&picture, &[part.try_into().unwrap()]).unwrap();
        assert!(apart(&got.squeeze_dim(0), &tensor(wanted)) < 1e-6);
    }
}

/// Counts the steps, and may end a training after so many epochs.
#[derive(Default)]
struct Heard {
    steps: usize,
    said: Vec<String>,
}

impl Report for Heard {
    fn progress(&mut self, step: &str, _: u64, _: u64, _: &str) {
        self.steps += usize::from(step == "train");
    }

    fn log(&mut self, message: &str) {
        self.said.push(message.into());
    }
}

/// All at once.
fn everything() -> Recipe {
    Recipe {
        batch_size: 16,
        lr: 5e-3,
        schedule: Schedule::Constant,
        no_decay_norm_bias: true,
        clip_norm: Some(0.05),
        label_smoothing: 0.1,
        mixup: Some(Mixing {
            alpha: 0.4,
            probability: 0.9,
        }),
        cutmix: Some(Mixing {
            alpha: 1.0,
            probability: 0.9,
        }),
        augment: Augment {
            crop: Some(RandomCrop {
                scale: [0.5, 1.0],
                ..RandomCrop::default()
            }),
            ..Augment::default()
        },
        ema: Some(0.8),
        epochs: 4,
        ..adamw()
    }
}

fn trained(bench: &Bench, recipe: &Recipe, out: &Path) -> (Trained, Heard) {
    let (graph, mut heard) = (bench.graph(), Heard::default());
    let examples: Vec<usize> = (0..bench.data.len()).collect();
    let run = Training {
        graph: &graph,
        data: &bench.data,
        image: &bench.image,
        examples: &examples,
        recipe,
        start: None,
        loss: &CrossEntropy,
        trainable: graph.last_layers(0),
        device: Device::Cpu,
        out_dir: out,
        key: "test".into(),
    };
    (train(run, &mut heard).unwrap(), heard)
}

fn same(a: &Weights, b: &Weights) -> bool {
    a.0.len() == b.0.len() && a.0.iter().all(|(name, tensor)| b.0.get(name).is_some_and(|other| tensor.equal(other)))
}

#[test]
fn a_training_that_was_cut_off_ends_with_the_same_bits() {
    let bench = Bench::new();
    let recipe = everything();
    let (whole, _) = trained(&bench, &recipe, &bench.out("whole"));
    let out = bench.out("cut");
    // What lies there after each epoch, kept aside while the run goes on.
    struct Keep<'a>(&'a Path, Vec<Vec<u8>>);
    impl Report for Keep<'_> {
        fn progress(&mut self, _: &str, _: u64, _: u64, _: &str) {
            let now = std::fs::read(self.0.join("epoch.safetensors")).unwrap_or_default();
            if !now.is_empty() && self.1.last() != Some(&now) {
                self.1.push(now);
            }
        }
        fn log(&mut self, _: &str) {}
    }
    let (graph, examples) = (bench.graph(), (0..bench.data.len()).collect::<Vec<_>>());
    let run = |out: &Path, report: &mut dyn Report| {
        let run = Training {
            graph: &graph,
            data: &bench.data,
            image: &bench.image,
            examples: &examples,
            recipe: &recipe,
            start: None,
            loss: &CrossEntropy,
            trainable: graph.last_layers(0),
            device: Device::Cpu,
            out_dir: out,
            key: "test".into(),
        };
        train(run, report).unwrap()
    };
    let mut keep = Keep(&out, Vec::new());
    run(&out, &mut keep);
    assert_eq!(keep.1.len(), 3, "after the first, second and third epoch");
    for (n, epoch) in keep.1.iter().enumerate() {
        let folder = bench.out(&format!("after-{n}"));
        std::fs::write(folder.join("epoch.safetensors"), epoch).unwrap();
        let resumed = run(&folder, &mut Heard::default());
        assert_eq!(resumed.resumed_epochs as usize, n + 1);
        assert!(same(&resumed.model.weights, &whole.model.weights), "after epoch {}", n + 1);
    }
}

#[test]
fn every_key_of_a_recipe_changes_what_comes_out_and_the_average_is_the_model() {
    let bench = Bench::new();
    let base = Recipe { epochs: 1, ..everything() };
    let weights = |recipe: &Recipe, name: &str| trained(&bench, recipe, &bench.out(name)).0.model.weights;
    let first = weights(&base, "base");
    assert!(same(&first, &weights(&base, "again")));
    type Change = fn(&mut Recipe);
    let changes: [(&str, Change); 9] = [
        ("optimizer", |r| r.optimizer = Optimizer::Sgd),
        ("decay", |r| r.no_decay_norm_bias = false),
        ("clip", |r| r.clip_norm = None),
        ("smoothing", |r| r.label_smoothing = 0.0),
        ("mixup", |r| r.mixup = None),
        ("cutmix", |r| r.cutmix = None),
        ("crop", |r| r.augment.crop = None),
        ("ema", |r| r.ema = None),
        ("schedule", |r| {
            r.schedule = Schedule::WarmupCosine {
                warmup: 0.5,
                start: 0.01,
                least: 0.0,
                by_epoch: false,
            }
        }),
    ];
    for (name, change) in changes {
        let mut other = base.clone();
        change(&mut other);
        assert!(!same(&first, &weights(&other, name)), "{name}");
    }
    // An average that keeps nothing of itself is the last step's weights; one that keeps nearly all of it stays where the first step was.
    let at = |ema: f64, name: &str| {
        weights(
            &Recipe {
                ema: Some(ema),
                ..base.clone()
            },
            name,
        )
    };
    let plain = weights(&Recipe { ema: None, ..base.clone() }, "none");
    let far = |other: &Weights| apart(&other.0["fc.weight"], &plain.0["fc.weight"].to_kind(Kind::Double));
    assert!(far(&at(1e-9, "last")) < 1e-6 && far(&at(1.0 - 1e-9, "first")) > 1e-3);
}

#[test]
fn exact_unlearning_begins_where_production_began() {
    let bench = Bench::new();
    let graph = bench.graph();
    let (production, pretrained) = (Weights::init(&graph, 1).unwrap(), Weights::init(&graph, 5).unwrap());
    let file = bench.folder.path().join("pretrained.safetensors");
    pretrained.save(&file, &[]).unwrap();
    let retained: Vec<usize> = (0..bench.data.len() - 1).collect();
    let flagged = [bench.data.len() - 1];
    let run = |init: Option<&Path>, out: &str| {
        let recipe = Recipe {
            init: init.map(Path::to_path_buf),
            ..plain(1, 1e-9)
        };
        let out = bench.out(out);
        let case = bench.case((&graph, &production), (&retained, &flagged), &recipe, &out);
        eu::Keys {}.unlearn(&case, &mut Heard::default()).map(|trained| trained.model.weights)
    };
    let near = |weights: &Weights, other: &Weights| apart(&weights.0["conv1.weight"], &other.0["conv1.weight"].to_kind(Kind::Double)) < 1e-6;
    assert!(near(&run(Some(&file), "eu").unwrap(), &pretrained));
    assert!(!near(&run(None, "eu-random").unwrap(), &pretrained));
    // Another file under the same name is another training.
    Weights::init(&graph, 6).unwrap().save(&file, &[]).unwrap();
    assert!(near(&run(Some(&file), "eu").unwrap(), &Weights::init(&graph, 6).unwrap()));
    std::fs::write(&file, "x").unwrap();
    let fault = run(Some(&file), "eu").unwrap_err().fault().clone();
    assert!(
        fault.message.starts_with("recipe.init: ") && fault.message.contains("pretrained.safetensors"),
        "{fault}"
    );
}
