//! `drill`: would the guard have caught it? The owner's own training set is copied and poisoned, the owner's network is trained on it by the owner's recipe, and the guard's own
//! detector is asked.

use super::{Exit, Failure, Global, say};
use crate::config::Config;
use crate::grid::row::{DetectionRow, Shown, VictimRow};
use crate::grid::{Forgotten, GridAsk, GridRow, Planned, RowFile, VictimName, page, rows, run};
use crate::publish;
use crate::story::file::StoryModel;
use crate::story::stage::Run;
use crate::story::{Changes, StoryFile};
use anyhow::{Context, anyhow};
use clap::Args;
use delta_guard_contract::job::{CheckResult, StoryConfig};
use delta_guard_contract::method::Method;
use delta_guard_contract::method::attack::Attack;
use delta_guard_contract::{JobResult, Task};
use prometheus::{Encoder, GaugeVec, Opts, Registry, TextEncoder};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Poison a copy of the configuration's training set, train on it, and see whether the guard finds the poisons.
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard drill                                        pictures of the first class with a checkered square, labelled as the second class: 1 % of the set
  delta-guard drill --attack blend --set alpha=0.1         another attack, see docs/stories.md
  delta-guard drill --train-examples 5000 --epochs 10      a smaller and quicker one
  delta-guard drill --out /var/lib/delta-guard/drill --metrics /var/lib/node_exporter/drill.prom

Data, network, recipe and detector are the configuration's. Nothing of production is written to: everything happens in a folder that is deleted at the end.

Exit codes: 0 the poisons were found, 3 they were not, 1 the attack did not take (so nothing was tested) or something failed")]
pub struct Drill {
    /// Keep page, tables and rows in this folder; rows of earlier drills stay
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the figures for Prometheus' node exporter (textfile collector)
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// This share of the poisons must be flagged, and of the flagged this share must be poisons
    #[arg(long, value_name = "SHARE", default_value_t = 0.9)]
    at_least: f64,
    #[command(flatten)]
    #[serde(flatten)]
    changes: Changes,
}

/// An attack of less success may owe it to pictures that are misread anyway.
const WORKS: f64 = 0.5;

/// What came out.
#[derive(Debug, Serialize)]
struct Drilled {
    /// Was it found?
    caught: bool,
    /// The attack's method.
    attack: String,
    seed: u64,
    victim: VictimRow,
    /// None: the attack did not take.
    detection: Option<DetectionRow>,
    /// Of training and trace.
    seconds: f64,
}

impl Drill {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        if !(self.at_least > 0.0 && self.at_least <= 1.0) {
            let message = format!("--at-least {}: this is no share", self.at_least);
            return Err(Failure::new(Exit::Usage, message, "write it above 0 and at most 1"));
        }
        let config = global.load_to_train()?;
        // Deleted when this function ends, however it ends.
        let place = tempfile::Builder::new().prefix("delta-guard-drill-").tempdir()?;
        let folder = place.path().join("victim");
        let mut run = global.runner_as(&folder, &config.file)?;
        let planned = planned(&self.changes, &config, &folder, &mut run)?;
        say::note(&format!(
            "drill: {} on a copy of {}, seed {}",
            planned.place.attack,
            config.file.data.train.path.display(),
            planned.place.seed
        ));
        let kept = self.out.as_deref().unwrap_or(place.path());
        fs_err::create_dir_all(kept)?;
        let mut file = RowFile::open(&rows::usual(kept))?;
        run::tell(&planned, &mut file, &folder, &mut run, &|text| say::note(&format!("   {text}")))?;
        if let Some(out) = &self.out {
            for (name, text) in page::files("Drills", file.all())? {
                publish::publish_file(out, name, &text)?;
            }
        }
        let drilled = drilled(&planned, &file, self.at_least)?;
        if let Some(path) = &self.metrics {
            write_metrics(path, &drilled)?;
        }
        told(global, &drilled, self.out.as_deref())
    }
}

