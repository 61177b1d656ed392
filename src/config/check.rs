//! Holds a value against a JSON schema and collects *every* mistake, each with its path, what is wrong and what is allowed.
//!
//! It knows the part of JSON schema that schemars writes for our configuration types: references, types, ranges, lists of fixed length,
//! enumerations, objects with known keys, and unions told apart by a constant key.

use super::tree::{KeyStep, Mark};
use super::units::{Size, Span};
use delta_guard_contract::method::MOVED;
use serde_json::{Map, Value};

/// A mistake, before its place in the text is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Where.
    pub path: Vec<KeyStep>,
    /// Is the key wrong or its value?
    pub mark: Mark,
    /// What is wrong.
    pub what: String,
    /// What is allowed, or what to do; may be empty.
    pub help: String,
}

/// Every mistake of `value` against `schema`, in the order of the text's tree.
pub fn check(schema: &Value, value: &Value) -> Vec<Complaint> {
    let mut walk = Walk {
        root: schema,
        path: Vec::new(),
        findings: Vec::new(),
    };
    walk.value(schema, value);
    walk.findings
}

/// The name nearest to `wrong`, when one is near enough to be meant.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = wrong.to_lowercase().replace('-', "_");
    names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&folded, &name.to_lowercase().replace('-', "_")), name))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Follows `$ref` inside the schema.
pub fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    // A schema that refers to itself in a circle is ours to have written; eight steps are more than any real one takes.
    for _ in 0..8 {
        match schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| root.pointer(reference.trim_start_matches('#')))
        {
            Some(target) => schema = target,
            None => break,
        }
    }
    schema
}

/// What a value is called.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// The constants that a schema allows, if it allows constants only.
fn constants(root: &Value, schema: &Value) -> Option<Vec<String>> {
    let schema = resolve(root, schema);
    if let Some(value) = schema.get("const").and_then(Value::as_str) {
        return Some(vec![value.into()]);
    }
    if let Some(list) = schema.get("enum").and_then(Value::as_array) {
        return list
            .iter()
            .filter(|value| !value.is_null())
            .map(|value| value.as_str().map(String::from))
            .collect();
    }
    let options = schema.get("oneOf").or_else(|| schema.get("anyOf"))?.as_array()?;
    let mut all = Vec::new();
    for option in options {
        if option.get("type") == Some(&Value::from("null")) {
            continue;
        }
        all.extend(constants(root, option)?);
    }
    Some(all)
}

struct Walk<'a> {
    root: &'a Value,
    path: Vec<KeyStep>,
    findings: Vec<Complaint>,
}

impl<'a> Walk<'a> {
    fn find(&mut self, what: impl Into<String>, help: impl Into<String>) {
        self.findings.push(Complaint {
            path: self.path.clone(),
            mark: Mark::Value,
            what: what.into(),
            help: help.into(),
        });
    }

