//! The index: cases and flagged training ids, in sled, derived from the journal.
//!
//! sled's file can be damaged without `open` noticing (keys that were acknowledged are simply gone), and one flipped bit can make it panic. Therefore it
//! is never believed: a fingerprint of all entries is kept beside them and checked on opening, everything runs under `catch_unwind`, and whatever is
//! wrong with it, it is put aside and made again from the journal. Only this file knows sled.

pub mod witness;

use crate::case::{Case, CaseId};
use crate::journal::Head;
use crate::vfs::{LOCK_PAUSE, LOCK_TRIES};
use anyhow::{Context, Result, anyhow, bail};
use delta_guard_contract::{Flagged, TrainId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// First byte of every value: the layout of what follows. An index of another layout is made again.
const LAYOUT: u8 = 2;
const HEAD: &[u8] = b"head";
const CASES: u8 = b'c';
const FLAGGED: u8 = b'f';
const IDS: u8 = b'i';
/// Cases whose file of flagged examples could not be read when they were taken in.
const UNREAD: u8 = b'u';

/// Between two looks whether an index that is closed is still read.
const CLOSE_PAUSE: Duration = Duration::from_millis(5);

/// The index.
pub struct Store {
    db: Arc<sled::Db>,
    dir: PathBuf,
    at: At,
}

/// How far the index is, and what it should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct At {
    seq: u64,
    hash: String,
    /// Number of entries and the sum of their BLAKE3 digests modulo 2²⁵⁶: any lost, added or changed entry shows.
    entries: u64,
    sum: [u8; 32],
    /// Digest of the above.
    seal: String,
}

impl At {
    fn sealed(mut self) -> Self {
        self.seal = self.digest();
        self
    }

    fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("delta-guard index v1");
        hasher
            .update(&self.seq.to_le_bytes())
            .update(self.hash.as_bytes())
            .update(&self.entries.to_le_bytes())
            .update(&self.sum);
        hasher.finalize().to_hex().to_string()
    }
}

