//! The trace job: from anomalies to training examples with their evidence, as `trace.json` and thumbnails.

use super::{Place, bench, fit};
use crate::certify;
use crate::data::{DataSet, encode_png};
use crate::detect::{DetectCase, Detection, PlaceboPicture, detector, queries::picture_from_bytes};
use crate::device;
use crate::error::{Error, Result, ResultExt};
use crate::files;
use crate::influence::ModelEvidence;
use crate::model::Model;
use crate::progress::{Report, Shared};
use delta_guard_contract::detect::{DetectMode, DetectSettings};
use delta_guard_contract::evidence::{EvidencePicture, PlainRule, SharedPixels};
use delta_guard_contract::job::{Anomaly, ImageLimits, JobResult};
use delta_guard_contract::{DataConfig, DetectConfig, Digest, FaultKind, FlaggedExample, ImageConfig, ModelConfig, Seed, TraceReport};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Thumbnails are written of so many flagged examples at most: the strongest ...
const STRONGEST: usize = 160;
/// ... and the least sure, where there are more: those are the ones to look at before anything is removed.
const LEAST_SURE: usize = 40;
/// Pictures of each side that are compared for what the flagged share.
const COMPARED: usize = 500;

/// What is submitted.
pub struct Case<'a> {
    /// The wrongly read pictures.
    pub anomalies: &'a [Anomaly],
    /// Limits of the decoder.
    pub limits: &'a ImageLimits,
    /// Seed of the case's own draws where none is configured.
    pub case_seed: Seed,
    /// Seed of the factors where none is configured.
    pub factors_seed: Seed,
}

/// [`delta_guard_contract::Task::Trace`]
pub fn trace(
    place: &Place<'_>,
    data: &DataConfig,
    model: &ModelConfig,
    detect: &DetectConfig,
    case: &Case<'_>,
    report: &mut dyn Report,
) -> Result<JobResult> {
    let image = &data.image;
    let pictures = case
        .anomalies
        .iter()
        .map(|a| bench::picture(a, case.limits, image))
        .collect::<Result<Vec<_>>>()?;
    let train = bench::training_set(place, data, report)?;
    let settings = detect.resolve(case.case_seed.0, train.classes().len());
    let graph = bench::graph(model, image, train.classes().len())?;
    let (model, checkpoint) = bench::load(place, &graph, &model.checkpoint, device::kind(settings.precision))?;
    let wrong = wrong_label(&model, &train, image, case.anomalies, &pictures, &checkpoint)?;

    let pass = fit::pass(place, &train, &model, image, &settings)?;
    let fitted = fit::fitted(place, &pass, &settings, detect.seed.map_or(case.factors_seed, Seed), &checkpoint, report)?;
    let mut seconds = fitted.seconds;
    let start = Instant::now();
    let validation = match settings.mode {
        DetectMode::Guard => Some(bench::validation_set(place, data, train.classes(), report)?),
        DetectMode::PaperCode | DetectMode::PaperText => None,
    };
    let clean = match &validation {
        Some(validation) => clean_pictures(validation, &pictures, image, &model, wrong, &settings, report)?,
        None => Clean::default(),
    };
    seconds.insert("placebo".into(), start.elapsed().as_secs_f64());

    let tensors = pictures
        .iter()
        .map(|p| picture_from_bytes(p, 3, image.height as usize, image.width as usize))
        .collect::<Result<Vec<_>>>()?;
    let question = DetectCase {
        anomalies: &tensors,
        wrong_label: wrong as usize,
        classes: train.classes().len(),
        labels: train.labels(),
        placebos: &clean.placebos,
        settings: &settings,
        image,
    };
    let budget = place.setup.memory_budget;
    let shared = Shared::new(report);
    let (mut passes, mut steps) = (&shared, &shared);
    let mut evidence = ModelEvidence::new(pass, &fitted.factors, &settings, budget, &mut passes);
    if let Some(validation) = &validation {
        evidence = evidence.with_null(fit::pass(place, validation, &model, image, &settings)?, clean.null);
    }
    let detection = detector(settings.mode).detect(&mut evidence, &question, &mut steps)?;
    for (step, took) in &evidence.seconds {
        *seconds.entry(step.clone()).or_default() += took;
    }
    drop(evidence);

    let thumbnails = thumbnails(place, &train, image, &pictures, &detection)?;
    let shared = shared_pixels(place, &train, wrong, &detection)?;
    let report = TraceReport {
        predicted_label: name(&train, wrong),
        examples: train.len() as u64,
        examples_of_label: detection.members.len() as u64,
        flagged: detection.flagged.iter().map(|f| flagged(&train, f)).collect(),
        verdict: detection.verdict,
        notes: detection.notes,
        stand_out: detection.stand_out,
        plain: detection.plain.map(|p| PlainRule {
            flagged: p.flagged.iter().filter_map(|&i| train.ids().get(i).cloned()).collect(),
            tau: p.tau,
            n_tol: p.n_tol,
        }),
        histogram: detection.histogram,
        factors: fitted.used,
        settings,
        seed: detect.seed,
        checkpoint,
        manifest: train.manifest_digest().clone(),
        seconds,
        thumbnails,
        shared,
        peak_memory: device::peak_memory(),
        device: place.device_name.clone(),
    };
    let text = serde_json::to_vec_pretty(&report).map_err(|e| Error::internal(format!("trace report: {e}")))?;
    files::write_atomic(&place.out_dir.join("trace.json"), &text)?;
    Ok(JobResult::Trace(Box::new(report)))
}

