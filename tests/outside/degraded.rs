//! A guard that cannot record anything: it stays up, says why everywhere, takes nothing in, and goes on by itself.

use super::daemon::{Daemon, Place, text, wait_for};
use super::smtp::Server;
use delta_guard::journal::frame;
use std::io::Write;
use std::process::Command;

fn segment(place: &Place) -> std::path::PathBuf {
    place.at("state/journal/00000001.dgj")
}

/// A place whose guard has worked on one picture, with a mail server.
fn worked(server: &Server) -> Place {
    let place = Place::new(&format!(
        "mail: {{host: 127.0.0.1, port: {}, tls: none, from: guard@example.org, to: [oncall@example.org], timeout: 5s, retry_after: 50ms}}",
        server.port
    ));
    let daemon = place.start();
    place.drop_in(b"wrong.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_mail_sent_total 1");
    daemon.wait_for_metric("delta_guard_outbox_length 0");
    assert_eq!(daemon.stop(), Some(0));
    place
}

/// It is up and says that it cannot work, for a reason that has this word in it.
fn is_degraded(daemon: &Daemon, word: &str) {
    let said = wait_for("degraded state", || {
        daemon.get("/readyz").filter(|(code, body)| *code == 503 && body.contains(word))
    });
    let ready: serde_json::Value = serde_json::from_str(&said.1).unwrap();
    assert_eq!(ready["reasons"].as_array().unwrap().len(), 1, "{ready}");
    assert_eq!(daemon.get("/livez").unwrap().0, 200);
    let page = daemon.get("/metrics").unwrap().1;
    for line in ["delta_guard_ready 0", "delta_guard_journal_broken 1"] {
        assert!(page.lines().any(|found| found == line), "{line} not in\n{page}");
    }
    let status: serde_json::Value = serde_json::from_str(&daemon.get("/api/v1/status").unwrap().1).unwrap();
    assert_eq!((&status["ready"], &status["instance"]), (&false.into(), &"harbour".into()));
    let (code, body) = daemon.get("/api/v1/cases").unwrap();
    assert!(code == 503 && body.contains(word), "{code} {body}");
    assert!(daemon.log().contains("Guard cannot work"), "{}", daemon.log());
}

#[test]
fn a_damaged_journal_is_told_everywhere_and_mending_it_is_enough() {
    let server = Server::start(&[]);
    let place = worked(&server);
    let whole = std::fs::read(segment(&place)).unwrap();
    for (what, damaged) in [
        (
            "random bytes after the last record",
            [&whole[..], b"\x07random bytes, not a record\xff\xfe\n"].concat(),
        ),
        ("a flipped bit in the first record", {
            let mut bytes = whole.clone();
            bytes[100] ^= 1;
            bytes
        }),
    ] {
        let mails = server.taken.lock().unwrap().len();
        std::fs::write(segment(&place), &damaged).unwrap();
        let daemon = place.start_unready();
        is_degraded(&daemon, "damaged");
        // One mail says so.
        let mail = wait_for("mail", || server.taken.lock().unwrap().get(mails).cloned());
        assert!(
            mail.raw.contains("The guard cannot work") && mail.raw.replace("=\r\n", "").contains("00000001.dgj"),
            "{}",
            mail.raw
        );
        // Nothing is taken in.
        place.drop_in(b"other.png", &format!("label=cat\n{what}\n"));

        // The command line answers from what is whole, and says that it is not all.
        let cases = place.ask(&["cases", "--json"]);
        let listed: serde_json::Value = serde_json::from_slice(&cases.stdout).unwrap();
        let before = usize::from(what.starts_with("random"));
        assert!(listed.as_array().unwrap().len() >= before, "{what}: {listed}");
        assert_eq!(cases.status.code(), Some(1));
        assert!(text(&cases.stderr).contains("damaged in segment 00000001.dgj"), "{}", text(&cases.stderr));
        let verified = place.ask(&["journal", "verify"]);
        assert_eq!(verified.status.code(), Some(1), "{}", text(&verified.stderr));
        assert!(text(&verified.stdout).contains("damaged"), "{}", text(&verified.stdout));
        assert!(text(&verified.stderr).contains("00000001.dgj"), "{}", text(&verified.stderr));
        assert_eq!(place.json(&["journal", "verify"])["verdict"], "damaged");
        assert!(place.at("inbox/other.png").exists(), "it was taken in");
        assert_eq!(std::fs::read(segment(&place)).unwrap(), damaged, "a damaged journal was changed");

        // The right file comes back: nobody has to start anything.
        std::fs::write(segment(&place), &whole).unwrap();
        wait_for("readiness", || daemon.get("/readyz").filter(|(code, _)| *code == 200));
        daemon.wait_for_metric("delta_guard_journal_broken 0");
        wait_for("an empty inbox", || (!place.at("inbox/other.png").exists()).then_some(()));
        assert_eq!(daemon.stop(), Some(0));
        assert_eq!(place.ask(&["journal", "verify"]).status.code(), Some(0));
        assert_eq!(
            server
                .taken
                .lock()
                .unwrap()
                .iter()
                .filter(|mail| mail.raw.contains("cannot work"))
                .count(),
            { usize::from(!what.starts_with("random")) + 1 }
        );
        std::fs::write(segment(&place), &whole).unwrap();
        std::fs::remove_dir_all(place.at("state/index")).unwrap();
    }
}

