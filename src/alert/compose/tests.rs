#![allow(clippy::unwrap_used, reason = "tests")]

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
fn the_picture_the_note_and_the_report_come_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut view = repaired(folder.path());
    view.submission.note = Some("seen at gate 4".into());
    view.paths.report = folder.path().join("report.html");
    std::fs::write(&view.paths.report, "<!doctype html><p>everything about it").unwrap();
    let shown = raw(&messages(&settings(), &view)[0]);
    let joined = shown.replace("=\r\n", "");
    // The thumbnail's own bytes, in base64, and the page that shows it.
    let png = picture(&view).unwrap();
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &png);
    assert!(shown.replace("\r\n", "").contains(&base64), "{shown}");
    for part in [
        "Content-Type: image/png",
        "cid:anomaly@delta-guard",
        "seen at gate 4",
        "filename=\"report-8f3a8f3a",
        "attached to this mail; on ",
        &host_name(),
    ] {
        assert!(joined.contains(part), "{part} not in:\n{joined}");
    }
    assert!(
        joined.contains("everything about it") || shown.contains("ZXZlcnl0aGluZyBhYm91dCBpdA"),
        "{shown}"
    );
    assert_eq!(shown, raw(&messages(&settings(), &view)[0]), "the same each time");

    // With a link, the report stays where it is.
    view.settings = serde_json::json!({"public_url": "https://guard.example.org/models"});
    let shown = raw(&messages(&settings(), &view)[0]).replace("=\r\n", "");
    assert!(
        shown.contains(&format!("https://guard.example.org/models/cases/{}", view.case)),
        "{shown}"
    );
    assert!(!shown.contains("report-8f3a8f3a"), "{shown}");

    // What is no PNG is not passed on, whatever its name says.
    let name = view.trace.as_ref().unwrap().thumbnails["anomaly"].clone();
    std::fs::write(view.paths.trace_dir.as_ref().unwrap().join(name), "<svg onload=x>").unwrap();
    let shown = raw(&messages(&settings(), &view)[0]);
    assert!(!shown.contains("image/png") && !shown.contains("cid:"), "{shown}");
    // No report could be made: the mail goes out all the same and says so.
    view.settings = serde_json::Value::Null;
    std::fs::remove_file(&view.paths.report).unwrap();
    assert!(raw(&messages(&settings(), &view)[0]).replace("=\r\n", "").contains("none could be made"));
}

#[test]
fn everybody_hears_of_what_they_asked_for_and_the_submitter_of_the_own_picture() {
    let folder = tempfile::tempdir().unwrap();
    let mail: Mail = serde_json::from_value(serde_json::json!({
        "host": "localhost", "from": "guard@example.org", "to": ["owner@example.org"], "submitters": ["example.org", "bücher.example"],
        "others": [{"to": ["data@example.org", "owner@example.org"], "on": ["refused", "proposed"]}],
    }))
    .unwrap();
    let mut view = repaired(folder.path());
    let mut to = |state, submitter: Option<&str>| {
        view.state = state;
        view.submission.mail = submitter.map(String::from);
        let messages = messages(&mail, &view);
        messages.iter().map(|message| message.to.clone()).collect::<Vec<_>>()
    };
    assert_eq!(to(State::Proposed, None), ["owner@example.org", "data@example.org"], "each once");
    assert_eq!(to(State::Refused, None), ["data@example.org", "owner@example.org"]);
    assert_eq!(to(State::NoAnomaly, None), [""; 0]);
    assert_eq!(to(State::Held, None), ["owner@example.org"]);
    // The submitter, where the domain is allowed; as a plain address.
    assert_eq!(to(State::NoAnomaly, Some("Ann <ann@example.org>")), ["ann@example.org"]);
    assert_eq!(to(State::NoAnomaly, Some("ann@bücher.example")), ["ann@xn--bcher-kva.example"]);
    for stranger in [
        "ann@elsewhere.org",
        "ann@sub.example.org",
        "ann@example.org.evil.org",
        "ann@example.org, b@evil.org",
        "nobody",
        "a@example.org\r\nBcc: b@evil.org",
    ] {
        assert_eq!(to(State::NoAnomaly, Some(stranger)), [""; 0], "{stranger:?}");
    }
    // Once is enough for a submitter who is a recipient.
    assert_eq!(to(State::Held, Some("owner@example.org")), ["owner@example.org"]);
    view.state = State::Proposed;
    view.submission.mail = Some("ann@example.org".into());
    let shown = raw(messages(&mail, &view).last().unwrap()).replace("=\r\n", "");
    assert!(shown.contains("Your picture") && !shown.contains("/var/lib"), "{shown}");
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
        view.submission.note = Some(evil.into());
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
