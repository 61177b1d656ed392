//! One folder per class inside tar files. What counts is as in a folder on disk; hard and symbolic links give the members that they name.

use super::archive;
use super::folder::{class_folders, no_classes};
use super::layout::{choose_part, is_picture_name};
use super::links::{Given, LinkNode, Links, MOST_NAMES};
use super::manifest::{ContentDigest, Example, KnownClasses, Manifest, Unreadable, class_order};
use super::origin::{SourceNames, first_folder, names_of};
use super::picture::DATA_LIMITS;
use super::reader::{BLOCK, BLOCK_BYTES, Raw, RawContent, SetReader, Sink};
use super::stat::{NamedDigest, Stamp, StatIndex};
use super::webdataset::content;
use crate::error::{Error, Result, ResultExt};
use crate::progress::Report;
use delta_guard_contract::{Code, Origin, Split, TrainId};
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Reader of one or more tar files with class folders in them. Examples keep the archives' order; one that is a link stands beside what it names.
#[derive(Debug)]
pub(crate) struct TarReader {
    files: Vec<PathBuf>,
    split: Split,
    origin: Option<Origin>,
    /// Of each file: positions in the manifest by the member's place in the archive.
    positions: Vec<HashMap<usize, Vec<usize>>>,
}

/// A name inside a tar and what it gives.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    given: std::result::Result<Bytes, String>,
}

/// A member's bytes.
#[derive(Clone, Copy, Debug)]
struct Bytes {
    /// Its place among the archive's members.
    member: usize,
    digest: ContentDigest,
}

/// Stands for the digest of what gives no bytes.
const NO_BYTES: ContentDigest = [0; 32];

impl Named {
    /// As the index keeps it: name and place (or reason) as one text; no name has a NUL in it.
    fn part(&self) -> NamedDigest {
        match &self.given {
            Ok(bytes) => (format!("{}\0{}", self.name, bytes.member), bytes.digest),
            Err(reason) => (format!("{}\0{reason}", self.name), NO_BYTES),
        }
    }

    fn of(part: &NamedDigest) -> Option<Self> {
        let (name, rest) = part.0.split_once('\0')?;
        let given = match part.1 {
            NO_BYTES => Err(rest.to_string()),
            digest => Ok(Bytes {
                member: rest.parse().ok()?,
                digest,
            }),
        };
        Some(Self { name: name.into(), given })
    }
}

impl TarReader {
    /// What messages call the data: the tar, or the folder of several.
    fn place(&self) -> Result<PathBuf> {
        match &self.files[..] {
            [one] => Ok(one.clone()),
            [first, ..] => Ok(first.parent().unwrap_or(first).to_path_buf()),
            [] => Err(Error::internal("a tar reader without tars")),
        }
    }

    pub(crate) fn new(files: Vec<PathBuf>, split: Split, origin: Option<Origin>) -> Self {
        Self {
            files,
            split,
            origin,
            positions: Vec::new(),
        }
    }

    /// Where a member of a tar comes from; its class is the part of its name at `depth`.
    fn source<'a>(&self, name: &'a str, depth: usize, tar: &'a str) -> &'a str {
        match self.origin {
            Some(Origin::Folder) => first_folder(name.splitn(depth + 2, '/').nth(depth + 1).unwrap_or_default()),
            Some(Origin::Shard) => tar,
            _ => "",
        }
    }

    /// What one tar holds, from the index or read.
    fn named(file: &Path, index: &mut StatIndex, report: &mut dyn Report) -> Result<Vec<Named>> {
        let stamp = Stamp::of(&fs_err::metadata(file)?);
        let key = file.display().to_string();
        let known = index
            .lookup(&key, &stamp)
            .and_then(|parts| parts.iter().map(Named::of).collect::<Option<Vec<_>>>());
        let named = match known {
            Some(named) => named,
            None => survey(file, report)?,
        };
        index.keep(key, stamp, named.iter().map(Named::part).collect());
        Ok(named)
    }
}

