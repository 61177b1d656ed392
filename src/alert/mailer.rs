//! The task that sends what waits. It owns nothing that cannot be lost: what waits, and what was sent, is in the journal.

use super::compose::{self, CHANNEL, Content};
use super::transport::{self, SendError, SmtpStep};
use crate::config::file::Mail;
use crate::engine::Message;
use crate::mail::{self, Why};
use crate::metrics::Metrics;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// How often it is recorded how long the mails have been waiting.
const RECORD_WAITED: Duration = Duration::from_secs(3600);

/// Mails that one recipient gets within an hour; what comes beyond is put into one.
const AN_HOUR: usize = 20;
const HOUR: Duration = Duration::from_secs(3600);
/// Between two mails that stand for many, to one recipient.
const DIGEST_EVERY: Duration = Duration::from_secs(900);
/// At most this many subjects stand in one.
const LISTED: usize = 50;

/// What a recipient got lately.
#[derive(Default)]
struct Lately {
    sent: VecDeque<Instant>,
    digest: Option<Instant>,
}

impl Lately {
    /// Has the recipient had enough single mails for this hour?
    fn is_enough(&mut self) -> bool {
        while self.sent.front().is_some_and(|at| at.elapsed() >= HOUR) {
            self.sent.pop_front();
        }
        self.sent.len() >= AN_HOUR
    }
}

/// A message that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingMail {
    /// The message.
    pub message: Message,
    /// How long it has been waited for with a guard running, as recorded so far. Not by the wall clock, which may be set.
    pub waited: Duration,
}

