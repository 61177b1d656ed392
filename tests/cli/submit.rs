//! `submit`.

use super::daemon::{Place, text, wait_for};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A place with an inbox, as the daemon would have made it, and a picture beside.
fn place() -> Place {
    let place = Place::new("");
    std::fs::create_dir(place.at("inbox")).unwrap();
    std::fs::write(place.at("wrong.png"), "label=dog\n").unwrap();
    place
}

fn submit(place: &Place, file: &str, more: &[&str]) -> Output {
    let file = place.at(file);
    place.ask(&[&["submit", file.to_str().unwrap()], more].concat())
}

/// Names in the inbox, hidden ones too.
fn names(place: &Place) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(place.at("inbox"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn failed(output: &Output, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "{word} not in\n{said}");
    }
}

#[test]
fn a_picture_arrives_whole_under_a_name_of_its_own() {
    let place = place();
    let handed_in = submit(&place, "wrong.png", &[]);
    assert_eq!(handed_in.status.code(), Some(0), "{}", text(&handed_in.stderr));
    let found = names(&place);
    assert_eq!(text(&handed_in.stdout), format!("handed in as {}\n", found[0]));
    assert!(
        found.len() == 1 && found[0].starts_with("wrong-") && found[0].ends_with(".png"),
        "{found:?}"
    );
    let path = place.at("inbox").join(&found[0]);
    assert_eq!(std::fs::read(&path).unwrap(), b"label=dog\n");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    // The same again is the same file; with other words it is another one.
    assert_eq!(submit(&place, "wrong.png", &[]).status.code(), Some(0));
    assert_eq!(names(&place), found);
    let answer = submit(
        &place,
        "wrong.png",
        &["--true-label", "ship", "--note", "seen at\ngate 4 – \"odd\"", "--json"],
    );
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    let name = answer["name"].as_str().unwrap();
    assert_eq!(answer["content"], blake3::hash(b"label=dog\n").to_hex().as_str());
    assert_eq!(names(&place).len(), 3);
    let sidecar = std::fs::read(place.at("inbox").join(name.replace(".png", ".json"))).unwrap();
    let sidecar: serde_json::Value = serde_json::from_slice(&sidecar).unwrap();
    assert_eq!(sidecar, serde_json::json!({"true_label": "ship", "note": "seen at\ngate 4 – \"odd\""}));
}

#[test]
fn what_the_inbox_would_not_take_is_said_at_once() {
    let place = place();
    let config = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.config(), config.replace("settle: 20ms", "settle: 20ms, max_bytes: 1KiB")).unwrap();
    std::fs::write(place.at("empty.png"), "").unwrap();
    std::fs::write(place.at("large.png"), [0; 1025]).unwrap();
    std::fs::write(place.at("labels.json"), "{}").unwrap();
    std::fs::write(place.at("half.PART"), "x").unwrap();
    std::fs::create_dir(place.at("folder.png")).unwrap();
    failed(&submit(&place, "missing.png", &[]), &["missing.png", "No such file"]);
    failed(&submit(&place, "empty.png", &[]), &["empty.png is empty"]);
    failed(&submit(&place, "large.png", &[]), &["1025 bytes", "1024", "inbox.max_bytes"]);
    failed(&submit(&place, "folder.png", &[]), &["folder.png is no file"]);
    failed(&submit(&place, "labels.json", &[]), &["labels.json is no name of a picture"]);
    failed(&submit(&place, "half.PART", &[]), &["half.PART is no name of a picture"]);
    let note = "n".repeat(70_000);
    failed(&submit(&place, "wrong.png", &["--note", &note]), &["65536", "--note"]);
    assert_eq!(names(&place), [""; 0]);
    std::fs::write(place.at("wrong.png"), [0; 1024]).unwrap();
    assert_eq!(submit(&place, "wrong.png", &[]).status.code(), Some(0), "just as large as allowed");
}

#[test]
fn odd_names_become_names() {
    let place = place();
    let long = format!("{}.{}", "ü".repeat(110), "x".repeat(30));
    for name in ["..", ".hidden.png", "no suffix", "line\nbreak\u{1b}[2J.png", &long] {
        if name != ".." {
            std::fs::write(place.at(name), "label=dog\n").unwrap();
        }
        let handed_in = submit(&place, name, &["--source", "gate 4"]);
        if name == ".." {
            failed(&handed_in, &["is no file"]);
        } else {
            assert_eq!(handed_in.status.code(), Some(0), "{name:?}: {}", text(&handed_in.stderr));
            let said = text(&handed_in.stdout);
            assert!(!said.trim_end().contains(|c: char| c.is_control()), "{said:?}");
        }
    }
    let found = names(&place);
    assert_eq!(found.len(), 8, "four pictures, each with its sidecar: {found:?}");
    assert!(found.iter().all(|name| !name.starts_with('.') && name.len() < 200), "{found:?}");
}

