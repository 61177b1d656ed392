//! The loop: one case at a time, one step at a time, in the order of [`super::turns`].

mod faults;
mod promote;

use super::hooks::{Happening, Hooks};
use super::standing::Standing;
use super::trouble::{Interrupt, Trouble, blocking, blocking_plain, mend};
use super::turns::Turns;
use super::{Ledger, Snapshot, base, order, tell, work};
use crate::case::next::{Rules, Step, next};
use crate::case::{Case, CaseId, Event, HoldCause, Stage, State};
use crate::jobs::{Failure, Local, Runner};
use crate::journal::JournalError;
use crate::seed::Secret;
use crate::settings::Settings;
use crate::stop::Stop;
use anyhow::{Context, Result};
use delta_guard_contract::method::Method;
use delta_guard_contract::{FaultKind, Message};
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
            without_factors: settings.detect.needs().factors.is_none().then(|| settings.detect.method.name().into()),
            allow_unlearn: settings.detect.common.allow_unlearn,
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
            Ok(()) | Err(Interrupt::Aside) => {}
            Err(Interrupt::Stopped) => return Ok(()),
            Err(Interrupt::Failed(error)) => return Err(error),
        }
        let mut recorded = self.ledger.subscribe();
        while !self.stop.is_stopped() {
            recorded.borrow_and_update();
            let Snapshot { open, held, proposed, .. } = self.ledger.snapshot();
            self.hooks.on(Happening::Queue { open, held, proposed });
            let now = Instant::now();
            self.waiting.retain(|_, until| *until > now);
            let (waiting, turns, rules) = (&self.waiting, &mut self.turns, &self.rules);
            let case = self
                .ledger
                .choose(|open| turns.choose(open.filter(|case| !waiting.contains_key(&case.id)), rules));
            if let Some(case) = case {
                match self.step(case).await {
                    Ok(()) | Err(Interrupt::Stopped | Interrupt::Aside) => continue,
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
            let mendable = case.held_cause().unwrap_or_default() == HoldCause::Fault;
            if !mendable || case.held().map_or(0, |held| held.seq) > self.ledger.changed_at() {
                continue;
            }
            match self.go_on(case).await {
                Ok(()) | Err(Interrupt::Aside) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// Take a held case up again, once its hold was told.
    async fn go_on(&mut self, case: Case) -> Result<(), Interrupt> {
        let id = case.id.clone();
        if !case.told {
            self.step(case).await?;
        }
        if self.ledger.held().iter().any(|held| held.id == id && held.told) {
            let why = "the guard was started with another configuration or version".into();
            self.record(&id, Event::Resumed { why, by: None }).await?;
        }
        Ok(())
    }

    async fn step(&mut self, case: Case) -> Result<(), Interrupt> {
        let (stage, outcome) = match next(&case, &self.rules) {
            Step::Wait => return Ok(()),
            Step::Record(event) => return self.conclude(&case, event).await,
            Step::Work(stage) => (stage, self.work(&case, stage).await),
            Step::Publish => (Stage::Publish, self.publish(&case).await),
            Step::Approve => (Stage::Publish, self.approve(&case).await),
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
                Stage::Unlearn => ledger.standing().map_err(|error| mend(&error, ""))?,
                _ => Standing::default(),
            };
            standing.keep_cases(&settings.case_dir(&ledger_case.id)).map_err(work::resource)?;
            order::job(&ledger_case, stage, &settings, &secret, &standing).map_err(Trouble::from)
        })
        .await?;
        let attempt = case.failures + 1;
        self.record(&case.id, Event::StageStarted { stage, attempt }).await?;
        self.hooks.on(Happening::StageStarted {
            case: case.id.clone(),
            stage,
            attempt,
        });
        fail::fail_point!(failpoint("before", stage));
        let started = Instant::now();
        let (hooks, id) = (Arc::clone(&self.hooks), case.id.clone());
        let mut hear = move |message| match message {
            Message::Progress(progress) => hooks.on(Happening::Progress {
                case: id.clone(),
                stage,
                progress,
            }),
            Message::Log { message } => hooks.on(Happening::WorkerSaid {
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
            if case.state == State::Held {
                // There was no room for it in a record.
                return Ok(());
            }
        }
        fail::fail_point!(failpoint("after", stage));
        self.hooks.on(Happening::StageFinished {
            case: case.id.clone(),
            stage,
            seconds,
        });
        Ok(())
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
        if case.state != State::Held {
            let (done, settings) = (case.clone(), Arc::clone(&self.settings));
            blocking_plain(move || tell::clean_up(&done, &settings)).await?;
        }
        self.hooks.on(Happening::StageFinished {
            case: case.id.clone(),
            stage: Stage::Tell,
            seconds: started.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    /// A stage of our own begins; it takes no time worth a record.
    fn start_quietly(&self, case: &Case, stage: Stage) {
        self.hooks.on(Happening::StageStarted {
            case: case.id.clone(),
            stage,
            attempt: case.failures + 1,
        });
        fail::fail_point!(failpoint("before", stage));
    }

    /// Record a conclusion and say it.
    async fn conclude(&mut self, case: &Case, event: Event) -> Result<(), Interrupt> {
        let case = self.record(&case.id, event).await?;
        if case.state == State::Proposed {
            self.hooks.on(Happening::CaseProposed {
                case: case.id,
                reason: case.reason,
            });
        } else if case.state.is_end() {
            self.hooks.on(Happening::CaseEnded {
                case: case.id,
                state: case.state,
                reason: case.reason,
            });
        }
        Ok(())
    }

    /// Record, and wait out a full disk: what a worker found in hours must not be lost for want of a few bytes.
    async fn record(&mut self, id: &CaseId, mut event: Event) -> Result<Case, Interrupt> {
        let mut too_large = false;
        loop {
            let (ledger, id, asked) = (Arc::clone(&self.ledger), id.clone(), event.clone());
            match blocking_plain({
                let id = id.clone();
                move || ledger.record(&id, asked)
            })
            .await?
            {
                Ok(case) => {
                    if too_large && let Event::Held { cause, reason, help, .. } = event {
                        self.hooks.on(Happening::CaseHeld {
                            case: case.id.clone(),
                            cause,
                            reason,
                            help,
                        });
                    }
                    return Ok(case);
                }
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
                Err(error @ JournalError::TooLarge { .. }) => match self.instead(&id, &event, &error) {
                    Some(instead) => (event, too_large) = (instead, true),
                    None => {
                        self.waiting.insert(id, Instant::now() + LONGEST_WAIT);
                        return Err(Interrupt::Aside);
                    }
                },
                Err(error) => return Err(Interrupt::Failed(error.into())),
            }
        }
    }

    /// What is recorded instead of an event that no record has room for: a hold, which is told like every other; of what rests already that it was told, without
    /// messages. None: not even that has room.
    fn instead(&self, id: &CaseId, event: &Event, error: &JournalError) -> Option<Event> {
        let told = Event::Told {
            report: None,
            messages: Vec::new(),
            list: None,
        };
        let help = format!(
            "this is a defect of delta-guard: please report it with the log; `delta-guard resume {}` tries it again",
            id.short()
        );
        let held = Event::Held {
            kind: FaultKind::Internal,
            reason: error.to_string(),
            help: help.clone(),
            cause: HoldCause::Fault,
        };
        let rests = self.ledger.case(id).ok().flatten().is_none_or(|case| case.state.rests());
        tracing::error!(message = "A record is too large; its case waits for a person.", case = id.short(), error = %error);
        match event {
            Event::Queued { .. } | Event::Told { .. } => (*event != told).then_some(told),
            // The shortest hold that there is.
            Event::Held { help: said, .. } if *said == help => None,
            _ => (!rests).then_some(held),
        }
    }
}

#[cfg_attr(not(feature = "failpoints"), allow(dead_code, reason = "named by failpoints only"))]
fn failpoint(border: &str, stage: Stage) -> String {
    format!("engine::{border}_{stage}")
}
