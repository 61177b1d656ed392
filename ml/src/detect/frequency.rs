//! `frequency`: the probability that something was put on a training picture, by a small network that reads its cosine transform (see the settings for the source).

use super::exhibits::column;
use super::{Detect, DetectCase, Detection, Suspect, ranked};
use crate::data::standardise;
use crate::error::{Error, Result, ResultExt};
use crate::evidence::Lab;
use crate::files::tensors::read_tensors;
use crate::progress::Report;
use delta_guard_contract::detect::Classes;
use delta_guard_contract::detect::frequency::Keys;
use delta_guard_contract::finding::{Abstain, Cell, Words};
use delta_guard_contract::{Code, ImageConfig};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Pictures that are read at once.
const BATCH: usize = 256;

impl Detect for Keys {
    fn detect(&self, lab: &mut dyn Lab, case: &DetectCase, report: &mut dyn Report) -> Result<Detection> {
        case.check()?;
        let path = self.weights.as_deref().ok_or_else(|| Error::internal("weights that nobody checked"))?;
        let reader = FrequencyNet::open(path).context(|| format!("detect.weights: {}", path.display()))?;
        if self.mean.len() != case.image.channels() {
            return Err(Error::configuration(
                format!(
                    "detect.mean is of {} channels, and pictures have {}",
                    self.mean.len(),
                    case.image.channels()
                ),
                "the network of detect.weights reads pictures of as many channels as it was trained on",
            ));
        }
        let image = ImageConfig {
            mean: self.mean.clone(),
            std: self.std.clone(),
            ..case.image.clone()
        };
        let examples = match self.classes {
            Classes::All => (0..case.labels.len()).collect(),
            Classes::Predicted => case.members(),
        };
        let mut all = Vec::new();
        for batch in examples.chunks(BATCH) {
            let pictures = standardise(&lab.pictures(batch)?, &image)?;
            let read = reader.probabilities(&pictures)?;
            all.extend(batch.iter().zip(read).map(|(&position, score)| Suspect { position, score }));
            report.progress("frequencies", all.len() as u64, examples.len() as u64, "");
        }
        let flagged: Vec<Suspect> = all.iter().filter(|s| s.score >= self.probability).cloned().collect();
        report.log(&format!("{} of {} training examples flagged", flagged.len(), all.len()));
        Ok(told(self, case, ranked::strongest_first(flagged), &all))
    }
}

/// The network: three times [conv 3 × 3, batch norm, ELU, conv 3 × 3, batch norm, ELU, max-pool 2], then one linear layer of two outputs.
#[derive(Debug)]
struct FrequencyNet(BTreeMap<String, Tensor>);

impl FrequencyNet {
    /// Widths are the file's.
    fn open(path: &Path) -> Result<Self> {
        let found = Self(
            read_tensors(&fs_err::read(path)?)?
                .into_iter()
                .map(|(name, t)| (name, t.to_kind(Kind::Float)))
                .collect(),
        );
        let mut channels = None;
        for i in 1..=6 {
            let [out, inner, 3, 3] = found.get(&format!("conv{i}.weight"))?.size()[..] else {
                return Err(unfit(format!("conv{i}.weight is no convolution of 3 × 3")));
            };
            let vectors = ["conv{}.bias", "bn{}.weight", "bn{}.bias", "bn{}.running_mean", "bn{}.running_var"];
            for name in vectors.map(|name| name.replace("{}", &i.to_string())) {
                if found.get(&name)?.size() != [out] {
                    return Err(unfit(format!("{name} does not belong to {out} channels")));
                }
            }
            if channels.is_some_and(|c| c != inner) {
                return Err(unfit(format!(
                    "conv{i} reads {inner} channels, and the layer before it has another number"
                )));
            }
            channels = Some(out);
        }
        let (rows, bias) = (found.get("fc1.weight")?.size(), found.get("fc1.bias")?.size());
        match (&rows[..], &bias[..]) {
            ([2, _], [2]) => Ok(found),
            _ => Err(unfit("fc1 is no linear layer of two outputs".into())),
        }
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        self.0.get(name).ok_or_else(|| unfit(format!("there is no tensor {name}")))
    }

