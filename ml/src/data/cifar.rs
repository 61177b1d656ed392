//! CIFAR-10 and CIFAR-100 in their binary layout: records of label bytes and 3,072 bytes of pixels (32 × 32; planes R, G, B; row by row), loose
//! in a folder or in the official tar.gz. CIFAR-100 records have two label bytes, coarse then fine; the fine one is taken.
//! (Layout: <https://www.cs.toronto.edu/~kriz/cifar.html>.)

use super::archive;
use super::labels::whose;
use super::manifest::{ContentDigest, Example, KnownClasses, Manifest, class_order};
use super::origin::SourceNames;
use super::reader::{BLOCK, Raw, RawContent, SetReader, Sink};
use super::stat::{NamedDigest, Stamp, StatIndex};
use crate::error::{Error, Result, ResultExt};
use crate::files;
use crate::progress::Report;
use delta_guard_contract::{Code, Origin, Split, TrainId};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Pixels per side.
pub const SIDE: u32 = 32;
/// Bytes of one picture.
pub const PIXELS: usize = 3 * 32 * 32;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CifarKind {
    /// CIFAR-10.
    Ten,
    /// CIFAR-100, fine labels.
    Hundred,
}

impl fmt::Display for CifarKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CIFAR-{}", self.classes())
    }
}

impl CifarKind {
    /// Number of classes.
    pub fn classes(self) -> usize {
        if self == Self::Ten { 10 } else { 100 }
    }

    /// Label bytes of a record; the last is the label.
    pub fn label_bytes(self) -> usize {
        if self == Self::Ten { 1 } else { 2 }
    }

    /// Bytes of a record.
    pub fn record(self) -> usize {
        self.label_bytes() + PIXELS
    }

    /// File of class names, one a line.
    pub fn names_file(self) -> &'static str {
        if self == Self::Ten { "batches.meta.txt" } else { "fine_label_names.txt" }
    }

    /// Name of the official archive's folder.
    pub(crate) fn folder(self) -> &'static str {
        if self == Self::Ten { "cifar-10-batches-bin" } else { "cifar-100-binary" }
    }

    pub(crate) fn expected(self) -> &'static str {
        if self == Self::Ten {
            "data_batch_1.bin, …, test_batch.bin"
        } else {
            "train.bin, test.bin"
        }
    }

    /// Which part a file of this name is, if it is a batch.
    pub(crate) fn part(self, name: &str) -> Option<Split> {
        match (self, name) {
            (Self::Ten, "test_batch.bin") | (Self::Hundred, "test.bin") => Some(Split::Test),
            (Self::Hundred, "train.bin") => Some(Split::Train),
            (Self::Ten, _) => number(name).map(|_| Split::Train),
            _ => None,
        }
    }
}

/// n of `data_batch_n.bin`.
fn number(name: &str) -> Option<u32> {
    name.strip_prefix("data_batch_")?.strip_suffix(".bin")?.parse().ok()
}

/// Where the batches are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Home {
    /// Files of a folder.
    Folder(PathBuf),
    /// Members of a tar.
    Tar(PathBuf),
    /// One file, whatever its name.
    File(PathBuf),
}

impl Home {
    pub(crate) fn path(&self) -> &Path {
        let (Self::Folder(path) | Self::Tar(path) | Self::File(path)) = self;
        path
    }

    /// Names of the batches of a part, in order: training batches by number, then test.
    pub(crate) fn batches(&self, kind: CifarKind, split: Split) -> Result<Vec<String>> {
        let names: Vec<String> = match self {
            Self::Folder(folder) => super::layout::listing(folder)?
                .into_iter()
                .filter(|(_, dir)| !dir)
                .map(|(name, _)| name)
                .collect(),
            Self::Tar(tar) => archive::names(tar)?.iter().map(|n| base(n).to_string()).collect(),
            // A single file is taken whatever its name says.
            Self::File(file) => return Ok(vec![file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())]),
        };
        let mut chosen: Vec<String> = names
            .into_iter()
            .filter(|n| kind.part(n).is_some_and(|p| split == Split::All || p == split))
            .collect();
        chosen.sort_by_key(|n| order(n));
        Ok(chosen)
    }
}

