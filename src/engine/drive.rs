//! The loop: one case at a time, one step at a time, in the order of [`super::turns`].

mod faults;

use super::hooks::{Event as Outside, Hooks};
use super::standing::{Standing, digest_ids};
use super::trouble::{Hold, Interrupt, Trouble, blocking, blocking_plain, mend};
use super::turns::Turns;
use super::{Ledger, base, tell, work};
use crate::case::next::{Rules, Step, next};
use crate::case::{Case, CaseId, End, Event, HoldCause, Published, Stage, State};
use crate::jobs::{Failure, Local, Runner};
use crate::journal::JournalError;
use crate::policy::caps;
use crate::publish;
use crate::seed::Secret;
use crate::settings::Settings;
use crate::stop::Stop;
use anyhow::{Context, Result};
use delta_guard_contract::{Fault, FaultKind, Message};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Drives cases.
pub struct Engine {
    ledger: Arc<Ledger>,
    settings: Arc<Settings>,
    secret: Arc<Secret>,
    hooks: Arc<dyn Hooks>,
    give_back: tell::GiveBack,
    runner: Box<dyn Runner>,
    rules: Rules,
    stop: Stop,
    /// Cases that failed and wait for their next attempt. In memory only: a start is a new attempt.
    waiting: HashMap<CaseId, Instant>,
    turns: Turns,
}

/// Between two attempts to write a record, a report or a candidate while the disk is full.
const DISK_RETRY: Duration = Duration::from_secs(2);
/// Longest wait between two attempts at a stage.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

impl Engine {
    /// An engine over a ledger.
    pub fn new(
        ledger: Arc<Ledger>,
        settings: Arc<Settings>,
        secret: Arc<Secret>,
        (hooks, give_back): (Arc<dyn Hooks>, tell::GiveBack),
        stop: Stop,
    ) -> Self {
        let rules = Rules {
            mode: settings.mode,
            allow_unlearn: settings.detect.allow_unlearn,
            check_prediction: settings.check_prediction,
            gate: settings.gate.clone(),
        };
        let worker = &settings.worker;
        let runner = Local {
            program: worker.path.clone(),
            grace: worker.stop_grace,
            // 0 to 19, as checked with the configuration.
            nice: Some(worker.nice.min(19).cast_signed()),
        };
        Self {
            ledger,
            settings,
            secret,
            hooks,
            give_back,
            runner: Box::new(runner),
            rules,
            stop,
            waiting: HashMap::new(),
            turns: Turns::default(),
        }
    }

    /// Work until stopped. An error means that nothing can be recorded any more.
    pub async fn run(mut self) -> Result<()> {
        match self.take_up().await {
            Ok(()) => {}
            Err(Interrupt::Stopped) => return Ok(()),
            Err(Interrupt::Failed(error)) => return Err(error),
        }
        let mut recorded = self.ledger.subscribe();
        while !self.stop.is_stopped() {
            recorded.borrow_and_update();
            let (open, held) = self.ledger.queue();
            self.hooks.on(Outside::Queue { open, held });
            let now = Instant::now();
            self.waiting.retain(|_, until| *until > now);
            let (waiting, turns, rules) = (&self.waiting, &mut self.turns, &self.rules);
            let case = self
                .ledger
                .choose(|open| turns.choose(open.filter(|case| !waiting.contains_key(&case.id)), rules));
            if let Some(case) = case {
                match self.step(case).await {
                    Ok(()) | Err(Interrupt::Stopped) => continue,
                    Err(Interrupt::Failed(error)) => return Err(error),
                }
            }
            let next_attempt = self.waiting.values().min().copied().unwrap_or(now + LONGEST_WAIT);
            tokio::select! {
                changed = recorded.changed() => changed.context("the ledger is gone")?,
                () = tokio::time::sleep_until(next_attempt.into()) => {}
                () = self.stop.stopped() => {}
            }
        }
        Ok(())
    }

    /// At a start: what a fault held is tried again where configuration or version are others than when it was held. Everything else waits for a person's
    /// word: the same again would end the same, and a guard that is started ten times must not train ten times.
    async fn take_up(&mut self) -> Result<(), Interrupt> {
        for case in self.ledger.held() {
            let mendable = case.held_cause.unwrap_or_default() == HoldCause::Fault;
            if !mendable || case.held_seq.unwrap_or(0) > self.ledger.changed_at() {
                continue;
            }
            let id = case.id.clone();
            if !case.told {
                self.step(case).await?;
            }
            if self.ledger.held().iter().any(|held| held.id == id && held.told) {
                let why = "the guard was started with another configuration or version".into();
                self.record(&id, Event::Resumed { why, by: None }).await?;
            }
        }
        Ok(())
    }

