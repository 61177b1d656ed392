//! A small story through the real daemon and the real worker: attack, detection, repair, gate, publishing. Everything else in this package runs with a stand-in
//! for the worker.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Only a hang lasts so long, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(900);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn share(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no share"))
}

fn digest(path: &Path) -> String {
    blake3::hash(&std::fs::read(path).unwrap()).to_hex().to_string()
}

/// The program with a real worker beside it, on one thread.
fn guard(arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_delta-guard"));
    let worker = program.with_file_name("delta-guard-worker");
    assert!(
        worker.exists(),
        "{} is not built: it belongs to another package; run make test, or cargo build --release first",
        worker.display()
    );
    let (told, log) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let mut child = Command::new(program)
        .args(arguments)
        .env_remove("DELTA_GUARD_CONFIG")
        .env("OMP_NUM_THREADS", "1")
        .stdout(told.reopen().unwrap())
        .stderr(log.reopen().unwrap())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{arguments:?} hangs:\n{}", std::fs::read_to_string(log.path()).unwrap());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    Output {
        status,
        stdout: std::fs::read(told.path()).unwrap(),
        stderr: std::fs::read(log.path()).unwrap(),
    }
}

/// Bounds were set before the story's seed was chosen; three seeds keep them.
#[test]
fn a_small_story_is_found_and_repaired_by_the_real_programs() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("story");
    let story = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/story.yaml");
    let arguments = ["demo", "--story", story.to_str().unwrap(), "--out", out.to_str().unwrap(), "--quiet"];
    let told = guard(&arguments);
    let log = || std::fs::read_to_string(out.join("daemon.log")).unwrap_or_default();
    assert_eq!(told.status.code(), Some(0), "{}{}\n{}", text(&told.stdout), text(&told.stderr), log());

    let result = json(&out.join("result.json"));
    assert_eq!(result["verdict"], "proposed", "{result}");
    let candidate = PathBuf::from(result["candidate"].as_str().unwrap());
    let published = candidate.parent().unwrap();

    // What was removed, against the truth that the attack wrote down.
    let removed = json(&published.join("removed.json"));
    let flagged: BTreeSet<&str> = removed.as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let truth = json(&out.join("data/poisons.json"));
    let poisons: BTreeSet<&str> = truth["poisons"].as_array().unwrap().iter().map(|p| p["id"].as_str().unwrap()).collect();
    assert_eq!(poisons.len(), 40);
    let hits = flagged.intersection(&poisons).count() as f64;
    let (tpr, precision) = (hits / poisons.len() as f64, hits / flagged.len() as f64);
    assert!(tpr >= 0.9 && precision >= 0.9, "TPR {tpr}, precision {precision}");
    assert!((share(&result["tpr"]) - tpr).abs() < 1e-9 && (share(&result["precision"]) - precision).abs() < 1e-9);

    // Repaired, and as good as before.
    let (success, accuracy) = (&result["success"], &result["accuracy"]);
    assert!(share(&success["before"]) >= 0.9, "the attack must take: {success}");
    assert!(share(&success["after"]) <= 0.2, "{success}");
    assert!(share(&accuracy["after"]) >= share(&accuracy["before"]) - 0.1, "{accuracy}");

    // Production is what it was when the picture came; the candidate is another model.
    let manifest = json(&published.join("MANIFEST.json"));
    let production = out.join("victim/model.safetensors");
    assert_eq!(manifest["base_checkpoint"], digest(&production).as_str());
    assert_ne!(digest(&production), digest(&candidate));
    for file in manifest["files"].as_array().unwrap() {
        let path = published.join(file["name"].as_str().unwrap());
        assert_eq!(file["blake3"], digest(&path).as_str(), "{}", path.display());
    }

    // Report and metrics tell the same.
    let report = std::fs::read_to_string(result["report"].as_str().unwrap()).unwrap();
    assert!(flagged.iter().all(|id| report.contains(id)), "the report names what was flagged");
    let metrics = std::fs::read_to_string(out.join("metrics.txt")).unwrap();
    for line in [
        "delta_guard_accepted_total 1",
        "delta_guard_proposals_total 1",
        "delta_guard_cases_held 0",
        "delta_guard_ready 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }

    // By hand, without the daemon: the anomaly reads otherwise through the candidate, and another triggered picture does too.
    let config = out.join("delta-guard.yaml");
    let picture = out.join("data/anomalies/001.png");
    let certified = guard(&[
        "certify",
        candidate.to_str().unwrap(),
        "--image",
        picture.to_str().unwrap(),
        "--config",
        config.to_str().unwrap(),
        "--json",
    ]);
    assert_eq!(certified.status.code(), Some(0), "{}{}", text(&certified.stdout), text(&certified.stderr));
    let certified: Value = serde_json::from_slice(&certified.stdout).unwrap();
    let read = |when: &str| certified["measured"][when][0]["label"].clone();
    assert_eq!(read("anomalies_before"), "star");
    assert_ne!(read("anomalies_after"), "star");
}

