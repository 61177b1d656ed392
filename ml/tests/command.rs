//! The owner's own trainer as an unlearner: what it is given, what may come of it, and that nothing of it is left.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "unlearn/bench.rs"]
mod bench;
#[path = "command/examples.rs"]
mod examples;
#[path = "command/worker.rs"]
mod worker;

use bench::Bench;
use delta_guard_contract::method::unlearn::command::Keys;
use delta_guard_contract::units::Span;
use delta_guard_contract::{Code, Fault, FaultKind, Recipe};
use delta_influence::error::Result;
use delta_influence::model::Weights;
use delta_influence::progress::Report;
use delta_influence::train::Trained;
use delta_influence::unlearn::Unlearner;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tch::Tensor;

#[derive(Default)]
struct Heard {
    shares: Vec<(u64, String)>,
    lines: Vec<String>,
}

impl Report for Heard {
    fn progress(&mut self, step: &str, done: u64, total: u64, note: &str) {
        if step == "command" {
            assert_eq!(total, 1000);
            self.shares.push((done, note.into()));
        }
    }

    fn log(&mut self, message: &str) {
        self.lines.push(message.into());
    }
}

/// A script of the shell as the owner's trainer.
fn script(text: &str) -> Keys {
    Keys {
        command: ["/bin/sh", "-euc", text].map(PathBuf::from).to_vec(),
        grace: Span(Duration::from_millis(300)),
        ..Keys::default()
    }
}

/// A case in which three examples go, with what can be handed over as a candidate beside it (`good.safetensors`).
struct Scene {
    bench: Bench,
    out: PathBuf,
    retained: Vec<usize>,
}

const GONE: [usize; 3] = [7, 11, 30];

impl Scene {
    fn new() -> Self {
        let bench = Bench::new();
        let out = bench.out("job");
        let retained = (0..bench.data.len()).filter(|i| !GONE.contains(i)).collect();
        let scene = Self { bench, out, retained };
        Weights::init(&scene.bench.graph(), 9)
            .unwrap()
            .save(&scene.file("good.safetensors"), &[])
            .unwrap();
        scene
    }

    fn file(&self, name: &str) -> PathBuf {
        self.bench.folder.path().join(name)
    }

    fn run(&self, keys: &Keys) -> (Result<Trained>, Heard) {
        self.run_under(None, keys)
    }

    /// With `model.prefix`.
    fn run_under(&self, prefix: Option<&str>, keys: &Keys) -> (Result<Trained>, Heard) {
        let graph = self.bench.graph();
        let (production, recipe) = (
            Weights::init(&graph, 1).unwrap(),
            Recipe {
                seed: 41,
                ..Recipe::default()
            },
        );
        let mut heard = Heard::default();
        let mut case = self.bench.case((&graph, &production), (&self.retained, &GONE), &recipe, &self.out);
        case.production_file.prefix = prefix;
        (keys.unlearn(&case, &mut heard), heard)
    }

    fn fault(&self, text: &str) -> Fault {
        self.run(&script(text)).0.unwrap_err().fault().clone()
    }

