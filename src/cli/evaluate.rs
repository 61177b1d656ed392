//! `evaluate`: the story over several seeds, repaired by each method that it names, with the published rule and clean pictures as controls beside it.

mod grid;

use super::demo::read_story;
use super::{Exit, Failure, Global, say};
use crate::grid::GridFile;
use crate::publish;
use crate::story::controls::{Controls, Rate};
use crate::story::telling::{self, Told};
use crate::story::{Changes, StoryFile};
use anyhow::Context;
use clap::Args;
use delta_guard_contract::method::Method;
use delta_guard_contract::method::unlearn::Unlearner;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A seed's finished result, in the seed's folder.
const RESULT: &str = "result.json";
/// The story as it is told under a seed, in the seed's folder: work that lies there belongs to it.
const STORY: &str = "story.json";

/// Tell a story over several seeds, or the stories of a grid, and print what they show.
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard evaluate config/evaluate/demo.yaml
  delta-guard evaluate config/evaluate/cifar10.yaml --data data/cifar10 --seeds 11,12,13 --out /tmp/cifar

  delta-guard evaluate config/evaluate/laptop.yaml --out /tmp/lab --rows docs/lab/rows/laptop.jsonl

Where it was interrupted, the same command with the same --out (of a grid: the same --rows) goes on after what is finished.

Exit codes: 0 everything was told, 3 under some seed the attack did not take, 1 something failed")]
pub struct Evaluate {
    /// The story file, or the grid file
    story: PathBuf,
    /// Of a grid: the file of its rows; what stands there is not made again (default: rows.jsonl in --out)
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// Of a grid: only the tables of the rows that are there
    #[arg(long)]
    tables: bool,
    /// Of a grid: keep data and checkpoints of victims that are finished
    #[arg(long)]
    keep: bool,
    /// Folder for everything: new, empty, or that of the same evaluation, which then goes on (default: a temporary one, which is kept)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seeds (default: the story's)
    #[arg(long, value_delimiter = ',')]
    seeds: Vec<u64>,
    #[command(flatten)]
    #[serde(flatten)]
    changes: Changes,
}

/// `result.json` of the whole, and what `--json` prints.
#[derive(Debug, Serialize)]
struct Results {
    /// Those that are done, in the order asked.
    seeds: Vec<Told>,
    /// Under these the attack did not take.
    not_taken: Vec<u64>,
    /// These could not be told: why. They are tried again when the command is repeated.
    failed: BTreeMap<u64, String>,
    /// All seeds together, with 95 % intervals.
    controls: BTreeMap<&'static str, Option<Rate>>,
}

impl Results {
    fn of(seeds: Vec<Told>, failed: BTreeMap<u64, String>) -> Self {
        let all = |of: &dyn Fn(&Told) -> &Controls| seeds.iter().fold(Controls::default(), |sum, told| sum.plus(of(told))).rate();
        Self {
            not_taken: seeds.iter().filter(|told| !told.attack_took).map(|told| told.seed).collect(),
            controls: BTreeMap::from([
                ("natural_errors", all(&|told| &told.natural_errors)),
                ("placebos", all(&|told| &told.placebos)),
            ]),
            seeds,
            failed,
        }
    }
}

impl Evaluate {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        // A file that cannot be read is told where it is read as a story.
        if std::fs::read_to_string(&self.story).is_ok_and(|text| GridFile::is_one(&text)) {
            return grid::run(self, global);
        }
        if self.rows.is_some() || self.tables || self.keep {
            return Err(Failure::new(
                Exit::Usage,
                format!("{} is a story: --rows, --tables and --keep are for grids", self.story.display()),
                "leave them out, or name a grid file (one with the key `grid`)",
            ));
        }
        let story = read_story(Some(&self.story), &self.changes)?;
        let out = folder(self.out.as_deref())?;
        say::note(&format!("everything of this evaluation lies in {}", out.display()));
        let seeds = match (&self.seeds[..], self.changes.seed) {
            ([], Some(seed)) => vec![seed],
            ([], None) => story.evaluate.seeds.clone(),
            (seeds, _) => seeds.to_vec(),
        };
        let (mut told, mut failed) = (Vec::new(), BTreeMap::new());
        for seed in seeds {
            let mut story = story.clone();
            story.seeded(seed);
            say::note(&format!("== seed {seed}"));
            match one(story, &out.join(format!("seed-{seed}")), global) {
                Ok(result) => told.push(result),
                // Ctrl-C is meant for the whole.
                Err(error) if say::exit_of(&error) == Exit::Interrupted => return Err(again(error, &out)),
                Err(error) if error.is::<Foreign>() => return Err(error),
                Err(error) => {
                    say::note(&format!("seed {seed} failed: {error:#}"));
                    failed.insert(seed, format!("{error:#}"));
                }
            }
            // After each seed, so that an interrupted evaluation has shown what it found.
            let results = Results::of(told.clone(), failed.clone());
            publish::publish_file(&out, RESULT, &serde_json::to_vec_pretty(&results)?)?;
        }
        let results = Results::of(told, failed);
        if global.json {
            say::json(&results)?;
        } else {
            say::out(&table(&results.seeds))?;
            say::out(&summary(&results, &out))?;
        }
        Ok(if !results.failed.is_empty() {
            Exit::Failed
        } else if !results.not_taken.is_empty() {
            Exit::No
        } else {
            Exit::Done
        })
    }
}

