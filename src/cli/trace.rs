//! `trace`.

use super::work::{absolute, factors_seed, unexpected, work_dir};
use super::{Exit, Global, flagged, say};
use crate::publish;
use crate::report;
use clap::Args;
use delta_guard_contract::finding::{Exhibit, Review};
use delta_guard_contract::job::Anomaly;
use delta_guard_contract::method::{Method, changed};
use delta_guard_contract::{Flagged, JobResult, Seed, Task, TraceReport, TraceVerdict};
use serde::Serialize;
use std::path::PathBuf;

/// Rows that are printed; `--json` has them all.
const SHOWN: usize = 20;

/// Find the training examples behind a wrong prediction (no daemon needed)
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard trace wrong.png
  delta-guard trace wrong.png --plain                 the published count rule beside it
  delta-guard trace a.png b.png --json > trace.json   several anomalies of one wrong label

Whatever the model reads is taken as wrong: hand in only pictures that it misreads, or placebos to see that they are left alone.

Exit codes: 0 examples were flagged, 3 undecided: nothing stands out")]
pub struct Trace {
    /// The wrongly read pictures
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Compute the plain count rule over all examples too
    #[arg(long)]
    plain: bool,
    /// The wrong label (default: what the model reads)
    #[arg(long, value_name = "CLASS")]
    wrong_label: Option<String>,
    /// Seed of this trace where detect.seed is unset (default: from the pictures' contents; a case of the daemon has a secret one)
    #[arg(long)]
    seed: Option<u64>,
    /// Folder for trace.json and thumbnails
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Trace {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load()?;
        let mut hasher = blake3::Hasher::new();
        let mut anomalies = Vec::new();
        for image in &self.images {
            hasher.update(&fs_err::read(image)?);
            anomalies.push(Anomaly {
                image: absolute(image)?,
                wrong_label: self.wrong_label.clone(),
                true_label: None,
            });
        }
        let digest = *hasher.finalize().as_bytes();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        let mut detect = config.file.detect.clone();
        if self.plain {
            detect.method = changed(&detect.method, "plain", true.into()).map_err(|error| anyhow::anyhow!("--plain: {error}"))?;
        }
        let folder = self.out.clone().unwrap_or_else(|| work_dir(&config, "trace", &[&digest]));
        // Not the secret seed of a case: this one is told.
        let seed = detect.common.seed.or(self.seed).unwrap_or(u64::from_le_bytes(first));
        let task = Task::Trace {
            data: config.file.data.clone(),
            model: config.file.model.clone(),
            detect,
            anomalies,
            limits: config.file.image_limits(),
            case_seed: Seed(seed),
            factors_seed: factors_seed(&config)?,
            scores: None,
        };
        let mut report = match global.work(&config, &folder, task)? {
            JobResult::Trace(report) => report,
            other => return Err(unexpected(&other)),
        };
        report.seed = Some(seed);
        publish::publish_file(&folder, "trace.json", &serde_json::to_vec_pretty(&report)?)?;
        let exit = if report.verdict == TraceVerdict::Flagged { Exit::Done } else { Exit::No };
        if global.json {
            say::json(&report)?;
            return Ok(exit);
        }
        let mut facts = vec![("read as", report.predicted_label.clone()), ("verdict", verdict_said(&report))];
        facts.extend(report.notes.iter().map(|note| ("note", note.clone())));
        facts.extend(report::facts(&report));
        facts.extend(report.exhibits.iter().filter_map(|exhibit| match exhibit {
            Exhibit::Sources(sources) => Some(("sources", sources.caption.clone())),
            Exhibit::Review(review) => Some(("to look at", doubtful_said(review))),
            _ => None,
        }));
        facts.extend(report.tracked.iter().map(|tracked| ("influence on", tracked.sentence())));
        facts.push(("seed", seed_said(seed, config.file.detect.common.seed, self.seed)));
        facts.push(("details", folder.join("trace.json").display().to_string()));
        say::out(&say::facts(&facts))?;
        table(&report)?;
        Ok(exit)
    }
}

/// The strongest of the flagged, with what was measured of them.
fn table(report: &TraceReport) -> anyhow::Result<()> {
    if report.flagged.is_empty() {
        return Ok(());
    }
    let shown = flagged::Shown::of(std::iter::once(report));
    let columns = shown.columns(&[">rank", "id", "label"], &[]);
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let row = |example: &Flagged| {
        let first = vec![example.rank.to_string(), example.id.0.clone(), example.label.clone()];
        [first, shown.cells(Some(report), example)].concat()
    };
    say::out(&format!("\n{}", say::table(&columns, report.flagged.iter().take(SHOWN).map(row))))?;
    if report.flagged.len() > SHOWN {
        say::out(&format!("… and {} more (--json, or trace.json)", report.flagged.len() - SHOWN))?;
    }
    Ok(())
}

/// The first few of a list for a person, with the label that the model would rather say of each.
fn doubtful_said(review: &Review) -> String {
    let few: Vec<String> = review.rows.iter().take(5).map(|row| format!("{} ({}?)", row.id, row.suggested)).collect();
    let more = match review.rows.len().saturating_sub(few.len()) {
        0 => String::new(),
        more => format!(" and {more} more, under \"review\" in the details"),
    };
    format!("{}{more}: labels that may be wrong; nothing is removed for that", few.join(", "))
}

/// The verdict in a line.
fn verdict_said(report: &TraceReport) -> String {
    let (count, all) = (report.flagged.len(), report.examples);
    match &report.verdict {
        TraceVerdict::Undecided { why } => format!("undecided: {}", why.sentence()),
        TraceVerdict::Flagged if report.words.caution.is_empty() => format!("{count} of {all} training examples flagged"),
        TraceVerdict::Flagged => format!(
            "{count} of {all} training examples flagged by {} ({}). {}",
            report.words.called,
            report.settings.method.name(),
            report.words.caution
        ),
    }
}

/// Which seed, whence, and how to have it again.
fn seed_said(seed: u64, configured: Option<u64>, asked: Option<u64>) -> String {
    match (configured, asked) {
        (Some(_), Some(_)) => format!("{seed} (detect.seed, which counts more than --seed)"),
        (Some(_), None) => format!("{seed} (detect.seed)"),
        (None, Some(_)) => format!("{seed} (--seed); that of the factors is this installation's secret"),
        (None, None) => format!("{seed} (from the pictures; --seed takes another); that of the factors is this installation's secret"),
    }
}
