//! What a data set holds, by name, label and content: the list that everything computed from the data is keyed by.

use super::labels::WrittenLabels;
use crate::error::{Error, Result};
use delta_guard_contract::{Code, Digest, TrainId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// BLAKE3 of a content.
pub type ContentDigest = [u8; 32];

/// One example as it lies on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Its name.
    pub id: TrainId,
    /// Its class, as an index into [`Manifest::classes`].
    pub label: u32,
    /// BLAKE3 of its encoded bytes (of a CIFAR record: all its bytes, label included).
    pub digest: ContentDigest,
    /// Where it comes from, if the set says so. Not part of the digest: nothing but the report depends on it.
    pub source: Option<Arc<str>>,
}

/// An example that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Its name.
    pub id: TrainId,
    /// The reason, for people.
    pub reason: String,
}

/// Files in class folders that are no examples by their names: backup copies, notes, what file managers leave behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// How many.
    pub count: usize,
    /// The first few.
    pub first: Vec<String>,
}

impl PassedOver {
    pub(crate) fn add(&mut self, name: String) {
        self.count += 1;
        if self.first.len() < 3 {
            self.first.push(name);
        }
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.count > self.first.len() { ", …" } else { "" };
        let files = match self.count {
            1 => "1 file that is no example by its name".to_string(),
            n => format!("{n} files that are no examples by their names"),
        };
        write!(f, "passed over {files}: {}{more}", self.first.join(", "))
    }
}

/// All examples of a data source in their order, readable as pictures or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The examples.
    pub examples: Vec<Example>,
    /// Class names in label order.
    pub classes: Vec<String>,
    /// Examples whose bytes could not even be read.
    pub unreadable: Vec<Unreadable>,
    /// What lies beside the examples. Not part of the digest.
    pub passed_over: PassedOver,
}

impl Manifest {
    /// Checks what every source must hold to: something is there, and ids are unique.
    pub(crate) fn checked(self, source: &Path) -> Result<Self> {
        if self.examples.is_empty() && self.unreadable.is_empty() {
            return Err(Error::new(
                Code::DataUnusable,
                format!("{} holds no pictures", source.display()),
                "check the path and split of data.train and data.validation",
            ));
        }
        let mut seen = HashSet::with_capacity(self.examples.len());
        if let Some(twice) = self.examples.iter().find(|e| !seen.insert(&e.id)) {
            let help = "give every picture a name of its own: verdicts name training examples by it";
            return Err(Error::new(
                Code::DataUnusable,
                format!("{} holds {} twice", source.display(), twice.id),
                help,
            ));
        }
        Ok(self)
    }

    /// Examples whose labels are still the numbers of `labels` get their classes; then as [`Self::checked`].
    pub(crate) fn labelled(
        mut self,
        labels: &WrittenLabels,
        declared: Option<&[String]>,
        known: Option<KnownClasses>,
        source: &Path,
    ) -> Result<Self> {
        let (classes, map) = labels.classes(declared, known, source)?;
        self.classes = classes;
        for example in &mut self.examples {
            example.label = map[example.label as usize];
        }
        self.checked(source)
    }

    /// BLAKE3 over a canonical byte form: classes, examples (id, label, content) and unreadable ids in their order, each text preceded by its length.
    pub fn digest(&self) -> Digest {
        let mut hash = blake3::Hasher::new();
        hash.update(b"delta-guard manifest 1\0");
        let number = |hash: &mut blake3::Hasher, n: usize| {
            hash.update(&(n as u64).to_le_bytes());
        };
        let text = |hash: &mut blake3::Hasher, s: &str| {
            hash.update(&(s.len() as u64).to_le_bytes());
            hash.update(s.as_bytes());
        };
        number(&mut hash, self.classes.len());
        self.classes.iter().for_each(|c| text(&mut hash, c));
        number(&mut hash, self.examples.len());
        for example in &self.examples {
            text(&mut hash, &example.id.0);
            hash.update(&example.label.to_le_bytes());
            hash.update(&example.digest);
        }
        number(&mut hash, self.unreadable.len());
        self.unreadable.iter().for_each(|u| text(&mut hash, &u.id.0));
        Digest(hash.finalize().to_hex().to_string())
    }
}

