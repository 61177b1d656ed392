//! What follows for each name: taken in, refused, or left waiting. An error of one file is that file's trouble; the others go on.

use super::intake::{self, Copied, Hitch, Looked, Patience, of_all, of_file};
use super::scan::{EntryKind, Inbox, ScanReport, SeenFile};
use super::{again, names, refused, sidecar};
use crate::case::{Accepted, Claim, FileIdentity, case_id};
use crate::engine::entry::inbox::Note;
use crate::engine::{Happening, Refusal};
use crate::journal::JournalError;
use crate::publish;
use crate::text::escape;
use anyhow::{Context, Result};
use base64::Engine as _;
use delta_guard_contract::Digest;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Instant;

/// A picture without its end that nobody holds open is taken as it is when it has been quiet for this many times `settle`.
const QUIET_SETTLES: u32 = 10;

pub(super) type NamedFile = (OsString, SeenFile);

impl Inbox {
    pub(super) fn deal_with_settled(&mut self, inbox: BorrowedFd, now: Instant, report: &mut ScanReport) -> Result<(), Hitch> {
        let mut groups: BTreeMap<Vec<u8>, Vec<NamedFile>> = BTreeMap::new();
        for (name, seen) in &self.seen {
            if !self.dealt.contains_key(&seen.file) {
                groups.entry(names::stem(name).to_vec()).or_default().push((name.clone(), *seen));
            }
        }
        let mut left: usize = groups.values().map(Vec::len).sum();
        for mut group in groups.into_values() {
            // Before each group, not after all: taking in a long list may last minutes.
            self.hooks.on(Happening::Backlog { files: left });
            left -= group.len();
            self.pulse.step();
            if self.is_stopped() {
                return Ok(());
            }
            group.sort_by(|a, b| a.0.cmp(&b.0));
            if let Some((name, _)) = group.iter().find(|(name, _)| self.troubles.must_wait(name, self.clock.instant())) {
                let why = self.troubles.why(name).to_owned();
                for (name, _) in &group {
                    report.wait(name, &why, self.waited(name));
                }
                continue;
            }
            let first = group.first().map(|(name, _)| name.clone()).unwrap_or_default();
            match self.deal_with_group(inbox, group, now, report) {
                // What was taken in and could not be removed goes on being its trouble.
                Ok(()) if self.seen.get(&first).is_some_and(|seen| self.dealt.contains_key(&seen.file)) => {}
                Ok(()) => self.troubles.over(&first),
                Err(Hitch::File(error)) => self.trouble(&first, format!("{error:#}"), report),
                Err(Hitch::All(error)) => return Err(Hitch::All(error)),
            }
        }
        Ok(())
    }

    /// The files of one stem.
    fn deal_with_group(&mut self, inbox: BorrowedFd, group: Vec<NamedFile>, now: Instant, report: &mut ScanReport) -> Result<(), Hitch> {
        let settle = self.settings.inbox.settle;
        let settled = |seen: &SeenFile| now.saturating_duration_since(seen.since) >= settle;
        let (odd, regular): (Vec<_>, Vec<_>) = group.into_iter().partition(|(_, seen)| seen.kind != EntryKind::Regular);
        for entry in odd {
            let sentence = match entry.1.kind {
                // Somebody may still be copying into it.
                EntryKind::Folder if !settled(&entry.1) => {
                    self.busy(&entry.0, "a folder that is still being written", report);
                    continue;
                }
                EntryKind::Folder => "it is a folder: drop the pictures themselves, not the folder that they lie in",
                _ => "it is not a regular file but a link, pipe, socket or device",
            };
            self.refuse(inbox, &[entry], Refusal::NotRegular, sentence.into())?;
        }
        let (sidecars, pictures): (Vec<_>, Vec<_>) = regular.into_iter().partition(|(name, _)| names::is_sidecar(name));
        if sidecars.is_empty() {
            for picture in pictures {
                if settled(&picture.1) {
                    self.take(inbox, picture, None, now, report)?
                } else {
                    self.busy(&picture.0, "it keeps changing", report);
                }
            }
            return Ok(());
        }
        if !pictures.iter().chain(&sidecars).all(|(_, seen)| settled(seen)) {
            for (name, _) in pictures.iter().chain(&sidecars) {
                self.busy(name, "it, or what belongs to it, keeps changing", report);
            }
            return Ok(());
        }
        if pictures.is_empty() {
            for entry in sidecars {
                if now.saturating_duration_since(entry.1.first) >= self.settings.inbox.sidecar_wait {
                    let sentence =
                        "a sidecar without its picture: give the picture the same name up to the last dot, and drop it with or before the sidecar";
                    self.refuse(inbox, &[entry], Refusal::LoneSidecar, sentence.into())?;
                } else {
                    self.busy(&entry.0, "a sidecar without its picture", report);
                }
            }
            return Ok(());
        }
        match (<[_; 1]>::try_from(pictures), <[_; 1]>::try_from(sidecars)) {
            (Ok([picture]), Ok([sidecar])) => self.take(inbox, picture, Some(sidecar), now, report),
            (pictures, sidecars) => {
                let all = pictures
                    .map_or_else(|many| many, Vec::from)
                    .into_iter()
                    .chain(sidecars.map_or_else(|many| many, Vec::from));
                for entry in all {
                    let sentence = "several pictures or sidecars share one name up to the last dot: it is not clear which belong together";
                    self.refuse(inbox, &[entry], Refusal::AmbiguousSidecar, sentence.into())?;
                }
                Ok(())
            }
        }
    }

