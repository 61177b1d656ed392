//! One settled file: look at it through an open descriptor, copy it into the spool, take it away. The name may mean another file at any moment; only the
//! descriptor is believed.

use super::names;
use crate::case::FileIdentity;
use crate::engine::Refusal;
use crate::publish;
use anyhow::{Context, Result};
use delta_guard_contract::Digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// What a look at a file found.
pub(super) enum Looked<T> {
    /// It is acceptable.
    Good(T),
    /// It is not; why, in a sentence.
    Refused(Refusal, String),
    /// It was changed, replaced or taken away meanwhile: look again at the next scan.
    Changed,
}

/// A copy in the spool folder, under a temporary name.
pub(super) struct Copied {
    pub temporary: PathBuf,
    pub content: Digest,
    pub bytes: u64,
    pub uid: u32,
}

pub(super) fn identity(stat: &Stat) -> FileIdentity {
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_cast,
        reason = "the fields' types differ between platforms"
    )]
    FileIdentity {
        dev: stat.st_dev as u64,
        ino: stat.st_ino as u64,
        size: stat.st_size as u64,
        mtime_ns: (stat.st_mtime as i64)
            .saturating_mul(1_000_000_000)
            .saturating_add(stat.st_mtime_nsec as i64),
    }
}

/// Open without following a link and without waiting for a pipe's writer; look at what was opened.
fn open(inbox: BorrowedFd, name: &OsStr, expected: Option<&FileIdentity>, max_bytes: u64, what: &str) -> Result<Looked<(File, Stat)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = match rustix::fs::openat(inbox, name, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(Looked::Changed),
        Err(Errno::LOOP | Errno::NXIO) => return Ok(not_regular(what)),
        Err(Errno::ACCESS | Errno::PERM) => {
            return Ok(Looked::Refused(
                Refusal::Unreadable,
                format!("the guard has no permission to read the {what}: let its group read it (chmod g+r)"),
            ));
        }
        Err(error) => return Err(io::Error::from(error)).with_context(|| format!("the {what} could not be opened")),
    };
    let stat = rustix::fs::fstat(&file).map_err(io::Error::from)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(not_regular(what));
    }
    if expected.is_some_and(|expected| identity(&stat) != *expected) {
        return Ok(Looked::Changed);
    }
    if stat.st_nlink > 1 {
        let sentence = format!(
            "the {what} has {} names (hard links); somebody could change it behind the guard's back: give a copy",
            stat.st_nlink
        );
        return Ok(Looked::Refused(Refusal::HardLinks, sentence));
    }
    let size = identity(&stat).size;
    if size == 0 {
        return Ok(Looked::Refused(Refusal::Empty, format!("the {what} is empty")));
    }
    if size > max_bytes {
        return Ok(Looked::Refused(
            Refusal::TooLarge,
            format!("the {what} has {size} bytes; at most {max_bytes} are allowed (inbox.max_bytes)"),
        ));
    }
    Ok(Looked::Good((file, stat)))
}

fn not_regular<T>(what: &str) -> Looked<T> {
    Looked::Refused(
        Refusal::NotRegular,
        format!("the {what} is not a regular file but a link, pipe, socket or device"),
    )
}

/// Copy a picture into the spool folder under a temporary name, durably.
pub(super) fn copy(inbox: BorrowedFd, name: &OsStr, expected: &FileIdentity, max_bytes: u64, spool: &Path) -> Result<Looked<Copied>> {
    let (mut file, stat) = match open(inbox, name, Some(expected), max_bytes, "picture")? {
        Looked::Good(opened) => opened,
        Looked::Refused(reason, sentence) => return Ok(Looked::Refused(reason, sentence)),
        Looked::Changed => return Ok(Looked::Changed),
    };
    let mut temporary = tempfile::Builder::new().prefix(".intake-").suffix(".tmp").tempfile_in(spool)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 128 * 1024];
    let mut bytes = 0u64;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        if bytes > expected.size {
            return Ok(Looked::Changed);
        }
        hasher.update(&buffer[..count]);
        temporary.write_all(&buffer[..count])?;
    }
    let after = rustix::fs::fstat(&file).map_err(io::Error::from)?;
    let unchanged = identity(&after) == *expected && after.st_ctime == stat.st_ctime && after.st_ctime_nsec == stat.st_ctime_nsec;
    if bytes != expected.size || !unchanged {
        return Ok(Looked::Changed);
    }
    temporary.as_file().sync_all()?;
    let (_, temporary) = temporary.keep()?;
    let content = Digest(hasher.finalize().to_hex().to_string());
    Ok(Looked::Good(Copied {
        temporary,
        content,
        bytes,
        uid: stat.st_uid,
    }))
}

impl Copied {
    /// Give the copy its name: the digest of its content. Returns when the name is durable.
    pub fn keep(self, spool: &Path) -> Result<()> {
        fs_err::rename(&self.temporary, spool.join(&self.content.0))?;
        Ok(publish::sync_dir(spool)?)
    }

    /// It is not needed.
    pub fn discard(self) {
        // Temporary names are also cleared at the next start.
        let _ = fs_err::remove_file(&self.temporary);
    }
}

/// Read a sidecar.
pub(super) fn read_sidecar(inbox: BorrowedFd, name: &OsStr, expected: &FileIdentity) -> Result<Looked<Vec<u8>>> {
    let (file, _) = match open(inbox, name, Some(expected), super::sidecar::MAX_BYTES, "sidecar")? {
        Looked::Good(opened) => opened,
        Looked::Refused(_, sentence) => return Ok(Looked::Refused(Refusal::BadSidecar, sentence)),
        Looked::Changed => return Ok(Looked::Changed),
    };
    let mut bytes = Vec::new();
    file.take(super::sidecar::MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == expected.size {
        Ok(Looked::Good(bytes))
    } else {
        Ok(Looked::Changed)
    }
}

/// A regular file of at most so many bytes.
pub(super) fn read_small(inbox: BorrowedFd, name: &OsStr, most: u64) -> Result<Vec<u8>> {
    match open(inbox, name, None, most, "file")? {
        Looked::Good((file, _)) => {
            let mut bytes = Vec::new();
            file.take(most).read_to_end(&mut bytes)?;
            Ok(bytes)
        }
        Looked::Refused(_, sentence) => anyhow::bail!(sentence),
        Looked::Changed => anyhow::bail!("it is gone"),
    }
}

/// Remove a file of the inbox, if it is still the one that was read. First it gets a hidden name, then it is compared, then removed: a file that was put
/// in its place meanwhile gets its name back.
pub(super) fn take_away(inbox: BorrowedFd, name: &OsStr, expected: &FileIdentity) -> io::Result<()> {
    let Some(hidden) = names::taken(name) else {
        return match lstat(inbox, name)? {
            Some(found) if found == *expected => Ok(rustix::fs::unlinkat(inbox, name, AtFlags::empty())?),
            _ => Ok(()),
        };
    };
    match rustix::fs::renameat(inbox, name, inbox, &hidden) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    }
    if lstat(inbox, &hidden)?.as_ref() == Some(expected) {
        return Ok(rustix::fs::unlinkat(inbox, &hidden, AtFlags::empty())?);
    }
    Ok(rustix::fs::renameat_with(inbox, &hidden, inbox, name, RenameFlags::NOREPLACE)?)
}

/// The identity of whatever has this name; None when nothing has it.
pub(super) fn lstat(inbox: BorrowedFd, name: &OsStr) -> io::Result<Option<FileIdentity>> {
    match rustix::fs::statat(inbox.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(identity(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
