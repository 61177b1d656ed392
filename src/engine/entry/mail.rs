//! Messages that come and go, and the fold that says which wait.

use crate::case::{CaseId, Message, bounds};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// What is recorded of messages beside the cases that they are about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k", content = "d", rename_all = "kebab-case")]
pub enum Note {
    /// Messages about a file that did not become a case. They come before the record of its refusal: after a crash in between both are made again, under the same ids.
    Notices {
        /// The case that the file already is, else a digest of the refusal.
        about: CaseId,
        /// The messages, with their contents.
        messages: Vec<Message>,
    },
    /// A message was taken by its receiver.
    MessageSent {
        /// Its id.
        id: String,
        /// What the receiver said.
        reply: String,
    },
    /// A message was given up.
    MessageGivenUp {
        /// Its id.
        id: String,
        /// Why.
        reason: String,
    },
    /// The messages that wait have waited so much longer while a guard ran.
    OutboxWaited {
        /// Seconds.
        seconds: u64,
    },
}

impl Note {
    /// Every kind.
    pub const KINDS: [&str; 4] = ["notices", "message-sent", "message-given-up", "outbox-waited"];

    /// The record's kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Note::Notices { .. } => "notices",
            Note::MessageSent { .. } => "message-sent",
            Note::MessageGivenUp { .. } => "message-given-up",
            Note::OutboxWaited { .. } => "outbox-waited",
        }
    }

    pub(super) fn bounded(self) -> Self {
        let cut = |text: String| bounds::cut(&text, bounds::NOTE);
        match self {
            Note::MessageSent { id, reply } => Note::MessageSent { id, reply: cut(reply) },
            Note::MessageGivenUp { id, reason } => Note::MessageGivenUp { id, reason: cut(reason) },
            Note::Notices { .. } | Note::OutboxWaited { .. } => self,
        }
    }
}

/// A message that was neither sent nor given up.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// The case that it is about.
    pub case: CaseId,
    /// The message.
    pub message: Message,
    /// What [`Outbox::seconds`] showed when it came.
    pub since: u64,
}

/// The messages that wait.
#[derive(Debug, Default)]
pub struct Outbox {
    /// By id.
    pub waiting: BTreeMap<String, Waiting>,
    /// How often a message came or went.
    pub changes: u64,
    /// Seconds that messages have been waited for in all ([`Note::OutboxWaited`]): a clock that no one can set.
    pub seconds: u64,
    /// Messages of cases whose `told` record has not come yet.
    queued: HashMap<CaseId, Vec<Message>>,
}

impl Outbox {
    pub(in crate::engine) fn fold(&mut self, note: Note) {
        match note {
            Note::Notices { about, messages } => self.enqueue(&about, messages),
            Note::MessageSent { id, .. } | Note::MessageGivenUp { id, .. } => {
                self.waiting.remove(&id);
                self.changes += 1;
            }
            Note::OutboxWaited { seconds } => self.seconds = self.seconds.saturating_add(seconds),
        }
    }

    /// Some of a case's messages, in a journal of the first version. A telling that a crash cut off was told anew, from its first message.
    pub(in crate::engine) fn queue(&mut self, case: &CaseId, after: u64, messages: Vec<Message>) {
        let queued = self.queued.entry(case.clone()).or_default();
        queued.truncate(usize::try_from(after).unwrap_or(usize::MAX));
        queued.extend(messages);
    }

    /// A case was told: its messages wait from now on.
    pub(in crate::engine) fn told(&mut self, case: &CaseId, messages: Vec<Message>) {
        let mut all = self.queued.remove(case).unwrap_or_default();
        all.extend(messages);
        self.enqueue(case, all);
    }

    fn enqueue(&mut self, case: &CaseId, messages: Vec<Message>) {
        for message in messages {
            let waiting = Waiting {
                case: case.clone(),
                since: self.seconds,
                message,
            };
            self.waiting.insert(waiting.message.id.clone(), waiting);
            self.changes += 1;
        }
    }
}
