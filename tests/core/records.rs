//! Records stay small whatever others say: submitters, workers, the training set, the list of recipients. What is long lies in files of the case.

use crate::folder::Place;
use crate::support::{Recorder, Running, drop_picture, only_case, script, settings, wait_for};
use delta_guard::case::{Case, End, Event, State};
use delta_guard::config::file::Mail;
use delta_guard::engine::{self, CaseView, Message, query};
use delta_guard::journal::Reader;
use delta_guard::policy::Mode;
use delta_guard::publish;
use delta_guard::settings::Settings;
use delta_guard::vfs::Disk;
use delta_guard_contract::finding::FactorUse;
use delta_guard_contract::job::{Accuracy, CertifyResult, FitResult, Made, Prediction, TrainResult};
use delta_guard_contract::{Code, Digest, Fault, Flagged, JobResult, Outcome, TraceVerdict, TrainId};
use proptest::prelude::*;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes of the largest record, and its kind.
fn largest(settings: &Settings) -> (usize, String) {
    let mut largest = (0, String::new());
    Reader::new(Arc::new(Disk), &settings.journal_dir())
        .read(&mut |record, _| {
            largest = largest.clone().max((serde_json::to_vec(&record)?.len(), record.kind));
            Ok(())
        })
        .unwrap();
    largest
}

fn mail(recipients: usize) -> Mail {
    let to: Vec<String> = (0..recipients)
        .map(|n| format!("Somebody with a Name {n} <recipient-{n}@example.org>"))
        .collect();
    serde_json::from_value(serde_json::json!({"host": "localhost", "from": "guard@example.org", "to": to})).unwrap()
}

fn recorder(recipients: usize) -> Recorder {
    Recorder(Default::default(), Default::default(), Some(mail(recipients)))
}

/// What a worker says to each stage, which ends with `fault` where that names the stage.
struct Words {
    classes: Vec<String>,
    flagged: usize,
    layers: usize,
    fault: Option<(&'static str, Fault)>,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            classes: ["cat", "dog", "ship"].map(String::from).to_vec(),
            flagged: 3,
            layers: 2,
            fault: None,
        }
    }
}

/// Let the settings' worker say this.
fn let_say(settings: &mut Settings, root: &Path, words: &Words) {
    let digest = publish::digest_file(&settings.model.checkpoint).unwrap();
    let prediction = |class: usize| Prediction {
        label: words.classes[class].clone(),
        probability: 0.9,
        top: words.classes.iter().map(|class| (class.clone(), 0.1)).collect(),
        classes: words.classes.clone(),
        checkpoint: digest.clone(),
    };
    let accuracy = || Accuracy {
        examples: 100 * words.classes.len() as u64,
        correct: 90 * words.classes.len() as u64,
        classes: words.classes.iter().map(|class| (class.clone(), (100, 90))).collect(),
    };
    let factors = FactorUse {
        key: digest.clone(),
        reused: true,
        examples: 100,
    };
    let flagged = |n: usize| Flagged {
        id: TrainId(format!("{}/{n}.png", words.classes[0])),
        label: words.classes[0].clone(),
        rank: n as u32 + 1,
        score: 0.9,
        source: None,
    };
    let trace = serde_json::json!({
        "verdict": TraceVerdict::Flagged, "predicted_label": words.classes[0], "flagged": (0..words.flagged).map(flagged).collect::<Vec<_>>(),
        "examples": 1_000_000, "examples_of_label": 900_000, "factors": factors, "settings": trace_settings(), "checkpoint": digest, "manifest": digest, "seconds": {}, "thumbnails": {}, "peak_memory": 1, "device": "cpu",
    });
    let results = [
        ("predict", JobResult::Predict(prediction(0))),
        (
            "fit",
            JobResult::Fit(FitResult {
                factors,
                seconds: (0..words.layers).map(|n| (format!("step {n}"), 0.1)).collect(),
                layers: (0..words.layers).map(|n| (format!("layer{n}.conv1"), 64, 577)).collect(),
                checkpoint: None,
                manifest: None,
            }),
        ),
        ("trace", JobResult::Trace(Box::new(serde_json::from_value(trace).unwrap()))),
        (
            "unlearn",
            JobResult::Train(TrainResult {
                file: "model.safetensors".into(),
                digest: digest.clone(),
                made: Some(Made {
                    method: words.classes[0].clone(),
                    about: words.classes[0].clone(),
                }),
                examples: 97,
                train_loss: 0.1,
                train_accuracy: 0.9,
                seconds: 0.1,
                resumed_epochs: 0,
                device: None,
                peak_memory: None,
                base: None,
                manifest: None,
            }),
        ),
        (
            "certify",
            JobResult::Certify(CertifyResult {
                anomalies_before: vec![prediction(0)],
                // The class that the sidecar of such a test claims.
                anomalies_after: vec![prediction(words.classes.len() - 1)],
                before: accuracy(),
                after: accuracy(),
                paired: None,
                candidate: digest.clone(),
                seconds: 0.1,
                manifest: None,
                flagged: None,
            }),
        ),
    ];
    for (stage, result) in results {
        match &words.fault {
            Some((at, fault)) if *at == stage => say(root, stage, &Outcome::Failed { fault: fault.clone() }),
            _ => answer(root, stage, &serde_json::to_vec(&result).unwrap()),
        }
    }
    let lines = format!(
        r#"cd '{0}'
cat > job.json
stage=$(sed 's/.*"task":{{"task":"\([a-z]*\)".*/\1/' job.json)
out=$(sed 's/.*"out_dir":"\([^"]*\)".*/\1/' job.json)
mkdir -p "$out"
echo weights > "$out/model.safetensors"
[ ! -e "$stage.outcome.json" ] || cp "$stage.outcome.json" "$out/outcome.json"
cat "$stage.answer""#,
        root.display()
    );
    settings.worker.path = script(root, &lines);
}

