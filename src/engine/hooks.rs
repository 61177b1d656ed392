//! What the engine calls outside: metrics and log, the report, messages.

use super::CaseView;
use crate::case::{CaseId, HoldCause, Message, Refusal, Stage, State};
use delta_guard_contract::{Digest, FaultKind, Progress};
use jiff::Timestamp;
use std::time::Duration;

/// What the engine asks of the outside world. Called from its tasks: must not block for long.
pub trait Hooks: Send + Sync {
    /// Something happened: count it, log it.
    fn on(&self, event: Happening);
    /// The report of an ended or held case, as one HTML page.
    fn report(&self, view: &CaseView) -> anyhow::Result<String>;
    /// The messages about an ended or held case. They are recorded with it and handed out by [`super::Outbox`].
    fn messages(&self, view: &CaseView) -> Vec<Message>;
    /// The messages about a file that did not become a case. Short enough for a record.
    fn notices(&self, _: &Notice) -> Vec<Message> {
        Vec::new()
    }
}

/// A file of the inbox that did not become a case: refused, or a case already.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Name of the installation.
    pub instance: String,
    /// Who is responsible for it; may be empty.
    pub owner: String,
    /// The case that it already is, else a digest of the refusal.
    pub about: Digest,
    /// Which file it was: two of one content are two occasions, the same one after a crash is not.
    pub occasion: String,
    /// Why.
    pub reason: Refusal,
    /// Its name, escaped.
    pub name: String,
    /// Why, in a sentence.
    pub sentence: String,
    /// What to do; may be empty.
    pub help: String,
    /// The submitter's mail address, as the sidecar says it.
    pub mail: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// What happened. A closed set, so that nothing can happen unseen.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// A name was seen in the inbox for the first time.
    FileSeen,
    /// A picture became a case.
    Accepted {
        /// The case.
        case: CaseId,
        /// The file's name, escaped.
        name: String,
    },
    /// A file, or the case made of it, was refused.
    Refused {
        /// Which reason.
        reason: Refusal,
        /// The file's name, escaped.
        name: String,
        /// In a sentence.
        sentence: String,
    },
    /// The same content with the same claim was dropped again.
    Duplicate {
        /// The case that it already is.
        of: CaseId,
    },
    /// Files that lie in the inbox and are not complete yet, after a scan.
    Waiting {
        /// How many.
        files: usize,
        /// Those of them that have been waiting for more than ten minutes.
        overdue: usize,
    },
    /// A single file cannot be dealt with at the moment; the others go on.
    FileTrouble {
        /// Its name, escaped.
        name: String,
        /// Why.
        message: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// Files that lie in the inbox and have not been dealt with, complete or not: told as a scan goes on, since a long one takes in many.
    Backlog {
        /// How many.
        files: usize,
    },
    /// A scan of the inbox ended.
    Scanned {
        /// Names listed.
        names: usize,
        /// Time it took.
        took: Duration,
    },
    /// The inbox cannot be read or taken from at the moment.
    InboxTrouble {
        /// Why.
        message: String,
    },
    /// The watcher failed; the periodic scan goes on.
    WatcherTrouble {
        /// Why.
        message: String,
    },
    /// A stage began.
    StageStarted {
        /// The case.
        case: CaseId,
        /// The stage.
        stage: Stage,
        /// From 1.
        attempt: u32,
    },
    /// A stage is done.
    StageFinished {
        /// The case.
        case: CaseId,
        /// The stage.
        stage: Stage,
        /// How long it took.
        seconds: f64,
    },
    /// A stage failed.
    StageFailed {
        /// The case.
        case: CaseId,
        /// The stage.
        stage: Stage,
        /// Whose fault.
        kind: FaultKind,
        /// What happened.
        message: String,
        /// When it is tried again; None: not by itself.
        retry_in: Option<Duration>,
    },
    /// A worker reports how far it is.
    Progress {
        /// The case.
        case: CaseId,
        /// The stage.
        stage: Stage,
        /// How far.
        progress: Progress,
    },
    /// A worker says something worth a line in the log.
    WorkerSaid {
        /// The case.
        case: CaseId,
        /// The stage.
        stage: Stage,
        /// What.
        message: String,
    },
    /// A case is held.
    CaseHeld {
        /// The case.
        case: CaseId,
        /// What kind of hold.
        cause: HoldCause,
        /// Why.
        reason: String,
        /// What to do.
        help: String,
    },
    /// A candidate passed the gate and waits for a person's word.
    CaseProposed {
        /// The case.
        case: CaseId,
        /// Why, in a sentence.
        reason: String,
    },
    /// A case ended.
    CaseEnded {
        /// The case.
        case: CaseId,
        /// How.
        state: State,
        /// Why.
        reason: String,
    },
    /// A record is durable.
    JournalAppended {
        /// Its number.
        seq: u64,
        /// Bytes of its frame.
        bytes: u64,
        /// Seconds of the fsync.
        sync_seconds: f64,
    },
    /// The journal could not be written. `poisoned`: not until the next start.
    JournalTrouble {
        /// Why.
        message: String,
        /// Whether it is out of use.
        poisoned: bool,
    },
    /// Nothing can be recorded: nothing is taken in or worked on until that is mended.
    Degraded {
        /// Why.
        why: String,
        /// What to do.
        help: String,
    },
    /// The journal is open (again).
    Working,
    /// The index was rebuilt from the journal.
    IndexRebuilt {
        /// Why.
        why: String,
        /// Records read.
        records: u64,
    },
    /// The index is out of use; everything goes on without it.
    IndexTrouble {
        /// Why.
        message: String,
    },
    /// How many cases are worked on or wait for a person.
    Queue {
        /// Open cases.
        open: usize,
        /// Held cases.
        held: usize,
        /// Proposed cases, whose candidate waits for an answer.
        proposed: usize,
    },
}
