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

/// It ends with what it understood, warns, and says as whom it tried.
#[test]
fn a_check_tries_things_out_and_ends_with_what_it_understood() {
    let place = Place::new("mail: {host: mail.example.org, from: a@example.org, to: [b@example.org]}");
    let checked = place.ask(&["check-config"]);
    let said = text(&checked.stdout);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    for part in [
        "no mistake",
        "harbour, mode propose, owner ML platform",
        "candidates (to be made)",
        "http://127.0.0.1:0",
        "3 classes, 300 files",
        "fits, 12,345 numbers",
        "computing on      cuda:0",
        "eu: 40 epochs",
        "to b@example.org through mail.example.org:587",
        "tried as",
        "warning: data.validation: fewer than 5 pictures of ship",
    ] {
        assert!(said.contains(part), "{part} not in\n{said}");
    }
    assert!(!place.at("candidates").exists() && !place.at("inbox").exists(), "nothing is left behind");
    let json = place.json(&["check-config"]);
    assert_eq!(
        (json["ok"].as_bool(), json["data_and_model"]["parameters"].as_u64()),
        (Some(true), Some(12345))
    );

    // How far it goes without a person is told where it goes without one.
    assert!(!said.contains("by itself"), "{said}");
    let good = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.config(), format!("{good}mode: enforce\n")).unwrap();
    let said = text(&place.ask(&["check-config"]).stdout);
    assert!(
        said.contains("at most 0.10 % of the examples a case") && said.contains("3 promotions a day"),
        "{said}"
    );
    std::fs::write(place.config(), good).unwrap();

    // What would fail later fails now, with its line.
    let good = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.at("model.safetensors"), "BAD weights").unwrap();
    std::fs::write(place.config(), good.replace("candidates: candidates", "candidates: /proc/candidates")).unwrap();
    let checked = place.ask(&["check-config"]);
    let said = text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(78), "{said}");
    for part in [
        "2 mistakes",
        "guard.yaml:3:",
        "/proc/candidates is not there, and cannot be made in /proc by",
        "guard.yaml:6:",
        "the checkpoint lacks fc.weight",
        "name another checkpoint",
    ] {
        assert!(said.contains(part), "{part} not in\n{said}");
    }
    // For another machine only the text counts.
    assert_eq!(place.ask(&["check-config", "--no-paths"]).status.code(), Some(0));
}

/// A running guard may be asked (`systemctl reload` does); another program on its port is a mistake.
#[test]
fn the_port_of_a_running_guard_is_its_own() {
    let place = Place::new("");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    let good = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.config(), good.replace("127.0.0.1:0", &address.to_string())).unwrap();
    let taken = place.ask(&["check-config"]);
    assert_eq!(taken.status.code(), Some(78));
    assert!(text(&taken.stderr).contains("http.listen: cannot listen on"), "{}", text(&taken.stderr));
    drop(free);
    let daemon = place.start();
    let checked = place.ask(&["check-config"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).contains("this guard is running"), "{}", text(&checked.stdout));
    assert_eq!(daemon.stop(), Some(0));
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
