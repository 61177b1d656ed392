//! Answering what is asked of a victim, by the worker's ordinary jobs.

use super::plan::{Forgotten, GridAsk, Planned};
use super::row::{ControlRow, DetectionRow, GridRow, MeasuredModel, RepairRow, Shown, VictimRow, share};
use super::rows::RowFile;
use crate::story::controls::{self, Controls};
use crate::story::stage::Run;
use crate::story::{Theatre, telling};
use anyhow::Context;
use delta_guard_contract::detect::Detector;
use delta_guard_contract::job::{Bait, PredictedExample, TrainResult};
use delta_guard_contract::method::attack::Attack;
use delta_guard_contract::method::{Method, changed};
use delta_guard_contract::{DetectConfig, TraceReport, TraceVerdict, TrainId};
use serde::Deserialize;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The victim among the checkpoints that are measured.
const VICTIM: &str = "victim";
/// What is forgotten where nothing was to be learnt.
const NEVER_ATTACKED: &str = "never attacked";

/// What is left to be asked of a victim. None: nothing.
pub fn left<'a>(planned: &'a Planned, rows: &RowFile) -> Option<Vec<&'a GridAsk>> {
    let Some(row) = rows.get(&planned.key()) else {
        return Some(planned.asks.iter().collect());
    };
    let left: Vec<&GridAsk> = planned
        .asks
        .iter()
        .filter(|ask| askable(&row.found, ask) && !rows.has(&planned.key_of(ask)))
        .collect();
    (!left.is_empty()).then_some(left)
}

/// Of a victim whose attack did not take nothing is asked; where nobody attacked, controls still are.
fn askable(victim: &Shown, ask: &GridAsk) -> bool {
    matches!(victim, Shown::Victim(victim) if victim.took || (victim.poisons == 0 && matches!(ask, GridAsk::Control { .. })))
}

/// Make the rows that are missing. `out`: the victim's folder. `say` hears of each.
///
/// # Errors
/// The jobs', and where a file cannot be read or written.
pub fn tell(planned: &Planned, rows: &mut RowFile, out: &Path, run: &mut Run<'_>, say: &dyn Fn(&str)) -> anyhow::Result<()> {
    let Some(asks) = left(planned, rows) else { return Ok(()) };
    let mut stage = Theatre::prepare(planned.story.clone(), out, run)?;
    if let Some(image) = &planned.image {
        stage.prepared.image = image.clone();
    }
    let stage = stage;
    let trained = stage.train(run)?;
    let scene = Scene {
        planned,
        stage: &stage,
        misread: OnceCell::new(),
        classes: true_classes(out)?,
    };
    let key = planned.key();
    if !rows.has(&key) {
        let victim = scene.victim(run)?;
        say(&format!(
            "{}, accuracy {}",
            if victim.took { "the attack took" } else { "the attack did not take" },
            percent(victim.measured.accuracy)
        ));
        say(&format!("{} {}", victim.measure, percent(victim.measured.success)));
        rows.add(scene.row(key.clone(), Shown::Victim(victim), trained.seconds, Means::of_training(&trained)))?;
    }
    for ask in asks {
        if !rows.get(&key).is_some_and(|row| askable(&row.found, ask)) {
            continue;
        }
        let row = scene.answer(ask, run)?;
        say(&in_words(&row.found));
        rows.add(row)?;
    }
    Ok(())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// What was found, in one line.
fn in_words(found: &Shown) -> String {
    match found {
        Shown::Victim(victim) => format!("{} {}", victim.measure, percent(victim.measured.success)),
        Shown::Detection(d) => match &d.abstained {
            Some(why) => format!("{}: undecided ({why})", d.detector),
            None => format!(
                "{}: flagged {}, TPR {}, precision {}",
                d.detector,
                d.flagged,
                d.tpr().map_or("–".into(), percent),
                d.precision().map_or("–".into(), percent)
            ),
        },
        Shown::Repair(r) => format!(
            "{} ({}, {} examples): success {}, accuracy {}",
            r.unlearner,
            r.forgotten,
            r.removed,
            percent(r.measured.success),
            percent(r.measured.accuracy)
        ),
        Shown::Control(c) => format!("{}: {} of {} {}s decided", c.detector, c.decided, c.tried, c.kind),
    }
}

/// What a row was computed with, where the job says so.
#[derive(Default)]
struct Means {
    device: Option<String>,
    peak_memory: Option<u64>,
}

impl Means {
    fn of_training(trained: &TrainResult) -> Self {
        Self {
            device: trained.device.clone(),
            peak_memory: trained.peak_memory,
        }
    }
}

/// A victim on its stage.
struct Scene<'a> {
    planned: &'a Planned,
    stage: &'a Theatre,
    /// Pictures that are misread as the attack wants, all with the first one's label.
    misread: OnceCell<Vec<&'a Bait>>,
    /// True classes of the pictures that success is measured on.
    classes: BTreeMap<TrainId, String>,
}

