//! Bytes → what the model sees.

use crate::error::{Error, Result};
use delta_guard_contract::ImageConfig;
use tch::{Device, Kind, Tensor};

/// (x/255 − mean) / std per channel: uint8 [B, 3, H, W] → `kind` [B, 3, H, W] on `device`. Computed in float32, or in float64 where `kind` is `Double`.
///
/// Errors: a tensor of another shape (`Internal`), a std that is not above 0 (`Configuration`).
pub fn normalise(batch: &Tensor, image: &ImageConfig, kind: Kind, device: Device) -> Result<Tensor> {
    if batch.kind() != Kind::Uint8 || batch.dim() != 4 || batch.size()[1] != 3 {
        return Err(Error::internal(format!(
            "normalise was given {:?} {:?}, not uint8 [B, 3, H, W]",
            batch.kind(),
            batch.size()
        )));
    }
    if image.std.iter().any(|&s| !(s.is_finite() && s > 0.0)) || image.mean.iter().any(|m| !m.is_finite()) {
        return Err(Error::configuration(
            format!("mean {:?} and std {:?} cannot normalise pictures", image.mean, image.std),
            "set data.image.std to figures above 0 and data.image.mean to finite ones, as in training",
        ));
    }
    let work = if kind == Kind::Double { Kind::Double } else { Kind::Float };
    let channel =
        |values: &[f64; 3]| -> Result<Tensor> { Ok(Tensor::f_from_slice(values)?.f_to_kind(work)?.f_to_device(device)?.f_view([1, 3, 1, 1])?) };
    let x = batch.f_to_device(device)?.f_to_kind(work)?;
    let x = x.f_div_scalar(255.0)?.f_sub(&channel(&image.mean)?)?.f_div(&channel(&image.std)?)?;
    Ok(x.f_to_kind(kind)?)
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
            mean: [0.1, 0.5, 0.9],
            std: [0.2, 0.3, 0.4],
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
                    std: [1.0, 0.0, 1.0],
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