fn order(name: &str) -> (u32, String) {
    (number(name).unwrap_or(if name == "train.bin" { 0 } else { u32::MAX }), name.to_string())
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Label and digest of a record.
type Row = (u32, ContentDigest);

/// Records of each batch, by its name.
type Batches = BTreeMap<String, Vec<Row>>;

/// Takes a file's name, its size and its bytes; may stop the walk.
type TakeFile<'a> = &'a mut dyn FnMut(&str, u64, &mut dyn Read) -> Result<ControlFlow<()>>;

/// Reader of one set of batches.
#[derive(Debug)]
pub(crate) struct CifarReader {
    kind: CifarKind,
    home: Home,
    split: Split,
    origin: Option<Origin>,
    /// Name and number of rows, in order.
    batches: Vec<(String, usize)>,
}

impl CifarReader {
    pub(crate) fn new(kind: CifarKind, home: Home, split: Split, origin: Option<Origin>) -> Self {
        Self {
            kind,
            home,
            split,
            origin,
            batches: Vec::new(),
        }
    }

    /// Call `take` with the file's name, its size and stream: each batch of the part, and of a tar its file of class names. In the archive's order for tars.
    fn files(&self, take: TakeFile) -> Result<()> {
        let kind = self.kind;
        let wanted = |name: &str| kind.part(name).is_some_and(|p| self.split == Split::All || p == self.split);
        match &self.home {
            Home::Tar(tar) => archive::members(tar, &mut |mut member| {
                let name = base(&member.name).to_string();
                if member.regular && (wanted(&name) || name == kind.names_file()) {
                    let size = member.size;
                    return take(&name, size, member.stream());
                }
                Ok(ControlFlow::Continue(()))
            }),
            Home::Folder(_) | Home::File(_) => {
                for name in self.home.batches(kind, self.split)? {
                    let file = fs_err::File::open(self.file(&name))?;
                    let size = file.metadata()?.len();
                    if take(&name, size, &mut BufReader::with_capacity(1 << 20, file))?.is_break() {
                        break;
                    }
                }
                Ok(())
            }
        }
    }

    /// Path of a loose batch, or of the tar that holds it.
    fn file(&self, name: &str) -> PathBuf {
        match &self.home {
            Home::Folder(folder) => folder.join(name),
            Home::Tar(path) | Home::File(path) => path.clone(),
        }
    }

    /// Labels and digests of all rows of a batch.
    fn rows(&self, name: &str, size: u64, stream: &mut dyn Read) -> Result<Vec<Row>> {
        let record = self.kind.record();
        let place = || format!("{} in {}", name, self.home.path().display());
        if size == 0 || !size.is_multiple_of(record as u64) {
            let help = "copy or download it again; the official files have 10,000 records (CIFAR-100: 50,000 and 10,000)";
            let message = format!(
                "{} has {size} bytes: that is no whole number of {} records ({record} bytes each)",
                place(),
                self.kind
            );
            return Err(Error::new(Code::DataUnusable, message, help));
        }
        let mut row = vec![0u8; record];
        let mut rows = Vec::with_capacity(usize::try_from(size / record as u64).unwrap_or(0).min(1 << 20));
        for n in 0..size / record as u64 {
            stream.read_exact(&mut row).context(|| format!("{}, row {n}", place()))?;
            let label = u32::from(row[self.kind.label_bytes() - 1]);
            if label as usize >= self.kind.classes() {
                let help = "check data.*.format: is this the other CIFAR, or another file altogether?";
                return Err(Error::new(
                    Code::DataUnusable,
                    format!(
                        "{}, row {n} has the label {label}; {} has 0 to {}",
                        place(),
                        self.kind,
                        self.kind.classes() - 1
                    ),
                    help,
                ));
            }
            rows.push((label, *blake3::hash(&row).as_bytes()));
        }
        Ok(rows)
    }

    /// Class names and rows per batch, from the index where the files are as they were.
    fn survey(&self, index: &mut StatIndex, report: &mut dyn Report) -> Result<(Option<String>, Batches)> {
        match &self.home {
            Home::Tar(tar) => self.survey_tar(tar, index, report),
            Home::Folder(folder) => self.survey_files(Some(folder), index, report),
            Home::File(file) => self.survey_files(file.parent(), index, report),
        }
    }

    fn survey_tar(&self, tar: &Path, index: &mut StatIndex, report: &mut dyn Report) -> Result<(Option<String>, Batches)> {
        let stamp = Stamp::of(&fs_err::metadata(tar)?);
        let key = format!("{}|{:?}", tar.display(), self.split);
        let parts = match index.lookup(&key, &stamp) {
            Some(known) => known.to_vec(),
            None => {
                let mut parts: Vec<NamedDigest> = Vec::new();
                self.files(&mut |name, size, stream| {
                    report.progress("read", parts.len() as u64, 0, name);
                    if name == self.kind.names_file() {
                        let mut text = String::new();
                        stream.take(1 << 16).read_to_string(&mut text).context(|| name.to_string())?;
                        parts.push((format!("@{text}"), [0; 32]));
                    } else {
                        parts.extend(self.rows(name, size, stream)?.into_iter().map(|(l, d)| (format!("{name}\t{l}"), d)));
                    }
                    Ok(ControlFlow::Continue(()))
                })?;
                parts
            }
        };
        let (mut names, mut found) = (None, BTreeMap::new());
        for (text, digest) in &parts {
            match (text.strip_prefix('@'), text.split_once('\t')) {
                (Some(list), _) => names = Some(list.to_string()),
                (None, Some((batch, label))) => {
                    let label = label
                        .parse()
                        .map_err(|_| Error::internal(format!("label {label} in the index of {}", tar.display())))?;
                    found.entry(batch.to_string()).or_insert_with(Vec::new).push((label, *digest));
                }
                (None, None) => return Err(Error::internal(format!("the index of {} has the entry {text}", tar.display()))),
            }
        }
        index.keep(key, stamp, parts);
        Ok((names, found))
    }

    fn survey_files(&self, folder: Option<&Path>, index: &mut StatIndex, report: &mut dyn Report) -> Result<(Option<String>, Batches)> {
        let (mut names, mut found) = (None, BTreeMap::new());
        if let Some(list) = folder.map(|folder| folder.join(self.kind.names_file()))
            && files::look(&list)?.is_some_and(|found| found.is_file())
        {
            names = Some(fs_err::read_to_string(list)?);
        }
        for name in self.home.batches(self.kind, self.split)? {
            report.progress("read", found.len() as u64, 0, &name);
            let path = self.file(&name);
            let stamp = Stamp::of(&fs_err::metadata(&path)?);
            let key = path.display().to_string();
            let known = index
                .lookup(&key, &stamp)
                .map(|parts| parts.iter().map(|(l, d)| Some((l.parse().ok()?, *d))).collect::<Option<Vec<_>>>());
            let rows = match known {
                Some(Some(rows)) => rows,
                _ => {
                    let file = fs_err::File::open(&path)?;
                    let size = file.metadata()?.len();
                    self.rows(&name, size, &mut BufReader::with_capacity(1 << 20, file))?
                }
            };
            index.keep(key, stamp, rows.iter().map(|(l, d)| (l.to_string(), *d)).collect());
            found.insert(name, rows);
        }
        Ok((names, found))
    }

    /// The class names: from the file of names, else the training set's, else numbers.
    fn classes(&self, text: Option<&str>, known: Option<KnownClasses>) -> Result<Vec<String>> {
        let count = self.kind.classes();
        let place = self.home.path().display();
        let Some(text) = text else {
            return match known {
                Some(known) if known.names().len() == count => Ok(known.names().to_vec()),
                Some(known) => Err(Error::new(
                    Code::DataUnusable,
                    format!(
                        "{place} is {} without {}, and {} has {} classes",
                        self.kind,
                        self.kind.names_file(),
                        whose(known),
                        known.names().len()
                    ),
                    "use validation pictures of the same classes as the training set",
                )),
                None => Ok((0..count).map(|c| c.to_string()).collect()),
            };
        };
        let names: Vec<String> = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from).collect();
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        if names.len() != count || distinct.len() != count {
            let message = format!(
                "{} of {place} has {} names ({} of them distinct), not {count}",
                self.kind.names_file(),
                names.len(),
                distinct.len()
            );
            return Err(Error::new(
                Code::DataUnusable,
                message,
                "restore the file, or delete it: then the classes are named by their numbers",
            ));
        }
        Ok(names)
    }
}