/// Of `poisons.json`, which the worker wrote with the data: what is read here.
#[derive(Deserialize)]
struct Truths {
    success: Vec<TruthOf>,
}

#[derive(Deserialize)]
struct TruthOf {
    id: TrainId,
    class: String,
}

fn true_classes(out: &Path) -> anyhow::Result<BTreeMap<TrainId, String>> {
    let file = out.join("data/poisons.json");
    let truths: Truths = serde_json::from_slice(&fs_err::read(&file)?).with_context(|| file.display().to_string())?;
    Ok(truths.success.into_iter().map(|truth| (truth.id, truth.class)).collect())
}

impl<'a> Scene<'a> {
    fn row(&self, key: String, found: Shown, seconds: f64, means: Means) -> GridRow {
        GridRow {
            key,
            version: env!("CARGO_PKG_VERSION").into(),
            place: self.planned.place.clone(),
            found,
            seconds,
            device: means.device,
            peak_memory: means.peak_memory,
        }
    }

    fn victim(&self, run: &mut Run<'_>) -> anyhow::Result<VictimRow> {
        let prepared = &self.stage.prepared;
        let trained = self.stage.train(run)?;
        Ok(VictimRow {
            took: !self.misread(run)?.is_empty(),
            measure: prepared.success.name.clone(),
            measured: self.measured(&self.stage.victim(), VICTIM, run)?,
            poisons: prepared.poisons.len() as u64,
            covers: prepared.covers.len() as u64,
            examples: trained.examples,
        })
    }

    /// The same network, trained on what the training set was before, measured on this attack.
    fn clean(&self, run: &mut Run<'_>) -> anyhow::Result<(MeasuredModel, TrainResult)> {
        let mut story = self.planned.story.clone();
        story.story.attack = Attack::None(Default::default());
        let mut stage = Theatre::prepare(story, &self.stage.out.join("clean"), run)?;
        if let Some(image) = &self.planned.image {
            stage.prepared.image = image.clone();
        }
        let trained = stage.train(run)?;
        Ok((self.measured_on(&stage, &stage.victim(), VICTIM, run)?, trained))
    }

    /// A checkpoint, measured. `name`: one for each checkpoint of this victim.
    fn measured(&self, checkpoint: &Path, name: &str, run: &mut Run<'_>) -> anyhow::Result<MeasuredModel> {
        self.measured_on(self.stage, checkpoint, name, run)
    }

