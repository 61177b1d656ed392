//! The worker: one job in, as JSON on standard input; message lines out on standard output, the last one the outcome.
//!
//! By hand: `delta-guard-worker < job.json`. Exit code 0: done; 1: failed, the outcome line says why; 2: no job could be read.

use delta_guard_contract::job::OUTCOME_FILE;
use delta_guard_contract::{Fault, Job, Message, Outcome, Progress};
use delta_influence::error::Error;
use delta_influence::progress::Report;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Largest job that is read: a list of a million flagged ids fits.
const MAX_JOB: u64 = 256 << 20;

/// Message lines on what was standard output. Standard output itself is turned to standard error, because libtorch may write to it.
struct Lines {
    out: std::fs::File,
    last: Option<(String, Instant)>,
}

impl Lines {
    fn send(&mut self, message: &Message) {
        // Nobody listening is no reason to stop: the job's files are what counts, and the guard ends a job that it does not want.
        if let Ok(mut line) = serde_json::to_vec(message) {
            line.push(b'\n');
            let _ = self.out.write_all(&line);
        }
    }
}

impl Report for Lines {
    fn progress(&mut self, step: &str, done: u64, total: u64, note: &str) {
        let fresh = self
            .last
            .as_ref()
            .is_some_and(|(s, at)| s == step && at.elapsed() < Duration::from_millis(200));
        if fresh && done < total {
            return;
        }
        self.last = Some((step.to_string(), Instant::now()));
        self.send(&Message::Progress(Progress {
            step: step.into(),
            done,
            total,
            note: note.into(),
        }));
    }

    fn log(&mut self, message: &str) {
        self.send(&Message::Log { message: message.into() });
    }
}

fn main() -> ExitCode {
    delta_influence::device::use_huge_pages();
    // Closed in what it starts: the owner's trainer must not hold the guard's line open, nor speak on it.
    let out = match rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)
        .and_then(|fd| rustix::stdio::dup2_stdout(rustix::stdio::stderr()).map(|()| fd))
    {
        Ok(fd) => std::fs::File::from(fd),
        Err(error) => {
            eprintln!("error: cannot take over standard output: {error}");
            return ExitCode::from(2);
        }
    };
    let mut lines = Lines { out, last: None };
    let mut text = String::new();
    let job = std::io::stdin()
        .take(MAX_JOB)
        .read_to_string(&mut text)
        .map_err(|e| e.to_string())
        .and_then(|_| {
            if text.trim().is_empty() {
                return Err("it expects one job as JSON on standard input; delta-guard starts it by itself (`delta-guard --help`)".into());
            }
            serde_json::from_str::<Job>(&text).map_err(|e| format!("not a job: {e}"))
        });
    let job = match job {
        Ok(job) => job,
        Err(error) => {
            eprintln!("error: delta-guard-worker: {error}");
            lines.send(&Message::Outcome(Outcome::Failed {
                fault: Fault::internal(error),
            }));
            return ExitCode::from(2);
        }
    };
    // A panic is a defect, but one that is told like any other failure; nothing of the job is used after it.
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| delta_influence::jobs::run_to_file(&job, &mut lines)));
    let (outcome, code) = match ended {
        Ok(Ok(digest)) => (
            Outcome::Done {
                file: OUTCOME_FILE.into(),
                digest,
            },
            0,
        ),
        Ok(Err(error)) => (
            Outcome::Failed {
                fault: error.fault().clone(),
            },
            1,
        ),
        Err(panic) => (
            Outcome::Failed {
                fault: Error::of_panic(panic.as_ref()).fault().clone(),
            },
            1,
        ),
    };
    lines.send(&Message::Outcome(outcome));
    ExitCode::from(code)
}
