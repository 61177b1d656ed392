//! Runs a worker's job from the command line: no daemon, no journal. Progress goes to standard error, as bars on a terminal and as lines otherwise.

use super::{Exit, Failure, Global, say, signals};
use crate::config::{self, Config, Look};
use crate::jobs::{self, Local, Runner};
use crate::progress::{Along, Tenths};
use crate::publish::{self, Draft};
use crate::seed::Secret;
use crate::story::done;
use anyhow::Context;
use delta_guard_contract::{Job, JobResult, Message, PROTOCOL, Seed, Task, WorkerSetup};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A worker's means, with folders inside `out`.
fn setup_in(out: &Path, worker: &config::file::Worker) -> WorkerSetup {
    WorkerSetup {
        cache_dir: out.join("state/cache"),
        factors_dir: out.join("state/factors"),
        device: worker.device,
        threads: worker.threads,
        memory_budget: worker.memory_budget.0,
        query_budget: worker.query_budget.0,
        memory_limit: worker.memory_limit.map_or(0, |size| size.0),
    }
}

impl Global {
    /// Read and check the configuration.
    pub(super) fn load(&self) -> anyhow::Result<Config> {
        Ok(config::load(&self.config, Look::AtFiles)?)
    }

    /// The same for a command that makes a checkpoint: the production one need not be there yet.
    pub(super) fn load_to_train(&self) -> anyhow::Result<Config> {
        match config::load(&self.config, Look::AtFiles) {
            Err(error) if error.problems.iter().all(|problem| problem.key == "model.checkpoint") => self.load_text(),
            other => Ok(other?),
        }
    }

    /// Runs jobs for a story in the folder `out`, with the caches that its daemon will use. What an earlier start of the story has done is taken as it is.
    pub(super) fn runner(&self, out: &Path) -> anyhow::Result<impl FnMut(&Path, Task) -> anyhow::Result<JobResult> + '_> {
        self.runner_with(out, &config::file::Worker::default())
    }

    /// The same with other means.
    pub(super) fn runner_with<'a>(
        &'a self,
        out: &Path,
        worker: &config::file::Worker,
    ) -> anyhow::Result<impl FnMut(&Path, Task) -> anyhow::Result<JobResult> + use<'a>> {
        let program = match &worker.command {
            Some(program) => program.clone(),
            None => std::env::current_exe()
                .context("cannot tell where this program lies")?
                .with_file_name("delta-guard-worker"),
        };
        Ok(self.runner_by(setup_in(out, worker), program))
    }

    /// The same with the means of a configuration: its program, device, threads and memory. Its folders are not used.
    pub(super) fn runner_as(
        &self,
        out: &Path,
        file: &config::file::ConfigFile,
    ) -> anyhow::Result<impl FnMut(&Path, Task) -> anyhow::Result<JobResult> + '_> {
        Ok(self.runner_by(setup_in(out, &file.worker), file.worker_path()?))
    }

    fn runner_by(&self, setup: WorkerSetup, program: PathBuf) -> impl FnMut(&Path, Task) -> anyhow::Result<JobResult> + '_ {
        move |folder: &Path, task: Task| {
            if let Some(result) = done::find(folder, &task) {
                return Ok(result);
            }
            let result = self.work_with(&program, setup.clone(), folder, task.clone())?;
            done::note(folder, &task, &result)?;
            Ok(result)
        }
    }

    /// Read the configuration without looking at the files that it names: for commands that only ask what happened.
    pub(super) fn load_text(&self) -> anyhow::Result<Config> {
        Ok(config::load(&self.config, Look::AtTextOnly)?)
    }

    /// Run a job in `out_dir` and wait for its result.
    pub(super) fn work(&self, config: &Config, out_dir: &Path, task: Task) -> anyhow::Result<JobResult> {
        self.work_with(&config.file.worker_path()?, config.file.worker_setup(), out_dir, task)
    }

    /// As [`Global::work`], with program and means given.
    pub(super) fn work_with(&self, program: &Path, setup: WorkerSetup, out_dir: &Path, task: Task) -> anyhow::Result<JobResult> {
        let job = Job {
            v: PROTOCOL,
            setup,
            out_dir: absolute(out_dir)?,
            task,
        };
        // Heard from here on, before there is a worker to lose.
        let stop = signals::for_a_command()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the runtime cannot start")?;
        runtime.block_on(async {
            let mut bar = Reporter::new(self.quiet, job.task.name());
            let runner = Local::for_a_command(program);
            // The user's patience is the limit.
            let outcome = runner.run(&job, Duration::MAX, stop, &mut |message| bar.say(&message)).await;
            bar.finish();
            match outcome {
                Ok(result) => Ok(result),
                Err(jobs::Failure::Fault(fault)) => Err(anyhow::Error::new(fault)),
                Err(jobs::Failure::Stopped) => Err(Failure::new(
                    Exit::Interrupted,
                    "interrupted",
                    format!("the same command goes on from what lies in {}", job.out_dir.display()),
                )),
            }
        })
    }
}

