//! WrittenLabels as lists, shards and parquet files write them, numbers or names, and the classes that they mean.
//!
//! What all labels of a set are decides, never one alone: names, if all are names that are known; else places in the list of names, if all are numbers.

use super::manifest::{KnownClasses, not_as_listed, some};
use crate::error::{Error, Result};
use delta_guard_contract::Code;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Longest label, in bytes: a file system would take no longer one as a folder's name.
pub(crate) const LONGEST: usize = 255;

/// A label as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Label {
    /// A number: a place among the classes, from 0.
    Number(i64),
    /// Words, or digits where the form knows no numbers.
    Text(String),
}

impl Label {
    /// As a place among the classes, if it can be one.
    fn place(&self) -> Option<i64> {
        match self {
            Self::Number(n) => Some(*n),
            // "007" and "+7" are names.
            Self::Text(text) => text.parse().ok().filter(|n: &i64| n.to_string() == *text),
        }
    }

    /// In words.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Number(n) => n.to_string(),
            Self::Text(text) => text.clone(),
        }
    }

    /// From JSON: a number or a text. None for anything else, and for what is no whole number.
    pub(crate) fn of_json(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::Number(n) => n.as_i64().map(Self::Number),
            serde_json::Value::String(text) => Some(Self::Text(text.trim().to_owned())),
            _ => None,
        }
    }

    /// What is wrong with it by itself.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Text(text) if text.is_empty() => Some("has no label"),
            Self::Text(text) if text.len() > LONGEST => Some("has a label of more than 255 bytes"),
            Self::Text(text) if text.chars().any(char::is_control) => Some("has a label with control characters"),
            _ => None,
        }
    }
}

/// The labels of a set, each once, by the number of its first example.
#[derive(Debug, Default)]
pub(crate) struct WrittenLabels {
    numbers: HashMap<Label, u32>,
    all: Vec<Label>,
}

impl WrittenLabels {
    /// A label's number here; not yet its class.
    pub(crate) fn number(&mut self, label: Label) -> u32 {
        *self.numbers.entry(label.clone()).or_insert_with(|| {
            self.all.push(label);
            self.all.len() as u32 - 1
        })
    }

    /// Class names in label order, and the class of each label by its number. `declared`: the names that the set itself declares, in the order of its numbers.
    ///
    /// # Errors
    /// Names that are not known, numbers that are none of the classes, labels that can be understood in two ways.
    pub(crate) fn classes(&self, declared: Option<&[String]>, known: Option<KnownClasses>, place: &Path) -> Result<(Vec<String>, Vec<u32>)> {
        let all = &self.all[..];
        if let Some(odd) = all.iter().find(|label| is_odd(label)).filter(|_| all.iter().all(is_numeric)) {
            return Err(Error::new(
                Code::DataUnusable,
                format!(
                    "{} has the label {}, which is neither a name nor a number from 0",
                    place.display(),
                    odd.shown()
                ),
                "write labels as names, or as whole numbers that count from 0; take out examples without a label (-1 in many sets)",
            ));
        }
        let places: Option<Vec<i64>> = all.iter().map(Label::place).collect();
        match (declared, known) {
            (Some(declared), known) => by_declaration(all, declared, known, place),
            (None, Some(known)) => among(all, places, known, place),
            (None, None) => match places {
                Some(places) => numbered(&places, place),
                None => named(all, place),
            },
        }
    }
}

/// Could it be meant as a number?
fn is_numeric(label: &Label) -> bool {
    match label {
        Label::Number(_) => true,
        Label::Text(text) => text.parse::<f64>().is_ok_and(f64::is_finite),
    }
}

/// A number that is no place: negative, or with a fraction.
fn is_odd(label: &Label) -> bool {
    match label {
        Label::Number(n) => *n < 0,
        Label::Text(text) => is_numeric(label) && text.contains(['-', '.', 'e', 'E']),
    }
}

/// A set of names alone: sorted, as folders are.
fn named(all: &[Label], place: &Path) -> Result<(Vec<String>, Vec<u32>)> {
    let texts = texts(all, place)?;
    let mut classes: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    classes.sort();
    let at = positions(&classes);
    let map = texts.iter().map(|text| at[text]).collect();
    drop(at);
    Ok((classes, map))
}

/// The place of each name.
fn positions(classes: &[String]) -> HashMap<&str, u32> {
    (0..).zip(classes).map(|(at, name)| (name.as_str(), at)).collect()
}

fn texts<'a>(all: &'a [Label], place: &Path) -> Result<Vec<&'a str>> {
    let text = |label: &'a Label| match label {
        Label::Text(text) => Ok(text.as_str()),
        Label::Number(n) => {
            let name = all.iter().find(|label| label.place().is_none()).map(Label::shown).unwrap_or_default();
            Err(Error::new(
                Code::DataUnusable,
                format!("{} has names as labels and numbers as well: {name} and {n}", place.display()),
                "write all labels as names, or all as numbers",
            ))
        }
    };
    all.iter().map(text).collect()
}