/// Labels of this file → labels of the training set; only classes that occur must be known.
fn places(own: &[String], classes: &[String], found: &Batches, place: &Path) -> Result<BTreeMap<u32, u32>> {
    let mut map = BTreeMap::new();
    let used: std::collections::BTreeSet<u32> = found.values().flatten().map(|(l, _)| *l).collect();
    for label in used {
        let name = &own[label as usize];
        let to = classes.iter().position(|c| c == name).ok_or_else(|| {
            let known = super::manifest::some(classes);
            let message = format!(
                "{} has the class {name}, which the training set does not have (it has {known})",
                place.display()
            );
            Error::new(
                Code::DataUnusable,
                message,
                "use validation pictures of the same classes as the training set",
            )
        })?;
        map.insert(label, to as u32);
    }
    Ok(map)
}

impl SetReader for CifarReader {
    fn scan(&mut self, known: Option<KnownClasses>, index: &mut StatIndex, report: &mut dyn Report) -> Result<Manifest> {
        let (names, found) = self.survey(index, report)?;
        let place = self.home.path().to_path_buf();
        if found.is_empty() {
            let part = match self.split {
                Split::All => "",
                Split::Train => "training ",
                Split::Test => "test ",
            };
            let message = format!("{} holds no {part}batches of {}", place.display(), self.kind);
            return Err(Error::new(
                Code::DataUnusable,
                message,
                format!("expected {} there; check split", self.kind.expected()),
            ));
        }
        let own = self.classes(names.as_deref(), known)?;
        let classes = match known {
            None => own.clone(),
            Some(KnownClasses::Training(names)) => names.to_vec(),
            Some(KnownClasses::Listed(_)) => class_order(&own.iter().cloned().collect(), known, &place)?,
        };
        let map = places(&own, &classes, &found, &place)?;
        let mut batches: Vec<(String, Vec<Row>)> = found.into_iter().collect();
        batches.sort_by_key(|(name, _)| order(name));
        self.batches = batches.iter().map(|(name, rows)| (name.clone(), rows.len())).collect();
        let rows = batches
            .iter()
            .flat_map(|(name, rows)| rows.iter().enumerate().map(move |(n, row)| (name, n, row)));
        let (mut sources, by_batch) = (SourceNames::default(), self.origin == Some(Origin::Shard));
        let examples = rows
            .map(|(name, n, (label, digest))| Example {
                id: TrainId(format!("{name}#{n}")),
                label: map[label],
                digest: *digest,
                source: sources.named(if by_batch { name } else { "" }),
            })
            .collect();
        Manifest {
            examples,
            classes,
            ..Manifest::default()
        }
        .checked(&place)
    }

    fn read(&self, sink: Sink) -> Result<()> {
        let mut start = 0;
        // A tar is passed once per batch, since its order is not ours: that costs seconds, once, and no memory.
        for (wanted, rows) in &self.batches {
            let mut flow = ControlFlow::Continue(());
            self.files(&mut |name, _, stream| {
                if name != wanted {
                    return Ok(ControlFlow::Continue(()));
                }
                for first in (0..*rows).step_by(BLOCK) {
                    let block = (first..(first + BLOCK).min(*rows)).map(|n| {
                        let mut record = vec![0u8; self.kind.record()];
                        stream.read_exact(&mut record).context(|| format!("{name}, row {n}"))?;
                        Ok(Raw {
                            position: start + n,
                            content: RawContent::Record(record),
                        })
                    });
                    flow = sink(block.collect::<Result<_>>()?)?;
                    if flow.is_break() {
                        break;
                    }
                }
                Ok(ControlFlow::Break(()))
            })?;
            if flow.is_break() {
                break;
            }
            start += rows;
        }
        Ok(())
    }
}
