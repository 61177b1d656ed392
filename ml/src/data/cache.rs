//! The pixel cache: one file per (manifest, size, resize) with the decoded pictures as bytes [N, C, H, W], read through a memory map.
//!
//! Layout: a header of 4,096 bytes (so that the pixels start on a page), the pixels, then a JSON list of the examples that could not be decoded. The header holds
//! magic, key, shape, BLAKE3 of pixels and of the list, and its own. A file that does not fit in every one of them (cut short, foreign, from
//! another version, damaged) is built again. It is written under another name, fsynced and renamed: a file of the right name is complete.

use super::manifest::ContentDigest;
use crate::error::{Error, Result, ResultExt};
use crate::files::{Map, give_name};
use delta_guard_contract::{Code, FaultKind, is_passing};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::TempPath;

const MAGIC: &[u8; 16] = b"delta-guard pix1";
const HEADER: usize = 4096;
/// Pixels up to this size are held against their digest at each opening (a second per gibibyte); larger files are trusted by length and header.
const VERIFY: u64 = 1 << 30;

/// What a cache file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// Digest of everything that the pixels depend on.
    pub(crate) digest: ContentDigest,
    /// 1 or 3.
    pub(crate) channels: usize,
    /// Pixels.
    pub(crate) height: u32,
    /// Pixels.
    pub(crate) width: u32,
}

impl Key {
    fn picture(&self) -> u64 {
        self.channels as u64 * u64::from(self.height) * u64::from(self.width)
    }

    pub(crate) fn path(&self, cache_dir: &Path) -> PathBuf {
        cache_dir.join(format!("pixels-{}.u8", &hex::encode(self.digest)[..24]))
    }
}

/// An example left out: its position in the manifest and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    pub(crate) position: usize,
    pub(crate) reason: String,
    /// Its width and height, where those are the reason.
    #[serde(default)]
    pub(crate) size: Option<(u32, u32)>,
}

/// An open cache.
#[derive(Debug)]
pub(crate) struct Pixels {
    map: Option<Map>,
    picture: usize,
    /// Pictures in it.
    pub(crate) count: usize,
    /// Examples left out.
    pub(crate) skipped: Vec<Skipped>,
}

impl Pixels {
    /// Bytes of the pictures `first..first + count`.
    pub(crate) fn slice(&self, first: usize, count: usize) -> &[u8] {
        let bytes = self.map.as_ref().map_or(&[][..], Map::bytes);
        &bytes[HEADER + first * self.picture..HEADER + (first + count) * self.picture]
    }
}

/// Header, in order; integers little-endian.
fn header(key: &Key, count: u64, list: u64, pixels: &ContentDigest, list_digest: &ContentDigest) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(key.digest);
    for n in [count, key.channels as u64, u64::from(key.height), u64::from(key.width), list] {
        out.extend(n.to_le_bytes());
    }
    out.extend(pixels);
    out.extend(list_digest);
    let own = *blake3::hash(&out).as_bytes();
    out.extend(own);
    out.resize(HEADER, 0);
    out
}

/// Why a cache file cannot be used.
pub(crate) enum Unusable {
    /// It is not there, or not what it should be: it is built again.
    Because(String),
    /// It could not be read just now: building it again would cost hours for nothing.
    Now(Error),
}

impl From<std::io::Error> for Unusable {
    fn from(error: std::io::Error) -> Self {
        match is_passing(&error) {
            true => Self::Now(error.into()),
            false => Self::Because(error.to_string()),
        }
    }
}

impl From<&str> for Unusable {
    fn from(reason: &str) -> Self {
        Self::Because(reason.into())
    }
}

/// Open a cache file.
pub(crate) fn open(cache_dir: &Path, key: &Key) -> std::result::Result<Pixels, Unusable> {
    let path = key.path(cache_dir);
    let mut file = fs_err::File::open(&path)?;
    let length = file.metadata()?.len();
    let mut head = vec![0u8; HEADER];
    file.read_exact(&mut head).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "it is cut short within its header".into(),
        _ => Unusable::from(error),
    })?;
    if !head.starts_with(MAGIC) {
        return Err("it is from another version or no pixel cache".into());
    }
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
    let digest = |at: usize| -> ContentDigest { std::array::from_fn(|i| head[at + i]) };
    let (count, list) = (number(48), number(80));
    if head != header(key, count, list, &digest(88), &digest(120)) {
        return Err("its header is damaged or of another data set".into());
    }
    let size = count.checked_mul(key.picture()).ok_or("its header is damaged")?;
    if (HEADER as u64).checked_add(size).and_then(|s| s.checked_add(list)) != Some(length) {
        return Err(Unusable::Because(format!(
            "it has {length} bytes, not the {} that its header says",
            HEADER as u64 + size + list
        )));
    }
    if size <= VERIFY {
        let mut hash = blake3::Hasher::new();
        hash.update_reader((&mut file).take(size))?;
        if *hash.finalize().as_bytes() != digest(88) {
            return Err("its pixels are damaged".into());
        }
    } else {
        file.seek(SeekFrom::Start(HEADER as u64 + size))?;
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    if *blake3::hash(&bytes).as_bytes() != digest(120) {
        return Err("its list of skipped pictures is damaged".into());
    }
    let skipped = serde_json::from_slice(&bytes).map_err(|error| Unusable::Because(error.to_string()))?;
    let map = Map::new(&file, &path).map_err(|error| match error.fault().kind {
        FaultKind::Resource => Unusable::Now(error),
        _ => Unusable::Because(error.to_string()),
    })?;
    Ok(Pixels {
        map: Some(map),
        picture: key.picture() as usize,
        count: count as usize,
        skipped,
    })
}

