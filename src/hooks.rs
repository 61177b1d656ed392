//! What the engine calls outside, put together: every event is counted and logged, reports are pages, messages are mails.

use crate::alert::{
    self, mailer,
    mailer::{Pending, WaitingMail},
};
use crate::case::Kept;
use crate::config::file::Mail;
use crate::engine::entry::mail::Note;
use crate::engine::{self, CaseView, Happening, Hooks, Ledger, Message, Notice};
use crate::metrics::Metrics;
use crate::report;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The daemon's own [`Hooks`].
pub struct Outward {
    metrics: Arc<Metrics>,
    mail: Option<Mail>,
    /// When the inbox's thread last came to the end of a scan, with or without trouble.
    scanned: Mutex<Instant>,
}

impl Outward {
    /// Count with `metrics`, write mails as `mail` says (None: no mail).
    pub fn new(metrics: Arc<Metrics>, mail: Option<Mail>) -> Self {
        Self {
            metrics,
            mail,
            scanned: Mutex::new(Instant::now()),
        }
    }

    /// Time since the inbox's thread last came to the end of a scan; before the first one, since the start.
    pub fn since_scan(&self) -> Duration {
        self.scanned.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).elapsed()
    }
}

impl Hooks for Outward {
    fn on(&self, event: Happening) {
        // Each file of a long scan is a sign of life.
        if let Happening::Scanned { .. } | Happening::Backlog { .. } = event {
            *self.scanned.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Instant::now();
        }
        self.metrics.on(event);
    }

    fn report(&self, view: &CaseView) -> anyhow::Result<String> {
        Ok(report::page(view))
    }

    fn messages(&self, view: &CaseView) -> Vec<Message> {
        self.mail.as_ref().map(|mail| alert::messages(mail, view)).unwrap_or_default()
    }

    fn notices(&self, notice: &Notice) -> Vec<Message> {
        self.mail.as_ref().map(|mail| alert::notices(mail, notice)).unwrap_or_default()
    }
}

/// The journal as the mailer's outbox; the contents of its messages lie in the folders of their cases.
pub struct LedgerOutbox {
    /// The journal.
    pub ledger: Arc<Ledger>,
    /// The folder with the cases' folders.
    pub cases_dir: PathBuf,
}

impl LedgerOutbox {
    /// The file of a message's content, if it is in one, and the folder of its case.
    fn file(&self, message: &Message) -> Option<(PathBuf, Kept)> {
        let (case, _) = self.ledger.pending_message(&message.id)?;
        Some((self.cases_dir.join(&case.0), message.kept.clone()?))
    }
}

impl Pending for LedgerOutbox {
    fn waiting(&self) -> Vec<WaitingMail> {
        let mut waiting: Vec<WaitingMail> = self
            .ledger
            .waiting_messages()
            .into_iter()
            .map(|(message, waited)| WaitingMail { message, waited })
            .collect();
        // One that cannot be read sorts first: the mailer gives it up at once.
        waiting.sort_by_cached_key(|one| mailer::written(&one.message));
        waiting
    }

    fn waited(&self, more: Duration) -> anyhow::Result<()> {
        Ok(self.ledger.note(Note::OutboxWaited { seconds: more.as_secs() })?)
    }

    fn content(&self, message: &Message) -> anyhow::Result<serde_json::Value> {
        match self.file(message) {
            Some((case_dir, kept)) => engine::load(&case_dir, &kept),
            None => Ok(message.content.clone()),
        }
    }

    fn settle(&self, id: &str, gave_up: Option<&str>) -> anyhow::Result<()> {
        let settled = self.ledger.pending_message(id);
        match gave_up {
            None => self.ledger.message_sent(id, "accepted by the mail server")?,
            Some(reason) => self.ledger.message_given_up(id, reason)?,
        }
        // Nobody needs its content any more, unless another message says the same.
        if let Some((case, Message { kept: Some(kept), .. })) = settled
            && !self.ledger.is_pending_content(&kept)
            && let Err(error) = fs_err::remove_file(self.cases_dir.join(&case.0).join(&kept.file))
        {
            tracing::debug!(%error, "the content of a sent mail could not be removed");
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::tests::repaired;

    #[test]
    fn events_are_counted_and_without_a_mail_section_nothing_is_written() {
        let metrics = Arc::new(Metrics::new("animals", "propose"));
        let hooks = Outward::new(Arc::clone(&metrics), None);
        hooks.on(Happening::FileSeen);
        assert!(
            String::from_utf8(metrics.page().unwrap())
                .unwrap()
                .contains("delta_guard_files_seen_total 1")
        );
        let folder = tempfile::tempdir().unwrap();
        let view = repaired(folder.path());
        assert!(hooks.messages(&view).is_empty());
        assert!(hooks.report(&view).unwrap().contains(view.case.short()));
    }

    /// The watchdog is told of life only while the inbox's thread gets on: what the engine or the mailer do meanwhile does not count.
    #[test]
    fn only_the_inboxs_own_steps_are_signs_of_its_life() {
        let hooks = Outward::new(Arc::new(Metrics::new("animals", "propose")), None);
        let before = Instant::now();
        hooks.on(Happening::Queue {
            open: 3,
            held: 0,
            proposed: 0,
        });
        hooks.on(Happening::FileSeen);
        hooks.on(Happening::InboxTrouble { message: "it hangs".into() });
        let passed = before.elapsed();
        assert!(hooks.since_scan() >= passed);
        for step in [
            Happening::Backlog { files: 1 },
            Happening::Scanned {
                names: 1,
                took: Duration::ZERO,
            },
        ] {
            let before = Instant::now();
            hooks.on(step);
            let since = hooks.since_scan();
            assert!(since <= before.elapsed());
        }
    }

    #[test]
    fn a_recipient_is_a_message() {
        let mail = serde_json::from_value(serde_json::json!({"host": "localhost", "from": "guard@example.org", "to": ["a@example.org"]})).unwrap();
        let hooks = Outward::new(Arc::new(Metrics::new("animals", "propose")), Some(mail));
        let folder = tempfile::tempdir().unwrap();
        let view = repaired(folder.path());
        let messages = hooks.messages(&view);
        assert_eq!(messages.len(), 1);
        assert_eq!(mailer::written(&messages[0]), u64::try_from(view.ended_at.unwrap().as_second()).unwrap());
    }
}
