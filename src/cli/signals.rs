//! Signals, in one place: what asks a command to stop, and what asks the daemon.

use super::{Exit, say};
use crate::stop::{self, Stop, Stopper};
use anyhow::{Context, anyhow};
use std::io;
use std::sync::{OnceLock, mpsc};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

/// What every command of this process listens to; made once, since a handler that was set stays until the process ends.
static ASKED: OnceLock<Result<Stop, String>> = OnceLock::new();

/// For a command that works: from the first call on, SIGINT or SIGTERM asks it to stop, and a second one ends the process at once. Workers and daemons that it
/// started end with it.
///
/// # Errors
/// When no handler can be set.
pub(super) fn for_a_command() -> anyhow::Result<Stop> {
    let asked = ASKED.get_or_init(|| {
        let (stopper, stop) = stop::channel();
        let (ready, begun) = mpsc::channel();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || listen(stopper, &ready))
            .map_err(|error| error.to_string())?;
        begun.recv().map_err(|error| error.to_string())?.map(|()| stop)
    });
    asked.clone().map_err(|error| anyhow!("signals cannot be listened to: {error}"))
}

/// Lives as long as the process.
fn listen(stopper: Stopper, ready: &mpsc::Sender<Result<(), String>>) {
    let set_up = || -> io::Result<_> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let heard = runtime.block_on(async { Both::new() })?;
        Ok((runtime, heard))
    };
    let (runtime, mut heard) = match set_up() {
        Ok(both) => both,
        Err(error) => {
            let _ = ready.send(Err(error.to_string()));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    runtime.block_on(async {
        heard.next().await;
        say::note("stopping … (once more: at once)");
        stopper.stop();
        heard.next().await;
        std::process::exit(Exit::Interrupted as i32);
    });
}

/// SIGINT and SIGTERM.
struct Both {
    interrupt: Signal,
    terminate: Signal,
}

impl Both {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Wait for one; is it SIGINT?
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => true,
        }
    }
}

/// For the daemon: SIGTERM and SIGINT stop it, a second SIGINT ends it at once (the journal stands that), SIGHUP is only answered. `on_first` runs before it stops.
///
/// # Errors
/// When no handler can be set.
pub(super) fn for_the_daemon(stopper: Stopper, on_first: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let mut heard = Both::new().context("signals cannot be listened to")?;
    let mut hang_up = signal(SignalKind::hangup()).context("signals cannot be listened to")?;
    let mut on_first = Some(on_first);
    tokio::spawn(async move {
        loop {
            let interrupt = tokio::select! {
                interrupt = heard.next() => interrupt,
                _ = hang_up.recv() => {
                    warn!(message = "SIGHUP does nothing: the configuration is read at the start only. Restart the guard to change it.");
                    continue;
                }
            };
            match on_first.take() {
                Some(on_first) => {
                    on_first();
                    stopper.stop();
                }
                None if interrupt => std::process::exit(Exit::Interrupted as i32),
                None => {}
            }
        }
    });
    Ok(())
}
