//! The watched folder. notify wakes it, listing the folder decides: events are hints that get lost, come late and say little; a listing is the truth and
//! costs next to nothing.
//!
//! Nothing in here decodes a picture, follows a link, or uses a submitter's file name as a path of its own.

pub mod again;
mod container;
mod intake;
mod lock;
mod names;
mod pulse;
pub mod refused;
mod scan;
mod sidecar;
mod take;
mod tell;
mod trouble;
mod watch;
mod writers;

pub use pulse::Pulse;
pub use scan::{Inbox, ScanReport};
pub use sidecar::MAX_BYTES as SIDECAR_MAX_BYTES;
pub use watch::Wake;

use crate::stop::Stop;
use std::time::Duration;

/// Scan until stopped: when woken, when a file may have settled, and at least every `scan_interval`. Blocks; give it a thread of its own. `scanned` is
/// called after each scan.
pub fn run(mut inbox: Inbox, wake: &Wake, stop: &Stop, mut scanned: impl FnMut(&ScanReport)) {
    let mut watcher = watch::Watcher::default();
    while !stop.is_stopped() {
        // Watch first, then list: what comes in between is seen by one of them.
        inbox.pulse().step();
        watcher.arm(inbox.dir(), wake, inbox.hooks());
        wake.clear();
        let report = inbox.scan();
        if stop.is_stopped() {
            // The listing may have been cut short: it says nothing.
            return;
        }
        scanned(&report);
        // While something settles, look often enough to see it change.
        let pause = if report.expects() { inbox.settle() } else { inbox.scan_interval() };
        wake.wait(pause.clamp(Duration::from_millis(10), inbox.scan_interval().max(Duration::from_millis(10))));
    }
}
