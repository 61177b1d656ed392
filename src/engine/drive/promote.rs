//! The last stage of a repair: the candidate's folder, the word that it may be promoted, and the link `current`.

use super::Engine;
use crate::case::{Approval, By, Case, End, Event, HoldCause, Phase, Published, Stage};
use crate::engine::hooks::Happening;
use crate::engine::standing::digest_ids;
use crate::engine::trouble::{Hold, Trouble, blocking, mend};
use crate::engine::{base, work};
use crate::policy::caps;
use crate::publish;
use crate::settings::Settings;
use delta_guard_contract::{Digest, Fault};
use std::sync::Arc;
use std::time::Instant;

impl Engine {
    pub(super) async fn publish(&mut self, case: &Case) -> Result<(), Trouble> {
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
        fail::fail_point!(super::failpoint("after", Stage::Publish));
        self.hooks.on(Happening::StageFinished {
            case: case.id.clone(),
            stage: Stage::Publish,
            seconds,
        });
        Ok(())
    }

    /// Mode `enforce`: within the caps the configuration approves the candidate; past them whoever let it pass did.
    pub(super) async fn approve(&mut self, case: &Case) -> Result<(), Trouble> {
        if self.is_outdated(case).await? {
            return Ok(());
        }
        self.within_caps(case)?;
        let (by, why) = match case.allowed_by {
            Some(user) => (By::User(user), "let pass the caps"),
            None => (By::POLICY, "mode enforce, within the caps"),
        };
        let approval = Approval {
            by,
            why: why.into(),
            by_hand: false,
        };
        self.record(&case.id, Event::Approved(approval)).await?;
        Ok(())
    }

    /// Intent first, then the link, then the end. After a crash the link itself tells whether it was moved; a link that points to neither was moved by a foreign hand.
    pub(super) async fn promote(&mut self, case: &Case) -> Result<(), Trouble> {
        let candidates = self.settings.candidates_dir.clone();
        let now = {
            let candidates = candidates.clone();
            blocking(move || publish::current(&candidates).map_err(|error| mend(&error, ""))).await?
        };
        let Some(to) = case.published().map(|published| published.folder.clone()) else {
            return Err(Trouble::Fault(mend(&anyhow::anyhow!("the case has no published candidate"), "")));
        };
        if now.as_ref() != Some(&to) {
            self.still_the_base(case).await?;
        }
        let Phase::Promoting(_, _, promotion) = &case.phase else {
            if !self.is_outdated(case).await? {
                self.record(&case.id, Event::PromoteIntent { from: now, to }).await?;
            }
            return Ok(());
        };
        if now.as_ref() != Some(&to) {
            if now != promotion.from {
                let message = format!(
                    "`current` points to {now:?}, not to {:?} as when the promotion began: somebody else moved it",
                    promotion.from
                );
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

    async fn still_the_base(&self, case: &Case) -> Result<(), Trouble> {
        let (same_case, settings) = (case.clone(), Arc::clone(&self.settings));
        blocking(move || base::still_there(&same_case, "the promotion", &settings)).await
    }

    /// Did another repair take further examples out since the candidate was made? Then it is made again. What an owner's own candidate was trained without, only the
    /// owner knows.
    async fn is_outdated(&mut self, case: &Case) -> Result<bool, Trouble> {
        if case.given.is_some() {
            return Ok(false);
        }
        let ledger = Arc::clone(&self.ledger);
        let standing = blocking(move || ledger.standing().map_err(|error| mend(&error, ""))).await?;
        if standing.digest().as_ref() == case.standing().map(|named| &named.digest) {
            return Ok(false);
        }
        let why = "since the candidate was made, another repair took further examples out; it is made again without those".into();
        self.record(&case.id, Event::Outdated { why }).await?;
        Ok(true)
    }

    /// May the guard promote this by itself, or did a person let it pass?
    fn within_caps(&self, case: &Case) -> Result<(), Hold> {
        let Some(trace) = case.trace().filter(|_| case.allowed_by.is_none()) else {
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
}

fn publish_candidate(case: &Case, settings: &Settings) -> Result<(String, Digest), Fault> {
    let Phase::Certified(certified) = &case.phase else {
        return Err(mend(&anyhow::anyhow!("the case has no judged candidate"), ""));
    };
    let made = &certified.unlearned;
    let traced = &made.decided.traced;
    // What an owner's own candidate was trained without, only the owner knows.
    let (removed, ids) = match case.given {
        None => (work::flagged_ids(case, settings)?, traced.trace.ids.clone()),
        Some(_) => (Vec::new(), digest_ids(&[])),
    };
    let standing = work::standing_ids(case, settings)?;
    let candidate = publish::NewCandidate {
        case: &case.id,
        base: &traced.prediction.checkpoint,
        checkpoint: &settings.case_dir(&case.id).join(&made.file),
        digest: &made.digest,
        removed: &removed,
        ids: &ids,
        standing: made.standing.as_ref().map(|named| (named, standing.as_slice())),
        given: case.given.is_some(),
        attempt: case.attempt,
        gate: &certified.gate,
        seq: certified.seq,
    };
    publish::publish_candidate(&settings.candidates_dir, &candidate).map_err(work::resource)
}