    /// Of each picture (B × C × H × W, normalised) the probability of the second output.
    fn probabilities(&self, pictures: &Tensor) -> Result<Vec<f64>> {
        let _guard = tch::no_grad_guard();
        let (_, channels, height, width) = pictures.size4()?;
        let (first, rows) = (self.get("conv1.weight")?.size(), self.get("fc1.weight")?.size());
        let last = self.get("conv6.weight")?.size()[0];
        if first[1] != channels || rows[1] != last * (height / 8) * (width / 8) {
            return Err(Error::configuration(
                format!(
                    "the network of detect.weights reads {} channels and {} places, and the pictures are {channels} × {height} × {width}",
                    first[1],
                    rows[1] / last
                ),
                "it reads pictures of the size that it was trained on only (the published one: 3 × 32 × 32)",
            ));
        }
        let mut x = cosines(pictures)?.f_to_kind(Kind::Float)?;
        for i in 1..=6 {
            let get = |name: &str| self.get(&name.replace("{}", &i.to_string()));
            x = x.f_conv2d(get("conv{}.weight")?, Some(get("conv{}.bias")?), [1, 1], [1, 1], [1, 1], 1)?;
            let [weight, bias, mean, variance] = ["bn{}.weight", "bn{}.bias", "bn{}.running_mean", "bn{}.running_var"].map(get);
            x = x.f_batch_norm(Some(weight?), Some(bias?), Some(mean?), Some(variance?), false, 0.1, 1e-5, false)?;
            x = x.f_elu()?;
            if i % 2 == 0 {
                x = x.f_max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)?;
            }
        }
        let logits = x.f_flatten(1, -1)?.f_linear(self.get("fc1.weight")?, Some(self.get("fc1.bias")?))?;
        let second = logits.f_softmax(1, Kind::Double)?.f_select(1, 1)?;
        let read = Vec::<f64>::try_from(&second.f_contiguous()?)?;
        match read.iter().all(|p| p.is_finite()) {
            true => Ok(read),
            false => Err(Error::new(
                Code::NotFinite,
                "the network of detect.weights answers with something that is not a number",
                "look for NaN or huge values in the file",
            )),
        }
    }
}

fn unfit(what: String) -> Error {
    Error::new(
        Code::FileUnusable,
        what,
        "the file must hold conv1 … conv6, bn1 … bn6 and fc1, as docs/frequency.py writes them",
    )
}

/// The orthonormal cosine transform (DCT-II) over the last two dimensions, in float64.
fn cosines(pictures: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = pictures.size4()?;
    let pictures = pictures.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
    Ok(basis(height)?.f_matmul(&pictures)?.f_matmul(&basis(width)?.f_tr()?)?)
}

/// Row k: c_k cos(π (2t + 1) k / 2n), c_0 = √(1/n), c_k = √(2/n).
fn basis(n: i64) -> Result<Tensor> {
    let entry = |k: i64, t: i64| {
        let scale = if k == 0 { 1.0 } else { 2.0 } / n as f64;
        scale.sqrt() * (std::f64::consts::PI * ((2 * t + 1) * k) as f64 / (2 * n) as f64).cos()
    };
    let all: Vec<f64> = (0..n).flat_map(|k| (0..n).map(move |t| entry(k, t))).collect();
    Ok(Tensor::f_from_slice(&all)?.f_view([n, n])?)
}

fn told(keys: &Keys, case: &DetectCase, flagged: Vec<Suspect>, all: &[Suspect]) -> Detection {
    let of_label: Vec<Suspect> = all
        .iter()
        .filter(|s| case.labels[s.position] as usize == case.wrong_label)
        .cloned()
        .collect();
    let meaning = "probability that something was put on the picture, by a network that reads its frequencies";
    let mut exhibits = Vec::new();
    let caption = "What the frequency detector says of each picture.";
    exhibits.extend(ranked::of_class(&of_label, &flagged, "Frequencies", caption, "probability"));
    let rows = flagged.iter().map(|f| vec![Cell::Number(f.score)]).collect();
    exhibits.extend(ranked::table(vec![column("probability", "probability", meaning, 3)], rows));
    Detection {
        verdict: ranked::verdict(&flagged, || {
            Abstain::other("no-frequency", format!("no picture has a probability of {} or more", keys.probability))
        }),
        flagged,
        words: Words {
            called: "the frequency detector".into(),
            score: "probability".into(),
            score_meaning: meaning.into(),
            score_decimals: 3,
            flagged: "have frequencies like pictures with something put on them".into(),
            caution: "It flags clean pictures in every class, and knows nothing of this prediction: take the list as a place to look, not as one to remove.".into(),
        },
        sure: ranked::unmeasured("The network was trained on other pictures and has seen neither the model nor the submitted picture."),
        exhibits,
        notes: Vec::new(),
        support: Vec::new(),
        details: serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests;
