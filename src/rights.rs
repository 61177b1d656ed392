//! Who else may read: the members of `paths.group` see the journal and the cases, and so `cases`, `show`, `flagged`, `journal verify` and `submit --wait` answer
//! them. Pictures that were handed in, caches, the index and the installation's secret stay the guard's own.

use crate::publish;
use crate::settings::Settings;
use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Gid, Mode};
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

/// Folders of the state folder that nobody else reads.
const PRIVATE: [&str; 5] = ["spool", "index", "cache", "factors", "work"];

/// The number of a group, by its name (or by its number) as the system knows it.
///
/// # Errors
/// A sentence, when there is none.
pub fn group(name: &str) -> Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let from = |text: &str| {
        let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
        line.split(':').nth(2)?.parse().ok()
    };
    // getent also knows groups of a directory service; the file is for machines without it.
    let asked = Command::new("getent").args(["group", "--", name]).output();
    asked
        .ok()
        .and_then(|output| from(&String::from_utf8_lossy(&output.stdout)))
        .or_else(|| from(&std::fs::read_to_string("/etc/group").unwrap_or_default()))
        .with_context(|| format!("there is no group {name:?}"))
}

/// Give the group its rights, in what is there and in what will be made. Nothing where no group is configured.
///
/// # Errors
/// When there is no such group, or the guard's user is not a member of it.
pub fn share(settings: &Settings) -> Result<()> {
    let Some(name) = &settings.group else { return Ok(()) };
    let number = group(name)?;
    rustix::process::umask(Mode::from_raw_mode(0o027));
    for private in PRIVATE {
        let dir = settings.state_dir.join(private);
        publish::make_dir(&dir)?;
        fs_err::set_permissions(&dir, Permissions::from_mode(0o700))?;
    }
    // To be passed through only: what is made in it later is not shared by accident.
    give(&settings.state_dir, number, 0o710)?;
    for shared in [settings.journal_dir(), settings.cases_dir()] {
        publish::make_dir(&shared)?;
        descend(&shared, number)?;
    }
    Ok(())
}

/// A folder, and everything in it that has not been given yet. What is made in it later has its group by the setgid bit.
fn descend(dir: &Path, number: u32) -> Result<()> {
    give(dir, number, 0o2750)?;
    for entry in fs_err::read_dir(dir)? {
        let path = entry?.path();
        let meta = fs_err::symlink_metadata(&path)?;
        if meta.is_dir() {
            descend(&path, number)?;
        } else if meta.is_file() && path.file_name().is_some_and(|name| name != "LOCK") {
            give(&path, number, 0o640)?;
        }
    }
    Ok(())
}

fn give(path: &Path, number: u32, mode: u32) -> Result<()> {
    let meta = fs_err::symlink_metadata(path)?;
    if meta.gid() != number {
        rustix::fs::chownat(CWD, path, None, Some(Gid::from_raw(number)), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(std::io::Error::from)
            .with_context(|| {
                format!(
                    "{} cannot be given to the group of paths.group: the guard's user must be a member of it",
                    path.display()
                )
            })?;
    }
    // After the change of owner, which takes the setgid bit away.
    if fs_err::symlink_metadata(path)?.mode() & 0o7777 != mode {
        fs_err::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}