/// Class names that are settled before a set is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownClasses<'a> {
    /// The training set's. A set of other pictures need not have all of them.
    Training(&'a [String]),
    /// Those of `data.classes`. The set has just these.
    Listed(&'a [String]),
}

impl<'a> KnownClasses<'a> {
    /// The names in label order.
    pub fn names(self) -> &'a [String] {
        let (Self::Training(names) | Self::Listed(names)) = self;
        names
    }

    /// The names that the set has, without twins, are held against the known ones.
    pub(crate) fn hold(self, found: &[&str], place: &Path) -> Result<()> {
        let names = self.names();
        let listed: HashSet<&str> = names.iter().map(String::as_str).collect();
        let unknown: Vec<&str> = found.iter().filter(|name| !listed.contains(*name)).copied().collect();
        match self {
            Self::Training(_) if unknown.is_empty() => Ok(()),
            Self::Training(_) => Err(Error::new(
                Code::DataUnusable,
                format!(
                    "{} has classes that the training set does not have: {} (the training set has {})",
                    place.display(),
                    some(&unknown),
                    some(names)
                ),
                "name the class folders as in the training set, or set split where the path holds several parts",
            )),
            Self::Listed(_) => {
                let found: HashSet<&str> = found.iter().copied().collect();
                let missing: Vec<&str> = names.iter().map(String::as_str).filter(|name| !found.contains(name)).collect();
                not_as_listed(&unknown, &missing, place)
            }
        }
    }
}

/// `data.classes` must name just the classes that the set has.
pub(crate) fn not_as_listed(unknown: &[&str], missing: &[&str], place: &Path) -> Result<()> {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!(
            "{} has classes that data.classes does not name: {}",
            place.display(),
            some(unknown)
        ));
    }
    if !missing.is_empty() {
        parts.push(format!(
            "data.classes names classes that {} does not have: {}",
            place.display(),
            some(missing)
        ));
    }
    if parts.is_empty() {
        return Ok(());
    }
    let help = "name in data.classes just the classes of the training set, each once, in the order of the model's outputs";
    Err(Error::new(Code::DataUnusable, parts.join("; "), help))
}

/// The class order to use: the known one, else the found names, sorted.
pub(crate) fn class_order(found: &BTreeSet<String>, known: Option<KnownClasses>, place: &Path) -> Result<Vec<String>> {
    let Some(known) = known else {
        return Ok(found.iter().cloned().collect());
    };
    known.hold(&found.iter().map(String::as_str).collect::<Vec<_>>(), place)?;
    Ok(known.names().to_vec())
}

/// At most ten names, then how many more.
pub(crate) fn some<S: AsRef<str>>(names: &[S]) -> String {
    let shown: Vec<&str> = names.iter().take(10).map(AsRef::as_ref).collect();
    let more = if names.len() > 10 {
        format!(", … ({} in all)", names.len())
    } else {
        String::new()
    };
    shown.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let example = |id: &str, label| Example {
            id: TrainId(id.into()),
            label,
            digest: [label as u8; 32],
            source: None,
        };
        Manifest {
            examples: vec![example("a/1", 0), example("b/2", 1)],
            classes: vec!["a".into(), "b".into()],
            ..Manifest::default()
        }
    }

    #[test]
    fn digest_depends_on_every_part() {
        let base = manifest();
        let mut seen = HashSet::from([base.digest()]);
        let changes: [fn(&mut Manifest); 7] = [
            |m| m.examples[0].id.0.push('x'),
            |m| m.examples[1].label = 0,
            |m| m.examples[1].digest[31] ^= 1,
            |m| m.classes.swap(0, 1),
            |m| m.examples.swap(0, 1),
            |m| {
                m.unreadable.push(Unreadable {
                    id: TrainId("c".into()),
                    reason: String::new(),
                })
            },
            |m| {
                m.classes[0] = "ab".into();
                m.classes[1] = String::new();
            },
        ];
        for change in changes {
            let mut other = base.clone();
            change(&mut other);
            assert!(seen.insert(other.digest()));
        }
        assert_eq!(base.digest(), manifest().digest());
    }

    #[test]
    fn reasons_are_not_part_of_the_digest_and_twins_are_refused() {
        let with = |reason: &str| Manifest {
            unreadable: vec![Unreadable {
                id: TrainId("c".into()),
                reason: reason.into(),
            }],
            ..manifest()
        };
        assert_eq!(with("this").digest(), with("that").digest());
        let mut twins = manifest();
        twins.examples[1].id = twins.examples[0].id.clone();
        assert!(twins.checked(Path::new("set")).unwrap_err().to_string().contains("a/1 twice"));
    }
}
