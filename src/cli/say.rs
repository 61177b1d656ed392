//! What is written for people: errors, tables, lines. And exit codes, which exist here and nowhere else.

use super::{advice, log};
use crate::config::ConfigError;
use crate::text::escape;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use delta_guard_contract::{Fault, FaultKind};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

/// How a command ended. The numbers are documented in `--help` and docs/cli.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; for a question: yes.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The answer is no.
    No = 3,
    /// The configuration is wrong.
    Config = 78,
    /// Interrupted (128 + SIGINT).
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// A failure with its exit code and what to do about it.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// One sentence.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
}

impl Failure {
    /// Make one.
    #[allow(clippy::new_ret_no_self, reason = "it is only ever wanted as an error")]
    pub fn new(exit: Exit, message: impl Into<String>, help: impl Into<String>) -> anyhow::Error {
        Self {
            exit,
            message: message.into(),
            help: help.into(),
        }
        .into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit code that an error asks for.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>())
        .map_or(Exit::Failed, |failure| failure.exit)
}

/// Write an error to standard error: one sentence, its causes, and what to do. `config`: what advised commands name. Returns the exit code.
pub fn failure(error: &anyhow::Error, config: &Path) -> Exit {
    let is_pipe = error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    });
    if is_pipe {
        return Exit::Done;
    }
    let (exit, help) = exit_and_help(error);
    let mut text = String::new();
    for (depth, cause) in error.chain().enumerate() {
        text.push_str(if depth == 0 { "error: " } else { "\n  because: " });
        text.push_str(&lines(&said(cause)));
    }
    if !help.is_empty() {
        text.push_str("\n  help: ");
        text.push_str(&lines(&advice::complete(&help, Some(config))));
    }
    if log::is_journal() {
        let before = log::prefix(tracing::Level::ERROR);
        text = text.lines().map(|line| format!("{before}{line}")).collect::<Vec<_>>().join("\n");
    }
    let _ = writeln!(io::stderr().lock(), "{text}");
    exit
}

/// An error of a long work that the command `again` goes on with: it says so, after what else is to be done.
pub fn goes_on(error: anyhow::Error, again: &str) -> anyhow::Error {
    let (exit, help) = exit_and_help(&error);
    let help = match (exit, help.is_empty()) {
        (Exit::Interrupted, _) | (_, true) => format!("`{again}` goes on from what is done"),
        (_, false) => format!("{help}; then `{again}` goes on from what is done"),
    };
    let causes: Vec<String> = error.chain().map(said).collect();
    Failure::new(exit, causes.join("\n  because: "), help)
}

/// What an error says, without its help: that belongs at the end.
fn said(cause: &(dyn std::error::Error + 'static)) -> String {
    cause
        .downcast_ref::<Fault>()
        .map_or_else(|| cause.to_string(), |fault| fault.message.clone())
}

/// Exit code and help of an error.
fn exit_and_help(error: &anyhow::Error) -> (Exit, String) {
    let mut help = String::new();
    let mut exit = Exit::Failed;
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            (exit, help) = (failure.exit, failure.help.clone());
        } else if cause.downcast_ref::<ConfigError>().is_some() {
            exit = Exit::Config;
        } else if let Some(fault) = cause.downcast_ref::<Fault>() {
            exit = if fault.kind == FaultKind::Configuration {
                Exit::Config
            } else {
                Exit::Failed
            };
            help = fault.help.clone();
        }
    }
    (exit, help)
}

/// Text of several lines without anything that could move the cursor or turn the reading direction.
pub fn lines(text: &str) -> String {
    // Our own messages hold no backslashes that would need doubling, but paths may: only what is invisible is escaped.
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// One line, made harmless; visible characters stay as they are.
pub fn plain(text: &str) -> String {
    if text
        .chars()
        .any(|c| c.is_control() || escape(c.encode_utf8(&mut [0; 4]).as_bytes()).len() > c.len_utf8() && c != '\\')
    {
        escape(text.as_bytes())
    } else {
        text.to_owned()
    }
}

/// Write to standard output.
///
/// # Errors
/// When it is closed.
pub fn out(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stdout.write_all(b"\n")?;
    }
    Ok(stdout.flush()?)
}