/// The folder for a command that was not given one: below the state folder, named by what the work depends on, so that a repetition finds it.
pub(super) fn work_dir(config: &Config, command: &str, parts: &[&[u8]]) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    hasher.update(config.digest.as_bytes());
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    config
        .file
        .paths
        .state
        .join("work")
        .join(format!("{command}-{}", &hasher.finalize().to_hex()[..12]))
}

/// The seed of the factors that the daemon of this configuration uses, so that both find the same ones.
///
/// # Errors
/// When the installation's secret cannot be read, or drawn where there is none yet.
pub(super) fn factors_seed(config: &Config) -> anyhow::Result<Seed> {
    let state = &config.file.paths.state;
    // A configured seed needs no secret.
    if let Some(seed) = config.file.detect.common.seed {
        return Ok(Seed(seed));
    }
    publish::make_dir(state)?;
    Ok(Secret::open(state)?.factors())
}

/// An absolute path, for a job.
pub(super) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} cannot be made an absolute path", path.display()))
}

/// The result has another shape than the task asks for.
pub(super) fn unexpected(result: &JobResult) -> anyhow::Error {
    let shown: String = format!("{result:?}").chars().take(60).collect();
    Failure::new(
        Exit::Failed,
        format!("the worker answered another question: {shown}"),
        "guard and worker must be of the same version",
    )
}

/// Shows how far a job is: one bar on a terminal, elsewhere a line for its first report and for each tenth.
struct Reporter {
    quiet: bool,
    terminal: bool,
    along: Along,
    tenths: Tenths,
    told: bool,
    bar: Option<ProgressBar>,
}

impl Reporter {
    fn new(quiet: bool, command: &str) -> Self {
        Self {
            quiet,
            terminal: std::io::stderr().is_terminal(),
            along: Along::new(command),
            tenths: Tenths::default(),
            told: false,
            bar: None,
        }
    }

    fn say(&mut self, message: &Message) {
        if self.quiet {
            return;
        }
        match message {
            Message::Progress(progress) => {
                let now = self.along.hear(progress, Instant::now());
                let note = if progress.note.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", progress.note)
                };
                let text = say::plain(&format!("{now}{note}"));
                if self.terminal {
                    let bar = self.bar.get_or_insert_with(bar);
                    bar.set_position((1000.0 * now.ratio) as u64);
                    bar.set_message(text);
                } else if self.tenths.next(&now) || !self.told {
                    self.told = true;
                    say::note(&text);
                }
            }
            Message::Log { message } => match &self.bar {
                Some(bar) => bar.println(say::plain(message)),
                None => say::note(message),
            },
            Message::Outcome(_) => {}
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}

/// In thousandths of the job.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:12.green/dim} {wide_msg}");
    ProgressBar::new(1000).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─"))
}

/// May a checkpoint be put there? Asked before the work as well, which may take hours. Returns a file that can become it.
///
/// # Errors
/// When the folder cannot be written, or it is the production checkpoint's place.
pub(super) fn may_keep(config: &Config, wanted: &Path) -> anyhow::Result<Draft> {
    let wanted = absolute(wanted)?;
    let folder = wanted.parent().unwrap_or(Path::new("/"));
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    if real(&wanted) == real(&config.file.model.checkpoint) {
        return Err(Failure::new(
            Exit::Failed,
            format!(
                "{} is the production checkpoint (model.checkpoint), which is never written",
                wanted.display()
            ),
            "name another file with --out",
        ));
    }
    if wanted.is_dir() {
        return Err(Failure::new(
            Exit::Failed,
            format!("{} is a folder", wanted.display()),
            "name the file with --out",
        ));
    }
    Draft::new(folder, "made", 0o600).with_context(|| format!("cannot write into {}", folder.display()))
}

/// Copy a checkpoint to where it is wanted, whole or not at all; never onto the production one.
pub(super) fn keep(config: &Config, made: &Path, wanted: &Path) -> anyhow::Result<()> {
    let mut draft = may_keep(config, wanted)?;
    draft.copy_of(made)?;
    let wanted = absolute(wanted)?;
    draft.put(&wanted).with_context(|| wanted.display().to_string())
}
