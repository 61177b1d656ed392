//! A case in plain words: the same words for the page, the mail and the terminal.

use crate::case::State;
use crate::engine::CaseView;
use crate::policy::{self, Known, Reading};
use crate::text::escape;
pub use crate::text::{seconds, thousands};
use delta_guard_contract::finding::{Cell, Words};
use delta_guard_contract::job::{Accuracy, Paired};

/// How good or bad it is, for colours and exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Repaired.
    Good,
    /// A person must look.
    Attention,
    /// Failed or rejected.
    Bad,
    /// Nothing to do, or not finished.
    Quiet,
}

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headline {
    /// Colour.
    pub tone: Tone,
    /// One or two words.
    pub tag: &'static str,
    /// One sentence.
    pub title: String,
    /// What that means, one to three sentences.
    pub meaning: String,
}

/// `1 training example`, `150 training examples`.
pub fn examples(n: usize) -> String {
    match n {
        1 => "1 training example".into(),
        n => format!("{} training examples", thousands(n as u64)),
    }
}

/// `98.7 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// `−0.4 pp`, `+1.0 pp`.
pub fn points(before: f64, after: f64) -> String {
    let change = 100.0 * (after - before);
    let sign = if change >= 0.05 {
        "+"
    } else if change <= -0.05 {
        "−"
    } else {
        "±"
    };
    format!("{sign}{:.1} pp", change.abs())
}

/// A figure with that many decimals, fewer where it is large: `−1431`, `10.25`, `−0.830`. Scales differ from model to model.
pub fn number(value: f64, decimals: u8) -> String {
    let most = [1000.0, 100.0, 10.0].iter().position(|limit| value.abs() >= *limit);
    let digits = most.unwrap_or(usize::MAX).min(usize::from(decimals));
    format!("{value:.digits$}").replace('-', "−")
}

/// `0.120`, `2e-9`: a probability, however small.
pub fn probability(p: f64) -> String {
    if p >= 0.001 {
        format!("{p:.3}")
    } else if p < 1e-300 {
        "below 1e-300".into()
    } else {
        format!("{p:.0e}")
    }
}

/// A fact of a detector's table.
pub fn cell(cell: &Cell, decimals: u8) -> String {
    match cell {
        Cell::Yes(yes) => if *yes { "yes" } else { "" }.into(),
        Cell::Whole(n) => n.to_string().replace('-', "−"),
        Cell::Number(value) => number(*value, decimals),
        Cell::Text(text) => text.clone(),
        Cell::None => "–".into(),
    }
}

/// `512 B`, `1.4 GiB`.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1023.5 {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// The label that the production model gave; what the submitter claims where it was not measured.
pub fn wrong_label(view: &CaseView) -> Option<&str> {
    let traced = view.trace.as_ref().map(|trace| trace.predicted_label.as_str());
    let predicted = view.prediction.as_ref().map(|prediction| prediction.label.as_str());
    traced.or(predicted).or(view.submission.predicted_label.as_deref())
}

/// How many training examples were flagged.
pub fn flagged(view: &CaseView) -> usize {
    view.trace.as_ref().map_or(0, |trace| trace.flagged.len())
}

/// What a candidate was not trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Flagged by this case.
    pub own: u64,
    /// On the standing exclusion list: flagged by earlier cases.
    pub earlier: u64,
    /// Either.
    pub all: u64,
}

impl LeftOut {
    /// Flagged by this case and an earlier one.
    pub fn both(self) -> u64 {
        (self.own + self.earlier).saturating_sub(self.all)
    }
}

/// None where nothing was trained: before the retraining, or with a checkpoint that a person gave.
pub fn left_out(view: &CaseView) -> Option<LeftOut> {
    let unlearn = view.unlearn.as_ref().filter(|_| !view.given)?;
    let trace = view.trace.as_ref()?;
    let own = trace.flagged.len() as u64;
    let earlier = view.standing.as_ref().map_or(0, |standing| standing.count);
    // What was trained on says it; a worker of an older version may have counted otherwise.
    let all = trace.examples.saturating_sub(unlearn.examples).clamp(own.max(earlier), own + earlier);
    Some(LeftOut { own, earlier, all })
}

/// How the candidate reads the picture, and as what. None where there is no candidate that was measured.
pub fn reading(view: &CaseView) -> Option<(Reading, &str)> {
    let after = view.certify.as_ref()?.anomalies_after.first()?;
    // The submitter's words are shown escaped, class names are not.
    let known = Known {
        wrong: wrong_label(view)?.to_owned(),
        truth: view.submission.true_label.clone(),
    };
    let reading = match known.reading(&after.label) {
        Reading::Third if known.truth.as_deref() == Some(&escape(after.label.as_bytes())) => Reading::Right,
        other => other,
    };
    Some((reading, &after.label))
}

