//! What the detector found, and why.

use crate::{DetectSettings, Digest, TrainId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Result of a trace; written by the worker as `trace.json`, read by the report, the journal and the CLI.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceReport {
    /// What to do with it.
    pub verdict: TraceVerdict,
    /// The anomaly's wrong label ŷ (class name).
    pub predicted_label: String,
    /// The flagged training examples, strongest evidence first. Empty when undecided.
    pub flagged: Vec<FlaggedExample>,
    /// What a reader of the verdict must know besides: examples that could not be compared, a group that did not settle. Whole sentences.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Training examples in all, and with label ŷ.
    pub examples: u64,
    /// Training examples with label ŷ (C of algorithm §3).
    pub examples_of_label: u64,
    /// `guard` only: how the group stands out.
    pub stand_out: Option<StandOut>,
    /// The plain count rule over all examples, where it was computed.
    pub plain: Option<PlainRule>,
    /// Mean scaled Δ (Δ divided by the example's √self-influence) of flagged and other examples of label ŷ: the paper's Figure 2.
    pub histogram: Histogram,
    /// Factor file that was used.
    pub factors: FactorUse,
    /// Every setting, resolved.
    pub settings: DetectSettings,
    /// The seed, where it is no secret: `detect.seed`, or the one that a command took. None: derived from the installation's secret.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Digests of what the result depends on.
    pub checkpoint: Digest,
    /// Digest of the training manifest.
    pub manifest: Digest,
    /// Seconds per step (`covariance`, `eigenbasis`, `lambda`, `query`, `score`, `kin`, `placebo`, `plain`, …).
    pub seconds: BTreeMap<String, f64>,
    /// Thumbnails that were written beside the report: file name (relative to the job's folder) per flagged id, of the strongest and of the least sure ones (the last ranks) where there are too many, and of the anomaly under the key `anomaly`.
    pub thumbnails: BTreeMap<String, String>,
    /// What the flagged examples share, pixel by pixel. None where nothing was flagged, or too few to say.
    #[serde(default)]
    pub shared: Option<SharedPixels>,
    /// Peak resident memory of the worker, bytes.
    pub peak_memory: u64,
    /// `cpu` or `cuda:0`, as found.
    pub device: String,
}

/// The detector's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TraceVerdict {
    /// Training examples were found that caused the anomaly.
    Flagged,
    /// Nothing stands out: nothing is removed, a person decides.
    Undecided {
        /// Why, in a sentence.
        reason: String,
    },
}

/// A flagged training example and its evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlaggedExample {
    /// Which.
    pub id: TrainId,
    /// Its training label (class name).
    pub label: String,
    /// Number of transformed queries with Δ < τ.
    pub count: u32,
    /// Mean over the queries of Δ / √(g_iᵀ P g_i).
    pub mean_scaled_delta: f64,
    /// κ: mean EK-FAC cosine to the seeds (`guard`; 0 in the paper's modes).
    pub kappa: f64,
    /// 1 = strongest.
    pub rank: u32,
    /// Was it one of the seeds of the last round?
    pub seed: bool,
}

/// Step 4 of `guard`: the flagged group against the case's own placebos.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StandOut {
    /// d′ = (mean_F κ − mean_{C∖F} κ) / std_{C∖F} κ. None when nothing was flagged.
    pub d_prime: Option<f64>,
    /// The same difference for s(q_0, i) / √self_i.
    pub z: Option<f64>,
    /// The cut of κ: by the tail of the null pictures, or median + z·1.4826·MAD where there are too few of them.
    pub cut: f64,
    /// Null pictures that the cut was drawn from; 0: by the spread of the class itself.
    #[serde(default)]
    pub null_pictures: u32,
    /// Rounds of kin until the set stood.
    pub rounds: u32,
    /// Each placebo's group.
    pub placebos: Vec<Placebo>,
}

/// One placebo: a clean, correctly read validation image of class ŷ put through steps 1–3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placebo {
    /// Validation example.
    pub id: TrainId,
    /// Size of its flagged group.
    pub flagged: u32,
    /// Its d′, when it flagged anything.
    pub d_prime: Option<f64>,
    /// Its z.
    pub z: Option<f64>,
    /// Share of its group that is in the anomaly's group (0 to 1).
    pub overlap: f64,
}

/// The published count rule over every class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlainRule {
    /// Flagged ids, strongest count first.
    pub flagged: Vec<TrainId>,
    /// τ used.
    pub tau: f64,
    /// n_tol used.
    pub n_tol: u32,
}

/// Two-series histogram over common bins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// `n + 1` bin edges.
    pub edges: Vec<f64>,
    /// Flagged examples per bin.
    pub flagged: Vec<u64>,
    /// Other examples with label ŷ per bin.
    pub others: Vec<u64>,
}

/// Pixels on which the flagged examples of label ŷ look alike, and the others of that label do not look like them: a painted trigger shows as exactly its own pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharedPixels {
    /// Number of such pixels; 0: they share none.
    pub pixels: u64,
    /// Pixels of a picture.
    pub of: u64,
    /// Smallest box that holds them: first row, first column, rows, columns. None where there are none.
    pub place: Option<[u32; 4]>,
    /// Flagged examples that were compared.
    pub flagged: u64,
    /// Others of label ŷ that they were compared with.
    pub others: u64,
    /// Over these pixels the smallest share of the flagged that look alike (0 to 1).
    pub flagged_alike: f64,
    /// Over these pixels the largest share of the others that look like them (0 to 1).
    pub others_alike: f64,
    /// A picture of them beside the trace report: these pixels as the flagged have them, everything else in one grey. None where there are none.
    pub picture: Option<EvidencePicture>,
}

/// A picture that lies beside the trace report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidencePicture {
    /// File name, relative to the job's folder; it holds the start of the digest.
    pub file: String,
    /// BLAKE3 of the file.
    pub digest: Digest,
}

/// Which factors were used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FactorUse {
    /// Digest that names the factor file.
    pub key: Digest,
    /// Found on disk (true) or fitted by this job.
    pub reused: bool,
    /// Examples that they were fitted on.
    pub examples: u64,
}
