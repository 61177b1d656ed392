//! Gaussian blur with reflected borders, as torchvision's `gaussian_blur`.

use crate::error::Result;
use tch::{Device, Tensor};

/// Blur N × C × H × W with a kernel of (width, height), both odd, and one σ in pixels. torchvision convolves with the outer product of the two
/// one-dimensional kernels; here they act one after the other, which is the same sum in another order.
pub(super) fn gaussian(x: &Tensor, kernel: (usize, usize), sigma: f64) -> Result<Tensor> {
    let (n, c, h, w) = x.size4()?;
    let single = x.f_contiguous()?.f_view([n * c, 1, h, w])?;
    let rows = single.f_index_select(3, &reflected(w, kernel.0 / 2, x.device())?)?;
    let rows = rows.f_conv2d::<Tensor>(
        &weights(kernel.0, sigma, x)?.f_view([1, 1, 1, kernel.0 as i64])?,
        None,
        [1, 1],
        [0, 0],
        [1, 1],
        1,
    )?;
    let both = rows.f_index_select(2, &reflected(h, kernel.1 / 2, x.device())?)?;
    let both = both.f_conv2d::<Tensor>(
        &weights(kernel.1, sigma, x)?.f_view([1, 1, kernel.1 as i64, 1])?,
        None,
        [1, 1],
        [0, 0],
        [1, 1],
        1,
    )?;
    Ok(both.f_view([n, c, h, w])?)
}

/// Places −pad … size + pad − 1, reflected at the first and the last pixel (which are not repeated) as often as it takes, so that pictures
/// smaller than the kernel work too; where one reflection is enough it is torch's `reflect` padding.
fn reflected(size: i64, pad: usize, device: Device) -> Result<Tensor> {
    let pad = pad as i64;
    let period = (2 * (size - 1)).max(1);
    let places: Vec<i64> = (-pad..size + pad)
        .map(|i| i.rem_euclid(period))
        .map(|i| i.min(period - i))
        .map(|i| i.min(size - 1))
        .collect();
    Ok(Tensor::f_from_slice(&places)?.f_to_device(device)?)
}

/// The normalised Gaussian, of the kind and on the device of `like`.
fn weights(size: usize, sigma: f64, like: &Tensor) -> Result<Tensor> {
    let half = (size as f64 - 1.0) / 2.0;
    let raw: Vec<f64> = (0..size).map(|i| (-0.5 * ((i as f64 - half) / sigma).powi(2)).exp()).collect();
    let sum: f64 = raw.iter().sum();
    let normalised: Vec<f64> = raw.iter().map(|v| v / sum).collect();
    Ok(Tensor::f_from_slice(&normalised)?.f_to_kind(like.kind())?.f_to_device(like.device())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_is_torchs_where_torch_can_and_goes_on_where_it_cannot() {
        let places = |size, pad| Vec::<i64>::try_from(reflected(size, pad, Device::Cpu).unwrap()).unwrap();
        assert_eq!(places(4, 2), [2, 1, 0, 1, 2, 3, 2, 1]);
        assert_eq!(places(2, 3), [1, 0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(places(1, 2), [0; 5]);
        let x = Tensor::arange(7, (tch::Kind::Float, Device::Cpu)).view([1, 1, 7]);
        let torch = Vec::<f32>::try_from(x.reflection_pad1d([5, 5]).view([-1])).unwrap();
        assert_eq!(places(7, 5).iter().map(|&i| i as f32).collect::<Vec<_>>(), torch);
    }
}
