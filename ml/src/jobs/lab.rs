//! The sources that a detector may ask, over the real model: each is opened when it is first asked.

use super::case::Case;
use super::{Place, fit, parts};
use crate::data::DataSet;
use crate::detect::queries::picture_from_bytes;
use crate::ekfac::Factors;
use crate::error::{Error, Result};
use crate::evidence::{Evidence, Lab};
use crate::influence::ModelEvidence;
use crate::passes::budget::Budget;
use crate::passes::features;
use crate::passes::fit::FittedFactors;
use crate::passes::stream::Stream;
use crate::progress::Report;
use delta_guard_contract::{DetectConfig, Seed};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use tch::Tensor;

/// What influence is computed from, besides the case.
#[derive(Clone, Copy)]
pub struct FactorSource<'a> {
    /// The detector's settings.
    pub detect: &'a DetectConfig,
    /// Seed of the factors where none is configured.
    pub seed: Seed,
    /// `scores.safetensors` of a merge of parts.
    pub scores: Option<&'a Path>,
}

/// What influence is computed with, once it is asked for: fitted factors, or none.
#[derive(Default)]
pub struct Curvature {
    /// The factors.
    pub fitted: OnceCell<FittedFactors>,
    none: OnceCell<Factors>,
}

/// The sources of a case.
pub struct ModelLab<'a> {
    place: &'a Place<'a>,
    case: &'a Case<'a>,
    source: FactorSource<'a>,
    curvature: &'a Curvature,
    /// For the influence passes.
    passes: Option<&'a mut dyn Report>,
    /// For the rest.
    report: &'a mut dyn Report,
    influence: Option<ModelEvidence<'a>>,
    seconds: BTreeMap<String, f64>,
}

impl<'a> ModelLab<'a> {
    /// Nothing is opened yet.
    pub fn new(
        place: &'a Place<'a>,
        case: &'a Case<'a>,
        source: FactorSource<'a>,
        curvature: &'a Curvature,
        (passes, report): (&'a mut dyn Report, &'a mut dyn Report),
    ) -> Self {
        Self {
            place,
            case,
            source,
            curvature,
            passes: Some(passes),
            report,
            influence: None,
            seconds: BTreeMap::new(),
        }
    }

    /// Seconds per step so far.
    pub fn seconds(&self) -> BTreeMap<String, f64> {
        let mut all = self.curvature.fitted.get().map(|fitted| fitted.seconds.clone()).unwrap_or_default();
        for (step, took) in self.influence.iter().flat_map(|influence| &influence.seconds).chain(&self.seconds) {
            *all.entry(step.clone()).or_default() += took;
        }
        all
    }

    /// The place of the layer whose features are asked for.
    fn feature_layer(&self, layer: Option<&str>) -> Result<usize> {
        if !self.case.needs.features {
            return Err(not_needed("features"));
        }
        features::place(&self.case.model.graph, layer)
    }

    fn features_in(&mut self, data: &DataSet, layer: Option<&str>, examples: &[usize]) -> Result<Tensor> {
        let place = self.feature_layer(layer)?;
        let start = Instant::now();
        let budget = Budget::new(&self.case.model, self.place.setup.memory_budget);
        let mut stream = Stream::new(&self.case.model, data, self.case.image, vec![place], budget);
        let rows = features::of_examples(&mut stream, examples, self.report)?;
        *self.seconds.entry("features".into()).or_default() += start.elapsed().as_secs_f64();
        Ok(rows)
    }

    fn open_influence(&mut self) -> Result<ModelEvidence<'a>> {
        let (case, source) = (self.case, self.source);
        let asked = case.needs.influence().ok_or_else(|| not_needed("influence"))?;
        let again = || Error::internal("influence is opened twice");
        let (budget, for_null) = Budget::new(&case.model, self.place.setup.memory_budget).shared();
        let mut stream = fit::stream(self.place, &case.train, &case.model, case.image, asked, budget)?;
        let passes = self.passes.take().ok_or_else(again)?;
        let mut known = None;
        let mut influence = if case.needs.factors.is_some() {
            let settings = fit::fit_settings(source.detect, asked, source.seed);
            let fitted = fit::fitted(self.place, &mut stream, &settings, &case.checkpoint, self.report)?;
            self.curvature.fitted.set(fitted).map_err(|_| again())?;
            let fitted = self.curvature.fitted.get().ok_or_else(again)?;
            let parts = source.scores.map(|path| parts::known(case, &fitted.used.key, &case.question(), path));
            known = parts.transpose()?;
            ModelEvidence::new(stream, &fitted.factors, asked, passes)
        } else {
            let identity = Factors::identity(&stream.tracked(), &stream.workspace())?;
            self.curvature.none.set(identity).map_err(|_| again())?;
            let identity = self.curvature.none.get().ok_or_else(again)?;
            ModelEvidence::new(stream, identity, asked, passes).without_curvature()
        };
        influence = influence.within(self.place.query_budget)?;
        if let Some(validation) = &case.validation {
            let null = fit::stream(self.place, validation, &case.model, case.image, asked, for_null)?;
            influence = influence.with_null(null, case.null.clone());
        }
        if let Some((plan, scores)) = known {
            influence = influence.with_known(plan, scores);
        }
        Ok(influence)
    }
}

/// A detector that asks for what its settings do not say.
fn not_needed(source: &str) -> Error {
    Error::internal(format!("the detector asks for {source}, which its settings do not need"))
}

impl Lab for ModelLab<'_> {
    fn influence(&mut self) -> Result<&mut dyn Evidence> {
        let influence = match self.influence.take() {
            Some(open) => open,
            None => self.open_influence()?,
        };
        Ok(self.influence.insert(influence))
    }

    fn features(&mut self, layer: Option<&str>) -> Result<Tensor> {
        let all: Vec<usize> = (0..self.case.train.len()).collect();
        self.features_at(layer, &all)
    }

    fn features_at(&mut self, layer: Option<&str>, positions: &[usize]) -> Result<Tensor> {
        self.features_in(&self.case.train, layer, positions)
    }

    fn null_features(&mut self, layer: Option<&str>) -> Result<Option<Tensor>> {
        let case = self.case;
        let of = |validation: &DataSet| self.features_in(validation, layer, &case.null);
        case.validation.as_ref().filter(|_| !case.null.is_empty()).map(of).transpose()
    }

    fn features_of(&mut self, layer: Option<&str>, images: &[Tensor]) -> Result<Tensor> {
        features::of_pictures(&self.case.model, self.feature_layer(layer)?, images)
    }

    fn pictures(&mut self, positions: &[usize]) -> Result<Tensor> {
        let (case, image) = (self.case, self.case.image);
        if !case.needs.pictures {
            return Err(not_needed("pictures"));
        }
        let one = |&i: &usize| picture_from_bytes(case.train.pixels(i), image.channels(), image.height as usize, image.width as usize);
        let pictures = positions.iter().map(one).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::f_stack(&pictures, 0)?)
    }
}
