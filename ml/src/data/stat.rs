//! Digests of files that have not changed since they were last read, as git's index has them: re-opening a big folder costs a walk and a stat per file.
//!
//! A file counts as unchanged when size, times of modification and of status change (nanoseconds), device and inode are the same. A file that was changed within
//! two seconds of the scan is not written down: on a coarse clock it could change again without a trace. The index is only ever a short cut: a damaged or
//! missing one is ignored, and contents are held against their digests when they are decoded.

use super::manifest::ContentDigest;
use crate::error::Result;
use crate::files::write_atomic;
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const MAGIC: &[u8; 16] = b"delta-guard idx2";
/// How old a change must be to be trusted, in nanoseconds.
const FRESH: i128 = 2_000_000_000;

/// What `stat` says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    size: u64,
    modified: i128,
    changed: i128,
    device: u64,
    inode: u64,
}

impl Stamp {
    pub(crate) fn of(meta: &Metadata) -> Self {
        let nanoseconds = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Self {
            size: meta.size(),
            modified: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            changed: nanoseconds(meta.ctime(), meta.ctime_nsec()),
            device: meta.dev(),
            inode: meta.ino(),
        }
    }
}

/// A named piece of a file: a member of a tar, a record of a batch; of a plain file the one piece with an empty name.
pub(crate) type NamedDigest = (String, ContentDigest);

/// The index of one data source.
#[derive(Debug)]
pub(crate) struct StatIndex {
    path: PathBuf,
    started: i128,
    old: HashMap<String, (Stamp, Vec<NamedDigest>)>,
    new: Vec<(String, Stamp, Vec<NamedDigest>)>,
    dirty: bool,
}

impl StatIndex {
    /// The index of the source at `root`, read if there is one.
    pub(crate) fn open(cache_dir: &Path, root: &Path) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf());
        let name = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex();
        let path = cache_dir.join(format!("stat-{}.idx", &name[..16]));
        let old = fs_err::read(&path).ok().and_then(|bytes| parse(&bytes)).unwrap_or_default();
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
        Self {
            path,
            started,
            old,
            new: Vec::new(),
            dirty: false,
        }
    }

    /// The pieces of the file `key`, if it is as it was.
    pub(crate) fn lookup(&self, key: &str, stamp: &Stamp) -> Option<&[NamedDigest]> {
        self.old.get(key).filter(|(s, _)| s == stamp).map(|(_, parts)| parts.as_slice())
    }

    /// Write down the pieces of a file, whether they were looked up or read.
    pub(crate) fn keep(&mut self, key: String, stamp: Stamp, parts: Vec<NamedDigest>) {
        if stamp.modified.max(stamp.changed) > self.started - FRESH {
            return;
        }
        self.dirty |= self.lookup(&key, &stamp).is_none();
        self.new.push((key, stamp, parts));
    }

    /// Write the index, if there is news.
    pub(crate) fn save(&self) -> Result<()> {
        if !self.dirty && self.new.len() == self.old.len() {
            return Ok(());
        }
        let mut out = MAGIC.to_vec();
        let text = |out: &mut Vec<u8>, s: &str| {
            out.extend((s.len() as u32).to_le_bytes());
            out.extend(s.as_bytes());
        };
        for (key, stamp, parts) in &self.new {
            text(&mut out, key);
            out.extend(stamp.size.to_le_bytes());
            out.extend(stamp.modified.to_le_bytes());
            out.extend(stamp.changed.to_le_bytes());
            out.extend(stamp.device.to_le_bytes());
            out.extend(stamp.inode.to_le_bytes());
            out.extend((parts.len() as u32).to_le_bytes());
            for (name, digest) in parts {
                text(&mut out, name);
                out.extend(digest);
            }
        }
        let digest = *blake3::hash(&out).as_bytes();
        out.extend(digest);
        write_atomic(&self.path, &out)
    }

    /// Forget everything: the next scan reads all contents.
    pub(crate) fn remove(&self) {
        // Missing is what is wanted; anything else shows when the index is read next.
        let _ = fs_err::remove_file(&self.path);
    }
}

/// `None` for anything that this version did not write whole.
fn parse(bytes: &[u8]) -> Option<HashMap<String, (Stamp, Vec<NamedDigest>)>> {
    let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if blake3::hash(body).as_bytes() != digest {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut map = HashMap::new();
    while !rest.is_empty() {
        let key = text(&mut rest)?;
        let stamp = Stamp {
            size: u64::from_le_bytes(take(&mut rest)?),
            modified: i128::from_le_bytes(take(&mut rest)?),
            changed: i128::from_le_bytes(take(&mut rest)?),
            device: u64::from_le_bytes(take(&mut rest)?),
            inode: u64::from_le_bytes(take(&mut rest)?),
        };
        let count = u32::from_le_bytes(take(&mut rest)?);
        let parts = (0..count)
            .map(|_| Some((text(&mut rest)?, take(&mut rest)?)))
            .collect::<Option<Vec<NamedDigest>>>()?;
        map.insert(key, (stamp, parts));
    }
    Some(map)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let length = u32::from_le_bytes(take(rest)?) as usize;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    String::from_utf8(head.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(modified: i128) -> Stamp {
        Stamp {
            size: 5,
            modified,
            changed: 7,
            device: 1,
            inode: 99,
        }
    }

    #[test]
    fn trusts_only_what_is_unchanged_and_settled() {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new("/data");
        let mut index = StatIndex::open(folder.path(), root);
        let (started, parts) = (index.started, vec![(String::new(), [3; 32])]);
        index.keep("old".into(), stamp(1), parts.clone());
        index.keep("fresh".into(), stamp(started - FRESH / 2), parts.clone());
        index.keep("future".into(), stamp(started + FRESH * 10), parts.clone());
        index.save().unwrap();
        let index = StatIndex::open(folder.path(), root);
        assert_eq!(index.lookup("old", &stamp(1)), Some(parts.as_slice()));
        assert_eq!(index.lookup("old", &stamp(2)), None);
        assert_eq!(index.lookup("fresh", &stamp(started - FRESH / 2)), None);
        assert_eq!(index.lookup("future", &stamp(started + FRESH * 10)), None);
        assert!(StatIndex::open(folder.path(), Path::new("/other")).old.is_empty());
    }

    #[test]
    fn a_damaged_index_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = StatIndex::open(folder.path(), Path::new("/data"));
        index.keep("a/1.png".into(), stamp(1), vec![("x".into(), [1; 32]), ("y".into(), [2; 32])]);
        index.save().unwrap();
        let good = fs_err::read(&index.path).unwrap();
        assert_eq!(parse(&good).unwrap().len(), 1);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(parse(&bad).is_none(), "byte {at}");
            assert!(parse(&good[..at]).is_none(), "cut at {at}");
        }
    }
}
