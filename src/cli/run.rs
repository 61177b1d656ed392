//! `run`: the daemon.

use super::{Exit, Failure, Global, log, prove, signals};
use crate::alert::trouble::Outage;
use crate::alert::{self, mailer};
use crate::config::Config;
use crate::config::file::{ConfigFile, Mail};
use crate::config::rules::host_of;
use crate::daemon::{self, Readiness, Started};
use crate::degraded::{self, Degraded};
use crate::engine::{Happening, Hooks as _, Ledger};
use crate::hooks::{LedgerOutbox, Outward};
use crate::http::{self, Api};
use crate::metrics::Metrics;
use crate::publish;
use crate::settings::Settings;
use crate::stop::{self, Stop};
use anyhow::Context;
use clap::Args;
use sd_notify::NotifyState;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

/// Microseconds that looking at an exported network may take before systemd gives the start up.
const PROVING: u32 = 11 * 60 * 1_000_000;
/// Name of the file in the state folder that holds the address that is listened on.
const ADDRESS_FILE: &str = "http.address";

/// Run the daemon: watch the inbox, trace and repair, until it is asked to stop
#[derive(Debug, Default, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard run --config guard.yaml
  delta-guard run --log-json 2>> guard.log
  RUST_LOG=delta_guard=debug delta-guard run

It stops on SIGTERM and SIGINT: the worker saves what it has done, and the next start goes on from there.
Where nothing can be recorded (a damaged journal, a full disk) it stays up, says why and goes on by itself.
The configuration is read at the start only. The address that it listens on is also in STATE/http.address.

Exit codes: 0 stopped as asked, 1 failed, 78 the configuration is wrong")]
pub struct Run {
    /// Log one JSON object a line
    #[arg(long)]
    log_json: bool,
}

impl Run {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load()?;
        let settings = config.settings()?;
        // Whatever we were started with: what is not meant for others gives them no rights.
        let private = rustix::fs::Mode::from_raw_mode(0o077);
        let was = rustix::process::umask(private);
        rustix::process::umask(was | private);
        log::to_stderr(self.log_json)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(8)
            .enable_all()
            .build()
            .context("the runtime cannot start")?;
        let done = runtime.block_on(guard(config, settings));
        // A question over HTTP that still reads must not keep the process.
        runtime.shutdown_timeout(Duration::from_secs(1));
        done.map(|()| Exit::Done)
    }
}

/// Tell systemd, where it started us.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(message = "systemd could not be told.", %error);
    }
}

/// Everything from the first signal handler to the last answer.
async fn guard(config: Config, settings: Settings) -> anyhow::Result<()> {
    let (stopper, stop) = stop::channel();
    signals::for_the_daemon(stopper, || {
        info!(message = "Guard was asked to stop.");
        tell(&[NotifyState::Stopping]);
    })?;
    let mode = serde_json::to_value(settings.mode)?;
    let metrics = Arc::new(Metrics::new(&settings.instance, mode.as_str().unwrap_or_default()));
    let mail = config.file.mail.clone();
    let hooks = Arc::new(Outward::new(Arc::clone(&metrics), mail.clone()));
    let api = Arc::new(Api::new(Arc::clone(&metrics), Arc::new(settings.clone())));

    // The port first: two daemons are a mistake that should show at once. It stays open until everything else has ended.
    let (stop_http, http_stop) = stop::channel();
    let (address, answering) = answer(&config.file, &api, http_stop).await?;
    let (state_dir, inbox, cases_dir) = (settings.state_dir.clone(), settings.inbox.dir.clone(), settings.cases_dir());
    let scan_interval = settings.inbox.scan_interval;
    info!(
        message = "Guard starts.",
        version = env!("CARGO_PKG_VERSION"),
        instance = %settings.instance,
        mode = mode.as_str(),
        inbox = %inbox.display(),
        listening = %address.map_or_else(|| "nowhere".to_owned(), |address| format!("http://{address}")),
        config = %config.path.display(),
    );

    // For systemd that takes as long as it takes.
    tell(&[NotifyState::ExtendTimeoutUsec(PROVING)]);
    prove::at_the_start(&settings, stop.clone()).await?;

    let around = Around {
        hooks: Arc::clone(&hooks),
        metrics: Arc::clone(&metrics),
        api: Arc::clone(&api),
        mail,
        state_dir: state_dir.clone(),
        address,
        scan_interval,
        cases_dir,
    };
    let done = lives(settings, around, stop).await;
    tell(&[NotifyState::Stopping]);
    stop_http.stop();
    if let Some(answering) = answering {
        let _ = answering.await;
    }
    match &done {
        // Another guard's file must stay: we never wrote ours when its journal was locked.
        Ok(()) => {
            let _ = fs_err::remove_file(state_dir.join(ADDRESS_FILE));
            info!(message = "Guard stopped.");
        }
        Err(_) => error!(message = "Guard ended by a failure."),
    }
    done
}

