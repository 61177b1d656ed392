//! The journal, its fold and its index together, shared by inbox, engine, messengers and the HTTP interface. Whatever happens, happens here: recorded
//! first, then believed.

use super::book::{Book, Folded, LastFile, Note};
use super::hooks::{Event as Outside, Hooks};
use super::standing::{Excluded, Standing};
use crate::case::{Accepted, Case, CaseId, Event, Illegal, State};
use crate::clock::Clock;
use crate::journal::store::{Change, Lookup, Store};
use crate::journal::{Head, Journal, JournalError, Options, Reader};
use crate::policy::Spent;
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
    /// What is asked for often, kept apart: who asks must not wait for a record's fsync, nor a record for who asks.
    now: Mutex<Snapshot>,
    /// Every case in journal order.
    order: Mutex<Vec<CaseId>>,
}

/// The ledger at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The last durable record.
    pub head: Head,
    /// Cases that are worked on or wait to be.
    pub open: usize,
    /// Cases that wait for a person.
    pub held: usize,
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
        let mut order: Vec<(u64, CaseId)> = book.numbers.iter().map(|(id, number)| (*number, id.clone())).collect();
        order.sort_unstable();
        let ledger = Self {
            inner: Mutex::new(Inner { journal, store, book }),
            hooks,
            vfs,
            journal_dir: journal_dir.to_path_buf(),
            recorded,
            now: Mutex::default(),
            order: Mutex::new(order.into_iter().map(|(_, id)| id).collect()),
        };
        ledger.take_snapshot(&ledger.inner());
        Ok(ledger)
    }

    fn take_snapshot(&self, inner: &Inner) {
        let (open, held) = counts(&inner.book);
        let mut now = self.now.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *now = Snapshot {
            head: inner.journal.head(),
            open,
            held,
            outbox: inner.book.outbox.len(),
            outbox_changes: inner.book.outbox_changes,
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
                (Some(number), Event::Retried(again)) => Case::ended(id.clone(), number, again),
                _ => return Err(illegal(State::Failed)),
            },
        };
        let state = case.state;
        case.apply(&event, 0, jiff::Timestamp::UNIX_EPOCH).map_err(|_| illegal(state))?;
        self.append(&mut inner, event.kind(), true, Some(id), &event)?;
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
        let event = Event::Accepted(accepted).bounded();
        self.append(&mut inner, event.kind(), true, Some(id), &event)
    }

    /// Record something that is not about the course of a case.
    pub fn note(&self, note: &Note) -> Result<(), JournalError> {
        self.append(&mut self.inner(), note.kind(), note.is_critical(), None, &note.clone().bounded())
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
        if let (Folded::Case(number), Some(case)) = (&folded, case)
            && *number == appended.head.seq
        {
            // Its acceptance: the number of a case is that of its first record.
            self.order().push(case.clone());
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
        self.inner().book.excluded.clone()
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
        (inner.book.spent.clone(), inner.journal.now())
    }

    /// The time that a record would get now.
    pub fn now(&self) -> jiff::Timestamp {
        self.inner().journal.now()
    }

    /// Journal number of the last start with another version or other settings than the start before.
    pub fn changed_at(&self) -> u64 {
        self.inner().book.changed_at
    }

    /// Numbers of open and of held cases.
    pub fn queue(&self) -> (usize, usize) {
        counts(&self.inner().book)
    }

    /// The index, where it is in use. Reading it takes no lock of ours.
    fn lookup(&self) -> Option<Lookup> {
        self.inner().store.as_ref().map(Store::lookup)
    }

    /// A case, whatever its state. Ended ones come from the index, or without it from the journal.
    pub fn case(&self, id: &CaseId) -> Result<Option<Case>> {
        let (number, lookup) = {
            let inner = self.inner();
            let Some(number) = inner.book.numbers.get(id).copied() else {
                return Ok(None);
            };
            if let Some(case) = inner.book.cases.get(&number) {
                return Ok(Some(case.clone()));
            }
            (number, inner.store.as_ref().map(Store::lookup))
        };
        match lookup {
            Some(lookup) => lookup.case(id),
            None => Ok(self.replay()?.cases.remove(&number)),
        }
    }

    /// Every case, in journal order.
    pub fn cases(&self) -> Result<Vec<Case>> {
        match self.lookup() {
            Some(lookup) => lookup.cases(),
            None => Ok(self.replay()?.cases.into_values().collect()),
        }
    }

    /// At most `limit` of the cases that `wanted` takes, the newest first. Reads no more cases than it must.
    pub fn newest(&self, limit: usize, wanted: impl Fn(&Case) -> bool) -> Result<Vec<Case>> {
        let Some(lookup) = self.lookup() else {
            let all = self.replay()?.cases.into_values().rev();
            return Ok(all.filter(wanted).take(limit).collect());
        };
        let mut found = Vec::new();
        let mut before = self.order().len();
        while before > 0 && found.len() < limit {
            let some: Vec<CaseId> = self.order()[before.saturating_sub(LIST_STEP)..before].to_vec();
            before = before.saturating_sub(LIST_STEP);
            for id in some.iter().rev() {
                found.extend(lookup.case(id)?.filter(&wanted));
                if found.len() == limit {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// At most `limit` cases whose id begins with `digits`, in journal order.
    pub fn begin_with(&self, digits: &str, limit: usize) -> Result<Vec<Case>> {
        if digits.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<CaseId> = self.order().iter().filter(|id| id.0.starts_with(digits)).take(limit).cloned().collect();
        ids.iter().filter_map(|id| self.case(id).transpose()).collect()
    }

    /// What was flagged for a case, strongest first.
    pub fn flagged(&self, id: &CaseId) -> Result<Vec<FlaggedExample>> {
        match self.lookup() {
            Some(lookup) => lookup.flagged(id),
            None => super::query::flagged(&self.vfs, &self.journal_dir, id),
        }
    }

    /// The cases that a training example was flagged for.
    pub fn cases_of(&self, id: &TrainId) -> Result<Vec<CaseId>> {
        match self.lookup() {
            Some(lookup) => lookup.cases_of(id),
            None => super::query::cases_of(&self.vfs, &self.journal_dir, id),
        }
    }

    fn replay(&self) -> Result<Book> {
        super::query::replay(&self.vfs, &self.journal_dir)
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

/// Cases that are looked up for a list before its order is looked at again.
const LIST_STEP: usize = 256;

/// Numbers of open and of held cases.
fn counts(book: &Book) -> (usize, usize) {
    (book.cases.len() - book.held, book.held)
}

/// A finished case is the index's business.
fn prune(book: &mut Book, folded: &Folded) {
    if let Folded::Case(number) = folded
        && book.cases.get(number).is_some_and(Case::is_over)
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
