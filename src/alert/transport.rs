//! One mail to one recipient over SMTP, and what to make of a failure.

use super::limited::Limited;
use crate::config::file::{Mail, Tls};
use crate::mail::{self, Why};
use anyhow::Context as _;
use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, TlsParameters};
use lettre::transport::smtp::commands;
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use rustls_platform_verifier::BuilderVerifierExt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;

/// Why a mail did not go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendError {
    /// Would the same mail fail again for ever?
    pub permanent: bool,
    /// How far the dialogue came.
    pub step: SmtpStep,
    /// Closed set, for the metric.
    pub why: Why,
    /// What happened.
    pub message: String,
}

impl SendError {
    /// Would another mail fail now in the same way?
    pub fn is_about_the_server(&self) -> bool {
        self.step < SmtpStep::Recipient
    }
}

/// Steps of a dialogue, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SmtpStep {
    /// The recorded mail, the password file.
    Prepare,
    /// The connection, TLS from the first byte included.
    Connect,
    /// Greeting and EHLO.
    Hello,
    /// STARTTLS and the second EHLO.
    StartTls,
    /// AUTH.
    Login,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA, before anything of the mail is sent.
    Data,
    /// The mail itself, to the answer after the final dot.
    Content,
}

impl SmtpStep {
    fn words(self) -> &'static str {
        match self {
            Self::Prepare => "before the connection",
            Self::Connect => "at the connection",
            Self::Hello => "at the greeting",
            Self::StartTls => "at STARTTLS",
            Self::Login => "at the login",
            Self::Sender => "at MAIL FROM",
            Self::Recipient => "at RCPT TO",
            Self::Data => "at DATA",
            Self::Content => "after the final dot",
        }
    }
}

/// Send `message` (headers and body, as fixed when it was enqueued) to one recipient. A connection of its own: a case ends a few times a day.
///
/// # Errors
/// Everything that keeps the server from saying 250 after the final dot.
pub async fn send(mail: &Mail, from: &Address, to: &Address, message: &[u8]) -> Result<(), SendError> {
    let mut step = SmtpStep::Prepare;
    // Each answer has its limit; a server that trickles lines must not hold the mailer for longer than a dialogue of this size takes.
    let limit = mail.timeout.0.saturating_mul(4).max(Duration::from_secs(1));
    match tokio::time::timeout(limit, dialogue(mail, from, to, message, &mut step)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(SendError {
            permanent: false,
            step,
            why: Why::Timeout,
            message: format!("no end of the dialogue within {} s, {}", limit.as_secs(), step.words()),
        }),
    }
}

fn fail(step: SmtpStep, why: Why, message: String) -> SendError {
    SendError {
        permanent: false,
        step,
        why,
        message,
    }
}

