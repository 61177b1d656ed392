//! Bytes → what the model sees.

use crate::error::{Error, Result};
use delta_guard_contract::ImageConfig;
use tch::{Device, Kind, Tensor};

/// (x/255 − mean) / std per channel: uint8 [B, C, H, W] → `kind` [B, C, H, W] on `device`. Computed in float32, or in float64 where `kind` is `Double`.
///
/// Errors: a tensor of another shape (`Internal`), a std that is not above 0 (`Configuration`).
pub fn normalise(batch: &Tensor, image: &ImageConfig, kind: Kind, device: Device) -> Result<Tensor> {
    if batch.kind() != Kind::Uint8 || batch.dim() != 4 || batch.size()[1] != image.channels() as i64 {
        return Err(Error::internal(format!(
            "normalise was given {:?} {:?}, not uint8 [B, {}, H, W]",
            batch.kind(),
            batch.size(),
            image.channels()
        )));
    }
    let work = if kind == Kind::Double { Kind::Double } else { Kind::Float };
    let unit = batch.f_to_device(device)?.f_to_kind(work)?.f_div_scalar(255.0)?;
    Ok(standardise(&unit, image)?.f_to_kind(kind)?)
}

/// (x − mean) / std per channel, of pictures in [0, 1]: floats [C, H, W] or [B, C, H, W]. THE definition; [`normalise`] calls it.
///
/// Errors: a tensor of another shape (`Internal`), a std that is not above 0 (`Configuration`).
pub fn standardise(pictures: &Tensor, image: &ImageConfig) -> Result<Tensor> {
    let shape = pictures.size();
    let channels = image.channels() as i64;
    if !matches!(shape[..], [c, _, _] | [_, c, _, _] if c == channels) || image.std.len() != image.channels() || !pictures.is_floating_point() {
        return Err(Error::internal(format!(
            "standardise was given {:?} {shape:?}, not floats [{channels}, H, W] or [B, {channels}, H, W]",
            pictures.kind()
        )));
    }
    if image.std.iter().any(|&s| !(s.is_finite() && s > 0.0)) || image.mean.iter().any(|m| !m.is_finite()) {
        return Err(Error::configuration(
            format!("mean {:?} and std {:?} cannot normalise pictures", image.mean, image.std),
            "set data.image.std to figures above 0 and data.image.mean to finite ones, as in training",
        ));
    }
    let channel = |values: &[f64]| -> Result<Tensor> {
        let values = Tensor::f_from_slice(values)?.f_to_kind(pictures.kind())?;
        Ok(values.f_to_device(pictures.device())?.f_view([channels, 1, 1])?)
    };
    Ok(pictures.f_sub(&channel(&image.mean)?)?.f_div(&channel(&image.std)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_each_channel_by_its_own_figures() {
        let pixels: Vec<u8> = (0..2 * 3 * 2 * 2).map(|i| (i * 11 % 256) as u8).collect();
        let batch = Tensor::from_slice(&pixels).view([2, 3, 2, 2]);
        let image = ImageConfig {
            height: 2,
            width: 2,
            mean: vec![0.1, 0.5, 0.9],
            std: vec![0.2, 0.3, 0.4],
            ..ImageConfig::default()
        };
        let out = normalise(&batch, &image, Kind::Double, Device::Cpu).unwrap();
        let got = Vec::<f64>::try_from(out.view([-1])).unwrap();
        for (i, (&p, g)) in pixels.iter().zip(got).enumerate() {
            let c = i / 4 % 3;
            let want = (f64::from(p) / 255.0 - image.mean[c]) / image.std[c];
            assert!((g - want).abs() < 1e-14, "{i}: {g} {want}");
        }
        let float = normalise(&batch, &image, Kind::Float, Device::Cpu).unwrap();
        assert!((float.to_kind(Kind::Double) - out).abs().max().double_value(&[]) < 1e-6);
        assert!(
            normalise(
                &batch,
                &ImageConfig {
                    std: vec![1.0, 0.0, 1.0],
                    ..image.clone()
                },
                Kind::Float,
                Device::Cpu
            )
            .is_err()
        );
        assert!(normalise(&batch.to_kind(Kind::Float), &image, Kind::Float, Device::Cpu).is_err());
    }
}
