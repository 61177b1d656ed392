//! Asking the guard for something: a request is laid into the state folder, and the journal says what came of it.

use super::{Exit, Failure, Global, lookup, say};
use crate::case::Case;
use crate::config::Config;
use crate::engine::asked::{self, Ask, Request};
use crate::engine::entry::approval::Note;
use crate::engine::{Book, Entry};
use crate::journal::Reader;
use crate::vfs::Disk;
use anyhow::Context;
use clap::Args;
use delta_guard_contract::Digest;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What every request takes.
#[derive(Debug, Args, serde::Serialize)]
pub(super) struct Wish {
    /// The case, or the first digits of its id
    pub case: String,
    /// Why, for the journal
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

impl Wish {
    /// Lay the request down and say what came of it. `ask` makes it of the case and the state folder.
    pub fn run(&self, global: &Global, ask: impl FnOnce(&Case, &Path) -> anyhow::Result<Ask>) -> anyhow::Result<Exit> {
        let config = global.load_text()?;
        let case = lookup::one(&config, &self.case)?;
        let state = &config.file.paths.state;
        let mut answers = Answers::from_now_on(state)?;
        let request = Request {
            ask: ask(&case, state).map_err(|error| denied(&config, error))?,
            reason: self.reason.clone(),
        };
        let id = asked::put(state, &request).map_err(|error| denied(&config, error))?;
        let begun = Instant::now();
        loop {
            if let Some((done, answer)) = answers.look(&id)? {
                if global.json {
                    say::json(&serde_json::json!({"case": case.id, "done": done, "answer": answer}))?;
                } else if done {
                    say::out(&format!("case {}: {answer}", case.id.short()))?;
                }
                return match done {
                    true => Ok(Exit::Done),
                    false => Err(Failure::new(Exit::No, format!("case {}: {answer}", case.id.short()), "")),
                };
            }
            if !runs(state) {
                if global.json {
                    say::json(&serde_json::json!({"case": case.id, "done": null, "answer": null}))?;
                } else {
                    say::out(&format!(
                        "case {}: the guard does not run now; it does this when it starts",
                        case.id.short()
                    ))?;
                }
                return Ok(Exit::Done);
            }
            if begun.elapsed() > PATIENCE {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("the guard has not answered for {} s", PATIENCE.as_secs()),
                    "the request stays where it is; `delta-guard cases` says how far the case is",
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn denied(config: &Config, error: anyhow::Error) -> anyhow::Error {
    let refused = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    if !refused {
        return error;
    }
    Failure::new(
        Exit::Failed,
        format!("the guard's folder {} may not be written: {error:#}", config.file.paths.state.display()),
        "ask as the guard's user, for example with sudo -u delta-guard",
    )
}

/// Does a guard work with this state folder? It holds the journal's lock.
fn runs(state: &Path) -> bool {
    match std::fs::File::open(state.join("journal/LOCK")) {
        // A lock that we get is given back at once; a guard that starts meanwhile tries again.
        Ok(lock) => matches!(lock.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)),
        Err(_) => false,
    }
}

/// Reads the journal as it grows.
struct Answers {
    reader: Reader,
    book: Book,
}

impl Answers {
    fn from_now_on(state: &Path) -> anyhow::Result<Self> {
        let mut answers = Self {
            reader: Reader::new(Arc::new(Disk), &state.join("journal")),
            book: Book::default(),
        };
        answers.look("")?;
        Ok(answers)
    }

    /// What came of the request of this id.
    fn look(&mut self, wanted: &str) -> anyhow::Result<Option<(bool, String)>> {
        let Self { reader, book } = self;
        let mut found = None;
        reader
            .read(&mut |record, _| {
                let (seq, at) = (record.seq, record.time);
                let entry = Entry::read(record)?;
                if let Entry::Approval(Note::Asked { id, done, answer, .. }) = &entry
                    && id == wanted
                {
                    found = Some((*done, answer.clone()));
                }
                book.fold(entry, seq, at)?;
                Ok(())
            })
            .context("the journal cannot be read")?;
        Ok(found)
    }
}

/// Lay a checkpoint down for the guard.
pub(super) fn lay_candidate(state: &Path, file: &Path) -> anyhow::Result<Digest> {
    asked::put_candidate(state, file).with_context(|| format!("the candidate {} cannot be handed over", file.display()))
}
