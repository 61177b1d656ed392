//! A made-up kind with two methods.

mod registry {
    pub trait Own {
        fn size(&self) -> u32;
    }

    crate::method::methods! {
        /// A kind.
        Way as Own, "way";
        First(first) = "first",
        Second(second) = "second-way",
    }
}

use super::{Common, MOVED, Method, Name, Section, changed, other};
use registry::Way;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{from_value, json, to_value};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Shared {
    /// Of all.
    seed: Option<u64>,
}

impl Common for Shared {
    const KEYS: &'static [&'static str] = &["seed"];
    const MOVED: &'static [(&'static str, &'static str)] = &[("length", "it is called `size`")];
}

type Ways = Section<Shared, Way>;

#[test]
fn a_method_and_its_keys_are_read_and_written_as_they_stand() {
    let read = |value: serde_json::Value| from_value::<Ways>(value).map_err(|error| error.to_string());
    let whole = json!({"method": "first", "size": 3, "seed": 9});
    assert_eq!(to_value(read(whole.clone()).unwrap()).unwrap(), whole);
    assert_eq!(read(json!({})).unwrap(), Ways::default());
    assert_eq!(read(json!({"size": 3})).unwrap().method, Way::First(registry::first::Keys { size: 3 }));
    assert_eq!(read(json!({"method": "second-way"})).unwrap().method.name(), "second-way");

    let said = read(json!({"method": "third"})).unwrap_err();
    assert_eq!(said, "there is no way `third`: take one of first, second-way");
    // The other method's key, and a key of none.
    for key in ["size", "seeds"] {
        let said = read(json!({"method": "second-way", key: 3})).unwrap_err();
        assert!(said.starts_with("second-way: unknown field") && said.contains(key), "{said}");
    }
    assert!(read(json!({"method": 3})).unwrap_err().contains("take one of first, second-way"));
}

#[test]
fn names_and_rules_come_from_the_registry() {
    assert_eq!(Way::NAMES, ["first", "second-way"]);
    for name in Way::NAMES {
        assert_eq!(Way::named(name).unwrap().name(), *name);
    }
    assert_eq!((Way::named("third"), Way::default().name()), (None, "first"));
    let wrong: Ways = from_value(json!({"size": 0})).unwrap();
    assert_eq!((wrong.check().len(), wrong.check()[0].to_string().as_str()), (1, "size: is 0"));
    assert_eq!(Ways::default().check(), []);
}

#[test]
fn the_schema_tells_methods_apart_and_has_the_shared_keys_in_each() {
    let schema = schemars::schema_for!(Ways).to_value();
    assert_eq!(schema["default"], json!({"method": "first"}));
    let options = schema["oneOf"].as_array().unwrap();
    let keys = |i: usize| options[i]["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        (keys(0), keys(1)),
        (
            vec!["method".into(), "seed".into(), "size".into()],
            vec!["method".to_owned(), "seed".into()]
        )
    );
    assert_eq!(options[0]["properties"]["method"]["const"], "first");
    assert_eq!((options[0].get("required"), &options[1]["required"]), (None, &json!(["method"])));
    assert!(options.iter().all(|option| option["additionalProperties"] == false));
}

#[test]
fn what_a_method_alone_knows_is_asked_without_its_name() {
    let sizes = Way::NAMES.iter().map(|name| Way::named(name).unwrap().own().size());
    assert_eq!(sizes.collect::<Vec<_>>(), [7, 0]);
    let names: Vec<Name<Way>> = Name::all().collect();
    assert_eq!((names[0].other(), names[1].other()), (names[1], names[0]));
    assert_eq!("second-way".parse(), Ok(names[1]));
    assert_eq!(
        "third".parse::<Name<Way>>().unwrap_err(),
        "there is no way `third`: take one of first, second-way"
    );
}

#[test]
fn a_key_that_moved_is_told_where_it_went() {
    let said = from_value::<Ways>(json!({"length": 3})).unwrap_err().to_string();
    assert_eq!(said, "there is no key `length` any more: it is called `size`");
    let schema = schemars::schema_for!(Ways).to_value();
    assert!((0..2).all(|i| schema["oneOf"][i][MOVED]["length"] == "it is called `size`"));
}

#[test]
fn keys_are_changed_by_name_and_have_their_defaults_in_the_schema() {
    let way = changed(&Way::default(), "size", json!(9)).unwrap();
    assert_eq!((way.own().size(), other(&way, "second-way").unwrap().name()), (9, "second-way"));
    for (key, value) in [("seed", json!(1)), ("method", json!("second-way"))] {
        let said = changed(&way, key, value).unwrap_err();
        assert_eq!(said, format!("way first has no key `{key}`; it has size"));
    }
    assert!(changed(&way, "size", json!("many")).unwrap_err().starts_with("size: "));
    let schema = schemars::schema_for!(Ways).to_value();
    assert_eq!(schema["oneOf"][0]["properties"]["size"]["default"], 7);
}
