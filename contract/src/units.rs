//! Lengths of time and sizes as people write them: `2s`, `15m`, `64MiB`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Units of time and their milliseconds, longest first.
const TIME: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Units of size and their bytes, largest first.
const SIZE: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A length of time, written as a number and a unit: `250ms`, `2s`, `15m`, `6h`, `5d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes, written as a number and a unit: `512B`, `64MiB`, `2GiB`, `1GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Number × unit; None when the text is something else, or too large.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let factor = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// In the largest unit that divides it.
fn show(value: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units
        .iter()
        .find(|(_, factor)| value != 0 && value.is_multiple_of(*factor))
        .copied()
        .unwrap_or(units[units.len() - 1]);
    format!("{}{name}", value / factor)
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let milliseconds = parse(text, &TIME)
            .ok_or_else(|| format!("{text:?} is not a length of time; write a number and a unit (ms, s, m, h, d), such as 2s or 15m"))?;
        Ok(Self(Duration::from_millis(milliseconds)))
    }
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, &SIZE)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a size; write a number and a unit (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB), such as 64MiB"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        f.write_str(&if milliseconds == 0 { "0s".into() } else { show(milliseconds, &TIME) })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Powers of two only when they are exact; 1000000B reads as 1MB.
        f.write_str(&show(self.0, &SIZE))
    }
}

macro_rules! as_text {
    ($type:ty, $name:literal, $format:literal, $pattern:literal, $example:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "format": $format, "pattern": $pattern, "examples": [$example]})
            }
        }
    };
}

as_text!(Span, "Span", "span", "^[0-9]+ *(ms|s|m|h|d)$", "15m");
as_text!(Size, "Size", "size", "^[0-9]+ *(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)$", "64MiB");

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        for text in ["250ms", "2s", "15m", "6h", "5d", "90s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("120s".parse::<Span>().unwrap().to_string(), "2m");
        for text in ["512B", "64MiB", "2GiB", "3GB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("64 MiB".parse::<Size>().unwrap().0, 64 << 20);
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "5", "s", "-1s", "1.5h", "2 weeks", "99999999999999999999d", "2MiB"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for text in ["", "64", "64mb", "1 PiB", "99999999999999TiB", "2s"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
