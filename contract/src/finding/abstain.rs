//! Why a detector abstained. The numbers are fields, the sentence is made from them, and the code can be counted.

use serde::{Deserialize, Serialize};

/// A reason to flag nothing. `candidates` is the size of the group that was found and does not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the sentences say what the fields are")]
pub enum Abstain {
    /// Too few training examples of the label that can be compared.
    TooFewExamples { found: u64, needed: u64, per_seed: u64, seeds: u64 },
    /// The class is of one piece.
    AllAlike,
    /// No example, or only one, is above the cut.
    NothingAboveCut { largest: f64, cut: f64 },
    /// There is no group.
    NoGroup,
    /// The group changes from round to round.
    NotStanding { candidates: u64 },
    /// Nothing to hold the group against in its own class.
    NotComparable { candidates: u64 },
    /// Too few clean pictures to hold the group against.
    TooFewPlacebos { candidates: u64, found: u64, needed: u64 },
    /// Another choice of seeds leads to another group.
    DependsOnSeeds { candidates: u64, other: u64, common: u64 },
    /// The group does not act towards the wrong label.
    NotSupporting { candidates: u64, z: f64 },
    /// A placebo's own group acts on it as much.
    LikePlaceboGroup { candidates: u64, z: f64, theirs: f64, placebo: String },
    /// The group acts on a placebo as much.
    ActsOnPlacebo { candidates: u64, z: f64, theirs: f64, placebo: String },
    /// The group acts as it may act on one more placebo.
    WithinPlacebos { candidates: u64, z: f64, limit: f64, placebos: u64 },
    /// Choosing the strongest explains as much.
    WithinChoice { candidates: u64, of: u64, z: f64, floor: f64 },
    /// A few pictures that resemble each other.
    TooFewAlike { candidates: u64, needed: u64 },
    /// A placebo's group stands apart as much.
    LikeNaturalGroup {
        candidates: u64,
        d_prime: f64,
        theirs: f64,
        placebo: String,
    },
    /// The anomalies' groups hold no example together.
    NothingInCommon,
    /// No example has enough shifts below τ.
    TooFewShifts { least: u64, of: u64, tau: f64 },
    /// The reason concerns one of several anomalies, counted from 1.
    OfAnomaly { anomaly: u64, why: Box<Abstain> },
    /// A reason of another detector.
    #[serde(untagged)]
    Other { code: String, sentence: String },
}

impl Abstain {
    /// A reason of a detector that has none of these.
    pub fn other(code: &str, sentence: impl Into<String>) -> Self {
        Self::Other {
            code: code.into(),
            sentence: sentence.into(),
        }
    }

    /// Its name, for counting: kebab-case, and it stays. Of one anomaly among several it is that of the reason itself.
    pub fn code(&self) -> &str {
        match self {
            Self::TooFewExamples { .. } => "too-few-examples",
            Self::AllAlike => "all-alike",
            Self::NothingAboveCut { .. } => "nothing-above-cut",
            Self::NoGroup => "no-group",
            Self::NotStanding { .. } => "not-standing",
            Self::NotComparable { .. } => "not-comparable",
            Self::TooFewPlacebos { .. } => "too-few-placebos",
            Self::DependsOnSeeds { .. } => "depends-on-seeds",
            Self::NotSupporting { .. } => "not-supporting",
            Self::LikePlaceboGroup { .. } => "like-placebo-group",
            Self::ActsOnPlacebo { .. } => "acts-on-placebo",
            Self::WithinPlacebos { .. } => "within-placebos",
            Self::WithinChoice { .. } => "within-choice",
            Self::TooFewAlike { .. } => "too-few-alike",
            Self::LikeNaturalGroup { .. } => "like-natural-group",
            Self::NothingInCommon => "nothing-in-common",
            Self::TooFewShifts { .. } => "too-few-shifts",
            Self::OfAnomaly { why, .. } => why.code(),
            Self::Other { code, .. } => code,
        }
    }

