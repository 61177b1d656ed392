//! One mail to one recipient over SMTP, and what to make of a failure.

use crate::config::file::{Mail, Tls};
use lettre::address::Envelope;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls as LettreTls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use std::time::Duration;

/// Why a mail did not go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendError {
    /// Would the same mail fail again for ever?
    pub permanent: bool,
    /// Closed set, for the metric.
    pub why: Why,
    /// What happened.
    pub message: String,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No connection, no name, no answer.
    Connection,
    /// The server did not answer in time.
    Timeout,
    /// TLS could not be had as configured.
    Tls,
    /// The server refused for now (4yz).
    Deferred,
    /// The server refused for good (5yz).
    Refused,
    /// The password file cannot be read.
    Password,
}

impl Why {
    /// All, for the metric.
    pub const ALL: [Self; 6] = [Self::Connection, Self::Timeout, Self::Tls, Self::Deferred, Self::Refused, Self::Password];

    /// Label of the metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Deferred => "deferred",
            Self::Refused => "refused",
            Self::Password => "password",
        }
    }
}

/// Send `message` (headers and body, as fixed when it was enqueued) to one recipient. A connection of its own: a case ends a few times a day.
///
/// # Errors
/// Everything that keeps the server from saying 250 after the final dot.
pub async fn send(mail: &Mail, from: &Address, to: &Address, message: &[u8]) -> Result<(), SendError> {
    let fail = |permanent, why, message: String| SendError { permanent, why, message };
    let tls = |message: lettre::transport::smtp::Error| fail(false, Why::Tls, with_causes(&message));
    let parameters = || TlsParameters::new(mail.host.clone()).map_err(tls);
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(mail.host.as_str())
        .port(mail.port)
        .timeout(Some(mail.timeout.0));
    builder = builder.tls(match mail.tls {
        Tls::None => LettreTls::None,
        Tls::Starttls => LettreTls::Required(parameters()?),
        Tls::Required => LettreTls::Wrapper(parameters()?),
    });
    if let (Some(user), Some(file)) = (&mail.username, &mail.password_file) {
        let password = std::fs::read_to_string(file).map_err(|error| fail(false, Why::Password, format!("{}: {error}", file.display())))?;
        builder = builder.credentials(Credentials::new(user.clone(), password.trim_end_matches(['\r', '\n']).to_owned()));
    }
    let envelope = Envelope::new(Some(from.clone()), vec![to.clone()]).map_err(|error| fail(true, Why::Refused, error.to_string()))?;
    let transport = builder.build();
    // lettre limits each command; a server that trickles lines must not hold the mailer for longer than a dialogue of this size takes.
    let limit = mail.timeout.0.saturating_mul(4).max(Duration::from_secs(1));
    match tokio::time::timeout(limit, transport.send_raw(&envelope, message)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(judge(&error)),
        Err(_) => Err(fail(false, Why::Timeout, format!("no end of the dialogue within {} s", limit.as_secs()))),
    }
}

fn judge(error: &lettre::transport::smtp::Error) -> SendError {
    let why = if error.is_permanent() {
        Why::Refused
    } else if error.is_transient() {
        Why::Deferred
    } else if error.is_timeout() {
        Why::Timeout
    } else if error.is_tls() {
        Why::Tls
    } else {
        Why::Connection
    };
    // 530, 534, 535 and 538 speak of the login, not of the mail: a corrected password lets it through.
    let login = error.status().is_some_and(|code| matches!(u16::from(code), 530 | 534 | 535 | 538));
    SendError {
        permanent: error.is_permanent() && !login,
        why,
        message: with_causes(error),
    }
}

/// The error and its causes, without control characters that a server may have sent.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}
