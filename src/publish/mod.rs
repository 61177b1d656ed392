//! Putting files and folders in place so that a reader sees them whole or not at all, whatever happens in between: temporary name, sync, rename, sync of
//! the folder. The production checkpoint is never written: nothing in here opens a file for writing that it did not make itself.

mod candidate;
mod draft;

/// Name of a candidate's checkpoint in its folder.
pub const CHECKPOINT_FILE: &str = "model.safetensors";

pub use draft::Draft;

pub use candidate::{CandidateManifest, MANIFEST, ManifestFile, NewCandidate, publish_candidate, read_manifest};

use anyhow::{Context, Result, bail};
use delta_guard_contract::Digest;
use delta_guard_contract::checkpoint::{Shards, is_index, joined};
use rustix::fs::{CWD, RenameFlags};
use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Make the names in a folder durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    fs_err::File::open(dir)?.sync_all()
}

/// Make a folder and what is above it, durably.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dir(parent)?;
        match fs_err::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync_dir(parent)?,
        }
    }
    Ok(())
}

/// The same for a folder whose content is for the group too: one that is made here gets the mode for it, one that is there keeps its own.
pub fn make_public_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    make_dir(dir)?;
    fs_err::set_permissions(dir, Permissions::from_mode(FOLDER_MODE))
}

/// Publish a file, replacing one of the same name.
pub fn publish_file(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let attempt = || -> io::Result<()> {
        let mut draft = Draft::only(dir, name, FILE_MODE)?;
        draft.write_all(bytes)?;
        draft.put(&dir.join(name))
    };
    attempt().with_context(|| format!("cannot write {}", dir.join(name).display()))
}

/// Mode of what is published: for the group too, which is how candidates and refused files reach those whom they are for.
const FILE_MODE: u32 = 0o640;
/// The same for folders.
const FOLDER_MODE: u32 = 0o750;

/// Write a new file (an old temporary one of the same name goes) and make its content durable.
fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_fresh(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn create_fresh(path: &Path) -> io::Result<fs_err::File> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs_err::OpenOptions::new();
    options.write(true).create_new(true);
    options
        .options_mut()
        .mode(FILE_MODE)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    let file = options.open(path)?;
    // The umask, which the guard keeps tight for everything else, has taken from it.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    Ok(file)
}

/// Copy a file, durably; returns bytes and digest of what was written.
fn copy_synced(from: &Path, to: &Path) -> io::Result<(u64, Digest)> {
    let mut target = create_fresh(to)?;
    let copied = draft::copy(&mut fs_err::File::open(from)?, &mut target)?;
    target.sync_all()?;
    Ok(copied)
}

/// Copy a file into a folder under its digest and a suffix, durably. Returns the digest.
pub fn put_digest_named(from: &Path, dir: &Path, suffix: &str) -> Result<Digest> {
    // Readable for the guard where root hands it over; the folder is closed to everybody else.
    let mut draft = Draft::new(dir, "put", 0o644)?;
    let (_, digest) = draft.copy_of(from)?;
    draft.put(&dir.join(format!("{digest}{suffix}")))?;
    Ok(digest)
}

/// BLAKE3 of a file.
pub fn digest_file(path: &Path) -> io::Result<Digest> {
    digest_file_with(path, &mut || {})
}

/// The same; `step` is called with each part.
pub fn digest_file_with(path: &Path, step: &mut dyn FnMut()) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut file = fs_err::File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        step();
        match file.read(&mut buffer)? {
            0 => return Ok(Digest(hasher.finalize().to_hex().to_string())),
            count => hasher.update(&buffer[..count]),
        };
    }
}

/// The files of a checkpoint: itself, and where it is an index those that it names.
///
/// # Errors
/// When the index cannot be read.
pub fn checkpoint_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![path.to_path_buf()];
    if is_index(path) {
        let shards = Shards::read(&fs_err::read(path)?).map_err(|why| io::Error::other(format!("{} {why}", path.display())))?;
        files.extend(shards.files().iter().map(|file| path.with_file_name(file)));
    }
    Ok(files)
}