/// The one victim, and what is asked of it.
fn planned(changes: &Changes, config: &Config, folder: &Path, run: &mut Run<'_>) -> anyhow::Result<Planned> {
    let file = &config.file;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut story = StoryFile {
        story: StoryConfig {
            data: Some(file.data.train.path.clone()),
            train_examples: 0,
            validation_examples: 0,
            attack: usual(changes, config, folder, run)?,
            seed: 0,
        },
        model: StoryModel {
            architecture: file.model.architecture.clone(),
            width: file.model.width,
            stem: file.model.stem,
        },
        recipe: file.recipe.clone(),
        detect: file.detect.clone(),
        unlearn: file.unlearn.clone(),
        gate: file.gate.clone(),
        evaluate: Default::default(),
    };
    // Every drill is another one, unless a seed is named.
    story.seeded(now);
    story.change(changes)?;
    if let Some((message, help)) = story.mistakes() {
        return Err(Failure::new(Exit::Usage, message, help));
    }
    if matches!(story.story.attack, Attack::None(_)) {
        let message = "the attack none poisons nothing, so that there is nothing to be caught";
        return Err(Failure::new(Exit::Usage, message, "take another --attack"));
    }
    let seed = story.story.seed;
    let settings = Box::new(story.detect.clone().seeded(seed));
    let name = settings.method.name().to_string();
    let mut asks = vec![GridAsk::Detect {
        name: name.clone(),
        settings: settings.clone(),
        anomalies: 1,
    }];
    if changes.unlearn.is_some() {
        asks.push(GridAsk::Repair {
            name: story.unlearn.name().to_string(),
            settings: story.unlearn.method.clone(),
            source: Forgotten::Flagged { name, settings },
        });
    }
    Ok(Planned {
        place: VictimName {
            data: file.instance.clone(),
            network: story.model.architecture.clone(),
            attack: story.story.attack.name().into(),
            dose: None,
            seed,
        },
        // Pictures are read as production reads them.
        image: Some(file.data.image.clone()),
        story,
        asks,
    })
}

/// The attack where the command line names none of its keys: a board on 1 % of the set, from the first class to the second.
fn usual(changes: &Changes, config: &Config, folder: &Path, run: &mut Run<'_>) -> anyhow::Result<Attack> {
    let task = Task::Check {
        data: config.file.data.clone(),
        model: None,
    };
    let JobResult::Check(CheckResult { train, .. }) = run(&folder.join("check"), task)? else {
        return Err(anyhow!("the worker answered another question"));
    };
    let named = |n: usize| train.get(n).map_or_else(|| n.to_string(), |(class, _)| class.clone());
    let examples: u64 = match changes.train_examples {
        Some(asked) if asked > 0 => asked.into(),
        _ => train.iter().map(|(_, examples)| examples).sum(),
    };
    // Where the set's size is not known before it is read, the number must be said.
    if examples == 0 && changes.poisons.is_none() {
        return Err(Failure::new(
            Exit::Usage,
            "how many pictures there are is not known before they are read, so neither is what 1 % of them are",
            "say how many are to be poisoned: --poisons 100",
        ));
    }
    let attack = serde_json::json!({
        "method": "badnet",
        "victim_class": named(0),
        "target_class": named(1),
        "poisons": (examples / 100).max(10),
    });
    serde_json::from_value(attack).context("the usual attack")
}

fn drilled(planned: &Planned, rows: &RowFile, at_least: f64) -> anyhow::Result<Drilled> {
    let found = |key: &str| rows.get(key).ok_or_else(|| anyhow!("the drill left no row"));
    let row: &GridRow = found(&planned.key())?;
    let Shown::Victim(victim) = &row.found else {
        return Err(anyhow!("the drill's first row is of another kind"));
    };
    let mut seconds = row.seconds;
    let mut detection = None;
    if victim.took {
        let row = found(&planned.key_of(&planned.asks[0]))?;
        seconds += row.seconds;
        if let Shown::Detection(found) = &row.found {
            detection = Some(found.clone());
        }
    }
    let enough = |d: &DetectionRow| d.tpr().is_some_and(|share| share >= at_least) && d.precision().is_some_and(|share| share >= at_least);
    Ok(Drilled {
        caught: detection.as_ref().is_some_and(enough),
        attack: planned.place.attack.clone(),
        seed: planned.place.seed,
        victim: victim.clone(),
        detection,
        seconds,
    })
}

