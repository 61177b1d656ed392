//! Writing: one process, one record at a time, durable before it is acknowledged.

use super::segment::{self, First, SEGMENT_BYTES, Sealed, segment_name};
use super::{Head, JournalError, JournalTail, Reader, Record, frame};
use crate::clock::Clock;
use crate::vfs::{self, Vfs, VfsFile};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How to open a journal.
#[derive(Clone)]
pub struct Options {
    /// File operations.
    pub vfs: Arc<dyn Vfs>,
    /// Its folder; made if missing.
    pub dir: PathBuf,
    /// Clock.
    pub clock: Arc<dyn Clock>,
    /// A segment is closed at this size.
    pub segment_bytes: u64,
    /// A record number that somebody outside the journal has seen (the index): a journal that ends before it was cut by a foreign hand.
    pub witness: u64,
    /// Most bytes of a record's JSON.
    pub max_record: usize,
}

impl Options {
    /// The usual.
    pub fn new(vfs: Arc<dyn Vfs>, dir: &Path, clock: Arc<dyn Clock>) -> Self {
        Self {
            vfs,
            dir: dir.to_path_buf(),
            clock,
            segment_bytes: SEGMENT_BYTES,
            witness: 0,
            max_record: frame::MAX_WRITTEN,
        }
    }
}

/// The journal, open for writing. Holds the lock.
pub struct Journal {
    options: Options,
    segment: u32,
    /// The present segment; None between the sealing of one and the making of the next.
    file: Option<Box<dyn VfsFile>>,
    /// End of the last durable record.
    offset: u64,
    first_seq: u64,
    head: Head,
    /// Time of the last record.
    time: Timestamp,
    epoch: u64,
    poisoned: Option<String>,
    _lock: Box<dyn Send>,
}

/// What was found on opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of a torn record that were cut and kept in `quarantine/`.
    pub cut: Option<usize>,
}

/// A record that is durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Appended {
    /// Its number and hash.
    pub head: Head,
    /// Its time.
    pub time: Timestamp,
    /// Bytes of its frame.
    pub bytes: u64,
    /// Time of the fsync.
    pub sync: Duration,
}

/// A record, encoded.
struct Line {
    seq: u64,
    time: Timestamp,
    json: String,
}

/// Content of a `journal.tail_cut` record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct TailCut {
    segment: u32,
    offset: u64,
    /// File name in `quarantine/`.
    file: String,
}

impl Journal {
    /// Take the lock, verify everything, show each record to `visit`, cut a torn tail, and be ready to write.
    pub fn open(options: Options, visit: &mut dyn FnMut(Record, &Head) -> anyhow::Result<()>) -> Result<(Self, Opened), JournalError> {
        let Options { vfs, dir, .. } = &options;
        vfs.create_dir_all(dir).map_err(JournalError::io("make", dir))?;
        let quarantine = dir.join("quarantine");
        vfs.create_dir_all(&quarantine).map_err(JournalError::io("make", &quarantine))?;
        let lock_path = dir.join("LOCK");
        let lock = vfs
            .lock(&lock_path)
            .map_err(JournalError::io("lock", &lock_path))?
            .ok_or_else(|| JournalError::Locked { dir: dir.clone() })?;

        let (mut epoch, mut time) = (0, Timestamp::MIN);
        let mut told = BTreeSet::new();
        let mut reader = Reader::new(Arc::clone(vfs), dir);
        let tail = reader.read(&mut |record, head| {
            epoch = record.epoch;
            time = time.max(record.time);
            if record.kind == segment::TAIL_CUT {
                told.insert(serde_json::from_value::<TailCut>(record.data.clone())?.file);
            }
            visit(record, head)
        })?;
        let first_seq = tail.head.seq + 1 - reader.count();
        if tail.head.seq < options.witness {
            return Err(JournalError::Damage {
                segment: segment_name(tail.segment.max(1)),
                offset: tail.offset,
                seq: tail.head.seq + 1,
                what: format!(
                    "records are missing: the index has seen record {}. If an older journal was put back on purpose, remove the index folder",
                    options.witness
                ),
            });
        }
        let cut = if tail.torn.is_empty() {
            None
        } else {
            Some(cut_tail(&options, &quarantine, &tail)?)
        };
        // Without its whole first record a segment has not begun: it is made anew, or what is written next could not be read.
        let begun = tail.offset > 0;
        let file = if !begun || tail.sealed {
            None
        } else {
            let path = dir.join(segment_name(tail.segment));
            Some(vfs.append(&path).map_err(JournalError::io("open", &path))?)
        };
        let mut journal = Self {
            segment: if begun { tail.segment } else { tail.segment.saturating_sub(1) },
            file,
            offset: tail.offset,
            first_seq,
            head: tail.head,
            time,
            epoch: epoch + 1,
            poisoned: None,
            _lock: lock,
            options,
        };
        // Also those that a crash left unreported after an earlier cut.
        for cut in quarantined(journal.options.vfs.as_ref(), &quarantine)?
            .into_iter()
            .filter(|cut| !told.contains(&cut.file))
        {
            let data = serde_json::to_value(&cut).map_err(|error| JournalError::Visitor(error.into()))?;
            let appended = journal.append(segment::TAIL_CUT, false, None, &data)?;
            let record = Record {
                seq: appended.head.seq,
                time: appended.time,
                epoch: journal.epoch,
                kind: segment::TAIL_CUT.into(),
                critical: false,
                case: None,
                data,
            };
            visit(record, &appended.head).map_err(JournalError::Visitor)?;
        }
        Ok((journal, Opened { cut }))
    }

