//! What factors depend on, as a digest: factors lie under it, so that stale ones cannot be found by name.

use delta_guard_contract::Digest;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::model::layer::Layer;

/// Version of the factor file and of the algorithm that fills it; part of every key.
pub const FACTOR_FORMAT: &str = "delta-guard-factors/1";

/// Everything that factors depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FactorKey {
    /// Digest of the checkpoint.
    pub checkpoint: String,
    /// Digest of the training manifest.
    pub manifest: String,
    /// Preprocessing, as canonical JSON.
    pub preprocessing: String,
    /// `true` or `empirical`.
    pub fisher: String,
    /// Seed of the drawn labels (true Fisher) and of the subset.
    pub seed: u64,
    /// Which examples the fit used (`all`, or how the subset was drawn).
    pub subset: String,
    /// The network, as canonical JSON: what its other nodes do decides what the tracked layers see.
    pub graph: String,
    /// Tracked layers, in order.
    pub layers: Vec<Layer>,
    /// Working precision (`float32`, `float64`).
    pub precision: String,
}

impl FactorKey {
    /// BLAKE3 over the key and [`FACTOR_FORMAT`], as JSON: every field is named, so that values cannot run into each other.
    pub fn digest(&self) -> Result<Digest> {
        let text = serde_json::to_vec(&(FACTOR_FORMAT, self)).map_err(|e| Error::internal(format!("factor key: {e}")))?;
        Ok(Digest(blake3::hash(&text).to_hex().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ekfac::Blocks;
    use crate::model::layer::{LayerKind, Linear};

    #[test]
    fn every_field_changes_the_digest() {
        let linear = |name: &str| Layer {
            name: name.into(),
            kind: LayerKind::Linear(Linear {
                in_features: 3,
                out_features: 2,
                bias: true,
            }),
            part: None,
        };
        let key = FactorKey {
            checkpoint: "c".into(),
            manifest: "m".into(),
            preprocessing: "{}".into(),
            fisher: "true".into(),
            seed: 1,
            subset: "all".into(),
            graph: "{}".into(),
            layers: vec![linear("fc")],
            precision: "float32".into(),
        };
        let variants = [
            FactorKey {
                checkpoint: "d".into(),
                ..key.clone()
            },
            FactorKey {
                manifest: "n".into(),
                ..key.clone()
            },
            FactorKey {
                preprocessing: "[]".into(),
                ..key.clone()
            },
            FactorKey {
                fisher: "empirical".into(),
                ..key.clone()
            },
            FactorKey { seed: 2, ..key.clone() },
            FactorKey {
                graph: "[]".into(),
                ..key.clone()
            },
            FactorKey {
                subset: "1000".into(),
                ..key.clone()
            },
            FactorKey {
                layers: vec![linear("head")],
                ..key.clone()
            },
            FactorKey {
                layers: Blocks::of(&[linear("fc")], 1).layers,
                ..key.clone()
            },
            FactorKey {
                precision: "float64".into(),
                ..key.clone()
            },
            FactorKey {
                checkpoint: "cm".into(),
                manifest: String::new(),
                ..key.clone()
            },
            key.clone(),
        ];
        let mut digests: Vec<_> = variants.iter().map(|k| k.digest().expect("digest")).collect();
        assert_eq!(digests.last(), Some(&key.digest().expect("digest")), "the same key has the same digest");
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), variants.len());
    }
}
