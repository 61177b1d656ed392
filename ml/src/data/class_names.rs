//! `data.classes`: the class names in the order of the model's outputs, written in the configuration or in a file.

use super::labels::LONGEST;
use crate::error::{Error, Result};
use delta_guard_contract::{ClassNames, is_passing};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::path::Path;

/// Bytes of the largest file of names that is read.
const MOST_BYTES: u64 = 16 << 20;

/// The names, in label order.
///
/// # Errors
/// `Configuration`: a file that cannot be read or has another form, a name twice, an index without a name.
pub fn class_names(wanted: &ClassNames) -> Result<Vec<String>> {
    let (names, place) = match wanted {
        ClassNames::Listed(names) => (names.clone(), "data.classes".to_owned()),
        ClassNames::File(path) => (of_file(path)?, format!("data.classes, {}", path.display())),
    };
    let mut seen = HashSet::new();
    let wrong = names.iter().find_map(|name| {
        let what = if name.trim().is_empty() {
            "an empty name".to_owned()
        } else if name.len() > LONGEST || name.chars().any(char::is_control) {
            format!("a name of more than 255 bytes, or with control characters: {}", name.escape_default())
        } else if !seen.insert(name) {
            format!("the name {name} twice")
        } else {
            return None;
        };
        Some(format!("{place} has {what}"))
    });
    match wrong.or_else(|| (names.len() < 2).then(|| format!("{place} has {} names", names.len()))) {
        None => Ok(names),
        Some(message) => Err(Error::configuration(
            message,
            "name each class of the training set once, in the order of the model's outputs",
        )),
    }
}

fn of_file(path: &Path) -> Result<Vec<String>> {
    let place = || format!("data.classes, {}", path.display());
    let mut text = String::new();
    let file = fs_err::File::open(path).map_err(|error| match is_passing(&error) {
        true => Error::from(error).within(|| "data.classes".into()),
        false => Error::configuration(
            format!("data.classes: {error}"),
            "name a file that the guard's user can read, or write the names as a list",
        ),
    })?;
    file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => other_form(&place(), "it is no UTF-8"),
        _ => Error::from(error).within(place),
    })?;
    if text.len() as u64 > MOST_BYTES {
        return Err(other_form(&place(), "it has more than 16 MiB"));
    }
    let text = text.trim_start_matches('\u{feff}').trim();
    if !text.starts_with(['[', '{']) {
        return Ok(text.lines().map(|line| line.trim().to_owned()).collect());
    }
    let value: Value = serde_json::from_str(text).map_err(|error| other_form(&place(), &error.to_string()))?;
    match value {
        Value::Array(names) => names
            .into_iter()
            .map(|name| match name {
                Value::String(name) => Ok(name),
                other => Err(other_form(&place(), &format!("{other} is no name"))),
            })
            .collect(),
        // The configuration of a model of transformers.
        Value::Object(mut map) => match map.remove("id2label") {
            Some(Value::Object(inner)) => by_index(inner, &place()),
            _ => by_index(map, &place()),
        },
        other => Err(other_form(&place(), &format!("{other} is no list of names"))),
    }
}

/// `{index: name}`, or torchvision's `class_to_idx`: `{name: index}`.
fn by_index(map: serde_json::Map<String, Value>, place: &str) -> Result<Vec<String>> {
    let mut names = BTreeMap::new();
    for (key, value) in map {
        let (index, name) = match value {
            Value::String(name) => (key.trim().parse().ok(), name),
            Value::Number(n) => (n.as_u64(), key),
            _ => (None, key),
        };
        let Some(index) = index else {
            return Err(other_form(place, &format!("the entry of {name} has no index")));
        };
        if let Some(other) = names.insert(index, name.clone()) {
            return Err(other_form(place, &format!("the index {index} belongs to {other} and {name}")));
        }
    }
    let missing = (0..).zip(names.keys()).find(|(at, index)| at != *index);
    match missing {
        None => Ok(names.into_values().collect()),
        Some((at, _)) => Err(other_form(place, &format!("the index {at} has no name"))),
    }
}

fn other_form(place: &str, what: &str) -> Error {
    Error::configuration(
        format!("{place}: {what}"),
        "write one name a line, or a JSON list of names, or a JSON object {\"0\": \"cat\", \"1\": \"dog\"}",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn of_text(text: &str) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("classes");
        fs_err::write(&path, text).unwrap();
        class_names(&ClassNames::File(path))
    }

    #[test]
    fn names_are_read_in_their_order_from_each_form() {
        let wanted = ["cat", "ant", "bee"];
        assert_eq!(class_names(&ClassNames::Listed(wanted.map(String::from).to_vec())).unwrap(), wanted);
        for text in [
            "cat\nant\nbee\n",
            "\u{feff}cat\r\n ant \r\nbee",
            r#"["cat", "ant", "bee"]"#,
            r#"{"2": "bee", "0": "cat", "1": "ant"}"#,
            r#"{"ant": 1, "bee": 2, "cat": 0}"#,
            r#"{"model_type": "vit", "id2label": {"0": "cat", "1": "ant", "2": "bee"}}"#,
        ] {
            assert_eq!(of_text(text).unwrap(), wanted, "{text}");
        }
        let eleven: String = (0..11).map(|n| format!("{}\"{n}\": \"c{n}\"", if n > 0 { "," } else { "" })).collect();
        assert_eq!(of_text(&format!("{{{eleven}}}")).unwrap()[10], "c10", "indices are numbers, not texts");
    }

    #[test]
    fn other_forms_are_told() {
        for (text, told) in [
            ("", "has 0 names"),
            ("cat\n\nbee", "an empty name"),
            ("cat\ncat", "the name cat twice"),
            ("[1, 2]", "1 is no name"),
            ("[\"cat\"", "EOF"),
            (r#"{"0": "a", "2": "b"}"#, "the index 1 has no name"),
            (r#"{"a": 0, "b": 0}"#, "the index 0 belongs to a and b"),
            (r#"{"zero": "a"}"#, "has no index"),
            (r#"{"a": [0]}"#, "has no index"),
        ] {
            let error = of_text(text).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains("data.classes"), "{text}: {error}");
        }
        let gone = class_names(&ClassNames::File("/nowhere/names.txt".into())).unwrap_err().to_string();
        assert!(gone.contains("data.classes") && gone.contains("/nowhere/names.txt"), "{gone}");
    }
}