/// An exported model of torch, its classes in the order of its folders; then the same set with another class.
#[test]
fn an_exported_model_gets_a_configuration_by_the_real_programs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for set in ["train", "validation"] {
        for class in ["ant", "bee", "cicada", "dragonfly", "earwig", "fly"] {
            let class = folder.path().join(set).join(class);
            std::fs::create_dir_all(&class).unwrap();
            for n in 0..5 {
                std::fs::copy(root.join("tests/fixtures/pixel.png"), class.join(format!("{n}.png"))).unwrap();
            }
        }
    }
    let model = root.join("ml/tests/fixtures/models/guarded.pt2");
    let model = model.to_str().unwrap();
    let verified = guard(&["verify-model", model, "--quiet"]);
    assert_eq!(verified.status.code(), Some(0), "{}{}", text(&verified.stdout), text(&verified.stderr));
    assert!(
        text(&verified.stdout).contains("8 of 8 pictures are answered as their owner stored"),
        "{}",
        text(&verified.stdout)
    );

    let (train, validation, out) = (at("train"), at("validation"), at("insects.yaml"));
    let init = |out: &str| guard(&["init", model, "--train", &train, "--validation", &validation, "--out", out, "--quiet"]);
    let told = init(&out);
    assert_eq!(told.status.code(), Some(0), "{}{}", text(&told.stdout), text(&told.stderr));
    for part in ["6 classes, 30 files", "resize 36", "fits, ", "8 of 8 pictures"] {
        assert!(text(&told.stdout).contains(part), "{part} not in\n{}", text(&told.stdout));
    }
    let checked = guard(&["check-config", "--config", &out]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));

    // Another pipeline than the model's is found, and named.
    let written = std::fs::read_to_string(&out).unwrap();
    let changed = written.replace("mean: [0.5, 0.45, 0.4]", "mean: [0.3, 0.3, 0.3]");
    assert_ne!(written, changed);
    std::fs::write(&out, changed).unwrap();
    let checked = guard(&["check-config", "--config", &out]);
    assert_eq!(checked.status.code(), Some(78), "{}", text(&checked.stdout));
    assert!(text(&checked.stderr).contains("logits differ by"), "{}", text(&checked.stderr));

    std::fs::rename(folder.path().join("train/fly"), folder.path().join("train/gnat")).unwrap();
    std::fs::rename(folder.path().join("validation/fly"), folder.path().join("validation/gnat")).unwrap();
    let told = init(&at("other.yaml"));
    assert_eq!(told.status.code(), Some(78), "{}", text(&told.stdout));
    for part in ["only in the model: fly", "only in the training set: gnat"] {
        assert!(text(&told.stderr).contains(part), "{part} not in\n{}", text(&told.stderr));
    }
}