    /// The same of a checkpoint of another stage, whose pictures are read as that one reads them.
    fn measured_on(&self, stage: &Theatre, checkpoint: &Path, name: &str, run: &mut Run<'_>) -> anyhow::Result<MeasuredModel> {
        let prepared = &self.stage.prepared;
        let clean = stage.measure(checkpoint, &prepared.validation, &format!("clean-{name}"), true, run)?;
        let folder = format!("success-{name}");
        let attacked = stage.measure(checkpoint, &prepared.success.source, &folder, true, run)?;
        let listed = predictions(&stage.out, &folder)?;
        let known: Vec<bool> = listed
            .iter()
            .filter_map(|read| Some(*self.classes.get(&read.id)? == read.predicted))
            .collect();
        let right = known.iter().filter(|right| **right).count();
        let of_class = |(name, (all, right)): (&String, &(u64, u64))| Some((name.clone(), share(*right, *all)?));
        Ok(MeasuredModel {
            success: attacked.accuracy.share(),
            robust: share(right as u64, known.len() as u64),
            accuracy: clean.accuracy.share(),
            classes: clean.accuracy.classes.iter().filter_map(of_class).collect(),
        })
    }

    fn misread(&self, run: &mut Run<'_>) -> anyhow::Result<&[&'a Bait]> {
        if let Some(known) = self.misread.get() {
            return Ok(known);
        }
        let mut found: Vec<&Bait> = Vec::new();
        // One picture may be misread in several ways: they stand beside each other.
        for (n, ways) in self.stage.prepared.anomalies.chunk_by(|a, b| a.picture == b.picture).enumerate() {
            let read = self.stage.predict(&self.stage.victim(), &ways[0].picture, &format!("bait-{n}"), run)?;
            if let Some(bait) = ways.iter().find(|bait| bait.label == read.label)
                && found.first().is_none_or(|first| first.label == bait.label)
            {
                found.push(bait);
            }
        }
        Ok(self.misread.get_or_init(|| found))
    }

    fn answer(&self, ask: &GridAsk, run: &mut Run<'_>) -> anyhow::Result<GridRow> {
        let key = self.planned.key_of(ask);
        match ask {
            GridAsk::Detect { name, settings, anomalies } => {
                let report = self.trace(settings, *anomalies, run)?;
                let seconds = report.seconds.values().sum();
                let found = Shown::Detection(self.detection(name, *anomalies, &report, run)?);
                let means = Means {
                    device: Some(report.device.clone()),
                    peak_memory: Some(report.peak_memory),
                };
                Ok(self.row(key, found, seconds, means))
            }
            GridAsk::Repair { name, settings, source } => {
                let forgotten = self.forgotten(source, run)?;
                let hits = self.hits(forgotten.iter());
                let removed = forgotten.len() as u64;
                let (measured, seconds, means) = match removed {
                    // Nothing to forget: production stays as it is.
                    0 => (self.measured(&self.stage.victim(), VICTIM, run)?, 0.0, Means::default()),
                    _ => {
                        // Finished jobs are known by their questions, in which a checkpoint is a path: each has its own.
                        let folder = format!("candidate-{key}");
                        let (checkpoint, made) = self.stage.unlearn(settings.clone(), forgotten, &folder, run)?;
                        (self.measured(&checkpoint, &folder, run)?, made.seconds, Means::of_training(&made))
                    }
                };
                let repair = RepairRow {
                    unlearner: name.clone(),
                    forgotten: source.words(),
                    removed,
                    hits,
                    measured,
                };
                Ok(self.row(key, Shown::Repair(repair), seconds, means))
            }
            GridAsk::Clean => {
                let (measured, trained) = self.clean(run)?;
                let repair = RepairRow {
                    unlearner: "training".into(),
                    forgotten: NEVER_ATTACKED.into(),
                    removed: 0,
                    hits: 0,
                    measured,
                };
                Ok(self.row(key, Shown::Repair(repair), trained.seconds, Means::of_training(&trained)))
            }
            GridAsk::Control {
                name,
                settings,
                kind,
                pictures,
            } => {
                let found = self.control(settings, *kind, *pictures, run)?;
                let control = summed(name, kind.name(), &found);
                Ok(self.row(key, Shown::Control(control), 0.0, Means::default()))
            }
        }
    }

