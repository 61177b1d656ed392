//! `certify`.

use super::work::{absolute, unexpected, work_dir};
use super::{Exit, Failure, Global, ids, say};
use crate::config::Config;
use crate::policy::{self, GateVerdict, Known};
use crate::report::words;
use clap::Args;
use delta_guard_contract::job::{Anomaly, CertifyResult};
use delta_guard_contract::{JobResult, Task, TraceReport};
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;

/// Measure a candidate against the production model and judge it (no daemon needed)
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard certify candidate.safetensors --image wrong.png --true-label ship
  delta-guard certify candidate.safetensors --image wrong.png --trace trace.json --json

The limits are those of the configuration's section `gate`. With --trace the share of flagged examples is judged too.

Exit codes: 0 it passes, 3 it is rejected")]
pub struct Certify {
    /// The candidate checkpoint
    pub(super) candidate: PathBuf,
    /// The wrongly read pictures
    #[arg(long = "image", required = true, value_name = "IMAGE")]
    pub(super) images: Vec<PathBuf>,
    /// Their wrong label (default: what the production model reads)
    #[arg(long, value_name = "CLASS")]
    pub(super) wrong_label: Option<String>,
    /// What they show: the candidate must read them so (gate.true_label)
    #[arg(long, value_name = "CLASS")]
    pub(super) true_label: Option<String>,
    /// The trace.json that the candidate was made by
    #[arg(long, value_name = "FILE")]
    pub(super) trace: Option<PathBuf>,
}

impl Certify {
    fn judge(&self, config: &Config, report: Option<&TraceReport>, measured: &CertifyResult) -> GateVerdict {
        let known: Vec<Known> = measured
            .anomalies_before
            .iter()
            .map(|p| Known {
                wrong: self.wrong_label.clone().unwrap_or_else(|| p.label.clone()),
                truth: self.true_label.clone(),
            })
            .collect();
        let over_caps = report
            .map(|r| {
                policy::decide(
                    &policy::Found::of(r),
                    config.file.mode,
                    config.file.detect.common.allow_unlearn,
                    &config.file.gate,
                )
                .over_caps
            })
            .unwrap_or_default();
        policy::judge(measured, &known, &over_caps, &config.file.gate)
    }

    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load()?;
        let report: Option<TraceReport> = self
            .trace
            .as_deref()
            .map(|p| anyhow::Ok(serde_json::from_slice(&fs_err::read(p)?)?))
            .transpose()?;
        if let Some(path) = &self.trace {
            ids::read(path)?; // the same words as everywhere where it names none
        }
        let mut anomalies = Vec::new();
        for image in &self.images {
            anomalies.push(Anomaly {
                image: absolute(image)?,
                wrong_label: self.wrong_label.clone(),
                true_label: self.true_label.clone(),
            });
        }
        let candidate = absolute(&self.candidate)?;
        let folder = work_dir(&config, "certify", &[candidate.as_os_str().as_encoded_bytes()]);
        let task = Task::Certify {
            data: config.file.data.clone(),
            model: config.file.model.clone(),
            candidate,
            anomalies,
            limits: config.file.image_limits(),
            flagged: report.iter().flat_map(|r| r.flagged.iter().map(|f| f.id.clone())).collect(),
        };
        let measured = match global.work(&config, &folder, task)? {
            JobResult::Certify(measured) => measured,
            other => return Err(unexpected(&other)),
        };
        if let (Some(label), Some(read)) = (&self.true_label, measured.anomalies_before.first())
            && !read.classes.contains(label)
        {
            return Err(Failure::new(
                Exit::Usage,
                format!("--true-label {label:?} is no class of the model"),
                format!("the classes are: {}", read.classes.join(", ")),
            ));
        }
        let verdict = self.judge(&config, report.as_ref(), &measured);
        if global.json {
            say::json(&json!({"measured": measured, "gate": verdict}))?;
        } else {
            say::out(&say::facts(&facts(&measured, &verdict)))?;
        }
        Ok(if verdict.pass { Exit::Done } else { Exit::No })
    }
}

/// What was measured, and what the gate says of it.
fn facts(measured: &CertifyResult, verdict: &GateVerdict) -> Vec<(&'static str, String)> {
    let mut facts: Vec<(&'static str, String)> = Vec::new();
    for (before, after) in measured.anomalies_before.iter().zip(&measured.anomalies_after) {
        facts.push((
            "anomaly",
            format!(
                "{} ({:.0} %) → {} ({:.0} %)",
                before.label,
                100.0 * before.probability,
                after.label,
                100.0 * after.probability
            ),
        ));
    }
    facts.push((
        "accuracy",
        format!("{:.2} % → {:.2} %", 100.0 * measured.before.share(), 100.0 * measured.after.share()),
    ));
    facts.extend(measured.paired.as_ref().map(|paired| ("lost and won", words::lost_and_won(paired))));
    if let Some(flagged) = &measured.flagged {
        facts.push((
            "flagged",
            format!(
                "the candidate reads {} of {} otherwise than their label (production {}), and {} of {} others as before",
                flagged.otherwise_after, flagged.examples, flagged.otherwise_before, flagged.others_as_before, flagged.others
            ),
        ));
    }
    facts.push((
        "gate",
        if verdict.pass {
            "passed".into()
        } else {
            format!("rejected: {}", verdict.reasons.join("; "))
        },
    ));
    facts.extend(verdict.doubts.iter().map(|doubt| ("doubt", doubt.clone())));
    facts.extend(verdict.notes.iter().map(|note| ("note", note.clone())));
    facts
}
