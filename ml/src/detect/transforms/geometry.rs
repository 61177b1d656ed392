//! Geometry: affine, rotation and elastic displacement with torchvision's matrices, grids and filling, on N × C × H × W.

use super::Result;
use tch::{Device, Kind, Tensor};

/// How a value between pixels is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The nearest pixel.
    Nearest,
    /// Linear in both directions.
    Bilinear,
}

/// Rotation (degrees), scale and x-shear (degrees) about the centre; outside is 0.
pub(super) fn affine(x: &Tensor, angle: f64, scale: f64, shear_x: f64, interpolation: Interpolation) -> Result<Tensor> {
    sample(x, &affine_grid(inverse_matrix(angle, scale, shear_x), x)?, interpolation)
}

/// Rotation counter-clockwise (degrees) about the centre, bilinear; outside is 0. torchvision's `rotate` turns the other way round than its
/// `affine`.
pub(super) fn rotate(x: &Tensor, angle: f64) -> Result<Tensor> {
    sample(x, &affine_grid(inverse_matrix(-angle, 1.0, 0.0), x)?, Interpolation::Bilinear)
}

/// Displacement 1 × H × W × 2 (in units of half the picture's side) added to the identity grid, bilinear; outside is 0.
pub(super) fn elastic(x: &Tensor, displacement: &Tensor) -> Result<Tensor> {
    let (_, _, h, w) = x.size4()?;
    let side = |n: i64| Tensor::f_linspace((1.0 - n as f64) / n as f64, (n as f64 - 1.0) / n as f64, n, (Kind::Float, Device::Cpu));
    let ys = side(h)?.f_view([h, 1])?.f_expand([h, w], false)?;
    let xs = side(w)?.f_view([1, w])?.f_expand([h, w], false)?;
    let identity = Tensor::f_stack(&[xs, ys], 2)?.f_unsqueeze(0)?;
    sample(x, &identity.f_add(displacement)?, Interpolation::Bilinear)
}

/// torchvision's `_get_inverse_affine_matrix` for centre and translation 0: the first two rows of the matrix from output to input places.
fn inverse_matrix(angle: f64, scale: f64, shear_x: f64) -> [f64; 6] {
    let (rotation, shear) = (angle.to_radians(), shear_x.to_radians());
    let a = rotation.cos();
    let b = -rotation.cos() * shear.tan() - rotation.sin();
    let c = rotation.sin();
    let d = -rotation.sin() * shear.tan() + rotation.cos();
    [d / scale, -b / scale, 0.0, -c / scale, a / scale, 0.0]
}

/// Where each output pixel is read, 1 × H × W × 2. On the CPU whatever the picture's device: matrix products on a GPU may be rounded to 10 bits,
/// and nearest neighbours would then differ.
fn affine_grid(matrix: [f64; 6], x: &Tensor) -> Result<Tensor> {
    let (_, _, h, w) = x.size4()?;
    let options = (x.kind(), Device::Cpu);
    let side = |n: i64| Tensor::f_linspace(0.5 - n as f64 * 0.5, n as f64 * 0.5 - 0.5, n, options);
    let xs = side(w)?.f_view([1, w])?.f_expand([h, w], false)?;
    let ys = side(h)?.f_view([h, 1])?.f_expand([h, w], false)?;
    let ones = Tensor::f_ones([h, w], options)?;
    let base = Tensor::f_stack(&[xs, ys, ones], 2)?.f_view([1, h * w, 3])?;
    let theta = Tensor::f_from_slice(&matrix)?.f_to_kind(x.kind())?.f_view([1, 2, 3])?.f_transpose(1, 2)?;
    let half = Tensor::f_from_slice(&[0.5 * w as f64, 0.5 * h as f64])?.f_to_kind(x.kind())?;
    Ok(base.f_bmm(&theta.f_div(&half)?)?.f_view([1, h, w, 2])?)
}

/// Read the pictures at the grid's places, 0 outside. As in torchvision a plane of ones is sampled along, and the result is multiplied by it
/// (bilinear) or cut where it is below a half (nearest): at the border bilinear values are thus weakened twice.
fn sample(x: &Tensor, grid: &Tensor, interpolation: Interpolation) -> Result<Tensor> {
    let (n, c, h, w) = x.size4()?;
    let grid = grid.f_to_kind(x.kind())?.f_to_device(x.device())?.f_expand([n, h, w, 2], false)?;
    let ones = Tensor::f_ones([n, 1, h, w], (x.kind(), x.device()))?;
    let mode = match interpolation {
        Interpolation::Bilinear => 0,
        Interpolation::Nearest => 1,
    };
    // padding_mode 0: zeros.
    let read = Tensor::f_cat(&[x, &ones], 1)?.f_grid_sampler(&grid, mode, 0, false)?;
    let (picture, inside) = (read.f_narrow(1, 0, c)?, read.f_narrow(1, c, 1)?);
    Ok(match interpolation {
        Interpolation::Bilinear => picture.f_mul(&inside)?,
        Interpolation::Nearest => picture.f_where_self(&inside.f_ge(0.5)?, &picture.f_zeros_like()?)?,
    })
}
