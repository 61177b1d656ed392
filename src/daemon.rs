//! Wires journal, index, inbox and engine together, and stops them in order.

use crate::clock::SystemClock;
use crate::engine::entry::daemon::Note;
use crate::engine::{Engine, Hooks, Ledger, asked, keep_index};
use crate::inbox::{self, Inbox, Wake};
use crate::publish;
use crate::rights;
use crate::seed::Secret;
use crate::settings::Settings;
use crate::stop::{self, Stop};
use crate::vfs::Disk;
use anyhow::{Context, Result, anyhow};
use delta_guard_contract::Digest;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// How far the daemon is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// The journal was verified and is open.
    pub journal: bool,
    /// The inbox was listed at least once.
    pub scanned: bool,
    /// What keeps it from its work at the moment.
    pub trouble: Option<String>,
    /// The scan of the inbox that is under way makes no progress.
    pub stalled: Option<String>,
    /// What else somebody should know: files that have been waiting for long. No reason not to be ready.
    pub notes: Vec<String>,
}

impl Readiness {
    /// The journal is open, nothing more.
    fn opened() -> Self {
        Self {
            journal: true,
            ..Self::default()
        }
    }

    /// Is everything as it should be?
    pub fn is_ready(&self) -> bool {
        self.journal && self.scanned && self.trouble.is_none() && self.stalled.is_none()
    }
}

/// What the daemon gives to those around it.
pub struct Started {
    /// Journal and index: questions, pending messages.
    pub ledger: Arc<Ledger>,
    /// How far it is.
    pub readiness: watch::Receiver<Readiness>,
}

/// Run until `stop`. `started` gets the ledger as soon as the journal is open. Must be awaited on the runtime's own threads (see [`crate::jobs`]).
///
/// A running worker is ended on stop; its folder makes the next start go on where it was.
pub async fn run(settings: Settings, hooks: Arc<dyn Hooks>, stop: Stop, started: oneshot::Sender<Started>) -> Result<()> {
    let settings = Arc::new(settings);
    let (ledger, secret) = open(&settings, &hooks).await?;
    let (ledger, secret) = (Arc::new(ledger), Arc::new(secret));
    let (ready, readiness) = watch::channel(Readiness::opened());
    let first = Started {
        ledger: Arc::clone(&ledger),
        readiness,
    };
    let _ = started.send(first); // nobody may want it

    // The inbox must not go on when the engine fails, nor the other way round.
    let (stop_both, both) = stop::channel();
    let wake = Wake::default();
    let inbox = Inbox::new(Arc::clone(&settings), Arc::clone(&ledger), Arc::clone(&hooks), Arc::new(SystemClock)).stops_with(both.clone());
    let pulse = inbox.pulse();
    let scanner = scanner(inbox, wake.clone(), both.clone(), ready.clone(), Arc::clone(&ledger))?;
    let requests = tokio::spawn(asked::serve(Arc::clone(&ledger), Arc::clone(&settings), both.clone()));
    let index = tokio::spawn(keep_index(Arc::clone(&ledger), both.clone()));
    let watch = tokio::spawn(watch_scans(pulse, settings.inbox.stall, settings.inbox.dir.clone(), ready.clone()));
    let mut engine = tokio::spawn(
        Engine::new(
            Arc::clone(&ledger),
            Arc::clone(&settings),
            secret,
            (Arc::clone(&hooks), inbox::refused::return_picture),
            both,
        )
        .run(),
    );

    let mut asked = stop.clone();
    let early = tokio::select! {
        () = asked.stopped() => None,
        ended = &mut engine => Some(ended),
    };
    let outcome = match early {
        None => {
            stop_both.stop();
            engine.await
        }
        Some(ended) => {
            // Nothing can be recorded: no intake, no work. Whoever runs us decides how to go on (see `degraded`).
            if let Ok(Err(error)) = &ended {
                ready.send_modify(|now| now.trouble = Some(format!("{error:#}")));
            }
            stop_both.stop();
            ended
        }
    };
    wake.ring();
    // It hears of the stop itself.
    let _ = requests.await;
    let _ = index.await;
    watch.abort();
    ended(scanner, &settings.inbox.dir).await?;
    outcome.context("the engine panicked")?
}

