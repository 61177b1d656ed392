//! Everything that a report, a mail, the command line or the HTTP interface may say about a case.

use super::standing::{self, Earlier};
use super::{former, kept};
use crate::case::{Approval, Case, CaseId, HoldCause, Regrowth, Stage, StandingUse, State};
use crate::policy::{Decision, GateVerdict};
use crate::settings::Settings;
use crate::text::escape;
use delta_guard_contract::job::{CertifyResult, FitResult, Prediction, TrainResult};
use delta_guard_contract::method::Name;
use delta_guard_contract::method::unlearn::Unlearner;
use delta_guard_contract::{Code, Digest, Flagged, TraceReport};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A case, ready to be shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseView {
    /// Name of the case.
    pub case: CaseId,
    /// Name of the installation.
    pub instance: String,
    /// Who is responsible; may be empty.
    pub owner: String,
    /// The configuration of the guard that shows it: advised commands name it.
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Is the guarded network the owner's own, without proof that it is read rightly?
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unproved: bool,
    /// How the candidate of this case is or would be made.
    pub method: Name<Unlearner>,
    /// Where the case stands.
    pub state: State,
    /// Why it waits or how it ended, in a sentence; empty while it is worked on.
    pub reason: String,
    /// What to do about it; may be empty.
    pub help: String,
    /// The standing exclusion list that the candidate was made under; None where there was none.
    pub standing: Option<StandingUse>,
    /// The cases that list comes from. Empty where there was none, and in cases of older versions.
    pub earlier: Vec<Earlier>,
    /// Is the candidate the owner's own?
    pub given: bool,
    /// What kind of hold it is; None while it is not held.
    pub held_cause: Option<HoldCause>,
    /// The code of the failure that holds it, or that its stage met last (docs/errors.md).
    pub code: Option<Code>,
    /// Tells the messages about one case apart: its holds and its ends. Empty for its first end.
    pub occasion: String,
    /// When it was taken in.
    pub accepted_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What was submitted.
    pub submission: Submission,
    /// How the production model reads the picture.
    pub prediction: Option<Prediction>,
    /// The factors.
    pub fit: Option<FitResult>,
    /// What the detector found. None before the trace, and where its file is gone or was changed.
    pub trace: Option<TraceReport>,
    /// What followed from it.
    pub decision: Option<Decision>,
    /// The candidate, as trained.
    pub unlearn: Option<TrainResult>,
    /// Before and after.
    pub certify: Option<CertifyResult>,
    /// The gate's verdict.
    pub gate: Option<GateVerdict>,
    /// What stood out on its candidates, one after another, and the examples that were not removed before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regrown: Vec<(Regrowth, Vec<Flagged>)>,
    /// The word on the candidate: who approved or declined it, and why.
    pub approval: Option<Approval>,
    /// Where things lie.
    pub paths: Paths,
    /// The settings of the running daemon, as JSON.
    pub settings: serde_json::Value,
    /// Seconds per stage that is done (`predict`, `fit`, …).
    pub seconds: BTreeMap<String, f64>,
}

/// What was submitted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Submission {
    /// The file's name, control and direction characters escaped: safe to print, but still the submitter's words (HTML needs its own escaping).
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// BLAKE3 of the content.
    pub content: Digest,
    /// The sidecar's words, escaped like the name.
    pub predicted_label: Option<String>,
    /// See `predicted_label`.
    pub true_label: Option<String>,
    /// See `predicted_label`.
    pub source: Option<String>,
    /// See `predicted_label`.
    pub note: Option<String>,
    /// Where the submitter wants to hear of it; for mails only, and shown to nobody.
    #[serde(skip)]
    pub mail: Option<String>,
    /// Digest of the production checkpoint when it was taken in.
    pub checkpoint: Digest,
}

/// Where things lie. All absolute.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Paths {
    /// The picture in the spool (no suffix; its format is in its bytes).
    pub picture: PathBuf,
    /// The case's folder.
    pub case_dir: PathBuf,
    /// Folder of `trace.json`; the thumbnails' names ([`TraceReport::thumbnails`]) are relative to it.
    pub trace_dir: Option<PathBuf>,
    /// The published candidate's folder.
    pub candidate: Option<PathBuf>,
    /// The candidate checkpoint in it.
    pub checkpoint: Option<PathBuf>,
    /// Where the report is or will be.
    pub report: PathBuf,
}

