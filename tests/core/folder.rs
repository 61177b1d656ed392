//! A place for tests of the inbox alone.

use crate::clock::ManualClock;
use crate::support::{Recorder, settings, tree};
use delta_guard::case::Case;
use delta_guard::clock::Clock;
use delta_guard::config::file::Mail;
use delta_guard::engine::{Happening, Hooks, Ledger, Refusal, query};
use delta_guard::inbox::refused::Reason;
use delta_guard::inbox::{Inbox, ScanReport};
use delta_guard::policy::Mode;
use delta_guard::settings::Settings;
use delta_guard::vfs::Disk;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// An inbox without a daemon around it: scanned by hand, in a time that is turned by hand.
pub struct Place {
    pub root: tempfile::TempDir,
    pub settings: Arc<Settings>,
    pub clock: Arc<ManualClock>,
    pub hooks: Arc<Recorder>,
    pub ledger: Arc<Ledger>,
    pub inbox: Inbox,
}

impl Place {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same, with other settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut settings = settings(root.path(), Mode::Propose);
        settings.inbox.settle = Duration::from_secs(2);
        change(&mut settings);
        for dir in [&settings.inbox.dir, &settings.spool_dir()] {
            std::fs::create_dir_all(dir).unwrap();
        }
        Self::open(root, Arc::new(settings), None)
    }

    /// One that sends mails.
    pub fn mailing(mail: Mail) -> Self {
        let Self {
            root,
            settings,
            ledger,
            inbox,
            ..
        } = Self::new();
        drop((inbox, ledger));
        Self::open(root, settings, Some(mail))
    }

    fn open(root: tempfile::TempDir, settings: Arc<Settings>, mail: Option<Mail>) -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-23T12:00:00Z".parse().unwrap()));
        let hooks = Arc::new(Recorder(Default::default(), Default::default(), mail));
        let ledger = Ledger::open(
            Arc::new(Disk),
            &settings.journal_dir(),
            &settings.index_dir(),
            clock.clone(),
            hooks.clone() as Arc<dyn Hooks>,
        );
        let ledger = Arc::new(ledger.unwrap());
        let inbox = Inbox::new(
            Arc::clone(&settings),
            Arc::clone(&ledger),
            hooks.clone() as Arc<dyn Hooks>,
            clock.clone() as Arc<dyn Clock>,
        );
        Self {
            root,
            settings,
            clock,
            hooks,
            ledger,
            inbox,
        }
    }

    /// As after a crash and a new start.
    pub fn again(self) -> Self {
        let Self {
            root,
            settings,
            ledger,
            inbox,
            hooks,
            ..
        } = self;
        drop((inbox, ledger));
        Self::open(root, settings, hooks.2.clone())
    }

    /// Let the inbox hear of a stop.
    pub fn stops_with(self, stop: delta_guard::stop::Stop) -> Self {
        Self {
            inbox: self.inbox.stops_with(stop),
            ..self
        }
    }

    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.settings.inbox.dir.join(name.as_ref())
    }

    pub fn put(&self, name: impl AsRef<OsStr>, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub fn scan_after(&mut self, seconds: u64) -> ScanReport {
        self.clock.advance(Duration::from_secs(seconds));
        self.inbox.scan()
    }

    /// Let everything settle.
    pub fn settle(&mut self) -> ScanReport {
        self.scan_after(0);
        self.scan_after(2)
    }

    pub fn cases(&self) -> Vec<Case> {
        query::read(&self.settings.state_dir).unwrap().0.cases.into_values().collect()
    }

    pub fn names(&self) -> Vec<String> {
        tree(&self.settings.inbox.dir).into_keys().collect()
    }

    pub fn refused(&self) -> Vec<(Refusal, String)> {
        let events = self.hooks.0.lock().unwrap();
        events
            .iter()
            .filter_map(|event| {
                if let Happening::Refused { reason, sentence, .. } = event {
                    Some((*reason, sentence.clone()))
                } else {
                    None
                }
            })
            .collect()
    }

    pub fn reason(&self, name: &str) -> Reason {
        serde_json::from_slice(&tree(&self.settings.inbox.refused_dir)[&format!("{name}.reason.json")]).unwrap()
    }
}
