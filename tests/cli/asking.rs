//! `cases`, `show`, `flagged`: before the first case, while the daemon runs, and when it is gone.

use super::daemon::{Place, text};
use std::collections::BTreeSet;

#[test]
fn before_the_first_case_there_is_nothing_and_that_is_no_failure() {
    let place = Place::new("");
    // No state folder at all, then one of a daemon that has seen nothing.
    for started in [false, true] {
        if started {
            assert_eq!(place.start().stop(), Some(0));
        }
        let cases = place.ask(&["cases"]);
        assert_eq!((cases.status.code(), text(&cases.stdout)), (Some(0), String::new()));
        assert!(text(&cases.stderr).contains("no case in") && text(&cases.stderr).contains("delta-guard submit"));
        assert_eq!(place.json(&["cases"]), serde_json::json!([]));
        let show = place.ask(&["show", "8f3a"]);
        assert_eq!((show.status.code(), text(&show.stdout)), (Some(3), String::new()));
        assert!(text(&show.stderr).contains("there is no case \"8f3a\"") && text(&show.stderr).contains("delta-guard cases"));
        let flagged = place.ask(&["flagged"]);
        assert_eq!((flagged.status.code(), text(&flagged.stdout)), (Some(3), String::new()));
        assert!(text(&flagged.stderr).contains("nothing was flagged so far"));
        assert_eq!(place.ask(&["flagged", "8f3a"]).status.code(), Some(3));
        assert_eq!(place.json(&["flagged"]), serde_json::json!([]));
        let csv = place.ask(&["flagged", "--csv"]);
        assert_eq!((csv.status.code(), text(&csv.stdout)), (Some(3), "case,id,label,rank,score\n".to_owned()));
    }
}

/// Every question about two cases, one with ids that are hard to write.
fn answers(place: &Place, ids: &[String]) -> Vec<(Option<i32>, String)> {
    let mut answers = Vec::new();
    for question in [&["cases"][..], &["flagged"], &["flagged", "--csv"]] {
        for json in [false, true] {
            if json && question.contains(&"--csv") {
                continue;
            }
            let answer = place.ask(&[question, if json { &["--json"] } else { &[] }].concat());
            answers.push((answer.status.code(), text(&answer.stdout)));
        }
    }
    for id in ids {
        for question in [&["show", id][..], &["show", id, "--json"], &["flagged", id, "--csv"]] {
            let answer = place.ask(question);
            answers.push((answer.status.code(), text(&answer.stdout)));
        }
    }
    answers
}

