//! Writing files so that a reader sees the old one or the new one, whole.

pub mod canonical;

use crate::error::{Error, Result};
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Write `bytes` to `path`: temp file in the same folder, fsync, rename over what is there, fsync of the folder. On an error nothing is left behind.
///
/// # Errors
/// `Resource` when the disk is full, `Configuration` when the folder is missing or may not be written.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// As [`write_atomic`], with the content written by `fill`.
///
/// # Errors
/// See [`write_atomic`].
pub fn write_atomic_with(path: &Path, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let folder = path
        .parent()
        .ok_or_else(|| Error::internal(format!("{} has no folder", path.display())))?;
    fs_err::create_dir_all(folder)?;
    let with_path = |e: std::io::Error| std::io::Error::new(e.kind(), format!("cannot write {}: {e}", path.display()));
    let mut temp = tempfile::Builder::new().prefix(".tmp-").tempfile_in(folder).map_err(with_path)?;
    fill(temp.as_file_mut()).map_err(with_path)?;
    temp.as_file().sync_all().map_err(with_path)?;
    temp.persist(path).map_err(|e| with_path(e.error))?;
    File::open(folder).and_then(|f| f.sync_all()).map_err(with_path)?;
    Ok(())
}

/// BLAKE3 of a file's content.
///
/// # Errors
/// When it cannot be read.
pub fn digest(path: &Path) -> Result<delta_guard_contract::Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut file = fs_err::File::open(path)?;
    std::io::copy(&mut file, &mut hasher)?;
    Ok(delta_guard_contract::Digest(hasher.finalize().to_hex().to_string()))
}
