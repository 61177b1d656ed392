//! From the YAML file to checked settings. Every mistake is reported at once, each with its line.
//!
//! Three passes: the text is parsed ([`tree`]), held against the JSON schema of [`file::ConfigFile`] ([`check`]), then against the rules that no
//! schema can say ([`rules`]). Only a file without a mistake becomes [`Settings`](crate::settings::Settings).

pub mod check;
pub mod file;
mod probe;
mod proof;
pub(crate) mod rules;
mod settings;
pub mod tree;
pub mod units;

pub use file::ConfigFile;
pub use probe::{Tried, probe};

use check::Complaint;
use delta_guard_contract::method::METHOD;
use std::fmt;
use std::path::{Path, PathBuf};
use tree::{Document, KeyStep, Mark};

/// Are files and folders that the configuration names looked at?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Yes: they must be there and readable.
    AtFiles,
    /// No: the configuration is for another machine.
    AtTextOnly,
}

/// A configuration without a mistake.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read from, absolute.
    pub path: PathBuf,
    /// What it says, all paths absolute.
    pub file: ConfigFile,
    /// BLAKE3 of the text, hex.
    pub digest: String,
}

impl Config {
    /// Mistakes that were found later, each with its place in the file; None where there are none.
    pub fn mistakes(&self, findings: &[Complaint]) -> Option<ConfigError> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let text = without_mark(&text);
        let mut problems: Vec<Problem> = findings.iter().map(|finding| place(text, finding)).collect();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        (!problems.is_empty()).then(|| ConfigError {
            path: self.path.clone(),
            problems,
        })
    }
}

/// One mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// The key, as `a.b[2].c`; empty for the whole file.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What is allowed, or what to do.
    pub help: String,
    /// The line's text.
    #[serde(skip)]
    pub excerpt: String,
}

/// Every mistake of one configuration file.
#[derive(Clone, Debug)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.problems.len() {
            1 => write!(f, "the configuration {path} has a mistake")?,
            n => write!(f, "the configuration {path} has {n} mistakes")?,
        }
        for problem in &self.problems {
            f.write_str("\n\n")?;
            match problem.line {
                0 => write!(f, "{path}: ")?,
                line => write!(f, "{path}:{line}:{}: ", problem.column)?,
            }
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            f.write_str(&problem.what)?;
            if problem.line > 0 {
                write!(
                    f,
                    "\n  {:>4} | {}\n       | {}^",
                    problem.line,
                    problem.excerpt,
                    " ".repeat(problem.column.saturating_sub(1))
                )?;
            }
            if !problem.help.is_empty() {
                write!(f, "\n  help: {}", problem.help)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The JSON schema of the configuration file.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(ConfigFile).to_value()
}

/// Read and check the configuration file at `path`.
///
/// # Errors
/// Every mistake that was found.
pub fn load(path: &Path, look: Look) -> Result<Config, ConfigError> {
    let whole = |what: String, help: &str| ConfigError {
        path: path.to_owned(),
        problems: vec![Problem {
            line: 0,
            column: 0,
            key: String::new(),
            what,
            help: help.into(),
            excerpt: String::new(),
        }],
    };
    let absolute = std::path::absolute(path).map_err(|error| whole(format!("no absolute path: {error}"), ""))?;
    let bytes = std::fs::read(&absolute).map_err(|error| {
        whole(
            format!("cannot be read: {error}"),
            "name the file with --config, or write one: `delta-guard check-config --example` prints one with every key explained",
        )
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        let after = error.utf8_error().valid_up_to();
        let line = bytes[..after].iter().filter(|byte| **byte == b'\n').count() + 1;
        let what = match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is UTF-16, not UTF-8".to_owned(),
            _ => format!("is not UTF-8: line {line} holds the byte 0x{:02x}", bytes[after]),
        };
        whole(what, "save it again as UTF-8")
    })?;
    let base = absolute.parent().unwrap_or(Path::new("/"));
    let mut config = parse(&text, &absolute, base, look)?;
    if look == Look::AtFiles {
        rules::not_world_writable(&absolute)
            .map_err(|what| whole(what, "chmod o-w the file: whoever can write it decides what is trained and where it goes"))?;
    }
    config.path = absolute;
    Ok(config)
}

/// Check the text of a configuration; relative paths start at `base`, `path` is only named in messages.
///
/// # Errors
/// Every mistake that was found.
pub fn parse(text: &str, path: &Path, base: &Path, look: Look) -> Result<Config, ConfigError> {
    // YAML 1.2 §5.2: a byte order mark may stand before the document and is no part of it. The parser would take it for a document of its own.
    let text = without_mark(text);
    let fail = |problems| {
        Err(ConfigError {
            path: path.to_owned(),
            problems,
        })
    };
    let document = match tree::parse(text) {
        Ok(document) => document,
        Err(error) => return fail(vec![syntax(text, &error)]),
    };
    let schema = schema();
    let mut findings = check::check(&schema, &document.value);
    findings.extend(rules::image_keys(&document.value));
    findings.extend(document.duplicates.iter().map(|path| Complaint {
        path: path.clone(),
        mark: Mark::Key(1),
        what: "this key is written twice".into(),
        help: "keep one of the two".into(),
    }));
    let file = if findings.is_empty() {
        serde_json::from_value(document.value.clone()).map_err(|error| error.to_string())
    } else {
        mend(&document, &findings)
    };
    let file = match file {
        Ok(mut file) => {
            judge(&mut file, &document, base, look, &mut findings);
            Some(file)
        }
        Err(what) if findings.is_empty() => {
            findings.push(Complaint {
                path: Vec::new(),
                mark: Mark::Value,
                what,
                help: String::new(),
            });
            None
        }
        Err(_) => None,
    };
    match file {
        Some(file) if findings.is_empty() => Ok(Config {
            path: path.to_owned(),
            file,
            digest: blake3::hash(text.as_bytes()).to_hex().to_string(),
        }),
        _ => {
            let mut problems: Vec<Problem> = findings.iter().map(|finding| place(text, finding)).collect();
            problems.sort_by_key(|problem| (problem.line, problem.column));
            fail(problems)
        }
    }
}

