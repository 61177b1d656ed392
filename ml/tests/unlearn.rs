//! CF that collapses: it comes down, and a repeated job goes on where the first one was.

use delta_guard_contract::job::StoryConfig;
use delta_guard_contract::method::attack::Attack;
use delta_guard_contract::method::attack::badnet::{Keys, Trigger};
use delta_guard_contract::method::unlearn::cf;
use delta_guard_contract::{Recipe, Schedule};
use delta_influence::attack::{Workshop, prepare};
use delta_influence::data::DataSet;
use delta_influence::model::{Weights, zoo};
use delta_influence::progress::{Report, Silent};
use delta_influence::unlearn::Unlearner;
use delta_influence::unlearn::Unlearning;
use std::path::Path;
use tch::{Device, Tensor};

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
    let folder = tempfile::tempdir().unwrap();
    let story = StoryConfig {
        data: None,
        train_examples: 60,
        validation_examples: 20,
        attack: Attack::Badnet(Keys {
            victim_class: "0".into(),
            target_class: "1".into(),
            poisons: 2,
            trigger: Trigger::Checkerboard { size: 4, margin: 1 },
        }),
        seed: 3,
    };
    let made = prepare(&story, &Workshop::at(&folder.path().join("data")), &mut Silent).unwrap();
    let data = DataSet::open(&made.train, &made.image, 0.0, &folder.path().join("cache"), None, &mut Silent).unwrap();
    let graph = zoo::small_cnn(
        [3, i64::from(made.image.height), i64::from(made.image.width)],
        2,
        data.classes().len() as i64,
    )
    .unwrap();
    // A last layer of zeros guesses, and at such a rate it goes on guessing: collapsed by definition.
    let production = Weights::init(&graph, 1);
    for name in ["fc.weight", "fc.bias"] {
        let _ = production.0[name].shallow_clone().zero_();
    }
    let cf = cf::Keys {
        epochs: 1,
        lr: Some(1e-12),
        schedule: Schedule::OneCycle { warmup: 0.3 },
        ..cf::Keys::default()
    };
    let out = folder.path().join("job");
    std::fs::create_dir(&out).unwrap();
    let retained: Vec<usize> = (0..data.len()).collect();
    let recipe = Recipe::default();
    let run = |out: &Path| {
        let mut heard = Heard::default();
        let case = Unlearning {
            graph: &graph,
            production: &production,
            checkpoint: "c",
            data: &data,
            image: &made.image,
            retained: &retained,
            flagged: &[],
            recipe: &recipe,
            device: Device::Cpu,
            out_dir: out,
        };
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
