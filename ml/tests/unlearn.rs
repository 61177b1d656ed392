//! Unlearners: what they may ask, and CF that collapses: it comes down, and a repeated job goes on where the first one was.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "unlearn/bench.rs"]
mod bench;
#[path = "unlearn/modes.rs"]
mod modes;
#[path = "unlearn/potion.rs"]
mod potion;
#[path = "unlearn/teachers.rs"]
mod teachers;

use bench::Bench;
use delta_guard_contract::method::unlearn::cf;
use delta_guard_contract::{PROTOCOL, Recipe, Schedule};
use delta_influence::model::Weights;
use delta_influence::progress::{Report, Silent};
use delta_influence::unlearn::Unlearner;
use serde_json::json;
use std::path::Path;
use tch::Tensor;

/// Counts what a job says and trains.
#[derive(Default)]
struct Heard {
    again: usize,
    steps: usize,
    /// Learning rates that collapsed, as told.
    rates: Vec<f64>,
}

impl Report for Heard {
    fn progress(&mut self, step: &str, _: u64, _: u64, _: &str) {
        self.steps += usize::from(step == "train");
    }

    fn log(&mut self, message: &str) {
        if let Some((_, rest)) = message.split_once("collapsed at learning rate ") {
            self.again += 1;
            self.rates
                .push(rest.split(' ').next().and_then(|rate| rate.parse().ok()).expect("a rate is told"));
        }
    }
}

#[test]
fn a_collapsed_fine_tuning_is_tried_again_and_not_repeated_by_the_next_job() {
    let bench = Bench::new();
    let graph = bench.graph();
    // A last layer of zeros guesses, and at such a rate it goes on guessing: collapsed by definition.
    let production = Weights::init(&graph, 1).unwrap();
    for name in ["fc.weight", "fc.bias"] {
        let _ = production.0[name].shallow_clone().zero_();
    }
    let cf = cf::Keys {
        epochs: 1,
        lr: Some(1e-12),
        schedule: Schedule::OneCycle { warmup: 0.3 },
        ..cf::Keys::default()
    };
    let out = bench.out("job");
    let retained: Vec<usize> = (0..bench.data.len()).collect();
    let recipe = Recipe::default();
    let run = |out: &Path| {
        let mut heard = Heard::default();
        let case = bench.case((&graph, &production), (&retained, &[]), &recipe, out);
        (cf.unlearn(&case, &mut heard).unwrap(), heard)
    };
    let (first, heard) = run(&out);
    assert!(heard.again == 2 && heard.steps > 0 && first.resumed_epochs == 0);
    assert_eq!(heard.rates, [1e-12, 7.5e-13], "each time at three quarters of the rate");
    assert!((first.loss - 10f64.ln()).abs() < 1e-3, "{}", first.loss);
    let (second, heard) = run(&out);
    assert_eq!((heard.again, heard.steps, second.resumed_epochs), (2, 0, 1));
    let same = |name: &str| Tensor::f_equal(&first.model.weights.0[name], &second.model.weights.0[name]).unwrap();
    assert!(same("conv1.weight") && same("fc.weight"));
}

/// The rules on settings are those of the guard's configuration; a worker that is given others stops before it reads a picture.
#[test]
fn a_job_whose_settings_break_a_rule_is_refused_in_the_words_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let job = |method: serde_json::Value, recipe: serde_json::Value| {
        let job = json!({
            "v": PROTOCOL, "out_dir": path.join("out"),
            "setup": {"cache_dir": path, "factors_dir": path, "device": "cpu", "threads": 1, "memory_budget": 1 << 20},
            "task": {"task": "unlearn", "data": {"train": {"path": path}, "validation": {"path": path}}, "model": {"architecture": "fixture", "checkpoint": path},
                "recipe": recipe, "method": method, "flagged": []},
        });
        let fault = delta_influence::jobs::run(&serde_json::from_value(job).unwrap(), &mut Silent)
            .unwrap_err()
            .fault()
            .clone();
        format!("{}: {}", fault.message, fault.help)
    };
    let said = job(json!({"method": "cf", "lr": 0.0}), json!({}));
    assert_eq!(said, "unlearn.lr is not above 0: leave it out for twice recipe.lr");
    let said = job(
        json!({"method": "eu"}),
        json!({"epochs": 5, "schedule": {"kind": "step", "milestones": [7], "gamma": 0.1}}),
    );
    assert!(
        said.starts_with("recipe.schedule.milestones.0 epoch 7 never comes") && said.contains("up to 4"),
        "{said}"
    );
}