#[test]
fn without_an_inbox_the_message_says_who_makes_it() {
    let place = Place::new("");
    std::fs::write(place.at("wrong.png"), "label=dog\n").unwrap();
    failed(
        &submit(&place, "wrong.png", &["--true-label", "ship"]),
        &["inbox", "No such file or directory", "delta-guard run"],
    );
    assert!(!place.at("inbox").exists());
    // Nobody answers: it does not wait for ever.
    std::fs::create_dir(place.at("inbox")).unwrap();
    failed(
        &submit(&place, "wrong.png", &["--wait", "--timeout", "0"]),
        &["no end after 0 s", "does the daemon run?", "delta-guard cases"],
    );
}

#[test]
fn waiting_tells_the_end_and_the_exit_code_too() {
    let place = place();
    let daemon = place.start();
    for (name, words, claim, code, said) in [
        ("poison.png", "label=dog\nafter=ship\n", &[][..], 0, "proposed"),
        ("poison.png", "label=dog\nafter=ship\n", &[], 0, "proposed"),
        ("poison.png", "label=dog\nafter=ship\n", &["--true-label", "dog"], 3, "no-anomaly"),
        ("poison.png", "label=dog\nafter=ship\n", &["--true-label", "ship"], 0, "proposed"),
        ("natural.png", "label=cat\nverdict=undecided\n", &[], 3, "undecided"),
        ("stays.png", "label=dog\nafter=dog\n", &[], 3, "rejected"),
        ("text.png", "BROKEN\n", &[], 3, "refused"),
        ("trouble.png", "label=dog\nfault=trace:configuration\n", &[], 1, "held"),
    ] {
        std::fs::write(place.at(name), words).unwrap();
        let ended = submit(&place, name, &[claim, &["--wait"]].concat());
        assert_eq!(
            ended.status.code(),
            Some(code),
            "{name} {claim:?}: {}{}",
            text(&ended.stdout),
            text(&ended.stderr)
        );
        assert!(text(&ended.stdout).starts_with(said), "{name} {claim:?}: {}", text(&ended.stdout));
    }
    // Four different answers for one picture are three cases, the repetition was none.
    let cases = place.json(&["cases"]);
    let poison = cases
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["file"].as_str().unwrap().starts_with("poison"))
        .count();
    assert_eq!((poison, cases.as_array().unwrap().len()), (3, 7));
    let json = submit(&place, "poison.png", &["--wait", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["state"], "proposed");
    // Text named .png: the submitter finds it in `refused`, with the reason.
    let refused: Vec<PathBuf> = std::fs::read_dir(place.at("refused")).unwrap().map(|e| e.unwrap().path()).collect();
    let reason = refused.iter().find(|path| path.to_string_lossy().ends_with(".reason.json")).unwrap();
    let reason: serde_json::Value = serde_json::from_slice(&std::fs::read(reason).unwrap()).unwrap();
    assert!(reason["sentence"].as_str().unwrap().contains("cannot be decoded"), "{reason}");
    assert!(reason["help"].as_str().unwrap().contains("PNG"), "{reason}");
    assert_eq!(daemon.stop(), Some(0));
}

/// What the inbox itself refuses never becomes a case; whoever waits hears of it all the same.
#[test]
fn waiting_hears_of_a_refusal_by_the_inbox() {
    let place = place();
    assert_eq!(submit(&place, "wrong.png", &["--true-label", "ship"]).status.code(), Some(0));
    let (sidecar, picture) = (names(&place)[0].clone(), names(&place)[1].clone());
    // A second picture of the same stem: nobody can tell which one the sidecar is about.
    std::fs::write(place.at("inbox").join(picture.replace(".png", ".jpg")), "another").unwrap();
    let inode = |name: &str| place.at("inbox").join(name).metadata().unwrap().ino();
    let before = inode(&picture);
    let waiting = Command::new(env!("CARGO_BIN_EXE_delta-guard"))
        .arg("submit")
        .arg(place.at("wrong.png"))
        .args(["--true-label", "ship", "--wait", "--config"])
        .arg(place.config())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the picture handed in again", || (inode(&picture) != before).then_some(()));
    assert!(names(&place).contains(&sidecar));
    let daemon = place.start();
    let ended = waiting.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(3), "{}", text(&ended.stderr));
    assert!(
        text(&ended.stderr).contains("refused the picture: several pictures"),
        "{}",
        text(&ended.stderr)
    );
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_sidecar_that_is_not_json_is_refused_with_its_picture() {
    let place = place();
    let daemon = place.start();
    place.drop_in(b"a.json", "it is a ship");
    place.drop_in(b"a.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_refused_total{reason=\"bad-sidecar\"} 1");
    let reason = wait_for("the reason", || std::fs::read_to_string(place.at("refused/a.png.reason.json")).ok());
    assert!(reason.contains("the sidecar is not JSON"), "{reason}");
    wait_for("the sidecar beside it", || place.at("refused/a.json").is_file().then_some(()));
    assert_eq!(place.json(&["cases"]).as_array().unwrap().len(), 0);
    assert!(
        !daemon.log().contains('\u{1b}'),
        "a log that is no terminal has colours:\n{}",
        daemon.log()
    );
    assert_eq!(daemon.stop(), Some(0));
}