/// Takes pictures one after another.
pub(crate) struct Writer {
    out: BufWriter<fs_err::File>,
    hash: blake3::Hasher,
    picture: u64,
    count: u64,
}

impl Writer {
    /// Append one picture, planar bytes [C, H, W].
    pub(crate) fn push(&mut self, pixels: &[u8]) -> Result<()> {
        if pixels.len() as u64 != self.picture {
            return Err(Error::internal(format!(
                "a picture of {} bytes for a cache of {} each",
                pixels.len(),
                self.picture
            )));
        }
        self.out.write_all(pixels)?;
        self.hash.update(pixels);
        self.count += 1;
        Ok(())
    }
}

/// Build a cache file with at most `most` pictures. `fill` pushes them and returns what it left out. One process builds at a time; another that waited finds the file
/// made. On any error the unfinished file is removed.
pub(crate) fn build(cache_dir: &Path, key: &Key, most: usize, fill: impl FnOnce(&mut Writer) -> Result<Vec<Skipped>>) -> Result<Pixels> {
    let path = key.path(cache_dir);
    let (unfinished, lock) = (path.with_extension("building"), path.with_extension("lock"));
    let lock = fs_err::File::create(lock)?;
    match lock.file().lock() {
        Err(e) if e.kind() != std::io::ErrorKind::Unsupported => return Err(e).context(|| format!("locking {}", lock.path().display())),
        // Where the file system has no locks, two builders cost time but no harm: each rename is of a whole file or fails.
        _ => {}
    }
    match open(cache_dir, key) {
        Ok(made) => return Ok(made),
        Err(Unusable::Now(error)) => return Err(error),
        Err(Unusable::Because(_)) => {}
    }
    // Under the lock there is one builder: a fixed name, so that what a killed one left is written over.
    let temporary = TempPath::try_from_path(unfinished)?;
    if let Err(error) = write(&temporary, key, most, fill).and_then(|file| give_name(&file, temporary, &path)) {
        return Err(match error.is_want_of_space() {
            true => Error::new(
                Code::DiskFull,
                format!("writing the pixel cache in {}: {}", cache_dir.display(), error.fault().message),
                format!(
                    "it needs {} MiB there: free some space, or point worker.cache_dir elsewhere",
                    (most as u64 * key.picture()).div_ceil(1 << 20)
                ),
            ),
            false => error,
        });
    }
    open(cache_dir, key).map_err(|why| match why {
        Unusable::Now(error) => error,
        Unusable::Because(why) => Error::resource(
            format!("the pixel cache {} was just written, but {why}", path.display()),
            "check the disk",
        ),
    })
}

fn write(path: &Path, key: &Key, most: usize, fill: impl FnOnce(&mut Writer) -> Result<Vec<Skipped>>) -> Result<File> {
    let file = fs_err::File::create(path)?;
    // A full disk is better known now than after an hour. File systems without this call say so later.
    let room = HEADER as u64 + most as u64 * key.picture();
    if let Err(e) = rustix::fs::fallocate(file.file(), rustix::fs::FallocateFlags::empty(), 0, room)
        && matches!(e, rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT | rustix::io::Errno::FBIG)
    {
        return Err(std::io::Error::from(e).into());
    }
    let mut writer = Writer {
        out: BufWriter::with_capacity(1 << 20, file),
        hash: blake3::Hasher::new(),
        picture: key.picture(),
        count: 0,
    };
    writer.out.write_all(&[0; HEADER])?;
    let skipped = fill(&mut writer)?;
    let Writer { mut out, hash, count, .. } = writer;
    let list = serde_json::to_vec(&skipped).map_err(|e| Error::internal(e.to_string()))?;
    out.write_all(&list)?;
    out.flush()?;
    let mut file = out.into_inner().map_err(|e| e.into_error())?;
    file.set_len(HEADER as u64 + count * key.picture() + list.len() as u64)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header(
        key,
        count,
        list.len() as u64,
        hash.finalize().as_bytes(),
        blake3::hash(&list).as_bytes(),
    ))?;
    Ok(file.into_parts().0)
}
