//! `delta-guard run`: the daemon.

use super::{Exit, Global};
use crate::alert;
use crate::daemon::{self, Started};
use crate::engine::Hooks;
use crate::hooks::{LedgerMail, Outside};
use crate::http::{self, Sources};
use crate::metrics::Metrics;
use crate::stop;
use anyhow::Context;
use clap::Args;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot, watch};

/// Run the daemon: watch the inbox, trace and repair, until it is asked to stop (SIGTERM, Ctrl-C).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  delta-guard run --config guard.yaml
  delta-guard run --config guard.yaml --log-json | your-log-shipper     (the log is on standard error)

A case that is interrupted goes on where it was at the next start. RUST_LOG sets what is logged (default: info).")]
pub struct Run {
    /// Write the log as JSON lines
    #[arg(long)]
    log_json: bool,
}

impl Run {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let begun = Instant::now();
        let config = global.load()?;
        let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        if self.log_json {
            log.json().init();
        } else {
            log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
        }
        let settings = config.file.settings()?;
        let mode = serde_json::to_value(settings.mode)?;
        let metrics = Arc::new(Metrics::new(&settings.instance, mode.as_str().unwrap_or_default()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("the runtime cannot start")?;
        // On a worker thread: Linux ends a worker process when the thread that started it ends.
        let body = async move {
            let (stopper, stop) = stop::channel();
            let wake_mailer = Arc::new(Notify::new());
            let hooks: Arc<dyn Hooks> = Arc::new(Outside::new(Arc::clone(&metrics), config.file.mail.clone(), Arc::clone(&wake_mailer)));
            let listener = match config.file.http.listen {
                Some(address) => Some(TcpListener::bind(address).await.with_context(|| format!("http.listen: cannot listen on {address}"))?),
                None => None,
            };
            let (sender, receiver) = oneshot::channel();
            let guard = tokio::spawn(daemon::run(settings.clone(), hooks, stop.clone(), sender));
            let (mail_stop, mail_stopped) = watch::channel(false);
            let mut others = Vec::new();
            if let Ok(Started { ledger, readiness }) = receiver.await {
                if let Some(mail) = config.file.mail.clone() {
                    let pending = LedgerMail::default();
                    let _ = pending.0.set(Arc::clone(&ledger));
                    others.push(tokio::spawn(alert::mailer::run(mail, Arc::new(pending), Arc::clone(&metrics), wake_mailer, mail_stopped)));
                }
                if let Some(listener) = listener {
                    let address = listener.local_addr()?;
                    tracing::info!(%address, "Listening.");
                    fs_err::write(settings.state_dir.join("http.address"), address.to_string())?;
                    let sources = Sources {
                        metrics: Arc::clone(&metrics),
                        ledger,
                        readiness: readiness.clone(),
                        settings: Arc::new(settings.clone()),
                        allowed_hosts: Arc::new(config.file.http.allowed_hosts.clone()),
                    };
                    let stop = stop.clone();
                    others.push(tokio::spawn(async move {
                        if let Err(error) = http::serve(listener, sources, stop).await {
                            tracing::error!(%error, "The HTTP interface ended.");
                        }
                    }));
                }
                others.push(tokio::spawn(tell_systemd(readiness, Arc::clone(&metrics), begun)));
            }
            let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            let mut guard = guard;
            let ended = tokio::select! {
                ended = &mut guard => ended,
                _ = async { tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} } } => {
                    tracing::info!("Stopping.");
                    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
                    stopper.stop();
                    guard.await
                }
            };
            stopper.stop();
            let _ = mail_stop.send(true);
            for task in others {
                task.abort();
            }
            ended.context("the daemon's task failed")??;
            tracing::info!("Stopped.");
            Ok(Exit::Done)
        };
        let ended = runtime.block_on(async { tokio::spawn(body).await });
        runtime.shutdown_timeout(Duration::from_secs(2));
        ended.context("the daemon's task failed")?
    }
}

/// READY=1 when it is, and the watchdog's sign of life as long as the runtime turns.
async fn tell_systemd(mut readiness: watch::Receiver<daemon::Readiness>, metrics: Arc<Metrics>, begun: Instant) {
    let mut told = false;
    let beat = sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |limit| limit / 3);
    loop {
        let now = readiness.borrow_and_update().clone();
        metrics.set_ready(now.is_ready());
        if now.is_ready() && !told {
            told = true;
            tracing::info!(milliseconds = begun.elapsed().as_millis() as u64, "Ready.");
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        }
        tokio::select! {
            changed = readiness.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(beat) => {}
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    }
}