async fn dialogue(mail: &Mail, from: &Address, to: &Address, message: &[u8], step: &mut SmtpStep) -> Result<(), SendError> {
    let credentials = credentials(mail)?;
    let limit = mail.timeout.0;
    let mut server = greeted(mail, step).await?;
    if let Some(credentials) = credentials {
        *step = SmtpStep::Login;
        answered(limit, *step, server.auth(DEFAULT_MECHANISMS, &credentials)).await?;
    }
    *step = SmtpStep::Sender;
    let mut parameters = Vec::new();
    // Ours are ASCII; one that an earlier version wrote may not be.
    if !message.is_ascii() && server.server_info().supports_feature(Extension::EightBitMime) {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    answered(limit, *step, server.command(commands::Mail::new(Some(from.clone()), parameters))).await?;
    *step = SmtpStep::Recipient;
    answered(limit, *step, server.command(commands::Rcpt::new(to.clone(), Vec::new()))).await?;
    *step = SmtpStep::Data;
    answered(limit, *step, server.command(commands::Data)).await?;
    *step = SmtpStep::Content;
    answered(limit.saturating_mul(2), *step, server.message(message)).await?;
    // It is taken; whatever comes now does not change that.
    let _ = tokio::time::timeout(limit.min(Duration::from_secs(2)), server.quit()).await;
    Ok(())
}

fn credentials(mail: &Mail) -> Result<Option<Credentials>, SendError> {
    let (Some(user), Some(file)) = (&mail.username, &mail.password_file) else {
        return Ok(None);
    };
    let password = std::fs::read_to_string(file).map_err(|error| fail(SmtpStep::Prepare, Why::Password, format!("{}: {error}", file.display())))?;
    Ok(Some(Credentials::new(user.clone(), password.trim_end_matches(['\r', '\n']).to_owned())))
}

/// A connection over which both sides have said hello, under TLS where it is asked for.
async fn greeted(mail: &Mail, step: &mut SmtpStep) -> Result<AsyncSmtpConnection, SendError> {
    let host = mail::domain(&mail.host).ok_or_else(|| fail(*step, Why::Connection, format!("{:?} is not a host name", mail.host)))?;
    let limit = mail.timeout.0;
    *step = SmtpStep::Connect;
    let stream = in_time(limit, *step, connect(&host, mail.port)).await?.map_err(|error| {
        let timed_out = error.kind() == std::io::ErrorKind::TimedOut;
        let why = if timed_out { Why::Timeout } else { Why::Connection };
        fail(SmtpStep::Connect, why, format!("{host}:{}: {error}", mail.port))
    })?;
    let stream: Box<dyn AsyncTokioStream> = match mail.tls {
        Tls::None | Tls::Starttls => Box::new(stream),
        Tls::Required => {
            let wrapped = in_time(limit, *step, wrap_in_tls(&host, stream)).await?;
            Box::new(Limited::new(
                wrapped.map_err(|error| fail(SmtpStep::Connect, Why::Tls, plain(&format!("{error:#}"))))?,
            ))
        }
    };
    *step = SmtpStep::Hello;
    let hello = ClientId::default();
    let twice = limit.saturating_mul(2);
    let greeted = in_time(twice, *step, AsyncSmtpConnection::connect_with_transport(stream, &hello)).await?;
    let mut server = greeted.map_err(|error| judge(*step, &error))?;
    if mail.tls == Tls::Starttls {
        *step = SmtpStep::StartTls;
        let parameters = TlsParameters::new(host).map_err(|error| fail(SmtpStep::StartTls, Why::Tls, with_causes(&error)))?;
        if !server.can_starttls() {
            return Err(fail(*step, Why::Tls, "the server does not offer STARTTLS".into()));
        }
        let begun = in_time(twice, *step, server.starttls(parameters, &hello)).await?;
        begun.map_err(|error| SendError {
            why: Why::Tls,
            ..judge(*step, &error)
        })?;
    }
    Ok(server)
}

/// Connect to the first address of the name that answers.
async fn connect(host: &str, port: u16) -> std::io::Result<Limited<TcpStream>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(Limited::new(stream))
}

async fn wrap_in_tls(host: &str, stream: Limited<TcpStream>) -> anyhow::Result<tokio_rustls::client::TlsStream<Limited<TcpStream>>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).with_context(|| format!("{host:?} is not a host name"))?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .context("TLS could not be begun")
}

/// Wait for something at most so long.
async fn in_time<T>(limit: Duration, step: SmtpStep, what: impl Future<Output = T>) -> Result<T, SendError> {
    tokio::time::timeout(limit, what).await.map_err(|_| SendError {
        permanent: false,
        step,
        why: Why::Timeout,
        message: format!("no answer within {} s {}", limit.as_secs_f64(), step.words()),
    })
}

/// Wait for the server's answer to one command.
async fn answered<T>(
    limit: Duration,
    step: SmtpStep,
    command: impl Future<Output = Result<T, lettre::transport::smtp::Error>>,
) -> Result<T, SendError> {
    in_time(limit, step, command).await?.map_err(|error| judge(step, &error))
}

fn judge(step: SmtpStep, error: &lettre::transport::smtp::Error) -> SendError {
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
    let said = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    SendError {
        permanent: error
            .status()
            .is_some_and(|code| error.is_permanent() && is_final(step, u16::from(code), &said)),
        step,
        why,
        message: format!("{}: {}", step.words(), with_causes(error)),
    }
}

/// Is this 5yz about the recipient or the mail itself, so that the same mail fails for ever? A 5yz about anything else (the greeting, the sender, the
/// login, relaying, a policy for this host, a full mailbox) is a setting that somebody may mend: the mail waits for that.
///
/// The enhanced code (RFC 3463) says what it is about. Without one, a refused RCPT is about the mailbox (RFC 5321 §4.2.3: 550, 551, 553; RFC 7504: 556), unless
/// its words are about something else: servers say 550 to "relaying denied", too.
fn is_final(step: SmtpStep, code: u16, said: &str) -> bool {
    if !matches!(code, 550..=556) {
        return false;
    }
    // X.1.Y is about the addressee's address, except for 1.7 and 1.8 (the sender's).
    let addressee = |subject, detail| subject == 1 && !matches!(detail, 7 | 8);
    match (step, enhanced(said)) {
        (SmtpStep::Recipient, Some((subject, detail))) => addressee(subject, detail),
        (SmtpStep::Recipient, None) => matches!(code, 550 | 551 | 553 | 556) && !is_about_relay(said),
        // Content, its size, its security, or a recipient that was looked at late.
        (SmtpStep::Content, Some((subject, detail))) => {
            addressee(subject, detail) || subject == 6 || subject == 7 || matches!((subject, detail), (3, 4) | (2, 3))
        }
        // The server has read the mail and says no to it.
        (SmtpStep::Content, None) => matches!(code, 550 | 554),
        _ => false,
    }
}

