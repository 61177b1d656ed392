//! What a mail says. It is made once, when its case ends; its date is the case's end, its Message-ID that of the journal's message.

use super::address::mailbox;
use crate::config::file::Mail;
use crate::engine::{CaseView, Message, message_id};
use crate::report::words::{self, Tone, actions, headline};
use anyhow::Context;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{MultiPart, SinglePart};
use maud::{DOCTYPE, html};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// The mailer's own form of a message's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Envelope sender.
    pub from: String,
    /// Headers and body, as they go over the wire.
    pub raw: String,
    /// Unix seconds when it was written.
    pub written: u64,
}

/// The channel of mails in the journal.
pub const CHANNEL: &str = "mail";

/// One message for each recipient. A recipient or a text that cannot be made into a mail is left out and logged: the case ends all the same.
pub fn messages(mail: &Mail, view: &CaseView) -> Vec<Message> {
    let mut list = Vec::new();
    for to in &mail.to {
        let id = message_id(&view.instance, &view.case, &view.occasion, CHANNEL, to);
        match compose(mail, view, to, &id).and_then(|content| Ok(serde_json::to_value(content)?)) {
            Ok(content) => list.push(Message {
                id,
                channel: CHANNEL.into(),
                to: to.clone(),
                content,
            }),
            Err(error) => tracing::error!(
                message = "Mail could not be written.",
                case = view.case.short(),
                to,
                error = format!("{error:#}")
            ),
        }
    }
    list
}

/// What a mail holds, before it has a recipient.
pub(super) struct Letter {
    pub subject: String,
    pub text: String,
    /// The same as a page; None where the text is enough.
    pub html: Option<String>,
    pub attachments: Vec<SinglePart>,
}

/// Headers and body as they go over the wire, in ASCII. The same each time that it is made.
pub(super) fn envelope(mail: &Mail, instance: &str, to: &str, id: &str, written: SystemTime, letter: Letter) -> anyhow::Result<String> {
    let from = mailbox(&mail.from).map_err(anyhow::Error::msg)?;
    let recipient = mailbox(to).map_err(anyhow::Error::msg)?;
    let plain = SinglePart::builder().header(ContentType::TEXT_PLAIN).body(letter.text);
    let mut words = MultiPart::alternative().boundary(format!("delta-guard-{id}")).singlepart(plain);
    if let Some(html) = letter.html {
        words = words.singlepart(SinglePart::builder().header(ContentType::TEXT_HTML).body(html));
    }
    let parts = if letter.attachments.is_empty() {
        words
    } else {
        let all = MultiPart::mixed().boundary(format!("delta-guard-all-{id}")).multipart(words);
        letter.attachments.into_iter().fold(all, MultiPart::singlepart)
    };
    let message = lettre::Message::builder()
        .from(from)
        .to(recipient)
        .subject(letter.subject)
        .date(written)
        .message_id(Some(format!("<{id}@{}.delta-guard>", host_part(instance))))
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".into(),
        ))
        .multipart(parts)?;
    String::from_utf8(message.formatted()).context("the mail is not ASCII")
}

/// This machine's name.
pub(super) fn host_name() -> String {
    let name = rustix::system::uname();
    one_line(&name.nodename().to_string_lossy(), 100)
}

fn compose(mail: &Mail, view: &CaseView, to: &str, id: &str) -> anyhow::Result<Content> {
    let from = mailbox(&mail.from).map_err(anyhow::Error::msg)?;
    let ended = view.ended_at.unwrap_or(view.accepted_at);
    let written = u64::try_from(ended.as_second()).unwrap_or(0);
    let letter = Letter {
        subject: subject(view),
        text: text(view),
        html: Some(page(view)),
        attachments: Vec::new(),
    };
    let raw = envelope(
        mail,
        &view.instance,
        to,
        id,
        SystemTime::UNIX_EPOCH + Duration::from_secs(written),
        letter,
    )?;
    Ok(Content {
        from: from.email.to_string(),
        raw,
        written,
    })
}

/// An instance's name as part of a Message-ID.
fn host_part(instance: &str) -> String {
    let plain: String = instance
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' })
        .take(63)
        .collect();
    if plain.is_empty() { "guard".into() } else { plain }
}

