//! The installation's secret seed: every random choice follows from it, and nothing that people read shows it.

use super::daemon::{Place, text};
use super::smtp::Server;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What the worker was told of seeds, a job each: task, case's seed, factors' seed.
fn told(place: &Place) -> Vec<(String, u64, u64)> {
    let lines = std::fs::read_to_string(place.at("state/cache/seeds")).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

/// Two cases of one installation; what the worker was told.
fn two_cases(place: &Place) -> Vec<(String, u64, u64)> {
    let daemon = place.start();
    place.drop_in(b"one.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_proposals_total 1");
    place.drop_in(b"two.png", "label=cat\n");
    daemon.wait_for_metric("delta_guard_proposals_total 2");
    assert_eq!(daemon.stop(), Some(0));
    told(place)
}

#[test]
fn each_case_has_a_seed_of_its_own_from_the_secret_of_its_installation() {
    let (here, there) = (Place::new(""), Place::new(""));
    let first = two_cases(&here);
    let tasks: Vec<&str> = first.iter().map(|(task, ..)| task.as_str()).collect();
    assert_eq!(tasks, ["fit", "trace", "fit", "trace"]);
    let factors: Vec<u64> = first.iter().map(|told| told.2).collect();
    assert!(
        factors.iter().all(|seed| *seed == factors[0] && *seed != 0),
        "cases share their factors: {first:?}"
    );
    assert!(first[1].1 != first[3].1 && first[1].1 != factors[0], "{first:?}");
    // What somebody without the secret could compute is none of them.
    for case in here.json(&["cases"]).as_array().unwrap() {
        let id = case["case"].as_str().unwrap();
        for guess in [
            blake3::derive_key("delta-guard case seed v1", id.as_bytes()),
            *blake3::hash(id.as_bytes()).as_bytes(),
        ] {
            let guess = u64::from_le_bytes(guess[..8].try_into().unwrap());
            assert!(first.iter().all(|told| told.1 != guess && told.2 != guess));
        }
    }
    // Another installation draws otherwise; one with this secret draws the same.
    let other = two_cases(&there);
    assert!(
        first.iter().zip(&other).all(|(a, b)| a.2 != b.2 && (a.0 == "fit" || a.1 != b.1)),
        "{first:?} {other:?}"
    );
    let again = Place::new("");
    std::fs::copy(here.at("state/seed"), again.at("state/seed")).unwrap();
    assert_eq!(two_cases(&again), first);
    assert_eq!(std::fs::metadata(here.at("state/seed")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn nothing_shows_the_secret_or_what_follows_from_it() {
    let server = Server::start(&[]);
    let place = Place::new(&format!(
        "mail: {{host: 127.0.0.1, port: {}, tls: none, from: guard@example.org, to: [oncall@example.org], timeout: 5s}}",
        server.port
    ));
    let mut loud = std::process::Command::new(env!("CARGO_BIN_EXE_delta-guard"));
    loud.env("RUST_LOG", "trace");
    let daemon = place.start_by(loud);
    place.drop_in(b"one.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_mail_sent_total 1");
    let mut shown: Vec<(String, Vec<u8>)> = Vec::new();
    for page in ["/metrics", "/api/v1/status", "/api/v1/cases"] {
        shown.push((page.into(), daemon.get(page).unwrap().1.into_bytes()));
    }
    let case = place.json(&["cases"])[0]["case"].as_str().unwrap().to_owned();
    shown.push((
        "the case over HTTP".into(),
        daemon.get(&format!("/api/v1/cases/{case}")).unwrap().1.into_bytes(),
    ));
    assert_eq!(daemon.stop(), Some(0));
    for question in [
        &["show", &case][..],
        &["show", &case, "--json"],
        &["flagged", "--csv"],
        &["cases", "--json"],
        &["check-config"],
    ] {
        shown.push((question.join(" "), place.ask(question).stdout));
    }
    shown.push(("mail".into(), server.taken.lock().unwrap()[0].raw.clone().into_bytes()));
    let mut paths = vec![place.at("log")];
    files(&place.at("state"), &mut paths);
    files(&place.at("candidates"), &mut paths);
    let own = [place.at("state/seed"), place.at("state/cache/seeds")];
    for path in paths.into_iter().filter(|path| !own.contains(path)) {
        shown.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    assert!(
        shown
            .iter()
            .any(|(name, bytes)| name.ends_with("/trace.json") && contains(bytes, b"\"settings\""))
    );
    assert!(
        shown
            .iter()
            .any(|(name, bytes)| name.ends_with("report.html") && contains(bytes, b"fit_examples"))
    );

    let secret = std::fs::read_to_string(place.at("state/seed")).unwrap().trim().to_owned();
    let mut words: Vec<Vec<u8>> = vec![secret.clone().into_bytes(), hex::decode(secret).unwrap()];
    for (_, case_seed, factors_seed) in told(&place) {
        for seed in [case_seed, factors_seed] {
            if seed != 0 {
                words.extend([
                    seed.to_string().into_bytes(),
                    seed.to_le_bytes().to_vec(),
                    format!("{seed:x}").into_bytes(),
                ]);
            }
        }
    }
    // The seed that the worker itself tells in its report, as an older one did, goes too: the fake one says 7.
    words.push(b"\"seed\":7".to_vec());
    for (name, bytes) in &shown {
        for word in &words {
            assert!(!contains(bytes, word), "{name} shows {:?}", text(word));
        }
    }
}

#[test]
fn a_configured_seed_is_told_and_a_command_says_which_it_took() {
    let place = Place::new("detect: {seed: 41}");
    let picture = place.at("picture.png");
    std::fs::write(&picture, "label=dog\n").unwrap();
    let picture = picture.to_str().unwrap();
    let said = text(&place.ask(&["trace", picture, "--seed", "5"]).stdout);
    assert!(said.contains("41 (detect.seed"), "{said}");
    assert_eq!(place.json(&["trace", picture])["seed"], 41);
    assert!(!place.at("state/seed").exists(), "a configured seed needs no secret");

    let place = Place::new("");
    std::fs::write(place.at("picture.png"), "label=dog\n").unwrap();
    let said = text(&place.ask(&["trace", picture, "--seed", "5"]).stdout);
    assert!(said.contains("5 (--seed)") && said.contains("secret"), "{said}");
    let report = place.json(&["trace", picture]);
    let taken = report["seed"].as_u64().unwrap();
    let said = text(&place.ask(&["trace", picture]).stdout);
    assert!(said.contains(&format!("{taken} (from the pictures")), "{said}");
    // Found on disk by whoever looks there: what the command wrote says it too.
    let folder = said
        .lines()
        .find_map(|line| line.split_whitespace().find(|word| word.ends_with("trace.json")))
        .unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(folder).unwrap()).unwrap();
    assert_eq!(kept["seed"].as_u64(), Some(taken));
    // Factors are fitted for the daemon, so by its seed.
    let fit = text(&place.ask(&["fit"]).stdout);
    assert!(fit.contains("secret"), "{fit}");
    let factors: Vec<u64> = told(&place).iter().map(|told| told.2).collect();
    let daemon = place.start();
    place.drop_in(b"one.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_proposals_total 1");
    daemon.stop();
    assert!(told(&place).iter().all(|told| told.2 == factors[0]), "{:?}", told(&place));
}

#[test]
fn a_secret_that_is_none_stops_the_start_and_says_what_to_do() {
    let place = Place::new("");
    std::fs::write(place.at("state/seed"), "42\n").unwrap();
    let failed = place.ask(&["run"]);
    assert_eq!(failed.status.code(), Some(1));
    let said = text(&failed.stderr);
    assert!(said.contains("state/seed is not 64 hex digits") && said.contains("help:"), "{said}");
    std::fs::remove_file(place.at("state/seed")).unwrap();
    assert_eq!(place.start().stop(), Some(0));
}
