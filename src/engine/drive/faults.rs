//! A stage that failed: whose fault it is, another try, or a hold.

use super::{Engine, LONGEST_WAIT};
use crate::case::{Case, CaseId, End, Event, HoldCause, Stage, State, bounds};
use crate::engine::hooks::Happening;
use crate::engine::kept;
use crate::engine::trouble::{Hold, Interrupt, blocking_plain};
use delta_guard_contract::{Fault, FaultKind};
use std::time::{Duration, Instant};

impl Engine {
    /// Whose fault it is decides: the submitter's is a refusal, a person's is a hold, everything else is tried again and then held.
    pub(super) async fn fault(&mut self, case: &Case, stage: Stage, fault: Fault) -> Result<(), Interrupt> {
        let Fault { kind, code, message, help } = fault;
        // The submitter knows the picture by the name that it had, not by its place in the spool.
        let spooled = self.settings.spool_dir().join(&case.accepted.content.0);
        let message = message.replace(&spooled.display().to_string(), &case.accepted.name);
        let message = self.shorten(&case.id, message).await;
        let help = bounds::cut(&help, bounds::HELP);
        let refusable = matches!(stage, Stage::Predict | Stage::Fit | Stage::Trace);
        if kind == FaultKind::Submission && refusable {
            return self
                .conclude(
                    case,
                    Event::Ended {
                        end: End::Refused,
                        reason: message,
                        help,
                    },
                )
                .await;
        }
        let failures = case.failures + 1;
        let again = matches!(kind, FaultKind::Resource | FaultKind::Internal) && failures < self.settings.worker.attempts;
        // The report's stage cannot be held: its case has ended. It is tried until it works.
        let retry_in = (again || stage == Stage::Tell).then(|| delay(self.settings.worker.retry_delay, failures));
        self.hooks.on(Happening::StageFailed {
            case: case.id.clone(),
            stage,
            kind,
            message: message.clone(),
            retry_in,
        });
        let failed = self
            .record(
                &case.id,
                Event::StageFailed {
                    stage,
                    kind,
                    code: Some(code),
                    message: message.clone(),
                    help: help.clone(),
                },
            )
            .await?;
        if failed.state == State::Held {
            // There was no room for it in a record.
            return Ok(());
        }
        if let Some(wait) = retry_in {
            self.waiting.insert(case.id.clone(), Instant::now() + wait);
            return Ok(());
        }
        let hold = Hold {
            cause: HoldCause::Fault,
            reason: after_tries(&failed, &message, self.ledger.now()),
            help,
        };
        self.hold(case, kind, hold).await
    }

    /// Wait for a person. The next step tells everybody who should know.
    pub(super) async fn hold(&mut self, case: &Case, kind: FaultKind, hold: Hold) -> Result<(), Interrupt> {
        let Hold { cause, reason, help } = hold;
        self.hooks.on(Happening::CaseHeld {
            case: case.id.clone(),
            cause,
            reason: reason.clone(),
            help: help.clone(),
        });
        self.record(&case.id, Event::Held { kind, reason, help, cause }).await?;
        Ok(())
    }

    /// A record has room for a fault, not for a flood: what is too long goes to a file of the case, which the short form names.
    async fn shorten(&self, id: &CaseId, message: String) -> String {
        /// Room for the sentence that names the file.
        const SHORT: usize = bounds::REASON / 2;
        let short = bounds::cut_middle(&message, SHORT);
        if short == message {
            return message;
        }
        let dir = self.settings.case_dir(id);
        match blocking_plain(move || kept::keep_text(&dir, &message).map(|kept| dir.join(kept.file))).await {
            Ok(Ok(file)) => format!("{short}\n(the whole text: {})", file.display()),
            // The short form says what matters; the disk will tell its trouble by itself.
            _ => short,
        }
    }
}

/// Why a case is held, and how often that was tried, where it was tried more than once.
fn after_tries(case: &Case, message: &str, now: jiff::Timestamp) -> String {
    match case.failed_since {
        Some(since) if case.failures > 1 => {
            let seconds = now.duration_since(since).as_secs().max(0);
            let within = jiff::SignedDuration::from_secs(seconds);
            format!(
                "tried {} times within {within:#}, which failed each time; the last time: {message}",
                case.failures
            )
        }
        _ => message.into(),
    }
}

/// First the configured delay, then five times as long each time, at most an hour.
fn delay(first: Duration, failures: u32) -> Duration {
    first.saturating_mul(5u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::tests::case;
    use jiff::Timestamp;

    /// A case at whose prediction a fault was met at each of these seconds.
    fn failed(at: &[i64]) -> Case {
        let mut case = case();
        for second in at {
            let event = Event::StageFailed {
                stage: Stage::Predict,
                kind: FaultKind::Resource,
                code: None,
                message: "m".into(),
                help: String::new(),
            };
            case.apply(&event, 2, Timestamp::constant(*second, 0)).expect("legal");
        }
        case
    }

    #[test]
    fn a_hold_says_how_often_it_was_tried_and_over_how_long() {
        let at = |second| Timestamp::constant(second, 0);
        let told = after_tries(&failed(&[100, 160, 461]), "no answer", at(461));
        assert_eq!(told, "tried 3 times within 6m 1s, which failed each time; the last time: no answer");
        assert_eq!(after_tries(&failed(&[100]), "no such file", at(461)), "no such file");
        // What failed before a hold does not count after it.
        let mut case = failed(&[100, 160]);
        let hold = Event::Held {
            kind: FaultKind::Resource,
            reason: "r".into(),
            help: String::new(),
            cause: HoldCause::Fault,
        };
        case.apply(&hold, 3, at(161)).expect("legal");
        assert_eq!((case.failures, case.failed_since), (0, None));
    }
}
