//! A case as a detector is asked about it: data, model, the wrong label, the submitted pictures and the clean ones.

use super::{Place, bench, fit};
use crate::certify;
use crate::data::DataSet;
use crate::detect::{DetectCase, PlaceboPicture, queries::picture_from_bytes};
use crate::device;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::passes::budget::Budget;
use crate::progress::Report;
use delta_guard_contract::detect::{Clean as Wanted, Detector, Influence, Needs};
use delta_guard_contract::job::{Anomaly, ImageLimits, Tracked};
use delta_guard_contract::{Code, DataConfig, DetectConfig, Digest, ImageConfig, ModelConfig, Seed};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::time::Instant;
use tch::Tensor;

/// What is submitted.
pub struct Submitted<'a> {
    /// The wrongly read pictures.
    pub anomalies: &'a [Anomaly],
    /// Limits of the decoder.
    pub limits: &'a ImageLimits,
    /// Seed of the case's own draws where none is configured.
    pub case_seed: Seed,
}

/// All that a question needs, laid out.
pub struct Case<'a> {
    /// Sizes and normalisation.
    pub image: &'a ImageConfig,
    /// Training set.
    pub train: DataSet,
    /// Validation set, where the detector wants clean pictures.
    pub validation: Option<DataSet>,
    /// The detector.
    pub method: &'a Detector,
    /// What it needs.
    pub needs: Needs,
    /// Seed of the case's own draws.
    pub seed: u64,
    /// Production model.
    pub model: Model,
    /// Its checkpoint.
    pub checkpoint: Digest,
    /// ŷ.
    pub wrong: u32,
    /// The submitted pictures, as the model's pixels.
    pub pictures: Vec<Vec<u8>>,
    /// Others, however they are read: what kinship is natural. Ascending positions in the validation set.
    pub null: Vec<usize>,
    /// Seconds that the choice of clean pictures took.
    pub choosing: f64,
    placebos: Vec<PlaceboPicture>,
    tensors: Vec<Tensor>,
}

impl<'a> Case<'a> {
    /// Read everything.
    ///
    /// # Errors
    /// `Submission` for the pictures, `Configuration` for data and model.
    pub fn lay_out(
        place: &Place<'_>,
        data: &'a DataConfig,
        model: &ModelConfig,
        detect: &'a DetectConfig,
        submitted: &Submitted<'_>,
        report: &mut dyn Report,
    ) -> Result<Self> {
        Error::mistakes("detect", detect.check())?;
        let image = &data.image;
        let pictures = submitted
            .anomalies
            .iter()
            .map(|a| bench::picture(a, submitted.limits, image))
            .collect::<Result<Vec<_>>>()?;
        let mut case = Self::of_no_class(place, data, model, detect, submitted.case_seed, report)?;
        let wrong = wrong_label(&case.model, &case.train, image, submitted.anomalies, &pictures, &case.checkpoint)?;
        case.tensors = pictures
            .iter()
            .map(|p| picture_from_bytes(p, image.channels(), image.height as usize, image.width as usize))
            .collect::<Result<Vec<_>>>()?;
        case.pictures = pictures;
        case.turn_to(wrong, report)?;
        Ok(case)
    }

    /// Data and model, before it is said which label is asked about.
    ///
    /// # Errors
    /// `Configuration` for data and model.
    pub fn of_no_class(
        place: &Place<'_>,
        data: &'a DataConfig,
        model: &ModelConfig,
        detect: &'a DetectConfig,
        seed: Seed,
        report: &mut dyn Report,
    ) -> Result<Self> {
        Error::mistakes("detect", detect.check())?;
        let (image, needs) = (&data.image, detect.needs());
        let train = bench::training_set(place, data, report)?;
        let graph = bench::graph(model, image, train.classes().len())?;
        if needs.influence().is_some() {
            fit::covers(&graph, model)?;
        }
        let (model, checkpoint) = bench::load(place, &graph, model, device::kind(needs.precision()), report)?;
        let start = Instant::now();
        let open = |_| bench::validation_set(place, data, train.classes(), report);
        let validation = needs.validation.map(open).transpose()?;
        Ok(Self {
            image,
            validation,
            train,
            method: &detect.method,
            needs,
            seed: detect.common.seed.unwrap_or(seed.0),
            model,
            checkpoint,
            wrong: 0,
            pictures: Vec::new(),
            null: Vec::new(),
            choosing: start.elapsed().as_secs_f64(),
            placebos: Vec::new(),
            tensors: Vec::new(),
        })
    }

