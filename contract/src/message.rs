//! What a worker says: JSON lines, the last one the outcome.

use crate::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One line of a worker's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Message {
    /// How far it is.
    Progress(Progress),
    /// Something worth a line in the log (found device, skipped pictures, …).
    Log {
        /// The sentence.
        message: String,
    },
    /// The end; nothing follows.
    Outcome(Outcome),
}

/// How far a step is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Step (`decode`, `train`, `covariance`, `lambda`, `score`, `kin`, …).
    pub step: String,
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// Free text beside the bar (loss, accuracy, …).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// It is done: the result lies in the job's folder. A line could not hold a long one.
    Done {
        /// Name of the file inside the job's folder: a [`crate::JobResult`] as JSON.
        file: String,
        /// BLAKE3 of the file.
        digest: Digest,
    },
    /// It failed.
    Failed {
        /// Why.
        fault: Fault,
    },
}

/// A failure that a person can act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Whose it is: decides between refusal, hold and retry.
    pub kind: FaultKind,
    /// What happened, to what, where; with causes.
    pub message: String,
    /// What to do about it, naming the configuration key where there is one. May be empty.
    #[serde(default)]
    pub help: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.help.is_empty() {
            write!(f, "\n  help: {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The submitted image or sidecar: the case is refused with the reason.
    Submission,
    /// Configuration, checkpoint or training data: a person must act; the case is held at once.
    Configuration,
    /// Arithmetic: values that cannot be (a cosine above 1), so that no verdict may be built on them. A person must act (`detect.precision`); the case is held.
    Numeric,
    /// Memory, disk, device, a file system that did not answer ([`crate::is_passing`]): worth another try later.
    Resource,
    /// Everything else: a defect. Tried again a few times, then held.
    Internal,
}
