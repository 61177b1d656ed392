//! WebDataset: tar files in which the members of one key belong together: `KEY.jpg` with `KEY.cls` or `KEY.json`.
//!
//! As in the `webdataset` library, the key is a member's path up to the first dot of its file name, the rest is its kind, and members of a key stand together.
//! Other kinds of members (captions, boxes) are not looked at.

use super::archive::{self, Member};
use super::labels::{Label, WrittenLabels};
use super::layout::is_picture_name;
use super::manifest::{ContentDigest, Example, KnownClasses, Manifest, Unreadable};
use super::origin::{self, SourceNames, names_of};
use super::picture::DATA_LIMITS;
use super::reader::{BLOCK, SetReader, Sink};
use super::stat::{NamedDigest, Stamp, StatIndex};
use super::tars::hand_over;
use crate::error::{Error, Result, ResultExt};
use crate::progress::Report;
use delta_guard_contract::{Code, Origin, TrainId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Bytes of the longest `KEY.cls`.
const MOST_CLS: u64 = 1 << 10;
/// Bytes of the longest `KEY.json`.
const MOST_JSON: u64 = 1 << 20;
/// Members that are looked at to see whether a tar is a shard.
const LOOKED_AT: usize = 1000;

/// Reader of shards. Examples keep the shards' order.
#[derive(Debug)]
pub(crate) struct ShardReader {
    /// What the configuration names.
    place: PathBuf,
    files: Vec<PathBuf>,
    origin: Option<Origin>,
    /// Of each shard: positions in the manifest by the member's place in the archive.
    positions: Vec<HashMap<usize, Vec<usize>>>,
}

/// What a shard holds, as the index keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Kept {
    /// A key with picture and label.
    Pair(Pair),
    /// A key with neither.
    Beside(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pair {
    /// Name of the picture.
    name: String,
    label: Label,
    source: Option<String>,
    id: Option<String>,
    /// The picture's place among the members, or why it has no bytes.
    at: std::result::Result<usize, String>,
}

/// The members of one key, as far as they were met.
#[derive(Debug, Default)]
struct Group {
    key: String,
    picture: Option<(String, usize, std::result::Result<ContentDigest, String>)>,
    cls: Option<Label>,
    json: Option<Map<String, Value>>,
}

/// Key and kind of a member; none where its name has no dot.
fn parts(name: &str) -> Option<(&str, String)> {
    let start = name.rfind('/').map_or(0, |at| at + 1);
    let dot = start + name[start..].find('.')?;
    Some((&name[..dot], name[dot + 1..].to_ascii_lowercase()))
}

/// Is the tar a shard? Decided by its first picture: it has a `KEY.cls`, or a `KEY.json` and lies in no folder. A picture with a JSON file in a class folder
/// is read as one in a class folder, unless the format is named.
pub(crate) fn is_shard(path: &Path) -> Result<bool> {
    let (mut key, mut picture, mut cls, mut json, mut seen) = (String::new(), false, false, false, 0);
    archive::members(path, &mut |member| {
        seen += 1;
        let Some((own, kind)) = parts(&member.name) else {
            return Ok(ControlFlow::Continue(()));
        };
        if own != key {
            if picture || seen > LOOKED_AT {
                return Ok(ControlFlow::Break(()));
            }
            key = own.into();
            (cls, json) = (false, false);
        }
        picture |= is_picture_kind(&kind);
        cls |= kind == "cls";
        json |= kind == "json";
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(picture && (cls || json && !key.contains('/')))
}

fn is_picture_kind(kind: &str) -> bool {
    !kind.contains('.') && is_picture_name(&format!("x.{kind}"))
}

/// Reads one shard's keys.
#[derive(Default)]
struct Survey {
    group: Group,
    seen: HashSet<String>,
    found: Vec<(Kept, ContentDigest)>,
}

impl Survey {
    fn wrong(&self, key: &str, what: &str) -> Error {
        Error::new(
            Code::DataUnusable,
            format!("key {key}: {what}"),
            "each key needs one picture and one label (KEY.cls, or KEY.json with \"label\", \"cls\" or \"class\"), next to each other in the tar",
        )
    }

    fn take(&mut self, member: &mut Member, at: usize) -> Result<()> {
        let name = member.name.clone();
        let Some((key, kind)) = parts(&name) else {
            self.found.push((Kept::Beside(name), [0; 32]));
            return Ok(());
        };
        if key != self.group.key {
            self.finish()?;
            if !self.seen.insert(key.to_owned()) {
                return Err(self.wrong(key, "its members do not stand together"));
            }
            self.group.key = key.to_owned();
        }
        if is_picture_kind(&kind) {
            if self.group.picture.is_some() {
                return Err(self.wrong(key, "it has two pictures"));
            }
            self.group.picture = Some((name.clone(), at, content(member)?));
        } else if kind == "cls" {
            let label = Label::Text(self.text(member, MOST_CLS)?.trim().to_owned());
            if self.group.cls.replace(label).is_some() {
                return Err(self.wrong(&self.group.key, "it has two labels"));
            }
        } else if kind == "json" {
            let text = self.text(member, MOST_JSON)?;
            let map = serde_json::from_str(&text).map_err(|error| self.wrong(&self.group.key, &format!("its JSON cannot be read: {error}")))?;
            if self.group.json.replace(map).is_some() {
                return Err(self.wrong(&self.group.key, "it has two JSON files"));
            }
        }
        Ok(())
    }

    fn text(&self, member: &mut Member, most: u64) -> Result<String> {
        let name = member.name.clone();
        let bytes = match member.regular {
            true => member.bytes(most)?,
            false => return Err(self.wrong(&self.group.key, &format!("{name} is not a regular file"))),
        };
        let bytes = bytes.ok_or_else(|| self.wrong(&self.group.key, &format!("{name} has more than {most} bytes")))?;
        String::from_utf8(bytes).map_err(|_| self.wrong(&self.group.key, &format!("{name} is not UTF-8")))
    }

    /// The key is complete.
    fn finish(&mut self) -> Result<()> {
        let group = std::mem::take(&mut self.group);
        let key = group.key.as_str();
        let json = group.json.as_ref();
        let of_json = json.and_then(|map| ["label", "cls", "class"].iter().find_map(|name| map.get(*name)));
        let of_json = match of_json.map(|value| (value, Label::of_json(value))) {
            None => None,
            Some((_, Some(label))) => Some(label),
            Some((value, None)) => return Err(self.wrong(key, &format!("its label is neither a name nor a whole number: {}", short(value)))),
        };
        let label = match (group.cls, of_json) {
            (Some(one), Some(other)) if one.shown() != other.shown() => return Err(self.wrong(key, "its .cls and its .json have different labels")),
            (one, other) => one.or(other),
        };
        let (picture, label) = match (group.picture, label) {
            (Some(picture), Some(label)) => (picture, label),
            (None, None) if key.is_empty() && json.is_none() => return Ok(()),
            (None, None) => {
                self.found.push((Kept::Beside(key.to_owned()), [0; 32]));
                return Ok(());
            }
            (None, Some(_)) => return Err(self.wrong(key, "it has a label and no picture")),
            (Some(_), None) => return Err(self.wrong(key, "it has a picture and no label")),
        };
        let word = |name: &str| match json.and_then(|map| map.get(name)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(n)) => Ok(Some(n.to_string())),
            Some(other) => Err(self.wrong(key, &format!("its `{name}` is no text: {}", short(other)))),
        };
        let (source, id) = (word("source")?, word("id")?);
        let fault = label
            .fault()
            .or(source.as_deref().and_then(origin::fault))
            .or(id.as_deref().and_then(id_fault));
        if let Some(what) = fault {
            return Err(self.wrong(key, &format!("it {what}")));
        }
        let (name, at, content) = picture;
        let digest = *content.as_ref().unwrap_or(&[0; 32]);
        let at = content.map(|_| at);
        self.found.push((Kept::Pair(Pair { name, label, source, id, at }), digest));
        Ok(())
    }
}

/// What is wrong with an id that the data give.
pub(crate) fn id_fault(id: &str) -> Option<&'static str> {
    if id.is_empty() || id.len() > 4096 {
        return Some("has an id that is empty, or of more than 4,096 bytes");
    }
    id.chars().any(char::is_control).then_some("has an id with control characters")
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

/// Digest of a member, or why it is unreadable.
pub(super) fn content(member: &mut Member) -> Result<std::result::Result<ContentDigest, String>> {
    Ok(if !member.regular {
        Err("not a regular file".into())
    } else if member.size > DATA_LIMITS.max_bytes {
        Err(format!("larger than {} MiB", DATA_LIMITS.max_bytes >> 20))
    } else {
        Ok(member.digest()?)
    })
}

fn survey(file: &Path, report: &mut dyn Report) -> Result<Vec<(Kept, ContentDigest)>> {
    let mut survey = Survey::default();
    let mut at = 0;
    archive::all_members(file, &mut |mut member| {
        if at % BLOCK == 0 {
            report.progress("read", at as u64, 0, &file.display().to_string());
        }
        if !member.name.split('/').any(|part| part.starts_with('.')) {
            survey.take(&mut member, at)?;
        }
        at += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    survey.finish().context(|| file.display().to_string())?;
    Ok(survey.found)
}

impl ShardReader {
    pub(crate) fn new(place: PathBuf, files: Vec<PathBuf>, origin: Option<Origin>) -> Self {
        Self {
            place,
            files,
            origin,
            positions: Vec::new(),
        }
    }

    /// What one shard holds, from the index or read.
    fn kept(file: &Path, index: &mut StatIndex, report: &mut dyn Report) -> Result<Vec<(Kept, ContentDigest)>> {
        let stamp = Stamp::of(&fs_err::metadata(file)?);
        let key = format!("{}|webdataset", file.display());
        let of_part = |(text, digest): &NamedDigest| Some((serde_json::from_str(text).ok()?, *digest));
        let known = index
            .lookup(&key, &stamp)
            .and_then(|parts| parts.iter().map(of_part).collect::<Option<Vec<_>>>());
        let kept = match known {
            Some(kept) => kept,
            None => survey(file, report)?,
        };
        let part = |(kept, digest): &(Kept, ContentDigest)| serde_json::to_string(kept).map(|text| (text, *digest));
        let parts = kept
            .iter()
            .map(part)
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| Error::internal(format!("the index of {}: {error}", file.display())))?;
        index.keep(key, stamp, parts);
        Ok(kept)
    }

    fn source<'a>(&self, pair: &'a Pair, shard: &'a str) -> &'a str {
        match self.origin {
            Some(Origin::Shard) => shard,
            None | Some(Origin::Column) => pair.source.as_deref().unwrap_or_default(),
            _ => "",
        }
    }
}

impl SetReader for ShardReader {
    fn scan(&mut self, known: Option<KnownClasses>, index: &mut StatIndex, report: &mut dyn Report) -> Result<Manifest> {
        let (mut labels, mut sources) = (WrittenLabels::default(), SourceNames::default());
        let (mut manifest, shards) = (Manifest::default(), names_of(&self.files));
        self.positions = vec![HashMap::new(); self.files.len()];
        for (n, file) in self.files.iter().enumerate() {
            let shard = shards[n].as_str();
            for (kept, digest) in Self::kept(file, index, report)? {
                let pair = match kept {
                    Kept::Beside(name) => {
                        manifest.passed_over.add(name);
                        continue;
                    }
                    Kept::Pair(pair) => pair,
                };
                let source = sources.named(self.source(&pair, shard));
                // The label's number until all are known; then its class.
                let label = labels.number(pair.label);
                let id = TrainId(match pair.id {
                    Some(id) => id,
                    None if self.files.len() > 1 => format!("{shard}/{}", pair.name),
                    None => pair.name,
                });
                match pair.at {
                    Ok(member) => {
                        self.positions[n].entry(member).or_default().push(manifest.examples.len());
                        manifest.examples.push(Example { id, label, digest, source });
                    }
                    Err(reason) => manifest.unreadable.push(Unreadable { id, reason }),
                }
            }
        }
        if self.origin == Some(Origin::Column) && manifest.examples.iter().all(|example| example.source.is_none()) {
            return Err(origin::no_column(&self.place));
        }
        manifest.labelled(&labels, None, known, &self.place)
    }

    fn read(&self, sink: Sink) -> Result<()> {
        hand_over(&self.files, &self.positions, sink)
    }
}