#[test]
fn cases_are_listed_shown_and_exported_with_and_without_the_daemon() {
    let place = Place::new("");
    let daemon = place.start();
    place.drop_in(b"plain.png", "label=dog\nflag=3\n");
    daemon.wait_for_metric("delta_guard_proposals_total 1");
    place.drop_in(b"odd.png", "label=cat\nflag=4\nodd=yes\n");
    daemon.wait_for_metric("delta_guard_proposals_total 2");
    daemon.wait_for_metric("delta_guard_queue_length 0");

    // A table: a head, a line a case, the newest first.
    let table = text(&place.ask(&["cases"]).stdout);
    let lines: Vec<&str> = table.lines().collect();
    let words: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(words, ["CASE", "STATE", "ACCEPTED", "(UTC)", "READ", "AS", "FLAGGED", "FILE"]);
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[1].contains("proposed") && lines[1].ends_with("4  odd.png"), "{table}");
    assert!(lines[2].ends_with("3  plain.png"), "{table}");
    assert_eq!(text(&place.ask(&["cases", "-n", "1"]).stdout).lines().count(), 2);
    let held = place.ask(&["cases", "--state", "held"]);
    assert_eq!((held.status.code(), text(&held.stdout)), (Some(0), String::new()));
    assert!(text(&held.stderr).contains("all 2 cases are in other states"), "{}", text(&held.stderr));
    assert_eq!(place.json(&["cases", "--state", "held"]), serde_json::json!([]));
    assert_eq!(
        place.json(&["cases", "--state", "held", "--state", "proposed"]).as_array().unwrap().len(),
        2
    );

    // One case by the first digits of its id, in any case; the beginning of two is not one.
    let cases = place.json(&["cases"]);
    let ids: Vec<String> = cases
        .as_array()
        .unwrap()
        .iter()
        .map(|case| case["case"].as_str().unwrap().to_owned())
        .collect();
    let shown = text(&place.ask(&["show", &ids[1][..8].to_uppercase()]).stdout);
    for word in ["plain.png", "proposed", "3 training examples of 3,000", "what you can do now", &ids[1]] {
        assert!(shown.contains(word), "{word} not in\n{shown}");
    }
    let both = place.ask(&["show", ""]);
    assert_eq!(both.status.code(), Some(1));
    assert!(text(&both.stderr).contains("is the beginning of 2 cases"), "{}", text(&both.stderr));

    // Tables hold one line an example, whatever stands in its id; CSV and JSON hold it as it is.
    let flagged = place.ask(&["flagged"]);
    assert_eq!(text(&flagged.stdout).lines().count(), 1 + 7, "{}", text(&flagged.stdout));
    assert!(text(&flagged.stdout).contains("cat/\"a\", b\\nc; 0003.png"), "{}", text(&flagged.stdout));
    let json = place.json(&["flagged", &ids[0][..8]]);
    let wanted: BTreeSet<String> = (0..4).map(|n| format!("cat/\"a\", b\nc; {n:04}.png")).collect();
    let found: BTreeSet<String> = json.as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, wanted);
    let csv = place.ask(&["flagged", &ids[0][..8], "--csv"]);
    let mut reader = csv::Reader::from_reader(&csv.stdout[..]);
    assert_eq!(
        reader.headers().unwrap(),
        ["case", "id", "label", "rank", "score", "count", "mean_scaled_delta", "kappa", "seed"].as_slice()
    );
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.iter().map(|row| row[1].to_owned()).collect::<BTreeSet<_>>(), wanted);
    assert!(rows.iter().all(|row| row[0] == ids[0] && row.len() == 9 && &row[2] == "cat"));
    let second = rows.iter().find(|row| row[1].ends_with("0001.png")).unwrap();
    assert_eq!(
        second.iter().skip(3).collect::<Vec<_>>(),
        ["2", "0.899", "49", "-1.6428571428571428", "0.899", "true"]
    );
    let second = json.as_array().unwrap().iter().find(|e| e["rank"] == 2).unwrap();
    assert_eq!(
        (&second["score"], &second["count"], &second["seed"]),
        (&0.899.into(), &49.into(), &true.into())
    );
    let heading = text(&flagged.stdout).lines().next().unwrap().to_owned();
    assert_eq!(
        heading.split_whitespace().collect::<Vec<_>>(),
        ["CASE", "RANK", "Κ", "FELL", "IN", "Δ", "SEED", "LABEL", "ID"]
    );
    let by_id = place.json(&["flagged", "--id", "dog/0001.png"]);
    assert_eq!((by_id.as_array().unwrap().len(), by_id[0]["case"].as_str()), (1, Some(ids[1].as_str())));
    let by_id = place.ask(&["flagged", "--id", "dog/9999.png"]);
    assert_eq!(by_id.status.code(), Some(3));
    assert!(text(&by_id.stderr).contains("no case flagged \"dog/9999.png\""));

    // A page on demand, also when the daemon's own is lost.
    let page = place.at("page.html");
    assert_eq!(place.ask(&["show", &ids[0], "--report", page.to_str().unwrap()]).status.code(), Some(0));
    assert!(std::fs::read_to_string(page).unwrap().contains("4 training examples caused this error"));

    // The same answers while it runs, after it was killed, and after an orderly stop.
    let running = answers(&place, &ids);
    assert!(running.iter().all(|(code, said)| *code == Some(0) && !said.is_empty()));
    daemon.kill();
    assert_eq!(answers(&place, &ids), running);
    let daemon = place.start();
    // A second daemon is turned away, and the first one goes on.
    let second = place.ask(&["run"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("paths.state"), "{}", text(&second.stderr));
    assert!(daemon.get("/readyz").is_some_and(|(code, _)| code == 200));
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(answers(&place, &ids), running);

    // What `flagged` wrote is what `unlearn` reads.
    let list = place.at("flagged.csv");
    std::fs::write(&list, &csv.stdout).unwrap();
    let candidate = place.at("candidate.safetensors");
    let unlearned = place.ask(&["unlearn", "--flagged", list.to_str().unwrap(), "--out", candidate.to_str().unwrap()]);
    assert_eq!(unlearned.status.code(), Some(0), "{}", text(&unlearned.stderr));
    // The fake worker's candidate is the list of ids that it was given, again and again.
    let given = std::fs::read(candidate).unwrap();
    let given: Vec<String> = serde_json::Deserializer::from_slice(&given).into_iter().next().unwrap().unwrap();
    assert_eq!(given.into_iter().collect::<BTreeSet<_>>(), wanted);
}

#[test]
fn a_damaged_journal_is_an_answer_in_words() {
    let place = Place::new("");
    let daemon = place.start();
    place.drop_in(b"plain.png", "label=dog\nflag=3\n");
    daemon.wait_for_metric("delta_guard_proposals_total 1");
    assert_eq!(daemon.stop(), Some(0));
    let segment = place.at("state/journal/00000001.dgj");
    let sound = std::fs::read(&segment).unwrap();
    let mut bytes = sound.clone();
    bytes[300] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    std::fs::write(place.at("again.png"), "label=dog\n").unwrap();
    let again = place.at("again.png");
    for question in [
        &["cases"][..],
        &["show", "ab"],
        &["flagged"],
        &["submit", again.to_str().unwrap(), "--wait"],
    ] {
        let asked = place.ask(question);
        let said = text(&asked.stderr);
        assert_eq!(
            (asked.status.code(), text(&asked.stdout)),
            (Some(1), String::new()),
            "{question:?}: {said}"
        );
        assert!(said.contains("00000001.dgj") && !said.contains("panicked"), "{question:?}: {said}");
    }
    assert_eq!(std::fs::read(&segment).unwrap(), bytes, "nothing was changed");
    std::fs::write(&segment, &sound).unwrap();
    assert_eq!(place.ask(&["cases"]).status.code(), Some(0));
}
