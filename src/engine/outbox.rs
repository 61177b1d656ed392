//! The messages that wait, as the journal has them.

use super::Ledger;
use super::entry::mail::Note;
use crate::case::Message;
use crate::case::{CaseId, Kept, bounds};
use crate::journal::JournalError;
use delta_guard_contract::Digest;
use std::time::Duration;

/// At most this many messages wait for one recipient before what is no case is not told any more: who drops files by the thousand fills neither journal nor memory.
pub const MOST_WAITING: usize = 200;

impl Ledger {
    /// Messages that must still be sent, with their cases.
    pub fn pending_messages(&self) -> Vec<(CaseId, Message)> {
        let inner = self.inner();
        inner
            .book
            .outbox
            .waiting
            .values()
            .map(|one| (one.case.clone(), one.message.clone()))
            .collect()
    }

    /// One of them.
    pub fn pending_message(&self, id: &str) -> Option<(CaseId, Message)> {
        let inner = self.inner();
        inner.book.outbox.waiting.get(id).map(|one| (one.case.clone(), one.message.clone()))
    }

    /// Does one of them have its content in this file?
    pub fn is_pending_content(&self, kept: &Kept) -> bool {
        self.inner()
            .book
            .outbox
            .waiting
            .values()
            .any(|one| one.message.kept.as_ref() == Some(kept))
    }

    /// All of them, each with the time that it has been waited for as recorded ([`Note::OutboxWaited`]).
    pub fn waiting_messages(&self) -> Vec<(Message, Duration)> {
        let inner = self.inner();
        let outbox = &inner.book.outbox;
        let waited = |since| Duration::from_secs(outbox.seconds.saturating_sub(since));
        outbox.waiting.values().map(|one| (one.message.clone(), waited(one.since))).collect()
    }

    /// Messages about a file that is no case wait from now on, as far as their recipients have room ([`MOST_WAITING`]).
    ///
    /// # Errors
    /// When that cannot be made durable.
    pub fn queue_notices(&self, about: &CaseId, mut messages: Vec<Message>) -> Result<(), JournalError> {
        messages.retain(|message| {
            let waiting = self
                .inner()
                .book
                .outbox
                .waiting
                .values()
                .filter(|other| other.message.to == message.to)
                .count();
            waiting < MOST_WAITING && message.to.len() <= 2 * bounds::RECIPIENT
        });
        if messages.is_empty() {
            return Ok(());
        }
        for messages in bounds::in_parts(messages).map_err(|error| JournalError::Visitor(error.into()))? {
            self.note(Note::Notices {
                about: about.clone(),
                messages,
            })?;
        }
        Ok(())
    }

    /// The list that a waiting message stands in.
    fn list_of(&self, id: &str) -> Option<Digest> {
        self.inner().book.outbox.waiting.get(id).and_then(|one| one.list.clone())
    }

    /// A message was taken by its receiver.
    ///
    /// # Errors
    /// When that cannot be made durable.
    pub fn message_sent(&self, id: &str, reply: &str) -> Result<(), JournalError> {
        self.note(Note::MessageSent {
            id: id.into(),
            reply: reply.into(),
            list: self.list_of(id),
        })
    }

    /// A message will never be taken.
    ///
    /// # Errors
    /// When that cannot be made durable.
    pub fn message_given_up(&self, id: &str, reason: &str) -> Result<(), JournalError> {
        self.note(Note::MessageGivenUp {
            id: id.into(),
            reason: reason.into(),
            list: self.list_of(id),
        })
    }
}
