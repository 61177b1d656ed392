#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use serde_json::{from_value, json, to_value};

fn read(value: serde_json::Value) -> Result<Unlearning, String> {
    from_value(value).map_err(|error| error.to_string())
}

/// What every method must keep, whatever it is.
#[test]
fn every_method_has_a_default_that_breaks_no_rule_and_says_what_it_does() {
    for name in Name::<Unlearner>::all() {
        let method = name.method();
        assert_eq!(Name::of(&method), name);
        let own = method.own();
        // Which program of the owner's is meant has no default.
        let must_be_said: &[&str] = if own.outside().is_some() { &["command"] } else { &[] };
        assert_eq!(
            method.check().iter().map(|mistake| &mistake.key).collect::<Vec<_>>(),
            must_be_said,
            "{name}"
        );
        assert!(own.about().split(' ').count() > 3 && !own.about().ends_with('.'), "{name}");
        assert!(!own.effort(&Recipe::default()).is_empty(), "{name}");
        // Its form in a configuration, a job and a record.
        let written = to_value(&method).unwrap();
        assert_eq!(written["method"], name.as_str());
        assert_eq!(from_value::<Unlearner>(written).unwrap(), method);
        assert_eq!(to_value(name).unwrap(), json!(name.as_str()));
        assert_eq!(read(json!({"method": name.as_str()})).unwrap().method, method);
        // What is advised when it failed is another one.
        assert_ne!(name.other(), name);
    }
    let said = from_value::<Name<Unlearner>>(json!("oblivion")).unwrap_err().to_string();
    assert!(said.contains("there is no unlearner `oblivion`") && said.contains("eu, cf"), "{said}");
}

/// Whatever it is called, and whatever else is said.
#[test]
fn no_method_trains_for_no_epochs() {
    let mut met = 0;
    for name in Name::<Unlearner>::all() {
        let Ok(method) = crate::method::changed(&name.method(), "epochs", json!(0)) else {
            continue; // it has none
        };
        met += 1;
        assert!(
            method
                .check()
                .iter()
                .any(|mistake| mistake.key == "epochs" && mistake.what.starts_with("is 0")),
            "{name}"
        );
    }
    assert!(met >= 3);
}

#[test]
fn a_named_method_has_the_settings_that_stand_there_or_its_defaults() {
    let epochs = |unlearning: &Unlearning, name: Option<&str>| match unlearning.by(name.map(|name| name.parse().unwrap())) {
        Unlearner::Cf(keys) => keys.epochs,
        other => panic!("{other:?}"),
    };
    let as_usual = read(json!({"method": "cf", "epochs": 3})).unwrap();
    assert_eq!((epochs(&as_usual, None), epochs(&as_usual, Some("cf"))), (3, 3));
    let mut beside = read(json!({"also": [{"method": "cf", "epochs": 5}]})).unwrap();
    assert_eq!((beside.name().as_str(), epochs(&beside, Some("cf"))), ("eu", 5));
    assert_eq!(epochs(&Unlearning::default(), Some("cf")), 8);
    // Chosen: the settings of both are kept.
    beside.choose("cf".parse().unwrap());
    assert_eq!(to_value(&beside).unwrap()["also"], json!([{"method": "eu"}]));
    assert_eq!((beside.name().as_str(), epochs(&beside, None)), ("cf", 5));
    let chosen = beside.clone();
    beside.choose("cf".parse().unwrap());
    assert_eq!(beside, chosen);
    beside.choose("eu".parse().unwrap());
    assert_eq!((beside.name().as_str(), epochs(&beside, Some("cf"))), ("eu", 5));
}

#[test]
fn rules_hold_for_the_usual_method_and_for_those_beside_it() {
    let broken = json!({"method": "cf", "epochs": 8, "lr": 0.0, "schedule": {"kind": "step", "milestones": [8], "gamma": 0.1}});
    let keys = |unlearning: Unlearning| unlearning.check().into_iter().map(|mistake| mistake.key).collect::<Vec<_>>();
    assert_eq!(keys(read(broken.clone()).unwrap()), ["schedule.milestones.0", "lr"]);
    assert_eq!(
        keys(read(json!({"also": [{"method": "eu"}, broken]})).unwrap()),
        ["also.0", "also.1.schedule.milestones.0", "also.1.lr"]
    );
    assert_eq!(keys(Unlearning::default()), [""; 0]);
}

#[test]
fn the_old_form_is_told_with_the_new_one() {
    let said = read(json!({"method": "eu", "cf": {"epochs": 40}})).unwrap_err();
    assert!(said.contains("no key `cf` any more") && said.contains("also: [{method: cf"), "{said}");
}

#[test]
fn a_command_must_be_named_and_only_paths_start_at_the_files_folder() {
    let command = |value: serde_json::Value| read(value).unwrap();
    let keys = |unlearning: &Unlearning| unlearning.check().into_iter().map(|mistake| mistake.key).collect::<Vec<_>>();
    assert_eq!(keys(&command(json!({"method": "command"}))), ["command"]);
    assert_eq!(keys(&command(json!({"method": "command", "command": [""]}))), ["command"]);
    assert_eq!(
        keys(&command(json!({"method": "command", "command": ["true"], "deadline": "0s"}))),
        ["deadline"]
    );
    let mut both = command(
        json!({"method": "command", "command": ["./a.sh", "b/c.py"], "cwd": "work", "also": [{"method": "command", "command": ["python3", "b/c.py"]}]}),
    );
    assert_eq!(both.files().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), ["./a.sh", "work"]);
}
