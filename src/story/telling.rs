//! One telling of a story: what `evaluate` does for each seed, and what is kept of it.

use super::controls::{self, Control, ControlDecided, ControlKind, Controls};
use super::{Hits, StoryFile, Theatre, hits, stage};
use anyhow::Context;
use delta_guard_contract::job::{Bait, PredictedExample};
use delta_guard_contract::method::unlearn::Unlearner;
use delta_guard_contract::method::{Method, changed};
use delta_guard_contract::{DetectConfig, TraceReport, TraceVerdict};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

/// What one seed showed. Shares are 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The seed.
    pub seed: u64,
    /// Is any of the pictures that the attack is to have misread read as it wants? If not, there is no anomaly, and nothing below but the two shares.
    pub attack_took: bool,
    /// Name of the attack's own measure.
    pub measure: String,
    /// That measure on the victim.
    pub success_before: f64,
    /// The victim's accuracy on clean pictures.
    pub accuracy_before: f64,
    /// The guard's verdict.
    pub verdict: Option<TraceVerdict>,
    /// What it flagged.
    pub guard: Option<Hits>,
    /// The count rule under the guard's own settings, where the story asks for it (`detect.plain`).
    pub count_rule: Option<Hits>,
    /// The paper's rule under the paper's settings, by mode.
    pub published: BTreeMap<String, Hits>,
    /// The repaired models, by method.
    pub repairs: BTreeMap<String, Repair>,
    /// Clean pictures that the victim misreads.
    pub natural_errors: Controls,
    /// Clean pictures that it reads rightly.
    pub placebos: Controls,
    /// Seconds per part.
    pub seconds: BTreeMap<String, f64>,
    /// Seconds per step of the guard's trace.
    pub trace_seconds: BTreeMap<String, f64>,
}

/// A repaired model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Repair {
    /// The attack's own measure on it.
    pub success: f64,
    /// Its accuracy on clean pictures.
    pub accuracy: f64,
    /// Seconds of the training.
    pub seconds: f64,
}

/// Tell the story under its seed in `out`. Work that an interrupted telling left there is gone on with. `say` hears what is found on the way.
///
/// # Errors
/// The jobs', and where the folder cannot be read or written.
pub fn tell(story: StoryFile, out: &Path, run: &mut stage::Run<'_>, say: &dyn Fn(&str)) -> anyhow::Result<Told> {
    let seed = story.story.seed;
    let asked = story.evaluate.clone();
    let detect = story.detect.clone();
    let mut seconds = BTreeMap::new();
    let mut clock = Instant::now();
    let mut lap = |name: &str| {
        seconds.insert(name.to_string(), clock.elapsed().as_secs_f64());
        clock = Instant::now();
    };
    let stage = Theatre::prepare(story, out, run)?;
    stage.train(run)?;
    lap("train");
    let victim = stage.victim();
    let measure = stage.prepared.success.name.clone();
    let clean = stage.measure(&victim, &stage.prepared.validation, "clean", true, run)?;
    let mut told = Told {
        seed,
        attack_took: false,
        success_before: stage.success(&victim, "success", run)?,
        measure: measure.clone(),
        accuracy_before: clean.accuracy.share(),
        verdict: None,
        guard: None,
        count_rule: None,
        published: BTreeMap::new(),
        repairs: BTreeMap::new(),
        natural_errors: Controls::default(),
        placebos: Controls::default(),
        seconds: BTreeMap::new(),
        trace_seconds: BTreeMap::new(),
    };
    let found = anomaly(&stage, seed, &detect, run)?;
    lap("trace");
    let Some((anomaly, report)) = found else {
        say(&format!(
            "seed {seed}: {} ({measure} {}, accuracy {})",
            stage.not_taken(),
            percent(told.success_before),
            percent(told.accuracy_before)
        ));
        told.seconds = seconds;
        return Ok(told);
    };
    told.attack_took = true;
    let (guard, count_rule) = hits(&report, &stage.prepared.poisons);
    say(&format!(
        "seed {seed}: {measure} {}, accuracy {}, flagged {}, TPR {}, precision {}",
        percent(told.success_before),
        percent(told.accuracy_before),
        guard.flagged,
        percent(guard.tpr),
        guard.precision.map_or("–".into(), percent)
    ));
    for name in &asked.published {
        let published = DetectConfig {
            method: name.method(),
            ..DetectConfig::default()
        };
        let report = stage.trace(&[&anomaly.picture], seed, &format!("published-{name}"), published, run)?;
        told.published.insert(name.to_string(), hits(&report, &stage.prepared.poisons).0);
        lap(name.as_str());
    }
    if guard.flagged > 0 {
        for method in stage.story.unlearn.all() {
            let repair = repair(&stage, method, &report, run)?;
            say(&format!(
                "seed {seed}: {}: {measure} {}, accuracy {}",
                method.name(),
                percent(repair.success),
                percent(repair.accuracy)
            ));
            told.repairs.insert(method.name().to_string(), repair);
            lap(method.name());
        }
    }
    let listed = out.join("measures/clean/predictions.json");
    let listed: Vec<PredictedExample> = serde_json::from_slice(&fs_err::read(&listed)?).with_context(|| listed.display().to_string())?;
    // Controls are for the method's own verdict: nothing else is computed, where it may be left out.
    let method = changed(&detect.method, "plain", false.into()).unwrap_or(detect.method);
    let detect = DetectConfig { method, ..detect };
    let mut hand_in = |kind, n: u32, name| {
        let chosen = controls::choose(&listed, kind, &anomaly.label, n as usize);
        hand_in(&stage, &chosen, name, &detect, run, say)
    };
    told.natural_errors = hand_in(ControlKind::NaturalError, asked.natural_errors, "natural")?;
    told.placebos = hand_in(ControlKind::Placebo, asked.placebos, "placebo")?;
    lap("controls");
    told.verdict = Some(report.verdict.clone());
    told.guard = Some(guard);
    told.count_rule = count_rule;
    told.seconds = seconds;
    told.trace_seconds = report.seconds;
    Ok(told)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// The first of the pictures that were set aside that the victim reads as the attack wants, and its trace.
fn anomaly<'a>(stage: &'a Theatre, seed: u64, detect: &DetectConfig, run: &mut stage::Run<'_>) -> anyhow::Result<Option<(&'a Bait, TraceReport)>> {
    // One picture may be misread in several ways: they stand beside each other.
    for (n, ways) in stage.prepared.anomalies.chunk_by(|a, b| a.picture == b.picture).enumerate() {
        let report = stage.trace(&[&ways[0].picture], seed, &format!("anomaly-{n}"), detect.clone(), run)?;
        if let Some(bait) = ways.iter().find(|bait| bait.label == report.predicted_label) {
            return Ok(Some((bait, report)));
        }
    }
    Ok(None)
}