#[test]
fn a_newer_journal_is_left_alone() {
    let place = Place::new("");
    std::fs::create_dir_all(place.at("state/journal")).unwrap();
    let zeros = "0".repeat(64);
    let json = format!(
        "{{\"s\":1,\"t\":\"2026-11-23T00:00:00Z\",\"e\":1,\"k\":\"segment\",\"crit\":true,\"d\":{{\"schema\":99,\"segment\":1,\"first_seq\":1,\"prev_hash\":\"{zeros}\",\"version\":\"9.0.0\"}}}}"
    );
    let (bytes, _) = frame::encode(&[0; 32], 1, json.as_bytes());
    std::fs::write(segment(&place), &bytes).unwrap();
    let daemon = place.start_unready();
    is_degraded(&daemon, "schema 99");
    assert_eq!(place.json(&["journal", "verify"])["verdict"], "newer");
    assert_eq!(place.ask(&["journal", "verify"]).status.code(), Some(1));
    assert_eq!(daemon.stop(), Some(0), "asked to stop, it stops as always");
    assert_eq!(std::fs::read(segment(&place)).unwrap(), bytes);
}

#[test]
fn what_the_system_refuses_at_the_start_is_waited_for() {
    let place = Place::new("");
    // No folder can be made where a file is.
    std::fs::write(place.at("state/journal"), b"in the way").unwrap();
    let daemon = place.start_unready();
    is_degraded(&daemon, "could not");
    std::fs::remove_file(place.at("state/journal")).unwrap();
    wait_for("readiness", || daemon.get("/readyz").filter(|(code, _)| *code == 200));
    place.drop_in(b"wrong.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_accepted_total 1");
    assert_eq!(daemon.stop(), Some(0));
}

/// A small file system of its own; None, out loud, where none can be mounted.
struct Mount(std::path::PathBuf);

impl Mount {
    fn at(path: std::path::PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(&path).output();
        if !done.as_ref().is_ok_and(|done| done.status.success()) {
            eprintln!("SKIPPED: a full and a read-only disk: a tmpfs cannot be mounted here ({done:?})");
            return None;
        }
        Some(Self(path))
    }

