//! The task that sends what waits. It owns nothing that cannot be lost: what waits, and what was sent, is in the journal.

use super::address;
use super::compose::{CHANNEL, Content};
use super::transport::{self, SendError, Step, Why};
use crate::config::file::Mail;
use crate::engine::Message;
use crate::metrics::Metrics;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// So often it is recorded how long the mails have been waiting.
const RECORD_WAITED: Duration = Duration::from_secs(3600);

/// A message that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// The message.
    pub message: Message,
    /// How long it has been waited for with a guard running, as recorded so far. Not by the wall clock, which may be set.
    pub waited: Duration,
}

/// Where messages wait, and where it is recorded what became of them.
pub trait Pending: Send + Sync {
    /// Every message that waits, the oldest first.
    fn waiting(&self) -> Vec<Waiting>;
    /// It was sent, or given up for the reason `gave_up`: it waits no longer.
    ///
    /// # Errors
    /// When that cannot be made durable; the message then waits on, and is sent again with the same Message-ID.
    fn settle(&self, id: &str, gave_up: Option<&str>) -> anyhow::Result<()>;
    /// All that wait have waited so much longer; it counts after the next start.
    ///
    /// # Errors
    /// When that cannot be made durable.
    fn waited(&self, more: Duration) -> anyhow::Result<()>;
}

/// What is known about a waiting message.
struct Known {
    /// Failed tries.
    tries: u32,
    /// Not to be tried before.
    at: Instant,
    /// When this process saw it first, and how long it had been waiting then.
    seen: Instant,
    before: Duration,
}

impl Known {
    fn waited(&self) -> Duration {
        self.before + self.seen.elapsed()
    }
}

/// Sends mails until `stop` says so; looks when `wake` is notified, and when a mail is due again.
pub async fn run(mail: Mail, pending: Arc<dyn Pending>, metrics: Arc<Metrics>, wake: Arc<Notify>, mut stop: watch::Receiver<bool>) {
    let mut known: HashMap<String, Known> = HashMap::new();
    let mut recorded = Instant::now();
    loop {
        let due = tokio::select! {
            due = pass(&mail, &pending, &metrics, &mut known) => due,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if known.is_empty() {
            recorded = Instant::now();
        } else if recorded.elapsed() >= RECORD_WAITED {
            match pending.waited(recorded.elapsed()) {
                Ok(()) => recorded = Instant::now(),
                Err(error) => tracing::error!(
                    message = "How long the mails have been waiting could not be recorded.",
                    error = format!("{error:#}")
                ),
            }
        }
        let until = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wake.notified() => {}
            () = until => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Tries every mail that is due; tells when the next one is.
async fn pass(mail: &Mail, pending: &Arc<dyn Pending>, metrics: &Metrics, known: &mut HashMap<String, Known>) -> Option<Instant> {
    let waiting: Vec<Waiting> = pending.waiting().into_iter().filter(|one| one.message.channel == CHANNEL).collect();
    known.retain(|id, _| waiting.iter().any(|one| one.message.id == *id));
    let mut left = waiting.len();
    let mut oldest: Option<u64> = None;
    let mut unreachable: Option<SendError> = None;
    for Waiting { message, waited } in &waiting {
        let now = Instant::now();
        let state = known.entry(message.id.clone()).or_insert(Known {
            tries: 0,
            at: now,
            seen: now,
            before: *waited,
        });
        let due = state.at <= now;
        let content = serde_json::from_value::<Content>(message.content.clone());
        let written = content.as_ref().map_or(0, |content| content.written);
        let outcome = match (&content, due) {
            (_, false) => None,
            (Err(error), true) => Some(Err(unreadable(format!("the recorded mail cannot be read: {error}")))),
            // A server that did not take one does not get the next mail in the same pass: each try may take minutes.
            (Ok(content), true) => Some(match &unreachable {
                Some(error) => Err(error.clone()),
                None => send(mail, message, content).await,
            }),
        };
        let settled = match outcome {
            None => false,
            Some(Ok(())) => {
                metrics.mail_sent(&message.id, &message.to);
                settle(pending, message, None)
            }
            Some(Err(error)) if error.permanent => {
                metrics.mail_refused(&message.id, &message.to, &error.message);
                settle(pending, message, Some(&error.message))
            }
            Some(Err(error)) if state.waited() > mail.give_up_after.0 => {
                metrics.mail_expired(&message.id, &message.to, &error.message);
                let why = format!("given up after {}: {}", mail.give_up_after, error.message);
                settle(pending, message, Some(&why))
            }
            Some(Err(error)) => {
                let wait = wait(mail.retry_after.0, state.tries + 1, &message.id);
                metrics.mail_retried(&message.id, &message.to, error.why, &error.message, wait.as_secs());
                state.tries += 1;
                state.at = Instant::now() + wait;
                if error.is_about_the_server() {
                    unreachable = Some(error);
                }
                false
            }
        };
        if settled {
            known.remove(&message.id);
            left -= 1;
        } else {
            oldest = Some(oldest.map_or(written, |oldest| oldest.min(written)));
            if state.at <= now {
                // Sent, but not recorded: it will be sent again (with the same Message-ID), but not at once.
                state.tries += 1;
                state.at = Instant::now() + wait(mail.retry_after.0, state.tries, &message.id);
            }
        }
    }
    metrics.outbox(left, oldest.map(|written| written as f64));
    known.values().map(|state| state.at).min()
}

/// A recorded mail that nobody can send.
fn unreadable(message: String) -> SendError {
    SendError {
        permanent: true,
        step: Step::Recipient,
        why: Why::Refused,
        message,
    }
}

async fn send(mail: &Mail, message: &Message, content: &Content) -> Result<(), SendError> {
    let from = address::mailbox(&content.from).map_err(unreadable)?;
    let to = address::mailbox(&message.to).map_err(unreadable)?;
    transport::send(mail, &from.email, &to.email, content.raw.as_bytes()).await
}

fn settle(pending: &Arc<dyn Pending>, message: &Message, gave_up: Option<&str>) -> bool {
    match pending.settle(&message.id, gave_up) {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(
                message = "What became of a mail could not be recorded.",
                id = message.id,
                error = format!("{error:#}")
            );
            false
        }
    }
}

/// Doubled with each try, up to an hour; up to a fifth longer, by the mail's own digest, so that many mails do not come back together.
pub(super) fn wait(first: Duration, tries: u32, id: &str) -> Duration {
    let doubled = first
        .saturating_mul(1u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX))
        .min(LONGEST_WAIT);
    let spread = blake3::hash(format!("{id}/{tries}").as_bytes()).as_bytes()[0];
    doubled + doubled.mul_f64(f64::from(spread) / 255.0 / 5.0)
}

#[cfg(test)]
mod tests;
