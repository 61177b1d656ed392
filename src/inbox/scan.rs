//! Listing the folder: what is there, since when, and what is left from before.

use super::intake::{self, Hitch, Looked};
use super::pulse::Pulse;
use super::trouble::Troubles;
use super::{lock, names};
use crate::case::FileIdentity;
use crate::clock::Clock;
use crate::engine::{Happening, Hooks, LastFile, Ledger, RefusedFile};
use crate::settings::Settings;
use crate::stop::Stop;
use crate::text::escape;
use anyhow::{Context, Result};
use delta_guard_contract::Digest;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What waits longer than this is told.
const OVERDUE: Duration = Duration::from_secs(600);
/// At most this many overdue files are told by name.
const MOST_NOTES: usize = 5;
/// The folder that file systems make for their own use at the top of a disk.
const LOST_AND_FOUND: &str = "lost+found";

/// The inbox and what it remembers between scans.
pub struct Inbox {
    pub(super) settings: Arc<Settings>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) hooks: Arc<dyn Hooks>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) seen: HashMap<OsString, SeenFile>,
    /// Names that their writers have not finished yet, and since when.
    unfinished: HashMap<OsString, Instant>,
    /// Files that were taken in and are still there (their removal failed, or a crash cut it off), with the digest of what was taken in.
    pub(super) dealt: HashMap<FileIdentity, Option<Digest>>,
    /// The file that was refused last: its move may have been cut off. It is judged again, but not recorded again.
    pub(super) refused: HashMap<FileIdentity, RefusedFile>,
    pub(super) troubles: Troubles,
    pub(super) checkpoint: Option<(Vec<FileIdentity>, Digest)>,
    lock: lock::InboxLock,
    pub(super) pulse: Arc<Pulse>,
    stop: Option<Stop>,
}

/// A name, and since when it means the same unchanged file.
#[derive(Clone, Copy)]
pub(super) struct SeenFile {
    pub file: FileIdentity,
    pub kind: EntryKind,
    pub since: Instant,
    pub first: Instant,
}

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    Regular,
    Folder,
    Other,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Names listed.
    pub names: usize,
    /// Files that are not complete yet, or cannot be dealt with at the moment.
    pub waiting: usize,
    /// Those of them that have been waiting for more than ten minutes.
    pub overdue: usize,
    /// Which, and why; the first few.
    pub notes: Vec<String>,
    /// What stood in the way of the inbox as a whole.
    pub trouble: Option<String>,
}

impl ScanReport {
    /// A file waits since `first`; why, in a sentence after its name.
    pub(super) fn wait(&mut self, name: &OsStr, why: &str, waited: Duration) {
        self.waiting += 1;
        if waited < OVERDUE {
            return;
        }
        self.overdue += 1;
        if self.notes.len() < MOST_NOTES {
            let minutes = waited.as_secs() / 60;
            self.notes.push(format!(
                "{} has been waiting in the inbox for {minutes} minutes: {why}",
                escape(name.as_bytes())
            ));
        }
    }

    /// Is there something whose end may come soon?
    pub fn expects(&self) -> bool {
        self.waiting > self.overdue
    }
}

impl Inbox {
    /// The inbox of `settings`.
    pub fn new(settings: Arc<Settings>, ledger: Arc<Ledger>, hooks: Arc<dyn Hooks>, clock: Arc<dyn Clock>) -> Self {
        let (mut dealt, mut refused) = (HashMap::new(), HashMap::new());
        match ledger.last_file() {
            Some(LastFile::Taken(files)) => dealt.extend(files),
            Some(LastFile::Refused(file)) => refused.extend(file.files.first().map(|first| (*first, file.clone()))),
            None => {}
        }
        Self {
            settings,
            ledger,
            hooks,
            clock,
            seen: HashMap::new(),
            unfinished: HashMap::new(),
            dealt,
            refused,
            troubles: Troubles::default(),
            checkpoint: None,
            lock: lock::InboxLock::default(),
            pulse: Arc::default(),
            stop: None,
        }
    }