/// Read a tar once: names, digests, links.
fn survey(file: &Path, report: &mut dyn Report) -> Result<Vec<Named>> {
    let place = file.display().to_string();
    let mut nodes: Vec<(String, LinkNode)> = Vec::new();
    let mut given: Vec<std::result::Result<ContentDigest, String>> = Vec::new();
    archive::all_members(file, &mut |mut member| {
        if nodes.len().is_multiple_of(BLOCK) {
            report.progress("read", nodes.len() as u64, 0, &place);
        }
        given.push(content(&mut member)?);
        nodes.push((member.name, member.link.map_or(LinkNode::File, LinkNode::Link)));
        Ok(ControlFlow::Continue(()))
    })?;
    let links = Links::new(nodes.iter().map(|(name, node)| (name.as_str(), node)));
    let bytes = |member: usize| given[member].clone().map(|digest| Bytes { member, digest });
    let mut named = Vec::new();
    let mut by_links = 0;
    for (n, (name, node)) in nodes.iter().enumerate().filter(|(_, (name, _))| !in_hidden_folder(name)) {
        if matches!(node, LinkNode::File) {
            named.push((
                n,
                Named {
                    name: name.clone(),
                    given: bytes(n),
                },
            ));
            continue;
        }
        let found = links.give(name, MOST_NAMES - by_links).ok_or_else(|| {
            Error::new(
                Code::DataUnusable,
                format!("{place} names more than {MOST_NAMES} files through links"),
                "pack the archive anew, with files in the place of linked folders (tar --dereference)",
            )
        })?;
        by_links += found.len();
        named.extend(found.into_iter().map(|given| match given {
            Given::Member(name, member) => (member, Named { name, given: bytes(member) }),
            Given::Nothing(name, why) => (
                n,
                Named {
                    name,
                    given: Err(why.into()),
                },
            ),
        }));
    }
    // What a link gives is read where its member lies.
    named.sort_by_key(|(member, _)| *member);
    Ok(named.into_iter().map(|(_, named)| named).collect())
}

fn in_hidden_folder(name: &str) -> bool {
    name.rsplit_once('/')
        .is_some_and(|(folder, _)| folder.split('/').any(|part| part.starts_with('.')))
}

fn is_hidden(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|file| file.starts_with('.'))
}

/// Where in the members' names are the classes, and which parts are there (empty: none)? A folder that everything lies in is looked through.
pub(crate) fn tar_parts<S: AsRef<str>>(names: &[S]) -> (usize, Vec<&str>) {
    let split: Vec<Vec<&str>> = names.iter().map(|n| n.as_ref().split('/').collect()).collect();
    let mut depth = 0;
    // Pictures right inside a folder make it a class.
    let has_pictures = |depth: usize, folder: &str| {
        split
            .iter()
            .any(|p| p.len() == depth + 2 && p[depth] == folder && is_picture_name(p[depth + 1]))
    };
    let folders = |depth: usize| -> BTreeSet<&str> { split.iter().filter(|p| p.len() >= depth + 2).map(|p| p[depth]).collect() };
    loop {
        let here = folders(depth);
        let mut only = here.iter();
        match (only.next(), only.next()) {
            (Some(one), None) if !has_pictures(depth, one) && !folders(depth + 1).is_empty() && !is_part(one) => depth += 1,
            _ => break,
        }
    }
    let parts = folders(depth).into_iter().filter(|f| is_part(f) && !has_pictures(depth, f)).collect();
    (depth, parts)
}

fn is_part(name: &str) -> bool {
    matches!(name, "train" | "test" | "val" | "validation")
}

