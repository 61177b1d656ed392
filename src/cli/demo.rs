//! `demo`: the whole line on a data set that the program poisons itself, through the real daemon.

use super::watch::Watch;
use super::{Exit, Failure, Global, advice, say, signals};
use crate::case::State;
use crate::engine::CaseView;
use crate::story::done::Laps;
use crate::story::{self, Changes, Hits, StoryFile, Theatre, file, stage};
use anyhow::Context;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Poison a data set, train a victim, drop one picture that it misreads into the inbox of a real daemon, and watch it being repaired.
#[derive(Clone, Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard demo                                     drawn pictures, a small CNN, a few minutes on two cores
  delta-guard demo --data data/cifar10 --unlearn cf    CIFAR-10 (a subset), a narrow ResNet-18
  delta-guard demo --poisons 60 --set 'trigger={kind: square, size: 5, margin: 0, color: [255, 0, 255]}'
  delta-guard demo --out /tmp/demo --seed 7            keep everything in a folder; result.json holds the figures")]
pub struct Demo {
    /// A story file (default: the demo's own; with --data that of the CIFAR-10 subset)
    #[arg(long, value_name = "FILE")]
    pub(super) story: Option<PathBuf>,
    /// Folder for everything: new, empty, or that of the same demo, which then goes on (default: a temporary one, which is kept)
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) changes: Changes,
}

/// `result.json`.
#[derive(Debug, Serialize)]
struct Outcome {
    verdict: State,
    reason: String,
    flagged: usize,
    poisons: usize,
    tpr: f64,
    precision: Option<f64>,
    precision_plain: Option<f64>,
    tpr_plain: Option<f64>,
    flagged_plain: Option<usize>,
    attack: String,
    success: Measured,
    accuracy: BeforeAfter,
    seconds: BTreeMap<String, f64>,
    unlearn: String,
    seed: u64,
    report: PathBuf,
    candidate: Option<PathBuf>,
    metrics: PathBuf,
    config: PathBuf,
    folder: PathBuf,
}

/// The attack's own measure.
#[derive(Debug, Serialize)]
struct Measured {
    /// Its name.
    name: String,
    /// What it is.
    sentence: String,
    #[serde(flatten)]
    shares: BeforeAfter,
}

/// Shares, 0 to 1. `after` is missing where there is no candidate.
#[derive(Debug, Serialize)]
struct BeforeAfter {
    before: f64,
    after: Option<f64>,
}

/// The story that a command line asks for.
pub(super) fn read_story(given: Option<&Path>, changes: &Changes) -> anyhow::Result<StoryFile> {
    let here = std::env::current_dir().context("no current folder")?;
    let mut story = match given {
        Some(path) => StoryFile::load(path)?,
        None => StoryFile::parse(if changes.data.is_some() { file::CIFAR10 } else { file::DEMO }, &here)?,
    };
    story.change(changes)?;
    match story.mistakes() {
        Some((message, help)) => Err(Failure::new(Exit::Config, message, help)),
        None => Ok(story),
    }
}

impl Demo {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let story = read_story(self.story.as_deref(), &self.changes)?;
        let out = stage::open(self.out.as_deref(), "demo", &story)?;
        say::note(&format!("everything of this demo lies in {}", out.display()));
        let again = Demo {
            out: Some(out.clone()),
            ..self
        };
        tell(story, &out, global).map_err(|error| say::goes_on(error, &advice::demo(again).line(None)))
    }
}

/// Tell the story in its folder; what is done there already is not done again.
fn tell(story: StoryFile, out: &Path, global: &Global) -> anyhow::Result<Exit> {
    let stop = signals::for_a_command()?;
    let mut laps = Laps::open(out);
    laps.begin("prepare");
    let mut run = global.runner(out)?;
    say::note("== data: a clean set, some of its pictures poisoned");
    let stage = Theatre::prepare(story, out, &mut run)?;
    laps.begin("train");
    say::note(&format!("== victim: trained on the poisoned set ({})", stage.prepared.attack));
    stage.train(&mut run)?;
    laps.begin("measure");
    let clean_before = stage.measure(&stage.victim(), &stage.prepared.validation, "clean-before", false, &mut run)?;
    let success_before = stage.success(&stage.victim(), "success-before", &mut run)?;
    drop(run);
    say::note(&format!(
        "victim: accuracy {}, {} {}",
        percent(clean_before.accuracy.share()),
        stage.prepared.success.name,
        percent(success_before)
    ));

    let anomaly = anomaly(&stage, global)?;
    say::note(&format!(
        "== guard: the daemon starts, one picture is dropped into its inbox ({})",
        anomaly.display()
    ));
    laps.begin("guard");
    let config = stage.write_config()?;
    let mut watch = Watch::start(&config, out, stop)?;
    if !watch.has_a_case()? {
        watch.drop_in(&anomaly)?;
    }
    let view = watch.until_ended(global.quiet)?;
    let metrics = watch.save_metrics()?;
    watch.stop()?;
    laps.begin("measure_after");

    let mut run = global.runner(out)?;
    let mut after = None;
    if let Some(candidate) = &view.paths.checkpoint {
        say::note("== after: the candidate, measured");
        let clean = stage.measure(candidate, &stage.prepared.validation, "clean-after", false, &mut run)?;
        after = Some((clean.accuracy.share(), stage.success(candidate, "success-after", &mut run)?));
    }
    drop(run);
    laps.end();
    let mut seconds = laps.seconds();
    seconds.extend(view.seconds.iter().map(|(stage, s)| (stage.clone(), *s)));

    let (hits, plain) = view.trace.as_ref().map(|t| story::hits(t, &stage.prepared.poisons)).unwrap_or_default();
    let before = (clean_before.accuracy.share(), success_before);
    let outcome = outcome(&stage, &view, (hits, plain.as_ref()), before, after, seconds, (metrics, config, out));
    fs_err::write(out.join("result.json"), serde_json::to_string_pretty(&outcome)?)?;
    if global.json {
        say::json(&outcome)?;
    } else {
        say::out(&table(&outcome, plain.as_ref(), &view))?;
    }
    Ok(if outcome.candidate.is_some() { Exit::Done } else { Exit::No })
}