impl CaseView {
    /// Show a case. Reads the trace report's file, where there is one.
    pub fn new(case: &Case, settings: &Settings) -> Self {
        let case_dir = settings.case_dir(&case.id);
        let claim = &case.accepted.claim;
        let shown = |text: &Option<String>| text.as_deref().map(|text| escape(text.as_bytes()));
        let trace_file = case.trace().map(|trace| case_dir.join(&trace.file));
        let candidate = case.published().map(|published| settings.candidates_dir.join(&published.folder));
        Self {
            case: case.id.clone(),
            instance: settings.instance.clone(),
            owner: settings.owner.clone(),
            config: settings.config.clone(),
            unproved: settings.unproved,
            method: case.method.unwrap_or_else(|| settings.unlearn.name()),
            state: case.state,
            reason: case.reason.clone(),
            help: case.help.clone(),
            standing: case.standing().cloned(),
            earlier: standing::read_cases(&case_dir, case.standing()),
            given: case.given.is_some(),
            held_cause: case.held_cause(),
            code: case
                .failed_code
                .filter(|_| !case.state.rests() || case.held_cause() == Some(HoldCause::Fault)),
            occasion: case.occasion(),
            accepted_at: case.accepted_at,
            ended_at: case.ended_at,
            submission: Submission {
                name: case.accepted.name.clone(),
                bytes: case.accepted.bytes,
                content: case.accepted.content.clone(),
                predicted_label: shown(&claim.predicted_label),
                true_label: shown(&claim.true_label),
                source: shown(&claim.source),
                note: shown(&claim.note),
                mail: claim.mail.clone(),
                checkpoint: case.accepted.checkpoint.clone(),
            },
            prediction: whole(case, Stage::Predict, &case_dir).or_else(|| case.prediction().cloned()),
            fit: whole(case, Stage::Fit, &case_dir).or_else(|| case.fit().cloned()),
            trace: case
                .trace()
                .zip(trace_file.as_deref())
                .and_then(|(trace, file)| read_trace(file, &trace.digest).ok()),
            decision: case.decision().cloned(),
            unlearn: case.unlearn().cloned(),
            certify: whole(case, Stage::Certify, &case_dir).or_else(|| case.certify().cloned()),
            gate: case.gate().cloned(),
            regrown: case.regrown.iter().map(|found| regrown(found, &case_dir)).collect(),
            approval: case.phase.approval().cloned(),
            paths: Paths {
                picture: settings.spool_dir().join(&case.accepted.content.0),
                trace_dir: trace_file.as_deref().and_then(Path::parent).map(Path::to_path_buf),
                checkpoint: candidate.as_ref().map(|folder| folder.join(crate::engine::CHECKPOINT_FILE)),
                candidate,
                report: case_dir.join(crate::engine::REPORT_FILE),
                case_dir,
            },
            settings: serde_json::to_value(settings).unwrap_or_default(),
            seconds: case.seconds.iter().map(|(stage, seconds)| (stage.to_string(), *seconds)).collect(),
        }
    }
}

fn regrown(found: &Regrowth, case_dir: &Path) -> (Regrowth, Vec<Flagged>) {
    let more = found.more.as_ref().and_then(|kept| kept::load(case_dir, kept).ok());
    (found.clone(), more.unwrap_or_default())
}

/// A result from its file, where it was too long for a record. None where there is none, or the file is gone or was changed: the record's short form is shown.
fn whole<T: serde::de::DeserializeOwned>(case: &Case, stage: Stage, case_dir: &Path) -> Option<T> {
    case.kept.get(&stage).and_then(|kept| kept::load(case_dir, kept).ok())
}

/// Read a trace report and hold it against its digest.
pub fn read_trace(file: &Path, digest: &Digest) -> anyhow::Result<TraceReport> {
    former::read(&kept::read_checked(file, digest)?)
}