/// Listen where the configuration says, and answer until `stop`.
async fn answer(file: &ConfigFile, api: &Arc<Api>, stop: Stop) -> anyhow::Result<(Option<SocketAddr>, Option<JoinHandle<()>>)> {
    let Some(listen) = file.http.listen else { return Ok((None, None)) };
    let listener = http::bind(listen).await.map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("{error:#}"),
            "is another guard running? http.listen names the address; port 0 takes a free one, `off` listens nowhere",
        )
    })?;
    let address = listener.local_addr()?;
    let (api, mut hosts) = (Arc::clone(api), file.http.allowed_hosts.clone());
    hosts.extend(file.http.public_url.as_deref().and_then(host_of));
    let answering = tokio::spawn(async move {
        if let Err(error) = http::serve(listener, api, &hosts, stop).await {
            error!(message = "HTTP ended.", error = format!("{error:#}"));
        }
    });
    Ok((Some(address), Some(answering)))
}

/// What runs beside the daemon.
#[derive(Clone)]
struct Around {
    hooks: Arc<Outward>,
    metrics: Arc<Metrics>,
    api: Arc<Api>,
    mail: Option<Mail>,
    state_dir: PathBuf,
    address: Option<SocketAddr>,
    scan_interval: Duration,
    cases_dir: PathBuf,
}

/// After a life of this length the next failure is a first one again.
const LONG_LIFE: Duration = Duration::from_secs(600);
/// The same trouble is mailed again after this.
const TELL_AGAIN: Duration = Duration::from_secs(4 * 3600);

/// Run the daemon; where it cannot record anything, stay up, say so, and run it again when that may have changed.
async fn lives(settings: Settings, around: Around, mut stop: Stop) -> anyhow::Result<()> {
    let (mut tries, mut lived) = (0, false);
    let mut told: Option<(String, Instant)> = None;
    loop {
        let began = Instant::now();
        let (started, on_start) = oneshot::channel::<Started>();
        let (stop_mail, mail_stop) = watch::channel(false);
        let (opened, was_opened) = oneshot::channel();
        let beside = tokio::spawn(around.clone().run(on_start, opened, mail_stop));
        let hooks: Arc<dyn crate::engine::Hooks> = Arc::clone(&around.hooks) as _;
        let done = daemon::run(settings.clone(), hooks, stop.clone(), started).await;
        // Without a mail section nobody hears this.
        stop_mail.send_replace(true);
        beside.abort();
        // Its hold on the journal must be gone before the journal is opened again.
        let _ = beside.await;
        let Err(error) = done else { return Ok(()) };
        lived |= was_opened.await.is_ok();
        // One that ends again at once is no better than one that never began.
        if began.elapsed() > LONG_LIFE {
            tries = 0;
        }
        let Some(trouble) = Degraded::from(&error, lived) else {
            return Err(error);
        };
        if stop.is_stopped() {
            return Err(error);
        }
        around.api.degraded(&trouble.why);
        around.metrics.set_broken();
        let is_new = told.as_ref().is_none_or(|(why, at)| *why != trouble.why || at.elapsed() > TELL_AGAIN);
        let mut mailing = None;
        if is_new {
            told = Some((trouble.why.clone(), Instant::now()));
            around.hooks.on(Happening::Degraded {
                why: trouble.why.clone(),
                help: trouble.help.clone(),
            });
            mailing = around.tell_owner(&settings, &trouble);
        }
        write_address(&around.state_dir, around.address);
        let status = format!("cannot work: {}", crate::text::escape(trouble.why.as_bytes()));
        // For systemd it has started, and it is alive: restarting it mends nothing.
        tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
        let better = tokio::select! {
            better = until_better(&trouble, &settings, &mut tries, lived, &mut stop) => better,
            () = keep_alive() => false,
        };
        if !better {
            if let Some(mailing) = mailing {
                mailing.abort();
            }
            return Ok(());
        }
    }
}

