//! `excluded`.

use super::{Exit, Failure, Global, lookup, say};
use crate::engine::query;
use anyhow::Context;
use clap::Args;

/// List the training examples that stay out of every repair: those of promoted and approved cases. Reads the journal, so it answers also when the daemon is down
#[derive(Debug, Args, serde::Serialize)]
#[command(after_help = "\
Examples:
  delta-guard excluded              the cases, and how many examples each keeps out
  delta-guard excluded --ids        the examples, one id a line
  delta-guard excluded --json

Exit codes: 0 some, 3 none")]
pub struct Excluded {
    /// The ids, one a line
    #[arg(long, conflicts_with = "json")]
    ids: bool,
}

impl Excluded {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load_text()?;
        let state = &config.file.paths.state;
        let (cases, standing) = match lookup::journal(state)? {
            true => query::standing(state).with_context(|| format!("the journal in {} cannot be read", state.display()))?,
            false => Default::default(),
        };
        if global.json {
            say::json(&serde_json::json!({"digest": standing.digest(), "ids": standing.ids, "cases": cases}))?;
        } else if standing.ids.is_empty() {
            return Err(Failure::new(
                Exit::No,
                "no training example is excluded",
                "the flagged examples of promoted and approved cases are; `delta-guard approve CASE` approves a proposed one",
            ));
        } else if self.ids {
            say::out(&standing.ids.iter().map(|id| format!("{}\n", say::plain(&id.0))).collect::<String>())?;
        } else {
            let rows = cases.iter().map(|excluded| {
                vec![
                    excluded.case.short().to_owned(),
                    if excluded.by.is_some() { "approved".into() } else { "promoted".into() },
                    excluded.at.strftime("%Y-%m-%d %H:%M").to_string(),
                    excluded.count.to_string(),
                ]
            });
            say::out(&say::table(&["case", "why", "since (utc)", ">examples"], rows))?;
            say::note(&format!(
                "{} examples in all; the list's digest is {}",
                standing.ids.len(),
                standing.digest().map(|digest| digest.0).unwrap_or_default()
            ));
        }
        Ok(if standing.ids.is_empty() { Exit::No } else { Exit::Done })
    }
}
