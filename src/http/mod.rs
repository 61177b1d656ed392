//! Metrics, health and the read-only interface over HTTP. Nothing can be changed from here: who wants something done uses the inbox or the command line.
//!
//! There is no login, so who may ask is decided by where it listens, and by [`door`]: a page in somebody's browser is turned away.

mod answers;
mod door;
mod listener;

use crate::daemon::Readiness;
use crate::engine::Ledger;
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::stop::Stop;
use anyhow::{Context, Result};
use axum::Router;
use axum::routing::get;
use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

pub use answers::{CaseLine, Ready, Status};
pub use door::Door;

/// How long answers that are under way may take when the daemon stops.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What is asked of. It answers from the start on; what needs the journal is 503 until the journal is open.
pub struct Api {
    metrics: Arc<Metrics>,
    settings: Arc<Settings>,
    started_at: jiff::Timestamp,
    /// Questions that read the index at once; more wait for their turn, so that they take one core at most from the guard's own work.
    turns: Semaphore,
    life: RwLock<Life>,
}

/// How it is with the daemon behind the answers.
enum Life {
    /// The journal is being verified.
    Starting,
    /// It works.
    Working(Arc<Ledger>, watch::Receiver<Readiness>),
    /// It cannot record anything; why.
    Degraded(String),
}

impl Api {
    /// For a daemon that is about to start.
    pub fn new(metrics: Arc<Metrics>, settings: Arc<Settings>) -> Self {
        Self {
            metrics,
            settings,
            started_at: jiff::Timestamp::now(),
            turns: Semaphore::new(1),
            life: RwLock::new(Life::Starting),
        }
    }

    /// The journal is open.
    pub fn started(&self, ledger: Arc<Ledger>, readiness: watch::Receiver<Readiness>) {
        self.be(Life::Working(ledger, readiness));
    }

    /// Nothing can be recorded, for this reason. The ledger is let go.
    pub fn degraded(&self, why: &str) {
        self.be(Life::Degraded(why.to_owned()));
    }

    fn be(&self, life: Life) {
        *self.life.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = life;
    }

    fn life(&self) -> RwLockReadGuard<'_, Life> {
        self.life.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn ledger(&self) -> Option<Arc<Ledger>> {
        match &*self.life() {
            Life::Working(ledger, _) => Some(Arc::clone(ledger)),
            Life::Starting | Life::Degraded(_) => None,
        }
    }

    fn readiness(&self) -> Readiness {
        match &*self.life() {
            Life::Working(_, readiness) => readiness.borrow().clone(),
            Life::Starting => Readiness::default(),
            Life::Degraded(why) => Readiness {
                trouble: Some(why.clone()),
                ..Readiness::default()
            },
        }
    }
}

/// Take the port.
///
/// # Errors
/// When it is taken already, or the address is not this machine's.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Answer until `stop`; then let what is under way end, for five seconds at most.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, api: Arc<Api>, allowed_hosts: &[String], stop: Stop) -> Result<()> {
    let door = Arc::new(Door::new(allowed_hosts));
    let routes = Router::new()
        .route("/metrics", get(answers::metrics))
        .route("/livez", get(answers::livez))
        .route("/readyz", get(answers::readyz))
        .route("/api/v1/status", get(answers::status))
        .route("/api/v1/cases", get(answers::cases))
        .route("/api/v1/cases/{id}", get(answers::case))
        .route("/cases/{id}", get(answers::report))
        .fallback(answers::not_found)
        .method_not_allowed_fallback(answers::read_only)
        .layer(axum::middleware::from_fn_with_state(door, door::pass))
        .with_state(api);
    let (mut told, mut late) = (stop.clone(), stop);
    let serving = axum::serve(listener::Bounded::new(listener), routes).with_graceful_shutdown(async move { told.stopped().await });
    let too_late = async move {
        late.stopped().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        ended = serving.into_future() => Ok(ended?),
        () = too_late => Ok(()),
    }
}

#[cfg(test)]
mod tests;