    async fn step(&mut self, case: Case) -> Result<(), Interrupt> {
        let (stage, outcome) = match next(&case, &self.rules) {
            Step::Wait => return Ok(()),
            Step::Record(event) => return self.conclude(&case, event).await,
            Step::Work(stage) => (stage, self.work(&case, stage).await),
            Step::Publish => (Stage::Publish, self.publish(&case).await),
            Step::Promote => (Stage::Publish, self.promote(&case).await),
            Step::Tell => (Stage::Tell, self.tell(&case).await),
        };
        match outcome {
            Err(Trouble::Fault(fault)) => self.fault(&case, stage, fault).await,
            Err(Trouble::Hold(hold)) => self.hold(&case, FaultKind::Configuration, hold).await,
            Err(Trouble::Interrupt(interrupt)) => Err(interrupt),
            Ok(()) => Ok(()),
        }
    }

    /// A stage that a worker does.
    async fn work(&mut self, case: &Case, stage: Stage) -> Result<(), Trouble> {
        let (ledger_case, settings, secret) = (case.clone(), Arc::clone(&self.settings), Arc::clone(&self.secret));
        let ledger = Arc::clone(&self.ledger);
        let (job, limit) = blocking(move || {
            base::still_there(&ledger_case, &format!("stage {stage}"), &settings)?;
            let standing = match stage {
                Stage::Unlearn => ledger.standing().map_err(work::resource)?,
                _ => Standing::default(),
            };
            standing.keep_cases(&settings.case_dir(&ledger_case.id)).map_err(work::resource)?;
            work::job(&ledger_case, stage, &settings, &secret, &standing).map_err(Trouble::from)
        })
        .await?;
        let attempt = case.failures + 1;
        self.record(&case.id, Event::StageStarted { stage, attempt }).await?;
        self.hooks.on(Outside::StageStarted {
            case: case.id.clone(),
            stage,
            attempt,
        });
        fail::fail_point!(failpoint("before", stage));
        let started = Instant::now();
        let (hooks, id) = (Arc::clone(&self.hooks), case.id.clone());
        let mut hear = move |message| match message {
            Message::Progress(progress) => hooks.on(Outside::Progress {
                case: id.clone(),
                stage,
                progress,
            }),
            Message::Log { message } => hooks.on(Outside::WorkerSaid {
                case: id.clone(),
                stage,
                message,
            }),
            Message::Outcome(_) => {}
        };
        let result = self
            .runner
            .run(&job, limit, self.stop.clone(), &mut hear)
            .await
            .map_err(|failure| match failure {
                Failure::Fault(fault) => Trouble::Fault(fault),
                Failure::Stopped => Trouble::Interrupt(Interrupt::Stopped),
            })?;
        let seconds = started.elapsed().as_secs_f64();
        let (events_case, settings) = (case.clone(), Arc::clone(&self.settings));
        let events = blocking(move || work::events(&events_case, stage, &job, result, seconds, &settings)).await?;
        fail::fail_point!(failpoint("before_record", stage));
        for event in events {
            let case = self.record(&case.id, event).await?;
            if case.state.is_end() {
                // There was no room for it in a record.
                self.hooks.on(Outside::CaseEnded {
                    case: case.id,
                    state: case.state,
                    reason: case.reason,
                });
                return Ok(());
            }
        }
        fail::fail_point!(failpoint("after", stage));
        self.hooks.on(Outside::StageFinished {
            case: case.id.clone(),
            stage,
            seconds,
        });
        Ok(())
    }

    async fn publish(&mut self, case: &Case) -> Result<(), Trouble> {
        let started = Instant::now();
        self.start_quietly(case, Stage::Publish);
        let (publish_case, settings) = (case.clone(), Arc::clone(&self.settings));
        let (folder, manifest) = blocking(move || {
            base::still_there(&publish_case, "stage publish", &settings)?;
            publish_candidate(&publish_case, &settings).map_err(Trouble::from)
        })
        .await?;
        let seconds = started.elapsed().as_secs_f64();
        self.record(
            &case.id,
            Event::Published {
                published: Published { folder, manifest },
                seconds,
            },
        )
        .await?;
        fail::fail_point!(failpoint("after", Stage::Publish));
        self.hooks.on(Outside::StageFinished {
            case: case.id.clone(),
            stage: Stage::Publish,
            seconds,
        });
        Ok(())
    }

