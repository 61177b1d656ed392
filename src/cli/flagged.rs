//! `flagged`.

use super::{Exit, Failure, Global, lookup, say};
use crate::case::{Case, State};
use crate::engine;
use crate::report::words;
use crate::settings::Settings;
use clap::Args;
use delta_guard_contract::finding::{Cell, Column};
use delta_guard_contract::{Digest, Flagged as Found, TraceReport, TrainId};
use serde::Serialize;
use std::collections::BTreeMap;

/// List the training examples that were flagged, with their evidence. Reads the journal, so it answers also when the daemon is down
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard flagged 8f3a                       of one case
  delta-guard flagged                            of all cases
  delta-guard flagged 8f3a --csv > flagged.csv   for `unlearn --flagged`, or a spreadsheet
  delta-guard flagged --id dog/0017.png          which cases flagged this example?

Columns: rank (1 is the strongest), score (strength of the evidence, in the detector's own unit), source (where the data say that it comes from, if they do), then whatever else the detector measured. Of the method guard: \
kappa, its score (likeness to the seeds), count (of the transformed queries in which its influence fell), mean_scaled_delta (how far), seed.

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

/// A case, what it flagged, and its trace report where that is still there.
struct Of {
    case: Digest,
    flagged: Vec<Found>,
    report: Option<TraceReport>,
}

impl Flagged {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load_text()?;
        let wanted = self.case.as_deref().map(|prefix| lookup::one(&config, prefix)).transpose()?;
        let mut all: Vec<Of> = Vec::new();
        if lookup::journal(&config.file.paths.state)? {
            let found = lookup::read(&config.file.paths.state);
            let settings = config.settings()?;
            let of_case = |id: &Digest| found.book.cases.values().find(|case| case.id == *id);
            let id = self.id.clone().map(TrainId);
            for (case, flagged) in found.flagged(wanted.as_ref().map(|wanted| &wanted.id)) {
                let mut flagged = match flagged {
                    Ok(flagged) => flagged,
                    Err(error) if wanted.is_some() => {
                        let help = match of_case(&case).map(|case| case.state) {
                            Some(State::Promoted) | None => String::new(),
                            _ => format!("or let them be found again: `delta-guard retry {} --whole`", case.short()),
                        };
                        return Err(Failure::new(Exit::Failed, format!("{error:#}"), help));
                    }
                    Err(error) => {
                        lookup::incomplete(&format!("warning: {error:#}"));
                        continue;
                    }
                };
                flagged.retain(|example| id.as_ref().is_none_or(|id| example.id == *id));
                if flagged.is_empty() {
                    continue;
                }
                let report = of_case(&case).and_then(|case| trace(case, &settings));
                all.push(Of { case, flagged, report });
            }
        }
        if global.json {
            say::json(&all.iter().flat_map(Of::values).collect::<Vec<_>>())?;
        } else if self.csv {
            say::out(&csv_of(&all)?)?;
        } else if all.is_empty() {
            let what = match (&wanted, &self.id) {
                (Some(case), _) => format!("case {} flagged nothing (it is {})", case.id.short(), case.state),
                (_, Some(id)) => format!("no case flagged {id:?}"),
                _ => "nothing was flagged so far".into(),
            };
            return Err(Failure::new(Exit::No, what, ""));
        } else {
            write_table(&all)?;
        }
        Ok(if all.is_empty() { Exit::No } else { Exit::Done })
    }
}

/// The case's trace report. None where it is gone or was changed: that is said, and what the journal has is shown.
fn trace(case: &Case, settings: &Settings) -> Option<TraceReport> {
    let trace = case.trace()?;
    let file = settings.case_dir(&case.id).join(&trace.file);
    engine::read_trace(&file, &trace.digest)
        .map_err(|error| say::note(&format!("note: of case {} only the journal is shown: {error:#}", case.id.short())))
        .ok()
}

