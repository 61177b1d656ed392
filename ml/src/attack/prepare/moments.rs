//! Mean and standard deviation of a set's channels.

use crate::error::{Error, Result};

/// Sums for mean and standard deviation of each channel; exact, since bytes are whole numbers.
#[derive(Default)]
pub(in crate::attack) struct Moments {
    count: u64,
    sum: [u64; 3],
    squares: [u64; 3],
}

impl Moments {
    pub(in crate::attack) fn add(&mut self, pixels: &[u8]) {
        let area = pixels.len() / 3;
        self.count += area as u64;
        for (c, plane) in pixels.chunks_exact(area.max(1)).take(3).enumerate() {
            self.sum[c] += plane.iter().map(|p| u64::from(*p)).sum::<u64>();
            self.squares[c] += plane.iter().map(|p| u64::from(*p) * u64::from(*p)).sum::<u64>();
        }
    }

    /// In units of full brightness, to five decimals (as they stand in configuration files).
    pub(in crate::attack) fn figures(&self) -> Result<([f64; 3], [f64; 3])> {
        let round = |x: f64| (x * 1e5).round() / 1e5;
        let n = self.count as f64;
        let mean = self.sum.map(|s| s as f64 / n / 255.0);
        let std: [f64; 3] = std::array::from_fn(|c| round((self.squares[c] as f64 / n / 65025.0 - mean[c] * mean[c]).max(0.0).sqrt()));
        if std.iter().any(|s| *s <= 0.0 || !s.is_finite()) {
            return Err(Error::configuration(
                "a colour channel is the same in every training picture",
                "take pictures with some variation",
            ));
        }
        Ok((mean.map(round), std))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pictures of two pixels, red then green then blue.
    fn of(pictures: [[u8; 6]; 2]) -> Moments {
        let mut moments = Moments::default();
        pictures.iter().for_each(|picture| moments.add(picture));
        moments
    }

    #[test]
    fn mean_and_deviation_are_each_channels_own() {
        let (mean, std) = of([[0, 255, 51, 51, 0, 0], [0, 255, 102, 102, 0, 204]]).figures().unwrap();
        assert_eq!(mean, [0.5, 0.3, 0.2]);
        assert_eq!(std, [0.5, 0.1, 0.34641]);
    }

    #[test]
    fn a_channel_that_does_not_vary_is_refused() {
        for channel in 0..3 {
            let mut pictures = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]];
            for picture in &mut pictures {
                picture[2 * channel..2 * channel + 2].fill(9);
            }
            assert!(
                of(pictures)
                    .figures()
                    .unwrap_err()
                    .to_string()
                    .contains("the same in every training picture")
            );
        }
        assert!(Moments::default().figures().is_err(), "no picture at all");
    }
}
