//! Commands that are advised. They are built from the command line's own types, so that a renamed option or a new required one cannot leave a wrong
//! advice behind, and they name the configuration where the usual one is not meant.

use super::ask::Wish;
use super::{Cli, Command, DEFAULT_CONFIG, approve, check_config, decline, demo, flagged, measure, resume, retry, run, show};
use clap::CommandFactory;
use delta_guard_contract::method::Name;
use delta_guard_contract::method::unlearn::Unlearner;
use serde_json::Value;
use std::path::Path;

/// A command that can be typed.
#[derive(Debug)]
pub struct Advice {
    command: Command,
    /// Where its standard output is sent.
    into: Option<String>,
}

/// `show CASE`.
pub fn show(case: &str) -> Advice {
    Advice::of(Command::Show(show::Show {
        case: case.into(),
        report: None,
    }))
}

/// `flagged CASE`.
pub fn flagged(case: &str) -> Advice {
    Advice::of(Command::Flagged(flagged::Flagged {
        case: Some(case.into()),
        id: None,
        csv: false,
    }))
}

/// `flagged CASE --csv > FILE`.
pub fn flagged_into(case: &str, file: &str) -> Advice {
    Advice {
        command: Command::Flagged(flagged::Flagged {
            case: Some(case.into()),
            id: None,
            csv: true,
        }),
        into: Some(file.into()),
    }
}

fn wish(case: &str) -> Wish {
    Wish {
        case: case.into(),
        reason: String::new(),
    }
}

/// `resume CASE`.
pub fn resume(case: &str) -> Advice {
    Advice::of(Command::Resume(resume::Resume { wish: wish(case) }))
}

/// `approve CASE`.
pub fn approve(case: &str) -> Advice {
    Advice::of(Command::Approve(approve::Approve {
        wish: wish(case),
        by_hand: false,
        undo: false,
    }))
}

/// `approve CASE --by-hand`.
pub fn approve_by_hand(case: &str) -> Advice {
    Advice::of(Command::Approve(approve::Approve {
        wish: wish(case),
        by_hand: true,
        undo: false,
    }))
}

/// `decline CASE`.
pub fn decline(case: &str) -> Advice {
    Advice::of(Command::Decline(decline::Decline { wish: wish(case) }))
}

/// `retry CASE`, by a method, or to judge a checkpoint of one's own.
pub fn retry(case: &str, method: Option<Name<Unlearner>>, candidate: Option<&Path>) -> Advice {
    Advice::of(Command::Retry(retry::Retry {
        wish: wish(case),
        method,
        candidate: candidate.map(Into::into),
        whole: false,
    }))
}

/// `check-config`.
pub fn check_config() -> Advice {
    Advice::of(Command::CheckConfig(check_config::CheckConfig::default()))
}

/// `measure`: production on the validation set.
pub fn measure() -> Advice {
    Advice::of(Command::Measure(measure::Measure::default()))
}

/// `run`.
pub fn run() -> Advice {
    Advice::of(Command::Run(run::Run::default()))
}

/// `demo …`.
pub(super) fn demo(demo: demo::Demo) -> Advice {
    Advice::of(Command::Demo(Box::new(demo)))
}

impl Advice {
    fn of(command: Command) -> Self {
        Self { command, into: None }
    }

    /// The command as it is typed into a shell. `config`: the configuration that it is about; None where that is not known.
    pub fn line(&self, config: Option<&Path>) -> String {
        // A path that is not Unicode cannot be written down.
        let more = words_of(&self.command, config_words(config)).unwrap_or_else(|| vec!["--help".into()]);
        let words = std::iter::once("delta-guard".to_owned()).chain(more);
        let mut line: Vec<String> = words.map(|word| quoted(&word)).collect();
        line.extend(self.into.iter().flat_map(|file| [">".to_owned(), quoted(file)]));
        line.join(" ")
    }
}

/// Names the configuration in the commands of a text that somebody wrote by hand: in each one between backticks that names none.
pub fn complete(text: &str, config: Option<&Path>) -> String {
    let more: String = config_words(config).iter().map(|word| format!(" {}", quoted(word))).collect();
    // Every second part stands between backticks.
    let parts = text.split('`').enumerate().map(|(n, part)| {
        let is_command = n % 2 == 1 && part.starts_with("delta-guard ");
        let names_one = ["--config", "-c ", "--help", "--example", "--schema", "demo", "evaluate"]
            .iter()
            .any(|word| part.contains(word));
        match part.split_once(" > ") {
            _ if !is_command || names_one => part.to_owned(),
            Some((command, file)) => format!("{command}{more} > {file}"),
            None => format!("{part}{more}"),
        }
    });
    parts.collect::<Vec<_>>().join("`")
}

