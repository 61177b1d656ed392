//! Factors for a model and a training set: found on disk under their digest, or fitted and kept there.

use super::labels::PassLabels;
use super::stream::{GradientOf, Keep, Stream};
use crate::ekfac::{CovarianceFold, FactorKey, Factors, LambdaFold, Workspace};
use crate::error::Result;
use crate::files;
use crate::fold::Fold;
use crate::model::layer::Layer;
use crate::progress::Report;
use delta_guard_contract::detect::{Fisher, Influence, Objective};
use delta_guard_contract::finding::FactorUse;
use delta_guard_contract::{Digest, FaultKind, Seed};
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What factors depend on besides model and data.
#[derive(Clone, Debug)]
pub struct FitSettings {
    /// True or empirical Fisher.
    pub fisher: Fisher,
    /// Examples to fit on, drawn at random (0: all).
    pub examples: u32,
    /// Seed of that draw and of the Fisher labels.
    pub seed: u64,
}

impl FitSettings {
    /// From the detector's settings. Factors are shared between cases: `seed` is the configured one or the job's for factors, never the case's.
    pub fn new(asked: &Influence, seed: Seed) -> Self {
        Self {
            fisher: asked.fisher,
            examples: asked.fit_examples,
            seed: seed.0,
        }
    }

    /// The positions to fit on, ascending.
    pub fn subset(&self, all: usize) -> Vec<usize> {
        if self.examples == 0 || self.examples as usize >= all {
            return (0..all).collect();
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut chosen = index::sample(&mut rng, all, self.examples as usize).into_vec();
        chosen.sort_unstable();
        chosen
    }
}

/// Factors, and where they came from.
#[derive(Debug)]
pub struct FittedFactors {
    /// The factors, on the model's device.
    pub factors: Factors,
    /// For the report.
    pub used: FactorUse,
    /// Seconds per step; empty when found on disk.
    pub seconds: BTreeMap<String, f64>,
}

impl FitSettings {
    /// The key of the factors of a model over a training set.
    ///
    /// # Errors
    /// `Internal`.
    pub fn key(&self, stream: &Stream<'_>, checkpoint: &Digest) -> Result<Digest> {
        FactorKey {
            checkpoint: checkpoint.0.clone(),
            manifest: stream.data.manifest_digest().0.clone(),
            preprocessing: serde_json::to_string(stream.image).unwrap_or_default(),
            fisher: format!("{:?}", self.fisher),
            seed: self.seed,
            subset: format!("{} of {}", self.subset(stream.data.len()).len(), stream.data.len()),
            graph: serde_json::to_string(&stream.model.graph).unwrap_or_default(),
            layers: stream.tracked(),
            precision: format!("{:?}", stream.model.kind()),
        }
        .digest()
    }

    /// What the covariance pass asks of an example. In the Fisher matrix sizes count: the gradient is the loss's.
    pub fn covariance(&self) -> GradientOf {
        self.ask(0)
    }

    /// What the Λ pass asks of an example.
    pub fn lambda(&self) -> GradientOf {
        self.ask(1)
    }

    fn ask(&self, draw: u8) -> GradientOf {
        GradientOf {
            labels: PassLabels::of(self.fisher, self.seed, draw),
            objective: Objective::Loss,
        }
    }
}

/// Where the factors of a key lie.
pub fn factors_file(folder: &Path, key: &Digest) -> PathBuf {
    folder.join(format!("{}.safetensors", key.0))
}

/// Factors that lie on disk under their key. A file that cannot be used is told and passed over.
///
/// # Errors
/// `Resource`: it cannot be read just now. To fit it again costs more than another try.
pub fn found(folder: &Path, key: &Digest, layers: &[Layer], workspace: &Workspace, report: &mut dyn Report) -> Result<Option<Factors>> {
    let path = factors_file(folder, key);
    if files::look(&path)?.is_none() {
        return Ok(None);
    }
    match Factors::load(&path, layers, key, workspace) {
        Ok(factors) => Ok(Some(factors)),
        Err(error) if error.fault().kind == FaultKind::Resource => Err(error),
        Err(error) => {
            report.log(&format!("the factor file cannot be used and is made anew: {}", error.fault().message));
            Ok(None)
        }
    }
}

/// Find or fit.
///
/// # Errors
/// Of the passes, or `Resource` when the file cannot be written.
pub fn factors(
    stream: &mut Stream<'_>,
    settings: &FitSettings,
    checkpoint: &Digest,
    folder: &Path,
    report: &mut dyn Report,
) -> Result<FittedFactors> {
    let subset = settings.subset(stream.data.len());
    let key = settings.key(stream, checkpoint)?;
    let used = |reused| FactorUse {
        key: key.clone(),
        reused,
        examples: subset.len() as u64,
    };
    if let Some(factors) = found(folder, &key, &stream.tracked(), &stream.workspace(), report)? {
        return Ok(FittedFactors {
            factors,
            used: used(true),
            seconds: BTreeMap::new(),
        });
    }
    let (factors, seconds) = fit(stream, settings, &subset, report)?;
    factors.save(&factors_file(folder, &key), &key)?;
    Ok(FittedFactors {
        factors,
        used: used(false),
        seconds,
    })
}

/// Covariance pass, eigenbasis, Λ pass over `examples` (algorithm §1, steps 1–3).
///
/// # Errors
/// Of the passes.
pub fn fit(stream: &mut Stream<'_>, settings: &FitSettings, examples: &[usize], report: &mut dyn Report) -> Result<(Factors, BTreeMap<String, f64>)> {
    let (layers, workspace) = (stream.tracked(), stream.workspace());
    let mut seconds = BTreeMap::new();
    let mut clock = Instant::now();
    let mut lap = |step: &str| {
        seconds.insert(step.to_string(), clock.elapsed().as_secs_f64());
        clock = Instant::now();
    };
    let mut covariance = CovarianceFold::new(&layers, workspace)?;
    stream.run("covariance", examples, settings.covariance(), Keep::Nothing, &mut covariance, report)?;
    let covariances = covariance.finish()?;
    lap("covariance");
    let basis = covariances.eigenbasis(&workspace, |done| report.progress("eigenbasis", done as u64, layers.len() as u64, ""))?;
    drop(covariances);
    lap("eigenbasis");
    let mut lambda = LambdaFold::new(&basis, workspace)?;
    stream.run("lambda", examples, settings.lambda(), Keep::Nothing, &mut lambda, report)?;
    let factors = lambda.finish()?;
    lap("lambda");
    Ok((factors, seconds))
}
