//! Mails about files that did not become a case: refused before they were one, or handed in again. They are short, and nothing comes along: the reason
//! lies in `refused/` beside the file.

use super::compose::{self, CHANNEL, Letter, one_line};
use crate::config::file::{Mail, On};
use crate::engine::{Message, Notice, Refusal, message_id};
use crate::mail::mailbox;
use crate::report::words::sentence;

/// One message for each recipient who asked for it (`refused` or `duplicate` in `mail.on`), and one for the submitter who may hear of it.
pub fn notices(mail: &Mail, notice: &Notice) -> Vec<Message> {
    let on = if notice.reason == Refusal::Duplicate {
        On::Duplicate
    } else {
        On::Refused
    };
    let recipients = mail.recipients(on);
    let mut list: Vec<Message> = recipients
        .iter()
        .filter_map(|to| message(mail, notice, to, &letter(notice, false)))
        .collect();
    let submitter = notice.mail.as_deref().and_then(|address| compose::submitter(address, &mail.submitters));
    if let Some(to) = submitter
        && !recipients
            .iter()
            .any(|known| mailbox(known).is_ok_and(|known| known.email.to_string() == to))
    {
        list.extend(message(mail, notice, &to, &letter(notice, true)));
    }
    list
}

fn message(mail: &Mail, notice: &Notice, to: &str, letter: &Letter) -> Option<Message> {
    let id = message_id(&notice.instance, &notice.about, &notice.occasion, CHANNEL, to);
    let written = u64::try_from(notice.at.as_second()).unwrap_or(0);
    let title = letter.subject.clone();
    match compose::content(mail, &notice.instance, to, &id, written, title, letter.clone()).and_then(|content| Ok(serde_json::to_value(content)?)) {
        Ok(content) => Some(Message {
            id,
            channel: CHANNEL.into(),
            to: to.into(),
            content,
            kept: None,
            written: notice.at.as_second(),
        }),
        Err(error) => {
            tracing::error!(
                message = "Mail could not be written.",
                file = notice.name,
                to,
                error = format!("{error:#}")
            );
            None
        }
    }
}

fn letter(notice: &Notice, to_submitter: bool) -> Letter {
    let (instance, name) = (one_line(&notice.instance, 64), one_line(&notice.name, 200));
    let again = notice.reason == Refusal::Duplicate;
    let what = match (to_submitter, again) {
        (true, true) => format!("You handed in the picture {name} again."),
        (true, false) => format!("The guard did not take your file {name}."),
        (false, true) => format!("The picture {name} was handed in again."),
        (false, false) => format!("The guard did not take the file {name}."),
    };
    let help = match (again, notice.help.is_empty()) {
        (false, true) => "Mend it and hand it in again; nothing else follows from it.".to_owned(),
        (_, true) => String::new(),
        _ => sentence(&one_line(&notice.help, 400)),
    };
    let text = format!(
        "{what}\n\n{}\n\n{help}\n\n-- \ndelta-guard on {instance}, {}{}\n",
        sentence(&one_line(&notice.sentence, 600)),
        if again { "duplicate" } else { notice.reason.as_str() },
        if notice.owner.is_empty() {
            String::new()
        } else {
            format!(", {}", one_line(&notice.owner, 200))
        }
    );
    let tag = if again { "handed in again" } else { "not taken" };
    let subject = match to_submitter {
        true => format!("[{instance}] Your file {}: {tag}", one_line(&notice.name, 80)),
        false => format!("[{instance}] {}: {tag} ({})", one_line(&notice.name, 80), notice.reason.as_str()),
    };
    Letter {
        subject,
        text,
        html: None,
        picture: None,
        attachments: Vec::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::alert::Content;
    use delta_guard_contract::Digest;

    fn mail() -> Mail {
        serde_json::from_value(serde_json::json!({
            "host": "localhost", "from": "guard@example.org", "to": ["owner@example.org"], "submitters": ["example.net"],
            "others": [{"to": ["data@example.org"], "on": ["refused"]}, {"to": ["desk@example.org"], "on": ["duplicate"]}],
        }))
        .unwrap()
    }

    fn notice(reason: Refusal, submitter: Option<&str>) -> Notice {
        Notice {
            instance: "harbour".into(),
            owner: "ML platform".into(),
            about: Digest("a".repeat(64)),
            occasion: "file".into(),
            reason,
            name: "x\r\nBcc: thief@example.org.png".into(),
            sentence: "the picture is empty".into(),
            help: if reason == Refusal::Duplicate {
                "`delta-guard retry abc` asks again".into()
            } else {
                String::new()
            },
            mail: submitter.map(String::from),
            at: "2026-11-23T12:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn who_asked_and_the_submitter_hear_of_files_that_are_no_case() {
        let to = |notice: &Notice| notices(&mail(), notice).into_iter().map(|message| message.to).collect::<Vec<_>>();
        assert_eq!(to(&notice(Refusal::Empty, None)), ["data@example.org"]);
        assert_eq!(to(&notice(Refusal::Duplicate, None)), ["desk@example.org"]);
        assert_eq!(
            to(&notice(Refusal::BadSidecar, Some("ann@example.net"))),
            ["data@example.org", "ann@example.net"]
        );
        assert_eq!(
            to(&notice(Refusal::Duplicate, Some("ann@example.net"))),
            ["desk@example.org", "ann@example.net"]
        );
        for stranger in ["ann@elsewhere.org", "ann@example.net\r\nBcc: b@evil.org", ""] {
            assert_eq!(to(&notice(Refusal::Empty, Some(stranger))), ["data@example.org"], "{stranger:?}");
        }
    }

    #[test]
    fn a_notice_is_the_same_each_time_and_says_why_and_what_to_do() {
        let raw = |message: &Message| {
            serde_json::from_value::<Content>(message.content.clone())
                .unwrap()
                .raw
                .replace("=\r\n", "")
        };
        let again = notice(Refusal::Duplicate, Some("ann@example.net"));
        let (first, second) = (notices(&mail(), &again), notices(&mail(), &again));
        assert_eq!(first, second);
        assert_ne!(first[0].id, first[1].id);
        let mine = raw(&first[1]);
        assert!(mine.contains("delta-guard retry abc") && mine.contains("You handed in"), "{mine}");
        let refused = raw(&notices(&mail(), &notice(Refusal::Empty, None))[0]);
        assert!(
            refused.contains("The picture is empty.") && refused.contains("hand it in again"),
            "{refused}"
        );
        let other = Notice {
            occasion: "another file".into(),
            ..again
        };
        assert_ne!(notices(&mail(), &other)[0].id, first[0].id, "another file is another message");
        for raw in [mine, refused] {
            let head = raw.split("\r\n\r\n").next().unwrap();
            assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
            assert!(!raw.contains("/var/lib"));
        }
    }
}