/// A set of numbers alone: the classes go by their numbers, and none may be missing.
fn numbered(places: &[i64], place: &Path) -> Result<(Vec<String>, Vec<u32>)> {
    let most = places.iter().copied().max().unwrap_or_default();
    if most as usize >= places.len() {
        let there: HashSet<&i64> = places.iter().collect();
        let missing: Vec<String> = (0..most).filter(|n| !there.contains(n)).take(11).map(|n| n.to_string()).collect();
        return Err(Error::new(
            Code::DataUnusable,
            format!(
                "{} has labels up to {most}, but no example with the label {}",
                place.display(),
                some(&missing)
            ),
            "labels are the places of the classes among the model's outputs and count from 0; if they do not, write names as labels",
        ));
    }
    Ok(((0..=most).map(|n| n.to_string()).collect(), places.iter().map(|n| *n as u32).collect()))
}

/// Numbers (or names) of a set that declares its names.
fn by_declaration(all: &[Label], declared: &[String], known: Option<KnownClasses>, place: &Path) -> Result<(Vec<String>, Vec<u32>)> {
    let own = positions(declared);
    let name = |label: &Label| match label {
        Label::Number(n) => usize::try_from(*n).ok().and_then(|n| declared.get(n)),
        Label::Text(text) => own.get(text.as_str()).map(|at| &declared[*at as usize]),
    };
    let names = all
        .iter()
        .map(|label| name(label).ok_or_else(|| beyond(label, declared, "the set's own list of names", place)))
        .collect::<Result<Vec<_>>>()?;
    let classes = match known {
        None => declared.to_vec(),
        Some(known) => {
            known.hold(&names.iter().map(|name| name.as_str()).collect::<Vec<_>>(), place)?;
            known.names().to_vec()
        }
    };
    let at = positions(&classes);
    let map = names.iter().filter_map(|name| at.get(name.as_str()).copied()).collect();
    drop(at);
    Ok((classes, map))
}

/// WrittenLabels of a set whose classes are known: all names, or all numbers.
fn among(all: &[Label], places: Option<Vec<i64>>, known: KnownClasses, place: &Path) -> Result<(Vec<String>, Vec<u32>)> {
    let names = known.names();
    let at = positions(names);
    let as_names: Option<Vec<u32>> = all
        .iter()
        .map(|label| match label {
            Label::Text(text) => at.get(text.as_str()).copied(),
            Label::Number(_) => None,
        })
        .collect();
    let fits = |places: &Vec<i64>| places.iter().all(|n| (0..names.len() as i64).contains(n));
    let as_places: Option<Vec<u32>> = places.clone().filter(fits).map(|places| places.iter().map(|n| *n as u32).collect());
    let map = match (as_names, as_places) {
        (Some(one), Some(other)) if one != other => {
            let label = all
                .iter()
                .zip(one.iter().zip(&other))
                .find(|(_, (a, b))| a != b)
                .map(|(label, _)| label.shown());
            return Err(Error::new(
                Code::DataUnusable,
                format!(
                    "{} has labels that could be names as well as places among the classes, such as {}",
                    place.display(),
                    label.unwrap_or_default()
                ),
                "write the list as JSON lines, where \"7\" is a name and 7 is a place",
            ));
        }
        (Some(map), _) | (None, Some(map)) => map,
        (None, None) => match places {
            Some(places) => {
                let label = places.iter().max().map_or(Label::Number(0), |n| Label::Number(*n));
                return Err(beyond(&label, names, whose(known), place));
            }
            None => {
                known.hold(&texts(all, place)?, place)?;
                return Err(Error::internal("labels that are known and are not"));
            }
        },
    };
    if let KnownClasses::Listed(names) = known {
        let used: HashSet<&u32> = map.iter().collect();
        let missing: Vec<&str> = (0..)
            .zip(names)
            .filter(|(n, _)| !used.contains(n))
            .map(|(_, name)| name.as_str())
            .collect();
        not_as_listed(&[], &missing, place)?;
    }
    Ok((names.to_vec(), map))
}

/// Whose names are known.
pub(super) fn whose(known: KnownClasses) -> &'static str {
    match known {
        KnownClasses::Training(_) => "the training set",
        KnownClasses::Listed(_) => "data.classes",
    }
}

fn beyond(label: &Label, names: &[String], whose: &str, place: &Path) -> Error {
    Error::new(
        Code::DataUnusable,
        format!(
            "{} has the label {}, which is none of the {} classes of {whose}: {}",
            place.display(),
            label.shown(),
            names.len(),
            some(names)
        ),
        "labels that are numbers are the places of the classes, counted from 0; write names, or name the classes in this order in data.classes",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
