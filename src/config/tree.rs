//! The YAML text as a tree, and where in the text each of its keys and values stands.
//!
//! Positions come from the parser itself: to locate a key, the text is read again by a visitor that fails on purpose when it gets there, and the
//! parser adds line and column to that failure. This way quotes, flow style and aliases need no second, weaker parser of ours.

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// One step of a path into the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyStep {
    /// A key of a mapping.
    Key(String),
    /// An element of a list, counted from 0.
    Index(usize),
}

/// Which mark of a path is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The start of the value.
    Value,
    /// The key that leads to it (its `n`-th occurrence, counted from 0, in the mapping).
    Key(usize),
}

/// `a.b[2].c`.
pub fn show_path(path: &[KeyStep]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            KeyStep::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            KeyStep::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Does `path` (or its parent, for what has a default) stand in `value`?
pub fn reaches(value: &Value, path: &[KeyStep]) -> bool {
    let mut node = value;
    for (n, step) in path.iter().enumerate() {
        let next = match step {
            KeyStep::Key(key) => node.get(key),
            KeyStep::Index(index) => node.get(index),
        };
        match next {
            Some(next) => node = next,
            None => return n > 0 && n + 1 == path.len(),
        }
    }
    true
}

/// A parsed document: its value, and the keys that were written twice.
#[derive(Debug)]
pub struct Document {
    /// The value; of a key that was written twice, the first.
    pub value: Value,
    /// Paths of repeated keys.
    pub duplicates: Vec<Vec<KeyStep>>,
}

/// Parse a YAML text.
///
/// # Errors
/// What the parser says about a text that is not YAML, or that uses tags (`!name`) or keys that are not text.
pub fn parse(text: &str) -> Result<Document, serde_yaml::Error> {
    let mut duplicates = Vec::new();
    let mut path = Vec::new();
    let value = Build {
        path: &mut path,
        duplicates: &mut duplicates,
    }
    .deserialize(serde_yaml::Deserializer::from_str(text))?;
    Ok(Document { value, duplicates })
}

/// Line and column (from 1) of `path` in `text`; None when the text does not lead there.
pub fn locate(text: &str, path: &[KeyStep], mark: Mark) -> Option<(usize, usize)> {
    let error = Probe { path, mark }.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    if !error.to_string().contains(FOUND) {
        return None;
    }
    error.location().map(|at| (at.line(), at.column()))
}

/// What the probe fails with.
const FOUND: &str = "\u{1}found\u{1}";

struct Build<'a> {
    path: &'a mut Vec<KeyStep>,
    duplicates: &'a mut Vec<Vec<KeyStep>>,
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("infinite numbers and .nan are not allowed"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            self.path.push(KeyStep::Index(list.len()));
            let next = access.next_element_seed(Build {
                path: self.path,
                duplicates: self.duplicates,
            })?;
            self.path.pop();
            match next {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = serde_json::Map::new();
        while let Some(key) = access.next_key::<String>()? {
            self.path.push(KeyStep::Key(key.clone()));
            let value = access.next_value_seed(Build {
                path: self.path,
                duplicates: self.duplicates,
            })?;
            if map.contains_key(&key) {
                self.duplicates.push(self.path.clone());
            } else {
                map.insert(key, value);
            }
            self.path.pop();
        }
        Ok(Value::Object(map))
    }
    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(A::Error::custom("YAML tags (!name) are not used here"))
    }
}

#[derive(Clone, Copy)]
struct Probe<'a> {
    path: &'a [KeyStep],
    mark: Mark,
}

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Probe<'_> {
    /// Fails when the probe stands on what it was sent for.
    fn here<E: serde::de::Error>(self) -> Result<(), E> {
        if self.path.is_empty() { Err(E::custom(FOUND)) } else { Ok(()) }
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.here()
    }
    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.here()
    }
    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.here()
    }
    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.here()
    }
    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.here()
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.here()
    }
    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.here()
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        self.here()?;
        let mut index = 0;
        loop {
            let inside = match self.path.first() {
                Some(KeyStep::Index(wanted)) if *wanted == index => access.next_element_seed(Probe {
                    path: &self.path[1..],
                    mark: self.mark,
                })?,
                _ => access.next_element::<serde::de::IgnoredAny>()?.map(|_| ()),
            };
            if inside.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        self.here()?;
        let wanted = match self.path.first() {
            Some(KeyStep::Key(key)) => Some(key.as_str()),
            _ => None,
        };
        let mut seen = 0;
        loop {
            let at_key = match (self.path.len(), self.mark) {
                (1, Mark::Key(n)) => Some(n),
                _ => None,
            };
            let Some(matches) = access.next_key_seed(ProbeKey {
                wanted,
                stop: at_key == Some(seen),
            })?
            else {
                return Ok(());
            };
            if matches && seen == 0 && at_key.is_none() {
                access.next_value_seed(Probe {
                    path: &self.path[1..],
                    mark: self.mark,
                })?;
            } else {
                access.next_value::<serde::de::IgnoredAny>()?;
            }
            seen += usize::from(matches);
        }
    }
}

/// Reads a key: is it the wanted one? Fails on it when it is to stop there.
struct ProbeKey<'a> {
    wanted: Option<&'a str>,
    stop: bool,
}

impl<'de> DeserializeSeed<'de> for ProbeKey<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for ProbeKey<'_> {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        let matches = self.wanted == Some(key);
        if matches && self.stop { Err(E::custom(FOUND)) } else { Ok(matches) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn key(text: &str) -> KeyStep {
        KeyStep::Key(text.into())
    }

    #[test]
    fn keys_and_values_are_located_in_block_and_flow_style() {
        let text = "# head\na: 1\n\"b c\":\n  - x: 2\n    y: {p: 3, q: [4, 5]}\n  - z: |\n      text: 9\nlast: 7\n";
        assert_eq!(locate(text, &[key("a")], Mark::Key(0)), Some((2, 1)));
        assert_eq!(locate(text, &[key("a")], Mark::Value), Some((2, 4)));
        assert_eq!(locate(text, &[key("b c")], Mark::Key(0)), Some((3, 1)));
        assert_eq!(
            locate(text, &[key("b c"), KeyStep::Index(0), key("y"), key("q"), KeyStep::Index(1)], Mark::Value),
            Some((5, 22))
        );
        assert_eq!(locate(text, &[key("last")], Mark::Key(0)), Some((8, 1)));
        assert_eq!(locate(text, &[key("nothing")], Mark::Value), None);
    }

    #[test]
    fn repeated_keys_are_found_and_the_second_is_located() {
        let document = parse("a:\n  x: 1\n  y: 2\n  x: 3\n").unwrap();
        assert_eq!(document.duplicates, vec![vec![key("a"), key("x")]]);
        assert_eq!(document.value["a"]["x"], 1);
        assert_eq!(
            locate("a:\n  x: 1\n  y: 2\n  x: 3\n", &document.duplicates[0], Mark::Key(1)),
            Some((4, 3))
        );
    }

    #[test]
    fn tags_and_infinite_numbers_are_errors() {
        assert!(parse("a: !shell rm\n").is_err());
        assert!(parse("a: .inf\n").is_err());
        assert!(parse("a: [1\n").is_err());
    }
}