/// Wait until another try is worth it, and make the journal fit for it; false when the guard is asked to stop.
async fn until_better(trouble: &Degraded, settings: &Settings, tries: &mut u32, lived: bool, stop: &mut Stop) -> bool {
    loop {
        let better = trouble.wait(settings, *tries, stop).await;
        *tries += 1;
        if !better || !lived {
            return better;
        }
        let dir = settings.clone();
        match tokio::task::spawn_blocking(move || degraded::renew(&dir)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => warn!(message = "Journal cannot be opened again yet.", error = format!("{error:#}")),
            Err(error) => warn!(message = "Journal cannot be opened again yet.", %error),
        }
    }
}

/// Tell systemd that the process is alive, for ever.
async fn keep_alive() {
    loop {
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(beat()).await;
    }
}

/// Between two signs of life.
fn beat() -> Duration {
    sd_notify::watchdog_enabled()
        .map_or(Duration::from_secs(30), |limit| limit / 3)
        .max(Duration::from_millis(100))
}

impl Around {
    /// Answer, watch and mail from when the journal is open until aborted.
    async fn run(self, on_start: oneshot::Receiver<Started>, opened: oneshot::Sender<()>, mail_stop: watch::Receiver<bool>) {
        let Some(started) = wait_for(on_start).await else { return };
        let _ = opened.send(());
        self.hooks.on(Happening::Working);
        self.api.started(Arc::clone(&started.ledger), started.readiness.clone());
        write_address(&self.state_dir, self.address);
        let wake = Arc::new(Notify::new());
        let follow = follow_journal(Arc::clone(&started.ledger), Arc::clone(&wake), Arc::clone(&self.metrics));
        let send = async {
            match self.mail.clone() {
                Some(mail) => {
                    mailer::run(
                        mail,
                        Arc::new(LedgerOutbox {
                            ledger: Arc::clone(&started.ledger),
                            cases_dir: self.cases_dir.clone(),
                        }),
                        Arc::clone(&self.metrics),
                        wake,
                        mail_stop,
                    )
                    .await
                }
                None => std::future::pending().await,
            }
        };
        let watch = watch_over(
            started.readiness.clone(),
            Arc::clone(&started.ledger),
            &self.hooks,
            &self.metrics,
            self.scan_interval,
        );
        tokio::select! {
            () = follow => {}
            () = send => {}
            () = watch => {}
        }
    }

    /// A mail about the guard itself, where mails are sent.
    fn tell_owner(&self, settings: &Settings, trouble: &Degraded) -> Option<tokio::task::JoinHandle<()>> {
        let mail = self.mail.clone()?;
        let (metrics, trouble) = (
            Arc::clone(&self.metrics),
            Outage {
                instance: settings.instance.clone(),
                owner: settings.owner.clone(),
                why: trouble.why.clone(),
                help: trouble.help.clone(),
            },
        );
        Some(tokio::spawn(async move { alert::trouble::tell(mail, trouble, &metrics).await }))
    }
}

