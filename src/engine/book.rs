//! The fold of the whole journal: cases, messages to send, the last file of the inbox. Pure; the daemon and the command line share it.

use super::asked::Request;
use super::standing::Excluded;
use crate::case::{Approval, By, Case, CaseId, End, Event, FileIdentity, Message, RefusedFile, Stage, State, bounds};
use crate::journal::Record;
use crate::policy::{Promotion, Spent};
use anyhow::{Context, Result, anyhow, bail};
use delta_guard_contract::{Digest, FlaggedExample};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Records that are not about the course of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k", content = "d", rename_all = "kebab-case")]
pub enum Note {
    /// The daemon was started.
    DaemonStarted {
        /// Version of the program.
        version: String,
        /// BLAKE3 of its settings.
        settings: Digest,
    },
    /// The inbox refused a file.
    FileRefused(RefusedFile),
    /// A picture was dropped again.
    Duplicate {
        /// The case that it already is.
        of: CaseId,
        /// The file's name, escaped.
        name: String,
        /// The picture and its sidecar.
        files: Vec<FileIdentity>,
        /// BLAKE3 of each file's content; empty in journals of older versions.
        #[serde(default)]
        contents: Vec<Digest>,
    },
    /// Messages about a file that did not become a case. They come before the record of its refusal: after a crash in between both are made again, under the same ids.
    Notices {
        /// The case that the file already is, else a digest of the refusal.
        about: CaseId,
        /// The messages, with their contents.
        messages: Vec<Message>,
    },
    /// Somebody asked for something at the command line.
    Asked {
        /// The request's id.
        id: String,
        /// The user who asked.
        by: u32,
        /// What, and why.
        request: Request,
        /// Was it done?
        done: bool,
        /// What came of it, in a sentence.
        answer: String,
    },
    /// A promoted repair is in use after all, or again: its flagged examples stay out of later ones. (In journals of the first version: a proposed one, put in use by hand.)
    Approved {
        /// The case.
        case: CaseId,
        /// BLAKE3 of its flagged ids, one a line, sorted.
        ids: Digest,
        /// How many there are.
        count: u64,
        /// The user who said so.
        by: u32,
    },
    /// A promotion or approval was taken back.
    Withdrawn {
        /// The case.
        case: CaseId,
        /// The user who said so.
        by: u32,
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
    /// With every text cut to its bound: what is recorded.
    pub fn bounded(self) -> Self {
        let cut = |text: String| bounds::cut(&text, bounds::NOTE);
        match self {
            Note::DaemonStarted { .. } | Note::OutboxWaited { .. } => self,
            Note::FileRefused(mut refused) => {
                refused.sentence = cut(refused.sentence);
                refused.name = cut(refused.name);
                refused.name_base64 = cut(refused.name_base64);
                Note::FileRefused(refused)
            }
            Note::Duplicate { of, name, files, contents } => Note::Duplicate {
                of,
                name: cut(name),
                files,
                contents,
            },
            Note::Asked {
                id,
                by,
                mut request,
                done,
                answer,
            } => {
                request.reason = cut(request.reason);
                Note::Asked {
                    id: cut(id),
                    by,
                    request,
                    done,
                    answer: cut(answer),
                }
            }
            Note::Approved { .. } | Note::Withdrawn { .. } | Note::Notices { .. } => self,
            Note::MessageSent { id, reply } => Note::MessageSent { id, reply: cut(reply) },
            Note::MessageGivenUp { id, reason } => Note::MessageGivenUp { id, reason: cut(reason) },
        }
    }

    /// Must a program that does not know it stop? Without an approval it would put excluded examples back.
    pub fn is_critical(&self) -> bool {
        matches!(self, Note::Approved { .. } | Note::Withdrawn { .. })
    }

    /// The record's kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Note::DaemonStarted { .. } => "daemon-started",
            Note::FileRefused(_) => "file-refused",
            Note::Duplicate { .. } => "duplicate",
            Note::Notices { .. } => "notices",
            Note::Asked { .. } => "asked",
            Note::Approved { .. } => "approved",
            Note::Withdrawn { .. } => "withdrawn",
            Note::MessageSent { .. } => "message-sent",
            Note::MessageGivenUp { .. } => "message-given-up",
            Note::OutboxWaited { .. } => "outbox-waited",
        }
    }
}

