//! Single passes, in this process: plain, scoring, covariance + Λ.

use crate::scene::{Scene, rough};
use anyhow::Context;
use delta_guard_contract::Seed;
use delta_guard_contract::config::Device;
use delta_guard_contract::detect::{Delta, DetectConfig, Detector, Influence};
use delta_influence::data::{DataSet, normalise};
use delta_influence::detect::queries::{draw, picture_from_bytes};
use delta_influence::device;
use delta_influence::ekfac::Factors;
use delta_influence::evidence::Evidence;
use delta_influence::influence::ModelEvidence;
use delta_influence::model::{Model, Weights, zoo};
use delta_influence::passes::budget::Budget;
use delta_influence::passes::fit::{FitSettings, fit};
use delta_influence::passes::objective;
use delta_influence::passes::stream::Stream;
use delta_influence::progress::Silent;
use std::path::Path;
use std::time::Instant;
use tch::{Kind, Tensor};

/// As the worker's default.
const MEMORY_BUDGET: u64 = 1 << 30;

pub struct Passes {
    data: DataSet,
    model: Model,
    /// The same weights, requiring gradients.
    plain: Model,
    factors: Factors,
    keys: Delta,
    asked: Influence,
    scene: delta_guard_contract::DataConfig,
    device: String,
}

impl Passes {
    pub fn new(scene: &Scene, checkpoint: &Path, fit_examples: u32) -> anyhow::Result<Self> {
        let (place, device) = device::set_up(Device::Auto, 0, device::Gpu::Exact)?;
        let cache = tempfile::tempdir()?;
        let config = scene.data.clone();
        let data = DataSet::open(&config.train, &config.image, 0.0, cache.path(), None, &mut Silent)?;
        let graph = zoo::graph(&scene.model(checkpoint), config.image.input(), data.classes().len())?;
        let load = || -> anyhow::Result<Model> {
            let weights = Weights::load(checkpoint, &graph, Kind::Float)?;
            Ok(Model::new(graph.clone(), weights.to(place, Kind::Float)))
        };
        let (model, plain) = (load()?, load()?);
        let keys = rough(fit_examples);
        let detect = DetectConfig {
            method: Detector::Guard(keys.clone()),
            ..DetectConfig::default()
        };
        let asked = detect.needs().factors.context("the guard needs factors")?;
        let chosen = FitSettings::new(&asked, Seed(0));
        let factors = fit(&mut over(&model, &data, &config), &chosen, &chosen.subset(data.len()), &mut Silent)?.0;
        Ok(Self {
            data,
            model,
            plain,
            factors,
            keys: keys.delta,
            asked,
            scene: config,
            device,
        })
    }

    pub fn device(&self) -> &str {
        &self.device
    }

    /// Seconds of forward + backward + weight gradients over the first `most` examples, on the layers that EK-FAC tracks.
    pub fn plain(&mut self, most: usize) -> anyhow::Result<f64> {
        let stream = over(&self.plain, &self.data, &self.scene);
        let weights: Vec<Tensor> = stream
            .tracked()
            .iter()
            .flat_map(|layer| ["weight", "bias"].map(|part| format!("{}.{part}", layer.name)))
            .filter_map(|name| self.plain.weights.0.get(&name).map(|w| w.set_requires_grad(true)))
            .collect();
        let weights: Vec<&Tensor> = weights.iter().collect();
        let examples: Vec<usize> = (0..self.data.len().min(most)).collect();
        let start = Instant::now();
        let mut sums = 0.0;
        for batch in examples.chunks(stream.batch) {
            let images = normalise(&self.data.batch(batch)?, &self.scene.image, Kind::Float, self.plain.device())?;
            let labels = self.data.labels_tensor(batch)?.to_device(self.plain.device());
            let tapped = self.plain.forward_tapped(&images)?;
            let loss = objective::loss(&tapped.logits, &labels)?;
            let grads = Tensor::f_run_backward(&[&loss], &weights, false, false)?;
            sums += grads.iter().map(|g| g.sum(Kind::Double).double_value(&[])).sum::<f64>(); // a GPU is waited for
        }
        anyhow::ensure!(sums.is_finite(), "the plain pass gave no numbers");
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds of one scoring pass for an anomaly and its transformed siblings, their gradients included.
    pub fn scoring(&mut self) -> anyhow::Result<f64> {
        let image = &self.scene.image;
        let picture = picture_from_bytes(self.data.pixels(0), 3, image.height as usize, image.width as usize)?;
        let question = draw(&picture, 5, self.data.classes().len(), &self.keys, 1, image, 0)?.question;
        let all: Vec<usize> = (0..self.data.len()).collect();
        let stream = over(&self.model, &self.data, &self.scene);
        let mut silent = Silent;
        let mut evidence = ModelEvidence::new(stream, &self.factors, &self.asked, &mut silent);
        let start = Instant::now();
        let scores = evidence.scores("scores", &[question], &all, false)?;
        let seconds = start.elapsed().as_secs_f64();
        anyhow::ensure!(
            scores.answers.iter().flat_map(|a| a.rows()).filter(|row| row.len() == all.len()).count() == 51,
            "rows are missing"
        );
        Ok(seconds)
    }

    /// Seconds of the covariance and Λ passes over all examples (the eigenbasis between them, a cost of the network alone, not counted).
    pub fn factors(&mut self) -> anyhow::Result<f64> {
        let all: Vec<usize> = (0..self.data.len()).collect();
        let mut stream = over(&self.model, &self.data, &self.scene);
        let (_, seconds) = fit(&mut stream, &FitSettings::new(&self.asked, Seed(0)), &all, &mut Silent)?;
        Ok(seconds["covariance"] + seconds["lambda"])
    }
}

fn over<'a>(model: &'a Model, data: &'a DataSet, config: &'a delta_guard_contract::DataConfig) -> Stream<'a> {
    let layers = (0..model.graph.layers().len()).collect();
    Stream::new(model, data, &config.image, layers, Budget::new(model, MEMORY_BUDGET))
}
