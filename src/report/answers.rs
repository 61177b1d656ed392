//! The answers of the first screen: how sure, why, what next. One is read in the time that a lift takes.

use super::words::{self, percent, thousands};
use crate::case::State;
use crate::engine::CaseView;
use delta_guard_contract::detect::DetectMode;
use delta_guard_contract::evidence::{SharedPixels, StandOut};
use delta_guard_contract::job::FlaggedReadings;
use delta_guard_contract::{TraceReport, TraceVerdict};
use maud::{Markup, html};

/// From this multiple of the strongest placebo's z on a finding is called clear.
const CLEAR: f64 = 2.0;
/// Below this one it is called close.
const CLOSE: f64 = 1.25;
/// So many actions stand on the first screen; all of them stand below.
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
    let next = words::actions(view);
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

/// A word for it, and the sentences that carry it. None where no trace was made.
fn sure(view: &CaseView) -> Option<(&'static str, Vec<String>)> {
    let trace = view.trace.as_ref()?;
    if trace.settings.mode != DetectMode::Guard {
        return Some((
            "not measured",
            vec!["The paper’s count rule has no placebos and never abstains. Expect clean examples among the flagged.".into()],
        ));
    }
    let flagged = trace.verdict == TraceVerdict::Flagged;
    let (word, first) = match trace.stand_out.as_ref().and_then(against_placebos) {
        Some((word, sentence)) if flagged => (word, sentence),
        Some((_, sentence)) => ("not enough to act", sentence),
        None if flagged => ("not measured", "There was no placebo to compare with.".into()),
        None => ("not enough to act", "No group of examples was found that could be compared.".into()),
    };
    let mut sentences = vec![first];
    sentences.extend(trace.notes.iter().cloned());
    Some((word, sentences))
}

/// The group's effect on this picture beside the strongest placebo's. None where either is missing.
fn against_placebos(stand_out: &StandOut) -> Option<(&'static str, String)> {
    let z = stand_out.z.filter(|z| z.is_finite())?;
    let all = stand_out.placebos.len();
    if all == 0 {
        return None;
    }
    let found: Vec<f64> = stand_out
        .placebos
        .iter()
        .filter_map(|placebo| placebo.z)
        .filter(|z| z.is_finite())
        .collect();
    let strongest = found.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let own = format!("The group acts on this picture {z:.1} standard deviations more than the rest of its class does (z).");
    let pictures = format!("The same steps were run on {all} clean pictures of the class");
    if strongest <= 0.0 {
        let nothing = if found.is_empty() {
            "none of them led to a group"
        } else {
            "no group acted on its picture"
        };
        return Some(("clear", format!("{own} {pictures}: {nothing}.")));
    }
    let times = z / strongest;
    let word = if times >= CLEAR {
        "clear"
    } else if times >= CLOSE {
        "fairly clear"
    } else {
        "close"
    };
    let beside = if times >= 1.0 {
        format!("this case is {times:.1} times that")
    } else {
        "this case does not reach it".into()
    };
    Some((
        word,
        format!("{own} {pictures}: the strongest of them reached {strongest:.1}, and {beside}."),
    ))
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
        TraceVerdict::Undecided { reason } => vec![words::sentence(reason)],
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
    sentences.extend(trace.shared.as_ref().and_then(shared));
    sentences.extend(view.certify.as_ref().and_then(|certify| certify.flagged.as_ref()).map(read_otherwise));
    sentences
}

/// How many were found, and how.
fn found(trace: &TraceReport) -> String {
    let count = words::examples(trace.flagged.len());
    let label = &trace.predicted_label;
    match trace.settings.mode {
        DetectMode::Guard => {
            format!("{count} with the label “{label}” taught the model the same thing, and their influence on this picture falls when it is changed.")
        }
        DetectMode::PaperCode | DetectMode::PaperText => format!("The influence of {count} falls when the picture and its label are changed."),
    }
}

/// What the flagged share, in a sentence. None where they share no pixel.
pub(super) fn shared(shared: &SharedPixels) -> Option<String> {
    let [row, column, rows, columns] = shared.place?;
    let alike = if shared.flagged_alike < 0.9995 {
        format!("at least {}", percent(shared.flagged_alike))
    } else {
        "all".into()
    };
    let others = if shared.others_alike < 0.0005 {
        "none".into()
    } else {
        format!("at most {}", percent(shared.others_alike))
    };
    (shared.pixels > 0).then(|| {
        format!(
            "They share {} of {} pixels, in a box of {rows} × {columns} at row {row}, column {column}: there {alike} of the flagged look alike, and {others} of the others of their class look like them.",
            thousands(shared.pixels),
            thousands(shared.of),
        )
    })
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
    use delta_guard_contract::TrainId;
    use delta_guard_contract::evidence::Placebo;

    fn case(z: Option<f64>, placebos: &[Option<f64>]) -> StandOut {
        let placebo = |z: &Option<f64>| Placebo {
            id: TrainId("dog/1.png".into()),
            flagged: 3,
            d_prime: *z,
            z: *z,
            overlap: 0.0,
        };
        StandOut {
            d_prime: z,
            z,
            cut: 0.2,
            null_pictures: 100,
            rounds: 2,
            placebos: placebos.iter().map(placebo).collect(),
        }
    }

    #[test]
    fn sure_is_said_by_the_strongest_placebo() {
        let word = |z, placebos: &[Option<f64>]| against_placebos(&case(Some(z), placebos)).unwrap();
        let (clear, text) = word(6.8, &[Some(2.0), None, Some(3.4), Some(-1.0)]);
        assert_eq!(clear, "clear");
        assert!(
            text.contains("6.8 standard deviations")
                && text.contains("4 clean pictures")
                && text.contains("reached 3.4")
                && text.contains("2.0 times"),
            "{text}"
        );
        assert_eq!(word(6.7, &[Some(3.4)]).0, "fairly clear");
        assert_eq!(word(4.2, &[Some(3.4)]).0, "close");
        let below = word(3.0, &[Some(3.4)]);
        assert!(below.0 == "close" && below.1.contains("does not reach it"));
        assert!(word(3.0, &[None, None]).1.contains("none of them led to a group"));
        assert!(word(3.0, &[Some(-0.5)]).1.contains("no group acted"));
        assert_eq!(against_placebos(&case(Some(3.0), &[])), None);
        assert_eq!(against_placebos(&case(None, &[Some(1.0)])), None);
        assert_eq!(against_placebos(&case(Some(f64::NAN), &[Some(1.0)])), None);
    }

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
            reason: "a placebo was stronger".into(),
        };
        view.state = State::Undecided;
        let (sure, why) = all(&view);
        assert!(sure.starts_with("not enough to act") && why == "A placebo was stronger.", "{sure} {why}");
        view.trace = None;
        assert_eq!(all(&view), (String::new(), "The checkpoint was replaced.".into()));
    }

    #[test]
    fn the_published_rule_promises_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut view = repaired(folder.path());
        view.trace.as_mut().unwrap().settings.mode = DetectMode::PaperCode;
        assert_eq!(sure(&view).unwrap().0, "not measured");
        assert!(!why(&view)[0].contains("taught"));
    }
}