/// What the stage's worker leaves in its folder, and says of it.
fn answer(root: &Path, stage: &str, result: &[u8]) {
    std::fs::write(root.join(format!("{stage}.outcome.json")), result).unwrap();
    let outcome = Outcome::Done {
        file: "outcome.json".into(),
        digest: Digest(blake3::hash(result).to_hex().to_string()),
    };
    say(root, stage, &outcome);
}

fn say(root: &Path, stage: &str, outcome: &Outcome) {
    let line = serde_json::to_string(&delta_guard_contract::Message::Outcome(outcome.clone())).unwrap();
    std::fs::write(root.join(format!("{stage}.answer")), line + "\n").unwrap();
}

fn trace_settings() -> serde_json::Value {
    serde_json::json!({"mode": "guard", "seed": 7, "queries": 50, "tau": 0.0, "n_tol": 1, "objective": "margin", "fisher": "true",
        "damping": {"kind": "heuristic", "factor": 0.1}, "space": "pixels", "labels": "independent", "change": "both", "combine": "intersect",
        "fit_examples": 1000, "precision": "f32", "layers": [], "seeds": 20, "alpha": 0.01, "rounds": 3, "placebos": 20, "plain": false})
}

/// Run a daemon until its first case is told or held; then a second daemon, which takes a further picture to its end.
fn run_twice(settings: &Settings, recipients: usize) -> Option<Case> {
    let running = Running::start_with(settings, recorder(recipients));
    let ended = |book: engine::Book| {
        let waits = book.cases.values().any(|case| !case.told && case.state != State::Held);
        let dealt = !book.cases.is_empty() || matches!(book.last_file, Some(engine::LastFile::Refused(_)));
        (dealt && !waits).then(|| book.cases.into_values().next())
    };
    let case = wait_for("the end of the case", || {
        query::read(&settings.state_dir).ok().and_then(|(book, _)| ended(book))
    });
    running.stop().1.expect("a clean stop");
    let running = Running::start_with(settings, recorder(1));
    drop_picture(settings, "another.png", "another", None);
    wait_for("the end of the second case", || {
        let cases = query::read(&settings.state_dir).ok()?.0.cases;
        cases
            .values()
            .any(|case| case.accepted.name == "another.png" && (case.told || case.state == State::Held))
            .then_some(())
    });
    running.stop().1.expect("a clean stop after the restart");
    case
}

#[test]
fn a_sidecar_of_64_kilobytes_ends_its_case_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Propose);
    let label = "\u{7f}".repeat(65_500);
    drop_picture(
        &settings,
        "x.png",
        "label=dog\n",
        Some(&serde_json::json!({ "true_label": label }).to_string()),
    );
    let case = run_twice(&settings, 2).unwrap();
    assert_eq!((case.state, case.told), (State::Refused, true));
    assert!(case.accepted.claim.true_label.unwrap().chars().count() <= 200);
    assert!(
        case.reason.contains("true_label") && case.help.contains("cat, dog, ship"),
        "{} {}",
        case.reason,
        case.help
    );
    assert!(largest(&settings).0 < 16_000, "{:?}", largest(&settings));
}

