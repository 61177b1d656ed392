//! Listing the folder, and what follows for each name.

use super::intake::{self, Looked};
use super::{names, refused, sidecar};
use crate::case::{Accepted, Claim, FileIdentity, case_id};
use crate::clock::Clock;
use crate::engine::{Event, Hooks, LastFile, Ledger, Note, Refusal, RefusedFile, escape};
use crate::publish;
use crate::settings::Settings;
use anyhow::{Context, Result};
use base64::Engine as _;
use delta_guard_contract::Digest;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The inbox and what it remembers between scans.
pub struct Inbox {
    settings: Arc<Settings>,
    ledger: Arc<Ledger>,
    hooks: Arc<dyn Hooks>,
    clock: Arc<dyn Clock>,
    seen: HashMap<OsString, Seen>,
    /// Files that were dealt with and are still there (their removal failed, or a crash cut it off).
    dealt: HashMap<FileIdentity, Dealt>,
    checkpoint: Option<(FileIdentity, Digest)>,
    ignored: HashSet<OsString>,
    started: bool,
}

/// A name, and since when it means the same unchanged file.
#[derive(Clone, Copy)]
struct Seen {
    file: FileIdentity,
    regular: bool,
    since: Instant,
    first: Instant,
}

#[derive(Clone)]
enum Dealt {
    Remove,
    Refuse(RefusedFile),
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Names listed.
    pub names: usize,
    /// Files that are not complete yet.
    pub waiting: usize,
    /// What stood in the way of the inbox as a whole or of single files.
    pub trouble: Option<String>,
}

