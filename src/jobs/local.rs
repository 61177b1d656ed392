//! Workers as processes on this machine.

use super::child::{self, Group};
use super::lines::{Lines, StderrTail};
use super::{Failure, Hear, Runner, Running, broken, last_words, result};
use crate::case::bounds;
use crate::stop::Stop;
use delta_guard_contract::{Code, Digest, Fault, FaultKind, Job, JobResult, Message, Outcome, Progress, is_passing, passing};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// Most bytes of one line of a worker: progress, a sentence for the log, a fault's words, the name of the result.
pub const MAX_LINE: usize = 16 << 20;
/// How much of what a worker writes on standard error is kept for the fault.
pub const STDERR_TAIL: usize = 64 << 10;

/// In the message of a worker that there is none of.
pub const NOT_STARTED: &str = "could not be started";

/// On this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    /// The worker program.
    pub program: PathBuf,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// The worker is at least so nice, nicer when the guard is; None: as nice as the guard.
    pub nice: Option<i32>,
}

impl Local {
    /// For the command line: the user's niceness, and five seconds to put things in order.
    pub fn for_a_command(program: &Path) -> Self {
        Self {
            program: program.to_path_buf(),
            grace: Duration::from_secs(5),
            nice: None,
        }
    }
}

impl Runner for Local {
    fn run<'a>(&'a self, job: &'a Job, limit: Duration, stop: Stop, hear: Hear<'a>) -> Running<'a> {
        Box::pin(run(self, job, limit, stop, hear))
    }
}

async fn run(launch: &Local, job: &Job, limit: Duration, mut stop: Stop, on_message: Hear<'_>) -> Result<JobResult, Failure> {
    let input = serde_json::to_vec(job).map_err(|error| Fault::internal(format!("the job cannot be written as JSON: {error}")))?;
    let mut child = start(launch)?;
    // From here on everything that ends this function ends the group.
    let group = Group::of(&child);
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
        return Err(Fault::internal("the worker was started without its pipes").into());
    };
    let feed = async move {
        // A worker that ends before it has read everything says why in its own words.
        let _ = stdin.write_all(&input).await;
        let _ = stdin.shutdown().await;
    };
    let mut tail = StderrTail::new(STDERR_TAIL);
    let ended = {
        let conversation = async {
            let (outcome, ()) = tokio::join!(listen(Lines::new(stdout, MAX_LINE), &mut *on_message), async {
                tokio::join!(feed, tail.follow(stderr));
            });
            outcome
        };
        let exit = async {
            let status = child.wait().await;
            // What it started itself must not hold its pipes open.
            group.kill();
            status.map_err(|error| Fault::internal(format!("the worker's end could not be seen: {error}")))
        };
        tokio::select! {
            both = async { tokio::try_join!(conversation, exit) } => Ended::Spoke(both),
            () = stop.stopped() => Ended::Stopped,
            () = tokio::time::sleep(limit.min(FOREVER)) => Ended::Late,
        }
    };
    match ended {
        Ended::Spoke(Err(fault)) => {
            end(&mut child, &group, launch.grace).await;
            Err(with_tail(fault, &tail).into())
        }
        Ended::Spoke(Ok((Some(Outcome::Failed { fault }), status))) if status.code().is_some() => Err(fault.into()),
        Ended::Spoke(Ok((outcome, status))) => match judge(outcome, status) {
            Ok((file, digest)) => Ok(result::read(&job.out_dir, file, digest).await?),
            Err(fault) => {
                let known = last_words::fault(&tail.text(), std::env::var_os("LD_LIBRARY_PATH").as_deref());
                Err(known.unwrap_or_else(|| with_tail(fault, &tail)).into())
            }
        },
        Ended::Stopped => {
            end(&mut child, &group, launch.grace).await;
            Err(Failure::Stopped)
        }
        Ended::Late => {
            end(&mut child, &group, launch.grace).await;
            Err(with_tail(late(limit), &tail).into())
        }
    }
}

fn late(limit: Duration) -> Fault {
    Fault::new(
        Code::TimeLimit,
        format!("the worker did not finish within its time limit of {} s", limit.as_secs()),
        "give the stage more time (worker.time_limits), or less to do",
    )
}