    fn value(&mut self, schema: &'a Value, value: &Value) {
        let schema = resolve(self.root, schema);
        if let Some(allowed) = constants(self.root, schema) {
            return self.constant(schema, &allowed, value);
        }
        if let Some(options) = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array) {
            return self.union(schema, options, value);
        }
        let types: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => return,
        };
        if value.is_null() && types.contains(&"null") {
            return;
        }
        match value {
            Value::Object(map) if types.contains(&"object") => self.object(schema, map),
            Value::Array(list) if types.contains(&"array") => self.list(schema, list),
            Value::Number(number) if types.contains(&"integer") && !(number.is_i64() || number.is_u64()) => {
                self.find(format!("{number} is not a whole number"), range_help(schema));
            }
            Value::Number(number) if types.contains(&"integer") || types.contains(&"number") => self.number(schema, number),
            Value::String(text) if types.contains(&"string") => self.text(schema, text),
            Value::Bool(_) if types.contains(&"boolean") => {}
            other => {
                let wanted: Vec<&str> = types.iter().filter(|name| **name != "null").map(|name| wanted(name)).collect();
                let shown = match other {
                    Value::String(text) => format!("the text {text:?}"),
                    Value::Number(number) => format!("the number {number}"),
                    Value::Bool(value) => format!("the truth value {value}"),
                    other => kind(other).to_owned(),
                };
                let help = match (
                    schema.get("format").and_then(Value::as_str),
                    types.contains(&"number") || types.contains(&"integer"),
                ) {
                    (Some("span"), _) => "write a number and a unit (ms, s, m, h, d), such as 2s or 15m".into(),
                    (Some("size"), _) => "write a number and a unit (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB), such as 64MiB".into(),
                    (_, true) => range_help(schema),
                    _ if self.path.is_empty() => "`delta-guard check-config --example` prints a configuration with every key explained".into(),
                    _ => String::new(),
                };
                self.find(format!("expected {}, found {shown}", wanted.join(" or ")), help);
            }
        }
    }

    fn constant(&mut self, schema: &Value, allowed: &[String], value: &Value) {
        if value.is_null() && allows_null(schema) {
            return;
        }
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if allowed.contains(&text) {
            return;
        }
        let meant = nearest(&text, allowed.iter().map(String::as_str))
            .map(|name| format!("did you mean {name:?}? "))
            .unwrap_or_default();
        self.find(
            format!("{text:?} is not one of the allowed values"),
            format!("{meant}allowed: {}", allowed.join(", ")),
        );
    }

    /// Options told apart by the kind of value that they take: a list or a text.
    fn by_kind(&mut self, options: &[&'a Value], value: &Value) {
        let name = match value {
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Object(_) => "object",
            _ => "",
        };
        let names: Option<Vec<&str>> = options.iter().map(|option| type_of(option)).collect();
        match (options.iter().find(|option| type_of(option) == Some(name)), names) {
            (Some(option), _) => self.value(option, value),
            (None, Some(names)) => {
                let names: Vec<&str> = names.into_iter().map(wanted).collect();
                self.find(format!("expected {}, found {}", names.join(" or "), kind(value)), "");
            }
            (None, None) => {}
        }
    }

    /// Options of a union: nothing, or objects told apart by a key with a constant value (`kind: step`); without that key its default value is meant, where there is one.
    fn union(&mut self, schema: &'a Value, options: &'a [Value], value: &Value) {
        let options: Vec<&'a Value> = options.iter().map(|option| resolve(self.root, option)).collect();
        if value.is_null() && options.iter().any(|option| allows_null(option)) {
            return;
        }
        let options: Vec<&'a Value> = options
            .into_iter()
            .filter(|option| option.get("type") != Some(&Value::from("null")))
            .collect();
        if let [only] = options[..] {
            return self.value(only, value);
        }
        let Some(tag) = options.first().and_then(|option| tag_of(option)) else {
            return self.by_kind(&options, value);
        };
        let names: Vec<&str> = options
            .iter()
            .filter_map(|option| option.pointer(&format!("/properties/{tag}/const"))?.as_str())
            .collect();
        let help = format!("allowed for {tag:?}: {}", names.join(", "));
        let Value::Object(map) = value else {
            return self.find(format!("expected a mapping with the key {tag:?}, found {}", kind(value)), help);
        };
        match map.get(tag).or_else(|| schema.get("default")?.get(tag)) {
            None => self.find(format!("the key {tag:?} is missing"), help),
            Some(Value::String(name)) if names.contains(&name.as_str()) => {
                if let Some(option) = options
                    .iter()
                    .find(|option| option.pointer(&format!("/properties/{tag}/const")) == Some(&Value::from(name.as_str())))
                {
                    self.object(option, map);
                }
            }
            Some(other) => {
                let text = other.as_str().map_or_else(|| other.to_string(), String::from);
                self.path.push(KeyStep::Key(tag.into()));
                let meant = nearest(&text, names.iter().copied())
                    .map(|name| format!("did you mean {name:?}? "))
                    .unwrap_or_default();
                self.find(
                    format!("{text:?} is not one of the allowed values"),
                    format!("{meant}allowed: {}", names.join(", ")),
                );
                self.path.pop();
            }
        }
    }

    fn object(&mut self, schema: &'a Value, map: &Map<String, Value>) {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object);
        let known = properties.unwrap_or(&empty);
        for (key, value) in map {
            self.path.push(KeyStep::Key(key.clone()));
            match properties.and_then(|properties| properties.get(key)) {
                Some(schema) => self.value(schema, value),
                None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                    if let Some(now) = schema.get(MOVED).and_then(|moved| moved.get(key)).and_then(Value::as_str) {
                        self.findings.push(Complaint {
                            path: self.path.clone(),
                            mark: Mark::Key(0),
                            what: "there is no such key any more".into(),
                            help: now.into(),
                        });
                        self.path.pop();
                        continue;
                    }
                    let names: Vec<&str> = known.keys().map(String::as_str).collect();
                    let meant = nearest(key, names.iter().copied())
                        .map(|name| format!("did you mean {name:?}? "))
                        .unwrap_or_default();
                    let help = format!("{meant}keys allowed here: {}", names.join(", "));
                    self.findings.push(Complaint {
                        path: self.path.clone(),
                        mark: Mark::Key(0),
                        what: "unknown key".into(),
                        help,
                    });
                }
                None => {}
            }
            self.path.pop();
        }
        for key in schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !map.contains_key(key) {
                let about = known.get(key).map(|schema| description(self.root, schema)).unwrap_or_default();
                self.find(format!("the key {key:?} is missing"), format!("{key}: {about}"));
            }
        }
    }

    fn list(&mut self, schema: &'a Value, list: &[Value]) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64).map(|n| n as usize);
        match (bound("minItems"), bound("maxItems")) {
            (Some(least), Some(most)) if least == most && list.len() != least => {
                self.find(format!("expected a list of {least}, found {}", list.len()), "");
            }
            (Some(least), _) if list.len() < least => self.find(format!("expected a list of at least {least}, found {}", list.len()), ""),
            (_, Some(most)) if list.len() > most => self.find(format!("expected a list of at most {most}, found {}", list.len()), ""),
            _ => {}
        }
        for (index, value) in list.iter().enumerate() {
            let item = schema
                .get("prefixItems")
                .and_then(|items| items.get(index))
                .or_else(|| schema.get("items"));
            if let Some(item) = item {
                self.path.push(KeyStep::Index(index));
                self.value(item, value);
                self.path.pop();
            }
        }
    }

    fn number(&mut self, schema: &Value, number: &serde_json::Number) {
        let (Some(value), (least, most)) = (number.as_f64(), bounds(schema)) else {
            return;
        };
        let above = schema.get("exclusiveMinimum").and_then(Value::as_f64);
        if least.is_some_and(|least| value < least) || above.is_some_and(|above| value <= above) || most.is_some_and(|most| value > most) {
            self.find(format!("{number} is out of range"), range_help(schema));
        }
    }

    fn text(&mut self, schema: &Value, text: &str) {
        let problem = match schema.get("format").and_then(Value::as_str) {
            Some("span") => text.parse::<Span>().err(),
            Some("size") => text.parse::<Size>().err(),
            Some("listen") => super::file::parse_listen(text).err(),
            _ => None,
        };
        if let Some(problem) = problem {
            let (what, help) = problem.split_once("; ").unwrap_or((&problem, ""));
            self.find(what, help);
        } else if text.len() < schema.get("minLength").and_then(Value::as_u64).unwrap_or(0) as usize {
            self.find("the text is empty", "");
        }
    }
}