    /// What the job's folder has.
    fn told(&self, name: &str) -> String {
        fs::read_to_string(self.out.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn copy(&self) -> String {
        format!("cp '{}' \"$DELTA_GUARD_OUTPUT\"", self.file("good.safetensors").display())
    }
}

#[test]
fn it_is_given_what_the_page_says_and_its_checkpoint_is_the_candidate() {
    let scene = Scene::new();
    let text = format!(
        "env > \"$DELTA_GUARD_FOLDER/env\"; pwd > \"$DELTA_GUARD_FOLDER/pwd\"; cat > \"$DELTA_GUARD_FOLDER/stdin\"
        echo progress 0.25 epoch 1 of 4; echo loss 2.3; echo oh >&2; echo progress 1; {}",
        scene.copy()
    );
    let (trained, heard) = scene.run(&Keys {
        deadline: Some(Span(Duration::from_secs(3600))),
        ..script(&text)
    });
    let trained = trained.unwrap();
    let good = Weights::init(&scene.bench.graph(), 9).unwrap();
    assert!(
        good.0
            .iter()
            .all(|(name, tensor)| tensor.f_equal(&trained.model.weights.0[name]).unwrap())
    );
    assert!(trained.loss > 0.0 && (0.0..=1.0).contains(&trained.accuracy));
    assert_eq!(heard.shares, [(250, "epoch 1 of 4".into()), (999, String::new())]);
    let log = scene.told("command.log");
    assert!(
        log.starts_with("== attempt 1 ==\n") && log.contains("\nloss 2.3\n") && log.contains("\noh\n") && !log.contains("progress"),
        "{log}"
    );

    // The variables: those of the page, all of them, and no others of ours.
    let page = include_str!("../../docs/command.md");
    let mut documented: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `DELTA_GUARD_")?.split('`').next())
        .collect();
    let env = scene.told("command/env");
    let value = |name: &str| {
        env.lines()
            .find_map(|line| line.strip_prefix(&format!("DELTA_GUARD_{name}=")))
            .unwrap_or_else(|| panic!("{name}"))
    };
    let mut given: Vec<&str> = env
        .lines()
        .filter_map(|line| line.strip_prefix("DELTA_GUARD_")?.split('=').next())
        .filter(|name| *name != "PYTHONPATH")
        .collect();
    documented.sort_unstable();
    given.sort_unstable();
    assert_eq!(given, documented);
    assert_eq!(
        (value("ATTEMPT"), value("SEED"), value("DEVICE"), value("CHECKPOINT")),
        ("1", "42", "cpu", "production.safetensors")
    );
    assert!(value("THREADS").parse::<u32>().unwrap() > 0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((now + 3000..=now + 3600).contains(&value("DEADLINE").parse().unwrap()));
    assert!(Path::new(value("RESUME")).is_dir() && scene.told("command/stdin").is_empty());
    assert_eq!(scene.told("command/pwd").trim(), value("FOLDER"));

    // The lists. This set is a folder: each path is the example's file.
    let (ids, classes) = (scene.bench.data.ids(), scene.bench.data.classes());
    let mut gone: Vec<&str> = GONE.iter().map(|&i| ids[i].0.as_str()).collect();
    gone.sort_unstable();
    assert_eq!(fs::read_to_string(value("EXCLUDED")).unwrap(), gone.join("\n") + "\n");
    assert_eq!(fs::read_to_string(value("CLASSES")).unwrap().lines().collect::<Vec<_>>(), classes);
    let table = |name: &str| -> Vec<Vec<String>> {
        let mut reader = csv::Reader::from_path(value(name)).unwrap();
        let header = reader.headers().unwrap().iter().map(String::from).collect();
        let rows = reader.records().map(|row| row.unwrap().iter().map(String::from).collect());
        std::iter::once(header).chain(rows).collect()
    };
    let retained = table("RETAINED");
    assert_eq!(
        (retained.len(), &retained[0][..]),
        (1 + ids.len() - 3, &["path", "label", "id"].map(String::from)[..])
    );
    for (row, &i) in retained[1..].iter().zip(&scene.retained) {
        assert_eq!(row[1..], [classes[scene.bench.data.labels()[i] as usize].clone(), ids[i].0.clone()]);
        assert!(Path::new(&row[0]).starts_with(value("DATA")) && Path::new(&row[0]).is_file(), "{row:?}");
    }
    let excluded = table("EXCLUDED_CSV");
    assert_eq!(excluded[0], ["id", "path", "label"]);
    assert_eq!(excluded[1..].iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), gone);
    assert!(excluded[1..].iter().all(|row| Path::new(&row[1]).is_file() && classes.contains(&row[2])));
}

#[test]
fn an_end_that_is_no_success_is_told_with_the_last_lines() {
    let scene = Scene::new();
    let failed = scene.fault("seq 1 50; echo 'Traceback: no such column' >&2; exit 3");
    assert_eq!((failed.code, failed.kind), (Code::CommandFailed, FaultKind::Configuration));
    assert!(
        failed.message.contains("exit code 3") && failed.message.contains("\n  Traceback: no such column"),
        "{failed}"
    );
    assert!(!failed.message.contains("\n  12\n"), "twenty lines only: {failed}");
    let again = scene.fault("exit 75");
    assert_eq!((again.code, again.kind), (Code::CommandAgain, FaultKind::Resource));
    assert!(again.message.ends_with("it wrote nothing"));
    let killed = scene.fault("kill -KILL $$");
    assert!(
        killed.code == Code::CommandAgain && killed.message.contains("signal 9") && killed.help.contains("memory"),
        "{killed}"
    );
    let absent = scene.run(&Keys {
        command: vec!["/nowhere/train".into()],
        ..Keys::default()
    });
    let absent = absent.0.unwrap_err().fault().clone();
    assert!(
        absent.code == Code::CommandFailed && absent.message.contains("/nowhere/train could not be started"),
        "{absent}"
    );
}

#[test]
fn a_checkpoint_that_cannot_take_productions_place_is_refused() {
    let scene = Scene::new();
    let graph = scene.bench.graph();
    let unusable = |text: &str, words: &str| {
        let fault = scene.fault(text);
        assert!(
            fault.code == Code::CandidateUnusable && fault.message.contains(words),
            "{text}: {fault:?}"
        );
        assert!(fault.help.contains("$DELTA_GUARD_OUTPUT"), "{fault:?}");
    };
    let hand_over = |weights: &Weights| {
        weights.save(&scene.file("bad.safetensors"), &[]).unwrap();
        format!("cp '{}' \"$DELTA_GUARD_OUTPUT\"", scene.file("bad.safetensors").display())
    };
    // One that an earlier attempt left is not taken for this one's.
    assert!(scene.run(&script(&scene.copy())).0.is_ok());
    unusable("true", "left no checkpoint at ");
    unusable("echo text > \"$DELTA_GUARD_OUTPUT\"", "cannot be used");
    unusable("mkdir \"$DELTA_GUARD_OUTPUT\"", "cannot be used");
    fs::remove_dir(scene.out.join("command/model.safetensors")).unwrap();
    let mut weights = Weights::init(&graph, 9).unwrap();
    weights.0.insert("fc.bias".into(), Tensor::from_slice(&[0.5_f32; 3]));
    unusable(&hand_over(&weights), "fc.bias has shape [3]");
    weights.0.remove("fc.bias");
    unusable(&hand_over(&weights), "fc.bias");
    let weights = Weights::init(&graph, 9).unwrap();
    let _ = weights.0["fc.bias"].shallow_clone().fill_(f64::NAN);
    unusable(&hand_over(&weights), "NaN");
    unusable(&hand_over(&Weights::init(&graph, 1).unwrap()), "the production model itself");
    // One number is enough.
    let weights = Weights::init(&graph, 1).unwrap();
    let _ = weights.0["fc.bias"].narrow(0, 0, 1).fill_(0.125);
    assert!(scene.run(&script(&hand_over(&weights))).0.is_ok());
}

/// A trainer that saves what production's file holds, the network and its averaged copy: the copy that `model.prefix` names is the candidate, whichever comes first. One that saves the network alone is
/// understood too.
#[test]
fn the_copy_that_the_prefix_names_is_the_candidate() {
    let scene = Scene::new();
    let (first, second) = (
        Weights::init(&scene.bench.graph(), 9).unwrap(),
        Weights::init(&scene.bench.graph(), 10).unwrap(),
    );
    let under = |prefix: &str, weights: &Weights| {
        weights
            .copy()
            .0
            .into_iter()
            .map(|(name, t)| (format!("{prefix}{name}"), t))
            .collect::<Vec<_>>()
    };
    let both = Weights(under("model.", &first).into_iter().chain(under("ema.", &second)).collect());
    both.save(&scene.file("both.safetensors"), &[]).unwrap();
    let hand_over = format!("cp '{}' \"$DELTA_GUARD_OUTPUT\"", scene.file("both.safetensors").display());
    let made = |prefix: Option<&str>, text: &str| scene.run_under(prefix, &script(text)).0;
    for (prefix, wanted) in [("ema", &second), ("ema.", &second), ("model", &first)] {
        let found = made(Some(prefix), &hand_over).unwrap().model.weights;
        assert!(found.0["fc.weight"].equal(&wanted.0["fc.weight"]), "{prefix}");
    }
    let alone = made(Some("ema"), &scene.copy()).unwrap().model.weights;
    assert!(alone.0["fc.weight"].equal(&first.0["fc.weight"]));
    // Half a copy is not the other one.
    let mut half = both.copy();
    half.0.remove("ema.fc.weight");
    half.save(&scene.file("both.safetensors"), &[]).unwrap();
    let fault = made(Some("ema"), &hand_over).unwrap_err().fault().clone();
    assert!(
        fault.code == Code::CandidateUnusable && fault.message.contains("not under 'ema.'"),
        "{fault:?}"
    );
}

#[test]
fn a_deadline_ends_it_and_what_it_started() {
    let scene = Scene::new();
    let keys = Keys {
        deadline: Some(Span(Duration::from_millis(400))),
        ..script("trap 'echo saving' TERM; sleep 1000 & echo $! > \"$DELTA_GUARD_RESUME/child\"; while :; do wait || :; done")
    };
    let fault = scene.run(&keys).0.unwrap_err().fault().clone();
    assert_eq!((fault.code, fault.kind), (Code::TimeLimit, FaultKind::Resource));
    assert!(
        fault.message.contains("deadline of 400ms") && fault.message.contains("\n  saving"),
        "{fault}"
    );
    worker::gone(scene.told("command/resume/child").trim());
    // What it leaves running at its own end is ended, too, and does not keep the job waiting.
    let text = format!("sleep 1000 & echo $! > \"$DELTA_GUARD_RESUME/child\"; {}", scene.copy());
    assert!(scene.run(&script(&text)).0.is_ok());
    worker::gone(scene.told("command/resume/child").trim());
    assert!(scene.told("command.log").contains("== attempt 2 =="));
}
