//! JPEG as PIL reads it: libjpeg-turbo's exact integer DCT and its smooth upsampling of chroma, in its fork mozjpeg.
//!
//! The decoder in Rust that reads pictures elsewhere (`zune-jpeg`) rounds otherwise: up to 4 of 255, 0.35 in the mean, where chroma is subsampled (nearly every photograph), and more at
//! the edge of tiny pictures. A model that was trained on PIL's pixels has not seen those.

use super::picture::PictureRefusal;
use image::RgbImage;
use mozjpeg::{ColorSpace, Decompress};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Each scan goes over all blocks again: a small file with very many would take hours. Encoders write ten or so.
const MOST_SCANS: usize = 300;

/// Decode what `picture`'s checks let through. None: four colours (CMYK), which are left to the other decoder, within 1 of 255.
pub(super) fn decode(bytes: &[u8], scans: &[u8]) -> Result<Option<RgbImage>, PictureRefusal> {
    // Inside scans FF DA can only be a marker.
    if scans.windows(2).filter(|pair| *pair == [0xFF, 0xDA]).count() > MOST_SCANS {
        return Err(PictureRefusal::Damaged(format!("it has more than {MOST_SCANS} scans")));
    }
    // libjpeg's errors come as an unwinding that carries the text.
    match catch_unwind(AssertUnwindSafe(|| rgb(bytes))) {
        Ok(decoded) => decoded.map_err(|error| PictureRefusal::Damaged(error.to_string())),
        Err(told) => {
            let text = told.downcast_ref::<String>().map_or("the decoder gave up on it", String::as_str);
            Err(PictureRefusal::Damaged(text.trim_start_matches("libjpeg fatal error: ").into()))
        }
    }
}

fn rgb(bytes: &[u8]) -> std::io::Result<Option<RgbImage>> {
    let picture = Decompress::new_mem(bytes)?;
    if matches!(picture.color_space(), ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK) {
        return Ok(None);
    }
    let mut started = picture.rgb()?;
    let (width, height) = (started.width() as u32, started.height() as u32);
    let samples = started.read_scanlines::<u8>()?;
    Ok(RgbImage::from_raw(width, height, samples))
}
