//! The journal, its fold and its index together, shared by inbox, engine, messengers and the HTTP interface. Whatever happens, happens here: recorded
//! first, then believed. [`ask`] answers questions, [`index`] makes the index again.

mod ask;
mod index;

use super::book::{Book, Folded};
use super::entry::Entry;
use super::entry::inbox::LastFile;
use super::flags::cases_beside;
use super::hooks::{Happening, Hooks};
use super::standing::{Excluded, Standing};
use crate::case::{Accepted, Case, CaseId, Event, Illegal, State};
use crate::clock::Clock;
use crate::index::Store;
use crate::journal::{Head, Journal, JournalError, Options};
use crate::policy::Spent;
use crate::vfs::Vfs;
use anyhow::Result;
pub use index::keep as keep_index;
use index::{apply, prune};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// See the module.
pub struct Ledger {
    inner: Mutex<Inner>,
    hooks: Arc<dyn Hooks>,
    vfs: Arc<dyn Vfs>,
    journal_dir: PathBuf,
    index_dir: PathBuf,
    recorded: watch::Sender<u64>,
    /// What is asked for often, kept apart: who asks must not wait for a record's fsync, nor a record for who asks.
    now: Mutex<Snapshot>,
    /// Every case in journal order.
    order: Mutex<Vec<CaseId>>,
    /// How often the index was lost: whoever makes it again waits on this.
    lost: watch::Sender<u64>,
}

/// The ledger at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The last durable record.
    pub head: Head,
    /// Cases that are worked on or wait to be.
    pub open: usize,
    /// Cases that are held until a person acts.
    pub held: usize,
    /// Cases whose candidate waits for a person's word.
    pub proposed: usize,
    /// Messages that wait to be sent.
    pub outbox: usize,
    /// How often a message came or went: who watches the outbox need look only when this changed.
    pub outbox_changes: u64,
    /// Is the index in use?
    pub has_index: bool,
}

pub(super) struct Inner {
    journal: Journal,
    store: Option<Store>,
    /// Why there is none, in words that were told.
    why_lost: String,
    /// The one that was lost, as long as somebody may still read it.
    lost: Option<Store>,
    pub(super) book: Book,
}

impl Ledger {
    /// Open journal and index in these folders; rebuild the index where it does not agree with the journal.
    pub fn open(vfs: Arc<dyn Vfs>, journal_dir: &Path, index_dir: &Path, clock: Arc<dyn Clock>, hooks: Arc<dyn Hooks>) -> Result<Self, JournalError> {
        let mut trouble = None;
        let mut store = Store::open(index_dir).inspect_err(|error| trouble = Some(format!("{error:#}"))).ok();
        let position = store.as_ref().map(|store| (store.position().0, store.position().1.to_string()));
        let mut options = Options::new(Arc::clone(&vfs), journal_dir, clock);
        options.witness = position.as_ref().map_or(0, |at| at.0);
        let mut agrees = position.as_ref().is_some_and(|at| at.0 == 0);
        let mut book = Book::default();
        let cases_dir = cases_beside(journal_dir);
        let (journal, opened) = Journal::open(options, &mut |record, head| {
            let folded = book.fold_record(record)?;
            if let Some((seq, hash)) = &position {
                agrees |= head.seq == *seq && hex::encode(head.hash) == *hash;
                if agrees && head.seq > *seq && trouble.is_none() {
                    let applied = store.as_mut().map_or(Ok(()), |store| apply(store, head, &book, &folded, &cases_dir));
                    trouble = applied.err().map(|error| format!("{error:#}"));
                }
            }
            prune(&mut book, &folded);
            Ok(())
        })?;
        tell_unread(book.outbox.open_lists(&cases_dir));
        if let Some(bytes) = opened.cut {
            let message = format!(
                "{bytes} bytes of a record that was not finished were cut and kept in {}/quarantine",
                journal_dir.display()
            );
            hooks.on(Happening::JournalTrouble { message, poisoned: false });
        }
        if position.as_ref().is_some_and(|at| at.0 == 0) && trouble.is_none() && journal.head().seq > 0 {
            hooks.on(Happening::IndexRebuilt {
                why: "there was none".into(),
                records: journal.head().seq,
            });
        }
        if !agrees && trouble.is_none() {
            trouble = Some("it belongs to another journal".into());
        }
        let mut why_lost = String::new();
        if let Some(why) = trouble {
            drop(store.take());
            match index::rebuild(&vfs, journal_dir, index_dir, &|| false) {
                Ok((new, _)) => {
                    // A new installation has no index to lose.
                    if journal.head().seq > 0 {
                        hooks.on(Happening::IndexRebuilt {
                            why,
                            records: journal.head().seq,
                        });
                    }
                    store = Some(new);
                }
                Err(error) => why_lost = format!("{error:#}"),
            }
        }
        if let Some(Err(error)) = store.as_ref().map(Store::flush) {
            why_lost = format!("{error:#}");
            store = None;
        }
        if store.is_none() {
            hooks.on(Happening::IndexTrouble { message: why_lost.clone() });
        }
        let (recorded, _) = watch::channel(journal.head().seq);
        let mut order: Vec<(u64, CaseId)> = book.numbers.iter().map(|(id, number)| (*number, id.clone())).collect();
        order.sort_unstable();
        let ledger = Self {
            inner: Mutex::new(Inner {
                journal,
                store,
                why_lost,
                lost: None,
                book,
            }),
            hooks,
            vfs,
            journal_dir: journal_dir.to_path_buf(),
            index_dir: index_dir.to_path_buf(),
            lost: watch::channel(0).0,
            recorded,
            now: Mutex::default(),
            order: Mutex::new(order.into_iter().map(|(_, id)| id).collect()),
        };
        ledger.take_snapshot(&ledger.inner());
        Ok(ledger)
    }

