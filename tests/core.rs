//! The guard's own parts, with a worker that speaks the protocol and computes nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "core/cases.rs"]
mod cases;
#[path = "core/chain.rs"]
mod chain;
#[path = "core/clock.rs"]
mod clock;
#[path = "core/disk.rs"]
mod disk;
#[path = "core/errors.rs"]
mod errors;
#[path = "core/files.rs"]
mod files;
#[path = "core/folder.rs"]
mod folder;
#[path = "core/hangs.rs"]
mod hangs;
#[path = "core/holds.rs"]
mod holds;
#[path = "core/index.rs"]
mod index;
#[path = "core/intake.rs"]
mod intake;
#[path = "core/kill.rs"]
mod kill;
#[path = "core/needs.rs"]
mod needs;
#[path = "core/notices.rs"]
mod notices;
#[path = "core/old_journal.rs"]
mod old_journal;
#[path = "core/patience.rs"]
mod patience;
#[path = "core/power.rs"]
mod power;
#[path = "core/proposals.rs"]
mod proposals;
#[path = "core/publishing.rs"]
mod publishing;
#[path = "core/races.rs"]
mod races;
#[path = "core/records.rs"]
mod records;
#[path = "core/regrowth.rs"]
mod regrowth;
#[path = "core/standing.rs"]
mod standing;
#[path = "core/support.rs"]
mod support;
#[path = "core/workers.rs"]
mod workers;
