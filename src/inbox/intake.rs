//! One settled file: look at it through an open descriptor, copy it into the spool, take it away. The name may mean another file at any moment; only the
//! descriptor is believed.

use super::pulse::Pulse;
use super::writers::{self, Writers};
use super::{container, names};
use crate::case::FileIdentity;
use crate::engine::Refusal;
use crate::publish::Draft;
use anyhow::{Context, Result};
use delta_guard_contract::Digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

/// What a look at a file found.
pub(super) enum Looked<T> {
    /// It is acceptable.
    Good(T),
    /// It is not; why, in a sentence.
    Refused(Refusal, String),
    /// It was changed, replaced or taken away meanwhile: look again at the next scan.
    Changed,
    /// Somebody is still at work on it; who, in a sentence.
    Busy(&'static str),
}

/// What an error stands in the way of.
#[derive(Debug)]
pub(super) enum Hitch {
    /// Of this file: the others go on.
    File(anyhow::Error),
    /// Of all of them: without a journal, a spool or the checkpoint nothing is taken in.
    All(anyhow::Error),
}

pub(super) fn of_file(error: impl Into<anyhow::Error>) -> Hitch {
    Hitch::File(error.into())
}

pub(super) fn of_all(error: impl Into<anyhow::Error>) -> Hitch {
    Hitch::All(error.into())
}

/// A file that is being looked at: how long it has been as it is, and how to stop.
pub(super) struct Patience<'a> {
    /// Time since its last change.
    pub quiet: Duration,
    /// A picture that does not end where its format says, and that nobody holds open for writing, is taken as it is after this time.
    pub nobody_writes: Duration,
    /// The same where the system does not say who holds it open.
    pub who_knows: Duration,
    /// Told at each step.
    pub pulse: &'a Pulse,
    /// Is the guard to stop?
    pub stopped: &'a dyn Fn() -> bool,
}

impl Patience<'_> {
    /// May it be taken? `ended`: does it end where its format says?
    fn allows(&self, writers: Writers, ended: bool) -> Result<(), &'static str> {
        match (writers, ended) {
            (Writers::Some, _) => Err("a program still holds it open for writing"),
            (_, true) => Ok(()),
            (Writers::None, false) if self.quiet >= self.nobody_writes => Ok(()),
            (Writers::Unknown, false) if self.quiet >= self.who_knows => Ok(()),
            (_, false) => Err("it ends in the middle: its writer seems to be still at work"),
        }
    }
}