/// What became of the file that the inbox dealt with last. Its removal may have been cut off by a crash.
#[derive(Clone, Debug, PartialEq)]
pub enum LastFile {
    /// Taken in, or a duplicate: to be removed, if it still has the content of this digest.
    Taken(Vec<(FileIdentity, Option<Digest>)>),
    /// Refused: to be moved away.
    Refused(RefusedFile),
}

/// The fold.
#[derive(Debug, Default)]
pub struct Book {
    /// Cases by the journal number of their acceptance.
    pub cases: BTreeMap<u64, Case>,
    /// Journal number of every case, also of those that were taken out of `cases`.
    pub numbers: HashMap<CaseId, u64>,
    /// Messages that were neither sent nor given up, by id.
    pub outbox: BTreeMap<String, (CaseId, Message)>,
    /// Records that were folded.
    pub records: u64,
    /// How often a message came or went.
    pub outbox_changes: u64,
    /// How many of `cases` are held.
    pub held: usize,
    /// How many of them are proposed and wait for an answer.
    pub proposed: usize,
    /// Seconds that messages have been waited for in all ([`Note::OutboxWaited`]): a clock that no one can set.
    pub outbox_seconds: u64,
    /// What that clock showed when a message came.
    pub outbox_since: HashMap<String, u64>,
    /// Cases whose flagged examples stay out of later repairs, in the order in which they came to it.
    pub excluded: Vec<Excluded>,
    /// What was promoted, as far as the caps count it.
    pub spent: Spent,
    /// Journal number of the last start whose version or settings were others than those of the start before.
    pub changed_at: u64,
    started: Option<(String, Digest)>,
    /// Messages of cases whose `told` record has not come yet.
    pub queued: HashMap<CaseId, Vec<Message>>,
    /// The inbox's last file.
    pub last_file: Option<LastFile>,
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
    /// These examples were flagged for this case.
    Flagged(u64, Vec<FlaggedExample>),
}

impl Book {
    /// Fold one record in. An error means that the journal says something impossible.
    pub fn fold(&mut self, record: &Record) -> Result<Folded> {
        let folded = self.fold_one(record)?;
        self.records += 1;
        Ok(folded)
    }

