//! The index of a running guard: put out of use where it fails or contradicts the journal, made again beside the work, and taken into use when it has caught up.
//! Until then answers come from the journal: right, and slower.

use super::{Inner, Ledger};
use crate::case::Case;
use crate::engine::book::{Book, Folded};
use crate::engine::flags::{self, cases_beside};
use crate::engine::hooks::Happening;
use crate::index::{IndexChange, Lookup, Store};
use crate::journal::{Head, Reader};
use crate::stop::Stop;
use crate::vfs::Vfs;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Wait before another try where the index could not be made, or was lost soon after; doubled each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// An index that was in use for so long is made again at once.
const STOOD: Duration = Duration::from_secs(600);

impl Ledger {
    /// An answer of the index is an error or cannot be: nobody asks it any more. `lookup` says which index it was; another one may be in use by now.
    pub(super) fn doubt_index(&self, lookup: &Lookup, error: &anyhow::Error) {
        let mut inner = self.inner();
        if inner.store.as_ref().is_some_and(|store| store.is_of(lookup)) {
            self.lose_index(&mut inner, error);
            self.take_snapshot(&inner);
        }
    }

    /// Put the index out of use.
    pub(super) fn lose_index(&self, inner: &mut Inner, error: &anyhow::Error) {
        inner.lost = inner.store.take();
        inner.why_lost = format!("{error:#}");
        self.hooks.on(Happening::IndexTrouble {
            message: inner.why_lost.clone(),
        });
        self.lost.send_modify(|times| *times += 1);
    }

    /// Make the index again and take it into use; blocks for as long as the journal takes to be read. One caller at a time.
    ///
    /// # Errors
    /// When it cannot be written, the journal cannot be read, or `stopped` says that it is time to end.
    pub fn rebuild_index(&self, stopped: &dyn Fn() -> bool) -> Result<()> {
        let (lost, why) = {
            let mut inner = self.inner();
            (inner.lost.take(), inner.why_lost.clone())
        };
        if let Some(store) = lost {
            store.close();
        }
        let (mut store, mut rest) = rebuild(&self.vfs, &self.journal_dir, &self.index_dir, stopped)?;
        let mut inner = self.inner();
        // What was recorded meanwhile. Nothing is recorded now.
        rest.fill(&mut store, stopped)?;
        let head = inner.journal.head();
        ensure!(
            store.position() == (head.seq, hex::encode(head.hash).as_str()),
            "the journal's end cannot be read: record {} instead of {}",
            store.position().0,
            head.seq
        );
        store.flush()?;
        inner.store = Some(store);
        inner.why_lost.clear();
        self.take_snapshot(&inner);
        drop(inner);
        self.hooks.on(Happening::IndexRebuilt { why, records: head.seq });
        Ok(())
    }
}

/// Make the index again whenever it is lost, until `stop`.
pub async fn keep(ledger: Arc<Ledger>, mut stop: Stop) {
    let mut lost = ledger.lost.subscribe();
    let (mut wait, mut tried) = (FIRST_WAIT, None::<Instant>);
    loop {
        lost.borrow_and_update();
        if ledger.has_index() {
            tokio::select! {
                changed = lost.changed() => if changed.is_err() { return },
                () = stop.stopped() => return,
            }
        }
        match tried {
            Some(at) if at.elapsed() < STOOD => {
                tokio::select! {
                    () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
                    () = stop.stopped() => return,
                }
            }
            _ => wait = FIRST_WAIT,
        }
        let (maker, end) = (Arc::clone(&ledger), stop.clone());
        let made = tokio::task::spawn_blocking(move || maker.rebuild_index(&|| end.is_stopped())).await;
        if stop.is_stopped() {
            return;
        }
        tried = Some(Instant::now());
        match made {
            Ok(Ok(())) => {}
            Ok(Err(error)) => ledger.still_lost(&error),
            Err(error) => ledger.still_lost(&anyhow::anyhow!("the index's maker panicked: {error}")),
        }
    }
}

impl Ledger {
    /// It could not be made again. The same trouble is told once.
    fn still_lost(&self, error: &anyhow::Error) {
        let message = format!("{error:#}");
        let mut inner = self.inner();
        if inner.why_lost != message {
            inner.why_lost.clone_from(&message);
            drop(inner);
            self.hooks.on(Happening::IndexTrouble { message });
        }
    }
}

/// A journal that is read into an index, as far as it was read.
pub(super) struct Filling {
    reader: Reader,
    book: Book,
    cases_dir: PathBuf,
}