fn type_of(schema: &Value) -> Option<&str> {
    schema.get("type").and_then(Value::as_str)
}

fn allows_null(schema: &Value) -> bool {
    match schema.get("type") {
        Some(Value::String(name)) => name == "null",
        Some(Value::Array(names)) => names.contains(&Value::from("null")),
        _ => {
            let any = |key: &str| {
                schema
                    .get(key)
                    .and_then(Value::as_array)
                    .is_some_and(|options| options.iter().any(allows_null))
            };
            any("anyOf")
                || any("oneOf")
                || schema
                    .get("enum")
                    .and_then(Value::as_array)
                    .is_some_and(|list| list.contains(&Value::Null))
        }
    }
}

/// The key whose constant tells an option of a union.
fn tag_of(option: &Value) -> Option<&str> {
    option
        .get("properties")?
        .as_object()?
        .iter()
        .find(|(_, schema)| schema.get("const").is_some())
        .map(|(key, _)| key.as_str())
}

fn wanted(name: &str) -> &str {
    match name {
        "object" => "a mapping",
        "array" => "a list",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "a text",
        "boolean" => "true or false",
        other => other,
    }
}

/// The first sentence of a key's documentation.
pub fn description(root: &Value, schema: &Value) -> String {
    let own = schema.get("description").and_then(Value::as_str);
    let text = own
        .or_else(|| resolve(root, schema).get("description").and_then(Value::as_str))
        .unwrap_or("see config/delta-guard.yaml");
    text.replace('\n', " ")
}

/// Least and greatest value, the type's own limits included.
fn bounds(schema: &Value) -> (Option<f64>, Option<f64>) {
    let own = |name: &str| schema.get(name).and_then(Value::as_f64);
    let most = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => Some(255.0),
        Some("uint16") => Some(65_535.0),
        Some("uint32") => Some(f64::from(u32::MAX)),
        _ => None,
    };
    (own("minimum"), own("maximum").or(most))
}

fn range_help(schema: &Value) -> String {
    let above = schema.get("exclusiveMinimum").and_then(Value::as_f64);
    match (bounds(schema), above) {
        ((_, most), Some(above)) => most.map_or(format!("allowed: above {above}"), |most| format!("allowed: above {above}, up to {most}")),
        ((Some(least), Some(most)), None) => format!("allowed: {least} to {most}"),
        ((Some(least), None), None) => format!("allowed: {least} or more"),
        ((None, Some(most)), None) => format!("allowed: up to {most}"),
        ((None, None), None) => String::new(),
    }
}
