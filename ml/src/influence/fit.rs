//! Factors for a model and a training set: found on disk under their digest, or fitted and kept there.

use super::pass::{Pass, PassLabels};
use crate::ekfac::{CovarianceFold, FactorKey, Factors, LambdaFold};
use crate::error::Result;
use crate::files;
use crate::progress::Report;
use delta_guard_contract::detect::{DetectSettings, Fisher};
use delta_guard_contract::evidence::FactorUse;
use delta_guard_contract::{Digest, FaultKind, Seed};
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::path::Path;
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
    pub fn new(settings: &DetectSettings, seed: Seed) -> Self {
        Self {
            fisher: settings.fisher,
            examples: settings.fit_examples,
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
pub struct Fitted {
    /// The factors, on the model's device.
    pub factors: Factors,
    /// For the report.
    pub used: FactorUse,
    /// Seconds per step; empty when found on disk.
    pub seconds: BTreeMap<String, f64>,
}

/// Find or fit.
///
/// # Errors
/// Of the passes, or `Resource` when the file cannot be written.
pub fn factors(pass: &Pass<'_>, settings: &FitSettings, checkpoint: &Digest, folder: &Path, report: &mut dyn Report) -> Result<Fitted> {
    let subset = settings.subset(pass.data.len());
    let key = FactorKey {
        checkpoint: checkpoint.0.clone(),
        manifest: pass.data.manifest_digest().0.clone(),
        preprocessing: serde_json::to_string(pass.image).unwrap_or_default(),
        fisher: format!("{:?}", settings.fisher),
        seed: settings.seed,
        subset: format!("{} of {}", subset.len(), pass.data.len()),
        graph: serde_json::to_string(&pass.model.graph).unwrap_or_default(),
        layers: pass.tracked(),
        precision: format!("{:?}", pass.model.kind()),
    }
    .digest()?;
    let path = folder.join(format!("{}.safetensors", key.0));
    let used = |reused| FactorUse {
        key: key.clone(),
        reused,
        examples: subset.len() as u64,
    };
    if files::look(&path)?.is_some() {
        match Factors::load(&path, &pass.tracked(), &key, &pass.workspace()) {
            Ok(factors) => {
                return Ok(Fitted {
                    factors,
                    used: used(true),
                    seconds: BTreeMap::new(),
                });
            }
            // To fit them again costs more than another try.
            Err(error) if error.fault().kind == FaultKind::Resource => return Err(error),
            Err(error) => report.log(&format!("the factor file cannot be used and is made anew: {}", error.fault().message)),
        }
    }
    let (factors, seconds) = fit(pass, settings, &subset, report)?;
    fs_err::create_dir_all(folder)?;
    factors.save(&path, &key)?;
    Ok(Fitted {
        factors,
        used: used(false),
        seconds,
    })
}

/// Covariance pass, eigenbasis, Λ pass over `examples` (algorithm §1, steps 1–3).
///
/// # Errors
/// Of the passes.
pub fn fit(pass: &Pass<'_>, settings: &FitSettings, examples: &[usize], report: &mut dyn Report) -> Result<(Factors, BTreeMap<String, f64>)> {
    let workspace = pass.workspace();
    let labels = |draw| match settings.fisher {
        Fisher::True => PassLabels::Sampled { seed: settings.seed, draw },
        Fisher::Empirical => PassLabels::Training,
    };
    let mut seconds = BTreeMap::new();
    let mut clock = Instant::now();
    let mut lap = |step: &str| {
        seconds.insert(step.to_string(), clock.elapsed().as_secs_f64());
        clock = Instant::now();
    };
    let mut covariance = CovarianceFold::new(&pass.tracked(), workspace)?;
    pass.run("covariance", examples, labels(0), report, |pairs| covariance.add(pairs))?;
    let covariances = covariance.finish()?;
    lap("covariance");
    let layers = pass.layers.len() as u64;
    let basis = covariances.eigenbasis(&workspace, |done| report.progress("eigenbasis", done as u64, layers, ""))?;
    drop(covariances);
    lap("eigenbasis");
    let mut lambda = LambdaFold::new(&basis, workspace)?;
    pass.run("lambda", examples, labels(1), report, |pairs| lambda.add(pairs))?;
    let factors = lambda.finish()?;
    lap("lambda");
    Ok((factors, seconds))
}