impl Inbox {
    /// The inbox of `settings`.
    pub fn new(settings: Arc<Settings>, ledger: Arc<Ledger>, hooks: Arc<dyn Hooks>, clock: Arc<dyn Clock>) -> Self {
        let dealt = match ledger.last_file() {
            Some(LastFile::Taken(files)) => files.into_iter().map(|file| (file, Dealt::Remove)).collect(),
            Some(LastFile::Refused(refused)) => refused
                .files
                .first()
                .map(|file| (*file, Dealt::Refuse(refused.clone())))
                .into_iter()
                .collect(),
            None => HashMap::new(),
        };
        Self {
            settings,
            ledger,
            hooks,
            clock,
            seen: HashMap::new(),
            dealt,
            checkpoint: None,
            ignored: HashSet::new(),
            started: false,
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.settings.inbox.dir
    }

    pub(super) fn hooks(&self) -> &dyn Hooks {
        self.hooks.as_ref()
    }

    pub(super) fn settle(&self) -> Duration {
        self.settings.inbox.settle
    }

    pub(super) fn scan_interval(&self) -> Duration {
        self.settings.inbox.scan_interval
    }

    /// List the folder once and deal with what is complete.
    pub fn scan(&mut self) -> ScanReport {
        let began = Instant::now();
        let mut report = ScanReport::default();
        if let Err(error) = self.scan_all(&mut report) {
            report.trouble = Some(format!("{error:#}"));
        }
        if let Some(message) = &report.trouble {
            self.hooks.on(Event::InboxTrouble { message: message.clone() });
        }
        self.hooks.on(Event::Waiting { files: report.waiting });
        self.hooks.on(Event::Backlog { files: self.seen.len() });
        self.hooks.on(Event::Scanned {
            names: report.names,
            took: began.elapsed(),
        });
        report
    }

    fn scan_all(&mut self, report: &mut ScanReport) -> Result<()> {
        let dir = self.dir().to_path_buf();
        let open = rustix::fs::openat(CWD, &dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let inbox: OwnedFd = open
            .map_err(io::Error::from)
            .with_context(|| format!("the inbox {} cannot be opened", dir.display()))?;
        if !self.started {
            self.bring_back(inbox.as_fd())?;
            self.started = true;
        }
        let now = self.clock.instant();
        let mut listed = HashSet::new();
        for entry in Dir::read_from(&inbox).map_err(io::Error::from)? {
            let name = OsString::from_vec(entry.map_err(io::Error::from)?.file_name().to_bytes().to_vec());
            if name != "." && name != ".." {
                self.look(inbox.as_fd(), name, now, &mut listed, report)?;
            }
        }
        report.names = listed.len();
        self.seen.retain(|name, _| listed.contains(name));
        self.ignored.retain(|name| listed.contains(name));
        self.clear_dealt(inbox.as_fd(), report);
        self.deal_with_settled(inbox.as_fd(), now, report)
    }

    /// Files that a crash left under a hidden name on their way out: removed if they were the last ones dealt with, else given their names back.
    fn bring_back(&self, inbox: BorrowedFd) -> Result<()> {
        for entry in Dir::read_from(inbox).map_err(io::Error::from)? {
            let hidden = OsString::from_vec(entry.map_err(io::Error::from)?.file_name().to_bytes().to_vec());
            let Some(name) = names::untaken(&hidden) else { continue };
            if intake::lstat(inbox, &hidden)?.is_some_and(|file| matches!(self.dealt.get(&file), Some(Dealt::Remove))) {
                rustix::fs::unlinkat(inbox, &hidden, AtFlags::empty()).map_err(io::Error::from)?;
            } else if rustix::fs::renameat_with(inbox, &hidden, inbox, name, RenameFlags::NOREPLACE).is_err() {
                tracing::warn!(name = escape(hidden.as_bytes()), "a file of the inbox could not get its name back");
            }
        }
        Ok(())
    }

    fn look(&mut self, inbox: BorrowedFd, name: OsString, now: Instant, listed: &mut HashSet<OsString>, report: &mut ScanReport) -> Result<()> {
        if names::is_unfinished(&name) {
            report.waiting += usize::from(!name.as_bytes().starts_with(b"."));
            return Ok(());
        }
        let stat = match rustix::fs::statat(inbox, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(io::Error::from(error)).with_context(|| escape(name.as_bytes())),
        };
        listed.insert(name.clone());
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            if self.ignored.insert(name.clone()) {
                tracing::warn!(name = escape(name.as_bytes()), "a folder in the inbox is left alone");
            }
            return Ok(());
        }
        let (file, regular) = (intake::identity(&stat), kind == FileType::RegularFile);
        match self.seen.get_mut(&name) {
            Some(seen) if seen.file == file && seen.regular == regular => {}
            Some(seen) => {
                *seen = Seen {
                    file,
                    regular,
                    since: now,
                    first: seen.first,
                }
            }
            None => {
                self.hooks.on(Event::FileSeen);
                self.seen.insert(
                    name,
                    Seen {
                        file,
                        regular,
                        since: now,
                        first: now,
                    },
                );
            }
        }
        Ok(())
    }

    /// Try again to remove what was dealt with.
    fn clear_dealt(&mut self, inbox: BorrowedFd, report: &mut ScanReport) {
        if self.dealt.is_empty() {
            return;
        }
        let present: Vec<(OsString, FileIdentity)> = self.seen.iter().map(|(name, seen)| (name.clone(), seen.file)).collect();
        for (name, file) in &present {
            let outcome = match self.dealt.get(file) {
                None => continue,
                Some(Dealt::Remove) => intake::take_away(inbox, name, file).map_err(anyhow::Error::from),
                Some(Dealt::Refuse(refused)) => {
                    let sidecars = present
                        .iter()
                        .filter(|(_, other)| other != file && refused.files.contains(other))
                        .map(|(name, _)| name.clone());
                    let names: Vec<OsString> = std::iter::once(name.clone()).chain(sidecars).collect();
                    refused::move_away(inbox, &names, refused, &self.settings)
                }
            };
            match outcome {
                Ok(()) => drop(self.seen.remove(name)),
                Err(error) => {
                    let message = format!(
                        "{} was dealt with, but cannot be removed from the inbox: {error:#}",
                        escape(name.as_bytes())
                    );
                    report.trouble.get_or_insert(message);
                }
            }
        }
        let still: HashSet<FileIdentity> = self.seen.values().map(|seen| seen.file).collect();
        self.dealt.retain(|file, _| still.contains(file));
    }

    fn deal_with_settled(&mut self, inbox: BorrowedFd, now: Instant, report: &mut ScanReport) -> Result<()> {
        let mut groups: BTreeMap<Vec<u8>, Vec<(OsString, Seen)>> = BTreeMap::new();
        for (name, seen) in &self.seen {
            if !self.dealt.contains_key(&seen.file) {
                groups.entry(names::stem(name).to_vec()).or_default().push((name.clone(), *seen));
            }
        }
        let mut left: usize = groups.values().map(Vec::len).sum();
        for mut group in groups.into_values() {
            // Before each group, not after all: taking in a long list may last minutes.
            self.hooks.on(Event::Backlog { files: left });
            left -= group.len();
            group.sort_by(|a, b| a.0.cmp(&b.0));
            let (odd, regular): (Vec<_>, Vec<_>) = group.into_iter().partition(|(_, seen)| !seen.regular);
            for entry in odd {
                let sentence = "it is not a regular file but a link, pipe, socket or device";
                self.refuse(inbox, &[entry], Refusal::NotRegular, sentence.into())?;
            }
            let (sidecars, pictures): (Vec<_>, Vec<_>) = regular.into_iter().partition(|(name, _)| names::is_sidecar(name));
            self.deal_with(inbox, pictures, sidecars, now, report)?;
        }
        Ok(())
    }

    /// The files of one stem.
    fn deal_with(
        &mut self,
        inbox: BorrowedFd,
        pictures: Vec<(OsString, Seen)>,
        sidecars: Vec<(OsString, Seen)>,
        now: Instant,
        report: &mut ScanReport,
    ) -> Result<()> {
        let settle = self.settings.inbox.settle;
        let settled = |seen: &Seen| now.saturating_duration_since(seen.since) >= settle;
        if sidecars.is_empty() {
            for picture in pictures {
                if settled(&picture.1) {
                    self.take(inbox, picture, None, report)?
                } else {
                    report.waiting += 1
                }
            }
            return Ok(());
        }
        if !pictures.iter().chain(&sidecars).all(|(_, seen)| settled(seen)) {
            report.waiting += pictures.len() + sidecars.len();
            return Ok(());
        }
        if pictures.is_empty() {
            for entry in sidecars {
                if now.saturating_duration_since(entry.1.first) >= self.settings.inbox.sidecar_wait {
                    let sentence =
                        "a sidecar without its picture: give the picture the same name up to the last dot, and drop it with or before the sidecar";
                    self.refuse(inbox, &[entry], Refusal::LoneSidecar, sentence.into())?;
                } else {
                    report.waiting += 1;
                }
            }
            return Ok(());
        }
        match (<[_; 1]>::try_from(pictures), <[_; 1]>::try_from(sidecars)) {
            (Ok([picture]), Ok([sidecar])) => self.take(inbox, picture, Some(sidecar), report),
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

    /// A complete picture: check, spool, record, remove. In this order.
    fn take(&mut self, inbox: BorrowedFd, picture: (OsString, Seen), beside: Option<(OsString, Seen)>, report: &mut ScanReport) -> Result<()> {
        let entries: Vec<(OsString, Seen)> = std::iter::once(picture.clone()).chain(beside.clone()).collect();
        let mut claim = Claim::default();
        if let Some((name, seen)) = &beside {
            match intake::read_sidecar(inbox, name, &seen.file)? {
                Looked::Good(bytes) => match sidecar::parse(&bytes) {
                    Ok(said) => claim = said,
                    Err(sentence) => return self.refuse(inbox, &entries, Refusal::BadSidecar, sentence),
                },
                Looked::Refused(reason, sentence) => return self.refuse(inbox, &entries, reason, sentence),
                Looked::Changed => {
                    self.unsettle(name, report);
                    return Ok(());
                }
            }
        }
        let (name, Seen { file, .. }) = picture;
        let spool = self.settings.spool_dir();
        let checkpoint = self.checkpoint()?;
        let copied = match intake::copy(inbox, &name, &file, self.settings.inbox.limits.max_bytes, &spool)? {
            Looked::Good(copied) => copied,
            Looked::Refused(reason, sentence) => return self.refuse(inbox, &entries, reason, sentence),
            Looked::Changed => {
                self.unsettle(&name, report);
                return Ok(());
            }
        };
        let id = case_id(&copied.content, &claim, &checkpoint);
        let files: Vec<FileIdentity> = entries.iter().map(|(_, seen)| seen.file).collect();
        let shown = escape(name.as_bytes());
        if self.ledger.is_known(&id) {
            copied.discard();
            self.ledger.note(&Note::Duplicate {
                of: id.clone(),
                name: shown,
                files,
            })?;
            self.hooks.on(Event::Duplicate { of: id });
        } else {
            let accepted = Accepted {
                content: copied.content.clone(),
                bytes: copied.bytes,
                name: shown.clone(),
                name_base64: base64::engine::general_purpose::STANDARD.encode(name.as_bytes()),
                claim,
                checkpoint,
                file,
                sidecar: beside.as_ref().map(|(_, seen)| seen.file),
                uid: copied.uid,
            };
            copied.keep(&spool)?;
            fail::fail_point!("inbox::before_accept");
            self.ledger.accept(&id, accepted)?;
            fail::fail_point!("inbox::after_accept");
            self.hooks.on(Event::Accepted { case: id, name: shown });
        }
        for (name, seen) in entries {
            self.seen.remove(&name);
            if let Err(error) = intake::take_away(inbox, &name, &seen.file) {
                report.trouble.get_or_insert(format!(
                    "{} was taken in, but cannot be removed from the inbox: {error}",
                    escape(name.as_bytes())
                ));
                self.dealt.insert(seen.file, Dealt::Remove);
            }
        }
        Ok(())
    }

    /// Recorded first, then moved.
    fn refuse(&mut self, inbox: BorrowedFd, entries: &[(OsString, Seen)], reason: Refusal, sentence: String) -> Result<()> {
        let Some((name, first)) = entries.first() else { return Ok(()) };
        let files = entries.iter().map(|(_, seen)| seen.file).collect();
        let record = refused::record(name, reason, sentence.clone(), files);
        self.ledger.note(&Note::FileRefused(record.clone()))?;
        self.hooks.on(Event::Refused {
            reason,
            name: record.name.clone(),
            sentence,
        });
        let names: Vec<OsString> = entries.iter().map(|(name, _)| name.clone()).collect();
        for name in &names {
            self.seen.remove(name);
        }
        refused::move_away(inbox, &names, &record, &self.settings).inspect_err(|_| {
            self.dealt.insert(first.file, Dealt::Refuse(record));
        })
    }

    /// It changed while we looked: it has to settle anew.
    fn unsettle(&mut self, name: &OsStr, report: &mut ScanReport) {
        report.waiting += 1;
        if let Some(seen) = self.seen.get_mut(name) {
            seen.since = self.clock.instant();
        }
    }

    /// Digest of the production checkpoint; read again only when the file was changed.
    fn checkpoint(&mut self) -> Result<Digest> {
        let path = &self.settings.model.checkpoint;
        let meta = fs_err::metadata(path).context("nothing is taken in without the production checkpoint (model.checkpoint)")?;
        let mtime_ns = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
        let file = FileIdentity {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.len(),
            mtime_ns,
        };
        match &self.checkpoint {
            Some((known, digest)) if *known == file => Ok(digest.clone()),
            _ => {
                let digest = publish::digest_file(path).context("nothing is taken in without the production checkpoint (model.checkpoint)")?;
                self.checkpoint = Some((file, digest.clone()));
                Ok(digest)
            }
        }
    }
}