    /// Intent first, then the link, then the end. After a crash the link itself tells whether it was moved; a link that points to neither was moved by a foreign hand.
    async fn promote(&mut self, case: &Case) -> Result<(), Trouble> {
        let candidates = self.settings.candidates_dir.clone();
        let now = {
            let candidates = candidates.clone();
            blocking(move || publish::current(&candidates).map_err(|error| mend(&error, ""))).await?
        };
        let (Some(published), promotion) = (&case.published, &case.promotion) else {
            return Err(Trouble::Fault(mend(&anyhow::anyhow!("the case has no published candidate"), "")));
        };
        let to = published.folder.clone();
        if now.as_ref() != Some(&to) {
            let (same_case, settings) = (case.clone(), Arc::clone(&self.settings));
            blocking(move || base::still_there(&same_case, "the promotion", &settings)).await?;
        }
        if case.state == State::Published {
            let ledger = Arc::clone(&self.ledger);
            let standing = blocking(move || ledger.standing().map_err(work::resource)).await?;
            if standing.digest() != case.standing.as_ref().map(|named| named.digest.clone()) {
                let why = "since the candidate was made, another repair took further examples out; it is made again without those".into();
                self.record(&case.id, Event::Outdated { why }).await?;
                return Ok(());
            }
            self.within_caps(case)?;
        }
        let Some((from, _)) = promotion.clone().filter(|_| case.state == State::Promoting) else {
            self.record(&case.id, Event::PromoteIntent { from: now, to }).await?;
            return Ok(());
        };
        if now.as_ref() != Some(&to) {
            if now != from {
                let message = format!("`current` points to {now:?}, not to {from:?} as when the promotion began: somebody else moved it");
                return Err(Trouble::Fault(mend(&anyhow::anyhow!(message), "")));
            }
            fail::fail_point!("engine::before_promote");
            let to = to.clone();
            blocking(move || publish::promote(&candidates, &to).map_err(work::resource)).await?;
            fail::fail_point!("engine::after_promote");
        }
        let reason = "the candidate passed the gate and `current` points to it".into();
        self.conclude(
            case,
            Event::Ended {
                end: End::Promoted,
                reason,
                help: String::new(),
            },
        )
        .await?;
        Ok(())
    }

    /// May the guard promote this by itself, or did a person let it pass?
    fn within_caps(&self, case: &Case) -> Result<(), Hold> {
        let Some(trace) = case.trace.as_ref().filter(|_| case.allowed_by.is_none()) else {
            return Ok(());
        };
        let (spent, now) = self.ledger.spent();
        let Some((key, sentence)) = caps::over(&self.settings.caps, &spent, &trace.found, case.accepted.uid, now) else {
            return Ok(());
        };
        let id = case.id.short();
        Err(Hold {
            cause: HoldCause::Cap,
            reason: format!("the candidate passed the gate, but {sentence}"),
            help: format!(
                "look at the flagged examples (`delta-guard flagged {id}`); if you agree, type `delta-guard resume {id}`: the candidate is promoted, and that \
                 counts as your approval; {key} is the cap's key"
            ),
        })
    }

