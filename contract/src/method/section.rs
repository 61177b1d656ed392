//! How a method and its keys stand in a configuration: `{ method: NAME, key: value, … }`, and keys that all methods of a kind share beside them.

use super::{Keys, METHOD, Method, Mistake};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fmt;

/// Keys that all methods of a kind share.
pub trait Common: Clone + fmt::Debug + Default + PartialEq + Serialize + DeserializeOwned + JsonSchema {
    /// Their names.
    const KEYS: &'static [&'static str];
    /// Keys that there were once, each with what to write now.
    const MOVED: &'static [(&'static str, &'static str)] = &[];

    /// As [`super::Keys::check`], beside the method of this name.
    fn check(&self, method: &str) -> Vec<Mistake> {
        let _ = method;
        Vec::new()
    }
}

/// The key of a schema under which old keys stand, each with what to write now.
pub const MOVED: &str = "x-moved";

/// A section of the configuration: a method with its keys, and the keys that all methods of its kind share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section<C, M> {
    /// Shared keys.
    pub common: C,
    /// The method and its own keys.
    pub method: M,
}

impl<C: Common, M: Method> Section<C, M> {
    /// See [`super::Keys::check`].
    pub fn check(&self) -> Vec<Mistake> {
        let mut found = self.method.check();
        found.extend(self.common.check(self.method.name()));
        found
    }
}

impl<C: Common, M: Method> Serialize for Section<C, M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        let mut all = Map::new();
        for part in [serde_json::to_value(&self.method), serde_json::to_value(&self.common)] {
            match part.map_err(S::Error::custom)? {
                Value::Object(keys) => all.extend(keys),
                _ => return Err(S::Error::custom("settings that are no mapping")),
            }
        }
        all.serialize(serializer)
    }
}

impl<'de, C: Common, M: Method> Deserialize<'de> for Section<C, M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut own = Map::<String, Value>::deserialize(deserializer)?;
        if let Some((key, now)) = C::MOVED.iter().find(|(key, _)| own.contains_key(*key)) {
            return Err(D::Error::custom(format!("there is no key `{key}` any more: {now}")));
        }
        let common = C::KEYS.iter().filter_map(|key| own.remove_entry(*key)).collect();
        Ok(Self {
            common: serde_json::from_value(Value::Object(common)).map_err(D::Error::custom)?,
            method: serde_json::from_value(Value::Object(own)).map_err(D::Error::custom)?,
        })
    }
}

impl<C: Common, M: Method> JsonSchema for Section<C, M> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}Section", M::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let common = C::json_schema(generator).to_value();
        let mut all = M::json_schema(generator);
        let shared = common.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        let options = all.get_mut("oneOf").and_then(Value::as_array_mut).into_iter().flatten();
        let moved: Map<String, Value> = C::MOVED.iter().map(|(key, now)| ((*key).into(), (*now).into())).collect();
        for option in options.filter_map(Value::as_object_mut) {
            if let Some(properties) = option.get_mut("properties").and_then(Value::as_object_mut) {
                properties.extend(shared.clone());
            }
            if !moved.is_empty() {
                option.insert(MOVED.into(), moved.clone().into());
            }
        }
        all
    }
}

/// The keys of a method: what is left out has the method's own default.
pub(crate) fn over_defaults<K: Keys>(keys: Value) -> Result<K, serde_json::Error> {
    let mut all = serde_json::to_value(K::default())?;
    if let (Value::Object(all), Value::Object(keys)) = (&mut all, keys) {
        all.extend(keys);
    }
    serde_json::from_value(all)
}

/// The schema of a method's keys: any may be left out, and has its default beside it.
pub(crate) fn keys_schema<K: Keys>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = K::json_schema(generator);
    schema.remove("required");
    // What schemars writes of a struct with flattened parts.
    if let Some(closed) = schema.remove("unevaluatedProperties") {
        schema.insert("additionalProperties".into(), closed);
    }
    let defaults = serde_json::to_value(K::default()).unwrap_or_default();
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (key, property) in properties.into_iter().flatten() {
        if let (Some(property), Some(default)) = (property.as_object_mut(), defaults.get(key)) {
            property.insert("default".into(), default.clone());
        }
    }
    schema
}

/// The name of a method and its keys; without a name the default one's.
pub(crate) fn take_name<M: Method>(mut keys: Map<String, Value>) -> Result<(String, Value), String> {
    match keys.remove(METHOD) {
        None => Ok((M::NAMES[0].into(), Value::Object(keys))),
        Some(Value::String(name)) => Ok((name, Value::Object(keys))),
        Some(other) => Err(format!("`{METHOD}` is {other}, not the name of a method: {}", names::<M>())),
    }
}

/// Words for a method that there is not.
pub(crate) fn unknown<M: Method>(name: &str) -> String {
    format!("there is no {} `{name}`: {}", M::KIND, names::<M>())
}

fn names<M: Method>() -> String {
    format!("take one of {}", M::NAMES.join(", "))
}

/// The schema of a kind: one of its methods, told apart by the constant under `method`; the default one may be left out.
pub(crate) fn schema<const N: usize>(default: &str, options: [(&str, Schema); N]) -> Schema {
    let options = options.map(|(name, schema)| {
        let mut schema = schema.to_value();
        if let Some(option) = schema.as_object_mut() {
            option.remove("title");
            let about = option.get("description").cloned().unwrap_or_default();
            let tag = json!({"type": "string", "const": name, "description": about});
            let properties = option.entry("properties").or_insert_with(|| json!({}));
            if let Some(properties) = properties.as_object_mut() {
                properties.insert(METHOD.into(), tag);
            }
            if name != default {
                let required = option.entry("required").or_insert_with(|| json!([]));
                required.as_array_mut().into_iter().for_each(|keys| keys.push(METHOD.into()));
            }
        }
        schema
    });
    let mut all = Schema::default();
    all.insert("oneOf".into(), Value::from(options.to_vec()));
    all.insert("default".into(), json!({ METHOD: default }));
    all
}