    fn remount(&self, how: &str) {
        let done = Command::new("mount")
            .args(["-o", &format!("remount,{how}")])
            .arg(&self.0)
            .status()
            .unwrap();
        assert!(done.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_or_read_only_disk_at_the_start_is_waited_for() {
    let place = Place::new("");
    let Some(mount) = Mount::at(place.at("state")) else { return };
    std::fs::create_dir_all(place.at("state/cache")).unwrap();
    let ballast = place.at("state/ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let daemon = place.start_unready();
    is_degraded(&daemon, "No space");
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    wait_for("readiness", || daemon.get("/readyz").filter(|(code, _)| *code == 200));
    assert_eq!(daemon.stop(), Some(0));

    mount.remount("ro");
    let daemon = place.start_unready();
    is_degraded(&daemon, "Read-only");
    assert_eq!(
        place.ask(&["journal", "verify"]).status.code(),
        Some(0),
        "what is there can still be read"
    );
    mount.remount("rw");
    wait_for("readiness", || daemon.get("/readyz").filter(|(code, _)| *code == 200));
    place.drop_in(b"wrong.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_accepted_total 1");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn the_command_line_tells_a_torn_end() {
    let place = Place::new("");
    assert_eq!(place.ask(&["journal", "verify"]).status.code(), Some(3), "there is none yet");
    let daemon = place.start();
    place.drop_in(b"wrong.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_proposals_total 1");
    assert_eq!(daemon.stop(), Some(0));
    let whole = place.ask(&["journal", "verify"]);
    assert_eq!(
        (whole.status.code(), text(&whole.stdout).contains("whole")),
        (Some(0), true),
        "{}",
        text(&whole.stderr)
    );
    let bytes = std::fs::read(segment(&place)).unwrap();
    // The beginning of a further record, as a crash leaves it.
    std::fs::write(segment(&place), [&bytes[..], b"00000040 0123456789abcdef"].concat()).unwrap();
    let cases = place.ask(&["cases"]);
    assert_eq!(cases.status.code(), Some(0));
    assert!(text(&cases.stderr).contains("whose writing did not end"), "{}", text(&cases.stderr));
    let torn = place.ask(&["journal", "verify"]);
    let words = text(&torn.stdout);
    assert_eq!(torn.status.code(), Some(3), "{words}");
    assert!(words.lines().any(|line| line.split_whitespace().eq(["verdict", "torn"])), "{words}");
    assert_eq!(place.json(&["journal", "verify"])["verdict"], "torn");
    // The next start cuts it off, and all is well.
    assert_eq!(place.start().stop(), Some(0));
    assert_eq!(place.json(&["journal", "verify"])["verdict"], "whole");
    assert!(!text(&place.ask(&["cases"]).stderr).contains("did not end"));
}

/// A write that was cut off is of no consequence; a record that was acknowledged and is gone is. Only the index can tell them apart.
#[test]
fn an_acknowledged_record_that_was_cut_off_is_no_torn_end() {
    let place = Place::new("");
    let daemon = place.start();
    place.drop_in(b"wrong.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_proposals_total 1");
    let beside = place.json(&["journal", "verify"]);
    assert_eq!((&beside["verdict"], &beside["index_seen"]), (&"whole".into(), &serde_json::Value::Null));
    assert!(beside["index"].as_str().unwrap().contains("a running guard"), "{beside}");
    assert_eq!(daemon.stop(), Some(0));

    let index = || -> Vec<_> {
        let mut files: Vec<_> = std::fs::read_dir(place.at("state/index"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
            .iter()
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect()
    };
    let before = index();
    let whole = place.json(&["journal", "verify"]);
    let records = whole["records"].as_u64().unwrap();
    assert_eq!(
        (&whole["verdict"], whole["index_seen"].as_u64()),
        (&"whole".into(), Some(records)),
        "{whole}"
    );
    assert!(whole["index"].as_str().unwrap().starts_with("agrees"), "{whole}");

    let bytes = std::fs::read(segment(&place)).unwrap();
    let lines: Vec<usize> = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1)
        .collect();
    let (last, before_last) = (lines[lines.len() - 2], lines[lines.len() - 3]);
    for (cut, told) in [
        (last, "1 acknowledged record is missing"),
        (last + 20, "1 acknowledged record is missing"),
        (before_last + 20, "2 acknowledged records are missing"),
        (0, "acknowledged records are missing"),
    ] {
        std::fs::write(segment(&place), &bytes[..cut]).unwrap();
        let found = place.ask(&["journal", "verify"]);
        assert_eq!(found.status.code(), Some(1), "{cut}: {}", text(&found.stdout));
        assert!(text(&found.stdout).contains("damaged"), "{}", text(&found.stdout));
        let said = text(&found.stderr);
        assert!(
            said.contains(told) && said.contains(&format!("the index has seen record {records}")),
            "{said}"
        );
        assert!(said.contains("state/index"), "{said}");
    }
    // Without the index nobody can know, and that is said.
    std::fs::write(segment(&place), &bytes[..last + 20]).unwrap();
    assert!(index() == before, "the index was changed by being asked");
    std::fs::rename(place.at("state/index"), place.at("elsewhere")).unwrap();
    let found = place.json(&["journal", "verify"]);
    assert_eq!((&found["verdict"], &found["index_seen"]), (&"torn".into(), &serde_json::Value::Null));
    assert!(found["index"].as_str().unwrap().starts_with("none"), "{found}");
    std::fs::rename(place.at("elsewhere"), place.at("state/index")).unwrap();
    // A write that was cut off stays what it is.
    std::fs::write(segment(&place), [&bytes[..], b"00000040 0123456789abcdef"].concat()).unwrap();
    let found = place.json(&["journal", "verify"]);
    assert_eq!(
        (&found["verdict"], found["index_seen"].as_u64()),
        (&"torn".into(), Some(records)),
        "{found}"
    );
    // A damaged index says nothing, instead of something wrong.
    std::fs::write(place.at("state/index/db"), b"nonsense").unwrap();
    let found = place.json(&["journal", "verify"]);
    assert_eq!(found["verdict"], "torn", "{found}");
    let said = found["index"].as_str().unwrap();
    assert!(said.contains("the index cannot be read") || said.contains("is behind"), "{found}");
}