/// Wait until the journal is open; a long journal takes its time, and systemd is asked for it.
async fn wait_for(mut on_start: oneshot::Receiver<Started>) -> Option<Started> {
    loop {
        tokio::select! {
            started = &mut on_start => return started.ok(),
            () = tokio::time::sleep(Duration::from_secs(10)) => tell(&[NotifyState::ExtendTimeoutUsec(60_000_000), NotifyState::Status("verifying the journal")]),
        }
    }
}

/// Note where we listen, for whoever asked for a free port. The state folder is ours: its journal is locked.
fn write_address(state_dir: &std::path::Path, address: Option<SocketAddr>) {
    let done = match address {
        Some(address) => publish::publish_file(state_dir, ADDRESS_FILE, format!("{address}\n").as_bytes()),
        None => match std::fs::remove_file(state_dir.join(ADDRESS_FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        },
    };
    if let Err(error) = done {
        warn!(
            message = "The address could not be written to the state folder.",
            error = format!("{error:#}")
        );
    }
}

/// Wake the mailer whenever a message came, and say how many wait where nobody sends them.
async fn follow_journal(ledger: Arc<Ledger>, wake: Arc<Notify>, metrics: Arc<Metrics>) {
    let mut recorded = ledger.subscribe();
    let mut seen = ledger.snapshot();
    metrics.outbox(seen.outbox, None);
    while recorded.changed().await.is_ok() {
        let now = ledger.snapshot();
        if now.outbox_changes != seen.outbox_changes {
            wake.notify_one();
        }
        seen = now;
    }
    std::future::pending().await
}

/// Tell metrics and systemd how it goes; systemd hears that we are alive only while the inbox is read and the journal answers.
async fn watch_over(mut readiness: watch::Receiver<Readiness>, ledger: Arc<Ledger>, hooks: &Outward, metrics: &Metrics, scan_interval: Duration) {
    let beat = beat();
    // A scan may have to read many large files.
    let patience = scan_interval * 2 + Duration::from_secs(300);
    let mut told: Option<Readiness> = None;
    let mut ticks = tokio::time::interval(beat);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let now = readiness.borrow_and_update().clone();
        if told.as_ref() != Some(&now) {
            metrics.set_ready(now.is_ready());
            let wrong = now.stalled.clone().or_else(|| now.trouble.clone());
            if let Some(why) = now
                .stalled
                .as_ref()
                .filter(|why| told.as_ref().and_then(|told| told.stalled.as_ref()) != Some(*why))
            {
                warn!(message = "The inbox is stuck.", why);
            }
            let status = wrong.map_or_else(
                || "watching the inbox".to_owned(),
                |why| format!("in trouble: {}", crate::text::escape(why.as_bytes())),
            );
            if now.scanned {
                let was = told.as_ref().is_some_and(|told| told.scanned);
                if !was {
                    tell(&[NotifyState::Ready]);
                    info!(message = "Guard is ready.", trouble = now.trouble.as_deref());
                }
                tell(&[NotifyState::Status(&status)]);
            } else {
                tell(&[NotifyState::ExtendTimeoutUsec(60_000_000), NotifyState::Status("reading the inbox")]);
            }
            told = Some(now);
        }
        tokio::select! {
            changed = readiness.changed() => if changed.is_err() {
                // The daemon is ending.
                std::future::pending::<()>().await;
            },
            _ = ticks.tick() => {
                let asked = Arc::clone(&ledger);
                let answers = tokio::time::timeout(beat, tokio::task::spawn_blocking(move || asked.head())).await.is_ok();
                if answers && hooks.since_scan() < patience {
                    tell(&[NotifyState::Watchdog]);
                } else {
                    error!(message = "Guard makes no progress.", journal_answers = answers, seconds_since_scan = hooks.since_scan().as_secs());
                }
            }
        }
    }
}
