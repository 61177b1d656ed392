//! Messages that come and go, and the fold that says which wait.

use crate::case::{CaseId, Kept, List, Message, bounds};
use crate::engine::kept;
use delta_guard_contract::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

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
        /// BLAKE3 of the list that it stood in, where it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<Digest>,
    },
    /// A message was given up.
    MessageGivenUp {
        /// Its id.
        id: String,
        /// Why.
        reason: String,
        /// BLAKE3 of the list that it stood in, where it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<Digest>,
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
            Note::MessageSent { id, reply, list } => Note::MessageSent { id, reply: cut(reply), list },
            Note::MessageGivenUp { id, reason, list } => Note::MessageGivenUp {
                id,
                reason: cut(reason),
                list,
            },
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
    /// BLAKE3 of the list that it stands in; None: it was in a record.
    pub list: Option<Digest>,
}

/// A list of messages in a file of their case.
#[derive(Debug)]
struct Listed {
    case: CaseId,
    file: Kept,
    count: u64,
    since: u64,
    /// Those that were sent or given up.
    gone: BTreeSet<String>,
    /// Was the file asked for?
    opened: bool,
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
    /// Lists with messages that wait, by their digest.
    lists: BTreeMap<Digest, Listed>,
}

impl Outbox {
    pub(in crate::engine) fn fold(&mut self, note: Note) {
        match note {
            Note::Notices { about, messages } => self.enqueue(&about, messages, self.seconds, None),
            Note::MessageSent { id, list, .. } | Note::MessageGivenUp { id, list, .. } => self.gone(id, list),
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
    pub(in crate::engine) fn told(&mut self, case: &CaseId, messages: Vec<Message>, list: Option<List>) {
        let mut all = self.queued.remove(case).unwrap_or_default();
        all.extend(messages);
        self.enqueue(case, all, self.seconds, None);
        if let Some(List { file, count }) = list {
            let listed = Listed {
                case: case.clone(),
                count,
                since: self.seconds,
                gone: BTreeSet::new(),
                opened: false,
                file,
            };
            self.lists.insert(listed.file.digest.clone(), listed);
        }
    }

    /// Read the lists that were not read yet and still have messages that wait. Returns in sentences what cannot be read, and what to do.
    pub(in crate::engine) fn open_lists(&mut self, cases_dir: &Path) -> Vec<String> {
        let mut trouble = Vec::new();
        let mut found = Vec::new();
        for (digest, list) in self.lists.iter_mut().filter(|(_, list)| !list.opened) {
            list.opened = true;
            match kept::load::<Vec<Message>>(&cases_dir.join(&list.case.0), &list.file) {
                Ok(messages) => {
                    let waiting = messages.into_iter().filter(|message| !list.gone.contains(&message.id)).collect();
                    found.push((list.case.clone(), waiting, list.since, digest.clone()));
                }
                Err(error) => trouble.push(format!(
                    "{} messages about case {} cannot be read and are not sent: {error:#}; put the file back from a copy and start the guard again",
                    list.count - list.gone.len() as u64,
                    list.case.short()
                )),
            }
        }
        for (case, waiting, since, digest) in found {
            self.enqueue(&case, waiting, since, Some(&digest));
        }
        trouble
    }

    /// A message waits no more.
    fn gone(&mut self, id: String, list: Option<Digest>) {
        self.waiting.remove(&id);
        self.changes += 1;
        let Some(digest) = list else { return };
        if let Some(list) = self.lists.get_mut(&digest) {
            list.gone.insert(id);
            if list.gone.len() as u64 >= list.count {
                self.lists.remove(&digest);
            }
        }
    }

    fn enqueue(&mut self, case: &CaseId, messages: Vec<Message>, since: u64, list: Option<&Digest>) {
        for message in messages {
            let waiting = Waiting {
                case: case.clone(),
                since,
                list: list.cloned(),
                message,
            };
            self.waiting.insert(waiting.message.id.clone(), waiting);
            self.changes += 1;
        }
    }
}
