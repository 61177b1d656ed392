//! `delta-guard evaluate`: the story over several seeds, repaired by both methods, with natural errors and placebos handed in beside the anomaly.

use super::demo::read_story;
use super::{Exit, Global, say};
use crate::story::{self, Changes, Stage, stage};
use clap::Args;
use delta_guard_contract::config::UnlearnMethod;
use delta_guard_contract::job::PredictedExample;
use delta_guard_contract::{TraceReport, TrainId};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

/// Tell a story over several seeds and print what it shows.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  delta-guard evaluate config/evaluate/demo.yaml
  delta-guard evaluate config/evaluate/cifar10.yaml --data data/cifar10 --seeds 201,202,203 --out /tmp/cifar")]
pub struct Evaluate {
    /// The story file
    story: PathBuf,
    /// Folder for everything; new or empty (default: a temporary one, which is kept)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seeds (default: the story's)
    #[arg(long, value_delimiter = ',')]
    seeds: Vec<u64>,
    #[command(flatten)]
    changes: Changes,
}

/// What one seed showed. Shares are 0 to 1.
#[derive(Debug, Serialize)]
struct SeedResult {
    seed: u64,
    success_before: f64,
    accuracy_before: f64,
    verdict: delta_guard_contract::TraceVerdict,
    guard: story::Hits,
    plain: Option<story::Hits>,
    repairs: BTreeMap<String, Repair>,
    natural_errors: Controls,
    placebos: Controls,
    seconds: BTreeMap<String, f64>,
    trace_seconds: BTreeMap<String, f64>,
}

#[derive(Debug, Serialize)]
struct Repair {
    success: f64,
    accuracy: f64,
    seconds: f64,
}

/// Clean pictures handed in as anomalies.
#[derive(Debug, Default, Serialize)]
struct Controls {
    tried: usize,
    /// Those with a verdict other than "undecided", with the number flagged.
    decided: Vec<(TrainId, usize)>,
}

impl Evaluate {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let story = read_story(Some(&self.story), &self.changes)?;
        let out = stage::fresh(self.out.as_deref(), "evaluate")?;
        say::note(&format!("everything of this evaluation lies in {}", out.display()));
        let seeds = match (&self.seeds[..], self.changes.seed) {
            ([], Some(seed)) => vec![seed],
            ([], None) => story.evaluate.seeds.clone(),
            (seeds, _) => seeds.to_vec(),
        };
        let mut results = Vec::new();
        for seed in seeds {
            let mut story = story.clone();
            story.seeded(seed);
            say::note(&format!("== seed {seed}"));
            results.push(one(story, &out.join(format!("seed-{seed}")), global)?);
            // After each seed, so that an interrupted evaluation has shown what it found.
            fs_err::write(out.join("result.json"), serde_json::to_string_pretty(&results)?)?;
        }
        if global.json {
            say::json(&results)?;
        } else {
            say::out(&table(&results))?;
            say::out(&format!("all figures: {}", out.join("result.json").display()))?;
        }
        Ok(Exit::Done)
    }
}

fn one(story: story::StoryFile, out: &std::path::Path, global: &Global) -> anyhow::Result<SeedResult> {
    fs_err::create_dir_all(out)?;
    let seed = story.story.seed;
    let asked = story.evaluate.clone();
    let mut seconds = BTreeMap::new();
    let mut clock = Instant::now();
    let mut lap = |name: &str| {
        seconds.insert(name.to_string(), clock.elapsed().as_secs_f64());
        clock = Instant::now();
    };
    let mut run = global.runner(out)?;
    let stage = Stage::prepare(story, out, &mut run)?;
    stage.train(&mut run)?;
    lap("train");
    let victim = stage.victim();
    let target = stage.prepared.target.clone();
    let clean = stage.measure(&victim, &stage.prepared.validation, "clean", true, &mut run)?;
    let triggered = stage.measure(&victim, &stage.prepared.triggered, "triggered", false, &mut run)?;
    // The first of the pictures that were set aside, whatever the victim makes of it, unless it reads it rightly: then the next.
    let mut traced: Option<TraceReport> = None;
    for (n, picture) in stage.prepared.anomalies.iter().enumerate() {
        let report = stage.trace(picture, seed, &format!("anomaly-{n}"), true, &mut run)?;
        if report.predicted_label == target {
            traced = Some(report);
            break;
        }
    }
    lap("trace");
    let Some(report) = traced else {
        anyhow::bail!("seed {seed}: the attack did not take: no triggered picture is read as {target}")
    };
    let (guard, plain) = story::hits(&report, &stage.prepared.poisons);
    say::note(&format!(
        "seed {seed}: poison success {:.1} %, accuracy {:.1} %, flagged {}, TPR {:.1} %, precision {}",
        100.0 * story::success(&triggered, &target),
        100.0 * clean.accuracy.share(),
        guard.flagged,
        100.0 * guard.tpr,
        guard.precision.map_or("–".into(), |p| format!("{:.1} %", 100.0 * p))
    ));
    let mut repairs = BTreeMap::new();
    if guard.flagged > 0 {
        for (name, method) in [("eu", UnlearnMethod::Eu), ("cf", UnlearnMethod::Cf)] {
            let flagged = report.flagged.iter().map(|f| f.id.clone()).collect();
            let (candidate, result) = stage.unlearn(method, flagged, name, &mut run)?;
            let clean = stage.measure(&candidate, &stage.prepared.validation, &format!("clean-{name}"), false, &mut run)?;
            let triggered = stage.measure(&candidate, &stage.prepared.triggered, &format!("triggered-{name}"), false, &mut run)?;
            let repair = Repair {
                success: story::success(&triggered, &target),
                accuracy: clean.accuracy.share(),
                seconds: result.seconds,
            };
            say::note(&format!(
                "seed {seed}: {name}: poison success {:.1} %, accuracy {:.1} %",
                100.0 * repair.success,
                100.0 * repair.accuracy
            ));
            repairs.insert(name.to_string(), repair);
            lap(name);
        }
    }
    let listed: Vec<PredictedExample> = serde_json::from_slice(&fs_err::read(out.join("measures/clean/predictions.json"))?)?;
    let wrong = spread(listed.iter().filter(|p| p.label != p.predicted), asked.natural_errors as usize);
    let right = spread(listed.iter().filter(|p| p.label == p.predicted), asked.placebos as usize);
    let natural_errors = controls(&stage, &wrong, "natural", seed, &mut run)?;
    let placebos = controls(&stage, &right, "placebo", seed, &mut run)?;
    lap("controls");
    Ok(SeedResult {
        seed,
        success_before: story::success(&triggered, &target),
        accuracy_before: clean.accuracy.share(),
        verdict: report.verdict.clone(),
        guard,
        plain,
        repairs,
        natural_errors,
        placebos,
        seconds,
        trace_seconds: report.seconds,
    })
}

