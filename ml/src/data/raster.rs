//! A decoded picture: samples of 8 bits, row by row, the channels of a pixel side by side.

use super::picture::PictureRefusal;
use image::{GrayImage, RgbImage};

/// A picture of 1 (grey) or 3 (R, G, B) channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raster {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) channels: usize,
    pub(crate) samples: Vec<u8>,
}

impl From<RgbImage> for Raster {
    fn from(picture: RgbImage) -> Self {
        Self {
            width: picture.width(),
            height: picture.height(),
            channels: 3,
            samples: picture.into_raw(),
        }
    }
}

impl Raster {
    /// Grey as PIL's `convert("L")` makes it (ITU-R 601 in 16 bits), as one channel, or as three equal ones. What is grey already keeps its values.
    pub(crate) fn grey(self, channels: usize) -> Self {
        let grey: Vec<u8> = match self.channels {
            1 => self.samples,
            n => self.samples.chunks_exact(n).map(luma).collect(),
        };
        Self {
            samples: match channels {
                1 => grey,
                n => grey.into_iter().flat_map(|v| std::iter::repeat_n(v, n)).collect(),
            },
            channels,
            ..self
        }
    }

    /// With as many channels as the model reads.
    pub(crate) fn of_channels(self, channels: usize) -> Self {
        if self.channels == channels { self } else { self.grey(channels) }
    }

    /// Planar bytes [channels, height, width].
    pub(crate) fn planar(&self) -> Vec<u8> {
        if self.channels == 1 {
            return self.samples.clone();
        }
        (0..self.channels)
            .flat_map(|c| self.samples.iter().skip(c).step_by(self.channels).copied())
            .collect()
    }

    /// Planar bytes back to a picture; None where they are not of 1 or 3 channels of this size.
    pub(crate) fn from_planar(pixels: &[u8], height: u32, width: u32) -> Option<Self> {
        let area = height as usize * width as usize;
        let channels = [1, 3].into_iter().find(|c| pixels.len() == c * area && area > 0)?;
        let samples = (0..area).flat_map(|i| (0..channels).map(move |c| pixels[c * area + i])).collect();
        Some(Self {
            width,
            height,
            channels,
            samples,
        })
    }

    /// For an encoder.
    pub(crate) fn into_image(self) -> Option<image::DynamicImage> {
        match self.channels {
            1 => GrayImage::from_raw(self.width, self.height, self.samples).map(Into::into),
            _ => RgbImage::from_raw(self.width, self.height, self.samples).map(Into::into),
        }
    }

    /// torchvision's `center_crop`: black where the picture is smaller; the place is rounded half to even, as Python does.
    pub(crate) fn center_crop(&self, height: u32, width: u32) -> Self {
        let (left, from_x, columns) = cut(self.width, width);
        let (top, from_y, rows) = cut(self.height, height);
        let mut samples = vec![0; self.channels * width as usize * height as usize];
        let of = |row: u32, column: u32, width: u32| (row as usize * width as usize + column as usize) * self.channels;
        for row in 0..rows {
            let (to, from) = (of(top + row, left, width), of(from_y + row, from_x, self.width));
            let length = columns as usize * self.channels;
            samples[to..to + length].copy_from_slice(&self.samples[from..from + length]);
        }
        Self {
            width,
            height,
            channels: self.channels,
            samples,
        }
    }
}

/// Along one side: where the picture begins in the result, where the result begins in the picture, how many pixels they share.
fn cut(found: u32, wanted: u32) -> (u32, u32, u32) {
    if found < wanted {
        return ((wanted - found) / 2, 0, found);
    }
    let over = found - wanted;
    // over / 2, and a half to the even neighbour.
    let half = over / 2;
    (0, half + (over % 2) * (half % 2), wanted)
}

/// PIL's grey of (R, G, B).
fn luma(rgb: &[u8]) -> u8 {
    let weights = [19595u32, 38470, 7471];
    let sum: u32 = rgb.iter().zip(weights).map(|(v, w)| u32::from(*v) * w).sum();
    ((sum + 0x8000) >> 16) as u8
}

/// Refused where a picture of this size would have more pixels than `most`.
pub(crate) fn bounded((height, width): (u32, u32), most: u64, refusal: PictureRefusal) -> Result<(), PictureRefusal> {
    match u64::from(height) * u64::from(width) {
        0 => Err(refusal),
        area if area > most => Err(refusal),
        _ => Ok(()),
    }
}
