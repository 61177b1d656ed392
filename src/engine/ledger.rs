//! The journal, its fold and its index together, shared by inbox, engine, messengers and the HTTP interface. Whatever happens, happens here: recorded
//! first, then believed.

use super::book::{Book, Folded, LastFile, Note};
use super::hooks::{Event as Outside, Hooks, Message};
use crate::case::{Accepted, Case, CaseId, Event, Illegal, State};
use crate::clock::Clock;
use crate::journal::store::{Change, Store};
use crate::journal::{Head, Journal, JournalError, Options, Reader};
use crate::vfs::Vfs;
use anyhow::{Context, Result};
use delta_guard_contract::{FlaggedExample, TrainId};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// See the module.
pub struct Ledger {
    inner: Mutex<Inner>,
    hooks: Arc<dyn Hooks>,
    vfs: Arc<dyn Vfs>,
    journal_dir: PathBuf,
    recorded: watch::Sender<u64>,
}

struct Inner {
    journal: Journal,
    store: Option<Store>,
    book: Book,
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
        let (journal, opened) = Journal::open(options, &mut |record, head| {
            let folded = book.fold(record)?;
            if let Some((seq, hash)) = &position {
                agrees |= head.seq == *seq && hex::encode(head.hash) == *hash;
                if agrees && head.seq > *seq && trouble.is_none() {
                    let applied = store.as_mut().map_or(Ok(()), |store| apply(store, head, &book, &folded));
                    trouble = applied.err().map(|error| format!("{error:#}"));
                }
            }
            prune(&mut book, &folded);
            Ok(())
        })?;
        if let Some(bytes) = opened.cut {
            let message = format!(
                "{bytes} bytes of a record that was not finished were cut and kept in {}/quarantine",
                journal_dir.display()
            );
            hooks.on(Outside::JournalTrouble { message, poisoned: false });
        }
        if position.as_ref().is_some_and(|at| at.0 == 0) && trouble.is_none() && journal.head().seq > 0 {
            hooks.on(Outside::IndexRebuilt {
                why: "there was none".into(),
                records: journal.head().seq,
            });
        }
        if !agrees && trouble.is_none() {
            trouble = Some("it belongs to another journal".into());
        }
        if let Some(why) = trouble {
            drop(store.take());
            match rebuild(&vfs, journal_dir, index_dir) {
                Ok(new) => {
                    // A new installation has no index to lose.
                    if journal.head().seq > 0 {
                        hooks.on(Outside::IndexRebuilt {
                            why,
                            records: journal.head().seq,
                        });
                    }
                    store = Some(new);
                }
                Err(error) => hooks.on(Outside::IndexTrouble {
                    message: format!("{error:#}"),
                }),
            }
        }
        if let Some(Err(error)) = store.as_ref().map(Store::flush) {
            hooks.on(Outside::IndexTrouble {
                message: format!("{error:#}"),
            });
            store = None;
        }
        let (recorded, _) = watch::channel(journal.head().seq);
        let inner = Mutex::new(Inner { journal, store, book });
        Ok(Self {
            inner,
            hooks,
            vfs,
            journal_dir: journal_dir.to_path_buf(),
            recorded,
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change is: record, then a fold that cannot fail half way. A panic in between leaves a book that is behind, and behind is safe.
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Record an event of a case. When this returns Ok it is durable, and the new state of the case is returned.
    pub fn record(&self, id: &CaseId, event: Event) -> Result<Case, JournalError> {
        let mut inner = self.inner();
        // First against a copy: what cannot happen must not be written.
        let number = inner.book.numbers.get(id).copied();
        let illegal = |state| JournalError::Visitor(anyhow::anyhow!(Illegal { state, event: event.kind() }).context(format!("case {id}")));
        let mut case = match number.and_then(|number| inner.book.cases.get(&number)) {
            Some(case) => case.clone(),
            None => return Err(illegal(State::Failed)),
        };
        let state = case.state;
        case.apply(&event, 0, jiff::Timestamp::UNIX_EPOCH).map_err(|_| illegal(state))?;
        self.append(&mut inner, event.kind(), true, Some(id), &event)?;
        let case = inner.book.cases.get(&case.seq).cloned().unwrap_or(case);
        if case.told {
            inner.book.cases.remove(&case.seq);
        }
        Ok(case)
    }

    /// Record a new case.
    pub fn accept(&self, id: &CaseId, accepted: Accepted) -> Result<(), JournalError> {
        let mut inner = self.inner();
        if inner.book.numbers.contains_key(id) {
            return Err(JournalError::Visitor(anyhow::anyhow!("case {id} exists already")));
        }
        let event = Event::Accepted(accepted);
        self.append(&mut inner, event.kind(), true, Some(id), &event)
    }

    /// Record something that is not about the course of a case.
    pub fn note(&self, note: &Note) -> Result<(), JournalError> {
        self.append(&mut self.inner(), note.kind(), false, None, note)
    }

    /// `event` serialises as `{k, d}`.
    fn append<T: serde::Serialize>(
        &self,
        inner: &mut Inner,
        kind: &str,
        critical: bool,
        case: Option<&CaseId>,
        event: &T,
    ) -> Result<(), JournalError> {
        let content = serde_json::to_value(event).map_err(|error| JournalError::Visitor(error.into()))?;
        let data = content.get("d").cloned().unwrap_or_default();
        let appended = inner
            .journal
            .append(kind, critical, case.map(|case| case.0.as_str()), data.clone())
            .inspect_err(|error| {
                self.hooks.on(Outside::JournalTrouble {
                    message: error.to_string(),
                    poisoned: inner.journal.poisoned().is_some(),
                });
            })?;
        let record = crate::journal::Record {
            seq: appended.head.seq,
            time: appended.time,
            epoch: inner.journal.epoch(),
            kind: kind.into(),
            critical,
            case: case.map(|case| case.0.clone()),
            data,
        };
        let folded = inner.book.fold(&record).map_err(JournalError::Visitor)?;
        self.hooks.on(Outside::JournalAppended {
            seq: appended.head.seq,
            bytes: appended.bytes,
            sync_seconds: appended.sync.as_secs_f64(),
        });
        if let Some(store) = inner.store.as_mut()
            && let Err(error) = apply(store, &appended.head, &inner.book, &folded).and_then(|()| store.flush())
        {
            self.hooks.on(Outside::IndexTrouble {
                message: format!("{error:#}; going on without it until the next start"),
            });
            inner.store = None;
        }
        self.recorded.send_replace(appended.head.seq);
        Ok(())
    }

    /// Is there such a case?
    pub fn is_known(&self, id: &CaseId) -> bool {
        self.inner().book.numbers.contains_key(id)
    }

    /// The first case, in journal order, that is not finished and that `wanted` takes.
    pub fn first_open(&self, wanted: impl Fn(&Case) -> bool) -> Option<Case> {
        self.inner().book.cases.values().find(|case| case.is_open() && wanted(case)).cloned()
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

    /// Numbers of open and of held cases.
    pub fn queue(&self) -> (usize, usize) {
        let inner = self.inner();
        let held = inner.book.cases.values().filter(|case| case.state == State::Held).count();
        (inner.book.cases.len() - held, held)
    }

    /// A case, whatever its state. Ended ones come from the index, or without it from the journal.
    pub fn case(&self, id: &CaseId) -> Result<Option<Case>> {
        let inner = self.inner();
        match inner.book.numbers.get(id) {
            None => Ok(None),
            Some(number) => match (inner.book.cases.get(number), &inner.store) {
                (Some(case), _) => Ok(Some(case.clone())),
                (None, Some(store)) => store.case(id),
                (None, None) => Ok(self.replay()?.cases.remove(number)),
            },
        }
    }

    /// Every case, in journal order.
    pub fn cases(&self) -> Result<Vec<Case>> {
        match &self.inner().store {
            Some(store) => store.cases(),
            None => Ok(self.replay()?.cases.into_values().collect()),
        }
    }

    /// What was flagged for a case, strongest first.
    pub fn flagged(&self, id: &CaseId) -> Result<Vec<FlaggedExample>> {
        match &self.inner().store {
            Some(store) => store.flagged(id),
            None => super::query::flagged(&self.vfs, &self.journal_dir, id),
        }
    }

    /// The cases that a training example was flagged for.
    pub fn cases_of(&self, id: &TrainId) -> Result<Vec<CaseId>> {
        match &self.inner().store {
            Some(store) => store.cases_of(id),
            None => super::query::cases_of(&self.vfs, &self.journal_dir, id),
        }
    }

    fn replay(&self) -> Result<Book> {
        super::query::replay(&self.vfs, &self.journal_dir)
    }

    /// Messages that must still be sent, with their cases.
    pub fn pending_messages(&self) -> Vec<(CaseId, Message)> {
        self.inner().book.outbox.values().cloned().collect()
    }

    /// A message was taken by its receiver.
    pub fn message_sent(&self, id: &str, reply: &str) -> Result<(), JournalError> {
        self.note(&Note::MessageSent {
            id: id.into(),
            reply: reply.chars().take(1000).collect(),
        })
    }

    /// A message will never be taken.
    pub fn message_given_up(&self, id: &str, reason: &str) -> Result<(), JournalError> {
        self.note(&Note::MessageGivenUp {
            id: id.into(),
            reason: reason.chars().take(1000).collect(),
        })
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

/// A finished case is the index's business.
fn prune(book: &mut Book, folded: &Folded) {
    if let Folded::Case(number) = folded
        && book.cases.get(number).is_some_and(|case| case.told)
    {
        book.cases.remove(number);
    }
}

fn apply(store: &mut Store, head: &Head, book: &Book, folded: &Folded) -> Result<()> {
    let change = match folded {
        Folded::Nothing => Change::None,
        Folded::Case(number) => book.cases.get(number).map_or(Change::None, Change::Case),
        Folded::Cleared(number) => book.cases.get(number).map_or(Change::None, Change::Clear),
        Folded::Flagged(number, examples) => book.cases.get(number).map_or(Change::None, |case| Change::Flagged(case, examples)),
    };
    store.apply(head, change)
}

/// Make the index again from the journal.
fn rebuild(vfs: &Arc<dyn Vfs>, journal_dir: &Path, index_dir: &Path) -> Result<Store> {
    let mut store = Store::restart(index_dir).context("a new index could not be made")?;
    let mut book = Book::default();
    Reader::new(Arc::clone(vfs), journal_dir).read(&mut |record, head| {
        let folded = book.fold(&record)?;
        apply(&mut store, head, &book, &folded)?;
        prune(&mut book, &folded);
        Ok(())
    })?;
    store.flush()?;
    Ok(store)
}
