//! The regrowth check: the anomaly is traced on the candidate. Where the set that was removed was incomplete, the rest of it stands out there.
//!
//! The training set is the whole one, so what was removed is flagged again, although the candidate never saw it: it looks like the anomaly. What counts are
//! the others.

use super::trouble::{Trouble, passing};
use super::work::{self, resource};
use super::{CaseView, kept};
use crate::case::{Case, Event, Regrowth, TraceSummary};
use crate::publish;
use crate::settings::Settings;
use delta_guard_contract::{Fault, Flagged, TraceReport, TraceVerdict, TrainId};
use std::collections::BTreeSet;
use std::path::Path;

/// Fewer than this are no group: a handful is flagged by chance.
const FEWEST: usize = 5;
/// So are fewer than this share of what was removed: a detector's errors grow with its group.
const SHARE: f64 = 0.05;

/// What to record of a trace on the candidate. Blocks.
pub(super) fn event(case: &Case, report: &TraceReport, seconds: f64, settings: &Settings) -> Result<Event, Trouble> {
    was_the_candidate(case, report, settings)?;
    work::about_the_case(case, report)?;
    let former = work::trace_report(case, settings)?;
    let removed: BTreeSet<&TrainId> = former.flagged.iter().map(|example| &example.id).collect();
    let standing: BTreeSet<TrainId> = work::standing_ids(case, settings)?.into_iter().collect();
    // Without a verdict nothing stands out.
    let stands_out = match report.verdict {
        TraceVerdict::Flagged => report.flagged.as_slice(),
        TraceVerdict::Undecided { .. } => &[],
    };
    let others: Vec<Flagged> = stands_out
        .iter()
        .filter(|example| !removed.contains(&example.id) && !standing.contains(&example.id))
        .cloned()
        .collect();
    let group = others.len() >= least(removed.len());
    let rounds = case.regrown.iter().filter(|earlier| earlier.again).count();
    let mut found = Regrowth {
        flagged: stands_out.len() as u64,
        removed: (stands_out.len() - others.len()) as u64,
        more: None,
        count: others.len() as u64,
        again: group && rounds < settings.gate.regrowth as usize,
    };
    if group {
        found.more = Some(kept::keep(&settings.case_dir(&case.id), &others).map_err(resource)?);
    }
    let trace = match found.again {
        true => Some(Box::new(together(case, former, others, rounds + 1, settings)?)),
        false => None,
    };
    Ok(Event::Retraced {
        doubt: (group && trace.is_none()).then(|| doubt(&found, rounds)),
        found,
        trace,
        seconds,
    })
}

/// So many others are a group.
fn least(removed: usize) -> usize {
    FEWEST.max((SHARE * removed as f64).ceil() as usize)
}

fn doubt(found: &Regrowth, rounds: usize) -> String {
    let after = match rounds {
        0 => String::new(),
        1 => "after another removal ".to_owned(),
        n => format!("after {n} further removals "),
    };
    format!(
        "{after}{} training examples that were not removed stand out when the anomaly is traced on the candidate, beside {} that were: the set was not complete, or natural pictures look like it",
        found.count, found.removed
    )
}

/// Did the worker read the candidate, and that one?
fn was_the_candidate(case: &Case, report: &TraceReport, settings: &Settings) -> Result<(), Fault> {
    let Some((file, _)) = case.candidate_file() else {
        return Err(Fault::internal("the case has no candidate yet"));
    };
    let path = settings.case_dir(&case.id).join(file);
    let digest = publish::digest_checkpoint(&path, &mut || {}).map_err(|error| {
        let error = anyhow::Error::from(error).context("the candidate cannot be read");
        passing(&error).unwrap_or_else(|| Fault::internal(format!("{error:#}")))
    })?;
    match digest == report.checkpoint {
        true => Ok(()),
        false => Err(Fault::internal(format!(
            "the candidate {digest} was to be traced, and the worker traced {}",
            report.checkpoint
        ))),
    }
}

/// One trace of all that is to be removed: the former one, and what stood out on the candidate. It is written beside the former one, under a name of its own.
fn together(case: &Case, former: TraceReport, others: Vec<Flagged>, round: usize, settings: &Settings) -> Result<TraceSummary, Fault> {
    let mut report = former;
    report.notes.push(format!(
        "{} of the flagged examples were found when the anomaly was traced on the candidate that was made without the others (round {round}).",
        others.len()
    ));
    let first = report.flagged.len() as u32 + 1;
    report
        .flagged
        .extend((first..).zip(others).map(|(rank, example)| Flagged { rank, ..example }));
    let file = case.trace().map(|trace| settings.case_dir(&case.id).join(&trace.file));
    let dir = file
        .as_deref()
        .and_then(Path::parent)
        .ok_or_else(|| Fault::internal("the trace lies nowhere"))?;
    work::summary(case, dir, None, &report, settings)
}

impl CaseView {
    /// What stood out on the candidates, one sentence each.
    pub fn regrowth(&self) -> Vec<String> {
        self.regrown.iter().map(|(found, _)| sentence(found)).collect()
    }
}

fn sentence(found: &Regrowth) -> String {
    let Regrowth { flagged, removed, count, .. } = found;
    let what = match (found.again, &found.more) {
        _ if *flagged == 0 => return "Traced on the candidate, nothing stands out.".into(),
        _ if *count == 0 => return format!("Traced on the candidate, {flagged} training examples stand out; all of them were removed before."),
        (true, _) => "were removed, too, and another candidate was made",
        (false, Some(_)) => "were not removed: a person decides",
        (false, None) => "are too few for a group and were left",
    };
    format!("Traced on the candidate, {flagged} training examples stand out; {removed} of them were removed before, the other {count} {what}.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Kept;
    use delta_guard_contract::Digest;

    #[test]
    fn a_handful_is_five_or_one_in_twenty() {
        assert_eq!([0, 1, 99, 100, 101, 120, 121, 4000].map(least), [5, 5, 5, 5, 6, 6, 7, 200]);
    }

    #[test]
    fn each_outcome_has_its_own_words() {
        let kept = Kept {
            file: "f".into(),
            digest: Digest("d".into()),
            bytes: 1,
        };
        for (flagged, removed, more, again, end) in [
            (0, 0, None, false, "nothing stands out."),
            (30, 30, None, false, "30 training examples stand out; all of them were removed before."),
            (
                36,
                30,
                Some(&kept),
                true,
                "30 of them were removed before, the other 6 were removed, too, and another candidate was made.",
            ),
            (
                36,
                30,
                Some(&kept),
                false,
                "30 of them were removed before, the other 6 were not removed: a person decides.",
            ),
            (
                33,
                30,
                None,
                false,
                "30 of them were removed before, the other 3 are too few for a group and were left.",
            ),
        ] {
            let found = Regrowth {
                flagged,
                removed,
                more: more.cloned(),
                count: flagged - removed,
                again,
            };
            assert!(sentence(&found).ends_with(end), "{}", sentence(&found));
        }
    }
}
