//! An open data set.

mod lacking;

use super::cache::{self, Key, Pixels, Skipped, Unusable, Writer};
use super::cifar::{self, CifarReader};
use super::folder::FolderReader;
use super::layout::{Layout, look};
use super::listed::ListReader;
use super::manifest::{ContentDigest, KnownClasses, Manifest, PassedOver, Unreadable};
use super::origin;
use super::parquet_set::ParquetReader;
use super::picture::{DATA_LIMITS, PictureRefusal, decode, from_planar, header, sized};
use super::reader::{BLOCK, Raw, RawContent, SetReader};
use super::stat::StatIndex;
use super::tars::TarReader;
use super::webdataset::ShardReader;
use crate::error::{Error, Result, ResultExt};
use crate::progress::Report;
use delta_guard_contract::{Code, DataSource, Digest, ImageConfig, Orientation, Resize, TrainId};
use lacking::{none_left, too_many, too_many_so_far};
use rayon::prelude::*;
use std::collections::HashMap;
use std::io::Read;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Part of the cache's name; raised when decoding or resizing changes its results.
const DECODER: &[u8] = b"delta-guard decoder 2\0";
/// Once this many pictures are unreadable and the allowed share is passed whatever follows, the rest is not tried.
const ENOUGH: usize = 1000;

/// A data set: ids, labels and pixels by position. Positions are those of the readable pictures in the source's order; they hold for this opening only.
#[derive(Debug)]
pub struct DataSet {
    ids: Vec<TrainId>,
    labels: Vec<u32>,
    /// Empty where no example has one.
    sources: Vec<Option<Arc<str>>>,
    classes: Vec<String>,
    positions: HashMap<TrainId, usize>,
    skipped: Vec<Unreadable>,
    passed_over: PassedOver,
    digest: Digest,
    pixels: Pixels,
    channels: usize,
    height: u32,
    width: u32,
}

fn reader(layout: Layout, source: &DataSource) -> Result<Box<dyn SetReader>> {
    let origin = source.source;
    origin::check(&layout, origin, &source.path)?;
    Ok(match layout {
        Layout::Folder(root) => Box::new(FolderReader::new(root, origin)),
        Layout::Tars { files, split } => Box::new(TarReader::new(files, split, origin)),
        Layout::Cifar { kind, home, split } => Box::new(CifarReader::new(kind, home, split, origin)),
        Layout::Shards(files) => Box::new(ShardReader::new(source.path.clone(), files, origin)),
        Layout::Parquet(files) => Box::new(ParquetReader::new(source.path.clone(), files, origin)),
        Layout::List { file, split } => Box::new(ListReader::new(file, split, origin)),
    })
}

impl DataSet {
    /// List the source, decode it into the pixel cache in `cache_dir` (made if missing) unless that is there already, and open it.
    ///
    /// `max_unreadable`: share of unreadable pictures (0 to 1) up to which they are skipped. `classes`: the training set's class names, whose order is then used; a class
    /// of the source that is not among them is an error, one that is missing in the source is fine.
    ///
    /// Errors: `Configuration` where the data are at fault (missing, empty, damaged, too many unreadable, unknown classes), `Resource` for disk and memory.
    pub fn open(
        source: &DataSource,
        image: &ImageConfig,
        max_unreadable: f64,
        cache_dir: &Path,
        classes: Option<&[String]>,
        report: &mut dyn Report,
    ) -> Result<Self> {
        Self::open_known(source, image, max_unreadable, cache_dir, classes.map(KnownClasses::Training), report)
    }

