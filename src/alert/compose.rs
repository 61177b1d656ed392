//! What a mail says. It is made once, when its case ends; its date is the case's end, its Message-ID that of the journal's message.

use crate::case::State;
use crate::config::file::{Mail, On};
use crate::engine::{CaseView, MOST_WAITING, Message, message_id};
use crate::mail::{domain, mailbox};
use crate::report::actions::actions;
use crate::report::picture;
use crate::report::words::{self, Tone, headline};
use anyhow::Context;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, MultiPart, SinglePart};
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
    /// What it is about, for a mail that stands for many. Empty in journals of older versions.
    #[serde(default)]
    pub title: String,
    /// Name of the installation.
    #[serde(default)]
    pub instance: String,
}

/// The channel of mails in the journal.
pub const CHANNEL: &str = "mail";

/// One message for each recipient who wants to hear of this ([`Mail::recipients`]), and one for the submitter who may ([`submitter`]). What cannot be made
/// into a mail is left out and logged: the case ends all the same.
pub fn messages(mail: &Mail, view: &CaseView) -> Vec<Message> {
    let recipients = mail.recipients(what(view.state));
    let mut list = Vec::new();
    if !recipients.is_empty() {
        let letter = case_letter(view);
        list.extend(recipients.iter().filter_map(|to| message(mail, view, to, &letter)));
    }
    if let Some(to) = view.submission.mail.as_deref().and_then(|address| submitter(address, &mail.submitters))
        && !recipients
            .iter()
            .any(|known| mailbox(known).is_ok_and(|known| known.email.to_string() == to))
    {
        list.extend(message(mail, view, &to, &submitters_letter(view)));
    }
    list
}

/// What a case in this state is for those who get mails.
fn what(state: State) -> On {
    match state {
        State::Proposed => On::Proposed,
        State::Promoted => On::Promoted,
        State::Declined => On::Declined,
        State::Rejected => On::Rejected,
        State::Undecided => On::Undecided,
        State::Observed => On::Observed,
        State::NoAnomaly => On::NoAnomaly,
        State::Refused => On::Refused,
        State::Failed => On::Failed,
        // Of a case on its way there is nothing to tell but that it stands still.
        _ => On::Held,
    }
}

/// The submitter's plain address, where it is one and its domain is among those that are written to. A sidecar is anybody's words: without that list anyone
/// could make the guard write to anyone.
pub fn submitter(address: &str, domains: &[String]) -> Option<String> {
    let email = mailbox(address).ok()?.email;
    let allowed = |name: &String| domain(name).is_some_and(|name| name.eq_ignore_ascii_case(email.domain()));
    domains.iter().any(allowed).then(|| email.to_string())
}

fn message(mail: &Mail, view: &CaseView, to: &str, letter: &Letter) -> Option<Message> {
    let id = message_id(&view.instance, &view.case, &view.occasion, CHANNEL, to);
    match compose(mail, view, to, &id, letter).and_then(|content| Ok(serde_json::to_value(content)?)) {
        Ok(content) => Some(Message {
            id,
            channel: CHANNEL.into(),
            to: to.into(),
            content,
            kept: None,
            written: view.ended_at.unwrap_or(view.accepted_at).as_second(),
        }),
        Err(error) => {
            tracing::error!(
                message = "Mail could not be written.",
                case = view.case.short(),
                to,
                error = format!("{error:#}")
            );
            None
        }
    }
}

/// What those who look after the model read.
fn case_letter(view: &CaseView) -> Letter {
    let picture = picture(view);
    Letter {
        subject: subject(view),
        text: text(view),
        html: Some(page(view, picture.is_some())),
        picture,
        attachments: attached_report(view).into_iter().collect(),
    }
}

