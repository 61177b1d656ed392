//! The seam that lets a test turn clocks (`tests/core/clock.rs`). Wall-clock time is informative only: order is the journal's sequence number, waiting is measured on the
//! monotonic clock.

use jiff::Timestamp;
use std::time::Instant;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Wall-clock time, for people.
    fn now(&self) -> Timestamp;
    /// Monotonic time, for waiting.
    fn instant(&self) -> Instant;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}
