//! What the engine calls outside, put together: metrics and log, the report, the mails.

use crate::alert;
use crate::config::file::Mail;
use crate::engine::{CaseView, Event, Hooks, Ledger, Message};
use crate::metrics::Metrics;
use crate::report;
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// The daemon's hooks.
pub struct Outside {
    metrics: Arc<Metrics>,
    mail: Option<Mail>,
    wake_mailer: Arc<Notify>,
}

impl Outside {
    /// Metrics, and where mails go.
    pub fn new(metrics: Arc<Metrics>, mail: Option<Mail>, wake_mailer: Arc<Notify>) -> Self {
        Self { metrics, mail, wake_mailer }
    }
}

impl Hooks for Outside {
    fn on(&self, event: Event) {
        let ended = matches!(event, Event::CaseEnded { .. });
        self.metrics.on(event);
        if ended {
            self.wake_mailer.notify_one();
        }
    }

    fn report(&self, view: &CaseView) -> anyhow::Result<String> {
        Ok(report::page(view))
    }

    fn messages(&self, view: &CaseView) -> Vec<Message> {
        self.mail.as_ref().map(|mail| alert::messages(mail, view)).unwrap_or_default()
    }
}

/// The mailer's view of the journal; empty until the journal is open.
#[derive(Default)]
pub struct LedgerMail(pub OnceLock<Arc<Ledger>>);

impl alert::mailer::Pending for LedgerMail {
    fn waiting(&self) -> Vec<Message> {
        self.0.get().map(|ledger| ledger.pending_messages().into_iter().map(|(_, message)| message).collect()).unwrap_or_default()
    }

    fn settle(&self, id: &str, gave_up: Option<&str>) -> anyhow::Result<()> {
        let Some(ledger) = self.0.get() else { return Ok(()) };
        Ok(match gave_up {
            Some(reason) => ledger.message_given_up(id, reason)?,
            None => ledger.message_sent(id, "250")?,
        })
    }
}