/// A text on one line, without control and direction characters, of bounded length.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let shown = crate::engine::escape(text.as_bytes());
    if shown.chars().count() <= most {
        shown
    } else {
        shown.chars().take(most - 1).chain(['…']).collect()
    }
}

fn subject(view: &CaseView) -> String {
    let head = headline(view);
    let found = match words::flagged(view) {
        0 => String::new(),
        n => format!(": {}", words::examples(n)),
    };
    format!(
        "[{}] {}{found} – {}",
        one_line(&view.instance, 64),
        head.tag,
        one_line(&view.submission.name, 80)
    )
}

/// Name and value of each figure worth a line.
fn figures(view: &CaseView) -> Vec<(&'static str, String)> {
    let mut rows = vec![("Picture", one_line(&view.submission.name, 200))];
    let mut add = |name, value: Option<String>| rows.extend(value.map(|value| (name, value)));
    add("Source", view.submission.source.as_deref().map(|source| one_line(source, 200)));
    add("Read as", words::wrong_label(view).map(|label| one_line(label, 100)));
    add("It shows", view.submission.true_label.as_deref().map(|label| one_line(label, 100)));
    if let Some(trace) = view.trace.as_ref().filter(|trace| !trace.flagged.is_empty()) {
        add(
            "Flagged",
            Some(format!(
                "{} of {}",
                words::examples(trace.flagged.len()),
                words::thousands(trace.examples)
            )),
        );
    }
    if let Some(certify) = &view.certify {
        add(
            "Now read as",
            certify
                .anomalies_after
                .first()
                .map(|after| format!("{} ({})", one_line(&after.label, 100), words::percent(after.probability))),
        );
        let (before, after) = (certify.before.share(), certify.after.share());
        add(
            "Accuracy",
            Some(format!(
                "{} → {} ({})",
                words::percent(before),
                words::percent(after),
                words::points(before, after)
            )),
        );
        add(
            "Class that lost most",
            words::worst_class(&certify.before, &certify.after)
                .map(|(name, before, after)| format!("{}: {}", one_line(&name, 100), words::points(before, after))),
        );
    }
    if let Some(gate) = &view.gate {
        add("Gate", Some(if gate.pass { "passed".into() } else { "not passed".into() }));
        for reason in &gate.reasons {
            add("", Some(one_line(reason, 400)));
        }
    }
    add("Report", Some(view.paths.report.display().to_string()));
    add("Candidate", view.paths.checkpoint.as_ref().map(|path| path.display().to_string()));
    add("Case", Some(view.case.to_string()));
    rows
}

