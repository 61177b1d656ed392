use super::Attack;
use super::badnet::{Keys, Trigger};
use crate::method::{Method, changed, other};
use serde_json::{Value, from_value, json, to_value};
use std::path::Path;

#[test]
fn every_attack_stands_as_it_is_written_and_its_defaults_keep_its_rules() {
    for name in Attack::NAMES {
        let attack = Attack::named(name).unwrap();
        assert_eq!((attack.name(), attack.check()), (*name, Vec::new()));
        let written = to_value(&attack).unwrap();
        assert_eq!(
            (&written["method"], from_value::<Attack>(written.clone()).unwrap()),
            (&json!(name), attack)
        );
    }
}

#[test]
fn a_story_of_before_there_were_methods_is_a_badnet() {
    let old = json!({"victim_class": "3", "target_class": "8", "poisons": 120, "trigger": {"kind": "checkerboard", "size": 8, "margin": 1}});
    let keys = Keys {
        victim_class: Some("3".into()),
        target_class: "8".into(),
        poisons: 120,
        trigger: Trigger::Checkerboard { size: 8, margin: 1 },
        ..Keys::default()
    };
    assert_eq!(from_value::<Attack>(old).unwrap(), Attack::Badnet(keys));
}

#[test]
fn rules_of_badnet_name_their_key() {
    let wrong = |key: &str, value: Value| {
        let found = changed(&Attack::default(), key, value).unwrap().check();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].to_string()
    };
    assert_eq!(wrong("poisons", json!(0)), "poisons: is 0");
    assert_eq!(wrong("victim_class", json!("1")), "target_class: is 1, which is the victim class too");
    assert_eq!(wrong("opacity", json!(0.0)), "opacity: is 0");
    let second = json!([{"kind": "checkerboard", "size": 1, "margin": 1}, {"kind": "checkerboard", "size": 0, "margin": 1}]);
    assert_eq!(wrong("also", second), "also.1.size: is 0");
    let trigger = |value| wrong("trigger", value);
    assert_eq!(trigger(json!({"kind": "checkerboard", "size": 0, "margin": 1})), "trigger.size: is 0");
    assert_eq!(
        trigger(json!({"kind": "square", "size": 0, "margin": 0, "color": [0, 0, 0]})),
        "trigger.size: is 0"
    );
    assert_eq!(trigger(json!({"kind": "pixels", "at": [], "color": [0, 0, 0]})), "trigger.at: is empty");
    for at in [[0, 1], [1, 0]] {
        let said = trigger(json!({"kind": "pixels", "at": [[4, 2], at], "color": [0, 0, 0]}));
        assert_eq!(said, format!("trigger.at: has the pixel ({}, {})", at[0], at[1]));
    }
}

#[test]
fn a_key_is_changed_by_its_name_and_files_are_named() {
    let attack = changed(&Attack::default(), "poisons", json!(7)).unwrap();
    assert!(matches!(&attack, Attack::Badnet(keys) if keys.poisons == 7));
    let said = changed(&attack, "delta", json!(0.2)).unwrap_err();
    assert_eq!(
        said,
        "attack badnet has no key `delta`; it has also, covers, opacity, poisons, target_class, trigger, victim_class"
    );
    assert!(changed(&attack, "method", json!("badnet")).is_err(), "the method is no key of its own");
    assert!(changed(&attack, "poisons", json!("many")).unwrap_err().contains("poisons"));

    let image = |path| json!({"kind": "image", "path": path});
    let with_file = changed(&attack, "trigger", image("t.png")).unwrap();
    let mut two = changed(&with_file, "also", json!([image("u.png")])).unwrap();
    assert_eq!(two.files(), [Path::new("t.png"), Path::new("u.png")]);
    let said = other(&attack, "hexagon").unwrap_err();
    assert!(said.starts_with("there is no attack `hexagon`: take one of badnet"), "{said}");
    assert_eq!(other(&attack, "badnet").unwrap(), attack, "what both know is kept");
}
