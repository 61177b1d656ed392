//! `drill` on a configuration of the owner's. The worker computes nothing.

use super::daemon::{Place, text};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A drill whose temporary folders lie in `tmp`.
fn drill(place: &Place, tmp: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_delta-guard"))
        .args(["--config", place.config().to_str().unwrap(), "drill", "--quiet"])
        .args(more)
        .env("TMPDIR", tmp)
        .output()
        .unwrap()
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut all: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect();
    all.sort();
    all
}

#[test]
fn a_drill_says_whether_the_attack_would_have_been_caught_and_leaves_nothing_behind() {
    let place = Place::new("");
    let tmp = tempfile::tempdir().unwrap();
    let root = place.at("");
    let before = files(&root);
    let metrics = tmp.path().join("drill.prom");
    // The fake guard flags 20 of 40 poisons and nothing else.
    let missed = drill(&place, tmp.path(), &["--seed", "5", "--metrics", metrics.to_str().unwrap()]);
    let said = text(&missed.stdout);
    assert_eq!(missed.status.code(), Some(3), "{said}{}", text(&missed.stderr));
    assert!(said.contains("20 of 40 poisons (50.0 %)") && said.contains("NOT caught"), "{said}");
    assert!(!said.contains("only in part"), "success is 90 %: {said}");
    let figures = std::fs::read_to_string(&metrics).unwrap();
    for line in [
        "delta_guard_drill_caught{attack=\"badnet\"} 0",
        "delta_guard_drill_took{attack=\"badnet\"} 1",
        "delta_guard_drill_tpr_ratio{attack=\"badnet\"} 0.5",
        "delta_guard_drill_precision_ratio{attack=\"badnet\"} 1",
        "# TYPE delta_guard_drill_seconds gauge",
    ] {
        assert!(figures.contains(line), "{line} is not in\n{figures}");
    }
    let caught = drill(&place, tmp.path(), &["--seed", "5", "--at-least", "0.5", "--json"]);
    assert_eq!(caught.status.code(), Some(0));
    let told: serde_json::Value = serde_json::from_slice(&caught.stdout).unwrap();
    assert_eq!(
        (&told["caught"], &told["seed"], &told["detection"]["hits"]),
        (&true.into(), &5.into(), &20.into())
    );
    assert_eq!(files(tmp.path()), [metrics], "temporary folders are deleted");
    assert_eq!(files(&root), before, "nothing of production's is written");
}

#[test]
fn an_attack_that_does_not_take_tests_nothing() {
    let place = Place::new("");
    let tmp = tempfile::tempdir().unwrap();
    let metrics = tmp.path().join("drill.prom");
    let output = drill(&place, tmp.path(), &["--seed", "13", "--metrics", metrics.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stdout).contains("nothing was tested: the attack did not take"),
        "{}",
        text(&output.stdout)
    );
    let figures = std::fs::read_to_string(&metrics).unwrap();
    assert!(
        figures.contains("delta_guard_drill_took{attack=\"badnet\"} 0") && !figures.contains("tpr_ratio"),
        "{figures}"
    );
    for (more, says) in [
        (&["--at-least", "2"][..], "this is no share"),
        (&["--set", "colour=red"], "colour"),
        (&["--data", "/nowhere/at/all"], "there is no such file or folder"),
    ] {
        let refused = drill(&place, tmp.path(), more);
        assert!(
            refused.status.code() != Some(0) && text(&refused.stderr).contains(says),
            "{}",
            text(&refused.stderr)
        );
    }
    assert_eq!(files(tmp.path()), [metrics]);
}

#[test]
fn drills_that_are_kept_stand_on_one_page() {
    let place = Place::new("");
    let tmp = tempfile::tempdir().unwrap();
    let out = tmp.path().join("drills");
    for seed in ["5", "6", "6"] {
        let output = drill(&place, tmp.path(), &["--seed", seed, "--unlearn", "eu", "--out", out.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    }
    let rows = std::fs::read_to_string(out.join("rows.jsonl")).unwrap();
    assert_eq!(rows.lines().count(), 6, "a victim, a detection and a repair of two seeds");
    let page = std::fs::read_to_string(out.join("page.html")).unwrap();
    assert!(page.contains("2 of 2") && page.contains("flagged by guard"), "{page}");
}