/// Where messages wait, and where it is recorded what became of them.
pub trait Pending: Send + Sync {
    /// Every message that waits, the oldest first.
    fn waiting(&self) -> Vec<WaitingMail>;
    /// Its content: in the message itself, or where that names it.
    ///
    /// # Errors
    /// When it cannot be read; the message then waits on.
    fn content(&self, message: &Message) -> anyhow::Result<serde_json::Value> {
        Ok(message.content.clone())
    }
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
    let mut lately = HashMap::new();
    loop {
        let due = tokio::select! {
            due = Pass::over(&mail, &pending, &metrics, &mut known, &mut lately) => due,
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

/// One look at all waiting mails.
struct Pass<'a> {
    mail: &'a Mail,
    pending: &'a Arc<dyn Pending>,
    metrics: &'a Metrics,
    known: &'a mut HashMap<String, Known>,
    lately: &'a mut HashMap<String, Lately>,
    /// A server that did not take one does not get the next mail in the same pass: each try may take minutes.
    unreachable: Option<SendError>,
    left: usize,
    oldest: Option<u64>,
}

impl<'a> Pass<'a> {
    /// Tries every mail that is due; tells when the next one is.
    async fn over(
        mail: &'a Mail,
        pending: &'a Arc<dyn Pending>,
        metrics: &'a Metrics,
        known: &'a mut HashMap<String, Known>,
        lately: &'a mut HashMap<String, Lately>,
    ) -> Option<Instant> {
        let waiting: Vec<WaitingMail> = pending.waiting().into_iter().filter(|one| one.message.channel == CHANNEL).collect();
        let ids: HashSet<&str> = waiting.iter().map(|one| one.message.id.as_str()).collect();
        known.retain(|id, _| ids.contains(id.as_str()));
        let mut pass = Self {
            mail,
            pending,
            metrics,
            known,
            lately,
            unreachable: None,
            left: waiting.len(),
            oldest: None,
        };
        let mut many: BTreeMap<&str, Vec<&Message>> = BTreeMap::new();
        for WaitingMail { message, waited } in &waiting {
            if pass.is_one_of_many(message, *waited) {
                many.entry(&message.to).or_default().push(message);
            } else {
                pass.one(message).await;
            }
        }
        for (to, messages) in many {
            pass.many(to, &messages).await;
        }
        metrics.outbox(pass.left, pass.oldest.map(|written| written as f64));
        pass.known.values().map(|state| state.at).min()
    }

    /// Is it due for somebody who got enough single mails lately?
    fn is_one_of_many(&mut self, message: &Message, waited: Duration) -> bool {
        let now = Instant::now();
        let state = self.known.entry(message.id.clone()).or_insert(Known {
            tries: 0,
            at: now,
            seen: now,
            before: waited,
        });
        state.at <= now && self.lately.entry(message.to.clone()).or_default().is_enough()
    }

    async fn one(&mut self, message: &Message) {
        let now = Instant::now();
        let outcome = match (&self.unreachable, self.known.get(&message.id)) {
            (Some(error), Some(state)) if state.at <= now => Some(Err(error.clone())),
            (None, Some(state)) if state.at <= now => Some(match content(self.pending, message) {
                Ok(content) => send(self.mail, message, &content).await,
                Err(error) => Err(error),
            }),
            _ => None,
        };
        if outcome.is_some_and(|outcome| self.settled(message, outcome)) {
            self.done(message);
            return;
        }
        self.waits(written(message));
        if let Some(state) = self.known.get_mut(&message.id)
            && state.at <= now
        {
            // Sent, but not recorded: it will be sent again (with the same Message-ID), but not at once.
            state.tries += 1;
            state.at = Instant::now() + wait(self.mail.retry_after.0, state.tries, &message.id);
        }
    }

    /// Record what came of a try. True: the mail waits no longer.
    fn settled(&mut self, message: &Message, outcome: Result<(), SendError>) -> bool {
        let Some(state) = self.known.get_mut(&message.id) else { return false };
        match outcome {
            Ok(()) => {
                self.metrics.mail_sent(&message.id, &message.to);
                self.lately.entry(message.to.clone()).or_default().sent.push_back(Instant::now());
                settle(self.pending, message, None)
            }
            Err(error) if error.permanent => {
                self.metrics.mail_refused(&message.id, &message.to, &error.message);
                settle(self.pending, message, Some(&error.message))
            }
            Err(error) if state.waited() > self.mail.give_up_after.0 => {
                self.metrics.mail_expired(&message.id, &message.to, &error.message);
                let why = format!("given up after {}: {}", self.mail.give_up_after, error.message);
                settle(self.pending, message, Some(&why))
            }
            Err(error) => {
                let wait = wait(self.mail.retry_after.0, state.tries + 1, &message.id);
                self.metrics
                    .mail_retried(&message.id, &message.to, error.why, &error.message, wait.as_secs());
                state.tries += 1;
                state.at = Instant::now() + wait;
                if error.is_about_the_server() {
                    self.unreachable = Some(error);
                }
                false
            }
        }
    }

    /// One mail for all that wait for this recipient, where the last one was long enough ago.
    async fn many(&mut self, to: &str, messages: &[&Message]) {
        let last = self.lately.entry(to.to_owned()).or_default();
        let due = last.digest.map_or(Instant::now(), |at| at + DIGEST_EVERY);
        let mut again = due;
        if due <= Instant::now() && self.unreachable.is_none() {
            match send_as_one(self.mail, self.pending, to, messages).await {
                Ok(id) => {
                    last.digest = Some(Instant::now());
                    self.metrics.mail_sent(&id, to);
                    for message in messages {
                        if settle(self.pending, message, None) {
                            self.done(message);
                        }
                    }
                    again = Instant::now() + DIGEST_EVERY;
                }
                Err(error) => {
                    last.digest = None;
                    let tries = messages.iter().filter_map(|message| Some(self.known.get(&message.id)?.tries)).max();
                    let wait = wait(self.mail.retry_after.0, tries.unwrap_or(0) + 1, to);
                    self.metrics.mail_retried("many in one", to, error.why, &error.message, wait.as_secs());
                    again = Instant::now() + wait;
                }
            }
        }
        // What still waits is looked at again with the others.
        for message in messages {
            if let Some(state) = self.known.get_mut(&message.id) {
                state.tries += 1;
                state.at = again.max(Instant::now() + self.mail.retry_after.0.min(DIGEST_EVERY));
                self.waits(written(message));
            }
        }
    }

    fn done(&mut self, message: &Message) {
        self.known.remove(&message.id);
        self.left -= 1;
    }

    fn waits(&mut self, written: u64) {
        self.oldest = Some(self.oldest.map_or(written, |oldest| oldest.min(written)));
    }
}

/// Send one mail that stands for all of these to their recipient. Returns its id.
async fn send_as_one(mail: &Mail, pending: &Arc<dyn Pending>, to: &str, messages: &[&Message]) -> Result<String, SendError> {
    let mut hasher = blake3::Hasher::new_derive_key("delta-guard digest v1");
    for message in messages {
        hasher.update(message.id.as_bytes());
    }
    let id = hasher.finalize().to_hex().as_str()[..40].to_owned();
    let listed: Vec<Content> = messages
        .iter()
        .take(LISTED)
        .filter_map(|message| content(pending, message).ok())
        .collect();
    let titles: Vec<String> = listed
        .iter()
        .map(|content| content.title.clone())
        .filter(|title| !title.is_empty())
        .collect();
    let instance = listed.first().map(|content| content.instance.clone()).unwrap_or_default();
    let raw = compose::digest(mail, &instance, to, &id, &titles, messages.len()).map_err(|error| unreadable(format!("{error:#}")))?;
    let from = mail::mailbox(&mail.from).map_err(unreadable)?;
    let recipient = mail::mailbox(to).map_err(unreadable)?;
    transport::send(mail, &from.email, &recipient.email, raw.as_bytes()).await?;
    Ok(id)
}

/// A recorded mail that nobody can send.
fn unreadable(message: String) -> SendError {
    SendError {
        permanent: true,
        step: SmtpStep::Recipient,
        why: Why::Refused,
        message,
    }
}

/// Unix seconds when it was written.
pub(crate) fn written(message: &Message) -> u64 {
    match u64::try_from(message.written) {
        Ok(written @ 1..) => written,
        // Recorded by an older version, content and all.
        _ => serde_json::from_value::<Content>(message.content.clone()).map_or(0, |content| content.written),
    }
}

fn content(pending: &Arc<dyn Pending>, message: &Message) -> Result<Content, SendError> {
    let value = pending.content(message).map_err(|error| SendError {
        permanent: false,
        step: SmtpStep::Recipient,
        why: Why::Deferred,
        message: format!("the recorded mail cannot be read: {error:#}"),
    })?;
    serde_json::from_value(value).map_err(|error| unreadable(format!("the recorded mail is not what it should be: {error}")))
}

async fn send(mail: &Mail, message: &Message, content: &Content) -> Result<(), SendError> {
    let from = mail::mailbox(&content.from).map_err(unreadable)?;
    let to = mail::mailbox(&message.to).map_err(unreadable)?;
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