/// Is a refused RCPT about relaying, a policy, the sender or this host, by the words that servers use for these? A doubt counts as yes: a mail that waits is
/// given up some days later, one that is lost is lost.
fn is_about_relay(said: &str) -> bool {
    const BEGINNINGS: [&str; 21] = [
        "relay",
        "auth",
        "login",
        "log",
        "polic",
        "denied",
        "deny",
        "reject",
        "refus",
        "block",
        "black",
        "list",
        "spam",
        "spf",
        "dmarc",
        "sender",
        "client",
        "permi",
        "allow",
        "prohib",
        "rcpthosts",
    ];
    // Addresses are echoed; what stands in them is no word of the server's.
    said.split_whitespace().filter(|part| !part.contains('@')).any(|part| {
        part.split(|c: char| !c.is_alphanumeric())
            .map(str::to_lowercase)
            .any(|word| BEGINNINGS.iter().any(|beginning| word.starts_with(beginning)))
    })
}

/// Subject and detail of an enhanced status code `5.subject.detail` at the beginning of what was said.
fn enhanced(said: &str) -> Option<(u16, u16)> {
    let first = said.split_whitespace().next()?.trim_start_matches('#').trim_end_matches([':', ';', ',']);
    let mut parts = first.split('.');
    let (class, subject, detail) = (parts.next()?, parts.next()?, parts.next()?);
    (class == "5" && parts.next().is_none()).then_some(())?;
    Some((subject.parse().ok()?, detail.parse().ok()?))
}

/// The error and its causes.
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
    plain(&text)
}

/// Without control characters that a server may have sent, of bounded length.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::{SmtpStep, enhanced, is_final};

    #[test]
    fn only_a_refusal_of_this_recipient_or_this_mail_is_final() {
        for (step, code, said, last) in [
            (SmtpStep::Recipient, 550, "5.1.1 no such user", true),
            (SmtpStep::Recipient, 553, "5.1.3 bad address", true),
            (SmtpStep::Recipient, 550, "5.7.1 relaying denied", false),
            (SmtpStep::Recipient, 554, "5.7.1 <a@b>: Relay access denied", false),
            (SmtpStep::Recipient, 550, "relaying denied", false),
            (SmtpStep::Recipient, 550, "User unknown", true),
            (SmtpStep::Recipient, 550, "Requested action not taken: mailbox unavailable", true),
            (SmtpStep::Recipient, 550, "<relay-denied@list.example.org>: No such user here", true),
            (SmtpStep::Recipient, 551, "user not local; please try <a@b.example>", true),
            (SmtpStep::Recipient, 553, "mailbox name not valid", true),
            (SmtpStep::Recipient, 556, "domain does not take mail", true),
            (SmtpStep::Recipient, 550, "", true),
            (SmtpStep::Recipient, 550, "Relaying to <a@b.example> prohibited by administrator", false),
            (SmtpStep::Recipient, 551, "we do not relay", false),
            (
                SmtpStep::Recipient,
                553,
                "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
                false,
            ),
            (SmtpStep::Recipient, 550, "Authentication required", false),
            (SmtpStep::Recipient, 550, "Rejected for policy reasons", false),
            (SmtpStep::Recipient, 552, "mailbox full", false),
            (SmtpStep::Recipient, 554, "transaction failed", false),
            (SmtpStep::Recipient, 550, "5.1.8 sender's domain unknown", false),
            (SmtpStep::Recipient, 552, "5.2.2 mailbox full", false),
            (SmtpStep::Recipient, 530, "5.1.1 login first", false),
            (SmtpStep::Sender, 550, "5.1.1 no", false),
            (SmtpStep::Hello, 554, "go away", false),
            (SmtpStep::Data, 554, "5.5.1 no valid recipients", false),
            (SmtpStep::Content, 554, "Transaction failed", true),
            (SmtpStep::Content, 550, "5.7.1 this is spam", true),
            (SmtpStep::Content, 552, "5.3.4 message too big", true),
            (SmtpStep::Content, 554, "5.6.0 bad content", true),
            (SmtpStep::Content, 552, "exceeded storage allocation", false),
            (SmtpStep::Content, 554, "5.3.0 the filter is out of order", false),
            (SmtpStep::Content, 554, "5.2.2 mailbox full", false),
        ] {
            assert_eq!(is_final(step, code, said), last, "{step:?} {code} {said}");
        }
        assert_eq!(enhanced("5.1.10: null MX"), Some((1, 10)));
        assert_eq!(enhanced("4.1.1 x"), None);
        assert_eq!(enhanced("10.1.2.3 is blocked"), None);
    }
}