    /// How long it has been as it is, and how long that must be.
    fn patience<'a>(&'a self, seen: &SeenFile, now: Instant, stopped: &'a dyn Fn() -> bool) -> Patience<'a> {
        let inbox = &self.settings.inbox;
        Patience {
            quiet: now.saturating_duration_since(seen.since),
            nobody_writes: inbox.settle.saturating_mul(QUIET_SETTLES),
            who_knows: inbox.sidecar_wait.max(inbox.settle.saturating_mul(QUIET_SETTLES)),
            pulse: &self.pulse,
            stopped,
        }
    }

    /// A complete picture: check, spool, record, remove. In this order.
    fn take(&mut self, inbox: BorrowedFd, picture: NamedFile, beside: Option<NamedFile>, now: Instant, report: &mut ScanReport) -> Result<(), Hitch> {
        let entries: Vec<NamedFile> = std::iter::once(picture.clone()).chain(beside.clone()).collect();
        let mut claim = Claim::default();
        let mut sidecar_content = None;
        if let Some((name, seen)) = &beside {
            let looked = intake::read_sidecar(inbox, name, &seen.file, &self.patience(seen, now, &|| false))?;
            match looked {
                Looked::Good(bytes) => match sidecar::parse(&bytes) {
                    Ok(said) => {
                        claim = said;
                        sidecar_content = Some(Digest(blake3::hash(&bytes).to_hex().to_string()));
                    }
                    Err(sentence) => return self.refuse(inbox, &entries, Refusal::BadSidecar, sentence),
                },
                Looked::Refused(reason, sentence) => return self.refuse(inbox, &entries, reason, sentence),
                other => {
                    self.looked(name, other, report);
                    // Its picture waits with it.
                    self.busy(&picture.0, "its sidecar is not complete", report);
                    return Ok(());
                }
            }
        }
        let (name, seen) = picture;
        let file = seen.file;
        let spool = self.settings.spool_dir();
        let checkpoint = self.checkpoint().map_err(of_all)?;
        let max_bytes = self.settings.inbox.limits.max_bytes;
        let stopped = || self.is_stopped();
        let looked = intake::copy(inbox, &name, &file, max_bytes, &spool, &self.patience(&seen, now, &stopped))?;
        let copied = match looked {
            Looked::Refused(reason, sentence) => return self.refuse(inbox, &entries, reason, sentence),
            other => match self.looked(&name, other, report) {
                Some(copied) => copied,
                None => return Ok(()),
            },
        };
        let contents = [Some(copied.content.clone()), sidecar_content];
        self.record(&entries, copied, &contents, claim, checkpoint)?;
        for ((name, seen), content) in entries.into_iter().zip(contents) {
            match intake::take_away(inbox, &name, &seen.file) {
                Ok(()) => drop(self.seen.remove(&name)),
                Err(error) => {
                    self.trouble(&name, format!("it was taken in, but cannot be removed: {error}"), report);
                    self.dealt.insert(seen.file, content);
                }
            }
        }
        Ok(())
    }

