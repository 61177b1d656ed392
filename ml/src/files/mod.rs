//! Files: written so that a reader sees the old one or the new one, whole; read through a map where they are large.

pub mod canonical;
mod map;
pub mod tensors;

pub(crate) use map::Map;

use crate::error::{Error, Result, ResultExt};
use delta_guard_contract::is_passing;
use std::fs::{File, Metadata};
use std::io::Write;
use std::path::Path;
use tempfile::TempPath;

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
    put_in_place(path, |temp| Ok(fill(temp.as_file_mut())?))
}

/// As [`write_atomic`], with the content written by `fill` to the path that it is given.
///
/// # Errors
/// `fill`'s, and as [`write_atomic`].
pub fn write_atomic_as(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    put_in_place(path, |temp| fill(temp.path()))
}

fn put_in_place(path: &Path, fill: impl FnOnce(&mut tempfile::NamedTempFile) -> Result<()>) -> Result<()> {
    let folder = folder_of(path)?;
    fs_err::create_dir_all(folder)?;
    let write = || -> Result<()> {
        let mut temp = tempfile::Builder::new().prefix(".tmp-").tempfile_in(folder)?;
        fill(&mut temp)?;
        let (file, temporary) = temp.into_parts();
        give_name(&file, temporary, path)
    };
    write().context(|| format!("cannot write {}", path.display()))
}

/// Content durable, then the name, replacing what has it, then the folder durable. The one place where this is done; on an error the temporary file goes.
///
/// # Errors
/// See [`write_atomic`].
pub fn give_name(file: &File, temporary: TempPath, path: &Path) -> Result<()> {
    file.sync_all()?;
    temporary.persist(path).map_err(|e| e.error)?;
    Ok(File::open(folder_of(path)?)?.sync_all()?)
}

fn folder_of(path: &Path) -> Result<&Path> {
    let folder = path
        .parent()
        .ok_or_else(|| Error::internal(format!("{} has no folder", path.display())))?;
    Ok(if folder == Path::new("") { Path::new(".") } else { folder })
}

/// What is at a path, links followed; `None` where there is nothing, or nothing that may be looked at.
///
/// # Errors
/// Those that pass by themselves ([`is_passing`]): whoever took them for "nothing" would lose what is there.
pub fn look(path: &Path) -> Result<Option<Metadata>> {
    match fs_err::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_passing(&error) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Is there a folder? Errors: as [`look`].
pub fn is_dir(path: &Path) -> Result<bool> {
    Ok(look(path)?.is_some_and(|found| found.is_dir()))
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