    fn take_snapshot(&self, inner: &Inner) {
        let book = &inner.book;
        let mut now = self.now.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *now = Snapshot {
            head: inner.journal.head(),
            open: book.cases.len() - book.held - book.proposed,
            held: book.held,
            proposed: book.proposed,
            outbox: inner.book.outbox.waiting.len(),
            outbox_changes: inner.book.outbox.changes,
            has_index: inner.store.is_some(),
        };
    }

    /// The ledger as it is now. Never waits for a record that is being written.
    pub fn snapshot(&self) -> Snapshot {
        *self.now.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change is: record, then a fold that cannot fail half way. A panic in between leaves a book that is behind, and behind is safe.
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Write no record whose JSON has more bytes than this from now on. It comes as [`MAX_WRITTEN`](crate::journal::frame::MAX_WRITTEN).
    pub fn limit_records(&self, most: usize) {
        self.inner().journal.limit_records(most);
    }

    /// Keep the ledger as if a record were being written.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        self.inner()
    }

    /// Record an event of a case. When this returns Ok it is durable, and the new state of the case is returned.
    pub fn record(&self, id: &CaseId, event: Event) -> Result<Case, JournalError> {
        let event = event.bounded();
        let mut inner = self.inner();
        // First against a copy: what cannot happen must not be written.
        let number = inner.book.numbers.get(id).copied();
        let illegal = |state| JournalError::Visitor(anyhow::anyhow!(Illegal { state, event: event.kind() }).context(format!("case {id}")));
        let mut case = match number.and_then(|number| inner.book.cases.get(&number)) {
            Some(case) => case.clone(),
            // An ended case is not kept; the record of a new attempt says what there was.
            None => match (number, &event) {
                (Some(number), Event::Retried(again)) => Case::ended(id.clone(), number, again).ok_or_else(|| illegal(again.from))?,
                _ => return Err(illegal(State::Failed)),
            },
        };
        let state = case.state;
        case.apply(&event, 0, jiff::Timestamp::UNIX_EPOCH).map_err(|_| illegal(state))?;
        self.append(&mut inner, Entry::Case(id.clone(), event))?;
        let case = inner.book.cases.get(&case.seq).cloned().unwrap_or(case);
        if case.is_over() {
            inner.book.cases.remove(&case.seq);
            self.take_snapshot(&inner);
        }
        Ok(case)
    }

    /// Record a new case.
    pub fn accept(&self, id: &CaseId, accepted: Accepted) -> Result<(), JournalError> {
        let mut inner = self.inner();
        if inner.book.numbers.contains_key(id) {
            return Err(JournalError::Visitor(anyhow::anyhow!("case {id} exists already")));
        }
        self.append(&mut inner, Entry::Case(id.clone(), Event::Accepted(accepted).bounded()))
    }

    /// Record something that is not about the course of a case.
    pub fn note(&self, note: impl Into<Entry>) -> Result<(), JournalError> {
        self.append(&mut self.inner(), note.into().bounded())
    }