    /// Let it stop in the midst of a scan.
    pub fn stops_with(mut self, stop: Stop) -> Self {
        self.stop = Some(stop);
        self
    }

    /// How its thread gets on.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(Stop::is_stopped)
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
        self.pulse.step();
        if let Err(error) = self.scan_all(&mut report) {
            report.trouble = Some(format!("{error:#}"));
        }
        self.pulse.rest();
        if let Some(message) = &report.trouble {
            self.hooks.on(Happening::InboxTrouble { message: message.clone() });
        }
        self.hooks.on(Happening::Waiting {
            files: report.waiting,
            overdue: report.overdue,
        });
        self.hooks.on(Happening::Backlog { files: self.seen.len() });
        self.hooks.on(Happening::Scanned {
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
        self.lock.hold(&inbox, &dir)?;
        let now = self.clock.instant();
        let mut listed = HashSet::new();
        let mut hidden = Vec::new();
        for entry in Dir::read_from(&inbox).map_err(io::Error::from)? {
            self.pulse.step();
            if self.is_stopped() {
                return Ok(());
            }
            let name = OsString::from_vec(entry.map_err(io::Error::from)?.file_name().to_bytes().to_vec());
            if names::untaken(&name).is_some() {
                hidden.push(name);
            } else if name != "." && name != ".." && name != LOST_AND_FOUND && !names::is_ours(name.as_bytes()) {
                self.look(inbox.as_fd(), name, now, &mut listed, report);
            }
        }
        for name in self.bring_back(inbox.as_fd(), &hidden, report) {
            self.look(inbox.as_fd(), name, now, &mut listed, report);
        }
        report.names = listed.len();
        self.seen.retain(|name, _| listed.contains(name));
        self.unfinished.retain(|name, _| listed.contains(name));
        self.troubles.retain(|name| listed.contains(name) || names::is_ours(name.as_bytes()));
        self.clear_dealt(inbox.as_fd(), report);
        match self.deal_with_settled(inbox.as_fd(), now, report) {
            Ok(()) => Ok(()),
            Err(Hitch::All(error) | Hitch::File(error)) => Err(error),
        }
    }

    /// Files that were left under a hidden name on their way out, by a crash or by an error: removed if they are what was taken in last, else given their
    /// names back. Returns these names.
    fn bring_back(&mut self, inbox: BorrowedFd, hidden: &[OsString], report: &mut ScanReport) -> Vec<OsString> {
        let mut back = Vec::new();
        for hidden in hidden {
            let outcome = match intake::lstat(inbox, hidden) {
                Ok(Some(file)) => match self.dealt.get(&file) {
                    Some(Some(content)) if intake::holds(inbox, hidden, &file, content) => rustix::fs::unlinkat(inbox, hidden, AtFlags::empty())
                        .map(|()| None)
                        .map_err(io::Error::from),
                    _ => intake::give_back(inbox, hidden),
                },
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(name) => back.extend(name),
                Err(error) => self.trouble(hidden, format!("it cannot get its name back: {error}"), report),
            }
        }
        back
    }

    fn look(&mut self, inbox: BorrowedFd, name: OsString, now: Instant, listed: &mut HashSet<OsString>, report: &mut ScanReport) {
        if names::is_unfinished(&name) {
            let since = *self.unfinished.entry(name.clone()).or_insert(now);
            let why = "names that begin with a dot or end in .tmp, .part or .swp are not taken; give it its final name, or remove it";
            report.wait(&name, why, now.saturating_duration_since(since));
            listed.insert(name);
            return;
        }
        let stat = match rustix::fs::statat(inbox, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return,
            Err(error) => {
                listed.insert(name.clone());
                self.seen.remove(&name);
                return self.trouble(&name, format!("it cannot be looked at: {}", io::Error::from(error)), report);
            }
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => EntryKind::Regular,
            FileType::Directory => EntryKind::Folder,
            _ => EntryKind::Other,
        };
        listed.insert(name.clone());
        let file = intake::identity(&stat);
        match self.seen.get_mut(&name) {
            Some(seen) if seen.file == file && seen.kind == kind => {}
            Some(seen) => {
                let first = seen.first;
                *seen = SeenFile {
                    file,
                    kind,
                    since: now,
                    first,
                }
            }
            None => {
                self.hooks.on(Happening::FileSeen);
                let (since, first) = (now, now);
                self.seen.insert(name, SeenFile { file, kind, since, first });
            }
        }
    }

    /// Try again to remove what was taken in. It is removed only if it has the very content that was taken in, and nothing new shares its name: after a
    /// restart another file may well have the inode, the size and the time of the last one.
    fn clear_dealt(&mut self, inbox: BorrowedFd, report: &mut ScanReport) {
        if self.dealt.is_empty() {
            return;
        }
        let present: Vec<(OsString, FileIdentity)> = self.seen.iter().map(|(name, seen)| (name.clone(), seen.file)).collect();
        // By stem, and before anything is removed: a picture whose sidecar is another by now belongs to that one.
        let mut same: HashMap<&[u8], bool> = HashMap::new();
        for (name, file) in &present {
            let content = self.dealt.get(file).and_then(Option::as_ref);
            let holds = content.is_some_and(|content| intake::holds(inbox, name, file, content));
            *same.entry(names::stem(name)).or_insert(true) &= holds;
        }
        for (name, file) in &present {
            if !self.dealt.contains_key(file) {
                continue;
            }
            if same.get(names::stem(name)) != Some(&true) {
                self.dealt.remove(file);
                continue;
            }
            if self.troubles.must_wait(name, self.clock.instant()) {
                let waited = self.waited(name);
                report.wait(name, self.troubles.why(name), waited);
                continue;
            }
            match intake::take_away(inbox, name, file) {
                Ok(()) => {
                    self.dealt.remove(file);
                    self.seen.remove(name);
                    self.troubles.over(name);
                }
                Err(error) => self.trouble(name, format!("it was taken in, but cannot be removed: {error}"), report),
            }
        }
        let still: HashSet<FileIdentity> = self.seen.values().map(|seen| seen.file).collect();
        self.dealt.retain(|file, _| still.contains(file));
    }

    pub(super) fn waited(&self, name: &OsStr) -> Duration {
        let first = self.seen.get(name).map(|seen| seen.first).or_else(|| self.unfinished.get(name).copied());
        first.map_or(Duration::ZERO, |first| self.clock.instant().saturating_duration_since(first))
    }

    /// Something went wrong with this file: told, tried again later.
    pub(super) fn trouble(&mut self, name: &OsStr, why: String, report: &mut ScanReport) {
        let now = self.clock.instant();
        if let Some(retry_in) = self.troubles.add(name, why.clone(), now) {
            self.hooks.on(Happening::FileTrouble {
                name: escape(name.as_bytes()),
                message: why.clone(),
                retry_in,
            });
        }
        let waited = self.waited(name).max(self.troubles.since(name, now));
        report.wait(name, &why, waited);
    }

    /// It is still being written; nothing is wrong.
    pub(super) fn busy(&self, name: &OsStr, who: &str, report: &mut ScanReport) {
        report.wait(name, who, self.waited(name));
    }

    pub(super) fn looked<T>(&mut self, name: &OsStr, looked: Looked<T>, report: &mut ScanReport) -> Option<T> {
        match looked {
            Looked::Good(good) => return Some(good),
            Looked::Busy(who) => self.busy(name, who, report),
            Looked::Changed | Looked::Refused(..) => self.unsettle(name, report),
        }
        None
    }

    /// It changed while we looked: it has to settle anew.
    fn unsettle(&mut self, name: &OsStr, report: &mut ScanReport) {
        report.wait(name, "it keeps changing", self.waited(name));
        let now = self.clock.instant();
        if let Some(seen) = self.seen.get_mut(name) {
            seen.since = now;
        }
    }
}