#[test]
fn eight_thousand_classes_and_two_hundred_recipients_are_a_case_like_any_other() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path(), Mode::Propose);
    let classes: Vec<String> = (0..8000).map(|n| format!("a class with a name that is not short, number {n}")).collect();
    let words = Words {
        classes: classes.clone(),
        flagged: 2000,
        layers: 3000,
        fault: None,
    };
    let_say(&mut settings, root.path(), &words);
    let claim = serde_json::json!({ "true_label": classes[7999] }).to_string();
    drop_picture(&settings, "x.png", "picture", Some(&claim));
    let case = run_twice(&settings, 200).unwrap();
    assert_eq!((case.state, case.told), (State::Proposed, true), "{}", case.reason);
    assert!(largest(&settings).0 <= 64 << 10, "{:?}", largest(&settings));
    // Nothing is lost: the view has all of it, the journal every flagged example, and every recipient a mail.
    let view = CaseView::new(&case, &settings);
    assert_eq!(view.prediction.unwrap().classes, classes);
    assert_eq!(view.certify.unwrap().after.classes.len(), 8000);
    assert_eq!((view.fit.unwrap().layers.len(), view.trace.unwrap().flagged.len()), (3000, 2000));
    let vfs: Arc<dyn delta_guard::vfs::Vfs> = Arc::new(Disk);
    assert_eq!(query::flagged(&vfs, &settings.journal_dir(), &case.id).unwrap().len(), 2000);
    let outbox = query::read(&settings.state_dir).unwrap().0.outbox.waiting;
    let mails: Vec<&Message> = outbox.values().filter(|one| one.case == case.id).map(|one| &one.message).collect();
    assert_eq!(mails.len(), 200);
    for message in mails {
        let content: delta_guard::alert::Content = engine::load(&settings.case_dir(&case.id), message.kept.as_ref().unwrap()).unwrap();
        let address = message.to.split(['<', '>']).nth(1).unwrap();
        assert!(content.raw.contains(address), "{address} has somebody else's mail");
    }
}

#[test]
fn a_worker_that_says_two_megabytes_holds_its_case_and_its_words_are_kept() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path(), Mode::Propose);
    settings.worker.attempts = 1;
    let fault = Fault::new(
        Code::Defect,
        format!("it began so; {} and ended so", "\u{1}words ".repeat(300_000)),
        "h".repeat(2 << 20),
    );
    let words = Words {
        fault: Some(("trace", fault.clone())),
        ..Words::default()
    };
    let_say(&mut settings, root.path(), &words);
    drop_picture(&settings, "x.png", "picture", None);
    let case = run_twice(&settings, 2).unwrap();
    assert_eq!(case.state, State::Held);
    assert!(
        case.reason.starts_with("it began so; ") && case.reason.contains(" and ended so\n"),
        "{}",
        case.reason
    );
    assert!(largest(&settings).0 < 40_000, "{:?}", largest(&settings));
    let file = case.reason.split("(the whole text: ").nth(1).unwrap().trim_end_matches(')');
    assert_eq!(std::fs::read_to_string(file).unwrap(), fault.message);
}

#[test]
fn a_worker_that_names_no_digest_or_endless_names_is_told_so() {
    for (field, value, word) in [
        ("checkpoint", serde_json::json!("no digest"), "as the digest of the checkpoint"),
        ("label", serde_json::json!("x".repeat(2000)), "class name is longer"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let mut settings = settings(root.path(), Mode::Propose);
        settings.worker.attempts = 1;
        let_say(&mut settings, root.path(), &Words::default());
        let found = root.path().join("predict.outcome.json");
        let mut result: serde_json::Value = serde_json::from_slice(&std::fs::read(&found).unwrap()).unwrap();
        assert!(result.get(field).is_some());
        result[field] = value;
        answer(root.path(), "predict", &serde_json::to_vec(&result).unwrap());
        drop_picture(&settings, "x.png", "picture", None);
        let case = run_twice(&settings, 1).unwrap();
        assert!(case.state == State::Held && case.reason.contains(word), "{}", case.reason);
    }
}

/// Words of any kind, mostly of those that take the most room.
fn words(most: usize) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just('\u{1}'),
        Just('"'),
        Just('\u{7f}'),
        Just('\u{202e}'),
        Just('\u{10ffff}'),
        Just('<'),
        any::<char>()
    ];
    (proptest::collection::vec(piece, 1..6), 1..most).prop_map(|(piece, times)| piece.iter().collect::<String>().repeat(times))
}