/// The row of an example in its report's table.
fn row<'a>(report: Option<&'a TraceReport>, example: &Found) -> impl Iterator<Item = (&'a Column, &'a Cell)> {
    let table = report.and_then(TraceReport::table);
    let place = (example.rank as usize).saturating_sub(1);
    let same = report
        .and_then(|report| report.flagged.get(place))
        .is_some_and(|found| found.id == example.id);
    let row = table.and_then(|table| Some((table, table.rows.get(place)?))).filter(|_| same);
    row.into_iter().flat_map(|(table, row)| table.columns.iter().zip(row))
}

/// Columns of the tables of all these reports, by key, in their order.
fn union<'a>(reports: impl Iterator<Item = &'a TraceReport>) -> Vec<&'a Column> {
    let mut columns: Vec<&Column> = Vec::new();
    for column in reports.filter_map(TraceReport::table).flat_map(|table| &table.columns) {
        if !columns.iter().any(|known| known.key == column.key) {
            columns.push(column);
        }
    }
    columns
}

impl Of {
    /// Its examples as JSON.
    fn values(&self) -> impl Iterator<Item = serde_json::Value> {
        self.flagged.iter().map(|example| {
            let mut value = serde_json::json!({
                "case": self.case, "id": example.id, "label": example.label, "rank": example.rank, "score": example.score,
            });
            if let Some(map) = value.as_object_mut() {
                if let Some(source) = &example.source {
                    map.insert("source".into(), source.clone().into());
                }
                for (column, cell) in row(self.report.as_ref(), example) {
                    map.entry(column.key.clone()).or_insert(serde_json::json!(cell));
                }
            }
            value
        })
    }
}

/// Does the data of any case say where examples come from?
fn has_sources(all: &[Of]) -> bool {
    all.iter().flat_map(|of| &of.flagged).any(|example| example.source.is_some())
}

/// The same columns for every case; those that a case does not have are empty.
fn csv_of(all: &[Of]) -> anyhow::Result<String> {
    let columns = union(all.iter().filter_map(|of| of.report.as_ref()));
    let mut writer = csv::Writer::from_writer(Vec::new());
    let head = ["case", "id", "label", "rank", "score"].into_iter();
    let sources = has_sources(all);
    writer.write_record(
        head.chain(sources.then_some("source"))
            .chain(columns.iter().map(|column| column.key.as_str())),
    )?;
    for of in all {
        for example in &of.flagged {
            let own: BTreeMap<&str, &Cell> = row(of.report.as_ref(), example)
                .map(|(column, cell)| (column.key.as_str(), cell))
                .collect();
            let mut record = vec![
                of.case.0.clone(),
                example.id.0.clone(),
                example.label.clone(),
                example.rank.to_string(),
                example.score.to_string(),
            ];
            record.extend(sources.then(|| example.source.clone().unwrap_or_default()));
            record.extend(
                columns
                    .iter()
                    .map(|column| own.get(column.key.as_str()).map_or_else(String::new, |cell| exact(cell))),
            );
            writer.write_record(record)?;
        }
    }
    Ok(String::from_utf8(writer.into_inner().map_err(|error| anyhow::anyhow!("{error}"))?)?)
}

/// All that is known of it.
fn exact(cell: &Cell) -> String {
    match cell {
        Cell::Yes(yes) => yes.to_string(),
        Cell::Whole(n) => n.to_string(),
        Cell::Number(value) => value.to_string(),
        Cell::Text(text) => text.clone(),
        Cell::None => String::new(),
    }
}

fn write_table(all: &[Of]) -> anyhow::Result<()> {
    let shown = Shown::of(all.iter().filter_map(|of| of.report.as_ref()));
    let sources = has_sources(all);
    let last: &[&str] = if sources { &["label", "source", "id"] } else { &["label", "id"] };
    let columns = shown.columns(&["case", ">rank"], last);
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let rows = all.iter().flat_map(|of| {
        of.flagged.iter().map(|example| {
            let first = vec![of.case.short().to_owned(), example.rank.to_string()];
            let source = sources.then(|| example.source.clone().unwrap_or_default());
            let last = [Some(example.label.clone()), source, Some(example.id.to_string())]
                .into_iter()
                .flatten()
                .collect();
            [first, shown.cells(of.report.as_ref(), example), last].concat()
        })
    });
    let count = all.iter().map(|of| of.flagged.len()).sum();
    say::out(&say::table(&columns, rows))?;
    say::note(&words::examples(count));
    Ok(())
}

