//! Drives cases: asks [`crate::case`] what is next, runs it, records it, goes on. The only place where the parts meet.

pub mod asked;
mod base;
mod book;
mod drive;
pub mod entry;
mod flags;
mod former;
mod hooks;
mod kept;
mod ledger;
mod order;
mod outbox;
pub mod query;
mod retrace;
mod standing;
mod tell;
mod trouble;
mod turns;
mod view;
mod work;

pub use crate::case::{Message, Refusal, RefusedFile, message_id};
pub use crate::publish::CHECKPOINT_FILE;
pub use asked::Retry;
pub use book::{Book, Folded};
pub use drive::Engine;
pub use entry::Entry;
pub use entry::inbox::LastFile;
pub use hooks::{Happening, Hooks, Notice};
pub use kept::load;
pub use ledger::{Ledger, Snapshot, keep_index};
pub use outbox::MOST_WAITING;
pub use standing::{Earlier, Excluded, Standing};
pub use tell::GiveBack;
pub use view::{CaseView, Paths, Submission, read_trace};

/// Name of the report in a case's folder.
pub const REPORT_FILE: &str = "report.html";