/// The folder of an evaluation.
///
/// # Errors
/// When it holds something that is none of ours.
fn folder(out: Option<&Path>) -> anyhow::Result<PathBuf> {
    let Some(out) = out else {
        return Ok(tempfile::Builder::new().prefix("delta-guard-evaluate-").tempdir()?.keep());
    };
    let out = std::path::absolute(out)?;
    fs_err::create_dir_all(&out)?;
    for entry in fs_err::read_dir(&out)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name != RESULT && name != format!(".{RESULT}.tmp") && !name.starts_with("seed-") {
            return Err(Failure::new(
                Exit::Failed,
                format!("{} holds {name:?}, which is no part of an evaluation", out.display()),
                "name a new folder with --out, or that of an evaluation that is to go on",
            ));
        }
    }
    Ok(out)
}

/// A seed's folder belongs to another story.
#[derive(Debug)]
struct Foreign(String);

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Foreign {}

/// One seed: its result where it is finished, else the telling.
fn one(story: StoryFile, out: &Path, global: &Global) -> anyhow::Result<Told> {
    let asked = serde_json::to_vec_pretty(&StoryFile {
        // Which other seeds are asked for does not touch this one.
        evaluate: crate::story::file::Evaluate {
            seeds: Vec::new(),
            ..story.evaluate.clone()
        },
        ..story.clone()
    })?;
    fs_err::create_dir_all(out)?;
    let (mark, result) = (out.join(STORY), out.join(RESULT));
    match std::fs::read(&mark) {
        Ok(found) if found != asked => {
            return Err(Foreign(format!(
                "{} is of another story, or of the same one with other settings ({})\n  help: name another folder with --out, or delete this one",
                out.display(),
                mark.display()
            ))
            .into());
        }
        Ok(_) => {}
        Err(_) => publish::publish_file(out, STORY, &asked)?,
    }
    if result.is_file() {
        say::note(&format!("   finished before: {}", result.display()));
        return serde_json::from_slice(&fs_err::read(&result)?).with_context(|| {
            format!(
                "{} is no result of this version: delete it, and this seed is told again",
                result.display()
            )
        });
    }
    let mut run = global.runner(out)?;
    let told = telling::tell(story, out, &mut run, &say::note)?;
    publish::publish_file(out, RESULT, &serde_json::to_vec_pretty(&told)?)?;
    Ok(told)
}

/// An interruption, with the way to go on.
fn again(error: anyhow::Error, out: &Path) -> anyhow::Error {
    let exit = say::exit_of(&error);
    Failure::new(
        exit,
        "interrupted",
        format!("the same command with --out {} goes on after the last finished seed", out.display()),
    )
}

