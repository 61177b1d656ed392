//! Reading, without a lock: by the daemon at its start, and by anyone else while the daemon writes.

use super::frame::{self, Parsed};
use super::segment::{self, First, segment_name};
use super::tail::{self, Judgement};
use super::{Head, JournalError, Record, SCHEMA};
use crate::vfs::Vfs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads a journal from its beginning, and on from where it stopped each time that it is asked.
#[derive(Debug)]
pub struct Reader {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    segment: u32,
    offset: u64,
    head: Head,
    /// Was the last record read the seal of its segment? Then the next one is the first of the next.
    sealed: bool,
    /// Number of the first record of the present segment.
    first_seq: u64,
}

/// Where reading stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalTail {
    /// The last whole record.
    pub head: Head,
    /// Segment that it is in (0: there is none).
    pub segment: u32,
    /// Where the next record of that segment begins.
    pub offset: u64,
    /// Bytes of an unfinished record after it: one that is being written, or one that was torn.
    pub torn: Vec<u8>,
    /// Is the segment sealed, and its successor not there yet?
    pub sealed: bool,
}

impl Reader {
    /// A reader at the beginning of the journal in `dir`.
    pub fn new(vfs: Arc<dyn Vfs>, dir: &Path) -> Self {
        Self {
            vfs,
            dir: dir.to_path_buf(),
            segment: 0,
            offset: 0,
            head: Head::default(),
            sealed: true,
            first_seq: 1,
        }
    }

    /// Show each further record to `visit`, in order, with the hash that it has in the chain; stop at the end. Every record is verified before it is shown.
    pub fn read(&mut self, visit: &mut dyn FnMut(Record, &Head) -> anyhow::Result<()>) -> Result<JournalTail, JournalError> {
        loop {
            if self.sealed {
                if !self.next_segment()? {
                    return Ok(self.tail(Vec::new()));
                }
                continue;
            }
            // Asked before reading: a segment that already has a successor cannot grow any more.
            let closed = self.exists(self.segment + 1)?;
            let torn = self.read_segment(visit)?;
            if self.sealed {
                continue;
            }
            if closed {
                return Err(self.damage("it is not finished, but there is a later segment"));
            }
            return Ok(self.tail(torn));
        }
    }

    fn tail(&self, torn: Vec<u8>) -> JournalTail {
        JournalTail {
            head: self.head,
            segment: self.segment,
            offset: self.offset,
            torn,
            sealed: self.sealed,
        }
    }

    fn path(&self, segment: u32) -> PathBuf {
        self.dir.join(segment_name(segment))
    }

    fn exists(&self, segment: u32) -> Result<bool, JournalError> {
        let path = self.path(segment);
        self.vfs.exists(&path).map_err(JournalError::io("look for", &path))
    }

    /// Go to the next segment, if there is one.
    fn next_segment(&mut self) -> Result<bool, JournalError> {
        let next = self.segment + 1;
        if self.exists(next)? {
            self.segment = next;
            self.offset = 0;
            self.first_seq = self.head.seq + 1;
            self.sealed = false;
            return Ok(true);
        }
        // A gap: a later one, or a first one that is gone.
        let names = match self.vfs.list(&self.dir) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(JournalError::io("list", &self.dir)(error)),
        };
        if let Some(later) = names
            .iter()
            .filter_map(|name| segment::segment_number(name))
            .find(|number| *number > next)
        {
            return Err(JournalError::Damage {
                segment: segment_name(next),
                offset: 0,
                seq: self.head.seq + 1,
                what: format!("the segment is missing, but {} is there", segment_name(later)),
            });
        }
        Ok(false)
    }

    fn damage(&self, what: impl Into<String>) -> JournalError {
        JournalError::Damage {
            segment: segment_name(self.segment),
            offset: self.offset,
            seq: self.head.seq + 1,
            what: what.into(),
        }
    }

    /// Read whole frames from where we are. Returns the bytes of an unfinished one.
    fn read_segment(&mut self, visit: &mut dyn FnMut(Record, &Head) -> anyhow::Result<()>) -> Result<Vec<u8>, JournalError> {
        let path = self.path(self.segment);
        let failed = || JournalError::io("read", &path);
        let mut file = self.vfs.read_from(&path, self.offset).map_err(failed())?;
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            fill(file.as_mut(), &mut bytes, frame::PREFIX).map_err(failed())?;
            if bytes.is_empty() {
                return Ok(Vec::new());
            }
            let json = bytes
                .get(..8)
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| usize::from_str_radix(digits, 16).ok());
            if let Some(json) = json.filter(|json| *json <= frame::MAX_JSON && bytes.len() == frame::PREFIX) {
                fill(file.as_mut(), &mut bytes, json + 1).map_err(failed())?;
            }
            let Parsed::Frame { json, hash, len } = frame::parse(&bytes, &self.head.hash, self.head.seq + 1) else {
                file.read_to_end(&mut bytes).map_err(failed())?;
                if self.sealed {
                    return Err(self.damage("there are bytes after the record that closes the segment"));
                }
                return match tail::judge(&bytes, self.offset, &self.head.hash, self.head.seq + 1) {
                    Judgement::Torn => Ok(bytes),
                    Judgement::Damage(what) => Err(self.damage(what)),
                };
            };
            if self.sealed {
                return Err(self.damage("there is a record after the one that closes the segment"));
            }
            let record = self.check(json)?;
            let head = Head {
                seq: self.head.seq + 1,
                hash,
            };
            let sealed = record.kind == segment::SEALED;
            visit(record, &head).map_err(|error| match error.downcast::<JournalError>() {
                Ok(error) => error,
                Err(error) => JournalError::Visitor(error.context(format!("record {} of the journal ({})", head.seq, path.display()))),
            })?;
            self.head = head;
            self.offset += len as u64;
            self.sealed = sealed;
        }
    }

    /// A frame that agrees with the chain must also say the right things.
    fn check(&self, json: &[u8]) -> Result<Record, JournalError> {
        let record: Record = serde_json::from_slice(json).map_err(|error| self.damage(format!("its content is no record: {error}")))?;
        if record.seq != self.head.seq + 1 {
            return Err(self.damage(format!("it says that it is record {}", record.seq)));
        }
        let first: bool = self.offset == 0;
        if first != (record.kind == segment::FIRST) {
            return Err(self.damage("a segment must begin with one `segment` record"));
        }
        if first {
            let found: First = serde_json::from_value(record.data.clone()).map_err(|error| self.damage(format!("bad `segment` record: {error}")))?;
            if found.schema > SCHEMA {
                return Err(JournalError::Schema {
                    segment: segment_name(self.segment),
                    found: found.schema,
                });
            }
            let expected = First {
                schema: found.schema,
                version: found.version.clone(),
                ..First::after(&self.head, self.segment)
            };
            if found != expected {
                return Err(self.damage("its first record belongs elsewhere"));
            }
        }
        Ok(record)
    }

    /// Number of the segment that was read from last; 0 before the first.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// Number of records in the present segment so far.
    pub(super) fn count(&self) -> u64 {
        self.head.seq + 1 - self.first_seq
    }
}

/// Append up to `count` bytes; fewer only at the end of the file.
fn fill(file: &mut dyn Read, bytes: &mut Vec<u8>, count: usize) -> io::Result<()> {
    file.take(count as u64).read_to_end(bytes).map(|_| ())
}
