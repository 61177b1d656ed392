//! A file on its way to its name.

use super::sync_dir;
use delta_guard_contract::Digest;
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::{Builder, NamedTempFile};

/// A new file under a temporary name (hidden, ending with `.tmp`). [`Draft::put`] gives it its own name: a reader sees it whole or not at all, whatever happens in between.
/// Dropped before that, it is removed.
///
/// This is the one way in which the guard puts files in place. Two things have ways of their own: the journal, which works through the seam of [`crate::vfs`], where tests put a
/// model of a disk; and a candidate, which is a folder.
#[derive(Debug)]
pub struct Draft(NamedTempFile);

impl Draft {
    /// One of several that may be made at a time in `dir`. `mode`: its rights, whatever the umask.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new(dir: &Path, label: &str, mode: u32) -> io::Result<Self> {
        Self::make(Builder::new().prefix(&format!(".{label}-")), dir, mode)
    }

    /// The only one for this name: what an interrupted try left goes.
    ///
    /// # Errors
    /// As [`Draft::new`].
    pub fn only(dir: &Path, name: &str, mode: u32) -> io::Result<Self> {
        match fs_err::remove_file(dir.join(format!(".{name}.tmp"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Self::make(Builder::new().prefix(&format!(".{name}")).rand_bytes(0), dir, mode)
    }

    fn make(builder: &mut Builder<'_, '_>, dir: &Path, mode: u32) -> io::Result<Self> {
        // Closed to others until its rights are set: the umask, which the guard keeps tight for everything else, takes from what is asked for at the making.
        let file = builder.suffix(".tmp").permissions(Permissions::from_mode(0o600)).tempfile_in(dir)?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        Ok(Self(file))
    }

    /// Append a file's content; returns bytes and digest of what was written.
    ///
    /// # Errors
    /// When one cannot be read or the other not written.
    pub fn copy_of(&mut self, from: &Path) -> io::Result<(u64, Digest)> {
        copy(&mut fs_err::File::open(from)?, self.0.as_file_mut())
    }

    /// Make the content durable.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> io::Result<()> {
        self.0.as_file().sync_all()
    }

    /// Content durable, then the name, replacing what has it, then the folder durable.
    ///
    /// # Errors
    /// The system's.
    pub fn put(self, path: &Path) -> io::Result<()> {
        self.rename(path)?;
        fail::fail_point!("publish::before_dirsync");
        sync_dir(path.parent().unwrap_or(Path::new("/")))
    }

    /// The same, but never over another file. False: there is one.
    ///
    /// # Errors
    /// The system's.
    pub fn put_new(self, path: &Path) -> io::Result<bool> {
        self.sync()?;
        let made = match self.0.persist_noclobber(path) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => return Err(error.error),
            made => made.is_ok(),
        };
        sync_dir(path.parent().unwrap_or(Path::new("/")))?;
        Ok(made)
    }

    /// As [`Draft::put`], for a folder that may be written but not read: its names cannot be made durable.
    ///
    /// # Errors
    /// The system's.
    pub fn rename(self, path: &Path) -> io::Result<()> {
        self.sync()?;
        fail::fail_point!("publish::before_rename");
        self.0.persist(path).map(|_| ()).map_err(|error| error.error)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Copy a stream; returns bytes and digest of what was written.
pub(super) fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<(u64, Digest)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok((bytes, Digest(hasher.finalize().to_hex().to_string())));
        }
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
        bytes += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_draft_is_whole_under_its_name_or_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "old").unwrap();
        for written in ["new", "newer"] {
            let mut draft = Draft::new(dir.path(), "x", 0o640).unwrap();
            draft.write_all(written.as_bytes()).unwrap();
            let temporary = names(dir.path()).remove(0);
            assert!(temporary.starts_with(".x-") && temporary.ends_with(".tmp"), "{temporary}");
            assert_ne!(std::fs::read_to_string(&path).unwrap(), written);
            draft.put(&path).unwrap();
            assert_eq!(
                (names(dir.path()), std::fs::read_to_string(&path).unwrap()),
                (vec!["a".to_string()], written.into())
            );
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        drop(Draft::new(dir.path(), "x", 0o640).unwrap());
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn a_new_name_is_never_put_over_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for (written, made) in [("first", true), ("second", false)] {
            let mut draft = Draft::new(dir.path(), "x", 0o600).unwrap();
            draft.write_all(written.as_bytes()).unwrap();
            assert_eq!(draft.put_new(&path).unwrap(), made);
            assert_eq!(
                (names(dir.path()), std::fs::read_to_string(&path).unwrap()),
                (vec!["a".to_string()], "first".into())
            );
        }
    }

    #[test]
    fn what_an_interrupted_try_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".a.tmp"), "half").unwrap();
        let mut draft = Draft::only(dir.path(), "a", 0o640).unwrap();
        assert_eq!(names(dir.path()), [".a.tmp"]);
        draft.write_all(b"whole").unwrap();
        draft.put(&dir.path().join("a")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "whole");
    }
}
