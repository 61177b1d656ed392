//! Sums over training examples in parts, and their putting together: see [`crate::passes::parts`].

use super::case::{Case, Submitted};
use super::{Place, bench, fit};
use crate::detect::{DetectCase, detector};
use crate::device;
use crate::ekfac::{CovarianceFold, Eigenbasis, Factors, LambdaFold, ScoreFold};
use crate::error::{Error, Result, ResultExt};
use crate::evidence::{Opening, Scores};
use crate::files;
use crate::files::tensors::{Texts, read_sealed, write_sealed};
use crate::fold::Fold;
use crate::influence::{ModelEvidence, plan_of_scores, shaped};
use crate::passes::budget::Budget;
use crate::passes::fit::{FitSettings, factors_file, found};
use crate::passes::parts::PartsPlan;
use crate::passes::stream::{Keep, Stream};
use crate::progress::Report;
use delta_guard_contract::Digest;
use delta_guard_contract::detect::Detector;
use delta_guard_contract::job::{FoldSum, FoldTask, JobResult, PartResult};
use std::path::{Path, PathBuf};

/// A part's file inside its job's folder.
const PART: &str = "part.safetensors";
/// Merged scores, inside the merge's folder.
const SCORES: &str = "scores.safetensors";
/// Version of the file of merged scores.
const SCORES_FORMAT: &str = "delta-guard-scores/1";

/// One part, or all of them.
#[derive(Clone, Copy)]
enum Work<'a> {
    Part { part: u32, parts: u32 },
    Merge(&'a [PathBuf]),
}

impl Work<'_> {
    fn parts(self) -> u32 {
        match self {
            Work::Part { parts, .. } => parts,
            Work::Merge(files) => files.len() as u32,
        }
    }
}

/// [`delta_guard_contract::Task::FoldPart`]
pub fn part(place: &Place<'_>, sum: &FoldSum, part: u32, parts: u32, report: &mut dyn Report) -> Result<JobResult> {
    run(place, sum, Work::Part { part, parts }, report)
}

/// [`delta_guard_contract::Task::FoldMerge`]
pub fn merge(place: &Place<'_>, sum: &FoldSum, files: &[PathBuf], report: &mut dyn Report) -> Result<JobResult> {
    run(place, sum, Work::Merge(files), report)
}

fn run(place: &Place<'_>, sum: &FoldSum, work: Work<'_>, report: &mut dyn Report) -> Result<JobResult> {
    match &sum.fold {
        FoldTask::Covariance | FoldTask::Lambda => of_factors(place, sum, work, report),
        FoldTask::Scores {
            anomalies,
            limits,
            case_seed,
        } => {
            let submitted = Submitted {
                anomalies,
                limits,
                case_seed: *case_seed,
            };
            of_scores(place, sum, &submitted, work, report)
        }
    }
}

/// Covariances and Λ.
fn of_factors(place: &Place<'_>, sum: &FoldSum, work: Work<'_>, report: &mut dyn Report) -> Result<JobResult> {
    let asked = fit::influence(&sum.detect)?;
    let train = bench::training_set(place, &sum.data, report)?;
    let graph = bench::graph(&sum.model, &sum.data.image, train.classes().len())?;
    fit::covers(&graph, &sum.model)?;
    let (model, checkpoint) = bench::load(place, &graph, &sum.model, device::kind(asked.precision), report)?;
    let budget = Budget::new(&model, place.setup.memory_budget);
    let mut stream = fit::stream(place, &train, &model, &sum.data.image, &asked, budget)?;
    let fit_settings = fit::fit_settings(&sum.detect, &asked, sum.factors_seed);
    let key = fit_settings.key(&stream, &checkpoint)?;
    let subset = fit_settings.subset(train.len());
    let (layers, workspace) = (stream.tracked(), stream.workspace());
    let basis_file = place.setup.factors_dir.join(format!("{}.basis.safetensors", key.0));
    if sum.fold == FoldTask::Covariance {
        let plan = PartsPlan::new(&["covariance", &key.0], subset.len(), stream.batch, work.parts())?;
        let empty = || CovarianceFold::new(&layers, workspace);
        return match work {
            Work::Part { part, .. } => {
                let mut fold = empty()?;
                let examples = &subset[plan.range(part)?];
                stream.run("covariance", examples, fit_settings.covariance(), Keep::Nothing, &mut fold, report)?;
                saved(place, &plan, part, fold)
            }
            Work::Merge(files) => {
                let covariances = plan.merge(files, empty)?.finish()?;
                let all = layers.len() as u64;
                let basis = covariances.eigenbasis(&workspace, |done| report.progress("eigenbasis", done as u64, all, ""))?;
                basis.save(&basis_file, &key)?;
                answer(&basis_file, &plan, subset.len())
            }
        };
    }
    let basis = Eigenbasis::load(&basis_file, &layers, &key, &workspace).map_err(|error| {
        let help = "put the parts of the covariance together first, under the same settings and with the same factor folder";
        error.within(|| "the eigenbasis of these factors".into()).helped(help)
    })?;
    let plan = PartsPlan::new(
        &["lambda", &key.0, &files::digest(&basis_file)?.0],
        subset.len(),
        stream.batch,
        work.parts(),
    )?;
    let empty = || LambdaFold::new(&basis, workspace);
    match work {
        Work::Part { part, .. } => {
            let mut fold = empty()?;
            let examples = &subset[plan.range(part)?];
            stream.run("lambda", examples, fit_settings.lambda(), Keep::Nothing, &mut fold, report)?;
            saved(place, &plan, part, fold)
        }
        Work::Merge(files) => {
            let file = factors_file(&place.setup.factors_dir, &key);
            plan.merge(files, empty)?.finish()?.save(&file, &key)?;
            // Its vectors are in the factor file now.
            fs_err::remove_file(&basis_file)?;
            answer(&file, &plan, subset.len())
        }
    }
}