/// What a record changes in the index.
#[derive(Clone, Copy, Debug)]
pub enum IndexChange<'a> {
    /// Nothing but the position.
    None,
    /// The case has a new state.
    Case(&'a Case),
    /// The case's trace begins (again): what was flagged for it is void.
    Clear(&'a Case),
    /// These examples were flagged for the case.
    Flagged(&'a Case, &'a [Flagged]),
    /// These examples are flagged for the case now, and no others.
    Replaced(&'a Case, &'a [Flagged]),
    /// Examples were flagged for the case, but their file cannot be read.
    Unread(&'a Case),
}

impl Store {
    /// Open the index in `dir`, making it if missing, and verify every entry.
    pub fn open(dir: &Path) -> Result<Self> {
        guarded("open", || {
            fs_err::create_dir_all(dir)?;
            let db = Arc::new(open_sled(dir)?);
            let mut store = Self {
                db,
                dir: dir.to_path_buf(),
                at: At::default(),
            };
            store.at = match store.db.get(HEAD)? {
                Some(value) => decode(&value)?,
                None if store.db.is_empty() => At::default().sealed(),
                None => bail!("it does not say how far it is"),
            };
            if store.at.seal != store.at.digest() {
                bail!("its own description is damaged");
            }
            let mut found = At {
                seq: store.at.seq,
                hash: store.at.hash.clone(),
                ..At::default()
            };
            for entry in store.db.iter() {
                let (key, value) = entry?;
                if key.as_ref() != HEAD {
                    found.add(&key, &value);
                }
            }
            if found.sealed() != store.at {
                bail!("entries were lost or changed");
            }
            Ok(store)
        })
    }

    /// Put a useless index aside (it is kept beside, numbered) and begin an empty one. At most one old one is kept.
    pub fn restart(dir: &Path) -> Result<Self> {
        let aside = dir.with_extension("damaged");
        if dir.exists() {
            if aside.exists() {
                fs_err::remove_dir_all(&aside)?;
            }
            fs_err::rename(dir, &aside)?;
        }
        Self::open(dir)
    }

    /// The last record that it has taken in.
    pub fn position(&self) -> (u64, &str) {
        (self.at.seq, &self.at.hash)
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Take a record in. Atomic; durable only after [`Store::flush`]. Records must come in order.
    pub fn apply(&mut self, head: &Head, change: IndexChange) -> Result<()> {
        let (db, mut at) = (Arc::clone(&self.db), self.at.clone());
        let at = guarded("write", move || {
            let mut batch = Batch {
                db: &db,
                batch: sled::Batch::default(),
                at: &mut at,
                touched: BTreeSet::new(),
            };
            match change {
                IndexChange::None => {}
                IndexChange::Case(case) => batch.put(&case_key(&case.id), encode(case)?)?,
                IndexChange::Unread(case) => {
                    batch.put(&case_key(&case.id), encode(case)?)?;
                    batch.put(&unread_key(&case.id), vec![LAYOUT])?;
                }
                IndexChange::Clear(case) => {
                    batch.put(&case_key(&case.id), encode(case)?)?;
                    batch.remove(&unread_key(&case.id))?;
                    for entry in db.scan_prefix(flagged_prefix(&case.id)) {
                        let (key, value) = entry?;
                        let example: Flagged = decode(&value)?;
                        batch.remove(&key)?;
                        batch.remove(&id_key(&example.id, &case.id))?;
                    }
                }
                IndexChange::Flagged(case, examples) => batch.flagged(head, case, examples)?,
                IndexChange::Replaced(case, examples) => {
                    batch.flagged(head, case, examples)?;
                    // What was put in this batch stays.
                    for entry in db.scan_prefix(flagged_prefix(&case.id)) {
                        let (key, value) = entry?;
                        let example: Flagged = decode(&value)?;
                        batch.remove(&key)?;
                        batch.remove(&id_key(&example.id, &case.id))?;
                    }
                }
            }
            let mut batch = batch.batch;
            at.seq = head.seq;
            at.hash = hex::encode(head.hash);
            at = at.sealed();
            batch.insert(HEAD, encode(&at)?);
            db.apply_batch(batch)?;
            Ok(at)
        })?;
        self.at = at;
        Ok(())
    }

    /// Make everything durable.
    pub fn flush(&self) -> Result<()> {
        guarded("flush", || Ok(self.db.flush().map(|_| ())?))
    }

    /// A way to read that needs nothing of the store itself: what is written meanwhile may or may not be seen, entry by entry.
    pub fn lookup(&self) -> Lookup {
        Lookup(Arc::clone(&self.db))
    }

    /// Does this lookup read this very index?
    pub fn is_of(&self, lookup: &Lookup) -> bool {
        Arc::ptr_eq(&self.db, &lookup.0)
    }

    /// Wait until nobody reads it any more, and let its files go: another index may take its folder then. Blocks.
    pub fn close(self) {
        let Self { db, .. } = self;
        while Arc::strong_count(&db) > 1 {
            std::thread::sleep(CLOSE_PAUSE);
        }
        // sled writes on its way out, where something may be wrong with it.
        let _ = guarded("close", || {
            drop(db);
            Ok(())
        });
    }
}

/// Reads the index. See [`Store::lookup`].
#[derive(Clone)]
pub struct Lookup(Arc<sled::Db>);

impl Lookup {
    /// Lose one of the examples that were flagged for a case.
    #[cfg(test)]
    pub(crate) fn forget_flagged(&self, id: &CaseId) -> Result<()> {
        let (key, _) = self.0.scan_prefix(flagged_prefix(id)).next().context("nothing is flagged")??;
        self.0.remove(key)?;
        Ok(())
    }

    /// Lose a case, as sled does with a damaged file.
    #[cfg(test)]
    pub(crate) fn forget(&self, id: &CaseId) -> Result<()> {
        self.0.remove(case_key(id))?;
        Ok(())
    }

    /// A case.
    pub fn case(&self, id: &CaseId) -> Result<Option<Case>> {
        guarded("read", || self.0.get(case_key(id))?.map(|value| decode(&value)).transpose())
    }

    /// Every case, in the order of their journal numbers.
    pub fn cases(&self) -> Result<Vec<Case>> {
        guarded("read", || {
            let mut cases: Vec<Case> = self.0.scan_prefix([CASES]).map(|entry| decode(&entry?.1)).collect::<Result<_>>()?;
            cases.sort_by_key(|case| case.seq);
            Ok(cases)
        })
    }

    /// What was flagged for a case, strongest first.
    pub fn flagged(&self, case: &CaseId) -> Result<Vec<Flagged>> {
        guarded("read", || {
            self.0.scan_prefix(flagged_prefix(case)).map(|entry| decode(&entry?.1)).collect()
        })
    }

    /// The cases for which more was flagged than it knows: their file could not be read.
    pub fn unread(&self) -> Result<Vec<CaseId>> {
        guarded("read", || {
            let case = |key: sled::IVec| String::from_utf8(key[1..].to_vec()).map(delta_guard_contract::Digest);
            self.0.scan_prefix([UNREAD]).keys().map(|key| Ok(case(key?)?)).collect()
        })
    }

    /// The cases that a training example was flagged for.
    pub fn cases_of(&self, id: &TrainId) -> Result<Vec<CaseId>> {
        guarded("read", || {
            let prefix = id_prefix(id);
            let case = |key: sled::IVec| String::from_utf8(key[prefix.len()..].to_vec()).map(delta_guard_contract::Digest);
            self.0.scan_prefix(&prefix).keys().map(|key| Ok(case(key?)?)).collect()
        })
    }
}

/// Open sled's file. A lock that is held is tried again (see [`LOCK_TRIES`]).
fn open_sled(dir: &Path) -> sled::Result<sled::Db> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(4 << 20)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(None);
    for _ in 0..LOCK_TRIES {
        match config.open() {
            // sled has no error of its own for this.
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => std::thread::sleep(LOCK_PAUSE),
            outcome => return outcome,
        }
    }
    config.open()
}

struct Batch<'a> {
    db: &'a sled::Db,
    batch: sled::Batch,
    at: &'a mut At,
    touched: BTreeSet<Vec<u8>>,
}

impl Batch<'_> {
    /// The first value of a key in a batch counts (an id that a worker named twice).
    fn put(&mut self, key: &[u8], value: Vec<u8>) -> Result<()> {
        if !self.touched.insert(key.to_vec()) {
            return Ok(());
        }
        if let Some(old) = self.db.get(key)? {
            self.at.subtract(key, &old);
        }
        self.at.add(key, &value);
        self.batch.insert(key, value);
        Ok(())
    }

    fn flagged(&mut self, head: &Head, case: &Case, examples: &[Flagged]) -> Result<()> {
        self.put(&case_key(&case.id), encode(case)?)?;
        for (position, example) in examples.iter().enumerate() {
            let mut key = flagged_prefix(&case.id);
            key.extend_from_slice(&head.seq.to_be_bytes());
            key.extend_from_slice(&(position as u32).to_be_bytes());
            self.put(&key, encode(example)?)?;
            self.put(&id_key(&example.id, &case.id), vec![LAYOUT])?;
        }
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        if self.touched.insert(key.to_vec())
            && let Some(old) = self.db.get(key)?
        {
            self.at.subtract(key, &old);
            self.batch.remove(key);
        }
        Ok(())
    }
}