/// `n` of them, evenly spread over the list (it is in class order or in the data's): not the first ones, not chosen by what they show.
fn spread<'a>(all: impl Iterator<Item = &'a PredictedExample>, n: usize) -> Vec<TrainId> {
    let all: Vec<&PredictedExample> = all.collect();
    let n = n.min(all.len());
    (0..n).map(|i| all[i * all.len() / n].id.clone()).collect()
}

fn controls(stage: &Stage, ids: &[TrainId], name: &str, seed: u64, run: &mut stage::Run<'_>) -> anyhow::Result<Controls> {
    if ids.is_empty() {
        return Ok(Controls::default());
    }
    let pictures = stage.extract(&stage.prepared.validation, ids.to_vec(), &format!("controls/{name}"), run)?;
    let mut found = Controls {
        tried: ids.len(),
        decided: Vec::new(),
    };
    for (n, (picture, id)) in pictures.iter().zip(ids).enumerate() {
        let report = stage.trace(picture, seed.wrapping_add(1 + n as u64), &format!("{name}-{n}"), false, run)?;
        if !story::undecided(&report) {
            say::note(&format!("seed {seed}: {name} {id} flags {}", report.flagged.len()));
            found.decided.push((id.clone(), report.flagged.len()));
        }
    }
    Ok(found)
}

fn table(results: &[SeedResult]) -> String {
    let percent = |v: f64| format!("{:.1} %", 100.0 * v);
    let maybe = |v: Option<f64>| v.map_or_else(|| "–".to_string(), percent);
    let names: Vec<String> = results
        .iter()
        .map(|r| format!(">seed {}", r.seed))
        .chain([">mean".into(), ">range".into()])
        .collect();
    let columns: Vec<&str> = std::iter::once("figure").chain(names.iter().map(String::as_str)).collect();
    let row = |name: &str, values: Vec<Option<f64>>| {
        let known: Vec<f64> = values.iter().flatten().copied().collect();
        let (low, high) = known.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        let mean = (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
        let range = if known.is_empty() {
            "–".into()
        } else {
            format!("{} – {}", percent(low), percent(high))
        };
        std::iter::once(name.to_string())
            .chain(values.into_iter().map(maybe))
            .chain([maybe(mean), range])
            .collect::<Vec<String>>()
    };
    let all = |f: &dyn Fn(&SeedResult) -> Option<f64>| results.iter().map(f).collect::<Vec<_>>();
    let mut rows = vec![
        row("poison success before", all(&|r| Some(r.success_before))),
        row("accuracy before", all(&|r| Some(r.accuracy_before))),
        row("guard TPR", all(&|r| Some(r.guard.tpr))),
        row("guard precision", all(&|r| r.guard.precision)),
        row("plain rule TPR", all(&|r| r.plain.as_ref().map(|p| p.tpr))),
        row("plain rule precision", all(&|r| r.plain.as_ref().and_then(|p| p.precision))),
    ];
    for name in ["eu", "cf"] {
        rows.push(row(
            &format!("poison success after {name}"),
            all(&|r| r.repairs.get(name).map(|c| c.success)),
        ));
        rows.push(row(
            &format!("accuracy lost by {name}"),
            all(&|r| r.repairs.get(name).map(|c| r.accuracy_before - c.accuracy)),
        ));
    }
    let counted = |name: &str, f: &dyn Fn(&SeedResult) -> &Controls| {
        let each = results.iter().map(|r| format!("{} of {}", f(r).decided.len(), f(r).tried));
        std::iter::once(name.to_string())
            .chain(each)
            .chain([String::new(), String::new()])
            .collect::<Vec<String>>()
    };
    rows.push(counted("natural errors decided", &|r| &r.natural_errors));
    rows.push(counted("placebos decided", &|r| &r.placebos));
    say::table(&columns, rows)
}