/// Wait for the inbox's thread, but not for a file system that hangs.
async fn ended(scanner: std::thread::JoinHandle<()>, inbox: &Path) -> Result<()> {
    let joined = tokio::time::timeout(INBOX_GRACE, tokio::task::spawn_blocking(move || scanner.join())).await;
    match joined {
        Ok(joined) => joined
            .context("the inbox's thread was lost")?
            .map_err(|_| anyhow!("the inbox's thread panicked"))?,
        // A file system that hangs holds the thread in a system call; it ends with the process.
        Err(_) => tracing::error!(
            message = "The inbox's file system does not answer; its thread is left behind.",
            inbox = %inbox.display()
        ),
    }
    Ok(())
}

/// The inbox, on a thread of its own; what each scan reports becomes the daemon's readiness.
fn scanner(inbox: Inbox, wake: Wake, stop: Stop, ready: watch::Sender<Readiness>, ledger: Arc<Ledger>) -> Result<std::thread::JoinHandle<()>> {
    let body = move || {
        inbox::run(inbox, &wake, &stop, |report| {
            let trouble = report
                .trouble
                .clone()
                .or_else(|| ledger.poisoned().map(|why| format!("the journal is out of use: {why}")));
            ready.send_if_modified(|now| {
                let new = Readiness {
                    journal: true,
                    scanned: true,
                    trouble,
                    stalled: None,
                    notes: report.notes.clone(),
                };
                let changed = *now != new;
                *now = new;
                changed
            });
        });
    };
    std::thread::Builder::new()
        .name("inbox".into())
        .spawn(body)
        .context("the inbox's thread could not be started")
}

/// How long the inbox's thread is waited for at the end.
const INBOX_GRACE: Duration = Duration::from_secs(3);

/// Tell when a scan makes no progress, and when it does again.
async fn watch_scans(pulse: Arc<inbox::Pulse>, stall: Duration, dir: PathBuf, ready: watch::Sender<Readiness>) {
    let mut ticks = tokio::time::interval((stall / 4).max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        let stalled = pulse.is_stalled(stall).then(|| {
            format!(
                "the inbox {} has not answered for more than {} s: does its file system, or the one of the checkpoint, hang?",
                dir.display(),
                stall.as_secs()
            )
        });
        ready.send_if_modified(|now| {
            let changed = now.stalled != stalled;
            now.stalled = stalled;
            changed
        });
    }
}

/// Make the folders, clear what an earlier run left half done, open the ledger, and read the secret seed, or draw it at the first start.
async fn open(settings: &Arc<Settings>, hooks: &Arc<dyn Hooks>) -> Result<(Ledger, Secret)> {
    let (settings, hooks) = (Arc::clone(settings), Arc::clone(hooks));
    let opened = tokio::task::spawn_blocking(move || -> Result<(Ledger, Secret)> {
        for dir in [
            &settings.state_dir,
            &settings.spool_dir(),
            &settings.cases_dir(),
            &settings.candidates_dir,
            &settings.inbox.dir,
        ] {
            publish::make_dir(dir)?;
        }
        rights::share(&settings)?;
        // The lock of the journal comes first: another daemon's temporary files are not ours to clear.
        let ledger = Ledger::open(
            Arc::new(Disk),
            &settings.journal_dir(),
            &settings.index_dir(),
            Arc::new(SystemClock),
            hooks,
        )?;
        for dir in [&settings.spool_dir(), &settings.candidates_dir] {
            publish::remove_temporaries(dir)?;
        }
        let secret = Secret::open(&settings.state_dir)?;
        let json = serde_json::to_vec(&*settings)?;
        let digest = Digest(blake3::hash(&json).to_hex().to_string());
        ledger.note(Note::DaemonStarted {
            version: env!("CARGO_PKG_VERSION").into(),
            settings: digest,
        })?;
        Ok((ledger, secret))
    });
    opened.await.context("the start panicked")?
}