    /// Write no record whose JSON has more bytes than this from now on.
    pub fn limit_records(&mut self, most: usize) {
        self.options.max_record = most;
    }

    /// The last durable record.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The time that a record would get now: the clock's, but never before that of the last record. A clock that is set back does not give back what
    /// may be done in a day.
    pub fn now(&self) -> Timestamp {
        self.options.clock.now().max(self.time)
    }

    /// Why nothing can be written until the next start, if so.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Append a record; `data` is its content as JSON text. When this returns Ok, it is durable. After an error it is not in the journal, except when the journal is
    /// poisoned: then the next start tells.
    pub fn append(&mut self, kind: &str, critical: bool, case: Option<&str>, data: impl Display) -> Result<Appended, JournalError> {
        if let Some(why) = &self.poisoned {
            return Err(JournalError::Poisoned { why: why.clone() });
        }
        let data = data.to_string();
        let line = |journal: &Self| journal.line(kind, critical, case, &data);
        let mut next = line(self)?;
        let bytes = next.json.len() + frame::PREFIX + 1;
        if self.file.is_some() && self.head.seq >= self.first_seq && self.offset + bytes as u64 > self.options.segment_bytes {
            self.seal()?;
        }
        if self.file.is_none() {
            self.begin_segment()?;
        }
        if next.seq != self.head.seq + 1 {
            next = line(self)?;
        }
        self.write(&next)
    }

    /// The next record. Its content was encoded before; here it gets its head.
    fn line(&self, kind: &str, critical: bool, case: Option<&str>, data: &str) -> Result<Line, JournalError> {
        let (seq, time) = (self.head.seq + 1, self.now());
        let head = Record {
            seq,
            time,
            epoch: self.epoch,
            kind: kind.into(),
            critical,
            case: case.map(String::from),
            data: serde_json::Value::Null,
        };
        let mut json = serde_json::to_string(&head).map_err(|error| JournalError::Visitor(error.into()))?;
        // The content comes last in a record, in place of the null.
        json.truncate(json.len() - "null}".len());
        json.push_str(data);
        json.push('}');
        if json.len() > self.options.max_record {
            return Err(JournalError::TooLarge {
                kind: kind.into(),
                bytes: json.len(),
                most: self.options.max_record,
            });
        }
        Ok(Line { seq, time, json })
    }

    /// One write, one sync. A failed write is taken back; where that fails too, or the sync failed, nobody knows what is on the disk: no more writing.
    fn write(&mut self, line: &Line) -> Result<Appended, JournalError> {
        let (bytes, hash) = frame::encode(&self.head.hash, line.seq, line.json.as_bytes());
        let path = self.options.dir.join(segment_name(self.segment));
        let Some(file) = self.file.as_mut() else {
            return Err(JournalError::Poisoned {
                why: "there is no open segment".into(),
            });
        };
        fail::fail_point!("journal::before_write");
        if let Err(error) = vfs::write_all(file.as_mut(), &bytes) {
            if let Err(second) = file.truncate(self.offset).and_then(|()| file.sync()) {
                self.poisoned = Some(format!("a failed write ({error}) could not be taken back: {second}"));
            }
            return Err(JournalError::io("write", &path)(error));
        }
        fail::fail_point!("journal::before_sync");
        let started = Instant::now();
        if let Err(error) = file.sync() {
            // The kernel may have marked the pages clean: a second fsync that succeeds would prove nothing.
            self.poisoned = Some(format!("fsync of {} failed: {error}", path.display()));
            return Err(JournalError::io("sync", &path)(error));
        }
        let sync = started.elapsed();
        fail::fail_point!("journal::after_sync");
        self.offset += bytes.len() as u64;
        self.head = Head { seq: line.seq, hash };
        self.time = line.time;
        Ok(Appended {
            head: self.head,
            time: line.time,
            bytes: bytes.len() as u64,
            sync,
        })
    }

