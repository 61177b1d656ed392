//! A zip file of stored entries under one folder, read in place.

use super::zip::{Listing, directory};
use super::{broken, shown, unread};
use crate::error::{Result, ResultExt};
use crate::files::Map;
use delta_guard_contract::mistaken::{HEAD, mistaken};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// More entries than any network has tensors.
const MAX_ENTRIES: u64 = 100_000;
/// The graph of a network with a thousand layers takes some ten megabytes.
const MAX_TEXT: usize = 256 << 20;

/// Some bytes of a file, which stays open as long as they are held.
#[derive(Clone)]
pub struct Part {
    whole: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Part {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // The range was checked when the part was made, and neither a map nor a vector changes its length.
        (*self.whole).as_ref().get(self.range.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({:?})", self.range)
    }
}

#[derive(Clone, Debug)]
struct Entry {
    place: Range<usize>,
    crc: u32,
}

/// The entries of a file, by their names below its one folder.
#[derive(Debug)]
pub struct Archive {
    whole: Part,
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Map a file and read its directory.
    ///
    /// # Errors
    /// `ProgramUnusable`: it is no such archive (then what it is), or its parts disagree.
    pub fn open(path: &Path) -> Result<Self> {
        let file = fs_err::File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Err(unread("the file is empty", "copy it again"));
        }
        Self::of(Map::new(&file, path)?, &path.file_name().unwrap_or_default().to_string_lossy())
    }

    /// The directory of bytes that came from a file of this name.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub fn of(bytes: impl AsRef<[u8]> + Send + Sync + 'static, name: &str) -> Result<Self> {
        let length = bytes.as_ref().len();
        let whole = Part {
            whole: Arc::new(bytes),
            range: 0..length,
        };
        not_another(whole.bytes(), name)?;
        let entries = entries(whole.bytes())?;
        Ok(Self {
            entries: below_one_folder(entries)?,
            whole,
        })
    }

    /// Bytes of the whole file.
    pub fn length(&self) -> usize {
        self.whole.range.len()
    }

    /// The names of the entries that begin with `start`, without it.
    pub fn names<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a str> {
        self.entries.keys().filter_map(move |name| name.strip_prefix(start))
    }

    /// A copy of an entry of text, held against its checksum.
    ///
    /// # Errors
    /// As [`Archive::entry`], and where it is longer than any such text.
    pub fn text(&self, name: &str) -> Result<Vec<u8>> {
        let part = self.entry(name)?;
        if part.bytes().len() > MAX_TEXT {
            return Err(broken(format!("entry {} is a text of more than {} MiB", shown(name), MAX_TEXT >> 20)));
        }
        // A copy, so that the file may change without the text doing so.
        Ok(part.bytes().to_vec())
    }

    /// An entry's bytes, held against their checksum.
    ///
    /// # Errors
    /// `ProgramUnusable`: it is not there, or damaged.
    pub fn entry(&self, name: &str) -> Result<Part> {
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| broken(format!("entry {} is missing", shown(name))))?;
        let part = Part {
            whole: Arc::clone(&self.whole.whole),
            range: entry.place.clone(),
        };
        let mut crc = flate2::Crc::new();
        crc.update(part.bytes());
        if crc.sum() != entry.crc {
            return Err(broken(format!("entry {} is damaged: its checksum is another", shown(name))));
        }
        Ok(part)
    }
}

/// A file that is no zip file at all, or one of `torch.save`, is told by its first bytes.
fn not_another(bytes: &[u8], name: &str) -> Result<()> {
    if bytes.starts_with(b"PK\x03\x04") {
        return Ok(());
    }
    match mistaken(&bytes[..bytes.len().min(HEAD)], name) {
        Some(told) => Err(unread(format!("not an exported program: the file is {}", told.what), told.help)),
        None => Err(unread(
            "not an exported program: the file is a safetensors file",
            "name it as model.checkpoint; model.architecture wants what torch.export.save wrote",
        )),
    }
}

/// All entries by their whole names: none twice, none over another, each within the file and before the directory.
fn entries(bytes: &[u8]) -> Result<Vec<(String, Entry)>> {
    let directory = directory(bytes)?;
    if directory.entries > MAX_ENTRIES {
        return Err(broken(format!("it has {} entries, more than {MAX_ENTRIES}", directory.entries)));
    }
    let mut found = Vec::new();
    for listed in Listing::new(&bytes[directory.place.clone()]) {
        let listed = listed?;
        let (place, all) = listed.place(bytes)?;
        let entry = Entry { place, crc: listed.crc };
        found.push((all, listed.name, entry));
        if found.len() as u64 > directory.entries {
            break;
        }
    }
    if found.len() as u64 != directory.entries {
        return Err(broken("its directory has another number of entries than its end says"));
    }
    found.sort_by_key(|(all, ..)| all.start);
    let ends = found.iter().map(|(all, ..)| all.start).skip(1).chain([directory.place.start]);
    for ((all, name, _), next) in found.iter().zip(ends) {
        if all.end > next {
            return Err(broken(format!("entry {} lies over what comes after it", shown(name))));
        }
    }
    Ok(found.into_iter().map(|(_, name, entry)| (name, entry)).collect())
}

/// The entries without the one folder that all lie in.
fn below_one_folder(entries: Vec<(String, Entry)>) -> Result<BTreeMap<String, Entry>> {
    let mut root: Option<String> = None;
    let mut all = BTreeMap::new();
    for (name, entry) in entries {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':']) && !part.contains(char::is_control);
        if !name.split('/').all(plain) {
            return Err(broken(format!("entry {} has a name that is no plain path", shown(&name))));
        }
        let (folder, rest) = name.split_once('/').unwrap_or(("", &name));
        if *root.get_or_insert_with(|| folder.into()) != folder {
            return Err(broken(format!("entry {} does not lie in the one folder of the others", shown(&name))));
        }
        if all.insert(rest.to_string(), entry).is_some() {
            return Err(broken(format!("entry {} is there twice", shown(&name))));
        }
    }
    not_older(&all).context(|| "not an exported program that is read".into())?;
    Ok(all)
}

/// Other things that torch puts into a zip file.
fn not_older(entries: &BTreeMap<String, Entry>) -> Result<()> {
    let has = |name: &str| entries.contains_key(name);
    if has("serialized_exported_program.json") {
        return Err(unread("a torch older than 2.8 saved it", super::SAVE_AGAIN));
    }
    if has("data.pkl") {
        return Err(unread(
            "torch.save wrote it: a pickle, which is not read because it can run code",
            "export the model: torch.export.save(torch.export.export(model.eval(), (example,), dynamic_shapes=({0: torch.export.Dim(\"batch\")},)), \"model.pt2\")",
        ));
    }
    Ok(())
}
