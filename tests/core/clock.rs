//! A clock that tests turn by hand.

use delta_guard::clock::Clock;
use jiff::Timestamp;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A clock that stands still until it is turned. Both its times move together.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(Timestamp, Instant)>,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> Self {
        Self {
            state: Mutex::new((now, Instant::now())),
        }
    }

    /// Set its wall-clock time, forward or back; waiting is not touched.
    pub fn set(&self, now: Timestamp) {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).0 = now;
    }

    /// Turn it forward.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.0 = state.0.checked_add(by).unwrap_or(Timestamp::MAX);
        state.1 += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).0
    }

    fn instant(&self) -> Instant {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).1
    }
}
