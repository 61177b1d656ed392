//! The transforms of Δ-Influence's queries (algorithm §2), with torchvision's arithmetic.
//!
//! Each is split in two: [`Transform::draw`] takes its parameters from a random stream on the Rust side (so they are the same on every device),
//! [`Transform::apply`] is a pure function of picture and parameters. Fixed parameters are checked against torchvision in `tests/`.

mod blur;
mod color;
mod geometry;

use crate::error::{Error, Result, ResultExt};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

pub use geometry::Interpolation;

/// σ of the elastic transform's blur, pixels (torchvision's default).
const ELASTIC_SIGMA: f64 = 5.0;
/// α of the elastic transform: the blurred noise is multiplied by α / size.
const ELASTIC_ALPHA: f64 = 150.0;
/// Width and height of the blur's kernel.
const BLUR_KERNEL: (usize, usize) = (5, 9);

/// Which transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Horizontal flip.
    Flip,
    /// Brightness, contrast, saturation and hue in random order.
    ColorJitter,
    /// Rotation, scale and x-shear about the centre, nearest neighbour.
    RandomAffine,
    /// Smooth random displacement.
    Elastic,
    /// Gaussian blur.
    Blur,
    /// 1 − x.
    Invert,
    /// Channels 0 and 1 swapped.
    ColorSwitch,
    /// Rotation about the centre, bilinear: in the paper's text only.
    Rotation,
}

impl Kind {
    /// All eight of the paper's text; the first seven are those of the authors' code.
    pub const ALL: [Kind; 8] = [
        Kind::Flip,
        Kind::ColorJitter,
        Kind::RandomAffine,
        Kind::Elastic,
        Kind::Blur,
        Kind::Invert,
        Kind::ColorSwitch,
        Kind::Rotation,
    ];

    /// The transforms that are drawn from: all eight, or, without rotations of their own, the seven of the code (rotation lives in the affine one).
    pub fn drawn(rotation: bool) -> &'static [Kind] {
        if rotation { &Self::ALL } else { &Self::ALL[..7] }
    }

    /// The authors' name for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Flip => "flip",
            Kind::ColorJitter => "color_jitter",
            Kind::RandomAffine => "random_affine",
            Kind::Elastic => "elastic",
            Kind::Blur => "blur",
            Kind::Invert => "invert",
            Kind::ColorSwitch => "color_switch",
            Kind::Rotation => "rotation",
        }
    }
}

/// One step of the colour jitter with its factor (hue: a shift in turns).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Jitter {
    /// f·x.
    Brightness(f64),
    /// Blend with the mean of the grey picture.
    Contrast(f64),
    /// Blend with the grey picture.
    Saturation(f64),
    /// Hue turned by this part of a full turn (−½ to ½).
    Hue(f64),
}

/// A transform with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Transform {
    /// Horizontal flip.
    Flip,
    /// The four steps in the order in which they act.
    ColorJitter([Jitter; 4]),
    /// Degrees, factor, degrees.
    RandomAffine {
        /// Rotation, degrees (torchvision's sense).
        angle: f64,
        /// Scale.
        scale: f64,
        /// Shear along x, degrees.
        shear_x: f64,
    },
    /// Noise in [−1, 1), 2 × H × W: x displacements, then y.
    Elastic {
        /// The noise before blurring.
        noise: Vec<f32>,
        /// Height of the pictures that it fits.
        height: usize,
        /// Their width.
        width: usize,
    },
    /// σ in pixels, the same on both axes.
    Blur {
        /// σ.
        sigma: f64,
    },
    /// 1 − x.
    Invert,
    /// Channels 0 and 1 swapped.
    ColorSwitch,
    /// Degrees, counter-clockwise.
    Rotation {
        /// Angle.
        angle: f64,
    },
}