    /// A new case, or one more submission of a known one. `contents`: of the picture and its sidecar.
    fn record(&mut self, entries: &[NamedFile], copied: Copied, contents: &[Option<Digest>], claim: Claim, checkpoint: Digest) -> Result<(), Hitch> {
        let Some((name, seen)) = entries.first() else { return Ok(()) };
        let (id, shown) = (case_id(&copied.content, &claim, &checkpoint), escape(name.as_bytes()));
        let recorded = if self.ledger.is_known(&id) {
            drop(copied);
            // Before the record: after a crash in between it is done again.
            again::leave_note(&self.ledger, &self.settings, &id, name).map_err(of_all)?;
            self.tell_again(&id, &shown, &seen.file, claim.mail)?;
            let note = Note::Duplicate {
                of: id.clone(),
                name: shown,
                files: entries.iter().map(|(_, seen)| seen.file).collect(),
                contents: contents.iter().flatten().cloned().collect(),
            };
            self.ledger.note(note).map(|()| self.hooks.on(Happening::Duplicate { of: id }))
        } else {
            let accepted = Accepted {
                content: copied.content.clone(),
                bytes: copied.bytes,
                name: shown.clone(),
                name_base64: base64::engine::general_purpose::STANDARD.encode(name.as_bytes()),
                claim,
                checkpoint,
                file: seen.file,
                sidecar: entries.get(1).map(|(_, seen)| seen.file),
                sidecar_content: contents.get(1).cloned().flatten(),
                uid: copied.uid,
            };
            copied.keep(&self.settings.spool_dir()).map_err(of_all)?;
            fail::fail_point!("inbox::before_accept");
            let recorded = self.ledger.accept(&id, accepted);
            fail::fail_point!("inbox::after_accept");
            recorded.map(|()| self.hooks.on(Happening::Accepted { case: id, name: shown }))
        };
        recorded.map_err(of_record)
    }

    /// Recorded first, then moved. What was recorded and could not be moved is judged again at the next try, and moved without a second record.
    fn refuse(&mut self, inbox: BorrowedFd, entries: &[NamedFile], reason: Refusal, sentence: String) -> Result<(), Hitch> {
        let Some((name, first)) = entries.first() else { return Ok(()) };
        let files = entries.iter().map(|(_, seen)| seen.file).collect();
        let record = match self.refused.get(&first.file) {
            Some(recorded) if recorded.reason == reason => recorded.clone(),
            _ => {
                let record = refused::record(name, reason, sentence.clone(), files);
                self.tell_refused(inbox, entries, &record)?;
                self.ledger.note(Note::FileRefused(record.clone())).map_err(of_record)?;
                self.hooks.on(Happening::Refused {
                    reason,
                    name: record.name.clone(),
                    sentence,
                });
                record
            }
        };
        self.refused.retain(|file, _| self.seen.values().any(|seen| seen.file == *file));
        self.refused.insert(first.file, record.clone());
        let names: Vec<OsString> = entries.iter().map(|(name, _)| name.clone()).collect();
        refused::move_away(inbox, &names, &record, &self.settings)
            .context("it was refused, but cannot be moved away")
            .map_err(of_file)?;
        self.refused.remove(&first.file);
        for name in &names {
            self.seen.remove(name);
        }
        Ok(())
    }

    /// Digest of the production checkpoint; read again only when the file was changed.
    fn checkpoint(&mut self) -> Result<Digest> {
        let path = &self.settings.model.checkpoint;
        let missing = "nothing is taken in without the production checkpoint (model.checkpoint)";
        let identity = |path: &PathBuf| {
            let meta = fs_err::metadata(path)?;
            Ok(FileIdentity {
                dev: meta.dev(),
                ino: meta.ino(),
                size: meta.len(),
                mtime_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
            })
        };
        let files = publish::checkpoint_files(path).context(missing)?;
        let files = files.iter().map(identity).collect::<io::Result<Vec<_>>>().context(missing)?;
        match &self.checkpoint {
            Some((known, digest)) if *known == files => Ok(digest.clone()),
            _ => {
                let digest = publish::digest_checkpoint(path, &mut || self.pulse.step()).context(missing)?;
                self.checkpoint = Some((files, digest.clone()));
                Ok(digest)
            }
        }
    }
}

/// A journal that cannot be written stops everything; a record without room is its file's trouble.
pub(super) fn of_record(error: JournalError) -> Hitch {
    match error {
        JournalError::TooLarge { .. } => of_file(error),
        _ => of_all(error),
    }
}