/// The digest that names a checkpoint: of the file, or over all files of one that has several; the worker's is the same. `step` is called with each part.
///
/// # Errors
/// When one cannot be read.
pub fn digest_checkpoint(path: &Path, step: &mut dyn FnMut()) -> io::Result<Digest> {
    let own = digest_file_with(path, step)?;
    let mut files = Vec::new();
    for file in &checkpoint_files(path)?[1..] {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((name, digest_file_with(file, step)?));
    }
    if files.is_empty() {
        return Ok(own);
    }
    Ok(Digest(blake3::hash(joined(&own, &files).as_bytes()).to_hex().to_string()))
}

/// Give a folder its name; an error if the name is taken.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

/// Name of the link to the promoted candidate.
pub const CURRENT: &str = "current";

/// Where `current` points: the name of a candidate's folder. None when there is no link. An error when it is something else.
pub fn current(candidates: &Path) -> Result<Option<String>> {
    let link = candidates.join(CURRENT);
    match std::fs::symlink_metadata(&link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| link.display().to_string()),
        Ok(meta) if !meta.is_symlink() => bail!("{} is not a link", link.display()),
        Ok(_) => {}
    }
    let target = fs_err::read_link(&link)?;
    match target.to_str() {
        Some(name) if target.parent() == Some(Path::new("")) => Ok(Some(name.into())),
        _ => bail!("{} points out of its folder, to {}", link.display(), target.display()),
    }
}

/// Point `current` to the candidate folder `to`, in one step: a reader finds the old one or the new one, never none. Doing it again changes nothing.
pub fn promote(candidates: &Path, to: &str) -> Result<()> {
    if !candidates.join(to).join(MANIFEST).is_file() {
        bail!("{} has no candidate {to}", candidates.display());
    }
    let temporary = candidates.join(".current.tmp");
    match fs_err::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    rustix::fs::symlinkat(OsStr::new(to), CWD, &temporary).with_context(|| temporary.display().to_string())?;
    fail::fail_point!("publish::before_current");
    fs_err::rename(&temporary, candidates.join(CURRENT))?;
    fail::fail_point!("publish::after_current");
    Ok(sync_dir(candidates)?)
}

/// Remove what an interrupted run left under temporary names.
pub fn remove_temporaries(dir: &Path) -> io::Result<()> {
    for entry in fs_err::read_dir(dir)? {
        let path: PathBuf = entry?.path();
        let Some(name) = path
            .file_name()
            .and_then(OsStr::to_str)
            .filter(|name| name.starts_with('.') && name.ends_with(".tmp"))
        else {
            continue;
        };
        tracing::debug!(name, "removing a temporary file of an earlier run");
        if std::fs::symlink_metadata(&path)?.is_dir() {
            fs_err::remove_dir_all(&path)?;
        } else {
            fs_err::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The science has the same test with the same number (`ml/tests/checkpoints/forms.rs`): guard and worker mean the same by a checkpoint.
    #[test]
    fn a_checkpoint_in_several_files_has_one_digest() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let index = at("m.safetensors.index.json");
        std::fs::write(&index, br#"{"weight_map": {"a": "2.safetensors", "b": "1.safetensors"}}"#).unwrap();
        std::fs::write(at("1.safetensors"), b"one").unwrap();
        assert!(digest_checkpoint(&index, &mut || {}).is_err(), "a file is missing");
        std::fs::write(at("2.safetensors"), b"two").unwrap();
        let digest = digest_checkpoint(&index, &mut || {}).unwrap();
        assert_eq!(digest.0, "5fefefc73466d58c92fb1a6d58b63774ff24a2ceba0031663457235098649a4e");
        assert_eq!(checkpoint_files(&index).unwrap().len(), 3);
        std::fs::write(at("2.safetensors"), b"Two").unwrap();
        assert_ne!(digest_checkpoint(&index, &mut || {}).unwrap(), digest);
        // One file is its own digest.
        assert_eq!(
            digest_checkpoint(&at("1.safetensors"), &mut || {}).unwrap(),
            digest_file(&at("1.safetensors")).unwrap()
        );
    }
}