impl SetReader for TarReader {
    fn scan(&mut self, known: Option<KnownClasses>, index: &mut StatIndex, report: &mut dyn Report) -> Result<Manifest> {
        let place = self.place()?;
        let mut all: Vec<(usize, Named)> = Vec::new();
        for (n, file) in self.files.iter().enumerate() {
            all.extend(Self::named(file, index, report)?.into_iter().map(|named| (n, named)));
        }
        let names: Vec<&str> = all.iter().map(|(_, named)| named.name.as_str()).filter(|name| !is_hidden(name)).collect();
        let (mut depth, parts) = tar_parts(&names);
        let chosen = choose_part(&parts, self.split, &place)?;
        let inside = |name: &str, depth: usize| chosen.is_none_or(|part| name.split('/').nth(depth) == Some(part));
        let part_depth = depth;
        depth += usize::from(chosen.is_some());
        // A member counts when it lies in a class folder.
        let class_of = |name: &str| {
            let mut parts = name.split('/').skip(depth);
            let class = parts.next()?;
            (parts.next().is_some() && inside(name, part_depth)).then(|| class.to_string())
        };
        let found: BTreeSet<String> = names.iter().filter_map(|n| class_of(n)).collect();
        if found.is_empty() {
            return Err(no_classes(&place));
        }
        let mut manifest = Manifest {
            classes: class_order(&found, known, &place)?,
            ..Manifest::default()
        };
        let labels: HashMap<&str, u32> = manifest.classes.iter().enumerate().map(|(l, c)| (c.as_str(), l as u32)).collect();
        let (mut filled, mut sources, tars) = (BTreeSet::new(), SourceNames::default(), names_of(&self.files));
        self.positions = vec![HashMap::new(); self.files.len()];
        for (file, named) in &all {
            let Some(class) = class_of(&named.name) else { continue };
            let (name, tar) = (named.name.as_str(), tars[*file].as_str());
            let id = if tars.len() > 1 { format!("{tar}/{name}") } else { name.to_owned() };
            if is_hidden(&named.name) || !is_picture_name(&named.name) {
                manifest.passed_over.add(id);
                continue;
            }
            match (&named.given, labels.get(class.as_str())) {
                (Err(reason), _) => manifest.unreadable.push(Unreadable {
                    id: TrainId(id),
                    reason: reason.clone(),
                }),
                (Ok(bytes), Some(&label)) => {
                    let positions = self.positions[*file].entry(bytes.member).or_default();
                    positions.push(manifest.examples.len());
                    manifest.examples.push(Example {
                        id: TrainId(id),
                        label,
                        digest: bytes.digest,
                        source: sources.named(self.source(name, depth, tar)),
                    });
                }
                (Ok(_), None) => {}
            }
            filled.insert(class);
        }
        class_folders(&place, &found, &filled, &manifest.passed_over)?;
        manifest.checked(&place)
    }

    fn read(&self, sink: Sink) -> Result<()> {
        hand_over(&self.files, &self.positions, sink)
    }
}

/// Hand over the members that stand at these places of the archives, each at its positions in the manifest.
pub(super) fn hand_over(files: &[PathBuf], positions: &[HashMap<usize, Vec<usize>>], sink: Sink) -> Result<()> {
    let mut block = Vec::new();
    let mut weight = 0;
    let mut flow = ControlFlow::Continue(());
    for (file, positions) in files.iter().zip(positions) {
        let mut place = 0;
        archive::all_members(file, &mut |mut member| {
            let wanted = positions.get(&place).filter(|_| member.regular);
            place += 1;
            let Some(wanted) = wanted else {
                return Ok(ControlFlow::Continue(()));
            };
            // The scan left out what is larger; here it can only be so when the archive was replaced meanwhile.
            let Some(bytes) = member.bytes(DATA_LIMITS.max_bytes)? else {
                return Err(Error::new(
                    Code::ChangedWhileRead,
                    format!("{} changed while it was read", member.name),
                    "run again when nobody writes to the archive",
                ));
            };
            for &position in wanted {
                weight += bytes.len();
                block.push(Raw {
                    position,
                    content: RawContent::Encoded(bytes.clone()),
                });
                if block.len() == BLOCK || weight > BLOCK_BYTES {
                    weight = 0;
                    flow = sink(std::mem::take(&mut block))?;
                    if flow.is_break() {
                        break;
                    }
                }
            }
            Ok(flow)
        })
        .context(|| "decoding".into())?;
        if flow.is_break() {
            return Ok(());
        }
    }
    if !block.is_empty() {
        let _ = sink(block)?;
    }
    Ok(())
}