    /// It, for a person.
    pub fn sentence(&self) -> String {
        match self {
            Self::TooFewExamples {
                found,
                needed,
                per_seed,
                seeds,
            } => format!(
                "only {found} training examples with the wrong label can be compared; {needed} are needed ({per_seed} for each of at least {seeds} seeds: detect.seeds)"
            ),
            Self::AllAlike => {
                "over half of the training examples with the wrong label resemble the seeds equally, so that none can stand apart".into()
            }
            Self::NothingAboveCut { largest, cut } => format!(
                "no group of training examples with the wrong label stands apart: their largest kinship κ is {largest:.3}, fewer than two exceed the cut at {cut:.3}"
            ),
            Self::NoGroup => "no group of training examples with the wrong label stands apart from the rest of them".into(),
            Self::NotStanding { candidates: n } => format!("the {n} candidates are no group that stands: the round of kin before found another one"),
            Self::NotComparable { candidates: n } => {
                format!("the {n} candidates cannot be compared with the other examples of their label, which are too few or do not vary")
            }
            Self::TooFewPlacebos {
                candidates: n,
                found,
                needed,
            } => format!(
                "{n} candidates were found, but only {found} placebos (clean validation pictures that are rightly read as the wrong label) to hold them against; {needed} are needed"
            ),
            Self::DependsOnSeeds {
                candidates: n,
                other,
                common,
            } => format!(
                "the {n} candidates depend on how their seeds are chosen: the anomaly's strongest scores alone lead to {other} examples, {common} of them among the candidates"
            ),
            Self::NotSupporting { candidates: n, z } => format!("the {n} candidates do not support the anomaly's wrong label (z {z:.2})"),
            Self::LikePlaceboGroup {
                candidates: n,
                z,
                theirs,
                placebo,
            } => format!(
                "the {n} candidates act on the anomaly no more (z {z:.2}) than the group of a clean picture acts on that (z {theirs:.2}, placebo {placebo})"
            ),
            Self::ActsOnPlacebo {
                candidates: n,
                z,
                theirs,
                placebo,
            } => {
                format!(
                    "the {n} candidates act on the anomaly no more (z {z:.2}) than on a clean picture of that class (z {theirs:.2}, placebo {placebo})"
                )
            }
            Self::WithinPlacebos {
                candidates: n,
                z,
                limit,
                placebos,
            } => format!(
                "the {n} candidates act on the anomaly (z {z:.2}) as they may act on any clean picture of that class (up to z {limit:.2}, from {placebos} placebos)"
            ),
            Self::WithinChoice { candidates: n, of, z, floor } => format!(
                "the {n} candidates act on the anomaly no more (z {z:.2}) than the strongest {n} of {of} examples would without any cause (z {floor:.2})"
            ),
            Self::TooFewAlike { candidates: n, needed } => format!(
                "only {n} candidates belong together: copies of a picture, or a frame that a few share, make such groups by nature; at least {needed} are needed"
            ),
            Self::LikeNaturalGroup {
                candidates: n,
                d_prime,
                theirs,
                placebo,
            } => {
                format!(
                    "the {n} candidates stand apart no more (d′ {d_prime:.2}) than a natural group of that class (d′ {theirs:.2}, placebo {placebo})"
                )
            }
            Self::NothingInCommon => "the groups of the anomalies have no training example in common".into(),
            Self::TooFewShifts { least, of, tau } => format!("no training example has at least {least} of {of} shifts below {tau}"),
            Self::OfAnomaly { anomaly, why } => format!("anomaly {anomaly}: {}", why.sentence()),
            Self::Other { sentence, .. } => sentence.clone(),
        }
    }

    /// The same with every text that others wrote put through `short`.
    #[must_use]
    pub fn bounded(mut self, short: &dyn Fn(&str) -> String) -> Self {
        match &mut self {
            Self::LikePlaceboGroup { placebo, .. } | Self::ActsOnPlacebo { placebo, .. } | Self::LikeNaturalGroup { placebo, .. } => {
                *placebo = short(placebo);
            }
            Self::OfAnomaly { why, .. } => **why = std::mem::replace(&mut **why, Self::NoGroup).bounded(short),
            Self::Other { code, sentence } => (*code, *sentence) = (short(code), short(sentence)),
            _ => {}
        }
        self
    }
}