    /// The same with class names that are the training set's or the configuration's.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_known(
        source: &DataSource,
        image: &ImageConfig,
        max_unreadable: f64,
        cache_dir: &Path,
        known: Option<KnownClasses>,
        report: &mut dyn Report,
    ) -> Result<Self> {
        check_image(image)?;
        let layout = look(source)?;
        if matches!(layout, Layout::Cifar { .. })
            && image.steps.is_none()
            && image.resize == Resize::Refuse
            && (image.width, image.height) != (cifar::SIDE, cifar::SIDE)
        {
            let message = format!(
                "{} holds CIFAR pictures (32 × 32), the model reads {} × {}",
                source.path.display(),
                image.width,
                image.height
            );
            return Err(Error::new(
                Code::DataUnusable,
                message,
                "set data.image.height and width to 32, or data.image.resize to stretch",
            ));
        }
        fs_err::create_dir_all(cache_dir)?;
        let mut reader = reader(layout, source)?;
        let mut index = StatIndex::open(cache_dir, &source.path);
        let manifest = reader.scan(known, &mut index, report).context(|| "listing the data".into())?;
        if let Err(error) = index.save() {
            report.log(&format!(
                "the index of file digests could not be saved, the next opening reads all files again: {error}"
            ));
        }
        let digest = manifest.digest();
        let key = Key {
            digest: cache_key(&digest, image),
            channels: image.channels(),
            height: image.height,
            width: image.width,
        };
        let pixels = match cache::open(cache_dir, &key) {
            Ok(pixels) => pixels,
            Err(Unusable::Now(error)) => return Err(error),
            Err(Unusable::Because(reason)) => {
                if key.path(cache_dir).exists() {
                    report.log(&format!("the pixel cache {} is built again: {reason}", key.path(cache_dir).display()));
                }
                let fill = |writer: &mut Writer| fill(reader.as_ref(), &manifest, image, max_unreadable, writer, report);
                cache::build(cache_dir, &key, manifest.examples.len(), fill)
                    .inspect_err(|_| index.remove())
                    .context(|| "decoding the data".into())?
            }
        };
        Self::assemble(manifest, digest, pixels, image, max_unreadable, source)
    }

    fn assemble(manifest: Manifest, digest: Digest, pixels: Pixels, image: &ImageConfig, max_unreadable: f64, source: &DataSource) -> Result<Self> {
        let total = manifest.examples.len() + manifest.unreadable.len();
        let mut skipped = manifest.unreadable;
        let mut left_out = pixels.skipped.iter().peekable();
        let mut had = vec![false; manifest.classes.len()];
        let mut has = had.clone();
        let (mut ids, mut labels) = (Vec::with_capacity(pixels.count), Vec::with_capacity(pixels.count));
        let with_sources = manifest.examples.iter().any(|example| example.source.is_some());
        let mut sources = Vec::new();
        for (position, example) in manifest.examples.into_iter().enumerate() {
            had[example.label as usize] = true;
            if let Some(why) = left_out.next_if(|s| s.position == position) {
                skipped.push(Unreadable {
                    id: example.id,
                    reason: why.reason.clone(),
                });
            } else {
                has[example.label as usize] = true;
                ids.push(example.id);
                labels.push(example.label);
                if with_sources {
                    sources.push(example.source);
                }
            }
        }
        if ids.len() != pixels.count {
            let message = format!("{} pictures in the cache for {} examples", pixels.count, ids.len());
            return Err(Error::internal(message));
        }
        if skipped.len() as f64 > max_unreadable * total as f64 {
            let count = skipped.len().to_string();
            return Err(too_many(&skipped, &pixels.skipped, &count, total, max_unreadable, source));
        }
        let lost: Vec<&str> = manifest
            .classes
            .iter()
            .zip(had.iter().zip(&has))
            .filter(|(_, (had, has))| **had && !**has)
            .map(|(c, _)| c.as_str())
            .collect();
        if !lost.is_empty() {
            return Err(none_left(&lost, &skipped, &pixels.skipped, source));
        }
        let positions = ids.iter().cloned().enumerate().map(|(i, id)| (id, i)).collect();
        Ok(Self {
            ids,
            labels,
            sources,
            classes: manifest.classes,
            positions,
            skipped,
            passed_over: manifest.passed_over,
            digest,
            pixels,
            channels: image.channels(),
            height: image.height,
            width: image.width,
        })
    }

    /// Number of readable examples.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Never so: an empty set is not opened. Here because `len` is.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Ids by position.
    pub fn ids(&self) -> &[TrainId] {
        &self.ids
    }

    /// Labels by position, indices into [`Self::classes`].
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Where the example at position `i` comes from, if its set says so.
    pub fn source(&self, i: usize) -> Option<&str> {
        self.sources.get(i)?.as_deref()
    }

    /// Does the set say of any example where it comes from?
    pub fn has_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Class names in label order.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// 1 (grey) or 3 (R, G, B).
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Height and width of the pictures.
    pub fn size(&self) -> (u32, u32) {
        (self.height, self.width)
    }

    /// Position of an id, if it is a readable example.
    pub fn position(&self, id: &TrainId) -> Option<usize> {
        self.positions.get(id).copied()
    }

    /// Positions of all examples with a label, ascending.
    pub fn by_label(&self, label: u32) -> Vec<usize> {
        self.labels.iter().enumerate().filter(|(_, l)| **l == label).map(|(i, _)| i).collect()
    }

    /// Digest of the list of examples with their contents, unreadable ones included: the same data give the same digest wherever they lie.
    pub fn manifest_digest(&self) -> &Digest {
        &self.digest
    }

    /// Examples left out, with reasons.
    pub fn skipped(&self) -> &[Unreadable] {
        &self.skipped
    }

    /// Files in class folders that are no examples by their names.
    pub fn passed_over(&self) -> &PassedOver {
        &self.passed_over
    }

    /// Planar bytes [channels, height, width] of the example at position `i`, straight from the map.
    ///
    /// # Panics
    /// Like a slice, when `i` is not below [`Self::len`].
    pub fn pixels(&self, i: usize) -> &[u8] {
        assert!(i < self.len(), "position {i} of {}", self.len());
        self.pixels.slice(i, 1)
    }

    /// A copy of the pictures at `positions`, in that order, as uint8 [B, C, H, W] on the CPU. Errors: a position out of range (`Internal`).
    pub fn batch(&self, positions: &[usize]) -> Result<Tensor> {
        let mut bytes = Vec::with_capacity(positions.len() * self.channels * self.height as usize * self.width as usize);
        for &i in positions {
            self.in_range(i)?;
            bytes.extend_from_slice(self.pixels.slice(i, 1));
        }
        self.tensor(&bytes, positions.len())
    }

    /// A copy of a contiguous range of pictures: [`Self::batch`] without gathering.
    pub fn rows(&self, range: Range<usize>) -> Result<Tensor> {
        if range.start > range.end || range.end > self.len() {
            return Err(Error::internal(format!("rows {range:?} of {}", self.len())));
        }
        self.tensor(self.pixels.slice(range.start, range.len()), range.len())
    }

    /// The labels at `positions` as int64 of shape B. Errors: a position out of range (`Internal`).
    pub fn labels_tensor(&self, positions: &[usize]) -> Result<Tensor> {
        let labels = positions
            .iter()
            .map(|&i| self.in_range(i).map(|()| i64::from(self.labels[i])))
            .collect::<Result<Vec<i64>>>()?;
        Ok(Tensor::f_from_slice(&labels)?)
    }

    fn in_range(&self, i: usize) -> Result<()> {
        if i < self.len() {
            Ok(())
        } else {
            Err(Error::internal(format!("position {i} in a data set of {}", self.len())))
        }
    }

    fn tensor(&self, bytes: &[u8], count: usize) -> Result<Tensor> {
        let shape = [count as i64, self.channels as i64, i64::from(self.height), i64::from(self.width)];
        Ok(Tensor::f_from_data_size(bytes, &shape, Kind::Uint8)?)
    }
}

