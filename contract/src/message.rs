//! What a worker says: JSON lines, the last one the outcome.

use crate::{Digest, Fault};
use serde::{Deserialize, Serialize};

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
