//! What is known of an exported model (`.pt2`) before it is guarded: that the network is read rightly, and what its owner stored with it.

use serde::{Deserialize, Serialize};

/// Logits that differ by more than this from the stored ones are another network's, or another picture's.
pub const LARGEST_DIFFERENCE: f64 = 1e-3;

/// Result of [`crate::Task::VerifyModel`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifyResult {
    /// Number of logits.
    pub classes: u64,
    /// What it reads: channels, height, width.
    pub input: [i64; 3],
    /// Trained numbers.
    pub parameters: u64,
    /// Layers that influence is computed on.
    pub layers: u64,
    /// Share of the trained numbers that lie in them, 0 to 1.
    pub tracked_share: f64,
    /// Tensors that lie in none, with the reason; the largest first, at most twenty.
    pub untracked: Vec<(String, String)>,
    /// How many there are in all.
    pub untracked_tensors: u64,
    /// What its owner stored with it (docs/export.py); None: nothing.
    pub stored: Option<StoredByOwner>,
    /// How it answers the stored pictures; None: none are stored, and nobody has proved that this is the owner's network.
    pub proof: Option<Proof>,
    /// Largest relative difference between the gradients of three weights of three layers and finite differences.
    pub gradient_difference: f64,
    /// Seconds that forward and backward pass take for one picture.
    pub seconds_per_picture: f64,
    /// Bytes that the EK-FAC factors of all layers take.
    pub factor_bytes: u64,
    /// Most bytes that this process held.
    pub peak_memory: u64,
}

/// What lies under `extra/` of an exported model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredByOwner {
    /// Names in the order of the logits.
    pub classes: Vec<String>,
    /// The pipeline in torchvision's words (`data.image.transforms`).
    pub preprocess: serde_json::Value,
    /// File names of the pictures.
    pub pictures: Vec<String>,
}

/// The network's answers beside those that its owner stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Pictures compared.
    pub pictures: u64,
    /// Largest difference of a logit.
    pub difference: f64,
    /// Of the pictures, read as the same class.
    pub same_class: u64,
    /// What would make the difference smaller, the likeliest first: a sentence each. Empty where they agree, or nothing that was tried helps.
    pub likely: Vec<String>,
}

impl Proof {
    /// Is it the owner's network on the owner's pictures?
    pub fn agrees(&self) -> bool {
        self.difference <= LARGEST_DIFFERENCE
    }
}