/// The same in a sentence, of the candidate.
fn reading_said(view: &CaseView) -> String {
    let truth = view.submission.true_label.as_deref().unwrap_or_default();
    match reading(view) {
        None => String::new(),
        Some((Reading::Right, label)) => format!("Without them it reads it as “{label}”, which is right."),
        Some((Reading::Otherwise, label)) => {
            format!("Without them it no longer does: it reads it as “{label}”. Nobody said what the picture shows, so look whether that is right.")
        }
        Some((Reading::Third, label)) => format!("Without them it reads it as “{label}”, which is wrong too: it shows “{truth}”."),
        Some((Reading::Still, label)) => format!("Without them it still reads it as “{label}”."),
    }
}

/// Of a case whose candidate passed the gate.
fn repaired(view: &CaseView, count: &str, label: &str) -> Headline {
    let third = matches!(reading(view), Some((Reading::Third, _)));
    let doubts = view.gate.as_ref().map_or(&[][..], |gate| &gate.doubts);
    let made = |tag, title: String, meaning: String| Headline {
        tone: if third || !doubts.is_empty() { Tone::Attention } else { Tone::Good },
        tag,
        title,
        meaning,
    };
    if view.state == State::Proposed {
        made(
            if third { "Not repaired" } else { "Repaired" },
            match third {
                true => format!("{count} caused this error, but without them the picture is read wrongly too."),
                false => format!("{count} caused this error, and a repaired model is ready."),
            },
            format!(
                "The model read this picture{label} because of them. {} The candidate passed the gate{} waits for your word: nothing is promoted before.",
                reading_said(view),
                match doubts {
                    [] => " and".into(),
                    doubts => format!(", but look at this: {}. It", doubts.join("; ")),
                }
            ),
        )
    } else {
        made(
            "Promoted",
            match third {
                true => format!("{count} caused this error. The model without them is in use, but it reads the picture wrongly too."),
                false => format!("{count} caused this error. The repaired model is in use."),
            },
            format!(
                "The model read this picture{label} because of them. {} The candidate passed the gate, and {}.",
                reading_said(view),
                match view.approval.as_ref().is_some_and(|approval| approval.by_hand) {
                    true => "its owner has put it in use",
                    false => "the link `current` points to it",
                }
            ),
        )
    }
}

/// The verdict on a case.
pub fn headline(view: &CaseView) -> Headline {
    let count = examples(flagged(view));
    let label = wrong_label(view).map_or_else(String::new, |label| format!(" as “{label}”"));
    let reason = sentence(&view.reason);
    let cautious: Option<&Words> = view.trace.as_ref().map(|trace| &trace.words).filter(|words| !words.caution.is_empty());
    let made = |tone, tag, title: String, meaning: String| Headline { tone, tag, title, meaning };
    match view.state {
        State::Proposed | State::Promoted => repaired(view, &count, &label),
        State::Declined => made(
            Tone::Quiet,
            "Declined",
            format!("{count} caused this error. The candidate without them is not used."),
            format!("{reason} Nothing was changed."),
        ),
        State::Observed => made(
            Tone::Attention,
            "Observed",
            match cautious {
                Some(words) => format!("{count} are flagged by {}.", words.called),
                None => format!("{count} caused this error."),
            },
            match cautious {
                Some(words) => format!(
                    "The model reads this picture{label}. {} Nothing was trained and nothing was changed.",
                    words.caution
                ),
                None => format!(
                    "The model reads this picture{label} because of them. The guard only observes: nothing was trained and nothing was changed."
                ),
            },
        ),
        State::Rejected => made(
            Tone::Bad,
            "Rejected",
            format!("{count} were found, but the model without them did not pass the gate."),
            format!("{reason} The candidate is kept for you to look at, marked rejected. The production model is untouched."),
        ),
        State::Undecided => made(
            Tone::Attention,
            "Undecided",
            "No group of training examples stands out. Nothing was removed.".into(),
            format!(
                "{reason} Most single errors are natural ones, and nothing should be removed for them. If you have more pictures of the same kind, submit those too."
            ),
        ),
        State::NoAnomaly => made(Tone::Quiet, "No anomaly", "The model does not make this error.".into(), reason),
        State::Refused => made(Tone::Quiet, "Refused", "The submission was not taken.".into(), reason),
        State::Failed => made(Tone::Bad, "Failed", "The case could not be finished.".into(), reason),
        State::Held => made(Tone::Attention, "Held", "The case waits for a person.".into(), reason),
        open => made(
            Tone::Quiet,
            "In progress",
            open.stage()
                .map_or_else(|| "The case is open.".into(), |stage| format!("The case is at the stage “{stage}”.")),
            reason,
        ),
    }
}

