//! A method's settings, changed by the names of their keys: what a command line does.

use super::section::unknown;
use super::{METHOD, Method};
use serde_json::{Map, Value};

fn keys_of<M: Method>(method: &M) -> Map<String, Value> {
    match serde_json::to_value(method) {
        Ok(Value::Object(keys)) => keys,
        _ => Map::new(), // settings are a mapping
    }
}

/// The same method with another value of one of its keys.
///
/// # Errors
/// In words: the method has no such key (and which it has), or the value is none for it.
pub fn changed<M: Method>(method: &M, key: &str, value: Value) -> Result<M, String> {
    let mut keys = keys_of(method);
    match keys.get_mut(key).filter(|_| key != METHOD) {
        Some(old) => *old = value,
        None => {
            let known: Vec<&str> = keys.keys().map(String::as_str).filter(|key| *key != METHOD).collect();
            return Err(format!("{} {} has no key `{key}`; it has {}", M::KIND, method.name(), known.join(", ")));
        }
    }
    serde_json::from_value(Value::Object(keys)).map_err(|error| format!("{key}: {error}"))
}

/// Another method of the kind. The keys that both have keep their values, the others have their defaults.
///
/// # Errors
/// In words: there is no such method.
pub fn other<M: Method>(method: &M, name: &str) -> Result<M, String> {
    let made = M::named(name).ok_or_else(|| unknown::<M>(name))?;
    // A value that the other method does not take under this name is not carried over.
    Ok(keys_of(method)
        .into_iter()
        .fold(made, |made, (key, value)| changed(&made, &key, value).unwrap_or(made)))
}