fn start(launch: &Local) -> Result<Child, Fault> {
    let mut command = Command::new(&launch.program);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    child::prepare(command.as_std_mut(), launch.nice, rustix::process::Signal::KILL);
    let child = command.spawn().map_err(|error| spawn_fault(launch, &error))?;
    if let Some(nice) = launch.nice.filter(|nice| !child::is_nice(&child, *nice)) {
        tracing::warn!(
            message = "The worker could not be made as nice as configured; it works all the same.",
            nice,
            key = "worker.nice"
        );
    }
    Ok(child)
}

/// tokio's timer takes no `Duration::MAX`.
const FOREVER: Duration = Duration::from_secs(86_400 * 365 * 30);

enum Ended {
    Spoke(Result<(Option<Outcome>, ExitStatus), Fault>),
    Stopped,
    Late,
}

/// Read the worker's lines to their end. The outcome must be the last.
async fn listen(mut lines: Lines<tokio::process::ChildStdout>, on_message: Hear<'_>) -> Result<Option<Outcome>, Fault> {
    let mut outcome = None;
    while let Some(line) = lines
        .next()
        .await
        .map_err(|error| broken(format!("the worker's output could not be read: {error}")))?
    {
        if outcome.is_some() {
            return Err(broken("the worker went on after its outcome"));
        }
        match serde_json::from_slice(line) {
            Ok(Message::Outcome(said)) => outcome = Some(said),
            Ok(message) => on_message(shortened(message)),
            Err(error) => {
                let shown = crate::text::escape(&line[..line.len().min(200)]);
                return Err(broken(format!("the worker said something that is no message ({error}): {shown}")));
            }
        }
    }
    Ok(outcome)
}

/// What a worker says on its way goes into a log: a line, not a flood.
fn shortened(message: Message) -> Message {
    match message {
        Message::Progress(progress) => Message::Progress(Progress {
            step: bounds::cut(&progress.step, 100),
            note: bounds::cut(&progress.note, bounds::SENTENCE),
            ..progress
        }),
        Message::Log { message } => Message::Log {
            message: bounds::cut(&message, bounds::NOTE),
        },
        Message::Outcome(outcome) => Message::Outcome(outcome),
    }
}

/// What the outcome and the way the process ended mean together: the file that holds the result, and its digest.
fn judge(outcome: Option<Outcome>, status: ExitStatus) -> Result<(String, Digest), Fault> {
    use std::os::unix::process::ExitStatusExt;
    match (outcome, status.signal()) {
        (Some(Outcome::Failed { fault }), _) => Err(fault),
        (Some(Outcome::Done { file, digest }), None) if status.success() => Ok((file, digest)),
        (_, Some(9)) => Err(Fault::new(
            Code::WorkerKilled,
            "the worker was killed (signal 9)",
            "most often the kernel ended it for want of memory: lower worker.memory_budget or worker.query_budget, or give the machine more",
        )),
        // Files are read through memory maps: where a page cannot be had from the disk, this signal is all that is told.
        (_, Some(7)) => Err(Fault::new(
            Code::NoAnswer,
            "the worker was ended while it read a file (signal 7)",
            format!("a file in worker.cache_dir could not be read, or was cut short: {}", passing::HELP),
        )),
        (_, Some(signal)) => Err(broken(format!("the worker crashed (signal {signal})"))),
        (Some(Outcome::Done { .. }), None) => Err(broken(format!("the worker said that it is done, but ended with {status}"))),
        (None, None) => Err(broken(format!("the worker ended without an outcome, with {status}"))),
    }
}

/// Ask the group to end, then end it.
async fn end(child: &mut Child, group: &Group, grace: Duration) {
    group.terminate();
    // Whatever the wait says, the group is killed next.
    let _ = tokio::time::timeout(grace, child.wait()).await;
    group.kill();
    let _ = child.wait().await;
}

fn spawn_fault(launch: &Local, error: &io::Error) -> Fault {
    let message = format!("the worker {} {NOT_STARTED}: {error}", launch.program.display());
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            Fault::new(Code::WorkerUnusable, message, "set worker.command to the program delta-guard-worker")
        }
        io::ErrorKind::OutOfMemory => Fault::new(Code::OutOfMemory, message, ""),
        _ if is_passing(error) => Fault::passing(message),
        _ => Fault::internal(message),
    }
}

/// A fault that is not the worker's own word gets the end of its standard error.
fn with_tail(mut fault: Fault, tail: &StderrTail) -> Fault {
    let said = tail.text();
    if !said.is_empty() && matches!(fault.kind, FaultKind::Internal | FaultKind::Resource) {
        fault.message.push_str("; the last that it wrote on standard error:\n");
        fault.message.push_str(&said);
    }
    fault
}
