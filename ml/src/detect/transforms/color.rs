//! Colour: torchvision's `adjust_brightness`, `adjust_contrast`, `adjust_saturation`, `adjust_hue` on N × C × H × W, and the channel switch.
//!
//! Every blend clamps its result to [0, 1], also where the pictures are normalised (`paper-code`): there it cuts every negative value to 0.

use super::Jitter;
use crate::error::Result;
use tch::Tensor;

/// One step of the jitter.
pub(super) fn jitter(x: &Tensor, step: Jitter) -> Result<Tensor> {
    let rgb = x.size4()?.1 == 3;
    match step {
        Jitter::Brightness(factor) => blend(x, &x.f_zeros_like()?, factor),
        Jitter::Contrast(factor) => blend(x, &grey(x)?.f_mean_dim(&[1i64, 2, 3][..], true, x.kind())?, factor),
        Jitter::Saturation(factor) if rgb => blend(x, &grey(x)?, factor),
        Jitter::Hue(turns) if rgb => hue(x, turns),
        Jitter::Saturation(_) | Jitter::Hue(_) => Ok(x.shallow_clone()),
    }
}

/// Channels 0 and 1 swapped; pictures of one channel stay as they are.
pub(super) fn switch(x: &Tensor) -> Result<Tensor> {
    let channels = x.size4()?.1;
    if channels < 2 {
        return Ok(x.shallow_clone());
    }
    let order: Vec<i64> = [1, 0].into_iter().chain(2..channels).collect();
    Ok(x.f_index_select(1, &Tensor::f_from_slice(&order)?.f_to_device(x.device())?)?)
}

/// f·a + (1 − f)·b, clamped to [0, 1].
fn blend(a: &Tensor, b: &Tensor, factor: f64) -> Result<Tensor> {
    Ok(a.f_mul_scalar(factor)?.f_add(&b.f_mul_scalar(1.0 - factor)?)?.f_clamp(0.0, 1.0)?)
}

/// Grey values, N × 1 × H × W: torchvision's weights for three channels, else the mean of the channels.
fn grey(x: &Tensor) -> Result<Tensor> {
    if x.size4()?.1 != 3 {
        return Ok(x.f_mean_dim(&[1i64][..], true, x.kind())?);
    }
    let part = |channel, weight: f64| x.f_narrow(1, channel, 1).and_then(|c| c.f_mul_scalar(weight));
    Ok(part(0, 0.2989)?.f_add(&part(1, 0.587)?)?.f_add(&part(2, 0.114)?)?)
}

/// Hue turned by `turns`.
fn hue(x: &Tensor, turns: f64) -> Result<Tensor> {
    let [h, s, v] = hsv_from_rgb(x)?;
    let h = h.f_add_scalar(turns)?.f_remainder(1.0)?;
    rgb_from_hsv(&h, &s, &v)
}

/// Hue, saturation, value; N × H × W each.
fn hsv_from_rgb(x: &Tensor) -> Result<[Tensor; 3]> {
    let (r, g, b) = (x.f_select(1, 0)?, x.f_select(1, 1)?, x.f_select(1, 2)?);
    let max = x.f_amax([1i64], false)?;
    let min = x.f_amin([1i64], false)?;
    let range = max.f_sub(&min)?;
    let one = max.f_ones_like()?;
    let flat = max.f_eq_tensor(&min)?;
    // torchvision divides by the value alone; a value of exactly 0 over a negative minimum (normalised pictures) would make a NaN there.
    let s = range.f_div(&one.f_where_self(&flat.f_logical_or(&max.f_eq(0.0)?)?, &max)?)?;
    let divisor = one.f_where_self(&flat, &range)?;
    let away = |channel: &Tensor| max.f_sub(channel).and_then(|d| d.f_div(&divisor));
    let (rc, gc, bc) = (away(&r)?, away(&g)?, away(&b)?);
    let is_r = max.f_eq_tensor(&r)?;
    let is_g = max.f_eq_tensor(&g)?.f_logical_and(&is_r.f_logical_not()?)?;
    let is_b = max.f_ne_tensor(&g)?.f_logical_and(&is_r.f_logical_not()?)?;
    let in_r = bc.f_sub(&gc)?.f_mul(&is_r)?;
    let in_g = rc.f_add_scalar(2.0)?.f_sub(&bc)?.f_mul(&is_g)?;
    let in_b = gc.f_add_scalar(4.0)?.f_sub(&rc)?.f_mul(&is_b)?;
    let h = in_r.f_add(&in_g)?.f_add(&in_b)?.f_div_scalar(6.0)?.f_add_scalar(1.0)?.f_fmod(1.0)?;
    Ok([h, s, max])
}

/// Back to N × 3 × H × W.
fn rgb_from_hsv(h: &Tensor, s: &Tensor, v: &Tensor) -> Result<Tensor> {
    let six = h.f_mul_scalar(6.0)?;
    let sector = six.f_floor()?;
    let f = six.f_sub(&sector)?;
    let sector = sector.f_to_kind(tch::Kind::Int64)?.f_remainder(6)?;
    let level = |drop: &Tensor| {
        drop.f_neg()
            .and_then(|d| d.f_add_scalar(1.0))
            .and_then(|d| d.f_mul(v))
            .and_then(|d| d.f_clamp(0.0, 1.0))
    };
    let p = level(s)?;
    let q = level(&s.f_mul(&f)?)?;
    let t = level(&s.f_mul(&f.f_neg()?.f_add_scalar(1.0)?)?)?;
    let pick = |by_sector: [&Tensor; 6]| -> Result<Tensor> {
        // N × 6 × H × W, then the plane of the pixel's own sector.
        let planes = Tensor::f_stack(&by_sector, 1)?;
        Ok(planes.f_gather(1, &sector.f_unsqueeze(1)?, false)?)
    };
    let r = pick([v, &q, &p, &p, &t, v])?;
    let g = pick([&t, v, v, &q, &p, &p])?;
    let b = pick([&p, &p, &t, v, v, &q])?;
    Ok(Tensor::f_cat(&[r, g, b], 1)?)
}