impl At {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        let mut carry = 0u16;
        for (sum, byte) in self.sum.iter_mut().zip(entry_digest(key, value)) {
            let total = u16::from(*sum) + u16::from(byte) + carry;
            (*sum, carry) = (total as u8, total >> 8);
        }
    }

    fn subtract(&mut self, key: &[u8], value: &[u8]) {
        self.entries = self.entries.wrapping_sub(1);
        let mut borrow = 0i16;
        for (sum, byte) in self.sum.iter_mut().zip(entry_digest(key, value)) {
            let total = i16::from(*sum) - i16::from(byte) - borrow;
            (*sum, borrow) = (total.rem_euclid(256) as u8, i16::from(total < 0));
        }
    }
}

fn entry_digest(key: &[u8], value: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    *hasher.finalize().as_bytes()
}

fn case_key(id: &CaseId) -> Vec<u8> {
    [&[CASES], id.0.as_bytes()].concat()
}

fn unread_key(id: &CaseId) -> Vec<u8> {
    [&[UNREAD], id.0.as_bytes()].concat()
}

/// Case ids have one length, so that none is the beginning of another.
fn flagged_prefix(id: &CaseId) -> Vec<u8> {
    [&[FLAGGED], id.0.as_bytes()].concat()
}

/// Ids of examples have any length; a zero byte, which no id holds, ends them.
fn id_prefix(id: &TrainId) -> Vec<u8> {
    [&[IDS], id.0.as_bytes(), &[0]].concat()
}

fn id_key(id: &TrainId, case: &CaseId) -> Vec<u8> {
    [id_prefix(id).as_slice(), case.0.as_bytes()].concat()
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = vec![LAYOUT];
    serde_json::to_writer(&mut bytes, value)?;
    Ok(bytes)
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T> {
    match bytes.split_first() {
        Some((&LAYOUT, json)) => Ok(serde_json::from_slice(json)?),
        _ => bail!("an entry has an unknown layout"),
    }
}

/// Run something that sled takes part in; a panic becomes an error.
fn guarded<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| {
            let why = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            Err(anyhow!("sled panicked: {}", why.unwrap_or("no reason given")))
        })
        .with_context(|| format!("the index could not {what}"))
}
