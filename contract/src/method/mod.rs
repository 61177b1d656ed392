//! Methods are plug-ins. A detector, an unlearner or an attack is one file of settings here, one file of code in `ml`, and one line in the registry of each.
//!
//! | kind | settings, registry | code, registry |
//! |---|---|---|
//! | detector | `contract/src/method/detect/` | `ml/src/detect/` |
//! | unlearner | `contract/src/method/unlearn/` | `ml/src/unlearn/` |
//! | attack | `contract/src/method/attack/` | `ml/src/attack/` |
//!
//! In a configuration a method's name stands under the key `method`, its own keys beside it: `{ method: cf, epochs: 8 }`. Without the key the default method is meant.
//! What else of the project asks about a method (what it needs, whether its result may be used) asks the registry, never by name.

pub mod attack;
pub mod detect;
mod edit;
mod name;
mod section;
pub mod unlearn;

pub use edit::{changed, other};
pub use name::Name;
pub use section::{Common, MOVED, Section};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// The key that a method's name stands under.
pub const METHOD: &str = "method";

/// A rule on settings that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// The key below the method's section, dotted (`damping.factor`); empty: the section itself.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do; may be empty.
    pub help: String,
}

/// A mistake where a rule does not hold.
pub fn unless(holds: bool, key: &str, what: impl Into<String>, help: impl Into<String>) -> Option<Mistake> {
    (!holds).then(|| Mistake::new(key, what, help))
}

/// A training of no epochs is none: what comes out would be what went in.
pub fn trains(epochs: u32) -> Option<Mistake> {
    unless(epochs > 0, "epochs", "is 0: nothing would be trained", "set it to 1 or more")
}

impl Mistake {
    /// A mistake.
    pub fn new(key: &str, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            what: what.into(),
            help: help.into(),
        }
    }

    /// The same, seen from a section around: its key stands below `section`.
    pub fn below(self, section: &str) -> Self {
        let key = match self.key.is_empty() {
            true => section.into(),
            false => format!("{section}.{}", self.key),
        };
        Self { key, ..self }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.is_empty() {
            true => f.write_str(&self.what),
            false => write!(f, "{}: {}", self.key, self.what),
        }
    }
}

impl Mistake {
    /// The sentence that says it, with the whole key: `attack.poisons is 0`.
    pub fn sentence(&self, section: &str) -> String {
        match self.key.is_empty() {
            true => format!("{section} {}", self.what),
            false => format!("{section}.{} {}", self.key, self.what),
        }
    }
}

/// The settings of one method: what its section may say, with defaults.
pub trait Keys: Clone + fmt::Debug + Default + PartialEq + Serialize + DeserializeOwned + JsonSchema {
    /// Every rule that the schema cannot say and that does not hold. The one definition: the guard checks its configuration with it, the worker its job.
    fn check(&self) -> Vec<Mistake> {
        Vec::new()
    }

    /// The files that it names. Relative ones start at the folder of the file that the settings stand in.
    fn files(&mut self) -> Vec<&mut PathBuf> {
        Vec::new()
    }
}

/// All methods of one kind. Made by [`methods!`].
pub trait Method: Clone + fmt::Debug + Default + PartialEq + Serialize + DeserializeOwned + JsonSchema {
    /// What the kind is called in messages.
    const KIND: &'static str;
    /// Every method's name, the default one first.
    const NAMES: &'static [&'static str];

    /// Its name, as it is written in configurations and on the command line.
    fn name(&self) -> &'static str;

    /// The method of a name, with its default settings.
    fn named(name: &str) -> Option<Self>;

    /// See [`Keys::check`].
    fn check(&self) -> Vec<Mistake>;

    /// See [`Keys::files`].
    fn files(&mut self) -> Vec<&mut PathBuf>;
}

/// The registry of a kind: the default method first, one line each: `Variant(file)` with its name. Makes the enum, its names, its form in configurations and its schema.
/// `Kind as Trait`: every method's keys answer that trait, and `own()` gives them as such.
macro_rules! methods {
    ($(#[$doc:meta])* $Kind:ident as $Trait:path, $kind:literal; $($Variant:ident($file:ident) = $name:literal,)*) => {
        $crate::method::methods! { $(#[$doc])* $Kind, $kind; $($Variant($file) = $name,)* }

        impl $Kind {
            /// What only the method's own file knows.
            pub fn own(&self) -> &dyn $Trait {
                match self {
                    $(Self::$Variant(keys) => keys,)*
                }
            }
        }
    };
    ($(#[$doc:meta])* $Kind:ident, $kind:literal; $Default:ident($default:ident) = $first:literal, $($Variant:ident($file:ident) = $name:literal,)*) => {
        pub mod $default;
        $(pub mod $file;)*

        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        #[serde(tag = "method")]
        #[allow(missing_docs, reason = "each method's file documents it")]
        pub enum $Kind {
            #[serde(rename = $first)]
            $Default($default::Keys),
            $(#[serde(rename = $name)] $Variant($file::Keys),)*
        }

        impl Default for $Kind {
            fn default() -> Self {
                Self::$Default($default::Keys::default())
            }
        }

        impl $crate::method::Method for $Kind {
            const KIND: &'static str = $kind;
            const NAMES: &'static [&'static str] = &[$first, $($name,)*];

            fn name(&self) -> &'static str {
                match self {
                    Self::$Default(_) => $first,
                    $(Self::$Variant(_) => $name,)*
                }
            }

            fn named(name: &str) -> Option<Self> {
                match name {
                    $first => Some(Self::$Default(Default::default())),
                    $($name => Some(Self::$Variant(Default::default())),)*
                    _ => None,
                }
            }

            fn check(&self) -> Vec<$crate::method::Mistake> {
                match self {
                    Self::$Default(keys) => $crate::method::Keys::check(keys),
                    $(Self::$Variant(keys) => $crate::method::Keys::check(keys),)*
                }
            }

            fn files(&mut self) -> Vec<&mut std::path::PathBuf> {
                match self {
                    Self::$Default(keys) => $crate::method::Keys::files(keys),
                    $(Self::$Variant(keys) => $crate::method::Keys::files(keys),)*
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $Kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use serde::de::Error;
                let (name, keys) = $crate::method::section::take_name::<Self>(serde::Deserialize::deserialize(deserializer)?).map_err(D::Error::custom)?;
                let within = |error: serde_json::Error| D::Error::custom(format!("{name}: {error}"));
                match name.as_str() {
                    $first => $crate::method::section::over_defaults(keys).map(Self::$Default).map_err(within),
                    $($name => $crate::method::section::over_defaults(keys).map(Self::$Variant).map_err(within),)*
                    _ => Err(D::Error::custom($crate::method::section::unknown::<Self>(&name))),
                }
            }
        }

        impl schemars::JsonSchema for $Kind {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($Kind).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let options = [
                    ($first, $crate::method::section::keys_schema::<$default::Keys>(generator)),
                    $(($name, $crate::method::section::keys_schema::<$file::Keys>(generator)),)*
                ];
                $crate::method::section::schema($first, options)
            }
        }
    };
}
pub(crate) use methods;

#[cfg(test)]
mod tests;