/// `--config FILE`; nothing where the program would take that file by itself.
fn config_words(config: Option<&Path>) -> Vec<String> {
    match config.and_then(Path::to_str) {
        Some(path) if path != DEFAULT_CONFIG => vec!["--config".into(), path.into()],
        _ => Vec::new(),
    }
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    // Only a NUL cannot be quoted, and no argument holds one.
    shlex::try_quote(word).map_or_else(|_| word.to_owned(), |quoted| quoted.into_owned())
}

/// Name and arguments of a command: what its own type holds, under the names that its own command line has for it.
fn words_of(command: &Command, config: Vec<String>) -> Option<Vec<String>> {
    let value = serde_json::to_value(command).ok()?;
    let (name, fields) = value.as_object()?.iter().next()?;
    let cli = Cli::command();
    let known = cli.find_subcommand(name)?;
    let (mut options, mut places) = (Vec::new(), Vec::new());
    for argument in known.get_arguments() {
        let values: Vec<String> = match fields.get(argument.get_id().as_str()) {
            Some(Value::Array(list)) => list.iter().filter_map(word).collect(),
            Some(Value::Bool(true)) => {
                options.push(format!("--{}", argument.get_long()?));
                continue;
            }
            Some(other) => word(other).into_iter().collect(),
            None => continue,
        };
        if values
            .iter()
            .map(String::as_str)
            .eq(argument.get_default_values().iter().filter_map(|value| value.to_str()))
        {
            continue;
        }
        for value in values {
            match argument.get_long() {
                // One word where it could be taken for an option of its own.
                Some(long) if value.starts_with('-') => options.push(format!("--{long}={value}")),
                Some(long) => options.extend([format!("--{long}"), value]),
                None => places.push(value),
            }
        }
    }
    let dashed = places.iter().any(|place| place.starts_with('-'));
    let (before, dashes, after) = if dashed {
        (Vec::new(), vec!["--".into()], places)
    } else {
        (places, Vec::new(), Vec::new())
    };
    Some([vec![name.clone()], before, options, config, dashes, after].concat())
}

fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The file that a case's flagged examples are advised to be written to.
pub fn flagged_file(case: &str) -> String {
    format!("flagged-{case}.csv")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_what_its_type_holds_in_the_words_of_the_command_line() {
        let other = Some(Path::new("/etc/my guard.yaml"));
        assert_eq!(show("8f3a").line(None), "delta-guard show 8f3a");
        assert_eq!(show("8f3a").line(Some(Path::new(DEFAULT_CONFIG))), "delta-guard show 8f3a");
        assert_eq!(check_config().line(other), "delta-guard check-config --config '/etc/my guard.yaml'");
        assert_eq!(
            flagged_into("8f3a", "f.csv").line(other),
            "delta-guard flagged 8f3a --csv --config '/etc/my guard.yaml' > f.csv"
        );
        assert_eq!(
            retry("8f3a", Some("cf".parse().expect("a method")), None).line(None),
            "delta-guard retry 8f3a --method cf"
        );
        assert_eq!(
            retry("-8f", None, Some(Path::new("it's.safetensors"))).line(other),
            "delta-guard retry --candidate \"it's.safetensors\" --config '/etc/my guard.yaml' -- -8f"
        );
    }

    #[test]
    fn a_text_by_hand_gets_the_configuration() {
        let other = Some(Path::new("g.yaml"));
        assert_eq!(
            complete(
                "`delta-guard cases` or `delta-guard flagged --csv > f.csv`, `cases`, delta-guard cases",
                other
            ),
            "`delta-guard cases --config g.yaml` or `delta-guard flagged --csv --config g.yaml > f.csv`, `cases`, delta-guard cases"
        );
        for text in [
            "`delta-guard cases --config h.yaml`",
            "`delta-guard check-config --example`",
            "`delta-guard --help`",
        ] {
            assert_eq!(complete(text, other), text);
        }
        assert_eq!(complete("`delta-guard cases`", Some(Path::new(DEFAULT_CONFIG))), "`delta-guard cases`");
    }
}
