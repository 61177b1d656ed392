//! Every command that is advised somewhere can be typed: it is parsed by the command line itself, and what the program says to somebody is run.

use super::daemon::{Place, text, wait_for};
use super::smtp::Server;
use clap::Parser;
use clap::error::ErrorKind;
use delta_guard::cli::Cli;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Why the command line does not take a line; None where it does.
fn mistake(line: &str) -> Option<String> {
    // What follows is the shell's.
    let end = [" > ", " >> ", " 2> ", " 2>> ", " | ", " && ", " || "]
        .iter()
        .filter_map(|mark| line.find(mark))
        .min();
    let Some(words) = shlex::split(&line[..end.unwrap_or(line.len())]) else {
        return Some("quotes that do not close".into());
    };
    // Words to be replaced stand in capitals.
    let words = words.into_iter().map(|word| match word.as_str() {
        "NUMBER" => "10".into(),
        "COMMAND" => "show".into(),
        _ => word,
    });
    match Cli::try_parse_from(words) {
        Ok(_) => None,
        Err(error) if [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion].contains(&error.kind()) => None,
        Err(error) => Some(error.to_string()),
    }
}

/// The commands of a text: between backticks, and lines that begin with one (help texts, blocks of code).
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        found.extend(
            line.split('`')
                .skip(1)
                .step_by(2)
                .filter(|part| part.starts_with("delta-guard "))
                .map(String::from),
        );
        // The remark beside an example stands two blanks away.
        let alone = line
            .trim_start()
            .trim_start_matches("sudo -u delta-guard ")
            .split("   ")
            .next()
            .unwrap_or_default();
        // A mail's last line names program and version.
        let command = alone
            .strip_prefix("delta-guard ")
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
        if command && !alone.contains('`') {
            let alone = alone.split("  ").next().unwrap_or_default();
            found.push(alone.trim_end_matches("\")]").trim_end().to_owned());
        }
    }
    found
}

fn files(folder: &Path, suffixes: &[&str], into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, suffixes, into);
        } else if suffixes.iter().any(|suffix| path.extension().is_some_and(|found| found == *suffix)) {
            into.push(path);
        }
    }
}

#[test]
fn every_command_that_is_written_down_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    for folder in ["src", "ml/src", "contract/src", "docs", "config", "systemd"] {
        files(&root.join(folder), &["rs", "md", "yaml", "yml", "service"], &mut all);
    }
    let (mut seen, mut wrong) = (0, Vec::new());
    for file in all {
        for command in commands(&std::fs::read_to_string(&file).unwrap()) {
            // Journal keys and the like: a derivation context is no command.
            if command.ends_with(" v1") {
                continue;
            }
            seen += 1;
            if let Some(why) = mistake(&command) {
                wrong.push(format!("{}: `{command}`: {}", file.display(), why.lines().next().unwrap_or_default()));
            }
        }
    }
    assert!(seen > 60, "only {seen} commands found");
    assert!(wrong.is_empty(), "{} of {seen}:\n{}", wrong.len(), wrong.join("\n"));
    // The measure tells one from the other.
    for line in [
        "delta-guard certify a.safetensors --anomaly b.png",
        "delta-guard show",
        "delta-guard unlearn --method cf",
        "delta-guard graph",
        "delta-guard hold",
    ] {
        assert!(mistake(line).is_some(), "{line}");
    }
}

/// As somebody types it into a shell, in the folder where their files are.
fn typed(line: &str, folder: &Path) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_delta-guard"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    Command::new("sh")
        .args(["-c", line])
        .current_dir(folder)
        .env("PATH", path)
        .env_remove("DELTA_GUARD_CONFIG")
        .output()
        .unwrap()
}

/// A report's text as a reader sees it: `<code>` stands for backticks.
fn read_html(page: &str) -> String {
    let text = page
        .replace("<code>", "\n`")
        .replace("</code>", "`\n")
        .replace("<pre>", "\n")
        .replace("</pre>", "\n")
        .replace("<br>", "\n");
    text.replace("&gt;", ">")
        .replace("&lt;", "<")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&#39;", "'")
}

/// A mail as a reader sees it (its lines were cut by quoted-printable).
fn read_mail(raw: &str) -> String {
    read_html(&raw.replace("=\r\n", "").replace("=20", " ").replace("=3D", "="))
}

