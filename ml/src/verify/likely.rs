//! Why answers differ: the usual mistakes are tried, one at a time.

use super::{OwnersPictures, difference};
use crate::data::normalise;
use crate::error::Result;
use crate::model::Model;
use delta_guard_contract::ImageConfig;
use delta_guard_contract::job::Proof;
use delta_guard_contract::picture::{Edges, ImageStep, Resampling};
use tch::{Device, Kind, Tensor};

/// A mistake is named where taking it back leaves less than this share of the difference.
const EXPLAINS: f64 = 0.2;

/// Sentences, the one that explains most first.
pub(super) fn causes(model: &Model, owner: &OwnersPictures, image: &ImageConfig, ours: &Tensor, wanted: &Tensor) -> Result<Vec<String>> {
    let now = difference(ours, wanted);
    let sorted = |logits: &Tensor| logits.sort(1, false).0;
    let mut found = vec![(
        difference(&sorted(ours), &sorted(wanted)),
        "the classes are in another order (data.classes)".to_string(),
    )];
    let pixels = owner.pixels(image)?;
    let answered = |images: &Tensor| Ok::<f64, crate::error::Error>(difference(&model.forward(images)?, wanted));
    if image.channels() == 3 {
        let turned = pixels.f_flip([1i64])?;
        found.push((
            answered(&normalise(&turned, image, Kind::Float, Device::Cpu)?)?,
            "channels are in the order B, G, R".to_string(),
        ));
    }
    let bytes = ImageConfig {
        mean: image.mean.iter().map(|m| m / 255.0).collect(),
        std: image.std.iter().map(|s| s / 255.0).collect(),
        ..image.clone()
    };
    found.push((
        answered(&normalise(&pixels, &bytes, Kind::Float, Device::Cpu)?)?,
        "the model reads brightness from 0 to 255 (mean and std are in those units)".to_string(),
    ));
    for (mean, std, name) in NORMALISATIONS {
        let channels = image.channels();
        let other = ImageConfig {
            mean: mean[..channels].to_vec(),
            std: std[..channels].to_vec(),
            ..image.clone()
        };
        if other != *image {
            let off = answered(&normalise(&pixels, &other, Kind::Float, Device::Cpu)?)?;
            found.push((off, format!("the model was trained with {name}")));
        }
    }
    for (other, name) in resized(image) {
        // Another way may not fit a picture; then it was not that.
        let Ok(pixels) = owner.pixels(&other) else { continue };
        found.push((answered(&normalise(&pixels, &other, Kind::Float, Device::Cpu)?)?, name));
    }
    found.retain(|(off, _)| *off < EXPLAINS * now);
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let told = found.into_iter().take(3).map(|(off, name)| {
        let proof = Proof {
            pictures: 0,
            difference: off,
            same_class: 0,
            likely: Vec::new(),
        };
        if proof.agrees() {
            format!("{name}: then the answers agree")
        } else {
            format!("{name}: then the difference is {off:.1e} instead of {now:.1e}")
        }
    });
    Ok(told.collect())
}

const NORMALISATIONS: [([f64; 3], [f64; 3], &str); 4] = [
    (
        [0.485, 0.456, 0.406],
        [0.229, 0.224, 0.225],
        "ImageNet's mean [0.485, 0.456, 0.406] and std [0.229, 0.224, 0.225]",
    ),
    ([0.5; 3], [0.5; 3], "mean 0.5 and std 0.5"),
    ([0.0; 3], [1.0; 3], "mean 0 and std 1"),
    (
        [0.4914, 0.4822, 0.4465],
        [0.2470, 0.2435, 0.2616],
        "CIFAR-10's mean [0.4914, 0.4822, 0.4465] and std [0.247, 0.2435, 0.2616]",
    ),
];

/// Other filters, a stretch in place of a cut, and the usual 256 before 224.
fn resized(image: &ImageConfig) -> Vec<(ImageConfig, String)> {
    let (height, width) = (image.height, image.width);
    let steps = image.steps.clone().unwrap_or_default();
    let with = |steps: Vec<ImageStep>| ImageConfig {
        steps: Some(steps),
        ..image.clone()
    };
    let filters = [Resampling::Nearest, Resampling::Bilinear, Resampling::Bicubic, Resampling::Lanczos];
    let mut others = Vec::new();
    for filter in filters {
        let changed: Vec<ImageStep> = steps
            .iter()
            .map(|step| match *step {
                ImageStep::Resize { to, .. } => ImageStep::Resize { to, resampling: filter },
                other => other,
            })
            .collect();
        others.push((with(changed), format!("pictures are resized with {filter:?}").to_lowercase()));
    }
    let grey: Vec<ImageStep> = steps.iter().filter(|step| matches!(step, ImageStep::Grayscale { .. })).copied().collect();
    for resampling in [Resampling::Bilinear, Resampling::Bicubic] {
        let both = ImageStep::Resize {
            to: Edges::Both { height, width },
            resampling,
        };
        others.push((
            with([grey.clone(), vec![both]].concat()),
            format!("pictures are stretched to {height} × {width}, not cut ({resampling:?})").to_lowercase(),
        ));
        for side in [height.min(width), height.min(width) * 8 / 7] {
            let shorter = ImageStep::Resize {
                to: Edges::Shorter { side, max: None },
                resampling,
            };
            others.push((
                with([grey.clone(), vec![shorter, ImageStep::CenterCrop { height, width }]].concat()),
                format!("the shorter side is resized to {side}, then {height} × {width} are cut ({resampling:?})").to_lowercase(),
            ));
        }
    }
    others.retain(|(other, _)| other.steps != image.steps);
    others
}
