//! The owner's own trainer (docs/command.md): it is told what to leave out and where its checkpoint goes; what it makes is held against the network like any checkpoint.

mod output;
mod papers;
mod process;
mod signals;

use super::{Unlearner, Unlearning};
use crate::error::{Error, Result};
use crate::files;
use crate::model::weights::CheckpointFile;
use crate::model::{Model, Weights};
use crate::progress::Report;
use crate::train::Trained;
use delta_guard_contract::method::unlearn::command::Keys;
use delta_guard_contract::{Code, FaultKind, passing};
use output::{Log, Said};
use papers::Papers;
use process::{Ended, Trainer};
use signals::Heed;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};
use tch::{Device, Kind};

/// `EX_TEMPFAIL` of sysexits.h: "try again later".
const AGAIN: i32 = 75;
/// The step that progress is told of.
const STEP: &str = "command";
/// Units of that step: `progress 0.42` is 420 of them.
const UNITS: f64 = 1000.0;

impl Unlearner for Keys {
    fn unlearn(&self, case: &Unlearning<'_>, report: &mut dyn Report) -> Result<Trained> {
        let papers = Papers::lay_out(case)?;
        report.log(&format!(
            "starting {}, attempt {}; its output goes to {}",
            self.command.first().map_or_else(String::new, |program| program.display().to_string()),
            papers.attempt,
            case.out_dir.join(output::LOG).display()
        ));
        run(self, case, &papers, report)?;
        let weights = candidate(case, &papers.output)?;
        case.measured(Model::new(case.graph.clone(), weights.to(case.device, Kind::Float)), report)
    }
}

/// Run the program to its end, whatever end that is.
fn run(keys: &Keys, case: &Unlearning<'_>, papers: &Papers, report: &mut dyn Report) -> Result<()> {
    let heed = Heed::terminations()?;
    let mut log = Log::open(case.out_dir, papers.attempt)?;
    let mut command = command(keys, case, papers)?;
    let mut trainer = Trainer::start(&mut command).map_err(|error| not_started(&command, &error))?;
    let until = keys.deadline.map(|deadline| Instant::now() + deadline.0);
    let mut hear = |said: Said| match said {
        Said::Progress(share, note) => report.progress(STEP, (UNITS * share.min(0.999)) as u64, UNITS as u64, &note),
        Said::Line(line) => log.line(&line, false, report),
        Said::Complaint(line) => log.line(&line, true, report),
    };
    let ended = loop {
        trainer.hear().map(&mut hear);
        if let Some(status) = trainer.try_wait()? {
            break Ended::Itself(status);
        }
        if heed.asked() {
            break Ended::Stopped;
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            break Ended::Late;
        }
    };
    if !matches!(ended, Ended::Itself(_)) {
        trainer.stop(keys.grace.0, &mut hear);
    }
    // Those of its processes that it left running, too.
    trainer.end(&mut hear);
    drop(trainer);
    // Asked in the last moment: the guard does not wait for what follows.
    match if heed.asked() { Ended::Stopped } else { ended } {
        Ended::Itself(status) => judge(status, &log),
        Ended::Stopped => Err(Error::new(
            Code::WorkerKilled,
            "the command was stopped, because the worker was asked to end",
            "",
        )),
        Ended::Late => Err(late(keys, &log)),
    }
}

