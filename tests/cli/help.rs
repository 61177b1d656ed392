//! What the program says of itself.

use super::daemon::{Place, program, text};

/// The commands that `--help` lists.
pub fn commands() -> Vec<String> {
    let help = text(&program(&["--help"]).stdout);
    let listed = help.split("\nCommands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .filter(|name| name != "help")
        .collect()
}

#[test]
fn every_command_explains_itself() {
    let commands = commands();
    assert!(commands.len() >= 15 && commands.contains(&"check-config".to_owned()), "{commands:?}");
    let page = include_str!("../../docs/cli.md");
    for command in &commands {
        let help = program(&[command, "--help"]);
        let said = text(&help.stdout);
        assert_eq!((help.status.code(), text(&help.stderr)), (Some(0), String::new()), "{command}");
        assert!(
            said.contains(&format!("Usage: delta-guard {command}")) && said.contains("Examples:") && said.contains("--config"),
            "{command}:\n{said}"
        );
        assert!(page.contains(&format!("`{command}`")), "docs/cli.md does not know {command}");
    }
}

/// README tells at the top what the first time costs.
#[test]
fn the_readme_tells_the_size_of_the_download() {
    let script = include_str!("../../scripts/libtorch.py");
    let mut lines = script.lines().map(str::trim);
    let mut bytes = 0u64;
    while let Some(line) = lines.next() {
        if line.ends_with(".whl\",") {
            bytes += lines.next().unwrap().trim_end_matches(',').parse::<u64>().unwrap();
        }
    }
    let told = format!("a download of {} MB", (bytes as f64 / 1e6).round());
    let top = include_str!("../../README.md").split("make demo ").next().unwrap();
    assert!(bytes > 0 && top.contains(&told), "{told} is not in README before the first command");
}

#[test]
fn the_exit_codes_of_the_help_are_those_of_the_page() {
    let help = text(&program(&["--help"]).stdout);
    let codes: Vec<&str> = help
        .split("Exit codes:\n")
        .nth(1)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().next().filter(|word| word.parse::<u8>().is_ok()))
        .collect();
    let page: Vec<&str> = include_str!("../../docs/cli.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next().filter(|word| word.parse::<u8>().is_ok()))
        .collect();
    assert_eq!(codes, page);
    assert_eq!(codes, ["0", "1", "2", "3", "78", "130"]);
}

#[test]
fn a_wrong_command_line_says_what_was_probably_meant() {
    for (arguments, words) in [
        (&["submitt"][..], &["unrecognized subcommand", "'submit'"][..]),
        (&["cases", "--stat", "held"], &["--state"]),
        (&["cases", "--state", "hold"], &["allowed:", "held", "no-anomaly"]),
        (&["submit"], &["<IMAGE>"]),
        (&["show"], &["<CASE>"]),
        (&["flagged", "--csv", "--json"], &["cannot be used with"]),
        (&["flagged", "8f3a", "--id", "dog/1.png"], &["cannot be used with"]),
        (&[], &["Usage: delta-guard", "Begin here:"]),
    ] {
        let wrong = program(arguments);
        assert_eq!(wrong.status.code(), Some(2), "{arguments:?}");
        assert!(wrong.stdout.is_empty(), "{arguments:?}");
        let said = text(&wrong.stderr);
        for word in words {
            assert!(said.contains(word), "{arguments:?}: {word} not in\n{said}");
        }
    }
    let version = program(&["--version"]);
    assert_eq!(
        (version.status.code(), text(&version.stdout)),
        (Some(0), format!("delta-guard {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn a_configuration_that_cannot_be_read_is_said_with_its_place() {
    let place = Place::new("");
    let good = std::fs::read_to_string(place.config()).unwrap();
    for (config, words) in [
        (String::new(), &["guard.yaml", "check-config --example"][..]),
        ("paths: [\n".into(), &["guard.yaml:"]),
        (
            format!("{good}detect: {{queris: 10}}\n"),
            &["guard.yaml:10:", "detect.queris", "did you mean \"queries\""],
        ),
        (good.replace("settle: 20ms", "settle: 20"), &["guard.yaml:4:", "inbox.settle"]),
        (good.replace("settle: 20ms", "settle: soon"), &["guard.yaml:4:", "inbox.settle"]),
        (good.replace("nice: 0", "nice: -1"), &["guard.yaml:7:", "worker.nice", "0 to 19"]),
        (
            good.replace("model.safetensors", "nowhere.safetensors"),
            &["guard.yaml:6:", "model.checkpoint", "help:"],
        ),
        (format!("{good}instance: again\n"), &["instance"]),
    ] {
        std::fs::write(place.config(), &config).unwrap();
        let checked = place.ask(&["check-config"]);
        let said = text(&checked.stderr);
        assert_eq!(checked.status.code(), Some(78), "{config}\n{said}{}", text(&checked.stdout));
        for word in words {
            assert!(said.contains(word), "{word} not in\n{said}\nof\n{config}");
        }
    }
    // A folder instead of a file.
    let folder = program(&["check-config", "--config", place.at("train").to_str().unwrap()]);
    assert_eq!(folder.status.code(), Some(78));
    assert!(text(&folder.stderr).contains("train"), "{}", text(&folder.stderr));
}
