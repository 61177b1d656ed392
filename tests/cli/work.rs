//! The same work by hand, without a daemon.

use super::daemon::{Place, text, wait_for};
use std::process::{Command, Stdio};

fn picture(place: &Place, words: &str) -> String {
    let path = place.at("picture.png");
    std::fs::write(&path, words).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_line_by_hand() {
    let place = Place::new("gate: {max_accuracy_drop: 0.05}");
    let wrong = picture(&place, "label=dog\nflag=25\nafter=ship\n");
    let fit = place.ask(&["fit"]);
    assert_eq!(fit.status.code(), Some(0), "{}", text(&fit.stderr));
    assert!(text(&fit.stdout).contains("fitted on") && text(&fit.stderr).contains("fit 34 %: covariance 1 of 2 (half)"));
    let quiet = place.ask(&["fit", "--quiet"]);
    assert_eq!((quiet.status.code(), text(&quiet.stderr)), (Some(0), String::new()));

    let trace = place.ask(&["trace", &wrong]);
    assert_eq!(trace.status.code(), Some(0), "{}", text(&trace.stderr));
    let said = text(&trace.stdout);
    assert!(
        said.contains("25 of 3000 training examples flagged") && said.contains("and 5 more"),
        "{said}"
    );
    let report = place.at("trace.json");
    std::fs::write(&report, &place.ask(&["trace", &wrong, "--json"]).stdout).unwrap();

    let candidate = place.at("candidate.safetensors");
    let (report, candidate) = (report.to_str().unwrap(), candidate.to_str().unwrap());
    let unlearned = place.ask(&["unlearn", "--flagged", report, "--out", candidate]);
    assert_eq!(unlearned.status.code(), Some(0), "{}", text(&unlearned.stderr));
    let certified = place.ask(&["certify", candidate, "--image", &wrong, "--trace", report]);
    assert_eq!(certified.status.code(), Some(0), "{}{}", text(&certified.stdout), text(&certified.stderr));
    assert!(
        text(&certified.stdout).contains("dog (90 %) → ship (90 %)"),
        "{}",
        text(&certified.stdout)
    );
    let stays = picture(&place, "label=dog\nafter=dog\n");
    let rejected = place.ask(&["certify", candidate, "--image", &stays]);
    assert_eq!(rejected.status.code(), Some(3));
    assert!(text(&rejected.stdout).contains("rejected:"), "{}", text(&rejected.stdout));
    let measured = place.ask(&["measure", "--checkpoint", candidate]);
    assert!(
        text(&measured.stdout).starts_with("accuracy 90.00 % of 300 pictures"),
        "{}",
        text(&measured.stdout)
    );
    let natural = picture(&place, "label=dog\nverdict=undecided\n");
    let undecided = place.ask(&["trace", &natural]);
    assert_eq!(undecided.status.code(), Some(3));
    assert!(text(&undecided.stdout).contains("undecided: nothing stands out"));
    let told: serde_json::Value = serde_json::from_slice(&place.ask(&["trace", &natural, "--json"]).stdout).unwrap();
    assert_eq!(
        (&told["verdict"]["code"], &told["verdict"]["reason"]),
        (&"no-group".into(), &"nothing stands out".into())
    );

    // Where it goes is looked at before the work, not after.
    let runs = || std::fs::read_to_string(place.at("state/cache/runs")).unwrap().lines().count();
    let before = runs();
    for (out, said) in [
        ("/nowhere/x.safetensors", "cannot write into /nowhere"),
        (place.at("train").to_str().unwrap(), "is a folder"),
    ] {
        for command in [&["train"][..], &["unlearn", "--flagged", report]] {
            let refused = place.ask(&[command, &["--out", out]].concat());
            assert_eq!(refused.status.code(), Some(1), "{command:?}");
            assert!(text(&refused.stderr).contains(said), "{command:?}: {}", text(&refused.stderr));
        }
    }
    assert_eq!(runs(), before);

    // Production is only read.
    let production = place.at("model.safetensors");
    let onto = place.ask(&["unlearn", "--flagged", report, "--out", production.to_str().unwrap()]);
    assert_eq!(onto.status.code(), Some(1));
    assert!(text(&onto.stderr).contains("is the production checkpoint"), "{}", text(&onto.stderr));
    assert_eq!(std::fs::read(production).unwrap(), b"production weights");
    let none = place.ask(&["unlearn", "--flagged", "/dev/null", "--out", candidate]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("names no training example"), "{}", text(&none.stderr));
}

#[test]
fn an_audit_tells_its_groups_by_exit_code_text_and_page() {
    let place = Place::new("");
    let out = place.at("audit");
    let out = out.to_str().unwrap();
    let found = place.ask(&["audit", "--out", out]);
    assert_eq!(found.status.code(), Some(3), "{}", text(&found.stderr));
    let said = text(&found.stdout);
    for part in [
        "One group of training examples stands apart.",
        "7 of 1000 examples of dog: It stands 8.3 standard deviations apart",
        "direction 2 of the class",
        "dog/0.png, dog/1.png",
        "audit.html",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let page = std::fs::read_to_string(place.at("audit/audit.html")).unwrap();
    assert!(page.contains("One group of training examples stands apart") && page.contains("dog/6.png") == said.contains("dog/6.png"));
    let none = place.ask(&["audit", "--class", "ship", "--out", out]);
    assert_eq!(none.status.code(), Some(0), "{}", text(&none.stderr));
    assert!(text(&none.stdout).starts_with("No group of training examples stands apart.\n"));
    let told: serde_json::Value = serde_json::from_slice(&place.ask(&["audit", "--json", "--seed", "7"]).stdout).unwrap();
    assert_eq!((&told["classes"][0]["groups"][0]["founders"], &told["seed"]), (&6.into(), &7.into()));
}

/// Whoever has no model yet trains one; every other command needs it.
#[test]
fn the_first_model_needs_no_model() {
    let place = Place::new("");
    std::fs::remove_file(place.at("model.safetensors")).unwrap();
    let out = place.at("first.safetensors");
    let trained = place.ask(&["train", "--out", out.to_str().unwrap()]);
    assert_eq!(trained.status.code(), Some(0), "{}", text(&trained.stderr));
    assert!(std::fs::metadata(out).unwrap().len() > 0);
    for command in ["fit", "measure"] {
        let asked = place.ask(&[command]);
        assert_eq!(asked.status.code(), Some(78), "{command}");
        assert!(text(&asked.stderr).contains("model.checkpoint"), "{}", text(&asked.stderr));
    }
    std::fs::remove_dir(place.at("train")).unwrap();
    let trained = place.ask(&["train", "--out", "/nowhere/x"]);
    let said = text(&trained.stderr);
    assert_eq!(trained.status.code(), Some(78));
    assert!(said.contains("data.train.path") && said.contains("model.checkpoint"), "{said}");
}

#[test]
fn each_failure_has_its_words_and_its_code() {
    let place = Place::new("");
    for (words, code, said) in [
        ("label=dog\nfault=trace:configuration\n", 78, "told to fail in trace"),
        ("label=dog\nfault=trace:resource\n", 1, "told to fail in trace"),
        ("label=dog\nfault=trace:internal\n", 1, "told to fail in trace"),
        ("label=dog\nonce=trace\n", 1, "crashed (signal 11)"),
        ("BROKEN", 1, "send a PNG, JPEG, WebP or BMP file"),
    ] {
        let traced = place.ask(&["trace", &picture(&place, words)]);
        let stderr = text(&traced.stderr);
        assert_eq!((traced.status.code(), traced.stdout.len()), (Some(code), 0), "{words}: {stderr}");
        assert!(stderr.contains("error: ") && stderr.contains(said), "{words}: {stderr}");
    }
    let missing = place.ask(&["trace", "/nowhere/picture.png"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("/nowhere/picture.png"), "{}", text(&missing.stderr));
    std::fs::remove_file(place.at("fake_worker")).unwrap();
    let without = place.ask(&["fit"]);
    assert_eq!(without.status.code(), Some(78));
    assert!(text(&without.stderr).contains("worker.command"), "{}", text(&without.stderr));
}

#[test]
fn an_interrupted_job_says_that_it_can_go_on() {
    let place = Place::new("");
    let hangs = picture(&place, "label=dog\nhang=trace\n");
    let child = Command::new(env!("CARGO_BIN_EXE_delta-guard"))
        .args(["trace", &hangs, "--config"])
        .arg(place.config())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the worker", || {
        std::fs::read_to_string(place.at("state/cache/runs"))
            .ok()
            .filter(|runs| runs.contains("trace"))
    });
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", text(&ended.stderr));
    assert!(text(&ended.stderr).contains("the same command goes on"), "{}", text(&ended.stderr));
}

/// Jobs by hand run as the user's other programs do; `worker.nice` is for the daemon's.
#[test]
fn jobs_by_hand_keep_the_users_niceness() {
    let place = Place::new("");
    let config = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.config(), config.replace("nice: 0", "nice: 19")).unwrap();
    let own = rustix::process::getpriority_process(None).unwrap();
    assert!(own < 19, "these tests run at niceness 19: nothing can be seen");
    assert_eq!(place.ask(&["fit"]).status.code(), Some(0));
    let daemon = place.start();
    place.drop_in(b"wrong.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_proposals_total 1");
    assert_eq!(daemon.stop(), Some(0));
    let seen = std::fs::read_to_string(place.at("state/cache/niceness")).unwrap();
    let seen: Vec<&str> = seen.lines().collect();
    assert_eq!((seen[0], &seen[1..]), (own.to_string().as_str(), &["19"; 5][..]));
}