/// The rules on a file whose form is right, or was mended.
fn judge(file: &mut ConfigFile, document: &Document, base: &Path, look: Look, findings: &mut Vec<Complaint>) {
    let as_in_a_shell = rules::as_in_a_shell(file);
    rules::make_absolute(file, base);
    let unread = rules::image_from_file(file, look);
    // Nothing more is said about such a path: made absolute, it is another one than was meant.
    let broken: Vec<_> = findings.iter().chain(&as_in_a_shell).map(|finding| finding.path.clone()).collect();
    // Where a key was replaced to go on, a rule would speak about the replacement.
    let about_text =
        |new: &Complaint| tree::reaches(&document.value, &new.path) && !broken.iter().any(|path| !path.is_empty() && new.path.starts_with(path));
    let all = rules::check(file, look);
    findings.extend(if broken.is_empty() {
        all
    } else {
        all.into_iter().filter(about_text).collect()
    });
    findings.extend(
        unread
            .into_iter()
            .filter(|finding| !as_in_a_shell.iter().any(|other| other.path == finding.path)),
    );
    findings.extend(as_in_a_shell);
}

/// A text without the byte order mark that some editors put before it.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// A configuration to hold the rules against although some keys broke the schema: those are taken out (with their parents, where that is not
/// enough), and what is required is put in their place.
fn mend(document: &Document, findings: &[Complaint]) -> Result<ConfigFile, String> {
    let mut why = String::new();
    for up in 0..3 {
        let mut value = document.value.clone();
        for finding in findings.iter().filter(|finding| finding.mark != Mark::Key(1)) {
            take_out(&mut value, &finding.path, up);
        }
        fill(&mut value, &required());
        match serde_json::from_value(value) {
            Ok(file) => return Ok(file),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// Removes the key at `path`, or `up` levels above it.
fn take_out(value: &mut serde_json::Value, path: &[KeyStep], up: usize) {
    let keys = path.iter().rposition(|step| matches!(step, KeyStep::Key(_))).map_or(0, |last| last + 1);
    // A union cannot be read without the key that tells its options apart: where that is wrong, the whole union goes.
    let tags = [KeyStep::Key("kind".into()), KeyStep::Key(METHOD.into())];
    let up = up + usize::from(keys > 0 && tags.contains(&path[keys - 1]));
    let path = &path[..keys.saturating_sub(up)];
    let Some((last, parents)) = path.split_last() else { return };
    let parent = parents.iter().try_fold(value, |node, step| match step {
        KeyStep::Key(key) => node.get_mut(key),
        KeyStep::Index(index) => node.get_mut(index),
    });
    if let (Some(map), KeyStep::Key(key)) = (parent.and_then(|node| node.as_object_mut()), last) {
        map.remove(key);
    }
}

/// Values for keys that have no default.
fn required() -> serde_json::Value {
    serde_json::json!({
        "paths": {"inbox": "/missing/inbox", "state": "/missing/state", "candidates": "/missing/candidates"},
        "data": {"train": {"path": "/missing/train"}, "validation": {"path": "/missing/validation"}},
        "model": {"architecture": "resnet18", "checkpoint": "/missing/checkpoint"},
        "mail": {"host": "localhost", "from": "a@localhost", "to": ["a@localhost"]},
    })
}

/// Puts what is missing in `value` there.
fn fill(value: &mut serde_json::Value, with: &serde_json::Value) {
    if let (Some(map), Some(with)) = (value.as_object_mut(), with.as_object()) {
        for (key, with) in with {
            match map.get_mut(key) {
                Some(inner) => fill(inner, with),
                None if key == "mail" => {}
                None => {
                    map.insert(key.clone(), with.clone());
                }
            }
        }
    }
}

/// Gives a finding its place in the text.
fn place(text: &str, finding: &Complaint) -> Problem {
    // What is missing has no place of its own: its parent's key is the nearest.
    let spot = tree::locate(text, &finding.path, finding.mark).or_else(|| {
        (1..=finding.path.len())
            .rev()
            .find_map(|n| tree::locate(text, &finding.path[..n], Mark::Key(0)))
    });
    let (line, column) = spot.unwrap_or((0, 0));
    Problem {
        line,
        column,
        key: tree::show_path(&finding.path),
        what: finding.what.clone(),
        help: finding.help.clone(),
        excerpt: excerpt(text, line),
    }
}

fn syntax(text: &str, error: &serde_yaml::Error) -> Problem {
    let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
    let help =
        "the file is not valid YAML here: look at the indentation (spaces, not tabs), the colons and the quotes of this line and the one above";
    Problem {
        line,
        column,
        key: String::new(),
        what: error.to_string(),
        help: help.into(),
        excerpt: excerpt(text, line),
    }
}

fn excerpt(text: &str, line: usize) -> String {
    let shown = line.checked_sub(1).and_then(|index| text.lines().nth(index)).unwrap_or_default();
    shown.chars().map(|c| if c.is_control() { ' ' } else { c }).take(160).collect()
}

/// The documented example, as it is installed.
pub const EXAMPLE: &str = include_str!("../../config/delta-guard.yaml");

#[cfg(test)]
mod tests;