fn name(train: &DataSet, label: u32) -> String {
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
                FaultKind::Submission,
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
    settings: &DetectSettings,
    report: &mut dyn Report,
) -> Result<Clean> {
    let mut order = validation.by_label(wrong);
    order.retain(|&i| submitted.iter().all(|picture| picture != validation.pixels(i)));
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    rng.set_stream(u64::MAX); // the queries use the low streams
    order.shuffle(&mut rng);
    let mut clean = Clean::default();
    let wanted = settings.placebos as usize;
    let mut chosen = BTreeSet::new();
    for batch in order.chunks(4 * wanted) {
        let predicted = certify::predictions(model, validation, image, batch, "placebo", report)?;
        for (&i, (class, _)) in batch.iter().zip(predicted) {
            if class == wrong && chosen.len() < wanted {
                let picture = picture_from_bytes(validation.pixels(i), 3, image.height as usize, image.width as usize)?;
                clean.placebos.push(PlaceboPicture {
                    id: validation.ids().get(i).cloned().ok_or_else(|| Error::internal("an example without id"))?,
                    picture,
                });
                chosen.insert(i);
            }
        }
        if chosen.len() == wanted {
            break;
        }
    }
    let others = order.into_iter().filter(|i| !chosen.contains(i));
    clean.null = others.take(settings.null_pictures as usize).collect();
    clean.null.sort_unstable();
    Ok(clean)
}

fn flagged(train: &DataSet, found: &crate::detect::Flagged) -> FlaggedExample {
    FlaggedExample {
        id: train.ids()[found.position].clone(),
        label: name(train, train.labels()[found.position]),
        count: found.count,
        mean_scaled_delta: found.mean_scaled_delta,
        kappa: found.kappa,
        rank: found.rank,
        seed: found.seed,
    }
}

/// On which pixels the flagged examples of label ŷ agree against its other examples, with a picture of it.
fn shared_pixels(place: &Place<'_>, train: &DataSet, wrong: u32, detection: &Detection) -> Result<Option<SharedPixels>> {
    let (height, width) = train.size();
    let area = height as usize * width as usize;
    let gone: BTreeSet<usize> = detection.flagged.iter().map(|f| f.position).collect();
    let flagged = detection.flagged.iter().map(|f| f.position).filter(|&i| train.labels()[i] == wrong);
    let flagged: Vec<&[u8]> = flagged.take(COMPARED).map(|i| train.pixels(i)).collect();
    let rest: Vec<usize> = detection.members.iter().copied().filter(|i| !gone.contains(i)).collect();
    let n = rest.len().min(COMPARED);
    let others: Vec<&[u8]> = (0..n).map(|i| train.pixels(rest[i * rest.len() / n])).collect();
    let Some(found) = certify::shared::shared(&flagged, &others, area) else {
        return Ok(None);
    };
    let picture = match found.pixels.is_empty() {
        true => None,
        false => {
            let png = encode_png(&found.picture(area), height, width, thumbnail_scale(height, width))?;
            let digest = Digest(blake3::hash(&png).to_hex().to_string());
            let file = format!("thumbs/shared-{}.png", digest.short());
            files::write_atomic(&place.out_dir.join(&file), &png).context(|| "writing what the flagged share".into())?;
            Some(EvidencePicture { file, digest })
        }
    };
    Ok(Some(SharedPixels {
        pixels: found.pixels.len() as u64,
        of: area as u64,
        place: found.place(width as usize),
        flagged: flagged.len() as u64,
        others: others.len() as u64,
        flagged_alike: found.flagged_alike,
        others_alike: found.others_alike,
        picture,
    }))
}

/// Small pictures are shown larger.
fn thumbnail_scale(height: u32, width: u32) -> u32 {
    (96 / height.max(width)).clamp(1, 3)
}

/// Places among `n` flagged examples, strongest first, of those that get a thumbnail.
fn shown(n: usize) -> impl Iterator<Item = usize> {
    let strongest = n.min(STRONGEST);
    (0..strongest).chain(strongest.max(n.saturating_sub(LEAST_SURE))..n)
}

/// Small PNGs of the first anomaly, and of the strongest and the least sure flagged examples.
fn thumbnails(
    place: &Place<'_>,
    train: &DataSet,
    image: &ImageConfig,
    pictures: &[Vec<u8>],
    detection: &Detection,
) -> Result<BTreeMap<String, String>> {
    let mut written = BTreeMap::new();
    let scale = thumbnail_scale(image.height, image.width);
    let mut write = |key: String, file: String, pixels: &[u8]| -> Result<()> {
        let png = encode_png(pixels, image.height, image.width, scale)?;
        files::write_atomic(&place.out_dir.join(&file), &png).context(|| "writing thumbnails".into())?;
        written.insert(key, file);
        Ok(())
    };
    if let Some(first) = pictures.first() {
        write("anomaly".into(), "thumbs/anomaly.png".into(), first)?;
    }
    for found in shown(detection.flagged.len()).filter_map(|place| detection.flagged.get(place)) {
        write(
            train.ids()[found.position].0.clone(),
            format!("thumbs/{:04}.png", found.rank),
            train.pixels(found.position),
        )?;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn the_strongest_and_the_least_sure_are_shown_each_once() {
        for n in [0, 1, 159, 160, 161, 200] {
            assert_eq!(shown(n).collect::<Vec<_>>(), (0..n).collect::<Vec<_>>(), "{n}: all of them");
        }
        for n in [201, 1000] {
            let places: Vec<usize> = shown(n).collect();
            assert_eq!(places.len(), 200);
            assert_eq!(places[..160], (0..160).collect::<Vec<_>>(), "{n}: the strongest");
            assert_eq!(places[160..], (n - 40..n).collect::<Vec<_>>(), "{n}: the least sure");
        }
    }
}
