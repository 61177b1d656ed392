//! `cases`.

use super::{Exit, Global, lookup, say};
use crate::case::State;
use clap::Args;
use serde::Serialize;

/// List the cases, the newest first. Reads the journal, so it answers also when the daemon is down
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard cases
  delta-guard cases --state held --state failed
  delta-guard cases --json | jq -r '.[] | select(.state == \"proposed\") | .case'
  delta-guard cases --json | jq 'group_by(.abstained) | map({(.[0].abstained // \"none\"): length}) | add'   why the detector abstained, counted")]
pub struct Cases {
    /// Only cases in this state (may be given several times): accepted … published, one that waits for you: held, proposed, or an end: promoted, declined, rejected, undecided, observed, no-anomaly, refused, failed
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Vec<State>,
    /// At most this many
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
}

fn state(text: &str) -> Result<State, String> {
    State::ALL.iter().copied().find(|state| state.as_str() == text).ok_or_else(|| {
        format!(
            "allowed: {}",
            State::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(", ")
        )
    })
}

impl Cases {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load_text()?;
        let mut cases = lookup::all(&config)?;
        let all = cases.len();
        cases.reverse();
        cases.retain(|case| self.state.is_empty() || self.state.contains(&case.state));
        cases.truncate(self.limit.unwrap_or(usize::MAX));
        if global.json {
            let list: Vec<_> = cases
                .iter()
                .map(|case| {
                    serde_json::json!({
                        "case": case.id, "state": case.state, "file": case.accepted.name, "accepted_at": case.accepted_at, "ended_at": case.ended_at,
                        "predicted": case.prediction().map(|p| &p.label), "flagged": case.trace().map(|t| t.found.count()),
                        "abstained": case.trace().and_then(|t| t.found.abstained()), "reason": case.reason,
                    })
                })
                .collect();
            say::json(&list)?;
        } else if cases.is_empty() {
            say::note(&global.advise(&match all {
                0 => lookup::nothing(&config.file.paths.state),
                1 => "the only case is in another state".into(),
                _ => format!("all {all} cases are in other states"),
            }));
        } else {
            let rows = cases.iter().map(|case| {
                let flagged = case.trace().map_or_else(String::new, |trace| trace.found.count().to_string());
                let read_as = case.prediction().map_or_else(String::new, |prediction| prediction.label.clone());
                let at = case.accepted_at.strftime("%Y-%m-%d %H:%M").to_string();
                vec![
                    case.id.short().to_owned(),
                    case.state.to_string(),
                    at,
                    read_as,
                    flagged,
                    case.accepted.name.clone(),
                ]
            });
            say::out(&say::table(&["case", "state", "accepted (utc)", "read as", ">flagged", "file"], rows))?;
        }
        Ok(Exit::Done)
    }
}