/// All figures. `before`, `after`: accuracy and the attack's success.
fn outcome(
    stage: &Theatre,
    view: &CaseView,
    (hits, plain): (Hits, Option<&Hits>),
    before: (f64, f64),
    after: Option<(f64, f64)>,
    seconds: BTreeMap<String, f64>,
    (metrics, config, out): (PathBuf, PathBuf, &Path),
) -> Outcome {
    Outcome {
        verdict: view.state,
        reason: view.reason.clone(),
        flagged: hits.flagged,
        poisons: stage.prepared.poisons.len(),
        tpr: hits.tpr,
        precision: hits.precision,
        precision_plain: plain.as_ref().and_then(|p| p.precision),
        tpr_plain: plain.as_ref().map(|p| p.tpr),
        flagged_plain: plain.as_ref().map(|p| p.flagged),
        attack: stage.prepared.attack.clone(),
        success: Measured {
            name: stage.prepared.success.name.clone(),
            sentence: stage.prepared.success.sentence.clone(),
            shares: BeforeAfter {
                before: before.1,
                after: after.map(|a| a.1),
            },
        },
        accuracy: BeforeAfter {
            before: before.0,
            after: after.map(|a| a.0),
        },
        seconds,
        unlearn: stage.story.unlearn.name().to_string(),
        seed: stage.story.story.seed,
        report: view.paths.report.clone(),
        candidate: view.paths.checkpoint.clone(),
        metrics,
        config,
        folder: out.to_path_buf(),
    }
}

/// The first of the pictures that were set aside that the victim reads as the attack wants.
fn anomaly(stage: &Theatre, global: &Global) -> anyhow::Result<PathBuf> {
    let mut run = global.runner(&stage.out)?;
    let victim = stage.model(&stage.victim());
    for (n, bait) in stage.prepared.anomalies.iter().enumerate() {
        let limits = delta_guard_contract::job::ImageLimits {
            max_bytes: 64 << 20,
            max_pixels: 64_000_000,
        };
        let task = delta_guard_contract::Task::Predict {
            data: stage.data(),
            model: victim.clone(),
            image: bait.picture.clone(),
            limits,
        };
        if let delta_guard_contract::JobResult::Predict(p) = run(&stage.out.join("measures").join(format!("anomaly-{n}")), task)?
            && p.label == bait.label
        {
            return Ok(bait.picture.clone());
        }
    }
    Err(Failure::new(
        Exit::No,
        stage.not_taken(),
        "try a stronger attack (more --poisons; --set changes any key of it) or more --epochs",
    ))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn table(o: &Outcome, plain: Option<&Hits>, view: &CaseView) -> String {
    let or_none = |share: Option<f64>| share.map_or_else(|| "–".to_string(), percent);
    let mut rows: Vec<(&str, String)> = vec![
        (
            "verdict",
            format!(
                "{}{}",
                o.verdict,
                if o.reason.is_empty() { String::new() } else { format!(": {}", o.reason) }
            ),
        ),
        ("flagged", format!("{} (of {} poisons, see TPR)", o.flagged, o.poisons)),
        ("TPR", percent(o.tpr)),
        ("precision", or_none(o.precision)),
    ];
    if let Some(plain) = plain {
        rows.push((
            "  plain count rule",
            format!(
                "{} flagged, TPR {}, precision {}",
                plain.flagged,
                percent(plain.tpr),
                or_none(plain.precision)
            ),
        ));
    }
    let success = &o.success.shares;
    rows.push((&o.success.name, format!("{} → {}", percent(success.before), or_none(success.after))));
    rows.push(("accuracy", format!("{} → {}", percent(o.accuracy.before), or_none(o.accuracy.after))));
    let order = ["prepare", "train", "predict", "fit", "trace", "unlearn", "certify", "retrace", "publish"];
    let stages: Vec<String> = order.iter().filter_map(|s| o.seconds.get(*s).map(|t| format!("{s} {t:.1}"))).collect();
    rows.push(("seconds", stages.join(", ")));
    rows.push(("report", o.report.display().to_string()));
    rows.push((
        "candidate",
        o.candidate.as_ref().map_or_else(|| "none".into(), |c| c.display().to_string()),
    ));
    rows.push(("metrics", o.metrics.display().to_string()));
    rows.push(("case", view.case.0.clone()));
    format!("\n{}", say::facts(&rows))
}
