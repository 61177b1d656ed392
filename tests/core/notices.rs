//! Who hears by mail of files that did not become a case.

use crate::folder::Place;
use delta_guard::config::file::Mail;
use delta_guard::engine::{Happening, MOST_WAITING};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

fn mail() -> Mail {
    serde_json::from_value(serde_json::json!({
        "host": "localhost", "from": "guard@example.org", "to": ["owner@example.org"], "submitters": ["example.net"],
        "others": [{"to": ["data@example.org"], "on": ["refused", "duplicate"]}],
    }))
    .unwrap()
}

/// To whom, and the subject.
fn waiting(place: &Place) -> Vec<(String, String)> {
    let messages = place.ledger.pending_messages().into_iter();
    let mut all: Vec<_> = messages
        .map(|(_, message)| (message.to, message.content["title"].as_str().unwrap_or_default().to_owned()))
        .collect();
    all.sort();
    all
}

#[test]
fn refused_files_and_duplicates_are_told_to_who_asked_and_to_their_submitters() {
    let mut place = Place::mailing(mail());
    place.put("empty.png", "");
    place.put("empty.json", r#"{"mail": "ann@example.net"}"#);
    // A sidecar that is wrong still says whom to tell.
    place.put("typo.png", "x");
    place.put("typo.json", r#"{"mail": "ben@example.net", "label": "dog"}"#);
    place.put("other.png", "y");
    place.put("other.json", r#"{"mail": "eve@elsewhere.org", "label": "dog"}"#);
    place.put("good.png", "good");
    place.settle();
    let told = waiting(&place);
    let to: Vec<&str> = told.iter().map(|(to, _)| to.as_str()).collect();
    assert_eq!(
        to,
        [
            "ann@example.net",
            "ben@example.net",
            "data@example.org",
            "data@example.org",
            "data@example.org"
        ]
    );
    assert!(
        told[0].1.contains("Your file empty.png: not taken") && told[1].1.contains("typo.png"),
        "{told:?}"
    );
    assert_eq!((place.cases().len(), place.refused().len()), (1, 3));

    // The same picture twice more: two occasions, each told once.
    for name in ["again.png", "once-more.png"] {
        place.put(name, "good");
        place.put(name.replace("png", "json"), r#"{"mail": "ann@example.net"}"#);
        place.settle();
    }
    let again: Vec<_> = waiting(&place)
        .into_iter()
        .filter(|(_, title)| title.contains("handed in again"))
        .collect();
    let to: Vec<&str> = again.iter().map(|(to, _)| to.as_str()).collect();
    assert_eq!(
        to,
        ["ann@example.net", "ann@example.net", "data@example.org", "data@example.org"],
        "{again:?}"
    );

    // They wait in the journal: another start finds the same.
    let before = waiting(&place);
    assert_eq!(waiting(&place.again()), before);
}

#[test]
fn without_a_wish_nobody_is_told() {
    let mut mail = mail();
    mail.others.clear();
    let mut place = Place::mailing(mail);
    place.put("empty.png", "");
    place.put("a.png", "good");
    place.settle();
    place.put("b.png", "good");
    place.settle();
    assert_eq!((place.cases().len(), waiting(&place).len()), (1, 0));
}

#[test]
fn a_crash_before_the_record_of_the_refusal_tells_nobody_twice() {
    let mut place = Place::mailing(mail());
    place.put("empty.png", "");
    place.scan_after(0);
    *place.hooks.1.lock().unwrap() = Some(Box::new(|event| {
        assert!(!matches!(event, Happening::JournalAppended { .. }), "the crash that the test asked for");
    }));
    place.clock.advance(Duration::from_secs(2));
    assert!(catch_unwind(AssertUnwindSafe(|| place.inbox.scan())).is_err());
    let mut place = place.again();
    let ids = |place: &Place| {
        place
            .ledger
            .pending_messages()
            .into_iter()
            .map(|(_, message)| message.id)
            .collect::<Vec<_>>()
    };
    let before = ids(&place);
    assert_eq!((before.len(), place.refused().len()), (1, 0), "told, and not yet refused");
    place.settle();
    assert_eq!((ids(&place), place.refused().len()), (before, 1));
}

#[test]
fn a_flood_of_refused_files_fills_neither_journal_nor_memory() {
    let mut place = Place::mailing(mail());
    let files = MOST_WAITING + 60;
    for n in 0..files {
        place.put(format!("{n:04}.png"), "");
    }
    place.settle();
    assert_eq!((place.refused().len(), place.names().len()), (files, 0));
    assert_eq!(waiting(&place).len(), MOST_WAITING);
    // A mail that went out makes room for another.
    let (_, sent) = place.ledger.pending_messages().remove(0);
    place.ledger.message_sent(&sent.id, "250 ok").unwrap();
    place.put("one-more.png", "");
    place.settle();
    assert_eq!(waiting(&place).len(), MOST_WAITING);
    assert!(waiting(&place).iter().any(|(_, title)| title.contains("one-more.png")));
}
