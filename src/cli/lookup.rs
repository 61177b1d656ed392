//! Finds cases in the journal, with or without a running daemon.

use super::{Exit, Failure, say};
use crate::case::Case;
use crate::config::Config;
use crate::engine::query::{self, Salvage};
use std::io;
use std::path::Path;
use std::sync::OnceLock;

/// Is there a journal yet? That one may not be looked at is another answer than that there is none.
pub(super) fn journal(state: &Path) -> anyhow::Result<bool> {
    let journal = state.join("journal");
    match std::fs::read_dir(&journal) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::new(
            Exit::Failed,
            format!("the journal {} cannot be read: {error}", journal.display()),
            match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "become a member of the group that paths.group names, or ask as the guard's user (sudo -u delta-guard); only handing in a picture needs no more than the inbox"
                }
                _ => "",
            },
        )),
    }
}

/// All cases, in the order in which they were taken in.
pub(super) fn all(config: &Config) -> anyhow::Result<Vec<Case>> {
    let state = &config.file.paths.state;
    if !journal(state)? {
        return Ok(Vec::new());
    }
    Ok(read(state).book.cases.into_values().collect())
}

/// Everything that the journal says. What is wrong with it is said on standard error, and [`is_damaged`] remembers it for the exit code.
pub(super) fn read(state: &Path) -> Salvage {
    let dir = state.join("journal");
    let found = query::salvage(&dir);
    if let Some(torn) = &found.torn {
        say::note(&format!("note: {torn}; `delta-guard journal verify` asks the index, too"));
    }
    if let Some(error) = &found.damage {
        let because = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
        if DAMAGED.set(()).is_ok() {
            say::note(&format!(
                "warning: {error}{because}\n  The answer is from the {} records before it ({}).\n  help: `delta-guard journal verify` says more",
                found.book.records,
                dir.display()
            ));
        }
    }
    found
}

/// Set when an answer could not say everything.
static DAMAGED: OnceLock<()> = OnceLock::new();

/// Say what an answer lacks, and remember it for the exit code.
pub(super) fn incomplete(what: &str) {
    say::note(what);
    let _ = DAMAGED.set(());
}

/// Was a journal read that is damaged? Then no answer from it is a success.
pub(super) fn is_damaged() -> bool {
    DAMAGED.get().is_some()
}

/// The one case whose id starts with `prefix`.
pub(super) fn one(config: &Config, prefix: &str) -> anyhow::Result<Case> {
    let found: Vec<Case> = all(config)?
        .into_iter()
        .filter(|case| case.id.0.starts_with(&prefix.to_lowercase()))
        .collect();
    match <[Case; 1]>::try_from(found) {
        Ok([case]) => Ok(case),
        Err(found) if found.is_empty() => Err(Failure::new(
            Exit::No,
            format!("there is no case {prefix:?}"),
            "`delta-guard cases` lists them; the first digits of an id are enough",
        )),
        Err(found) => {
            let ids: Vec<&str> = found.iter().map(|case| case.id.short()).collect();
            Err(Failure::new(
                Exit::Failed,
                format!("{prefix:?} is the beginning of {} cases", found.len()),
                format!("write more digits: {}", ids.join(", ")),
            ))
        }
    }
}

/// Who answers: the journal's folder, for the message when there is nothing in it.
pub(super) fn nothing(state: &Path) -> String {
    if is_damaged() {
        return format!("no case before the damage in {}", state.display());
    }
    format!("no case in {} yet; `delta-guard submit PICTURE` makes one", state.display())
}