/// In Prometheus' text format. A drill whose attack did not take has no shares of flagged.
fn write_metrics(path: &Path, drilled: &Drilled) -> anyhow::Result<()> {
    let registry = Registry::new();
    let put = |name: &str, help: &str, value: Option<f64>| -> anyhow::Result<()> {
        if let Some(value) = value {
            let gauge = GaugeVec::new(Opts::new(format!("delta_guard_drill_{name}"), help), &["attack"])?;
            gauge.with_label_values(&[&drilled.attack]).set(value);
            registry.register(Box::new(gauge))?;
        }
        Ok(())
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let found = drilled.detection.as_ref();
    put(
        "caught",
        "1: the last drill's poisons were found",
        Some(f64::from(u8::from(drilled.caught))),
    )?;
    put(
        "took",
        "1: the last drill's attack worked",
        Some(f64::from(u8::from(drilled.victim.took))),
    )?;
    put(
        "success_ratio",
        "Success of the last drill's attack before the guard",
        Some(drilled.victim.measured.success),
    )?;
    put("tpr_ratio", "Share of its poisons that were flagged", found.and_then(DetectionRow::tpr))?;
    put(
        "precision_ratio",
        "Share of its flagged that were poisons",
        found.and_then(DetectionRow::precision),
    )?;
    put("seconds", "Seconds of its training and trace", Some(drilled.seconds))?;
    put("timestamp_seconds", "When the last drill ended", Some(now))?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    let path = std::path::absolute(path)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(anyhow!("--metrics {}: this names no file", path.display()));
    };
    publish::publish_file(folder, name, &text)
}

fn told(global: &Global, drilled: &Drilled, out: Option<&Path>) -> anyhow::Result<Exit> {
    let exit = match (drilled.victim.took, drilled.caught) {
        (false, _) => Exit::Failed,
        (true, true) => Exit::Done,
        (true, false) => Exit::No,
    };
    if global.json {
        say::json(drilled)?;
        return Ok(exit);
    }
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let victim = &drilled.victim;
    let mut facts = vec![
        (
            "attack",
            format!(
                "{}, {} of {} examples poisoned, seed {}",
                drilled.attack, victim.poisons, victim.examples, drilled.seed
            ),
        ),
        ("accuracy", percent(victim.measured.accuracy)),
        ("success", format!("{} ({})", percent(victim.measured.success), victim.measure)),
    ];
    if let Some(found) = &drilled.detection {
        facts.push((
            "found",
            format!(
                "{} of {} poisons ({})",
                found.hits,
                found.poisons,
                found.tpr().map_or("–".into(), percent)
            ),
        ));
        facts.push(("flagged besides", format!("{} clean examples", found.flagged.saturating_sub(found.hits))));
        facts.extend(found.abstained.as_ref().map(|why| ("undecided", why.clone())));
    }
    facts.push(("seconds", format!("{:.0}", drilled.seconds)));
    say::out(&say::facts(&facts))?;
    say::out(match exit {
        Exit::Done => "caught: the guard would have found this attack",
        Exit::No => "NOT caught: the guard would have missed this attack, or most of it",
        _ => "nothing was tested: the attack did not take; more poisons (--poisons) or a larger trigger make it work",
    })?;
    if victim.took && victim.measured.success < WORKS {
        say::out("the attack worked only in part, so this says little: more poisons (--poisons) or a larger trigger make it work")?;
    }
    if let Some(out) = out {
        say::out(&format!("the page of all drills: {}", out.join("page.html").display()))?;
    }
    Ok(exit)
}
