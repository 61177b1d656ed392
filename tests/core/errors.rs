//! What the guard says when something is wrong, held word by word in `tests/snapshots/`, one file a room.
//!
//! To accept a change: `UPDATE_EXPECT=1 cargo test --release -p delta-guard --test core errors::`, then read the difference as a person who meets the error would.

use crate::workers::{DONE, fault};
use delta_guard::config::{self, Look};
use delta_guard::journal::JournalError;
use expect_test::expect_file;
use std::fmt::Write;
use std::path::Path;

#[test]
fn config() {
    let base = "paths: {inbox: in, state: state, candidates: out}\ndata: {train: {path: train}, validation: {path: val}}\nmodel: {architecture: resnet18, checkpoint: m.safetensors}\n";
    let mut told = String::new();
    for (when, text) in [
        ("nothing", String::new()),
        ("no YAML", "a: [".into()),
        ("an unknown key", format!("{base}recipee: {{}}\n")),
        ("an unknown key of a section", format!("{base}worker: {{treads: 2}}\n")),
        ("a word for a number", format!("{base}recipe: {{epochs: many}}\n")),
        ("a number out of bounds", format!("{base}gate: {{max_accuracy_drop: 2}}\n")),
        ("a word that is none of those known", format!("{base}mode: on\n")),
        ("a key that is missing", base.replace("state: state, ", "")),
        (
            "a size without a unit that is known",
            format!("{base}worker: {{memory_budget: 2 GBit}}\n"),
        ),
        ("two folders in one", base.replace("state: state", "state: in")),
        (
            "a login in clear",
            format!("{base}mail: {{host: mail.example.org, from: a@b.org, to: [c], username: u, password_file: /p, tls: none}}\n"),
        ),
        (
            "several mistakes at once",
            format!("{base}mode: on\nrecipe: {{epochs: 0}}\ndetec: {{}}\n"),
        ),
    ] {
        let error = match config::parse(&text, Path::new("/etc/guard.yaml"), Path::new("/base"), Look::AtTextOnly) {
            Ok(_) => panic!("{when}: no error"),
            Err(error) => error,
        };
        writeln!(told, "# {when}\n{error}\n").unwrap();
    }
    expect_file!["../snapshots/config.txt"].assert_eq(&told);
}

#[test]
fn journal() {
    let path = || "/state/journal/00000001.dgj".into();
    let mut told = String::new();
    for error in [
        JournalError::Io {
            what: "append to",
            path: path(),
            source: std::io::Error::from_raw_os_error(28),
        },
        JournalError::Locked {
            dir: "/state/journal".into(),
        },
        JournalError::Damage {
            segment: "00000001.dgj".into(),
            offset: 1234,
            seq: 9,
            what: "its digest does not fit".into(),
        },
        JournalError::Schema {
            segment: "00000001.dgj".into(),
            found: 99,
        },
        JournalError::Poisoned {
            why: "a record could not be taken back".into(),
        },
        JournalError::TooLarge {
            kind: "traced".into(),
            bytes: 9_000_000,
            most: 1_000_000,
        },
    ] {
        writeln!(told, "{:#}\n", anyhow::Error::from(error)).unwrap();
    }
    expect_file!["../snapshots/journal.txt"].assert_eq(&told);
}

#[test]
fn jobs() {
    let mut told = String::new();
    for (when, lines) in [
        ("no outcome", "exit 0".to_string()),
        ("last words", "echo oops >&2; exit 3".into()),
        ("a crash", "kill -SEGV $$".into()),
        ("killed", "kill -KILL $$".into()),
        ("a page that cannot be read", "kill -BUS $$".into()),
        (
            "another libtorch",
            "echo \"w: symbol lookup error: w: undefined symbol: _ZN3c10\" >&2; exit 127".into(),
        ),
        (
            "want of memory",
            "echo 'memory allocation of 34359738368 bytes failed' >&2; kill -ABRT $$".into(),
        ),
        ("no message", "echo hello".into()),
        ("half a message", "printf '{'".into()),
        ("done, and failed", format!("echo '{DONE}'; exit 1")),
        ("two outcomes", format!("echo '{DONE}'; echo '{DONE}'")),
    ] {
        let fault = fault(&lines);
        writeln!(told, "# {when}\n[{}] {fault}\n", fault.code.as_str()).unwrap();
    }
    expect_file!["../snapshots/jobs.txt"].assert_eq(&told);
}
