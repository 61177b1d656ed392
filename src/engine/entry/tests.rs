use super::*;
use crate::case::tests::events;
use crate::case::{FileIdentity, Refusal, RefusedFile};
use crate::engine::asked::{Ask, Request};
use jiff::Timestamp;
use std::collections::BTreeSet;

fn id() -> CaseId {
    Digest("a".repeat(64))
}

/// One entry of every kind.
fn entries() -> Vec<Entry> {
    let file = FileIdentity {
        dev: 1,
        ino: 2,
        size: 3,
        mtime_ns: 4,
    };
    let refused = RefusedFile {
        reason: Refusal::Empty,
        sentence: "s".into(),
        name: "n".into(),
        name_base64: "b".into(),
        files: vec![file],
    };
    let request = Request {
        ask: Ask::Resume { case: id() },
        reason: "r".into(),
    };
    let mut all: Vec<Entry> = events().into_iter().map(|event| Entry::Case(id(), event)).collect();
    all.extend([
        inbox::Note::FileRefused(refused).into(),
        inbox::Note::Duplicate {
            of: id(),
            name: "n".into(),
            files: vec![file],
            contents: vec![id()],
        }
        .into(),
        mail::Note::Notices {
            about: id(),
            messages: vec![],
        }
        .into(),
        mail::Note::MessageSent {
            id: "i".into(),
            reply: "250 \"ok\"\n}".into(),
            list: Some(id()),
        }
        .into(),
        mail::Note::MessageGivenUp {
            id: "i".into(),
            reason: "r".into(),
            list: None,
        }
        .into(),
        mail::Note::OutboxWaited { seconds: 7 }.into(),
        approval::Note::Asked {
            id: "i".into(),
            by: 7,
            request,
            done: true,
            answer: "a".into(),
        }
        .into(),
        approval::Note::Approved {
            case: id(),
            ids: id(),
            count: 3,
            by: 7,
        }
        .into(),
        approval::Note::Withdrawn { case: id(), by: 7 }.into(),
        daemon::Note::DaemonStarted {
            version: "1".into(),
            settings: id(),
        }
        .into(),
    ]);
    all
}

fn record(kind: &str, critical: bool, case: Option<&str>, data: &str) -> Record {
    Record {
        seq: 1,
        time: Timestamp::UNIX_EPOCH,
        epoch: 1,
        kind: kind.into(),
        critical,
        case: case.map(String::from),
        data: serde_json::from_str(data).unwrap(),
    }
}

/// What is folded when it is recorded is what the next start will read.
#[test]
fn what_is_written_is_what_is_read() {
    let mut kinds = BTreeSet::new();
    for entry in entries() {
        let Written { kind, critical, case, data } = entry.write().unwrap();
        kinds.insert((case.is_some(), kind));
        let read = Entry::read(record(kind, critical, case.as_ref().map(|case| case.0.as_str()), &data)).unwrap();
        assert_eq!(read, entry, "{kind}: {data}");
    }
    let listed: BTreeSet<&str> = [&inbox::Note::KINDS[..], &mail::Note::KINDS, &approval::Note::KINDS, &daemon::Note::KINDS]
        .concat()
        .into_iter()
        .collect();
    let written: BTreeSet<&str> = kinds.iter().filter(|(of_case, _)| !of_case).map(|(_, kind)| *kind).collect();
    assert_eq!(written, listed, "every kind has its sample and its room");
}

/// Of a newer version: what may be skipped is skipped, what must be understood stops the reader with its name.
#[test]
fn what_a_newer_version_wrote_is_skipped_or_named() {
    for case in [None, Some("c")] {
        assert_eq!(Entry::read(record("sung", false, case, "{\"n\": 1}")).unwrap(), Entry::Unknown);
        let error = Entry::read(record("sung", true, case, "{\"n\": 1}")).unwrap_err();
        assert!(format!("{error:#}").contains("`sung`"), "{error:#}");
    }
    for kind in JOURNAL {
        assert_eq!(Entry::read(record(kind, true, None, "{}")).unwrap(), Entry::Journal);
    }
    assert!(Entry::Journal.write().is_err() && Entry::Unknown.write().is_err());
    // A known kind with content that is none.
    assert_eq!(Entry::read(record("message-sent", false, None, "{\"id\": 3}")).unwrap(), Entry::Unknown);
    assert!(Entry::read(record("withdrawn", true, None, "{}")).is_err());
}
