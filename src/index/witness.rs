//! What the index knows about the journal: the last record that it has seen. A journal that ends before it has lost acknowledged records, however clean its end
//! looks.

use super::Store;
use crate::journal::Witness;
use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use std::path::Path;

/// File of the index that its owner locks.
const LOCKED: &str = "db";

/// Ask the index in `dir`. Nothing is changed there: opening it would write, so that a copy is opened. While a guard has it, it is not asked.
pub fn ask(dir: &Path) -> Witness {
    if !dir.join(LOCKED).exists() {
        return Witness::None;
    }
    match is_held(dir) {
        Ok(false) => {}
        Ok(true) => return Witness::Silent("a running guard holds the index".into()),
        Err(error) => return Witness::Silent(format!("the index cannot be read: {error:#}")),
    }
    match last(dir) {
        Ok((seq, hash)) => Witness::Seen { seq, hash },
        Err(error) => Witness::Silent(format!("the index cannot be read: {error:#}")),
    }
}

/// Does somebody hold sled's lock?
fn is_held(dir: &Path) -> Result<bool> {
    let file = fs_err::File::open(dir.join(LOCKED))?;
    match flock(file.file(), FlockOperation::NonBlockingLockShared) {
        // Given back at once, with the file.
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(std::io::Error::from(error)).context("its lock"),
    }
}

/// The last record that a copy of the index has seen. A copy of an index that somebody began to write meanwhile does not pass its own check.
fn last(dir: &Path) -> Result<(u64, String)> {
    let copy = tempfile::tempdir().context("a temporary folder")?;
    for entry in walk(dir)? {
        let (from, to) = (dir.join(&entry), copy.path().join(&entry));
        if let Some(folder) = to.parent() {
            fs_err::create_dir_all(folder)?;
        }
        fs_err::copy(from, to)?;
    }
    let store = Store::open(copy.path())?;
    let (seq, hash) = store.position();
    let found = (seq, hash.to_owned());
    store.close();
    Ok(found)
}

/// Paths of the files below a folder, relative to it.
fn walk(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path().strip_prefix(dir)?.to_path_buf());
            }
        }
    }
    Ok(files)
}
