//! What a person can do about a case now.

use super::words::{flagged, sentence};
use crate::case::{HoldCause, State};
use crate::cli::advice;
use crate::engine::CaseView;
use crate::policy::{Caps, Found, caps};
use std::path::Path;

/// Something to do, and the command for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advised {
    /// What and why.
    pub why: String,
    /// To be typed or read; may be empty.
    pub command: String,
}

/// The cap at which the guard would have stopped in mode `enforce`, where it is a person who decides: the repair is made all the same.
pub fn beyond_caps(view: &CaseView) -> Option<String> {
    if !matches!(view.state, State::Proposed | State::Observed) {
        return None;
    }
    let caps: Caps = serde_json::from_value(view.settings.get("caps")?.clone()).ok()?;
    caps::alone(&caps, &Found::of(view.trace.as_ref()?))
}

/// What a person can do now.
pub fn actions(view: &CaseView) -> Vec<Advised> {
    let case = view.case.short();
    let config = view.config.as_deref();
    let act = |why: String, command: String| Advised { why, command };
    let file = advice::flagged_file(case);
    let mut list = Vec::new();
    // Of a proposal and of these holds the list below says the same, with the commands.
    let said = view.state == State::Proposed || matches!(view.held_cause, Some(HoldCause::Base | HoldCause::Cap));
    if !view.help.is_empty() && !said {
        list.push(act(sentence(&advice::complete(&view.help, config)), String::new()));
    }
    if flagged(view) > 0 {
        list.push(act(
            match beyond_caps(view) {
                Some(much) => format!(
                    "{} So look at the flagged examples in your own data first, and correct or remove them at their source:",
                    sentence(&much)
                ),
                None => "Look at the flagged examples in your own data, and correct or remove them at their source:".into(),
            },
            advice::flagged_into(case, &file).line(config),
        ));
    }
    if view.state == State::Proposed {
        list.push(act(
            "If you agree, approve it: the link `current` in the candidates' folder is moved to the candidate, and its flagged examples stay out of every later repair:".into(),
            advice::approve(case).line(config),
        ));
    }
    match (view.state, &view.paths.checkpoint) {
        (State::Proposed, Some(checkpoint)) => list.push(act(
            "Where your serving does not follow that link, put the candidate's checkpoint where it loads it from, and say so. The file has the same names, shapes and types as the production one:".into(),
            format!("{}\n{}", checkpoint.display(), advice::approve_by_hand(case).line(config)),
        )),
        (State::Promoted, Some(checkpoint)) => list.push(act("The candidate that is in use:".into(), checkpoint.display().to_string())),
        (State::Rejected, Some(checkpoint)) => {
            list.push(act(
                "Read the gate's reasons. Change the recipe, restart the guard and let it make another candidate; or let it use another method; or let it judge a checkpoint of your own:".into(),
                [
                    advice::retry(case, None, None),
                    advice::retry(case, Some(view.method.other()), None),
                    advice::retry(case, None, Some(Path::new("mine.safetensors"))),
                ]
                .map(|advice| advice.line(config))
                .join("\n"),
            ));
            list.push(act("The rejected candidate:".into(), checkpoint.display().to_string()));
        }
        (State::Held, Some(checkpoint)) => list.push(act("The candidate, as it would be promoted:".into(), checkpoint.display().to_string())),
        _ => {}
    }
    go_on(view, &mut list);
    list.push(act("Everything that is known about this case:".into(), advice::show(case).line(config)));
    list
}

/// How the case goes on, or another one begins.
fn go_on(view: &CaseView, list: &mut Vec<Advised>) {
    let (case, config) = (view.case.short(), view.config.as_deref());
    let act = |why: String, command: String| Advised { why, command };
    match (view.state, view.held_cause) {
        (State::Held, Some(HoldCause::Cap)) => {
            list.push(act(
                "If you agree, let it pass; that counts as your approval:".into(),
                advice::resume(case).line(config),
            ));
        }
        (State::Held, Some(HoldCause::Base)) => {
            list.push(act("Put it back, then go on:".into(), advice::resume(case).line(config)));
            list.push(act(
                "Or begin anew with what is there now:".into(),
                advice::retry(case, None, None).line(config),
            ));
        }
        (State::Held, _) => list.push(act("Remove the cause, then go on:".into(), advice::resume(case).line(config))),
        (State::Proposed, _) => list.push(act("If you do not agree, decline it:".into(), advice::decline(case).line(config))),
        (State::Declined, _) => list.push(act(
            "To let another candidate be made, with the configuration of then:".into(),
            advice::retry(case, None, None).line(config),
        )),
        (State::Undecided | State::NoAnomaly | State::Refused | State::Failed | State::Observed, _) => {
            list.push(act(
                "To ask again after a change of configuration or checkpoint (handing in the same picture again does not):".into(),
                advice::retry(case, None, None).line(config),
            ));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta_guard_contract::method::Name;

    #[test]
    fn after_a_rejection_the_other_method_is_advised_not_the_one_that_failed() {
        let folder = tempfile::tempdir().expect("a folder");
        for failed in Name::all() {
            let mut view = crate::report::tests::ended(folder.path(), State::Rejected);
            view.method = failed;
            let advised: String = actions(&view).into_iter().map(|action| action.command).collect();
            assert_eq!(advised.matches("--method").count(), 1, "{advised}");
            assert!(
                advised.contains("--method ") && !advised.contains(&format!("--method {failed}")),
                "{failed}: {advised}"
            );
        }
    }
}
