//! `show`.

use super::{Exit, Global, lookup, say};
use crate::engine::CaseView;
use crate::report::{self, actions, words};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use std::path::PathBuf;

/// Show what is known about a case. Reads the journal, so it answers also when the daemon is down
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard show 8f3a              the first digits of the case are enough
  delta-guard show 8f3a --json
  delta-guard show 8f3a --report case.html   write its page anew

Exit codes: 0 shown, 3 no such case")]
pub struct Show {
    /// The case, or the first digits of its id
    pub(super) case: String,
    /// Write the case's page to this file
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
}

impl Show {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load_text()?;
        let case = lookup::one(&config, &self.case)?;
        let view = CaseView::new(&case, &config.settings()?);
        if let Some(path) = &self.report {
            fs_err::write(path, report::page(&view))?;
        }
        if global.json {
            say::json(&view)?
        } else {
            say::out(&text(&view))?
        }
        Ok(Exit::Done)
    }
}

/// `2026-11-26 03:21:19 UTC`.
fn second(at: Timestamp) -> String {
    at.strftime("%F %T UTC").to_string()
}

fn repair(view: &CaseView, add: &mut impl FnMut(&'static str, Option<String>)) {
    if let Some(certify) = &view.certify {
        add(
            "now read as",
            certify
                .anomalies_after
                .first()
                .map(|p| format!("{} ({})", p.label, words::percent(p.probability))),
        );
        let (before, after) = (certify.before.share(), certify.after.share());
        add(
            "accuracy",
            Some(format!(
                "{} → {} ({})",
                words::percent(before),
                words::percent(after),
                words::points(before, after)
            )),
        );
        add("lost and won", certify.paired.as_ref().map(words::lost_and_won));
    }
    if let Some(gate) = &view.gate {
        add(
            "gate",
            Some(if gate.pass {
                "passed".into()
            } else {
                format!("not passed: {}", gate.reasons.join("; "))
            }),
        );
        view.regrowth().into_iter().for_each(|sentence| add("traced again", Some(sentence)));
        gate.doubts.iter().for_each(|doubt| add("doubt", Some(doubt.clone())));
        gate.notes.iter().for_each(|note| add("gate's note", Some(note.clone())));
    }
}

fn facts(view: &CaseView) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("case", view.case.to_string()),
        ("state", view.state.to_string()),
        ("picture", view.submission.name.clone()),
        ("accepted", second(view.accepted_at)),
    ];
    let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    add("ended", view.ended_at.map(second));
    add(
        "read as",
        view.prediction
            .as_ref()
            .map(|p| format!("{} ({})", p.label, words::percent(p.probability))),
    );
    add("it shows", view.submission.true_label.clone());
    add("source", view.submission.source.clone());
    add("note", view.submission.note.clone());
    add(
        "flagged",
        view.trace
            .as_ref()
            .map(|trace| format!("{} of {}", words::examples(trace.flagged.len()), words::thousands(trace.examples))),
    );
    add(
        "left out",
        words::left_out(view).map(|left| match left.earlier {
            0 => format!("{} by this case, none by earlier repairs", words::thousands(left.own)),
            n => format!(
                "{} by this case, {} by earlier repairs ({} in all)",
                words::thousands(left.own),
                words::thousands(n),
                words::thousands(left.all)
            ),
        }),
    );
    repair(view, &mut add);
    add(
        "time",
        (!view.seconds.is_empty()).then(|| {
            view.seconds
                .iter()
                .map(|(stage, s)| format!("{stage} {}", words::seconds(*s)))
                .collect::<Vec<_>>()
                .join(", ")
        }),
    );
    add("report", view.paths.report.is_file().then(|| view.paths.report.display().to_string()));
    add("candidate", view.paths.checkpoint.as_ref().map(|path| path.display().to_string()));
    facts
}

fn text(view: &CaseView) -> String {
    let head = words::headline(view);
    let mut text = format!(
        "{}\n{}\n\n{}",
        say::plain(&head.title),
        say::plain(&head.meaning),
        say::facts(&facts(view))
    );
    text.push_str("\nwhat you can do now\n");
    for action in actions::actions(view) {
        text.push_str(&format!("  * {}\n", say::plain(&action.why)));
        for line in action.command.lines() {
            text.push_str(&format!("      {}\n", say::plain(line)));
        }
    }
    text
}
