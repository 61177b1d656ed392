//! How the inbox's thread gets on. A network file system that hangs holds it inside a system call, where it can neither be asked nor be stopped; whoever
//! watches from outside sees that no step was made.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// When the last step was made, and whether one is under way.
#[derive(Debug)]
pub struct Pulse(Mutex<Beat>);

#[derive(Clone, Copy, Debug)]
struct Beat {
    at: Instant,
    working: bool,
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Mutex::new(Beat {
            at: Instant::now(),
            working: false,
        }))
    }
}

impl Pulse {
    fn beat(&self) -> MutexGuard<'_, Beat> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A step begins: a file, or a part of one.
    pub(super) fn step(&self) {
        *self.beat() = Beat {
            at: Instant::now(),
            working: true,
        };
    }

    /// The scan is over.
    pub(super) fn rest(&self) {
        *self.beat() = Beat {
            at: Instant::now(),
            working: false,
        };
    }

    /// Time since the last step or the end of the last scan.
    pub fn silence(&self) -> Duration {
        self.beat().at.elapsed()
    }

    /// Has the step that is under way taken longer than this?
    pub fn is_stalled(&self, after: Duration) -> bool {
        let beat = *self.beat();
        beat.working && beat.at.elapsed() >= after
    }
}