/// Write a value as JSON to standard output.
///
/// # Errors
/// When it is closed.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    out(&serde_json::to_string_pretty(value)?)
}

/// A line for people on standard error.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", lines(text));
}

/// A table: names of the columns (those that start with `>` are right-aligned), rows of texts. All cells are made harmless.
pub fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if io::stdout().is_terminal()
        && let Some(width) = table.width()
        && !fits(columns, &rows, width.into())
    {
        return list(columns, &rows);
    }
    let wide = io::stdout().is_terminal();
    table.set_content_arrangement(if wide {
        ContentArrangement::Dynamic
    } else {
        ContentArrangement::Disabled
    });
    table.set_header(columns.iter().map(|name| name.trim_start_matches('>').to_uppercase()));
    table.add_rows(rows);
    for (i, name) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(i) {
            column.set_padding((0, 2));
            if name.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A last column of free text may be wrapped; it then has at least this many places.
const LAST: usize = 16;

/// Do all columns but the last fit into a terminal's width as they are, and is there room for that one?
fn fits(columns: &[&str], rows: &[Vec<String>], width: usize) -> bool {
    let longest = |n: usize| {
        let name = columns[n].trim_start_matches('>').chars().count();
        let cells = rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count());
        cells.chain([name]).max().unwrap_or(0)
    };
    let last = columns.len().saturating_sub(1);
    let fixed: usize = (0..last).map(|n| longest(n) + 2).sum();
    fixed + longest(last).min(LAST) <= width
}

/// What is too wide for a table: the cells of each row under each other, with their names.
fn list(columns: &[&str], rows: &[Vec<String>]) -> String {
    let block = |row: &Vec<String>| {
        let lines = columns.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        lines
            .map(|(name, cell)| format!("{}: {cell}\n", name.trim_start_matches('>')))
            .collect::<String>()
    };
    rows.iter().map(block).collect::<Vec<_>>().join("\n")
}

/// `name: value` lines, values aligned.
pub fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) + 2;
    facts.iter().map(|(name, value)| format!("{name:<width$}{}\n", plain(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_others_wrote_reaches_the_terminal_as_a_command() {
        let shown = table(&["name", ">n"], [vec!["a\u{1b}[2Jb\r\nc\u{202e}d".into(), "1".into()]]);
        assert!(
            !shown.contains(['\u{1b}', '\r', '\u{202e}']) && shown.contains("\\u{1b}[2Jb\\r\\nc\\u{202e}d"),
            "{shown:?}"
        );
        assert_eq!(lines("a\n  b\u{7}"), "a\n  b\\u{7}");
        assert_eq!(plain("Füchse \\ 狐"), "Füchse \\ 狐");
    }

    /// Forty columns: nothing is cut or broken, and an empty cell takes no line.
    #[test]
    fn what_is_too_wide_for_a_table_is_a_list() {
        let columns = ["case", "state", ">flagged", "file"];
        let row = |flagged: &str, file: &str| ["8f3a8f3a8f3a", "proposed", flagged, file].map(String::from).to_vec();
        let rows = [row("120", "wrong.png"), row("", "a much longer name of a file.png")];
        assert!(fits(&columns, &rows, 60) && fits(&columns, &rows, 49) && !fits(&columns, &rows, 48));
        assert!(fits(&columns, &rows[..1], 42) && !fits(&columns, &rows[..1], 41));
        assert_eq!(
            list(&columns, &rows),
            "case: 8f3a8f3a8f3a\nstate: proposed\nflagged: 120\nfile: wrong.png\n\ncase: 8f3a8f3a8f3a\nstate: proposed\nfile: a much longer name of a file.png\n"
        );
    }

    #[test]
    fn numbers_stand_under_each_other() {
        let shown = table(&["name", ">n"], [vec!["a".into(), "1".into()], vec!["bb".into(), "100".into()]]);
        let ends: Vec<usize> = shown.lines().map(str::len).collect();
        assert_eq!(ends[1], ends[2], "{shown}");
    }
}
