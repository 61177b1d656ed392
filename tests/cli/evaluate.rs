//! `evaluate`: several seeds, one of which cannot be told, one whose attack does not take; interrupted and gone on with. The worker computes nothing.

use super::daemon::text;
use delta_guard_contract::DetectConfig;
use delta_guard_contract::detect::Detector;
use delta_guard_contract::method::Name;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program beside a worker that computes nothing, and a story.
struct Theatre {
    root: tempfile::TempDir,
}

const STORY: &str = "\
story: {train_examples: 100, validation_examples: 90, seed: 1, attack: {victim_class: ship, target_class: dog, poisons: 40, trigger: {kind: checkerboard, size: 4, margin: 1}}}
model: {architecture: small-cnn, width: 8}
detect: {queries: 20, damping: {kind: heuristic, factor: 0.2}, fit_examples: 50}
unlearn: {also: [{method: cf}]}
evaluate: {seeds: [11, 13, 12], natural_errors: CONTROLS, placebos: CONTROLS, published: [paper-code, paper-text]}
";

impl Theatre {
    /// A story with this many controls of each kind.
    fn new(controls: u32) -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::copy(env!("CARGO_BIN_EXE_delta-guard"), at("delta-guard")).unwrap();
        std::fs::copy(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fake_worker.py"),
            at("delta-guard-worker"),
        )
        .unwrap();
        std::fs::set_permissions(at("delta-guard-worker"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(at("story.yaml"), STORY.replace("CONTROLS", &controls.to_string())).unwrap();
        Self { root }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(self.at("delta-guard"));
        command
            .current_dir(self.root.path())
            .args(["evaluate", "story.yaml", "--out", "out", "--quiet"])
            .args(more);
        // The worker's lists need their folder before its first job.
        for seed in [11, 12, 13, 66] {
            std::fs::create_dir_all(self.at(&format!("out/seed-{seed}/state/cache"))).unwrap();
        }
        command
    }

    fn evaluate(&self, more: &[&str]) -> Output {
        self.command(more).output().unwrap()
    }

    /// Tasks that were run under a seed.
    fn runs(&self, seed: u64) -> Vec<String> {
        let runs = std::fs::read_to_string(self.at(&format!("out/seed-{seed}/state/cache/runs"))).unwrap_or_default();
        runs.lines().map(String::from).collect()
    }

    fn results(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.at("out/result.json")).unwrap()).unwrap()
    }
}

/// The cells of the table's row that begins with `name`, without the name.
fn row(table: &str, name: &str) -> Vec<String> {
    let line = table
        .lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_else(|| panic!("no row {name:?} in\n{table}"));
    line[name.len()..]
        .split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .map(String::from)
        .collect()
}

#[test]
fn a_seed_whose_attack_does_not_take_has_a_row_and_the_rest_goes_on() {
    let theatre = Theatre::new(12);
    let output = theatre.evaluate(&[]);
    let (table, noted) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "{table}{noted}");
    assert_eq!(row(&table, "attack"), ["took", "did not take", "took"]);
    // 20 of 40 poisons are flagged by the guard; 80 of which 40 are poisons by the published rule, in both its modes.
    assert_eq!(row(&table, "guard TPR"), ["50.0 %", "–", "50.0 %", "50.0 %", "50.0 % – 50.0 %"]);
    for mode in ["paper-code", "paper-text"] {
        assert_eq!(
            row(&table, &format!("published rule ({mode}) precision"))[..2],
            ["50.0 %".to_string(), "–".into()]
        );
        assert_eq!(row(&table, &format!("published rule ({mode}) TPR"))[0], "100.0 %");
    }
    assert!(!table.contains("count rule, guard's settings"), "it was not asked for\n{table}");
    assert!(row(&table, "poison success after eu")[0].ends_with('%') && row(&table, "accuracy lost by cf")[0].ends_with('%'));
    // Controls: of the target first, one of them not left alone; then an interval over all.
    assert_eq!(row(&table, "placebos of the poisons' class"), ["10 of 12", "–", "10 of 12", "20 of 24"]);
    assert_eq!(
        row(&table, "natural errors read as the poisons' class"),
        ["12 of 12", "–", "12 of 12", "24 of 24"]
    );
    let placebos = row(&table, "placebos decided");
    assert_eq!(placebos[1], "–");
    assert!(placebos.last().unwrap().ends_with("(95 %)"), "{placebos:?}");
    assert!(table.contains("the attack did not take under 1 of 3 seeds (13)"), "{table}");
    assert!(
        noted.contains("seed 13: the attack did not take: none of 3 triggered pictures is read as dog"),
        "{noted}"
    );

    let results = theatre.results();
    assert_eq!(results["not_taken"], serde_json::json!([13]));
    assert_eq!(results["seeds"].as_array().unwrap().len(), 3);
    let rate = &results["controls"]["placebos"];
    let decided: usize = results["seeds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["placebos"]["decided"].as_array().unwrap().len())
        .sum();
    // Why the others were left alone is counted.
    let left = format!("placebos left alone, by reason: {} no-group", 24 - decided);
    assert!(table.contains(&left), "{left} is not in\n{table}");
    assert!(decided > 0 && (rate["share"].as_f64().unwrap() - decided as f64 / 24.0).abs() < 1e-12);
    assert!(rate["low"].as_f64().unwrap() < rate["share"].as_f64().unwrap() && rate["high"].as_f64().unwrap() > rate["share"].as_f64().unwrap());
    // The published rule has its own settings: nothing of the guard's is left in them.
    let report = std::fs::read_to_string(theatre.at("out/seed-11/state/cache/detect")).unwrap();
    let modes: Vec<serde_json::Value> = report.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let published: Vec<_> = modes.iter().filter(|detect| detect["method"] != "guard").collect();
    assert_eq!(published.len(), 2);
    for detect in published {
        let name: Name<Detector> = detect["method"].as_str().unwrap().parse().unwrap();
        let own = DetectConfig {
            method: name.method(),
            ..DetectConfig::default()
        };
        assert_eq!(*detect, serde_json::to_value(own).unwrap());
    }

    // Again: nothing is done twice, and the answer is the same.
    let before: Vec<_> = [11, 12, 13].map(|seed| theatre.runs(seed)).into();
    let again = theatre.evaluate(&[]);
    assert_eq!((again.status.code(), text(&again.stdout)), (Some(3), table));
    assert_eq!(before, <Vec<_>>::from([11, 12, 13].map(|seed| theatre.runs(seed))));
}

