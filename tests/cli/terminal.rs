//! Readers that go away, and terminals that want no colour.

use super::daemon::{Place, text, wait_for};
use super::help::commands;
use std::process::{Command, Output};

const ESCAPE: char = '\u{1b}';

/// The program, its standard output (or its standard error) a pipe that nobody reads any more.
fn into_a_closed_pipe(arguments: &[&str], place: &Place, stderr: bool) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_delta-guard"));
    command.args(arguments).arg("--config").arg(place.config());
    if stderr {
        command.stderr(writer);
    } else {
        command.stdout(writer);
    }
    command.output().unwrap()
}

fn with_a_case() -> (Place, String) {
    let place = Place::new("");
    let daemon = place.start();
    place.drop_in(b"plain.png", "label=dog\nflag=3\n");
    daemon.wait_for_metric("delta_guard_proposals_total 1");
    assert_eq!(daemon.stop(), Some(0));
    let case = place.json(&["cases"])[0]["case"].as_str().unwrap().to_owned();
    (place, case)
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (place, case) = with_a_case();
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["check-config"],
        &["check-config", "--example"],
        &["check-config", "--schema"],
        &["cases"],
        &["cases", "--json"],
        &["show", &case],
        &["show", &case, "--json"],
        &["flagged"],
        &["flagged", "--csv"],
        &["fit"],
        &["fit", "--json"],
    ] {
        let ended = into_a_closed_pipe(arguments, &place, false);
        let said = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("Broken pipe"), "{arguments:?}: {said}");
    }
    // Where only the messages are lost the answer stays what it is.
    for (arguments, code) in [
        (&["cases"][..], 0),
        (&["cases", "--state", "held"], 0),
        (&["fit"], 0),
        (&["show", "ffff"], 3),
        (&["no-such-command"], 2),
        (&["trace", "missing.png"], 1),
    ] {
        assert_eq!(into_a_closed_pipe(arguments, &place, true).status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn what_is_no_terminal_gets_no_escape_codes() {
    let (place, case) = with_a_case();
    let commands = commands();
    let helps = commands.iter().map(|command| vec![command.as_str(), "--help"]);
    let others = [
        vec!["cases"],
        vec!["show", &case],
        vec!["flagged"],
        vec!["fit"],
        vec!["check-config"],
        vec!["no-such-command"],
        vec!["show", "ffff"],
    ];
    for arguments in helps.chain(others) {
        // Not even where somebody asks for colours on terminals.
        let output = Command::new(env!("CARGO_BIN_EXE_delta-guard"))
            .args(&arguments)
            .arg("--config")
            .arg(place.config())
            .env("TERM", "xterm-256color")
            .env_remove("CLICOLOR_FORCE")
            .output()
            .unwrap();
        for stream in [&output.stdout, &output.stderr] {
            assert!(!text(stream).contains(ESCAPE), "{arguments:?}: {:?}", text(stream));
        }
    }
}

/// What a terminal sees; None, out loud, where none can be had.
fn on_a_terminal(arguments: &str, no_color: bool) -> Option<String> {
    let mut command = Command::new("script");
    command
        .args(["-qec", &format!("{} {arguments}", env!("CARGO_BIN_EXE_delta-guard")), "/dev/null"])
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .env_remove("JOURNAL_STREAM");
    if no_color {
        command.env("NO_COLOR", "1");
    }
    match command.output() {
        Ok(output) => Some(text(&output.stdout)),
        Err(error) => {
            eprintln!("SKIPPED: colours on a terminal: script cannot be run: {error}");
            None
        }
    }
}

#[test]
fn no_color_is_respected_on_a_terminal() {
    let place = Place::new("");
    // A second daemon logs its start and is turned away: it needs no stopping.
    let daemon = place.start();
    let config = place.config();
    let run = format!("run --config {}", config.display());
    let cases = format!("cases --config {}", config.display());
    for (arguments, word) in [("--help", "Begin here"), (&run, "Guard starts"), (&cases, "no case in")] {
        let Some(plain) = on_a_terminal(arguments, true) else { return };
        assert!(plain.contains(word) && !plain.contains(ESCAPE), "{arguments}: {plain:?}");
    }
    // The log has colours where they are wanted, so that the above says something.
    let Some(coloured) = on_a_terminal(&run, false) else { return };
    assert!(coloured.contains(ESCAPE), "{coloured:?}");
    wait_for("the first daemon", || daemon.get("/readyz").filter(|(code, _)| *code == 200));
    assert_eq!(daemon.stop(), Some(0));
}
