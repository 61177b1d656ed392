//! The daemon's log under journald and elsewhere: one line an event, one priority a line, fields that can be read back.

use super::daemon::{Place, wait_for};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

/// `JOURNAL_STREAM` for a file that stands for the journal.
fn stream(place: &Place) -> String {
    let log = std::fs::File::create(place.at("log")).unwrap();
    let meta = log.metadata().unwrap();
    format!("{}:{}", meta.dev(), meta.ino())
}

/// What stood between the quotes.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.extend(letters.next().map(|next| if next == 'n' { '\n' } else { next })),
            other => out.push(other),
        }
    }
    out
}

/// A line's fields: logfmt, read back.
fn fields(line: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = line;
    while let Some(at) = rest.find('=') {
        let key = rest[..at].rsplit(' ').next().unwrap().to_owned();
        rest = &rest[at + 1..];
        let value = if let Some(quoted) = rest.strip_prefix('"') {
            let mut end = 0;
            let bytes = quoted.as_bytes();
            while bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            rest = &quoted[end + 1..];
            unescaped(&quoted[..end])
        } else {
            let end = rest.find(' ').unwrap_or(rest.len());
            let value = &rest[..end];
            rest = &rest[end..];
            value.to_owned()
        };
        found.insert(key, value);
    }
    found
}

#[test]
fn every_line_for_the_journal_has_its_priority_and_its_fields_read_back() {
    let place = Place::new("");
    let mut program = Command::new(env!("CARGO_BIN_EXE_delta-guard"));
    program.env("JOURNAL_STREAM", stream(&place)).env_remove("RUST_LOG");
    let daemon = place.start_by(program);
    place.drop_in(b"a \"b\"=c\n<0>boom.png", "label=dog\nflag=3\n");
    place.drop_in(b"broken.png", "BROKEN");
    place.drop_in(b"held.png", "label=dog\nfault=trace:configuration\n");
    daemon.wait_for_metric("delta_guard_proposals_total 1");
    daemon.wait_for_metric("delta_guard_cases_ended_total{end=\"refused\"} 1");
    daemon.wait_for_metric("delta_guard_cases_held 1");
    let lines = daemon.log();
    assert_eq!(daemon.stop(), Some(0));
    let mut seen = BTreeMap::new();
    for line in lines.lines() {
        let (priority, said) = line.split_at_checked(3).unwrap_or_default();
        assert!(["<3>", "<4>", "<6>"].contains(&priority), "{line}");
        assert!(!said.starts_with('<') && !said.contains('\u{1b}'), "{line}");
        let sentence = said.split(". ").next().unwrap_or_default().trim_end_matches('.');
        seen.insert(sentence.to_owned(), (priority.to_owned(), fields(said)));
    }
    let level = |sentence: &str| seen.get(sentence).unwrap_or_else(|| panic!("{sentence} not in\n{lines}")).0.as_str();
    assert_eq!(
        (
            level("Guard starts"),
            level("Case ended"),
            level("File refused"),
            level("Case held"),
            level("Stage failed")
        ),
        ("<6>", "<6>", "<4>", "<4>", "<3>")
    );
    let accepted: Vec<String> = lines
        .lines()
        .filter(|line| line.contains("Picture accepted."))
        .filter_map(|line| fields(line).remove("file"))
        .collect();
    // The journal keeps the name with its line end escaped, and so it is shown.
    assert!(accepted.contains(&"a \"b\"=c\\n<0>boom.png".to_owned()), "{accepted:?}");
}

#[test]
fn a_failure_for_the_journal_is_an_error_on_each_line_and_elsewhere_nothing_is_put_before() {
    let place = Place::new("inbox2: {}\nmode: enforced");
    for (stream, before) in [(stream(&place), "<3>"), ("1:2".to_owned(), ""), (String::new(), "")] {
        let log = std::fs::File::options().write(true).truncate(true).open(place.at("log")).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_delta-guard"));
        program
            .args(["run", "--config"])
            .arg(place.config())
            .env("JOURNAL_STREAM", &stream)
            .stdin(Stdio::null())
            .stderr(log);
        assert_eq!(program.status().unwrap().code(), Some(78));
        let said = std::fs::read_to_string(place.at("log")).unwrap();
        assert!(
            said.lines().count() > 4
                && said
                    .lines()
                    .all(|line| line.starts_with(before) && line.starts_with('<') != before.is_empty()),
            "{stream}: {said}"
        );
    }
    // Outside the journal a line has its time and its level.
    let place = Place::new("");
    let daemon = place.start();
    wait_for("a line", || daemon.log().lines().next().map(|_| ()));
    let first = daemon.log().lines().next().unwrap().to_owned();
    assert!(first.contains("Z  INFO Guard starts. version=") && first.starts_with("20"), "{first}");
    assert_eq!(daemon.stop(), Some(0));
}

/// Three lines of progress, not sixty thousand.
#[test]
fn a_stage_writes_a_line_at_each_tenth_only() {
    let place = Place::new("");
    let daemon = place.start();
    place.drop_in(b"wrong.png", "label=dog\nflag=3\nmany=yes\n");
    daemon.wait_for_metric("delta_guard_proposals_total 1");
    let log = daemon.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("Stage under way.") && line.contains("stage=trace"))
        .map(fields)
        .collect();
    let percents: Vec<u32> = lines.iter().map(|line| line["percent"].parse().unwrap()).collect();
    assert!((3..=10).contains(&percents.len()), "{log}");
    assert!(percents.is_sorted_by(|a, b| a / 10 < b / 10), "{percents:?}");
    assert!(lines.iter().all(|line| ["score", "kin"].contains(&line["step"].as_str())), "{lines:?}");
    assert_eq!(daemon.stop(), Some(0));
}