/// Score and further columns as a terminal shows them.
pub(super) struct Shown<'a> {
    /// Name of the score, where all reports have the same.
    score: &'a str,
    columns: Vec<&'a Column>,
}

impl<'a> Shown<'a> {
    /// Of these reports.
    pub(super) fn of(reports: impl Iterator<Item = &'a TraceReport> + Clone) -> Self {
        let mut scores = reports
            .clone()
            .map(|report| report.words.score.as_str())
            .filter(|score| !score.is_empty());
        let score = scores.next().filter(|first| scores.all(|other| other == *first)).unwrap_or("score");
        // The score's own column would say it twice.
        let columns = union(reports)
            .into_iter()
            .filter(|column| column.name != score && column.key != score)
            .collect();
        Self { score, columns }
    }

    /// Headings, between `first` and `last`.
    pub(super) fn columns(&self, first: &[&str], last: &[&str]) -> Vec<String> {
        let own = std::iter::once(self.score).chain(self.columns.iter().map(|column| column.name.as_str()));
        let own = own.map(|name| format!(">{name}"));
        first
            .iter()
            .map(|name| (*name).to_owned())
            .chain(own)
            .chain(last.iter().map(|name| (*name).to_owned()))
            .collect()
    }

    /// The cells of an example.
    pub(super) fn cells(&self, report: Option<&TraceReport>, example: &Found) -> Vec<String> {
        let own: BTreeMap<&str, String> = row(report, example)
            .map(|(column, cell)| (column.key.as_str(), plain(cell, column.decimals)))
            .collect();
        // One decimal more than on a page.
        let decimals = report.map_or(3, |report| match report.words.score_decimals {
            0 => 0,
            few => few.saturating_add(1),
        });
        let score = plain(&Cell::Number(example.score), decimals);
        let further = self
            .columns
            .iter()
            .map(|column| own.get(column.key.as_str()).cloned().unwrap_or_default());
        std::iter::once(score).chain(further).collect()
    }
}

/// As on a page, but with a minus sign that other programs read.
fn plain(cell: &Cell, decimals: u8) -> String {
    match cell {
        Cell::Number(value) => format!("{value:.*}", usize::from(decimals)),
        Cell::Yes(_) | Cell::None => words::cell(cell, decimals),
        cell => exact(cell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(case: &str, sources: [Option<&str>; 2]) -> Of {
        let flagged = |(n, source): (usize, Option<&str>)| Found {
            id: TrainId(format!("{n}.png")),
            label: "cat".into(),
            rank: n as u32 + 1,
            score: 0.5,
            source: source.map(String::from),
        };
        Of {
            case: Digest(case.into()),
            flagged: sources.into_iter().enumerate().map(flagged).collect(),
            report: None,
        }
    }

    #[test]
    fn a_source_is_a_column_where_any_example_has_one() {
        let without = [of("a", [None, None])];
        assert_eq!(
            csv_of(&without).expect("is text"),
            "case,id,label,rank,score\na,0.png,cat,1,0.5\na,1.png,cat,2,0.5\n"
        );
        assert!(without[0].values().all(|value| value.get("source").is_none()));
        let with = [of("a", [None, None]), of("b", [Some("crawl, old"), None])];
        let text = csv_of(&with).expect("is text");
        assert!(text.starts_with("case,id,label,rank,score,source\na,0.png,cat,1,0.5,\n"), "{text}");
        assert!(text.contains("b,0.png,cat,1,0.5,\"crawl, old\"\n"), "{text}");
        assert_eq!(with[1].values().next().expect("there are two")["source"], "crawl, old");
    }
}