impl Filling {
    /// Take in what was recorded since.
    fn fill(&mut self, store: &mut Store, stopped: &dyn Fn() -> bool) -> Result<()> {
        let Self { reader, book, cases_dir } = self;
        reader.read(&mut |record, head| {
            ensure!(!stopped(), "the guard stops");
            let folded = book.fold_record(record)?;
            apply(store, head, book, &folded, cases_dir)?;
            prune(book, &folded);
            Ok(())
        })?;
        Ok(())
    }
}

/// Make the index again from the journal, as it is now.
pub(super) fn rebuild(vfs: &Arc<dyn Vfs>, journal_dir: &Path, index_dir: &Path, stopped: &dyn Fn() -> bool) -> Result<(Store, Filling)> {
    let mut store = Store::restart(index_dir).context("a new index could not be made")?;
    let mut filling = Filling {
        reader: Reader::new(Arc::clone(vfs), journal_dir),
        book: Book::default(),
        cases_dir: cases_beside(journal_dir),
    };
    filling.fill(&mut store, stopped)?;
    store.flush()?;
    Ok((store, filling))
}

/// A finished case is the index's business.
pub(super) fn prune(book: &mut Book, folded: &Folded) {
    if let Folded::Case(number) = folded
        && book.cases.get(number).is_some_and(Case::is_over)
    {
        book.cases.remove(number);
    }
}