/// What the submitter of a picture reads: what became of it, and nothing of what lies on the guard's host.
fn submitters_letter(view: &CaseView) -> Letter {
    let head = headline(view);
    let reason = match view.state {
        State::Refused | State::NoAnomaly => format!("Why: {}\n\n", one_line(&view.reason, 1000)),
        _ => String::new(),
    };
    let name = one_line(&view.submission.name, 200);
    Letter {
        subject: format!(
            "[{}] Your picture {}: {}",
            one_line(&view.instance, 64),
            one_line(&view.submission.name, 80),
            head.tag
        ),
        text: format!(
            "You handed in the picture {name}.\n\n{}\n\n{}\n\n{reason}-- \ndelta-guard on {}, case {}{}\n",
            head.title,
            head.meaning,
            one_line(&view.instance, 64),
            view.case.short(),
            if view.owner.is_empty() {
                String::new()
            } else {
                format!(", {}", one_line(&view.owner, 200))
            }
        ),
        html: None,
        picture: None,
        attachments: Vec::new(),
    }
}

/// Many mails to one recipient in one: their subjects, as far as there is room.
pub(super) fn digest(mail: &Mail, instance: &str, to: &str, id: &str, titles: &[String], all: usize) -> anyhow::Result<String> {
    let instance = one_line(instance, 64);
    let mut text = format!(
        "{all} further messages of the guard {instance} on {}, which would have been as many mails:\n\n",
        host_name()
    );
    for title in titles {
        text.push_str(&format!("* {}\n", one_line(title, 200)));
    }
    if all > titles.len() {
        text.push_str(&format!("* and {} more\n", all - titles.len()));
    }
    text.push_str("\nAll of them: delta-guard cases\n");
    if all >= MOST_WAITING {
        text.push_str(&format!(
            "While {MOST_WAITING} messages wait, files that are not taken or handed in again are not mailed: they lie in the folder of refused files.\n"
        ));
    }
    let letter = Letter {
        subject: format!("[{instance}] {all} further messages"),
        text,
        html: None,
        picture: None,
        attachments: Vec::new(),
    };
    envelope(mail, &instance, to, id, SystemTime::now(), letter)
}