/// The program with its arguments, files and environment.
fn command(keys: &Keys, case: &Unlearning<'_>, papers: &Papers) -> Result<Command> {
    let [program, arguments @ ..] = &keys.command[..] else {
        return Err(Error::internal("a command without a program")); // `check` refuses it
    };
    let threads = tch::get_num_threads();
    let device = match case.device {
        Device::Cuda(n) => format!("cuda:{n}"),
        _ => "cpu".into(),
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(keys.cwd.as_deref().unwrap_or(&papers.folder))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // The service manager's words with the guard, and the guard's own secrets.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("CREDENTIALS_DIRECTORY")
        .env_remove("DELTA_GUARD_DEADLINE")
        .envs(papers.variables(case))
        .env("DELTA_GUARD_DEVICE", device)
        .env("DELTA_GUARD_THREADS", threads.to_string());
    if let Some(deadline) = keys.deadline {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        command.env("DELTA_GUARD_DEADLINE", (since + deadline.0).as_secs().to_string());
    }
    Ok(command)
}

fn not_started(command: &Command, error: &std::io::Error) -> Error {
    let message = format!("the command {} could not be started: {error}", command.get_program().to_string_lossy());
    match delta_guard_contract::is_passing(error) {
        true => Error::new(Code::NoAnswer, message, passing::HELP),
        false => Error::new(
            Code::CommandFailed,
            message,
            "unlearn.command must name a program that the guard's user may run, and unlearn.cwd a folder",
        ),
    }
}

/// What the way it ended means.
fn judge(status: ExitStatus, log: &Log) -> Result<()> {
    let (code, how) = match (status.code(), status.signal()) {
        (Some(0), _) => return Ok(()),
        (Some(AGAIN), _) => (Code::CommandAgain, format!("the command asks to be started again (exit code {AGAIN})")),
        (Some(code), _) => (Code::CommandFailed, format!("the command failed with exit code {code}")),
        (None, Some(signal)) => (Code::CommandAgain, format!("the command was ended by signal {signal}")),
        (None, None) => (Code::CommandFailed, format!("the command ended with {status}")),
    };
    let help = match code {
        Code::CommandAgain if status.signal() == Some(9) => {
            "most often the kernel ended it for want of memory: give it less to do at once, or the machine more"
        }
        Code::CommandAgain => "it is started again with the same DELTA_GUARD_RESUME; if that does not help, look at its output",
        _ => "mend what its output names; exit code 75 would have asked for another attempt",
    };
    Err(Error::new(code, log.with_tail(how), help))
}

fn late(keys: &Keys, log: &Log) -> Error {
    let deadline = keys.deadline.map_or_else(String::new, |deadline| deadline.to_string());
    Error::new(
        Code::TimeLimit,
        log.with_tail(format!("the command was stopped: it was not done within its deadline of {deadline}")),
        "it is started again with the same DELTA_GUARD_RESUME; raise unlearn.deadline, or give it less to do",
    )
}

/// The checkpoint that it made.
///
/// # Errors
/// `CandidateUnusable`: there is none, it is none of this network, it holds NaN or infinity, or it is the production model again.
fn candidate(case: &Unlearning<'_>, output: &Path) -> Result<Weights> {
    const HELP: &str = "the command must write its whole state dict, with the names and shapes of the production checkpoint, to $DELTA_GUARD_OUTPUT as safetensors (docs/command.md)";
    if files::look(output)?.is_none() {
        let message = format!("the command ended well, but left no checkpoint at {}", output.display());
        return Err(Error::new(Code::CandidateUnusable, message, HELP));
    }
    // Where production's file holds the network more than once, so may this one: the same copy of it is meant.
    let own = CheckpointFile {
        path: output,
        ..case.production_file
    };
    let read = own.or_alone().and_then(|own| Weights::load(own, case.graph, Kind::Float));
    let weights = read.map_err(|error| {
        let error = error.within(|| "what the command left cannot be used".into());
        // Want of memory and the like stay what they are.
        match error.fault().kind {
            FaultKind::Configuration => error.coded(Code::CandidateUnusable).helped(HELP),
            _ => error,
        }
    })?;
    if same(&weights, case.production)? {
        return Err(Error::new(
            Code::CandidateUnusable,
            "the command left the production model itself: every weight is the same, so nothing was unlearnt",
            "the command must train without the ids in $DELTA_GUARD_EXCLUDED, and write the new weights to $DELTA_GUARD_OUTPUT",
        ));
    }
    Ok(weights)
}

/// Are all numbers of the two the same? Counters do not count.
fn same(ours: &Weights, theirs: &Weights) -> Result<bool> {
    for (name, tensor) in ours.0.iter().filter(|(_, tensor)| tensor.is_floating_point()) {
        match theirs.0.get(name) {
            Some(other) if tensor.f_equal(&other.f_to_kind(tensor.kind())?)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// How long the loop waits for a word of the program before it looks whether it has ended.
const PATIENCE: Duration = Duration::from_millis(50);
