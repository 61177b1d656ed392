//! Hints that something may have changed.

use crate::engine::{Happening, Hooks};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A bell.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<(Mutex<bool>, Condvar)>);

impl Wake {
    /// Ring it.
    pub fn ring(&self) {
        *self.0.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = true;
        self.0.1.notify_all();
    }

    /// Forget that it rang.
    pub(super) fn clear(&self) {
        *self.0.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = false;
    }

    /// Wait until it rings, or for so long.
    pub(super) fn wait(&self, most: Duration) {
        let rang = self.0.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        drop(self.0.1.wait_timeout_while(rang, most, |rang| !*rang));
    }
}

/// Watches the inbox, as far as the system lets it.
#[derive(Default)]
pub(super) struct Watcher {
    /// What is watched: a folder that is replaced by another of the same name is another folder.
    armed: Option<(u64, u64, RecommendedWatcher)>,
    failed: bool,
}

impl Watcher {
    /// Watch `dir` unless it is watched already. A failure is told once and tried again at each scan.
    pub fn arm(&mut self, dir: &Path, wake: &Wake, hooks: &dyn Hooks) {
        let Ok(meta) = std::fs::metadata(dir) else {
            // The scan says it.
            self.armed = None;
            return;
        };
        if self.armed.as_ref().is_some_and(|(dev, ino, _)| (*dev, *ino) == (meta.dev(), meta.ino())) {
            return;
        }
        self.armed = None;
        let bell = wake.clone();
        // Everything is a reason to look: changes, overflows (which name no path), errors. Only our own reading is not.
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if !matches!(&event, Ok(event) if event.kind.is_access() && !is_close_write(event)) {
                bell.ring();
            }
        });
        match watcher.and_then(|mut watcher| watcher.watch(dir, RecursiveMode::NonRecursive).map(|()| watcher)) {
            Ok(watcher) => {
                self.armed = Some((meta.dev(), meta.ino(), watcher));
                self.failed = false;
            }
            Err(error) if !self.failed => {
                self.failed = true;
                hooks.on(Happening::WatcherTrouble {
                    message: format!("{} is not watched, only listed: {error}", dir.display()),
                });
            }
            Err(_) => {}
        }
    }
}

fn is_close_write(event: &notify::Event) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    matches!(event.kind, EventKind::Access(AccessKind::Close(AccessMode::Write)))
}