    fn seal(&mut self) -> Result<(), JournalError> {
        let count = self.head.seq + 2 - self.first_seq;
        let data = serde_json::to_value(Sealed { count }).map_err(|error| JournalError::Visitor(error.into()))?;
        self.write(&self.line(segment::SEALED, true, None, &data.to_string())?)?;
        self.file = None;
        Ok(())
    }

    /// Make the next segment. It appears under its name whole, first record included, or not at all.
    fn begin_segment(&mut self) -> Result<(), JournalError> {
        let number = self.segment + 1;
        let data = serde_json::to_value(First::after(&self.head, number)).map_err(|error| JournalError::Visitor(error.into()))?;
        let line = self.line(segment::FIRST, true, None, &data.to_string())?;
        let (bytes, hash) = frame::encode(&self.head.hash, line.seq, line.json.as_bytes());
        let (vfs, dir) = (self.options.vfs.as_ref(), &self.options.dir);
        let path = dir.join(segment_name(number));
        vfs::put(vfs, dir, &segment_name(number), &bytes).map_err(JournalError::io("make", &path))?;
        self.file = Some(vfs.append(&path).map_err(JournalError::io("open", &path))?);
        self.segment = number;
        self.first_seq = line.seq;
        self.offset = bytes.len() as u64;
        self.head = Head { seq: line.seq, hash };
        self.time = line.time;
        Ok(())
    }
}

/// Write the last segment anew, durably. For a process that goes on after its own fsync failed: what it reads back may be in memory only, and another
/// fsync of the same file would prove nothing.
///
/// # Errors
/// When the disk still refuses, or another process has the lock.
pub fn renew_last_segment(vfs: &dyn Vfs, dir: &Path) -> Result<(), JournalError> {
    let lock_path = dir.join("LOCK");
    let _lock = vfs
        .lock(&lock_path)
        .map_err(JournalError::io("lock", &lock_path))?
        .ok_or_else(|| JournalError::Locked { dir: dir.to_path_buf() })?;
    let names = vfs.list(dir).map_err(JournalError::io("list", dir))?;
    let Some(last) = names.iter().filter_map(|name| segment::segment_number(name)).max() else {
        return Ok(());
    };
    let path = dir.join(segment_name(last));
    let mut bytes = Vec::new();
    vfs.read_from(&path, 0)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(JournalError::io("read", &path))?;
    vfs::put(vfs, dir, &segment_name(last), &bytes).map_err(JournalError::io("write anew", &path))
}

/// Keep the torn bytes aside, durably, then cut them off. Returns how many.
fn cut_tail(options: &Options, quarantine: &Path, tail: &JournalTail) -> Result<usize, JournalError> {
    let name = format!(
        "{:08}-{}-{}.torn",
        tail.segment,
        tail.offset,
        blake3::hash(&tail.torn).to_hex().split_at(8).0
    );
    let kept = quarantine.join(&name);
    vfs::put(options.vfs.as_ref(), quarantine, &name, &tail.torn).map_err(JournalError::io("keep a torn record in", &kept))?;
    let path = options.dir.join(segment_name(tail.segment));
    let mut file = options.vfs.append(&path).map_err(JournalError::io("open", &path))?;
    file.truncate(tail.offset)
        .and_then(|()| file.sync())
        .map_err(JournalError::io("cut the torn end of", &path))?;
    Ok(tail.torn.len())
}

/// What lies in quarantine.
fn quarantined(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<TailCut>, JournalError> {
    let mut cuts: Vec<TailCut> = vfs
        .list(dir)
        .map_err(JournalError::io("list", dir))?
        .iter()
        .filter_map(|name| {
            let file = name.to_str()?.to_string();
            let mut parts = file.strip_suffix(".torn")?.split('-');
            let (segment, offset) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some(TailCut { segment, offset, file })
        })
        .collect();
    cuts.sort_by(|a, b| (a.segment, a.offset, &a.file).cmp(&(b.segment, b.offset, &b.file)));
    Ok(cuts)
}