/// The plain part.
fn text(view: &CaseView) -> String {
    let head = headline(view);
    let mut text = format!("{}\n\n{}\n\n", head.title, head.meaning);
    for (name, value) in figures(view) {
        let name = if name.is_empty() { String::new() } else { format!("{name}:") };
        text.push_str(&format!("{name:<22}{value}\n"));
    }
    text.push_str("\nWhat you can do now\n");
    for action in actions(view) {
        text.push_str(&format!("* {}\n", action.why));
        for line in action.command.lines() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text.push_str(&format!(
        "\n-- \ndelta-guard {} on {}{}\n",
        env!("CARGO_PKG_VERSION"),
        view.instance,
        if view.owner.is_empty() {
            String::new()
        } else {
            format!(", {}", view.owner)
        }
    ));
    text
}

/// The HTML part: inline styles only, no picture, no link, nothing to load.
fn page(view: &CaseView) -> String {
    let head = headline(view);
    let color = match head.tone {
        Tone::Good => "#1d7a4f",
        Tone::Attention => "#9a6200",
        Tone::Bad => "#b3261e",
        Tone::Quiet => "#55607a",
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; meta name="color-scheme" content="light dark"; title { (head.tag) } }
            body style="margin:0;padding:24px;font:16px/1.5 system-ui,-apple-system,Segoe UI,Arial,sans-serif" {
                div style="max-width:640px;margin:0 auto" {
                    p style=(format!("margin:0 0 6px;font-weight:700;color:{color}")) { (head.tag) }
                    h1 style="font-size:22px;line-height:1.25;margin:0 0 12px" { (head.title) }
                    p style="margin:0 0 20px" { (head.meaning) }
                    table style="border-collapse:collapse;font-size:14px;width:100%" {
                        @for (name, value) in figures(view) {
                            tr {
                                td style="padding:5px 16px 5px 0;color:#667085;vertical-align:top;white-space:nowrap" { (name) }
                                td style="padding:5px 0;vertical-align:top;word-break:break-word" { (value) }
                            }
                        }
                    }
                    h2 style="font-size:16px;margin:24px 0 6px" { "What you can do now" }
                    ul style="padding-left:20px;margin:0" {
                        @for action in actions(view) {
                            li style="margin:0 0 10px" {
                                (action.why)
                                @for line in action.command.lines() { br; code style="font-size:13px;word-break:break-all" { (line) } }
                            }
                        }
                    }
                    p style="color:#667085;font-size:13px;margin-top:28px" { "delta-guard " (env!("CARGO_PKG_VERSION")) " on " (view.instance) @if !view.owner.is_empty() { ", " (view.owner) } }
                }
            }
        }
    }
    .into_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::tests::repaired;

    pub(crate) fn settings() -> Mail {
        serde_json::from_value(
            serde_json::json!({"host": "localhost", "from": "Guard <guard@example.org>", "to": ["a@example.org", "B <b@example.org>"]}),
        )
        .unwrap()
    }

    fn raw(message: &Message) -> String {
        serde_json::from_value::<Content>(message.content.clone()).unwrap().raw
    }

    #[test]
    fn a_mail_is_the_same_each_time_and_another_for_each_recipient() {
        let folder = tempfile::tempdir().unwrap();
        let view = repaired(folder.path());
        let first = messages(&settings(), &view);
        assert_eq!(first, messages(&settings(), &view));
        assert_eq!(first.len(), 2);
        assert_ne!(first[0].id, first[1].id);
        let raw = raw(&first[0]);
        assert!(
            raw.contains(&format!("Message-ID: <{}@animals-v7.delta-guard>\r\n", first[0].id)),
            "{raw}"
        );
        assert!(raw.contains("Date: Mon, 23 Nov 2026 01:47:30 +0000\r\n"), "{raw}");
        assert!(raw.contains("Auto-Submitted: auto-generated\r\n"));
        for part in [
            "text/plain",
            "text/html",
            "150 training examples caused this error",
            "/var/lib/delta-guard/candidates/8f3a8f3a8f3a/model.safetensors",
        ] {
            assert!(raw.replace("=\r\n", "").contains(part), "{part} not in:\n{raw}");
        }
    }

    #[test]
    fn no_name_can_add_a_header_or_markup() {
        let folder = tempfile::tempdir().unwrap();
        for evil in [
            "x\r\nBcc: thief@example.org",
            "x\nBcc: thief@example.org",
            "x\u{0}\r\n\r\nbody",
            "=?utf-8?q?=0D=0ABcc:_thief@example.org?=",
            "\u{2028}Bcc: thief@example.org",
            "<b>x</b>",
        ] {
            let mut view = repaired(folder.path());
            view.submission.name = evil.into();
            view.submission.source = Some(evil.into());
            view.instance = evil.into();
            view.reason = evil.into();
            view.trace.as_mut().unwrap().predicted_label = evil.into();
            for message in messages(&settings(), &view) {
                let raw = raw(&message);
                let (head, body) = raw.split_once("\r\n\r\n").unwrap();
                let names: Vec<_> = head
                    .lines()
                    .filter(|line| !line.starts_with([' ', '\t']))
                    .filter_map(|line| line.split(':').next())
                    .collect();
                let mut sorted = names.clone();
                sorted.sort_unstable();
                assert_eq!(
                    sorted,
                    [
                        "Auto-Submitted",
                        "Content-Type",
                        "Date",
                        "From",
                        "MIME-Version",
                        "Message-ID",
                        "Subject",
                        "To"
                    ],
                    "{evil:?}: {head}"
                );
                assert!(
                    !body.contains("<b>x</b>")
                        || body.matches("<b>x</b>").count() <= body.split("text/html").next().unwrap_or_default().matches("<b>x</b>").count(),
                    "{evil:?} became markup"
                );
                // Lines end with CRLF throughout, so that no bare LF is read as an end by a lenient server.
                assert!(!raw.replace("\r\n", "").contains(['\r', '\n']), "{evil:?}: bare line end");
            }
        }
    }
}