/// Runs what `shown` advises, in its order; returns the commands.
fn follow(place: &Place, shown: &str, already: &mut BTreeSet<String>) {
    let config = place.config().display().to_string();
    let folder = place.at("desk of somebody");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("mine.safetensors"), "weights of somebody").unwrap();
    for command in commands(shown) {
        assert_eq!(mistake(&command), None, "{command}");
        assert!(command.contains(&config), "`{command}` is about another configuration");
        // What goes on or waits for a daemon, and a picture that only the reader has.
        if !already.insert(command.clone()) || command.starts_with("delta-guard run") || command.contains("PICTURE") {
            continue;
        }
        let done = typed(&command, &folder);
        let said = text(&done.stderr);
        let right = done.status.code() == Some(0);
        assert!(right, "`{command}` ended with {}: {said}\nadvised in:\n{shown}", done.status);
    }
}

/// One end of each kind, by each method; what is said of them on the terminal, in the report and in the mail.
#[test]
fn what_is_advised_about_a_case_works_when_it_is_typed() {
    for method in ["eu", "cf"] {
        let server = Server::start(&[]);
        let place = Place::new(&format!(
            "mail: {{host: 127.0.0.1, port: {}, tls: none, from: guard@example.org, to: [oncall@example.org]}}\nunlearn: {{method: {method}}}",
            server.port
        ));
        let daemon = place.start();
        let ends = [
            ("a.png", "label=dog\nflag=30\nafter=ship\n", "proposed"),
            ("b.png", "label=dog\nflag=31\nafter=dog\n", "rejected"),
            ("c.png", "label=dog\nverdict=undecided\n", "undecided"),
            ("d.png", "label=dog\nfault=trace:configuration\n", "held"),
            ("e.png", "BROKEN", "refused"),
        ];
        for (name, words, _) in ends {
            place.drop_in(name.as_bytes(), words);
        }
        wait_for("every case", || {
            let cases = place.json(&["cases"]);
            let states: BTreeSet<&str> = cases.as_array()?.iter().filter_map(|case| case["state"].as_str()).collect();
            // An end is told a moment after it is reached.
            let told = std::fs::read_dir(place.at("state/cases"))
                .ok()?
                .filter(|case| case.as_ref().is_ok_and(|case| case.path().join("report.html").exists()));
            (states == ends.iter().map(|(_, _, end)| *end).collect() && told.count() == ends.len()).then_some(())
        });
        daemon.wait_for_metric("delta_guard_outbox_length 0");
        assert_eq!(daemon.stop(), Some(0));
        let mut followed = BTreeSet::new();
        for case in place.json(&["cases"]).as_array().unwrap() {
            let (id, state) = (case["case"].as_str().unwrap(), case["state"].as_str().unwrap());
            let shown = text(&place.ask(&["show", id]).stdout);
            assert!(!commands(&shown).is_empty(), "{shown}");
            follow(&place, &shown, &mut followed);
            let report = place.json(&["show", id])["paths"]["report"].as_str().unwrap().to_owned();
            let page = std::fs::read_to_string(&report).unwrap_or_else(|error| panic!("no report of {id}, {state}: {error}"));
            follow(&place, &read_html(&page), &mut followed);
        }
        for mail in server.taken.lock().unwrap().iter() {
            let mail = read_mail(&mail.raw);
            assert!(!commands(&mail).is_empty(), "{mail}");
            follow(&place, &mail, &mut followed);
        }
        // A method that failed is not advised again.
        let other = if method == "eu" { "--method cf" } else { "--method eu" };
        let by_method: Vec<_> = followed.iter().filter(|command| command.contains("--method")).collect();
        assert!(
            !by_method.is_empty() && by_method.iter().all(|command| command.contains(other)),
            "{by_method:?}"
        );
        for start in ["retry", "resume", "approve", "show", "flagged"] {
            assert!(
                followed.iter().any(|command| command.starts_with(&format!("delta-guard {start} "))),
                "{start}: {followed:?}"
            );
        }
    }
}

#[test]
fn what_an_error_advises_works_when_it_is_typed() {
    let place = Place::new("");
    let picture = place.at("a picture.png");
    std::fs::write(&picture, "label=dog\n").unwrap();
    let picture = picture.to_str().unwrap();
    let mut followed = BTreeSet::new();
    for (arguments, advises) in [
        (&["cases"][..], "delta-guard submit"),
        (&["submit", picture], "delta-guard run"),
        (&["show", "ffff"], "delta-guard cases"),
    ] {
        let said = text(&place.ask(arguments).stderr);
        assert!(
            commands(&said).iter().any(|command| command.starts_with(advises)),
            "{arguments:?}: {said}"
        );
        follow(&place, &said, &mut followed);
    }
    assert_eq!(place.start().stop(), Some(0));
    let late = text(&place.ask(&["submit", picture, "--wait", "--timeout", "0"]).stderr);
    assert!(commands(&late).iter().any(|command| command.starts_with("delta-guard cases")), "{late}");
    follow(&place, &late, &mut followed);
}