/// Take a record in that `book` has folded.
pub(super) fn apply(store: &mut Store, head: &Head, book: &Book, folded: &Folded, cases_dir: &Path) -> Result<()> {
    let flagged;
    let change = match folded {
        Folded::Nothing => IndexChange::None,
        Folded::Case(number) => book.cases.get(number).map_or(IndexChange::None, IndexChange::Case),
        Folded::Cleared(number) => book.cases.get(number).map_or(IndexChange::None, IndexChange::Clear),
        Folded::Traced(number, file) => match book.cases.get(number).map(|case| (case, flags::load(cases_dir, &case.id, file))) {
            None => IndexChange::None,
            Some((case, Ok(examples))) => {
                flagged = examples;
                IndexChange::Replaced(case, &flagged)
            }
            Some((case, Err(error))) => {
                tracing::error!(
                    message = "A file that the journal names cannot be used.",
                    case = case.id.short(),
                    error = format!("{error:#}")
                );
                IndexChange::Unread(case)
            }
        },
        Folded::Flagged(number, examples) => book
            .cases
            .get(number)
            .map_or(IndexChange::None, |case| IndexChange::Flagged(case, examples)),
    };
    store.apply(head, change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::tests::{accepted, events};
    use crate::case::{CaseId, End, Event};
    use crate::clock::SystemClock;
    use crate::engine::Hooks;
    use crate::engine::standing::digest_ids;
    use crate::vfs::Disk;
    use delta_guard_contract::{Digest, Flagged, TrainId};
    use std::sync::Mutex;

    #[derive(Default)]
    struct Heard(Mutex<Vec<Happening>>);

    impl Hooks for Heard {
        fn on(&self, event: Happening) {
            self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(event);
        }
        fn report(&self, _: &crate::engine::CaseView) -> Result<String> {
            Ok(String::new())
        }
        fn messages(&self, _: &crate::engine::CaseView) -> Vec<crate::engine::Message> {
            Vec::new()
        }
    }

    fn over(ledger: &Ledger, id: &str) -> Result<CaseId> {
        let id = Digest(id.repeat(64));
        ledger.accept(&id, accepted())?;
        let end = Event::Ended {
            end: End::Refused,
            reason: "r".into(),
            help: String::new(),
        };
        ledger.record(&id, end)?;
        let told = Event::Told {
            report: None,
            messages: Vec::new(),
            list: None,
        };
        ledger.record(&id, told)?;
        Ok(id)
    }

    /// sled can lose what it had without a word. Each way of asking notices, answers rightly, and makes sure that the index is made again.
    #[test]
    fn an_index_that_lost_a_case_without_a_word_is_not_believed() -> Result<()> {
        type Ask = fn(&Ledger, &CaseId) -> Result<usize>;
        let ways: [Ask; 4] = [
            |ledger, id| Ok(usize::from(ledger.case(id)?.is_some())),
            |ledger, id| Ok(ledger.cases()?.iter().filter(|case| case.id == *id).count()),
            |ledger, id| Ok(ledger.newest(9, |case| case.id == *id)?.len()),
            |ledger, id| Ok(ledger.begin_with(id.short(), 9)?.len()),
        ];
        for ask in ways {
            let folder = tempfile::tempdir()?;
            let heard = Arc::new(Heard::default());
            let hooks: Arc<dyn Hooks> = heard.clone();
            let (journal, index) = (folder.path().join("journal"), folder.path().join("index"));
            std::fs::create_dir(&journal)?;
            let ledger = Ledger::open(Arc::new(Disk), &journal, &index, Arc::new(SystemClock), hooks)?;
            let (id, other) = (over(&ledger, "a")?, over(&ledger, "b")?);
            ensure!(ask(&ledger, &id)? == 1 && ledger.has_index(), "a sound index is believed");
            let lookup = ledger.inner().store.as_ref().map(Store::lookup).context("there is an index")?;
            lookup.forget(&id)?;
            ensure!(
                ask(&ledger, &id)? == 1 && !ledger.has_index() && !ledger.snapshot().has_index,
                "it is not believed"
            );
            ensure!(ask(&ledger, &other)? == 1, "the journal answers");
            // Whoever still reads the old one holds up the new one; nothing else does.
            drop(lookup);
            let late = over(&ledger, "c")?;
            ledger.rebuild_index(&|| false)?;
            ensure!(ledger.has_index() && ledger.snapshot().has_index);
            for id in [&id, &other, &late] {
                ensure!(ask(&ledger, id)? == 1);
            }
            ensure!(ledger.has_index(), "the new one is believed");
            let heard = heard.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let count = |wanted: fn(&Happening) -> bool| heard.iter().filter(|event| wanted(event)).count();
            ensure!(count(|event| matches!(event, Happening::IndexTrouble { .. })) == 1);
            ensure!(count(|event| matches!(event, Happening::IndexRebuilt { .. })) == 1);
        }
        Ok(())
    }

    #[test]
    fn an_index_that_lost_what_was_flagged_is_not_believed() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (journal, index) = (folder.path().join("journal"), folder.path().join("index"));
        std::fs::create_dir(&journal)?;
        let ledger = Ledger::open(Arc::new(Disk), &journal, &index, Arc::new(SystemClock), Arc::new(Heard::default()))?;
        let id = Digest("a".repeat(64));
        ledger.accept(&id, accepted())?;
        let names: Vec<TrainId> = ["dog/1.png", "dog/2.png"].map(|name| TrainId(name.into())).into();
        let flagged: Vec<Flagged> = (1..)
            .zip(&names)
            .map(|(rank, name)| serde_json::from_value(serde_json::json!({"id": name, "label": "dog", "rank": rank, "score": 0.9})))
            .collect::<Result<_, _>>()?;
        for event in events() {
            let event = match event {
                Event::Flagged { .. } => Event::Flagged { examples: flagged.clone() },
                Event::Traced { mut trace, seconds } => {
                    trace.ids = digest_ids(&names);
                    Event::Traced { trace, seconds }
                }
                event @ (Event::Predicted { .. } | Event::Fitted { .. } | Event::Decided(_)) => event,
                _ => continue,
            };
            ledger.record(&id, event)?;
        }
        for event in [
            Event::Ended {
                end: End::Observed,
                reason: "r".into(),
                help: String::new(),
            },
            Event::Told {
                report: None,
                messages: Vec::new(),
                list: None,
            },
        ] {
            ledger.record(&id, event)?;
        }
        ensure!(ledger.flagged(&id)? == flagged && ledger.has_index(), "a sound index is believed");
        let lookup = ledger.inner().store.as_ref().map(Store::lookup).context("there is an index")?;
        lookup.forget_flagged(&id)?;
        drop(lookup);
        ensure!(ledger.flagged(&id)? == flagged && !ledger.has_index(), "it is not believed");
        ledger.rebuild_index(&|| false)?;
        ensure!(ledger.flagged(&id)? == flagged && ledger.has_index(), "the new one is");
        Ok(())
    }

    #[test]
    fn a_guard_that_stops_does_not_wait_for_its_index() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (journal, index) = (folder.path().join("journal"), folder.path().join("index"));
        std::fs::create_dir(&journal)?;
        let ledger = Ledger::open(Arc::new(Disk), &journal, &index, Arc::new(SystemClock), Arc::new(Heard::default()))?;
        over(&ledger, "a")?;
        let lookup = ledger.inner().store.as_ref().map(Store::lookup).context("there is an index")?;
        ledger.doubt_index(&lookup, &anyhow::anyhow!("a test"));
        drop(lookup);
        ensure!(ledger.rebuild_index(&|| true).is_err() && !ledger.has_index());
        ledger.rebuild_index(&|| false)?;
        ensure!(ledger.has_index());
        Ok(())
    }
}
