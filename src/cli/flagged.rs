//! `flagged`.

use super::{Exit, Failure, Global, lookup, say};
use crate::report::words;
use clap::Args;
use delta_guard_contract::{Digest, FlaggedExample, TrainId};
use serde::Serialize;

/// List the training examples that were flagged, with their evidence. Reads the journal, so it answers also when the daemon is down
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard flagged 8f3a                       of one case
  delta-guard flagged                            of all cases
  delta-guard flagged 8f3a --csv > flagged.csv   for `unlearn --flagged`, or a spreadsheet
  delta-guard flagged --id dog/0017.png          which cases flagged this example?

Columns: count (of the transformed queries in which its influence fell), mean_scaled_delta (how far), kappa (likeness to the seeds), rank, label.

Exit codes: 0 some, 3 none or no such case")]
pub struct Flagged {
    /// The case, or the first digits of its id
    pub(super) case: Option<String>,
    /// Which cases flagged this training example?
    #[arg(long, value_name = "ID", conflicts_with = "case")]
    pub(super) id: Option<String>,
    /// Answer as CSV
    #[arg(long, conflicts_with = "json")]
    pub(super) csv: bool,
}

impl Flagged {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load_text()?;
        let wanted = self.case.as_deref().map(|prefix| lookup::one(&config, prefix)).transpose()?;
        let mut all: Vec<(Digest, Vec<FlaggedExample>)> = if lookup::journal(&config.file.paths.state)? {
            lookup::read(&config.file.paths.state).flagged.into_iter().collect()
        } else {
            Vec::new()
        };
        if let Some(case) = &wanted {
            all.retain(|(id, _)| *id == case.id);
        }
        if let Some(id) = &self.id {
            let id = TrainId(id.clone());
            all.iter_mut().for_each(|(_, examples)| examples.retain(|example| example.id == id));
        }
        let rows: Vec<(&Digest, &FlaggedExample)> = all
            .iter()
            .flat_map(|(case, examples)| examples.iter().map(move |example| (case, example)))
            .collect();
        if global.json {
            let list: Vec<_> = rows.iter().map(|(case, example)| with_case(case, example)).collect::<Result<_, _>>()?;
            say::json(&list)?;
        } else if self.csv {
            write_csv(&rows)?;
        } else if rows.is_empty() {
            let what = match (&wanted, &self.id) {
                (Some(case), _) => format!("case {} flagged nothing (it is {})", case.id.short(), case.state),
                (_, Some(id)) => format!("no case flagged {id:?}"),
                _ => "nothing was flagged so far".into(),
            };
            return Err(Failure::new(Exit::No, what, ""));
        } else {
            let columns = ["case", ">rank", ">count", ">Δ", ">κ", "seed", "label", "id"];
            say::out(&say::table(&columns, rows.iter().map(|(case, example)| row(case, example))))?;
            say::note(&words::examples(rows.len()));
        }
        Ok(if rows.is_empty() { Exit::No } else { Exit::Done })
    }
}

pub(super) fn row(case: &Digest, example: &FlaggedExample) -> Vec<String> {
    vec![
        case.short().to_owned(),
        example.rank.to_string(),
        example.count.to_string(),
        format!("{:.3}", example.mean_scaled_delta),
        format!("{:.3}", example.kappa),
        if example.seed { "yes".into() } else { String::new() },
        example.label.clone(),
        example.id.to_string(),
    ]
}

fn with_case(case: &Digest, example: &FlaggedExample) -> serde_json::Result<serde_json::Value> {
    let mut value = serde_json::to_value(example)?;
    if let Some(map) = value.as_object_mut() {
        map.insert("case".into(), case.0.clone().into());
    }
    Ok(value)
}

fn write_csv(rows: &[(&Digest, &FlaggedExample)]) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["case", "id", "label", "rank", "count", "mean_scaled_delta", "kappa", "seed"])?;
    for (case, e) in rows {
        writer.write_record([
            &case.0,
            &e.id.0,
            &e.label,
            &e.rank.to_string(),
            &e.count.to_string(),
            &e.mean_scaled_delta.to_string(),
            &e.kappa.to_string(),
            &e.seed.to_string(),
        ])?;
    }
    say::out(&String::from_utf8(writer.into_inner().map_err(|error| anyhow::anyhow!("{error}"))?)?)
}