    /// A detector's report on the first so many misread pictures.
    fn trace(&self, settings: &DetectConfig, anomalies: u32, run: &mut Run<'_>) -> anyhow::Result<TraceReport> {
        let misread = self.misread(run)?;
        let pictures: Vec<&Path> = misread.iter().take(anomalies as usize).map(|bait| bait.picture.as_path()).collect();
        let folder = format!("{}-{anomalies}", settings.method.name());
        let seed = self.planned.place.seed;
        self.stage.trace(&pictures, seed, &folder, settings.clone(), run)
    }

    fn detection(&self, name: &str, asked: u32, report: &TraceReport, run: &mut Run<'_>) -> anyhow::Result<DetectionRow> {
        let poisons = self.stage.prepared.poisons.len() as u64;
        Ok(DetectionRow {
            detector: name.into(),
            anomalies: self.misread(run)?.len().min(asked as usize) as u32,
            asked,
            abstained: match &report.verdict {
                TraceVerdict::Undecided { why } => Some(why.code().into()),
                _ => None,
            },
            flagged: report.flagged.len() as u64,
            hits: self.hits(report.flagged.iter().map(|flagged| &flagged.id)),
            poisons,
            clean: report.examples.saturating_sub(poisons),
            steps: report.seconds.clone(),
        })
    }

    fn hits<'b>(&self, ids: impl Iterator<Item = &'b TrainId>) -> u64 {
        let poisons: BTreeSet<&TrainId> = self.stage.prepared.poisons.iter().collect();
        ids.filter(|id| poisons.contains(id)).count() as u64
    }

    fn forgotten(&self, source: &Forgotten, run: &mut Run<'_>) -> anyhow::Result<Vec<TrainId>> {
        let poisons = &self.stage.prepared.poisons;
        let mut flagged =
            |settings| -> anyhow::Result<Vec<TrainId>> { Ok(self.trace(settings, 1, run)?.flagged.into_iter().map(|flagged| flagged.id).collect()) };
        Ok(match source {
            Forgotten::Flagged { settings, .. } => flagged(settings)?,
            Forgotten::Missed { settings, .. } => {
                let flagged: BTreeSet<TrainId> = flagged(settings)?.into_iter().collect();
                poisons.iter().filter(|id| !flagged.contains(id)).cloned().collect()
            }
            Forgotten::Known(share) => drawn(poisons, *share, self.planned.place.seed),
        })
    }

    fn control(&self, settings: &DetectConfig, kind: controls::ControlKind, pictures: u32, run: &mut Run<'_>) -> anyhow::Result<Controls> {
        let folder = format!("clean-{VICTIM}");
        self.stage
            .measure(&self.stage.victim(), &self.stage.prepared.validation, &folder, true, run)?;
        let listed = predictions(&self.stage.out, &folder)?;
        // Without poisons no class is theirs: controls are drawn from all alike.
        let poisoned = !self.stage.prepared.poisons.is_empty();
        let first = self.misread(run)?.first().filter(|_| poisoned);
        let class = first.map_or("", |bait| bait.label.as_str());
        let chosen = controls::choose(&listed, kind, class, pictures as usize);
        // Controls are for the method's own verdict: nothing else is computed, where it may be left out.
        let method: Detector = changed(&settings.method, "plain", false.into()).unwrap_or(settings.method.clone());
        let settings = DetectConfig { method, ..settings.clone() };
        telling::hand_in(self.stage, &chosen, kind.name(), &settings, run, &|_| ())
    }
}

fn predictions(out: &Path, folder: &str) -> anyhow::Result<Vec<PredictedExample>> {
    let file = out.join("measures").join(folder).join("predictions.json");
    serde_json::from_slice(&fs_err::read(&file)?).with_context(|| file.display().to_string())
}

/// A share of the poisons, at least one, in an order that is the seed's: a larger share holds the smaller one.
fn drawn(poisons: &[TrainId], share: f64, seed: u64) -> Vec<TrainId> {
    let mut all: Vec<(blake3::Hash, &TrainId)> = poisons
        .iter()
        .map(|id| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes()).update(id.0.as_bytes());
            (hasher.finalize(), id)
        })
        .collect();
    all.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    let count = ((share * poisons.len() as f64).round() as usize).clamp(1, poisons.len().max(1));
    all.into_iter().take(count).map(|(_, id)| id.clone()).collect()
}