/// A copy in the spool folder, under a temporary name.
pub(super) struct Copied {
    draft: Draft,
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
fn open(inbox: BorrowedFd, name: &OsStr, expected: Option<&FileIdentity>, max_bytes: u64, what: &str) -> io::Result<Looked<(File, Stat)>> {
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
        Err(Errno::WOULDBLOCK) => return Ok(Looked::Busy("a program has a lease on it")),
        Err(error) => return Err(error.into()),
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
pub(super) fn copy(
    inbox: BorrowedFd,
    name: &OsStr,
    expected: &FileIdentity,
    max_bytes: u64,
    spool: &Path,
    patience: &Patience,
) -> Result<Looked<Copied>, Hitch> {
    let (mut file, stat) = match open(inbox, name, Some(expected), max_bytes, "picture").map_err(of_file)? {
        Looked::Good(opened) => opened,
        Looked::Refused(reason, sentence) => return Ok(Looked::Refused(reason, sentence)),
        Looked::Changed => return Ok(Looked::Changed),
        Looked::Busy(who) => return Ok(Looked::Busy(who)),
    };
    let ended = container::has_ended(&file, expected.size).map_err(of_file)?;
    if let Err(who) = patience.allows(writers::of(&file), ended) {
        return Ok(Looked::Busy(who));
    }
    let mut draft = Draft::new(spool, "intake", 0o600).map_err(of_all)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 128 * 1024];
    let mut bytes = 0u64;
    loop {
        patience.pulse.step();
        if (patience.stopped)() {
            return Ok(Looked::Changed);
        }
        let count = file.read(&mut buffer).map_err(of_file)?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        if bytes > expected.size {
            return Ok(Looked::Changed);
        }
        hasher.update(&buffer[..count]);
        draft.write_all(&buffer[..count]).map_err(of_all)?;
    }
    let after = rustix::fs::fstat(&file).map_err(io::Error::from).map_err(of_file)?;
    let unchanged = identity(&after) == *expected && after.st_ctime == stat.st_ctime && after.st_ctime_nsec == stat.st_ctime_nsec;
    if bytes != expected.size || !unchanged {
        return Ok(Looked::Changed);
    }
    draft.sync().map_err(of_all)?;
    let content = Digest(hasher.finalize().to_hex().to_string());
    Ok(Looked::Good(Copied {
        draft,
        content,
        bytes,
        uid: stat.st_uid,
    }))
}

impl Copied {
    /// Give the copy its name: the digest of its content. Returns when the name is durable. Dropped before that, it is removed.
    pub fn keep(self, spool: &Path) -> Result<()> {
        let path = spool.join(&self.content.0);
        self.draft.put(&path).with_context(|| path.display().to_string())
    }
}

/// Read a sidecar.
pub(super) fn read_sidecar(inbox: BorrowedFd, name: &OsStr, expected: &FileIdentity, patience: &Patience) -> Result<Looked<Vec<u8>>, Hitch> {
    patience.pulse.step();
    let (mut file, _) = match open(inbox, name, Some(expected), super::sidecar::MAX_BYTES, "sidecar").map_err(of_file)? {
        Looked::Good(opened) => opened,
        Looked::Refused(_, sentence) => return Ok(Looked::Refused(Refusal::BadSidecar, sentence)),
        Looked::Changed => return Ok(Looked::Changed),
        Looked::Busy(who) => return Ok(Looked::Busy(who)),
    };
    let mut bytes = Vec::new();
    (&mut file).take(super::sidecar::MAX_BYTES + 1).read_to_end(&mut bytes).map_err(of_file)?;
    if let Err(who) = patience.allows(writers::of(&file), super::sidecar::has_ended(&bytes)) {
        return Ok(Looked::Busy(who));
    }
    if bytes.len() as u64 == expected.size {
        Ok(Looked::Good(bytes))
    } else {
        Ok(Looked::Changed)
    }
}

/// A regular file of at most `most` bytes.
pub(super) fn read_small(inbox: BorrowedFd, name: &OsStr, most: u64) -> Result<Vec<u8>> {
    match open(inbox, name, None, most, "file")? {
        Looked::Good((file, _)) => {
            let mut bytes = Vec::new();
            file.take(most).read_to_end(&mut bytes)?;
            Ok(bytes)
        }
        Looked::Refused(_, sentence) => anyhow::bail!(sentence),
        Looked::Busy(who) => anyhow::bail!(who),
        Looked::Changed => anyhow::bail!("it is gone"),
    }
}

/// Has the file of this name exactly this content? No, when it cannot be told: who asks wants to remove it.
pub(super) fn holds(inbox: BorrowedFd, name: &OsStr, file: &FileIdentity, content: &Digest) -> bool {
    match open(inbox, name, Some(file), file.size, "file") {
        Ok(Looked::Good((mut opened, _))) => {
            let mut hasher = blake3::Hasher::new();
            io::copy(&mut opened, &mut hasher).is_ok_and(|bytes| bytes == file.size) && hasher.finalize().to_hex().as_str() == content.0
        }
        _ => false,
    }
}

/// Remove a file of the inbox, if it is still the one that was read. First it gets a hidden name, then it is compared, then removed: a file that was put
/// in its place meanwhile gets its name back.
pub(super) fn take_away(inbox: BorrowedFd, name: &OsStr, expected: &FileIdentity) -> io::Result<()> {
    let mut hidden = None;
    for one in names::taken(name) {
        match rename_new(inbox, name, inbox, &one) {
            Ok(()) => {
                hidden = Some(one);
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    let Some(hidden) = hidden else {
        return match lstat(inbox, name)? {
            Some(found) if found == *expected => Ok(rustix::fs::unlinkat(inbox, name, AtFlags::empty())?),
            _ => Ok(()),
        };
    };
    if lstat(inbox, &hidden)?.as_ref() == Some(expected) {
        let removed = rustix::fs::unlinkat(inbox, &hidden, AtFlags::empty());
        if removed.is_err() {
            // Its removal is tried again under its own name.
            give_back(inbox, &hidden)?;
        }
        return Ok(removed?);
    }
    give_back(inbox, &hidden).map(drop)
}

/// Give a hidden file its name back, or where another file has that by now, one like it; returns it.
pub(super) fn give_back(inbox: BorrowedFd, hidden: &OsStr) -> io::Result<Option<OsString>> {
    let Some(name) = names::untaken(hidden) else { return Ok(None) };
    for one in names::numbered(name) {
        match rename_new(inbox, hidden, inbox, &one) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            outcome => return outcome.map(|()| Some(one)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Give a file another name, which nothing may have yet.
pub(super) fn rename_new(from: BorrowedFd, name: &OsStr, to: BorrowedFd, new: impl AsRef<Path>) -> io::Result<()> {
    let new = new.as_ref();
    match rustix::fs::renameat_with(from, name, to, new, RenameFlags::NOREPLACE) {
        // Network file systems cannot promise it: look first. What comes in between is replaced; nobody but us gives such names.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match lstat(to, new.as_os_str())? {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => Ok(rustix::fs::renameat(from, name, to, new)?),
        },
        outcome => Ok(outcome?),
    }
}

/// The identity of whatever has this name; None when nothing has it.
pub(super) fn lstat(inbox: BorrowedFd, name: &OsStr) -> io::Result<Option<FileIdentity>> {
    match rustix::fs::statat(inbox.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(identity(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
