//! The fold of the whole journal: cases, and what each room makes of its own entries. Pure; the daemon and the command line share it.

use super::entry::approval::{self, Approvals};
use super::entry::daemon::Starts;
use super::entry::inbox::LastFile;
use super::entry::mail::Outbox;
use super::entry::{Entry, approval::Note};
use crate::case::{Approval, By, Case, CaseId, End, Event, Kept, Stage, State, TraceSummary};
use crate::journal::Record;
use anyhow::{Context, Result, bail};
use delta_guard_contract::Flagged;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};

/// The fold.
#[derive(Debug, Default)]
pub struct Book {
    /// Cases by the journal number of their acceptance.
    pub cases: BTreeMap<u64, Case>,
    /// Journal number of every case, also of those that were taken out of `cases`.
    pub numbers: HashMap<CaseId, u64>,
    /// How many of `cases` are held.
    pub held: usize,
    /// How many of them are proposed and wait for an answer.
    pub proposed: usize,
    /// Records that were folded.
    pub records: u64,
    /// What a person's word made of it.
    pub approvals: Approvals,
    /// The messages that wait.
    pub outbox: Outbox,
    /// The inbox's last file.
    pub last_file: Option<LastFile>,
    /// The daemon's starts.
    pub starts: Starts,
}

/// What a record changed.
#[derive(Debug, PartialEq)]
pub enum Folded {
    /// No case.
    Nothing,
    /// This case (its number).
    Case(u64),
    /// This case's trace began: earlier flagged examples are void.
    Cleared(u64),
    /// This case was traced: what was flagged for it is in this file.
    Traced(u64, Kept),
    /// These examples were flagged for this case, in a journal of the first version.
    Flagged(u64, Vec<Flagged>),
}

impl Book {
    /// Fold one record in. An error means that the journal says something impossible.
    pub fn fold_record(&mut self, record: Record) -> Result<Folded> {
        let (seq, at) = (record.seq, record.time);
        self.fold(Entry::read(record)?, seq, at)
    }

    /// Fold what was recorded under this number, at this time.
    pub fn fold(&mut self, entry: Entry, seq: u64, at: Timestamp) -> Result<Folded> {
        let folded = match entry {
            Entry::Case(id, event) => self.case(id, event, seq, at)?,
            Entry::Inbox(note) => {
                self.last_file = Some(LastFile::of(note));
                Folded::Nothing
            }
            Entry::Mail(note) => {
                self.outbox.fold(note);
                Folded::Nothing
            }
            Entry::Approval(note) => self.approval(note, seq, at)?,
            Entry::Daemon(note) => {
                self.starts.fold(note, seq);
                Folded::Nothing
            }
            Entry::Journal | Entry::Unknown => Folded::Nothing,
        };
        self.records += 1;
        Ok(folded)
    }

    fn case(&mut self, id: CaseId, event: Event, seq: u64, at: Timestamp) -> Result<Folded> {
        if let Event::Accepted(accepted) = event {
            if self.numbers.insert(id.clone(), seq).is_some() {
                bail!("case {id} was accepted twice");
            }
            self.last_file = Some(LastFile::accepted(&accepted));
            self.cases.insert(seq, Case::new(id, accepted, seq, at));
            return Ok(Folded::Case(seq));
        }
        let number = *self.numbers.get(&id).with_context(|| format!("case {id} was never accepted"))?;
        if let Event::Retried(again) = &event {
            // It had ended, and was taken out.
            if let (false, Some(ended)) = (self.cases.contains_key(&number), Case::ended(id.clone(), number, again)) {
                self.cases.insert(number, ended);
            }
        }
        let case = self
            .cases
            .get_mut(&number)
            .with_context(|| format!("case {id} has ended, and yet something happened to it"))?;
        let was = case.state;
        case.apply(&event, seq, at)?;
        let now = case.state;
        if was != now && now == State::Promoted {
            self.approvals.promoted(case, at);
        }
        self.count(was, now);
        match event {
            Event::StageStarted { stage: Stage::Trace, .. } => return Ok(Folded::Cleared(number)),
            Event::Flagged { examples } => return Ok(Folded::Flagged(number, examples)),
            Event::Queued { after, messages } => self.outbox.queue(&id, after, messages),
            Event::Told { messages, list, .. } => self.outbox.told(&id, messages, list),
            Event::Traced {
                trace: TraceSummary { flagged: Some(file), .. },
                ..
            } => return Ok(Folded::Traced(number, file)),
            Event::Retraced { trace: Some(trace), .. } => {
                if let Some(file) = trace.flagged {
                    return Ok(Folded::Traced(number, file));
                }
            }
            _ => {}
        }
        Ok(Folded::Case(number))
    }

    /// Keep the numbers of those that wait for a person.
    fn count(&mut self, was: State, now: State) {
        for (state, number) in [(State::Held, &mut self.held), (State::Proposed, &mut self.proposed)] {
            *number += usize::from(now == state);
            *number -= usize::from(was == state);
        }
    }

    fn approval(&mut self, note: approval::Note, seq: u64, at: Timestamp) -> Result<Folded> {
        let folded = match &note {
            Note::Approved { case, by, .. } => self.in_use(case, *by, seq, at)?,
            Note::Asked { .. } | Note::Withdrawn { .. } => Folded::Nothing,
        };
        self.approvals.fold(note, at);
        Ok(folded)
    }

    /// In journals of the first version a proposal that was put in use by hand was approved beside its case: it waits no more.
    fn in_use(&mut self, id: &CaseId, by: u32, seq: u64, at: Timestamp) -> Result<Folded> {
        let Some((number, case)) = self.numbers.get(id).and_then(|number| Some((*number, self.cases.get_mut(number)?))) else {
            return Ok(Folded::Nothing);
        };
        if case.state != State::Proposed || !case.told {
            return Ok(Folded::Nothing);
        }
        let approval = Approval {
            by: By::User(by),
            why: String::new(),
            by_hand: true,
        };
        let ended = Event::Ended {
            end: End::Promoted,
            reason: "its owner has put the candidate in use".into(),
            help: String::new(),
        };
        let told = Event::Told {
            report: None,
            messages: Vec::new(),
            list: None,
        };
        for event in [Event::Approved(approval), ended, told] {
            case.apply(&event, seq, at)?;
        }
        self.count(State::Proposed, State::Promoted);
        Ok(Folded::Case(number))
    }
}