    /// Make an entry durable, then believe it.
    fn append(&self, inner: &mut Inner, entry: Entry) -> Result<(), JournalError> {
        let written = entry.write().map_err(JournalError::Visitor)?;
        let case = written.case.as_ref().map(|case| case.0.as_str());
        let appended = inner
            .journal
            .append(written.kind, written.critical, case, &written.data)
            .inspect_err(|error| {
                self.hooks.on(Happening::JournalTrouble {
                    message: error.to_string(),
                    poisoned: inner.journal.poisoned().is_some(),
                });
            })?;
        let folded = inner.book.fold(entry, appended.head.seq, appended.time).map_err(JournalError::Visitor)?;
        tell_unread(inner.book.outbox.open_lists(&cases_beside(&self.journal_dir)));
        self.hooks.on(Happening::JournalAppended {
            seq: appended.head.seq,
            bytes: appended.bytes,
            sync_seconds: appended.sync.as_secs_f64(),
        });
        if let Some(store) = inner.store.as_mut()
            && let Err(error) = apply(store, &appended.head, &inner.book, &folded, &cases_beside(&self.journal_dir)).and_then(|()| store.flush())
        {
            self.lose_index(inner, &error);
        }
        if let (Folded::Case(number), Some(case)) = (&folded, written.case)
            && *number == appended.head.seq
        {
            // Its acceptance: the number of a case is that of its first record.
            self.order().push(case);
        }
        self.take_snapshot(inner);
        self.recorded.send_replace(appended.head.seq);
        Ok(())
    }

    fn order(&self) -> MutexGuard<'_, Vec<CaseId>> {
        self.order.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Is there such a case?
    pub fn is_known(&self, id: &CaseId) -> bool {
        self.inner().book.numbers.contains_key(id)
    }

    /// One of the cases that are not finished, which `choose` is shown in journal order.
    pub fn choose(&self, choose: impl for<'a> FnOnce(&mut dyn Iterator<Item = &'a Case>) -> Option<&'a Case>) -> Option<Case> {
        let inner = self.inner();
        choose(&mut inner.book.cases.values().filter(|case| case.is_open())).cloned()
    }

    /// Cases that wait for a person's hand on the configuration.
    pub fn held(&self) -> Vec<Case> {
        self.inner()
            .book
            .cases
            .values()
            .filter(|case| case.state == State::Held)
            .cloned()
            .collect()
    }

    /// Cases whose flagged examples stay out of later repairs.
    pub fn excluded(&self) -> Vec<Excluded> {
        self.inner().book.approvals.excluded.clone()
    }

    /// The standing exclusion list.
    ///
    /// # Errors
    /// When what was flagged for one of its cases cannot be read, or is not what was recorded.
    pub fn standing(&self) -> Result<Standing> {
        Standing::of(&self.excluded(), |case| self.flagged(case))
    }

    /// What was promoted so far, as far as the caps count it, and the time that a record would get now.
    pub fn spent(&self) -> (Spent, jiff::Timestamp) {
        let inner = self.inner();
        (inner.book.approvals.spent.clone(), inner.journal.now())
    }

    /// The time that a record would get now.
    pub fn now(&self) -> jiff::Timestamp {
        self.inner().journal.now()
    }

    /// Journal number of the last start with another version or other settings than the start before.
    pub fn changed_at(&self) -> u64 {
        self.inner().book.starts.changed_at
    }

    /// The number of the last record, as it changes: whoever waits on it misses nothing.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.recorded.subscribe()
    }

    /// The file that the inbox dealt with last before the start.
    pub fn last_file(&self) -> Option<LastFile> {
        self.inner().book.last_file.clone()
    }

    /// The last durable record.
    pub fn head(&self) -> Head {
        self.inner().journal.head()
    }

    /// Why nothing can be recorded until the next start, if so.
    pub fn poisoned(&self) -> Option<String> {
        self.inner().journal.poisoned().map(String::from)
    }

    /// Is the index in use?
    pub fn has_index(&self) -> bool {
        self.inner().store.is_some()
    }
}

/// Files of messages that cannot be used: their mails are not sent.
fn tell_unread(trouble: Vec<String>) {
    for sentence in trouble {
        tracing::error!(message = "A file that the journal names cannot be used.", error = sentence);
    }
}