/// With a capital and a full stop. A text that begins with a key, a path, a file name or a command keeps its first letter: that one is no word.
pub fn sentence(text: &str) -> String {
    let text = text.trim();
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return String::new() };
    let word = text
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .trim_end_matches([',', ';', ':', '.', '!', '?']);
    let is_word = word.chars().all(|c| c.is_lowercase() || c == '-' || c == '’' || c == '\'');
    let text: String = if is_word {
        first.to_uppercase().chain(letters).collect()
    } else {
        text.into()
    };
    if text.ends_with(['.', '!', '?']) { text } else { format!("{text}.") }
}

/// What the same pictures say of which model is better, and whether that may be chance.
pub fn lost_and_won(paired: &Paired) -> String {
    let Paired { lost, won, .. } = paired;
    let counted = format!(
        "{} read rightly before are read wrongly now, {} the other way round",
        thousands(*lost),
        thousands(*won)
    );
    if lost <= won {
        return counted;
    }
    format!(
        "{counted}; chance alone loses as many of them {}",
        policy::how_often(policy::mcnemar(*lost, *won), 1)
    )
}

/// The class that lost most: name, share before, share after.
pub fn worst_class(before: &Accuracy, after: &Accuracy) -> Option<(String, f64, f64)> {
    class_changes(before, after).into_iter().next()
}

/// Every class, the greatest loss first: name, share before, share after.
pub fn class_changes(before: &Accuracy, after: &Accuracy) -> Vec<(String, f64, f64)> {
    let share = |of: Option<&(u64, u64)>| of.filter(|(n, _)| *n > 0).map(|(n, right)| *right as f64 / *n as f64);
    let mut list: Vec<_> = before
        .classes
        .iter()
        .filter_map(|(name, counts)| Some((name.clone(), share(Some(counts))?, share(after.classes.get(name))?)))
        .collect();
    list.sort_by(|a, b| (a.2 - a.1).total_cmp(&(b.2 - b.1)));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            (thousands(0), thousands(999), thousands(1_000), thousands(1_234_567)),
            ("0".into(), "999".into(), "1,000".into(), "1,234,567".into())
        );
        assert_eq!(
            (seconds(0.42), seconds(59.6), seconds(200.0), seconds(7500.0)),
            ("0.4 s".into(), "60 s".into(), "3 min 20 s".into(), "2 h 05 min".into())
        );
        assert_eq!(
            (bytes(512), bytes(1 << 20), bytes(1_600_000_000)),
            ("512 B".into(), "1.0 MiB".into(), "1.5 GiB".into())
        );
        assert_eq!(
            (points(0.9, 0.896), points(0.9, 0.9), points(0.9, 0.92)),
            ("−0.4 pp".into(), "±0.0 pp".into(), "+2.0 pp".into())
        );
        assert_eq!(
            (examples(1), examples(1500)),
            ("1 training example".into(), "1,500 training examples".into())
        );
        assert_eq!(
            (sentence("it is over"), sentence("Done."), sentence("")),
            ("It is over.".into(), "Done.".into(), String::new())
        );
        for kept in [
            "detect.seed is unset.",
            "model.safetensors cannot be read.",
            "wrong.png: no picture.",
            "/srv/x is full.",
            "`check-config` says why.",
            "n_tol is 3.",
            "eXIF is odd.",
            "x86 only.",
        ] {
            assert_eq!(sentence(kept), kept);
        }
        assert_eq!(sentence("worker's end: unknown"), "Worker's end: unknown.");
    }

    #[test]
    fn facts_of_a_table_have_the_decimals_that_mean_something() {
        let number = |value, decimals| super::number(value, decimals);
        assert_eq!(
            [
                number(-1431.0187, 3),
                number(491.26, 3),
                number(10.254, 3),
                number(-0.83, 3),
                number(0.7257, 2),
                number(50.0, 0)
            ],
            ["−1431", "491.3", "10.25", "−0.830", "0.73", "50"]
        );
        let cells = [
            Cell::Yes(true),
            Cell::Yes(false),
            Cell::Whole(-3),
            Cell::Number(0.25),
            Cell::Text("a".into()),
            Cell::None,
        ];
        assert_eq!(cells.map(|one| cell(&one, 1)), ["yes", "", "−3", "0.2", "a", "–"]);
    }

    #[test]
    fn classes_are_ordered_by_loss() {
        let measured = |classes: &[(&str, u64, u64)]| Accuracy {
            classes: classes.iter().map(|(name, n, right)| ((*name).into(), (*n, *right))).collect(),
            ..Accuracy::default()
        };
        let before = measured(&[("cat", 10, 9), ("dog", 10, 8), ("empty", 0, 0)]);
        let after = measured(&[("cat", 10, 6), ("dog", 10, 9), ("empty", 0, 0)]);
        let names: Vec<_> = class_changes(&before, &after).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["cat", "dog"]);
        assert_eq!(worst_class(&before, &after), Some(("cat".into(), 0.9, 0.6)));
    }
}
