//! The mail about the guard itself: it stays up, but cannot record anything. There is no journal to keep this mail in, so it is kept in memory and sent at
//! once; every other way of hearing of it (`readyz`, metrics, log) says the same.

use super::compose::{self, Letter};
use super::mailer;
use super::transport::{self, SendError};
use crate::config::file::{Mail, On};
use crate::engine::message_id;
use crate::mail;
use crate::metrics::Metrics;
use crate::report::words::sentence;
use delta_guard_contract::Digest;
use std::time::SystemTime;

/// What to tell.
#[derive(Clone, Debug)]
pub struct Outage {
    /// Name of the installation.
    pub instance: String,
    /// Who is responsible for it; may be empty.
    pub owner: String,
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub help: String,
}

/// Send it to every recipient; each is tried until it is taken, refused for good, or given up. Ends then, or when dropped.
pub async fn tell(mail: Mail, trouble: Outage, metrics: &Metrics) {
    let now = SystemTime::now();
    for to in mail.recipients(On::Trouble) {
        let day = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
        let about = Digest(blake3::hash(format!("{day} {}", trouble.why).as_bytes()).to_hex().to_string());
        let id = message_id(&trouble.instance, &about, "", "trouble", to);
        let letter = letter(&trouble);
        let made = compose::envelope(&mail, &trouble.instance, to, &id, now, letter);
        let outcome = match made.and_then(|raw| {
            let from = mail::mailbox(&mail.from).map_err(anyhow::Error::msg)?;
            let to = mail::mailbox(to).map_err(anyhow::Error::msg)?;
            Ok((raw, from.email, to.email))
        }) {
            Ok((raw, from, recipient)) => until_taken(&mail, &id, to, || transport::send(&mail, &from, &recipient, raw.as_bytes()), metrics).await,
            Err(error) => {
                tracing::error!(message = "Mail could not be written.", to, error = format!("{error:#}"));
                continue;
            }
        };
        match outcome {
            Ok(()) => metrics.mail_sent(&id, to),
            Err(error) => metrics.mail_refused(&id, to, &error.message),
        }
    }
}

async fn until_taken<F: Future<Output = Result<(), SendError>>>(
    mail: &Mail,
    id: &str,
    to: &str,
    send: impl Fn() -> F,
    metrics: &Metrics,
) -> Result<(), SendError> {
    let began = tokio::time::Instant::now();
    for tries in 1.. {
        match send().await {
            Ok(()) => break,
            Err(error) if error.permanent || began.elapsed() > mail.give_up_after.0 => return Err(error),
            Err(error) => {
                let wait = mailer::wait(mail.retry_after.0, tries, id);
                metrics.mail_retried(id, to, error.why, &error.message, wait.as_secs());
                tokio::time::sleep(wait).await;
            }
        }
    }
    Ok(())
}

fn letter(trouble: &Outage) -> Letter {
    let host = compose::host_name();
    let instance = compose::one_line(&trouble.instance, 64);
    let text = format!(
        "The guard {instance} on {host} cannot work.\n\n{}\n\nWhat to do:\n{}\n\nIt takes nothing in and works on nothing until then. Pictures stay in the inbox; nothing is lost. It still answers\n\
         /readyz, /metrics and questions on the command line.\n\n-- \ndelta-guard {} on {host}{}\n",
        sentence(&compose::one_line(&trouble.why, 2000)),
        sentence(&compose::one_line(&trouble.help, 1000)),
        env!("CARGO_PKG_VERSION"),
        if trouble.owner.is_empty() {
            String::new()
        } else {
            format!(", {}", compose::one_line(&trouble.owner, 200))
        }
    );
    Letter {
        subject: format!("[{instance}] The guard cannot work: {}", compose::one_line(&trouble.why, 120)),
        text,
        html: None,
        picture: None,
        attachments: Vec::new(),
    }
}