/// One unlearner's candidate, measured.
fn repair(stage: &Theatre, method: &Unlearner, report: &TraceReport, run: &mut stage::Run<'_>) -> anyhow::Result<Repair> {
    let name = method.name();
    let flagged = report.flagged.iter().map(|f| f.id.clone()).collect();
    let (candidate, result) = stage.unlearn(method.clone(), flagged, name, run)?;
    let clean = stage.measure(&candidate, &stage.prepared.validation, &format!("clean-{name}"), false, run)?;
    Ok(Repair {
        success: stage.success(&candidate, &format!("success-{name}"), run)?,
        accuracy: clean.accuracy.share(),
        seconds: result.seconds,
    })
}

/// Hand clean pictures in, each by itself; what the detector says of them.
///
/// # Errors
/// The jobs'.
pub fn hand_in(
    stage: &Theatre,
    chosen: &[Control],
    name: &str,
    detect: &DetectConfig,
    run: &mut stage::Run<'_>,
    say: &dyn Fn(&str),
) -> anyhow::Result<Controls> {
    if chosen.is_empty() {
        return Ok(Controls::default());
    }
    let seed = stage.story.story.seed;
    let ids = chosen.iter().map(|control| control.id.clone()).collect();
    let pictures = stage.extract(&stage.prepared.validation, ids, &format!("controls/{name}"), run)?;
    let truth: BTreeSet<_> = stage.prepared.poisons.iter().collect();
    let mut found = Controls {
        tried: chosen.len(),
        of_class: chosen.iter().filter(|control| control.of_class).count(),
        ..Controls::default()
    };
    for (n, (picture, control)) in (1..).zip(pictures.iter().zip(chosen)) {
        let report = stage.trace(&[picture], seed.wrapping_add(n), &format!("{name}-{}", n - 1), detect.clone(), run)?;
        if let TraceVerdict::Undecided { why } = &report.verdict {
            *found.abstained.entry(why.code().to_owned()).or_default() += 1;
        } else {
            let flagged = Hits::of(report.flagged.iter().map(|f| &f.id), &truth);
            say(&format!(
                "seed {seed}: {name} {} flags {}, {} of them poisons",
                control.id,
                flagged.flagged,
                percent(flagged.precision.unwrap_or(0.0))
            ));
            found.decided.push(ControlDecided {
                id: control.id.clone(),
                of_class: control.of_class,
                flagged,
            });
        }
    }
    Ok(found)
}