/// What a mail holds, before it has a recipient.
#[derive(Clone)]
pub(super) struct Letter {
    pub subject: String,
    pub text: String,
    /// The same as a page; None where the text is enough.
    pub html: Option<String>,
    /// A PNG that the page shows under the name [`PICTURE_ID`].
    pub picture: Option<Vec<u8>>,
    /// Name, type and bytes of files. The names are ours, never a submitter's.
    pub attachments: Vec<(String, &'static str, Vec<u8>)>,
}

/// By which a mail's page names its picture.
const PICTURE_ID: &str = "anomaly@delta-guard";
/// A report of more bytes is not sent along: many servers take no mail beyond 10 MB.
const REPORT_BYTES: u64 = 4 << 20;

/// Headers and body as they go over the wire, in ASCII. The same each time that it is made.
pub(super) fn envelope(mail: &Mail, instance: &str, to: &str, id: &str, written: SystemTime, letter: Letter) -> anyhow::Result<String> {
    let from = mailbox(&mail.from).map_err(anyhow::Error::msg)?;
    let recipient = mailbox(to).map_err(anyhow::Error::msg)?;
    let plain = SinglePart::builder().header(ContentType::TEXT_PLAIN).body(letter.text);
    let mut words = MultiPart::alternative().boundary(format!("delta-guard-{id}")).singlepart(plain);
    if let Some(html) = letter.html {
        let page = SinglePart::builder().header(ContentType::TEXT_HTML).body(html);
        words = match letter.picture {
            None => words.singlepart(page),
            Some(png) => {
                let picture = Attachment::new_inline_with_name(PICTURE_ID.into(), "anomaly.png".into()).body(png, "image/png".parse()?);
                words.multipart(
                    MultiPart::related()
                        .boundary(format!("delta-guard-page-{id}"))
                        .singlepart(page)
                        .singlepart(picture),
                )
            }
        };
    }
    let mut parts = words;
    if !letter.attachments.is_empty() {
        parts = MultiPart::mixed().boundary(format!("delta-guard-all-{id}")).multipart(parts);
        for (name, kind, bytes) in letter.attachments {
            parts = parts.singlepart(Attachment::new(name).body(bytes, kind.parse()?));
        }
    }
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

/// The link to a case's report, where the interface can be reached by others.
fn link(view: &CaseView) -> Option<String> {
    let base = view.settings.get("public_url")?.as_str()?;
    Some(format!("{base}/cases/{}", view.case))
}

/// The report as an attachment, where no link leads to it.
fn attached_report(view: &CaseView) -> Option<(String, &'static str, Vec<u8>)> {
    if link(view).is_some() {
        return None;
    }
    let meta = std::fs::metadata(&view.paths.report).ok()?;
    if !meta.is_file() || meta.len() > REPORT_BYTES {
        return None;
    }
    let page = std::fs::read(&view.paths.report).ok()?;
    Some((format!("report-{}.html", view.case.short()), "text/html; charset=utf-8", page))
}

/// Where the report is, for a reader on another machine.
fn report_place(view: &CaseView) -> String {
    if let Some(link) = link(view) {
        return link;
    }
    let file = view.paths.report.display();
    let host = host_name();
    if attached_report(view).is_some() {
        format!("attached to this mail; on {host}: {file}")
    } else if view.paths.report.is_file() {
        format!("too large for a mail; on {host}: {file}")
    } else {
        format!("none could be made; the log on {host} says why")
    }
}

/// This machine's name.
pub(super) fn host_name() -> String {
    let name = rustix::system::uname();
    one_line(&name.nodename().to_string_lossy(), 100)
}

fn compose(mail: &Mail, view: &CaseView, to: &str, id: &str, letter: &Letter) -> anyhow::Result<Content> {
    let written = u64::try_from(view.ended_at.unwrap_or(view.accepted_at).as_second()).unwrap_or(0);
    let title = format!("{} ({})", letter.subject, view.case.short());
    content(mail, &view.instance, to, id, written, title, letter.clone())
}

/// The content of a mail in the journal.
pub(super) fn content(mail: &Mail, instance: &str, to: &str, id: &str, written: u64, title: String, letter: Letter) -> anyhow::Result<Content> {
    let from = mailbox(&mail.from).map_err(anyhow::Error::msg)?;
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(written);
    Ok(Content {
        from: from.email.to_string(),
        raw: envelope(mail, instance, to, id, at, letter)?,
        written,
        title,
        instance: instance.into(),
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
    let shown = crate::text::escape(text.as_bytes());
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
    add("Note", view.submission.note.as_deref().map(|note| one_line(note, 1000)));
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
        for reason in gate.reasons.iter().chain(&gate.doubts) {
            add("", Some(one_line(reason, 400)));
        }
    }
    add("Host", Some(host_name()));
    add("Report", Some(report_place(view)));
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

/// The HTML part: inline styles only; its picture comes with it, and nothing is loaded from anywhere.
fn page(view: &CaseView, has_picture: bool) -> String {
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
                    @if has_picture {
                        img src=(format!("cid:{PICTURE_ID}")) alt="the submitted picture, as the model saw it" width="144" style="display:block;margin:0 0 20px;image-rendering:pixelated;border:1px solid #d0d5dd;border-radius:6px";
                    }
                    table style="border-collapse:collapse;font-size:14px;width:100%" {
                        @for (name, value) in figures(view) {
                            tr {
                                td style="padding:5px 16px 5px 0;color:#667085;vertical-align:top;white-space:nowrap" { (name) }
                                td style="padding:5px 0;vertical-align:top;word-break:break-word" {
                                    @if name == "Report" && link(view).is_some() { a href=(value) { (value) } } @else { (value) }
                                }
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
mod tests;
