//! What the guard works by: checked, absolute paths, nothing left to default. The configuration file is turned into this by `config`.

use crate::policy::{Caps, GateLimits, Mode};
use delta_guard_contract::job::ImageLimits;
use delta_guard_contract::method::unlearn::Unlearning;
use delta_guard_contract::{DataConfig, DetectConfig, ModelConfig, Recipe, WorkerSetup};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that the daemon needs to know.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The configuration file that they were read from, absolute; None where they come from somewhere else. Advised commands name it.
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Name of this installation, shown in mails and reports.
    pub instance: String,
    /// Who is responsible for it, shown in mails and reports; may be empty.
    pub owner: String,
    /// Where people reach the read-only interface, without a slash at its end: mails link to it.
    pub public_url: Option<String>,
    /// How far it may act by itself.
    pub mode: Mode,
    /// The folder that is watched.
    pub inbox: InboxSettings,
    /// Journal, index, spool, cases, quarantine. Made if missing.
    pub state_dir: PathBuf,
    /// Whose members may read journal and cases besides the guard's user.
    pub group: Option<String>,
    /// Published candidates and the `current` link. Made if missing.
    pub candidates_dir: PathBuf,
    /// Predict a submission first and end the case when it is no anomaly.
    pub check_prediction: bool,
    /// Training and validation pictures.
    pub data: DataConfig,
    /// Network and production checkpoint.
    pub model: ModelConfig,
    /// Is it a network of the owner's that comes without proof ([`delta_guard_contract::verify::UNPROVED`])?
    #[serde(skip)]
    pub unproved: bool,
    /// How the production model was trained.
    pub recipe: Recipe,
    /// Detector.
    pub detect: DetectConfig,
    /// Unlearning.
    pub unlearn: Unlearning,
    /// What a candidate must fulfil.
    pub gate: GateLimits,
    /// What may be promoted without a person.
    pub caps: Caps,
    /// Worker processes.
    pub worker: WorkerSettings,
}

/// The inbox.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InboxSettings {
    /// The folder. Made at start if missing.
    pub dir: PathBuf,
    /// Where refused files go, with their reason files. Made if missing. Best on the inbox's file system, so that a move is a rename.
    pub refused_dir: PathBuf,
    /// A file is complete when size, time and inode have not changed for so long.
    #[serde(with = "seconds")]
    pub settle: Duration,
    /// The folder is listed at least this often, whatever the watcher says.
    #[serde(with = "seconds")]
    pub scan_interval: Duration,
    /// A sidecar waits this long for its picture before it is refused.
    #[serde(with = "seconds")]
    pub sidecar_wait: Duration,
    /// A step of a scan that takes longer than this is told: the file system hangs.
    #[serde(with = "seconds")]
    pub stall: Duration,
    /// Bytes and pixels of a submitted picture.
    pub limits: ImageLimits,
}

/// Worker processes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerSettings {
    /// The program `delta-guard-worker`.
    pub path: PathBuf,
    /// Folders, device, threads, memory.
    pub setup: WorkerSetup,
    /// The workers' niceness, 0 to 19; they are nicer where the guard itself is.
    pub nice: u32,
    /// Time limit of each stage.
    pub limits: StageLimits,
    /// A stage that fails for want of resources or by a defect is tried so often in all before the case is held. At least 1.
    pub attempts: u32,
    /// Wait before the second attempt; five times as long before each further one, at most an hour.
    #[serde(with = "seconds")]
    pub retry_delay: Duration,
    /// Between SIGTERM and SIGKILL.
    #[serde(with = "seconds")]
    pub stop_grace: Duration,
}

/// Time limit of each worker stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageLimits {
    /// Predict one picture.
    #[serde(with = "seconds")]
    pub predict: Duration,
    /// Fit the factors.
    #[serde(with = "seconds")]
    pub fit: Duration,
    /// Trace.
    #[serde(with = "seconds")]
    pub trace: Duration,
    /// Unlearn.
    #[serde(with = "seconds")]
    pub unlearn: Duration,
    /// Certify.
    #[serde(with = "seconds")]
    pub certify: Duration,
}

impl Default for StageLimits {
    /// Ten minutes for a picture, a day for a fit, a trace and a certification, a week for training.
    fn default() -> Self {
        let day = Duration::from_secs(86_400);
        Self {
            predict: Duration::from_secs(600),
            fit: day,
            trace: day,
            unlearn: 7 * day,
            certify: day,
        }
    }
}

impl Settings {
    /// Folder of the journal.
    pub fn journal_dir(&self) -> PathBuf {
        self.state_dir.join("journal")
    }

    /// Folder of the index.
    pub fn index_dir(&self) -> PathBuf {
        self.state_dir.join("index")
    }

    /// Folder of accepted pictures, named by content digest.
    pub fn spool_dir(&self) -> PathBuf {
        self.state_dir.join("spool")
    }

    /// Folder of what belongs to single cases.
    pub fn cases_dir(&self) -> PathBuf {
        self.state_dir.join("cases")
    }

    /// Folder of one case.
    pub fn case_dir(&self, case: &crate::case::CaseId) -> PathBuf {
        self.cases_dir().join(&case.0)
    }
}

/// Durations as seconds.
mod seconds {
    use serde::Serializer;
    use std::time::Duration;

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(value.as_secs_f64())
    }
}
