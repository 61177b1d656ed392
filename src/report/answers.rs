//! The answers of the first screen: how sure, why, what next. One is read in the time that a lift takes.

use super::actions;
use super::exhibits::shared_said;
use super::words::{self, thousands};
use crate::case::State;
use crate::engine::CaseView;
use delta_guard_contract::job::FlaggedReadings;
use delta_guard_contract::{TraceReport, TraceVerdict};
use maud::{Markup, html};

/// At most this many actions stand on the first screen; all of them stand below.
const ACTIONS: usize = 2;

/// Three cells under the headline.
pub(super) fn answers(view: &CaseView) -> Markup {
    let sure = sure(view);
    // What stands in the lead already is not said twice.
    let lead = words::headline(view).meaning.to_lowercase();
    let mut why = why(view);
    why.retain(|sentence| !lead.contains(sentence.trim_end_matches('.').to_lowercase().as_str()));
    if why.is_empty() && view.state == State::Rejected {
        why = view.trace.as_ref().map_or_else(Vec::new, |trace| evidence(view, trace));
    }
    let next = actions::actions(view);
    html! {
        div class="answers" {
            @if let Some((word, sentences)) = sure {
                div { h2 { "How sure: " (word) } @for sentence in sentences { p { (sentence) } } }
            }
            @if !why.is_empty() {
                div { h2 { "Why" } @for sentence in why { p { (sentence) } } }
            }
            div {
                h2 { "What next" }
                @for action in next.iter().take(ACTIONS) { p { (action.why) } @if !action.command.is_empty() { pre { (action.command) } } }
                @if next.len() > ACTIONS { p { a href="#next" { "All steps" } } }
            }
        }
    }
}

/// A word for it, and the sentences that carry it. None where no trace was made, or its detector does not say.
fn sure(view: &CaseView) -> Option<(&'static str, Vec<String>)> {
    let trace = view.trace.as_ref()?;
    let sure = trace.sure.as_ref()?;
    let sentences = std::iter::once(&sure.sentence).chain(&trace.notes).cloned().collect();
    Some((sure.how.as_str(), sentences))
}

/// What the verdict rests on.
fn why(view: &CaseView) -> Vec<String> {
    let rejected = view
        .gate
        .as_ref()
        .filter(|gate| view.state == State::Rejected && !gate.reasons.is_empty());
    if let Some(gate) = rejected {
        return gate.reasons.iter().map(|reason| words::sentence(reason)).collect();
    }
    let Some(trace) = &view.trace else {
        return Vec::from_iter((!view.reason.is_empty()).then(|| words::sentence(&view.reason)));
    };
    match &trace.verdict {
        TraceVerdict::Undecided { why } => vec![words::sentence(&why.sentence())],
        TraceVerdict::Flagged => {
            let mut sentences = evidence(view, trace);
            if view.state == State::Held {
                sentences.insert(0, words::sentence(&view.reason));
            }
            sentences
        }
    }
}

/// What was found, what it shares, and how the candidate reads it.
fn evidence(view: &CaseView, trace: &TraceReport) -> Vec<String> {
    let mut sentences = vec![found(trace)];
    sentences.extend(shared_said(trace));
    sentences.extend(view.certify.as_ref().and_then(|certify| certify.flagged.as_ref()).map(read_otherwise));
    sentences
}

/// How many were found, and how.
fn found(trace: &TraceReport) -> String {
    let (count, label) = (words::examples(trace.flagged.len()), &trace.predicted_label);
    let of_label = match trace.flagged.iter().all(|example| example.label == *label) {
        true => format!(" with the label “{label}”"),
        false => String::new(),
    };
    let what = if trace.words.flagged.is_empty() {
        "were flagged"
    } else {
        &trace.words.flagged
    };
    format!("{count}{of_label} {what}.")
}

/// How the candidate reads the flagged training pictures, in a sentence.
pub(super) fn read_otherwise(read: &FlaggedReadings) -> String {
    format!(
        "The candidate reads {} of the {} flagged pictures as another class than their label (the production model: {}), and {} of {} other pictures of these classes as before.",
        thousands(read.otherwise_after),
        thousands(read.examples),
        thousands(read.otherwise_before),
        thousands(read.others_as_before),
        thousands(read.others),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::tests::repaired;
    use delta_guard_contract::finding::{Abstain, HowSure, Sure};

    #[test]
    fn each_state_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let mut view = repaired(folder.path());
        let all = |view: &CaseView| {
            (
                sure(view).map(|(word, said)| format!("{word}: {}", said.join(" "))).unwrap_or_default(),
                why(view).join(" "),
            )
        };
        let (sure, why) = all(&view);
        assert!(
            sure.starts_with("clear: ") && sure.contains("2 training examples with the wrong label have no gradient"),
            "{sure}"
        );
        assert!(
            why.contains("150 training examples with the label “dog”") && why.contains("64 of 1,024 pixels") && why.contains("reads 148 of the 150"),
            "{why}"
        );
        view.state = State::Rejected;
        view.gate.as_mut().unwrap().reasons = vec!["accuracy fell by 3.0 pp".into()];
        assert_eq!(all(&view).1, "Accuracy fell by 3.0 pp.");
        view.state = State::Held;
        view.reason = "the checkpoint was replaced".into();
        assert!(all(&view).1.starts_with("The checkpoint was replaced. 150 training"));
        let trace = view.trace.as_mut().unwrap();
        trace.verdict = TraceVerdict::Undecided {
            why: Abstain::other("stronger", "a placebo was stronger"),
        };
        trace.sure.as_mut().unwrap().how = HowSure::NotEnough;
        view.state = State::Undecided;
        let (sure, why) = all(&view);
        assert!(sure.starts_with("not enough to act") && why == "A placebo was stronger.", "{sure} {why}");
        view.trace = None;
        assert_eq!(all(&view), (String::new(), "The checkpoint was replaced.".into()));
    }

    #[test]
    fn a_detector_says_itself_how_sure_it_is_and_what_the_flagged_did() {
        let folder = tempfile::tempdir().unwrap();
        let mut view = repaired(folder.path());
        let trace = view.trace.as_mut().unwrap();
        trace.sure = Some(Sure {
            how: HowSure::NotMeasured,
            sentence: "It never abstains.".into(),
        });
        trace.words.flagged = "lie in the smaller cluster".into();
        assert_eq!(sure(&view).unwrap().0, "not measured");
        assert!(why(&view)[0].starts_with("150 training examples with the label “dog” lie in the smaller cluster."));
        let trace = view.trace.as_mut().unwrap();
        trace.flagged[3].label = "cat".into();
        trace.sure = None;
        assert!(
            why(&view)[0].starts_with("150 training examples lie in the smaller cluster."),
            "not all have that label"
        );
        assert_eq!(sure(&view), None);
    }
}