/// The first scoring pass of a case.
fn of_scores(place: &Place<'_>, sum: &FoldSum, submitted: &Submitted<'_>, work: Work<'_>, report: &mut dyn Report) -> Result<JobResult> {
    let asked = fit::influence(&sum.detect)?;
    let case = Case::lay_out(place, &sum.data, &sum.model, &sum.detect, submitted, report)?;
    let budget = Budget::new(&case.model, place.setup.memory_budget);
    let stream = fit::stream(place, &case.train, &case.model, case.image, &asked, budget)?;
    let fit_settings = fit::fit_settings(&sum.detect, &asked, sum.factors_seed);
    let (key, factors) = factors_there(place, &stream, &fit_settings, &case, report)?;
    let opening = opening(case.method, &case.question())?;
    let what = plan_of_case(case.method, &key, &opening)?;
    let plan = PartsPlan::new(&["scores", &what.0], opening.examples.len(), stream.batch, work.parts())?;
    let mut evidence = ModelEvidence::new(stream, &factors, &asked, report).within(place.query_budget)?;
    match work {
        Work::Part { part, .. } => {
            let examples = &opening.examples[plan.range(part)?];
            let fold = evidence.part("score", &opening.questions, examples, opening.self_influence)?;
            saved(place, &plan, part, fold)
        }
        Work::Merge(files) => {
            let rows = opening.questions.iter().map(|question| question.queries().len()).sum();
            let mut whole = plan.merge(files, || Ok(ScoreFold::of_rows(rows, opening.self_influence)))?;
            let state = whole.save()?;
            let texts = Texts::from([("format".to_string(), SCORES_FORMAT.to_string()), ("plan".into(), what.0)]);
            let file = place.out_dir.join(SCORES);
            write_sealed(&file, state.iter().map(|(name, tensor)| (name.as_str(), tensor)), texts)?;
            answer(&file, &plan, opening.examples.len())
        }
    }
}

/// Merged scores for a trace: what the detector asks first, and the answer.
///
/// # Errors
/// `Configuration`: damaged, or of another case, other factors or settings.
pub fn known(case: &Case<'_>, key: &Digest, question: &DetectCase<'_>, path: &Path) -> Result<(Digest, Scores)> {
    let opening = opening(case.method, question)?;
    let what = plan_of_case(case.method, key, &opening)?;
    let (mut state, _) = read_sealed(path, &[("format", SCORES_FORMAT), ("plan", &what.0)]).context(|| "scores of parts".into())?;
    let scored = crate::ekfac::Scored::from_state(&mut state).context(|| path.display().to_string())?;
    let plan = plan_of_scores(&opening.questions, &opening.examples, opening.self_influence)?;
    Ok((plan, shaped(&opening.questions, scored)?))
}

/// Factors under their key, which are not fitted here: every part would fit its own.
fn factors_there(
    place: &Place<'_>,
    stream: &Stream<'_>,
    settings: &FitSettings,
    case: &Case<'_>,
    report: &mut dyn Report,
) -> Result<(Digest, Factors)> {
    let key = settings.key(stream, &case.checkpoint)?;
    let factors = found(&place.setup.factors_dir, &key, &stream.tracked(), &stream.workspace(), report)?;
    let factors = factors.ok_or_else(|| {
        Error::configuration(
            format!("there are no factors of key {} to score with", key.short()),
            "fit them first, or put their parts together, under the same settings and with the same factor folder",
        )
    })?;
    Ok((key, factors))
}

fn opening(method: &Detector, question: &DetectCase<'_>) -> Result<Opening> {
    detector(method).opening(question)?.ok_or_else(|| {
        Error::configuration(
            "this case needs no scores: too few training examples have its wrong label",
            "trace it as it is",
        )
    })
}

/// Everything that the scores of a case depend on.
fn plan_of_case(method: &Detector, key: &Digest, opening: &Opening) -> Result<Digest> {
    let settings = serde_json::to_string(method).map_err(|e| Error::internal(format!("settings: {e}")))?;
    let questions = plan_of_scores(&opening.questions, &opening.examples, opening.self_influence)?;
    let mut hasher = blake3::Hasher::new();
    for text in [&settings, &key.0, &questions.0] {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    Ok(Digest(hasher.finalize().to_hex().to_string()))
}

fn saved<F: Fold>(place: &Place<'_>, plan: &PartsPlan, part: u32, fold: F) -> Result<JobResult> {
    let file = place.out_dir.join(PART);
    plan.save(part, fold, &file)?;
    answer(&file, plan, plan.range(part)?.len())
}

fn answer(file: &Path, plan: &PartsPlan, examples: usize) -> Result<JobResult> {
    Ok(JobResult::Part(PartResult {
        file: file.to_path_buf(),
        digest: files::digest(file)?,
        plan: plan.digest().clone(),
        examples: examples as u64,
    }))
}
