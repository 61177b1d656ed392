//! What of a story is done already: the result of each job beside its files, and the seconds of each part. So a story that was interrupted goes on.

use crate::publish;
use delta_guard_contract::{JobResult, Task};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// In the folder of a job that is done.
pub(super) const DONE: &str = "done.json";
/// In the folder of a story.
const SECONDS: &str = "seconds.json";

/// A job that is done.
#[derive(Serialize, Deserialize)]
struct Done {
    /// Digest of what was asked, and by which version.
    asked: String,
    result: JobResult,
}

fn digest(task: &Task) -> anyhow::Result<String> {
    let asked = serde_json::to_vec(&(env!("CARGO_PKG_VERSION"), task))?;
    Ok(blake3::hash(&asked).to_hex().to_string())
}

/// The result of this very job in this folder, when it was done and its files are still there.
pub fn find(folder: &Path, task: &Task) -> Option<JobResult> {
    let done: Done = serde_json::from_slice(&std::fs::read(folder.join(DONE)).ok()?).ok()?;
    let there = match (&done.result, task) {
        (JobResult::Prepare(made), _) => {
            let sets = [&made.train.path, &made.validation.path, &made.success.source.path];
            let pictures = made.anomalies.iter().map(|bait| &bait.picture);
            sets.into_iter().chain(pictures).all(|path| folder.join(path).exists())
        }
        (JobResult::Train(made), _) => folder.join(&made.file).is_file(),
        (JobResult::Extract { files }, _) => files.iter().all(|file| folder.join(file).is_file()),
        (_, Task::Measure { list: true, .. }) => folder.join("predictions.json").is_file(),
        _ => true,
    };
    (there && digest(task).ok()? == done.asked).then_some(done.result)
}

/// Note that a job is done.
///
/// # Errors
/// When the folder cannot be written.
pub fn note(folder: &Path, task: &Task, result: &JobResult) -> anyhow::Result<()> {
    let done = Done {
        asked: digest(task)?,
        result: result.clone(),
    };
    publish::publish_file(folder, DONE, &serde_json::to_vec(&done)?)
}

/// How long each part of a story took, over all the times that it was begun.
pub struct Laps {
    file: PathBuf,
    seconds: BTreeMap<String, f64>,
    running: Option<(&'static str, Instant)>,
}

impl Laps {
    /// Of the story in the folder `out`, with what it took before.
    pub fn open(out: &Path) -> Self {
        let file = out.join(SECONDS);
        let seconds = std::fs::read(&file)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        Self {
            file,
            seconds,
            running: None,
        }
    }

    /// A part begins; the one before has ended.
    pub fn begin(&mut self, name: &'static str) {
        self.end();
        self.running = Some((name, Instant::now()));
    }

    /// The last part has ended.
    pub fn end(&mut self) {
        if let Some((name, begun)) = self.running.take() {
            *self.seconds.entry(name.into()).or_default() += begun.elapsed().as_secs_f64();
            // Figures only: the story does not fail for want of them.
            let _ = serde_json::to_vec(&self.seconds).map(|text| std::fs::write(&self.file, text));
        }
    }

    /// Seconds of each part.
    pub fn seconds(&self) -> BTreeMap<String, f64> {
        self.seconds.clone()
    }
}

impl Drop for Laps {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta_guard_contract::ModelConfig;

    fn task(classes: u32) -> Task {
        let model = ModelConfig {
            architecture: "small-cnn".into(),
            width: 4,
            stem: delta_guard_contract::Stem::default(),
            checkpoint: "m".into(),
            prefix: None,
            min_tracked_share: 0.0,
        };
        Task::Graph {
            model,
            input: [3, 8, 8],
            classes,
        }
    }

    #[test]
    fn only_the_same_job_with_its_files_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        assert_eq!(find(at, &task(2)), None);
        let result = JobResult::Extract { files: vec!["0.png".into()] };
        note(at, &task(2), &result).unwrap();
        assert_eq!(find(at, &task(2)), None, "its file is not there");
        std::fs::write(at.join("0.png"), "x").unwrap();
        assert_eq!(find(at, &task(2)), Some(result));
        assert_eq!(find(at, &task(3)), None, "another job");
    }

    #[test]
    fn seconds_are_added_up_over_starts() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(SECONDS), r#"{"train": 5.0}"#).unwrap();
        let mut laps = Laps::open(folder.path());
        laps.begin("train");
        laps.begin("guard");
        drop(laps);
        let again = Laps::open(folder.path()).seconds();
        assert!(again["train"] >= 5.0 && again["train"] < 60.0 && again.contains_key("guard"), "{again:?}");
    }
}