impl Transform {
    /// Draw the parameters of a `kind` for pictures of the given size. The published ranges (algorithm §2).
    pub fn draw(kind: Kind, rng: &mut ChaCha8Rng, height: usize, width: usize) -> Self {
        match kind {
            Kind::Flip => Self::Flip,
            Kind::ColorJitter => {
                let mut steps = [
                    Jitter::Brightness(rng.random_range(0.9..1.1)),
                    Jitter::Contrast(rng.random_range(0.9..1.1)),
                    Jitter::Saturation(rng.random_range(0.6..1.4)),
                    Jitter::Hue(rng.random_range(-0.1..0.1)),
                ];
                for last in (1..steps.len()).rev() {
                    // u32: the same draw whatever the width of a pointer.
                    steps.swap(last, rng.random_range(0..=last as u32) as usize);
                }
                Self::ColorJitter(steps)
            }
            Kind::RandomAffine => Self::RandomAffine {
                angle: rng.random_range(-180.0..180.0),
                scale: rng.random_range(1.0..2.0),
                shear_x: rng.random_range(-10.0..10.0),
            },
            Kind::Elastic => {
                let noise = (0..2 * height * width).map(|_| rng.random_range(-1.0f32..1.0)).collect();
                Self::Elastic { noise, height, width }
            }
            Kind::Blur => Self::Blur {
                sigma: rng.random_range(8.0..10.0),
            },
            Kind::Invert => Self::Invert,
            Kind::ColorSwitch => Self::ColorSwitch,
            Kind::Rotation => Self::Rotation {
                angle: rng.random_range(-180.0..180.0),
            },
        }
    }

    /// Which it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Flip => Kind::Flip,
            Self::ColorJitter(_) => Kind::ColorJitter,
            Self::RandomAffine { .. } => Kind::RandomAffine,
            Self::Elastic { .. } => Kind::Elastic,
            Self::Blur { .. } => Kind::Blur,
            Self::Invert => Kind::Invert,
            Self::ColorSwitch => Kind::ColorSwitch,
            Self::Rotation { .. } => Kind::Rotation,
        }
    }

    /// Apply to pictures, C × H × W or N × C × H × W, floating point, on any device; shape and kind stay. Pictures without three channels keep
    /// their saturation and hue, those with fewer than two their channels' order. Errors: another rank or an integer kind; a size that an
    /// elastic transform was not drawn for.
    pub fn apply(&self, pictures: &Tensor) -> Result<Tensor> {
        let shape = pictures.size();
        if !(3..=4).contains(&shape.len()) || shape.contains(&0) || !matches!(pictures.kind(), tch::Kind::Float | tch::Kind::Double) {
            let got = format!("{shape:?} {:?}", pictures.kind());
            return Err(Error::internal(format!(
                "a transform needs C × H × W or N × C × H × W floating-point pictures, got {got}"
            )));
        }
        let batch = if shape.len() == 3 {
            pictures.f_unsqueeze(0)?
        } else {
            pictures.shallow_clone()
        };
        let done = self.apply_batch(&batch).context(|| format!("transform {}", self.kind().name()))?;
        Ok(if shape.len() == 3 { done.f_squeeze_dim(0)? } else { done })
    }

    fn apply_batch(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Flip => Ok(x.f_flip([3])?),
            Self::ColorJitter(steps) => steps.iter().try_fold(x.shallow_clone(), |x, step| color::jitter(&x, *step)),
            Self::RandomAffine { angle, scale, shear_x } => geometry::affine(x, *angle, *scale, *shear_x, Interpolation::Nearest),
            Self::Elastic { noise, height, width } => {
                let (_, _, h, w) = x.size4()?;
                if (h, w) != (*height as i64, *width as i64) {
                    return Err(Error::internal(format!("drawn for {height} × {width} pictures, applied to {h} × {w}")));
                }
                geometry::elastic(x, &displacement(noise, h, w)?)
            }
            Self::Blur { sigma } => blur::gaussian(x, BLUR_KERNEL, *sigma),
            Self::Invert => Ok(x.f_neg()?.f_add_scalar(1.0)?),
            Self::ColorSwitch => color::switch(x),
            Self::Rotation { angle } => geometry::rotate(x, *angle),
        }
    }
}

/// From noise to displacement: Gaussian blur with torchvision's kernel size (int(8σ + 1), made odd), times α / size. torchvision divides the x
/// displacement by the height and the y displacement by the width; for square pictures it is the same. Returns 1 × H × W × 2 on the CPU.
fn displacement(noise: &[f32], height: i64, width: i64) -> Result<Tensor> {
    let kernel = (8.0 * ELASTIC_SIGMA + 1.0) as usize | 1;
    let noise = Tensor::f_from_slice(noise)?.f_view([2, 1, height, width])?;
    let smooth = blur::gaussian(&noise, (kernel, kernel), ELASTIC_SIGMA)?;
    let x = smooth.f_get(0)?.f_mul_scalar(ELASTIC_ALPHA)?.f_div_scalar(height as f64)?;
    let y = smooth.f_get(1)?.f_mul_scalar(ELASTIC_ALPHA)?.f_div_scalar(width as f64)?;
    Ok(Tensor::f_stack(&[x, y], 3)?)
}

#[cfg(test)]
mod tests;
