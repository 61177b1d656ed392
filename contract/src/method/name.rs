//! The name of a method without its settings: in records, on the command line.

use super::Method;
use super::section::unknown;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

/// The name of a method that there is.
pub struct Name<M>(&'static str, PhantomData<fn() -> M>);

impl<M: Method> Name<M> {
    /// Every one, the default method's first.
    pub fn all() -> impl Iterator<Item = Self> {
        M::NAMES.iter().map(|name| Self(name, PhantomData))
    }

    /// A method's.
    pub fn of(method: &M) -> Self {
        Self(method.name(), PhantomData)
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// The method with its default settings.
    pub fn method(self) -> M {
        M::named(self.0).unwrap_or_default()
    }

    /// The one to try when this one failed: the default one; where that is the one that failed, the next.
    pub fn other(self) -> Self {
        Self::all().find(|other| *other != self).unwrap_or(self)
    }
}

impl<M> Clone for Name<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Name<M> {}

impl<M> PartialEq for Name<M> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<M> Eq for Name<M> {}

impl<M> fmt::Debug for Name<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

impl<M> fmt::Display for Name<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl<M: Method> FromStr for Name<M> {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::all().find(|known| known.0 == name).ok_or_else(|| unknown::<M>(name))
    }
}

impl<M> Serialize for Name<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, M: Method> Deserialize<'de> for Name<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