fn summed(detector: &str, kind: &str, found: &Controls) -> ControlRow {
    let mostly_poisons = |precision: Option<f64>| precision.is_some_and(|share| share > 0.5);
    let clean = |flagged: &crate::story::Hits| {
        let hits = (flagged.precision.unwrap_or(0.0) * flagged.flagged as f64).round() as u64;
        flagged.flagged as u64 - hits
    };
    ControlRow {
        detector: detector.into(),
        kind: kind.into(),
        tried: found.tried as u64,
        of_class: found.of_class as u64,
        decided: found.decided.len() as u64,
        decided_poisons: found.decided.iter().filter(|one| mostly_poisons(one.flagged.precision)).count() as u64,
        most_clean: found.decided.iter().map(|one| clean(&one.flagged)).max().unwrap_or(0),
        abstained: found.abstained.iter().map(|(code, n)| (code.clone(), *n as u64)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_share_holds_the_smaller_one() {
        let poisons: Vec<TrainId> = (0..200).map(|i| TrainId(format!("{i}"))).collect();
        let few = drawn(&poisons, 0.05, 7);
        let more = drawn(&poisons, 0.5, 7);
        assert_eq!((few.len(), more.len(), drawn(&poisons, 1.0, 7).len()), (10, 100, 200));
        assert_eq!(few, more[..10]);
        assert_ne!(few, drawn(&poisons, 0.05, 8), "the seed draws");
        assert_ne!(few, poisons[..10], "not the first ones");
        assert_eq!(drawn(&poisons, 1e-9, 7).len(), 1);
        assert_eq!(drawn(&[], 0.5, 7), []);
    }

    /// A clean victim's own errors may lack the one that an attacker would want: controls do not need it.
    #[test]
    fn without_an_attacker_controls_are_asked_whatever_took() {
        let control = GridAsk::Control {
            name: "guard".into(),
            settings: Box::default(),
            kind: controls::ControlKind::NaturalError,
            pictures: 5,
        };
        let detect = GridAsk::Detect {
            name: "guard".into(),
            settings: Box::default(),
            anomalies: 1,
        };
        let victim = |took, poisons| {
            Shown::Victim(VictimRow {
                took,
                measure: "drawn success".into(),
                measured: MeasuredModel {
                    success: 0.0,
                    robust: None,
                    accuracy: 1.0,
                    classes: BTreeMap::new(),
                },
                poisons,
                covers: 0,
                examples: 100,
            })
        };
        assert_eq!([&detect, &control].map(|ask| askable(&victim(true, 9), ask)), [true, true]);
        assert_eq!([&detect, &control].map(|ask| askable(&victim(false, 9), ask)), [false, false]);
        assert_eq!([&detect, &control].map(|ask| askable(&victim(false, 0), ask)), [false, true]);
    }

    #[test]
    fn decided_controls_are_told_apart() {
        use crate::story::Hits;
        use crate::story::controls::ControlDecided;
        let decided = |flagged, right: usize| ControlDecided {
            id: TrainId("x".into()),
            of_class: true,
            flagged: Hits {
                flagged,
                poisons: 50,
                tpr: right as f64 / 50.0,
                precision: Some(right as f64 / flagged as f64),
            },
        };
        let found = Controls {
            tried: 20,
            of_class: 4,
            decided: vec![decided(49, 47), decided(7, 0), decided(3, 1)],
            abstained: [("no-group".to_owned(), 17)].into(),
        };
        let control = summed("guard", "placebo", &found);
        assert_eq!(
            (control.tried, control.decided, control.decided_poisons, control.most_clean),
            (20, 3, 1, 7)
        );
        assert_eq!(control.abstained["no-group"], 17);
    }
}