    async fn tell(&mut self, case: &Case) -> Result<(), Trouble> {
        let started = Instant::now();
        self.start_quietly(case, Stage::Tell);
        let (tell_case, settings, hooks, give_back) = (case.clone(), Arc::clone(&self.settings), Arc::clone(&self.hooks), self.give_back);
        // A report that cannot be made must not keep the message from being sent for ever.
        let last = case.failures + 1 >= self.settings.worker.attempts;
        let told = blocking(move || tell::tell(&tell_case, &settings, hooks.as_ref(), give_back, last).map_err(work::resource)).await?;
        fail::fail_point!(failpoint("before_record", Stage::Tell));
        for event in told {
            if self.record(&case.id, event).await?.told {
                break;
            }
        }
        fail::fail_point!(failpoint("after", Stage::Tell));
        if case.state.is_end() {
            let (done, settings) = (case.clone(), Arc::clone(&self.settings));
            blocking_plain(move || tell::clean_up(&done, &settings)).await?;
        }
        self.hooks.on(Outside::StageFinished {
            case: case.id.clone(),
            stage: Stage::Tell,
            seconds: started.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    /// A stage of our own begins; it takes no time worth a record.
    fn start_quietly(&self, case: &Case, stage: Stage) {
        self.hooks.on(Outside::StageStarted {
            case: case.id.clone(),
            stage,
            attempt: case.failures + 1,
        });
        fail::fail_point!(failpoint("before", stage));
    }

    /// Record a conclusion and say it.
    async fn conclude(&mut self, case: &Case, event: Event) -> Result<(), Interrupt> {
        let case = self.record(&case.id, event).await?;
        if case.state.is_end() {
            self.hooks.on(Outside::CaseEnded {
                case: case.id,
                state: case.state,
                reason: case.reason,
            });
        }
        Ok(())
    }

    /// Record, and wait out a full disk: what a worker found in hours must not be lost for want of a few bytes.
    async fn record(&mut self, id: &CaseId, mut event: Event) -> Result<Case, Interrupt> {
        loop {
            let (ledger, id, asked) = (Arc::clone(&self.ledger), id.clone(), event.clone());
            match blocking_plain({
                let id = id.clone();
                move || ledger.record(&id, asked)
            })
            .await?
            {
                Ok(case) => return Ok(case),
                Err(error @ JournalError::Io { .. }) if self.ledger.poisoned().is_none() => {
                    tracing::debug!(
                        error = format!("{:#}", anyhow::Error::from(error)),
                        "a record could not be written; trying again"
                    );
                    tokio::select! {
                        () = tokio::time::sleep(DISK_RETRY) => {}
                        () = self.stop.stopped() => return Err(Interrupt::Stopped),
                    }
                }
                // Every text was cut to its bound, so that this is a defect; it must cost this case at most.
                Err(error @ JournalError::TooLarge { .. }) => event = self.too_large(&id, &event, &error)?,
                Err(error) => return Err(Interrupt::Failed(error.into())),
            }
        }
    }

    /// What is recorded instead of an event that no record has room for: the case's end, or for an ended one that it was told without messages.
    fn too_large(&self, id: &CaseId, event: &Event, error: &JournalError) -> Result<Event, Interrupt> {
        let instead = match event {
            Event::Queued { .. } | Event::Told { .. } => Event::Told {
                report: None,
                messages: Vec::new(),
            },
            _ => Event::Ended {
                end: End::Failed,
                reason: error.to_string(),
                help: "this is a defect of delta-guard: please report it with the log".into(),
            },
        };
        tracing::error!(message = "A record was too large; its case goes no further.", case = id.short(), error = %error);
        if instead == *event || instead.kind() == event.kind() {
            return Err(Interrupt::Failed(anyhow::anyhow!(error.to_string())));
        }
        Ok(instead)
    }
}

fn publish_candidate(case: &Case, settings: &Settings) -> Result<(String, delta_guard_contract::Digest), Fault> {
    let missing = || mend(&anyhow::anyhow!("the case lacks what a candidate consists of"), "");
    let (file, digest) = case.candidate_file.as_ref().ok_or_else(missing)?;
    let trace = case.trace.as_ref().ok_or_else(missing)?;
    // What an owner's own candidate was trained without, only the owner knows.
    let (removed, ids) = match case.given {
        None => (work::flagged_ids(case, settings)?, trace.ids.clone()),
        Some(_) => (Vec::new(), digest_ids(&[])),
    };
    let standing = work::standing_ids(case, settings)?;
    let candidate = publish::Candidate {
        case: &case.id,
        base: case.base().ok_or_else(missing)?,
        checkpoint: &settings.case_dir(&case.id).join(file),
        digest,
        removed: &removed,
        ids: &ids,
        standing: case.standing.as_ref().map(|named| (named, standing.as_slice())),
        given: case.given.is_some(),
        attempt: case.attempt,
        gate: case.gate.as_ref().ok_or_else(missing)?,
        seq: case.certified_seq.ok_or_else(missing)?,
    };
    publish::publish_candidate(&settings.candidates_dir, &candidate).map_err(work::resource)
}

#[cfg_attr(not(feature = "failpoints"), allow(dead_code, reason = "named by failpoints only"))]
fn failpoint(border: &str, stage: Stage) -> String {
    format!("engine::{border}_{stage}")
}
