//! What was not acceptable goes to `refused/`, with a `<name>.reason.json` that a person understands.

use super::intake::rename_new;
use super::names;
use crate::case::Case;
use crate::engine::{Refusal, RefusedFile};
use crate::publish;
use crate::settings::Settings;
use anyhow::Result;
use base64::Engine as _;
use rustix::fs::CWD;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Content of a reason file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The file's name, escaped.
    pub file: String,
    /// The same, byte for byte.
    pub name_base64: String,
    /// Which reason, one of a closed set.
    pub reason: Refusal,
    /// In a sentence.
    pub sentence: String,
    /// What to do; may be empty.
    pub help: String,
    /// The case that it had become, if it had.
    pub case: Option<String>,
}

/// Move a refused file (and its sidecar) out of the inbox and say why. Repeating it after a crash does the rest of it.
pub(super) fn move_away(inbox: BorrowedFd, names: &[OsString], file: &RefusedFile, settings: &Settings) -> Result<()> {
    let dir = &settings.inbox.refused_dir;
    publish::make_public_dir(dir)?;
    let Some(first) = names.first() else { return Ok(()) };
    let target = free_name(dir, first);
    let reason = Reason {
        file: file.name.clone(),
        name_base64: file.name_base64.clone(),
        reason: file.reason,
        sentence: file.sentence.clone(),
        help: String::new(),
        case: None,
    };
    write_reason(dir, &target, &reason)?;
    move_one(inbox, first, dir, &target, settings.inbox.limits.max_bytes)?;
    for sidecar in &names[1..] {
        move_one(inbox, sidecar, dir, &free_name(dir, sidecar), super::sidecar::MAX_BYTES)?;
    }
    Ok(publish::sync_dir(dir)?)
}

/// The name is free when neither a file nor a reason has it. One thread moves files, so that it stays free.
fn free_name(dir: &Path, name: &OsStr) -> String {
    let safe = names::safe(name);
    let taken = |name: &str| dir.join(name).symlink_metadata().is_ok();
    (1u64..)
        .map(|n| if n == 1 { safe.clone() } else { format!("{n}-{safe}") })
        .find(|name| !taken(name))
        .unwrap_or(safe)
}

/// Lay only a reason down, without a file beside it.
pub(super) fn leave_note(dir: &Path, name: &OsStr, reason: &Reason) -> Result<()> {
    publish::make_dir(dir)?;
    let safe = names::safe(name);
    let taken = |name: &str| {
        let other = fs_err::read(dir.join(format!("{name}.reason.json"))).ok();
        let other = other.and_then(|bytes| serde_json::from_slice::<Reason>(&bytes).ok());
        dir.join(name).symlink_metadata().is_ok() || other.is_some_and(|other| other.case != reason.case)
    };
    let case = reason.case.as_deref().and_then(|case| case.get(..12)).unwrap_or_default();
    let target = if taken(&safe) { format!("{case}-again-{safe}") } else { safe };
    write_reason(dir, &target, reason)
}

fn write_reason(dir: &Path, name: &str, reason: &Reason) -> Result<()> {
    publish::publish_file(
        dir,
        &format!("{name}.reason.json"),
        &[&serde_json::to_vec_pretty(reason)?[..], b"\n"].concat(),
    )
}

fn move_one(inbox: BorrowedFd, name: &OsStr, dir: &Path, target: &str, most: u64) -> Result<()> {
    match rename_new(inbox, name, CWD, dir.join(target)) {
        Ok(()) => Ok(()),
        // Its owner took it away: just as well.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => move_over(inbox, name, dir, target, most),
        Err(error) => Err(error.into()),
    }
}

/// Another file system: a file of acceptable size is copied; what cannot be copied safely stays in the inbox under a hidden name.
fn move_over(inbox: BorrowedFd, name: &OsStr, dir: &Path, target: &str, most: u64) -> Result<()> {
    match super::intake::read_small(inbox, name, most) {
        Ok(bytes) => {
            publish::publish_file(dir, target, &bytes)?;
            rustix::fs::unlinkat(inbox, name, rustix::fs::AtFlags::empty()).map_err(io::Error::from)?;
        }
        Err(_) => {
            let hidden = OsString::from_vec([names::REFUSED, names::safe(name).as_bytes()].concat());
            rustix::fs::renameat(inbox, name, inbox, &hidden).map_err(io::Error::from)?;
        }
    }
    Ok(())
}

/// Give the picture of a refused case back, with the reason. Repeating it changes nothing.
pub fn return_picture(case: &Case, reason: Refusal, settings: &Settings) -> Result<()> {
    let dir = &settings.inbox.refused_dir;
    publish::make_public_dir(dir)?;
    let engine = base64::engine::general_purpose::STANDARD;
    let name = OsString::from_vec(engine.decode(&case.accepted.name_base64)?);
    // The case's own digits keep two pictures of one name apart, and a repetition at its place.
    let safe = names::safe(&name);
    let plain = dir.join(format!("{safe}.reason.json"));
    let ours = fs_err::read(&plain)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Reason>(&bytes).ok())
        .is_some_and(|r| r.case.as_ref() == Some(&case.id.0));
    let free = plain.symlink_metadata().is_err() && dir.join(&safe).symlink_metadata().is_err();
    let target = if ours || free { safe } else { format!("{}-{safe}", case.id.short()) };
    let reason = Reason {
        file: case.accepted.name.clone(),
        name_base64: case.accepted.name_base64.clone(),
        reason,
        sentence: case.reason.clone(),
        help: case.help.clone(),
        case: Some(case.id.0.clone()),
    };
    write_reason(dir, &target, &reason)?;
    let bytes = fs_err::read(settings.spool_dir().join(&case.accepted.content.0))?;
    publish::publish_file(dir, &target, &bytes)
}

/// The record of a refused file.
pub(super) fn record(name: &OsStr, reason: Refusal, sentence: String, files: Vec<crate::case::FileIdentity>) -> RefusedFile {
    RefusedFile {
        reason,
        sentence,
        name: crate::text::escape(name.as_bytes()),
        name_base64: base64::engine::general_purpose::STANDARD.encode(name.as_bytes()),
        files,
    }
}