/// Width and height (as stored) of the first readable pictures of a source, at most `most`. Errors: as for opening it.
pub fn peek_sizes(source: &DataSource, most: usize, cache_dir: &Path, report: &mut dyn Report) -> Result<Vec<(u32, u32)>> {
    let layout = look(source)?;
    if matches!(layout, Layout::Cifar { .. }) {
        return Ok(vec![(cifar::SIDE, cifar::SIDE)]);
    }
    fs_err::create_dir_all(cache_dir)?;
    let mut reader = reader(layout, source)?;
    let mut index = StatIndex::open(cache_dir, &source.path);
    reader.scan(None, &mut index, report)?;
    let mut sizes = Vec::new();
    reader.read(&mut |block| {
        for raw in block {
            let bytes = match raw.content {
                RawContent::File(path) => file_bytes(&path)?,
                RawContent::Encoded(bytes) | RawContent::Record(bytes) => bytes,
            };
            if let Ok(header) = header(&bytes, &DATA_LIMITS) {
                sizes.push((header.width, header.height));
            }
            if sizes.len() >= most {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(sizes)
}

fn check_image(image: &ImageConfig) -> Result<()> {
    if (1..=4096).contains(&image.height) && (1..=4096).contains(&image.width) {
        return Ok(());
    }
    Err(Error::configuration(
        format!("pictures of {} × {} (height × width) are not possible", image.height, image.width),
        "set data.image.height and data.image.width to the size that the model reads, at most 4,096",
    ))
}

fn cache_key(manifest: &Digest, image: &ImageConfig) -> ContentDigest {
    let mut hash = blake3::Hasher::new();
    hash.update(DECODER);
    hash.update(manifest.0.as_bytes());
    hash.update(&image.height.to_le_bytes());
    hash.update(&image.width.to_le_bytes());
    hash.update(&[match image.resize {
        Resize::Refuse => 0,
        Resize::Stretch => 1,
        Resize::CenterCrop => 2,
    }]);
    hash.update(&[match image.orientation {
        Orientation::Ignore => 0,
        Orientation::Apply => 1,
    }]);
    // A cache of three channels without a list keeps the name that it always had.
    if image.steps.is_some() || image.channels() != 3 {
        hash.update(&[image.channels() as u8]);
        hash.update(format!("{:?}", image.steps).as_bytes());
    }
    *hash.finalize().as_bytes()
}

/// Decode everything into the cache, block by block.
fn fill(
    reader: &dyn SetReader,
    manifest: &Manifest,
    image: &ImageConfig,
    max_unreadable: f64,
    writer: &mut Writer,
    report: &mut dyn Report,
) -> Result<Vec<Skipped>> {
    let total = manifest.examples.len();
    let mut skipped: Vec<Skipped> = Vec::new();
    let mut next = 0;
    reader.read(&mut |block| {
        // At large sizes a whole block decoded at once would weigh too much.
        let picture = image.bytes();
        for part in block.chunks((64_usize << 20).div_ceil(picture).clamp(1, BLOCK)) {
            let decoded: Vec<_> = part.par_iter().map(|raw| pixels(raw, manifest, image)).collect();
            for (raw, decoded) in part.iter().zip(decoded) {
                if raw.position != next {
                    return Err(changed(&format!("example {next}")));
                }
                next += 1;
                match decoded? {
                    Ok(pixels) => writer.push(&pixels)?,
                    Err(refusal) => skipped.push(Skipped {
                        position: raw.position,
                        reason: refusal.to_string(),
                        size: match refusal {
                            PictureRefusal::WrongSize { found, .. } => Some(found),
                            _ => None,
                        },
                    }),
                }
            }
        }
        if skipped.len() >= ENOUGH && skipped.len() as f64 > max_unreadable * (total + manifest.unreadable.len()) as f64 {
            return Err(too_many_so_far(&skipped, manifest, max_unreadable));
        }
        report.progress("decode", next as u64, total as u64, "");
        Ok(ControlFlow::Continue(()))
    })?;
    if next != total {
        return Err(changed(&format!("after {next} of {total} examples")));
    }
    Ok(skipped)
}

/// One example's pixels; the inner error is the picture's, the outer one the machine's.
fn pixels(raw: &Raw, manifest: &Manifest, image: &ImageConfig) -> Result<std::result::Result<Vec<u8>, PictureRefusal>> {
    let example = &manifest.examples[raw.position];
    let unchanged = |bytes: &[u8]| {
        if *blake3::hash(bytes).as_bytes() == example.digest {
            Ok(())
        } else {
            Err(changed(&example.id.0))
        }
    };
    match &raw.content {
        RawContent::File(path) => {
            let bytes = file_bytes(path)?;
            if bytes.len() as u64 > DATA_LIMITS.max_bytes {
                return Ok(Err(PictureRefusal::TooManyBytes {
                    bytes: fs_err::metadata(path)?.len(),
                    max: DATA_LIMITS.max_bytes,
                }));
            }
            unchanged(&bytes)?;
            Ok(decode(&bytes, &DATA_LIMITS, image))
        }
        RawContent::Encoded(bytes) => {
            unchanged(bytes)?;
            Ok(decode(bytes, &DATA_LIMITS, image))
        }
        RawContent::Record(record) => {
            unchanged(record)?;
            let planar = record.get(record.len().saturating_sub(cifar::PIXELS)..).unwrap_or_default();
            if image.steps.is_none() && image.channels() == 3 && (image.height, image.width) == (cifar::SIDE, cifar::SIDE) {
                return Ok(Ok(planar.to_vec()));
            }
            let picture = from_planar(planar, cifar::SIDE, cifar::SIDE).ok_or_else(|| Error::internal("a CIFAR record of the wrong length"))?;
            Ok(sized(picture, image, &DATA_LIMITS))
        }
    }
}

fn file_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(DATA_LIMITS.max_bytes + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn changed(what: &str) -> Error {
    Error::new(
        Code::ChangedWhileRead,
        format!("the data changed while they were read ({what})"),
        "run again when nobody writes to them",
    )
}