fn file_name() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 1..255).prop_map(|mut name| {
        name.retain(|byte| !b"\0/.".contains(byte));
        name.insert(0, b'n');
        name
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]
    #[test]
    fn no_sidecar_name_class_list_recipients_or_worker_make_a_large_record(
        name in file_name(), claims in proptest::collection::vec(words(8000), 4), classes in 2usize..9000, class in words(20), recipients in 1usize..300,
        fault in proptest::option::of((prop_oneof![Just("predict"), Just("fit"), Just("trace"), Just("unlearn"), Just("certify")], words(60_000))),
        submission in any::<bool>(),
    ) {
        let root = tempfile::tempdir().unwrap();
        let mut settings = settings(root.path(), Mode::Propose);
        settings.worker.attempts = 1;
        let code = if submission { Code::Submission } else { Code::Configuration };
        let said = Words {
            classes: (0..classes).map(|n| format!("{n} {class}")).collect(),
            fault: fault.map(|(stage, text)| (stage, Fault::new(code, text.clone(), text))),
            ..Words::default()
        };
        let_say(&mut settings, root.path(), &said);
        let dir = &settings.inbox.dir;
        std::fs::create_dir_all(dir).unwrap();
        let sidecar = serde_json::json!({"predicted_label": claims[0], "true_label": claims[1], "source": claims[2], "note": claims[3]});
        std::fs::write(dir.join(OsStr::from_bytes(&[&name[..name.len().min(240)], b".json"].concat())), sidecar.to_string()).unwrap();
        std::fs::write(dir.join(OsStr::from_bytes(&[&name[..name.len().min(240)], b".png"].concat())), "picture").unwrap();
        run_twice(&settings, recipients);
        let (bytes, kind) = largest(&settings);
        prop_assert!(bytes <= 64 << 10, "{kind}: {bytes}");
    }
}

fn message(id: &str) -> Message {
    Message {
        id: id.into(),
        channel: "mail".into(),
        to: "a@b".into(),
        content: serde_json::Value::Null,
        kept: None,
        written: 0,
    }
}

/// A telling that a crash cut off is told anew: what it had queued is neither sent twice nor sent although nobody is to have it any more.
#[test]
fn messages_count_only_when_their_case_is_told() {
    let mut place = Place::new();
    place.put("a.png", "a");
    place.settle();
    let case = only_case(&place.settings).unwrap();
    let ended = Event::Ended {
        end: End::Refused,
        reason: "r".into(),
        help: String::new(),
    };
    place.ledger.record(&case.id, ended).unwrap();
    let queued = |after, names: &[&str]| Event::Queued {
        after,
        messages: names.iter().map(|name| message(name)).collect(),
    };
    let pending = |place: &Place| -> Vec<String> {
        let from_journal: Vec<String> = query::read(&place.settings.state_dir).unwrap().0.outbox.waiting.into_keys().collect();
        let now: Vec<String> = place.ledger.pending_messages().into_iter().map(|(_, message)| message.id).collect();
        assert_eq!(now, from_journal);
        now
    };
    place.ledger.record(&case.id, queued(0, &["old 1", "old 2"])).unwrap();
    place.ledger.record(&case.id, queued(2, &["old 3"])).unwrap();
    assert!(pending(&place).is_empty());
    let place = place.again();
    place.ledger.record(&case.id, queued(0, &["a", "b"])).unwrap();
    place.ledger.record(&case.id, queued(2, &["c"])).unwrap();
    let told = Event::Told {
        report: None,
        messages: vec![message("d")],
        list: None,
    };
    place.ledger.record(&case.id, told).unwrap();
    assert_eq!(pending(&place), ["a", "b", "c", "d"]);
}

/// Journals of the first version: messages with their content in the record, predictions without a file.
#[test]
fn records_of_the_first_version_are_read() {
    let told =
        serde_json::json!({"k": "told", "d": {"report": null, "messages": [{"id": "i", "channel": "mail", "to": "a@b", "content": {"raw": "x"}}]}});
    let Event::Told { messages, .. } = serde_json::from_value(told).unwrap() else {
        panic!("another event")
    };
    assert_eq!((messages[0].kept.as_ref(), messages[0].content["raw"].as_str()), (None, Some("x")));
    let prediction = serde_json::json!({"label": "a", "probability": 0.5, "top": [], "classes": ["a"], "checkpoint": "c"});
    let predicted = serde_json::json!({"k": "predicted", "d": {"prediction": prediction, "seconds": 1.0}});
    assert!(matches!(serde_json::from_value(predicted).unwrap(), Event::Predicted { whole: None, .. }));
}