    /// Ask about this label from here on: its clean pictures are drawn.
    ///
    /// # Errors
    /// libtorch's.
    pub fn turn_to(&mut self, wrong: u32, report: &mut dyn Report) -> Result<()> {
        let start = Instant::now();
        let mut clean = Clean::default();
        if let (Some(wanted), Some(set)) = (self.needs.validation, &self.validation) {
            clean = clean_pictures(set, &self.pictures, self.image, &self.model, wrong, (wanted, self.seed), report)?;
        }
        (self.wrong, self.null, self.placebos) = (wrong, clean.null, clean.placebos);
        self.choosing += start.elapsed().as_secs_f64();
        Ok(())
    }

    /// What of the network influence is computed on; None where the detector asks for none.
    ///
    /// # Errors
    /// `Configuration` when no layer is left.
    pub fn tracked(&self, place: &Place<'_>) -> Result<Option<Tracked>> {
        let of = |asked: &Influence| {
            let budget = Budget::new(&self.model, place.setup.memory_budget);
            Ok(fit::stream(place, &self.train, &self.model, self.image, asked, budget)?.coverage())
        };
        self.needs.influence().map(of).transpose()
    }

    /// The question.
    pub fn question(&self) -> DetectCase<'_> {
        DetectCase {
            anomalies: &self.tensors,
            wrong_label: self.wrong as usize,
            classes: self.train.classes().len(),
            labels: self.train.labels(),
            placebos: &self.placebos,
            seed: self.seed,
            image: self.image,
        }
    }
}

/// Name of a class.
pub fn name(train: &DataSet, label: u32) -> String {
    train.classes().get(label as usize).cloned().unwrap_or_default()
}

/// ŷ: what the anomalies are said to be read as, or what the model reads; one and the same for all.
fn wrong_label(
    model: &Model,
    train: &DataSet,
    image: &ImageConfig,
    anomalies: &[Anomaly],
    pictures: &[Vec<u8>],
    checkpoint: &delta_guard_contract::Digest,
) -> Result<u32> {
    let mut found: Option<u32> = None;
    for (anomaly, picture) in anomalies.iter().zip(pictures) {
        let label = match &anomaly.wrong_label {
            Some(name) => bench::class_of(name, train.classes())?,
            None => bench::class_of(
                &certify::predict(model, picture, image, train.classes(), checkpoint)?.label,
                train.classes(),
            )?,
        };
        if let Some(first) = found.filter(|&first| first != label) {
            return Err(Error::new(
                Code::Submission,
                format!(
                    "the anomalies are read as different classes: {} and {}",
                    name(train, first),
                    name(train, label)
                ),
                "trace them apart: one case is about one wrong label",
            ));
        }
        found = Some(label);
    }
    found.ok_or_else(|| Error::submission("no picture was given"))
}

/// Clean validation pictures of class ŷ.
#[derive(Default)]
struct Clean {
    /// Read correctly: what the flagged group must stand out against.
    placebos: Vec<PlaceboPicture>,
    /// Others, however they are read: what kinship is natural. Ascending positions in the validation set.
    null: Vec<usize>,
}

/// Draw them under the seed. What is submitted is none of them, even where somebody submits a validation picture.
fn clean_pictures(
    validation: &DataSet,
    submitted: &[Vec<u8>],
    image: &ImageConfig,
    model: &Model,
    wrong: u32,
    (wanted, seed): (Wanted, u64),
    report: &mut dyn Report,
) -> Result<Clean> {
    let mut order = validation.by_label(wrong);
    order.retain(|&i| submitted.iter().all(|picture| picture != validation.pixels(i)));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::MAX); // the queries use the low streams
    order.shuffle(&mut rng);
    let mut clean = Clean::default();
    let placebos = wanted.placebos as usize;
    let mut chosen = BTreeSet::new();
    for batch in order.chunks(4 * placebos) {
        let predicted = certify::predictions(model, validation, image, batch, "placebo", report)?;
        for (&i, (class, _)) in batch.iter().zip(predicted) {
            if class == wrong && chosen.len() < placebos {
                let picture = picture_from_bytes(validation.pixels(i), image.channels(), image.height as usize, image.width as usize)?;
                clean.placebos.push(PlaceboPicture {
                    id: validation.ids().get(i).cloned().ok_or_else(|| Error::internal("an example without id"))?,
                    picture,
                });
                chosen.insert(i);
            }
        }
        if chosen.len() == placebos {
            break;
        }
    }
    let others = order.into_iter().filter(|i| !chosen.contains(i));
    clean.null = others.take(wanted.null_pictures as usize).collect();
    clean.null.sort_unstable();
    Ok(clean)
}
