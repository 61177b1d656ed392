//! The owner's own trainer: a program of theirs makes the candidate.

use super::{Outside, Own};
use crate::Recipe;
use crate::method::{Mistake, unless};
use crate::units::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Run the owner's own trainer, which is told what to leave out and where its checkpoint goes (docs/command.md). What it makes is verified and judged like any candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// The program and its arguments, one text each; no shell reads them. A program with a slash in its name is a path, any other is looked for in PATH.
    pub command: Vec<PathBuf>,
    /// Its working folder. Unset: a folder of the job.
    pub cwd: Option<PathBuf>,
    /// Longest time of one attempt. Unset: `worker.time_limits.unlearn` alone.
    pub deadline: Option<Span>,
    /// Time to save its work between SIGTERM and SIGKILL, less than `worker.stop_grace`.
    pub grace: Span,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            cwd: None,
            deadline: None,
            grace: Span(Duration::from_secs(15)),
        }
    }
}

impl Keys {
    /// Has the program's name a slash in it? Else it is looked for in PATH.
    pub fn is_path(program: &Path) -> bool {
        program.as_os_str().as_encoded_bytes().contains(&b'/')
    }
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        let named = self.command.first().is_some_and(|program| !program.as_os_str().is_empty());
        let mut found = Vec::from_iter(unless(
            named,
            "command",
            "names no program",
            "write the program and its arguments as a list, such as `command: [/opt/models/unlearn.sh, --amp]`",
        ));
        let time = self.deadline.is_none_or(|deadline| !deadline.0.is_zero());
        found.extend(unless(
            time,
            "deadline",
            "is zero",
            "write a length of time above zero, such as 12h, or leave it out",
        ));
        found
    }

    fn files(&mut self) -> Vec<&mut PathBuf> {
        let program = self.command.first_mut().filter(|program| Self::is_path(program));
        program.into_iter().chain(&mut self.cwd).collect()
    }
}

impl Own for Keys {
    fn about(&self) -> &'static str {
        "train by a program of the owner's, without the flagged examples"
    }

    fn effort(&self, _: &Recipe) -> String {
        match self.command.first() {
            Some(program) => format!("a run of {}", program.display()),
            None => "a run of a program that is still to be named".into(),
        }
    }

    fn outside(&self) -> Option<Outside<'_>> {
        Some(Outside {
            command: &self.command,
            cwd: self.cwd.as_deref(),
            deadline: self.deadline.map(|span| span.0),
            grace: self.grace.0,
        })
    }
}
