//! `check-config`, and a daemon that is given a wrong configuration.

use super::daemon::{Place, program, text};

#[test]
fn three_mistakes_are_reported_together_and_nothing_starts() {
    let place = Place::new("inbox2: {}\ndetect: {queries: 10, n_tol: 11}\ngate: {max_accuracy_drop: lots}");
    for command in ["check-config", "run", "cases"] {
        let output = place.ask(&[command]);
        assert_eq!(output.status.code(), Some(78), "{command}");
        let said = text(&output.stderr);
        for part in [
            "3 mistakes",
            "inbox2: unknown key",
            "did you mean \"inbox\"",
            "detect.n_tol:",
            "gate.max_accuracy_drop:",
            "guard.yaml:9:1",
            "0 to 1",
        ] {
            assert!(said.contains(part), "{command}: {part} not in:\n{said}");
        }
    }
    let problems = place.json(&["check-config"]);
    assert_eq!(
        (problems["ok"].as_bool(), problems["problems"].as_array().map(Vec::len)),
        (Some(false), Some(3))
    );
    assert_eq!(problems["problems"][0]["line"], 9);
    assert!(!place.at("state/journal").exists(), "nothing was started");
}

#[test]
fn the_example_is_right_and_the_schema_describes_it() {
    let example = program(&["check-config", "--example"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guard.yaml");
    std::fs::write(&path, &example.stdout).unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(program(&["check-config", "--config", path, "--no-paths"]).status.code(), Some(0));
    // With its paths looked at, it is another matter: they are an example's.
    let looked = program(&["check-config", "--config", path]);
    assert_eq!(looked.status.code(), Some(78));
    assert!(text(&looked.stderr).contains("data.train.path: /srv/models/animals/train cannot be read"));
    let schema: serde_json::Value = serde_json::from_slice(&program(&["check-config", "--schema"]).stdout).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    assert!(schema["properties"]["mail"].is_object());
}

#[test]
fn a_good_configuration_and_a_missing_one() {
    let place = Place::new("");
    let checked = place.ask(&["check-config"]);
    assert_eq!(
        (checked.status.code(), text(&checked.stdout).contains("no mistake")),
        (Some(0), true),
        "{}",
        text(&checked.stderr)
    );
    let missing = program(&["check-config", "--config", "/nowhere/guard.yaml"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(text(&missing.stderr).contains("--example"));
    let usage = program(&["check-config", "--no-such-flag"]);
    assert_eq!(usage.status.code(), Some(2));
}
