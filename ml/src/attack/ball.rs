//! Pictures of which no byte may be changed by more than ε.

use crate::error::Result;
use std::rc::Rc;
use tch::{Device, Kind, Tensor};

/// Pictures, and how far each of their values may go. Everything in [0, 1], N × 3 × H × W.
pub(super) struct Ball {
    /// The pictures as they are.
    pub centre: Tensor,
    low: Tensor,
    high: Tensor,
    /// ε/255.
    pub radius: f64,
}

impl Ball {
    /// Around pictures (planar bytes [3, H, W]); computed in `kind` on `device`.
    pub fn around(pictures: &[impl AsRef<[u8]>], (height, width): (u32, u32), epsilon: u32, kind: Kind, device: Device) -> Result<Self> {
        let shape = [pictures.len() as i64, 3, i64::from(height), i64::from(width)];
        let bytes: Vec<u8> = pictures.iter().flat_map(|picture| picture.as_ref().iter().copied()).collect();
        let bytes = Tensor::f_from_slice(&bytes)?.f_view(shape)?.f_to_device(device)?.f_to_kind(kind)?;
        // In whole bytes, so that the bounds are bytes, too.
        let moved = |by: f64| -> Result<Tensor> { Ok(bytes.f_add_scalar(by)?.f_clamp(0.0, 255.0)?.f_div_scalar(255.0)?) };
        let epsilon = f64::from(epsilon);
        Ok(Self {
            centre: moved(0.0)?,
            low: moved(-epsilon)?,
            high: moved(epsilon)?,
            radius: epsilon / 255.0,
        })
    }

    /// The nearest pictures that are allowed.
    pub fn project(&self, pictures: &Tensor) -> Result<Tensor> {
        Ok(pictures.f_minimum(&self.high)?.f_maximum(&self.low)?)
    }

    /// Changed by ε times normal noise of this seed, as far as that is allowed.
    pub fn noisy(&self, seed: u64) -> Result<Tensor> {
        // Drawn on the CPU: the same numbers whatever the device.
        let noise = {
            let _alone = crate::random::seeded(seed);
            Tensor::f_randn(self.centre.size(), (Kind::Double, Device::Cpu))?
        };
        let noise = noise.f_to_kind(self.centre.kind())?.f_to_device(self.centre.device())?;
        self.project(&self.centre.f_add(&noise.f_mul_scalar(self.radius)?)?)
    }

    /// Allowed pictures at whole bytes.
    pub fn rounded(&self, pictures: &Tensor) -> Result<Tensor> {
        // The bounds are bytes: rounding does not leave them.
        Ok(self.project(pictures)?.f_mul_scalar(255.0)?.f_round()?.f_div_scalar(255.0)?)
    }

    /// The bytes of [`Ball::rounded`], planar [3, H, W] each.
    pub fn bytes(&self, pictures: &Tensor) -> Result<Vec<Rc<[u8]>>> {
        let bytes = self.rounded(pictures)?.f_mul_scalar(255.0)?.f_round()?;
        let flat = bytes.f_to_kind(Kind::Uint8)?.f_to_device(Device::Cpu)?.f_reshape([-1])?;
        let each = flat.numel() / (pictures.size()[0].max(1) as usize);
        Ok(Vec::<u8>::try_from(&flat)?.chunks(each.max(1)).map(Rc::from).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures() -> Vec<Vec<u8>> {
        (0..4u32).map(|n| (0..48).map(|i| ((n * 61 + i * 97) % 256) as u8).collect()).collect()
    }

    #[test]
    fn whatever_is_asked_the_bytes_stay_within_epsilon_and_are_bytes() {
        let pictures = pictures();
        for kind in [Kind::Float, Kind::Double] {
            for epsilon in [1, 16, 255] {
                let ball = Ball::around(&pictures, (4, 4), epsilon, kind, Device::Cpu).unwrap();
                assert_eq!(ball.bytes(&ball.centre).unwrap().concat(), pictures.concat());
                for far in [-3.0, 3.0] {
                    let bytes = ball.bytes(&(&ball.centre + far)).unwrap().concat();
                    let ends: Vec<u8> = pictures
                        .concat()
                        .iter()
                        .map(|p| {
                            if far < 0.0 {
                                p.saturating_sub(epsilon as u8)
                            } else {
                                p.saturating_add(epsilon as u8)
                            }
                        })
                        .collect();
                    assert_eq!(bytes, ends, "{kind:?}, {epsilon}: the bounds themselves");
                }
                let noisy = ball.noisy(5).unwrap();
                let bytes = ball.bytes(&noisy).unwrap().concat();
                assert!(bytes.iter().zip(pictures.concat()).all(|(b, p)| u32::from(b.abs_diff(p)) <= epsilon));
                let rounded = ball.rounded(&noisy).unwrap();
                let apart: Tensor = &rounded - &noisy;
                assert!(apart.abs().max().double_value(&[]) <= 0.5 / 255.0 + 1e-6);
            }
        }
    }

    #[test]
    fn noise_is_as_wide_as_epsilon_and_follows_its_seed() {
        let grey = vec![vec![128u8; 3 * 32 * 32]; 8];
        let ball = Ball::around(&grey, (32, 32), 100, Kind::Double, Device::Cpu).unwrap();
        let noise = |seed| ball.noisy(seed).unwrap() - &ball.centre;
        assert_eq!((&noise(1) - &noise(1)).abs().max().double_value(&[]), 0.0);
        assert!((&noise(1) - &noise(2)).abs().max().double_value(&[]) > 0.1);
        // Normal noise that is cut at one deviation: mean square 1 − 2φ(1) = 0.5161 of its own.
        let square = noise(1).square().mean(Kind::Double).double_value(&[]) / ball.radius.powi(2);
        assert!((square - 0.5161).abs() < 0.02, "{square}");
    }
}