    fn fold_one(&mut self, record: &Record) -> Result<Folded> {
        let Some(case) = &record.case else {
            match serde_json::from_value::<Note>(serde_json::json!({ "k": record.kind, "d": record.data })) {
                Ok(note) => return self.note(note, record.seq, record.time),
                Err(error) if record.critical && !matches!(record.kind.as_str(), "segment" | "sealed") => {
                    bail!("a record of kind `{}` that this program does not know: {error}", record.kind)
                }
                // Written by a newer program, and marked as safe to skip.
                Err(_) => {}
            }
            return Ok(Folded::Nothing);
        };
        let event = match Event::read(&record.kind, &record.data) {
            Ok(event) => event,
            Err(error) if record.critical => return Err(anyhow!(error).context(format!("a record of kind `{}` cannot be understood", record.kind))),
            Err(_) => return Ok(Folded::Nothing),
        };
        let id = Digest(case.clone());
        if let Event::Accepted(accepted) = event {
            if self.numbers.insert(id.clone(), record.seq).is_some() {
                bail!("case {id} was accepted twice");
            }
            let picture = (accepted.file, Some(accepted.content.clone()));
            let sidecar = accepted.sidecar.map(|file| (file, accepted.sidecar_content.clone()));
            let files = std::iter::once(picture).chain(sidecar).collect();
            self.last_file = Some(LastFile::Taken(files));
            self.cases.insert(record.seq, Case::new(id, accepted, record.seq, record.time));
            return Ok(Folded::Case(record.seq));
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
        case.apply(&event, record.seq, record.time)?;
        let now = case.state;
        if was != now && now == State::Promoted {
            self.promoted(number, record.time);
        }
        self.count(was, now);
        Ok(match event {
            Event::StageStarted { stage: Stage::Trace, .. } => Folded::Cleared(number),
            Event::Flagged { examples } => Folded::Flagged(number, examples),
            Event::Queued { after, messages } => {
                let queued = self.queued.entry(id).or_default();
                // A telling that a crash cut off is told anew, from its first message.
                queued.truncate(usize::try_from(after).unwrap_or(usize::MAX));
                queued.extend(messages);
                Folded::Case(number)
            }
            Event::Told { messages, .. } => {
                let mut all = self.queued.remove(&id).unwrap_or_default();
                all.extend(messages);
                self.enqueue(&id, all);
                Folded::Case(number)
            }
            _ => Folded::Case(number),
        })
    }

    /// A case came to be promoted: what it flagged stays out, and the caps count it.
    fn promoted(&mut self, number: u64, at: Timestamp) {
        let Some((case, trace)) = self.cases.get(&number).and_then(|case| Some((case, case.trace()?))) else {
            return;
        };
        let by = case.phase.approval().and_then(|approval| approval.by.user());
        self.excluded.push(Excluded {
            case: case.id.clone(),
            ids: trace.ids.clone(),
            count: trace.found.count(),
            at,
            by,
        });
        self.spent.promoted(Promotion {
            at,
            submitter: case.accepted.uid,
            by_person: by.is_some(),
            found: trace.found.clone(),
        });
    }

    /// Keep the numbers of those that wait for a person.
    fn count(&mut self, was: State, now: State) {
        for (state, number) in [(State::Held, &mut self.held), (State::Proposed, &mut self.proposed)] {
            *number += usize::from(now == state);
            *number -= usize::from(was == state);
        }
    }

    /// These messages wait from now on.
    fn enqueue(&mut self, case: &CaseId, messages: Vec<Message>) {
        for message in messages {
            self.outbox_since.insert(message.id.clone(), self.outbox_seconds);
            self.outbox.insert(message.id.clone(), (case.clone(), message));
            self.outbox_changes += 1;
        }
    }

    fn note(&mut self, note: Note, seq: u64, at: Timestamp) -> Result<Folded> {
        match note {
            Note::DaemonStarted { version, settings } => {
                let now = Some((version, settings));
                if self.started != now {
                    self.changed_at = seq;
                    self.started = now;
                }
            }
            Note::Asked { .. } => {}
            Note::Notices { about, messages } => self.enqueue(&about, messages),
            Note::Approved { case, ids, count, by } => {
                let answered = self.in_use(&case, by, seq, at)?;
                self.excluded.retain(|excluded| excluded.case != case);
                self.excluded.push(Excluded {
                    case,
                    ids,
                    count,
                    at,
                    by: Some(by),
                });
                self.spent.approve(at);
                return Ok(answered);
            }
            Note::Withdrawn { case, .. } => self.excluded.retain(|excluded| excluded.case != case),
            Note::FileRefused(refused) => self.last_file = Some(LastFile::Refused(refused)),
            Note::Duplicate { files, contents, .. } => {
                let contents = contents.into_iter().map(Some).chain(std::iter::repeat(None));
                self.last_file = Some(LastFile::Taken(files.into_iter().zip(contents).collect()));
            }
            Note::MessageSent { id, .. } | Note::MessageGivenUp { id, .. } => {
                self.outbox.remove(&id);
                self.outbox_changes += 1;
                self.outbox_since.remove(&id);
            }
            Note::OutboxWaited { seconds } => self.outbox_seconds = self.outbox_seconds.saturating_add(seconds),
        }
        Ok(Folded::Nothing)
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
        };
        for event in [Event::Approved(approval), ended, told] {
            case.apply(&event, seq, at)?;
        }
        self.count(State::Proposed, State::Promoted);
        Ok(Folded::Case(number))
    }
}
