//! What an audit says of a training set: groups of examples that taught the model something of their own, class by class, without any wrong prediction to start from.

use crate::finding::{SharedPixels, Sources};
use crate::{DetectConfig, Digest, TrainId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Result of an audit, written as `audit.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditReport {
    /// The classes that were asked, in label order.
    pub classes: Vec<ClassAudit>,
    /// The checkpoint.
    pub checkpoint: Digest,
    /// The training set.
    pub manifest: Digest,
    /// Settings that were in use.
    pub settings: DetectConfig,
    /// Seed of everything that was drawn.
    pub seed: u64,
    /// Seconds per step.
    pub seconds: BTreeMap<String, f64>,
    /// Bytes held at most.
    pub peak_memory: u64,
    /// Where it was computed.
    pub device: String,
}

impl AuditReport {
    /// Groups of all classes.
    pub fn groups(&self) -> impl Iterator<Item = (&ClassAudit, &AuditGroup)> {
        self.classes.iter().flat_map(|class| class.groups.iter().map(move |group| (class, group)))
    }
}

/// One class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassAudit {
    /// Its name.
    pub label: String,
    /// Training examples with that label.
    pub examples: u64,
    /// Clean validation pictures of it that the cut was drawn from.
    pub null_pictures: u64,
    /// Sets of seeds that were grown.
    pub starts: u64,
    /// Groups that stand apart, the furthest first.
    pub groups: Vec<AuditGroup>,
    /// Why it was not audited.
    pub skipped: Option<String>,
    /// What a reader must know besides, in whole sentences.
    pub notes: Vec<String>,
}

/// Training examples of one label that stand apart together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditGroup {
    /// The examples, the most alike first.
    pub members: Vec<AuditMember>,
    /// How far κ of the group lies above that of the others, in standard deviations of the others.
    pub d_prime: f64,
    /// Members above the strict cut.
    pub founders: u64,
    /// How likely chance alone would bring such a group together where training and validation pictures are alike, corrected for everything that was tried.
    pub p: f64,
    /// What it grew from.
    pub grown_from: Vec<String>,
    /// By features and gradients together; else by gradients alone.
    pub features: bool,
    /// Pixels on which the group agrees against its class.
    pub shared: Option<SharedPixels>,
    /// Which sources the members come from.
    pub sources: Option<Sources>,
}

/// One example of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditMember {
    /// Training example.
    pub id: TrainId,
    /// κ: mean cosine to the group.
    pub kappa: f64,
    /// File of its thumbnail in the audit's folder, for the first.
    pub thumbnail: Option<String>,
}