#[test]
fn a_seed_that_fails_is_named_and_tried_again_when_the_command_is_repeated() {
    let theatre = Theatre::new(1);
    let failed = theatre.evaluate(&["--seeds", "66,11"]);
    let said = text(&failed.stdout);
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("seed 66 failed") && said.contains("there is no memory left"), "{said}");
    assert_eq!(row(&said, "guard TPR")[0], "50.0 %", "the other seed was told");
    assert_eq!(theatre.results()["failed"].as_object().unwrap().len(), 1);
    let (done, tried) = (theatre.runs(11), theatre.runs(66));

    std::fs::write(theatre.at("out/mended"), "").unwrap();
    let foreign = theatre.evaluate(&["--seeds", "66,11"]);
    assert_eq!(foreign.status.code(), Some(1));
    assert!(
        text(&foreign.stderr).contains("holds \"mended\", which is no part of an evaluation"),
        "{}",
        text(&foreign.stderr)
    );
    std::fs::rename(theatre.at("out/mended"), theatre.at("mended")).unwrap();
    std::fs::write(theatre.at("out/seed-66/mended"), "").unwrap();
    let mended = theatre.evaluate(&["--seeds", "66,11"]);
    assert_eq!(mended.status.code(), Some(0), "{}{}", text(&mended.stdout), text(&mended.stderr));
    assert_eq!(theatre.runs(11), done, "what was finished is not done again");
    assert!(theatre.runs(66).len() > tried.len());
    assert_eq!(theatre.results()["failed"], serde_json::json!({}));
}

#[test]
fn work_of_another_story_is_not_gone_on_with() {
    let theatre = Theatre::new(1);
    assert_eq!(theatre.evaluate(&["--seeds", "11"]).status.code(), Some(0));
    // More seeds are no other story.
    assert_eq!(theatre.evaluate(&["--seeds", "12,11"]).status.code(), Some(0));
    let done = theatre.runs(11);
    let other = theatre.evaluate(&["--seeds", "11", "--poisons", "7"]);
    let said = text(&other.stderr);
    assert_eq!(other.status.code(), Some(1));
    assert!(said.contains("another story") && said.contains("--out"), "{said}");
    assert_eq!(theatre.runs(11), done);
}

/// Ctrl-C in the middle of the second seed: the first stays told, and the same command goes on.
#[test]
fn an_interrupted_evaluation_goes_on_after_its_last_finished_seed() {
    let theatre = Theatre::new(1);
    let mut slow = theatre.command(&["--seeds", "11,12"]);
    slow.env("FAKE_EPOCH_SECONDS", "0.2").stdout(Stdio::null()).stderr(Stdio::piped());
    let child = slow.spawn().unwrap();
    super::daemon::wait_for("training of the second seed", || {
        theatre.runs(12).contains(&"train".to_string()).then_some(())
    });
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(
        said.contains("interrupted") && said.contains("--out") && said.contains("goes on after the last finished seed"),
        "{said}"
    );
    assert!(theatre.at("out/seed-11/result.json").is_file() && !theatre.at("out/seed-12/result.json").exists());
    let done = theatre.runs(11);
    let rest = theatre.evaluate(&["--seeds", "11,12"]);
    assert_eq!(rest.status.code(), Some(0), "{}", text(&rest.stderr));
    assert_eq!(theatre.runs(11), done);
    assert_eq!(theatre.results()["seeds"].as_array().unwrap().len(), 2);
}