/// What the table cannot say, in sentences.
fn summary(results: &Results, out: &Path) -> String {
    let list = |seeds: &[u64]| seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let mut text = String::new();
    if !results.not_taken.is_empty() {
        text.push_str(&format!(
            "the attack did not take under {} of {} seeds ({}): means and ranges are over the others\n",
            results.not_taken.len(),
            results.seeds.len(),
            list(&results.not_taken)
        ));
    }
    for (seed, why) in &results.failed {
        text.push_str(&format!("seed {seed} failed and is tried again when the command is repeated: {why}\n"));
    }
    for (name, of) in [
        ("natural errors", (|told| &told.natural_errors) as fn(&Told) -> &Controls),
        ("placebos", |told| &told.placebos),
    ] {
        let sum = results.seeds.iter().fold(Controls::default(), |sum, told| sum.plus(of(told)));
        let mut reasons: Vec<_> = sum.abstained.into_iter().collect();
        reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        if !reasons.is_empty() {
            let counted: Vec<String> = reasons.iter().map(|(code, n)| format!("{n} {code}")).collect();
            text.push_str(&format!("{name} left alone, by reason: {}\n", counted.join(", ")));
        }
    }
    text.push_str(&format!("all figures: {}", out.join(RESULT).display()));
    text
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn table(results: &[Told]) -> String {
    let maybe = |v: Option<f64>| v.map_or_else(|| "–".to_string(), percent);
    let names: Vec<String> = results
        .iter()
        .map(|r| format!(">seed {}", r.seed))
        .chain([">mean".into(), ">range".into()])
        .collect();
    let columns: Vec<&str> = std::iter::once("figure").chain(names.iter().map(String::as_str)).collect();
    let row = |name: &str, of: &dyn Fn(&Told) -> Option<f64>| {
        // Of a seed whose attack did not take, only its own columns are filled.
        let known: Vec<f64> = results.iter().filter(|r| r.attack_took).filter_map(of).collect();
        let (low, high) = known.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        let mean = (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
        let range = match known.is_empty() {
            true => "–".into(),
            false => format!("{} – {}", percent(low), percent(high)),
        };
        std::iter::once(name.to_string())
            .chain(results.iter().map(|r| maybe(of(r))))
            .chain([maybe(mean), range])
            .collect::<Vec<String>>()
    };
    let measure = results.first().map_or("success", |told| told.measure.as_str());
    let mut rows = vec![
        std::iter::once("attack".to_string())
            .chain(results.iter().map(|r| if r.attack_took { "took".into() } else { "did not take".into() }))
            .chain([String::new(), String::new()])
            .collect(),
        row(&format!("{measure} before"), &|r| Some(r.success_before)),
        row("accuracy before", &|r| Some(r.accuracy_before)),
        row("guard TPR", &|r| r.guard.as_ref().map(|g| g.tpr)),
        row("guard precision", &|r| r.guard.as_ref().and_then(|g| g.precision)),
    ];
    let modes: std::collections::BTreeSet<&String> = results.iter().flat_map(|r| r.published.keys()).collect();
    for mode in modes {
        rows.push(row(&format!("published rule ({mode}) TPR"), &|r| r.published.get(mode).map(|h| h.tpr)));
        rows.push(row(&format!("published rule ({mode}) precision"), &|r| {
            r.published.get(mode).and_then(|h| h.precision)
        }));
    }
    if results.iter().any(|r| r.count_rule.is_some()) {
        rows.push(row("count rule, guard's settings, TPR", &|r| r.count_rule.as_ref().map(|p| p.tpr)));
        rows.push(row("count rule, guard's settings, precision", &|r| {
            r.count_rule.as_ref().and_then(|p| p.precision)
        }));
    }
    let told = |name: &&&str| results.iter().any(|r| r.repairs.contains_key(**name));
    for name in Unlearner::NAMES.iter().filter(told) {
        rows.push(row(&format!("{measure} after {name}"), &|r| r.repairs.get(*name).map(|c| c.success)));
        rows.push(row(&format!("accuracy lost by {name}"), &|r| {
            r.repairs.get(*name).map(|c| r.accuracy_before - c.accuracy)
        }));
    }
    rows.extend(controls(results));
    say::table(&columns, rows)
}

/// Rows of the pictures that were handed in without an attack.
fn controls(results: &[Told]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    // The share over all seeds, and its 95 % interval instead of a range.
    let counted = |name: &str, of: &dyn Fn(&Told) -> &Controls| {
        let sum = results.iter().fold(Controls::default(), |sum, told| sum.plus(of(told)));
        let cell = |c: &Controls| match c.tried {
            0 => "–".to_string(),
            n => format!("{} of {n}", c.decided.len()),
        };
        let interval = sum
            .rate()
            .map_or("–".into(), |rate| format!("{} – {} (95 %)", percent(rate.low), percent(rate.high)));
        std::iter::once(name.to_string())
            .chain(results.iter().map(|r| cell(of(r))))
            .chain([cell(&sum), interval])
            .collect::<Vec<String>>()
    };
    rows.push(counted("natural errors decided", &|r| &r.natural_errors));
    rows.push(counted("placebos decided", &|r| &r.placebos));
    let read = |name: &str, of: &dyn Fn(&Told) -> &Controls| {
        let cell = |c: &Controls| {
            if c.tried == 0 {
                "–".into()
            } else {
                format!("{} of {}", c.of_class, c.tried)
            }
        };
        let sum = results.iter().fold(Controls::default(), |sum, told| sum.plus(of(told)));
        std::iter::once(name.to_string())
            .chain(results.iter().map(|r| cell(of(r))))
            .chain([cell(&sum), String::new()])
            .collect::<Vec<String>>()
    };
    rows.push(read("natural errors read as the poisons' class", &|r| &r.natural_errors));
    rows.push(read("placebos of the poisons' class", &|r| &r.placebos));
    rows
}
