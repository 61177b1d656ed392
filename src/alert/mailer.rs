//! The task that sends what waits. It owns nothing that cannot be lost: what waits, and what was sent, is in the journal.

use super::compose::{CHANNEL, Content};
use super::transport::{self, SendError, Why};
use crate::config::file::Mail;
use crate::engine::Message;
use crate::metrics::Metrics;
use lettre::Address;
use lettre::message::Mailbox;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Where messages wait, and where it is recorded what became of them.
pub trait Pending: Send + Sync {
    /// Every message that waits, the oldest first.
    fn waiting(&self) -> Vec<Message>;
    /// It was sent, or given up for the reason `gave_up`: it waits no longer.
    ///
    /// # Errors
    /// When that cannot be made durable; the message then waits on, and is sent again with the same Message-ID.
    fn settle(&self, id: &str, gave_up: Option<&str>) -> anyhow::Result<()>;
}

/// When a message is tried again.
struct Retry {
    tries: u32,
    at: Instant,
}

/// Sends mails until `stop` says so; looks when `wake` is notified, and when a mail is due again.
pub async fn run(mail: Mail, pending: Arc<dyn Pending>, metrics: Arc<Metrics>, wake: Arc<Notify>, mut stop: watch::Receiver<bool>) {
    let mut retries: HashMap<String, Retry> = HashMap::new();
    loop {
        let due = tokio::select! {
            due = pass(&mail, &pending, &metrics, &mut retries) => due,
            _ = stop.wait_for(|stop| *stop) => return,
        };
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
async fn pass(mail: &Mail, pending: &Arc<dyn Pending>, metrics: &Metrics, retries: &mut HashMap<String, Retry>) -> Option<Instant> {
    let waiting: Vec<Message> = pending.waiting().into_iter().filter(|message| message.channel == CHANNEL).collect();
    retries.retain(|id, _| waiting.iter().any(|message| message.id == *id));
    let mut left = waiting.len();
    let mut oldest: Option<u64> = None;
    let mut unreachable: Option<SendError> = None;
    for message in &waiting {
        let content = serde_json::from_value::<Content>(message.content.clone());
        let written = content.as_ref().map_or(0, |content| content.written);
        let due = retries.get(&message.id).is_none_or(|retry| retry.at <= Instant::now());
        let outcome = match (&content, due) {
            (_, false) => None,
            (Err(error), true) => Some(Err(SendError {
                permanent: true,
                why: Why::Refused,
                message: format!("the recorded mail cannot be read: {error}"),
            })),
            // A server that did not answer once does not get the next mail in the same pass: each try may take minutes.
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
            Some(Err(error)) if age(written) > mail.give_up_after.0 => {
                metrics.mail_expired(&message.id, &message.to, &error.message);
                settle(
                    pending,
                    message,
                    Some(&format!("given up after {}: {}", mail.give_up_after, error.message)),
                )
            }
            Some(Err(error)) => {
                let tries = retries.get(&message.id).map_or(0, |retry| retry.tries) + 1;
                let wait = wait(mail.retry_after.0, tries, &message.id);
                metrics.mail_retried(&message.id, &message.to, error.why, &error.message, wait.as_secs());
                retries.insert(
                    message.id.clone(),
                    Retry {
                        tries,
                        at: Instant::now() + wait,
                    },
                );
                if matches!(error.why, Why::Connection | Why::Timeout | Why::Tls | Why::Password) {
                    unreachable = Some(error);
                }
                false
            }
        };
        if settled {
            retries.remove(&message.id);
            left -= 1;
        } else {
            oldest = Some(oldest.map_or(written, |oldest| oldest.min(written)));
            // Sent, but not recorded: it will be sent again (with the same Message-ID), but not at once.
            retries.entry(message.id.clone()).or_insert_with(|| Retry {
                tries: 1,
                at: Instant::now() + wait(mail.retry_after.0, 1, &message.id),
            });
        }
    }
    metrics.outbox(left, oldest.map(|written| written as f64));
    retries.values().map(|retry| retry.at).min()
}

async fn send(mail: &Mail, message: &Message, content: &Content) -> Result<(), SendError> {
    let bad = |what: String| SendError {
        permanent: true,
        why: Why::Refused,
        message: what,
    };
    let from: Address = content
        .from
        .parse()
        .map_err(|error| bad(format!("{:?} is not a mail address: {error}", content.from)))?;
    let to: Mailbox = message
        .to
        .parse()
        .map_err(|error| bad(format!("{:?} is not a mail address: {error}", message.to)))?;
    transport::send(mail, &from, &to.email, content.raw.as_bytes()).await
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
fn wait(first: Duration, tries: u32, id: &str) -> Duration {
    let doubled = first
        .saturating_mul(1u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX))
        .min(LONGEST_WAIT);
    let spread = blake3::hash(format!("{id}/{tries}").as_bytes()).as_bytes()[0];
    doubled + doubled.mul_f64(f64::from(spread) / 255.0 / 5.0)
}

fn age(written: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_secs(written))
}

#[cfg(test)]
mod tests;
