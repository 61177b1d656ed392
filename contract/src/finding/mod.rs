//! What a detector found: the flagged examples, what it shows of them, and why it abstained where it did.
//!
//! The detector names its score and writes every title and caption. Report, command line and journal repeat them and know no detector.

mod abstain;
mod exhibit;

pub use abstain::Abstain;
pub use exhibit::{
    Beside, Cell, Column, Doubtful, Exhibit, Histogram, Note, Point, Points, Review, Row, Scatter, Series, SharedPicture, SharedPixels, SourceRow,
    Sources, Strip, Table,
};

use crate::verify::Tracked;
use crate::{DetectConfig, Digest, TrainId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Result of a trace; written by the worker as `trace.json`, read by the report, the journal and the command line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceReport {
    /// What to do with it.
    pub verdict: TraceVerdict,
    /// The anomaly's wrong label ŷ (class name).
    pub predicted_label: String,
    /// The flagged training examples, strongest evidence first. Empty when undecided.
    pub flagged: Vec<Flagged>,
    /// What the detector says of its finding.
    #[serde(default)]
    pub words: Words,
    /// How sure it is. None where it does not say.
    #[serde(default)]
    pub sure: Option<Sure>,
    /// What it shows, in this order.
    #[serde(default)]
    pub exhibits: Vec<Exhibit>,
    /// Figures for the detector's own scripts and tests. Nothing else reads them.
    #[serde(default)]
    pub details: serde_json::Value,
    /// What a reader of the verdict must know besides: examples that could not be compared, a group that did not settle. Whole sentences.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Training examples in all, and with label ŷ.
    pub examples: u64,
    /// Training examples with label ŷ (C of algorithm §3).
    pub examples_of_label: u64,
    /// The EK-FAC factors that it rests on. None: the detector asked for none.
    #[serde(default)]
    pub factors: Option<FactorUse>,
    /// What of the network influence was computed on. None: the detector asked for no influence; reports of earlier versions.
    #[serde(default)]
    pub tracked: Option<Tracked>,
    /// Every setting, resolved.
    #[serde(deserialize_with = "crate::detect::of_any_version")]
    pub settings: DetectConfig,
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
    /// Peak resident memory of the worker, bytes.
    pub peak_memory: u64,
    /// `cpu` or `cuda:0`, as found.
    pub device: String,
}

impl TraceReport {
    /// The first table: further facts per flagged example.
    pub fn table(&self) -> Option<&Table> {
        self.exhibits.iter().find_map(|exhibit| match exhibit {
            Exhibit::Table(table) => Some(table),
            _ => None,
        })
    }
}

/// A flagged training example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "FlaggedRead")]
pub struct Flagged {
    /// Which.
    pub id: TrainId,
    /// Its training label (class name).
    pub label: String,
    /// 1 = strongest.
    pub rank: u32,
    /// Strength of the evidence in the detector's own unit ([`Words::score`]); more is stronger.
    pub score: f64,
    /// Where it comes from, if its data set says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Records and reports of earlier versions hold the evidence of the Δ detectors instead of a score: κ, or the count of the paper's rules, which have no κ.
#[derive(Deserialize)]
struct FlaggedRead {
    id: TrainId,
    label: String,
    rank: u32,
    score: Option<f64>,
    #[serde(default)]
    kappa: f64,
    #[serde(default)]
    count: u32,
    #[serde(default)]
    source: Option<String>,
}

impl From<FlaggedRead> for Flagged {
    fn from(read: FlaggedRead) -> Self {
        let former = if read.kappa == 0.0 { f64::from(read.count) } else { read.kappa };
        Self {
            id: read.id,
            label: read.label,
            rank: read.rank,
            score: read.score.unwrap_or(former),
            source: read.source,
        }
    }
}

/// The detector's verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "VerdictWritten", try_from = "VerdictWritten")]
pub enum TraceVerdict {
    /// Training examples were found that caused the anomaly.
    Flagged,
    /// The detector abstains: nothing is removed, a person decides.
    Undecided {
        /// Why.
        why: Abstain,
    },
}

/// As it is written: with the sentence, for readers that know no reasons. Earlier versions wrote only the sentence, and later ones may have further reasons: of both
/// the sentence is kept.
#[derive(Deserialize, Serialize)]
struct VerdictWritten {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<serde_json::Value>,
}

const FLAGGED: &str = "flagged";
const UNDECIDED: &str = "undecided";

impl From<TraceVerdict> for VerdictWritten {
    fn from(verdict: TraceVerdict) -> Self {
        let (kind, why) = match verdict {
            TraceVerdict::Flagged => (FLAGGED, None),
            TraceVerdict::Undecided { why } => (UNDECIDED, Some(why)),
        };
        Self {
            kind: kind.into(),
            code: why.as_ref().map(|why| why.code().to_owned()),
            reason: why.as_ref().map(Abstain::sentence),
            why: why.and_then(|why| serde_json::to_value(why).ok()),
        }
    }
}

impl TryFrom<VerdictWritten> for TraceVerdict {
    type Error = String;

    fn try_from(written: VerdictWritten) -> Result<Self, String> {
        let known = written.why.and_then(|why| serde_json::from_value(why).ok());
        match written.kind.as_str() {
            FLAGGED => Ok(Self::Flagged),
            UNDECIDED => Ok(Self::Undecided {
                why: known.unwrap_or_else(|| Abstain::other(written.code.as_deref().unwrap_or("unnamed"), written.reason.unwrap_or_default())),
            }),
            other => Err(format!("unknown verdict {other:?}, expected {FLAGGED} or {UNDECIDED}")),
        }
    }
}

/// What a detector says of its finding, so that others can say it too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    /// What it is called in a sentence: `the paper’s count rule`.
    pub called: String,
    /// Name of its score: `κ`.
    pub score: String,
    /// What the score says, in a few words: `how much an example’s effect is like that of the seeds`.
    pub score_meaning: String,
    /// Decimals of the score that mean something.
    pub score_decimals: u8,
    /// What the flagged examples did, as the end of a sentence that begins with them: `taught the model the same thing`.
    pub flagged: String,
    /// Why its finding is a place to look and no proof, in a sentence. Empty: it abstains where it cannot be sure.
    #[serde(default)]
    pub caution: String,
}

/// How sure a detector is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sure {
    /// In a word.
    pub how: HowSure,
    /// What that rests on, in whole sentences.
    pub sentence: String,
}

/// Degrees of being sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HowSure {
    /// Far beyond what chance brings about.
    Clear,
    /// Well beyond it.
    FairlyClear,
    /// Hardly beyond it.
    Close,
    /// There was nothing to measure it by.
    NotMeasured,
    /// Not beyond it.
    NotEnough,
}

impl HowSure {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::FairlyClear => "fairly clear",
            Self::Close => "close",
            Self::NotMeasured => "not measured",
            Self::NotEnough => "not enough to act",
        }
    }
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

#[cfg(test)]
mod tests;
