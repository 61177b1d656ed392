//! One encoded picture → planar bytes of the model's size. Nothing is allocated for a picture before its claimed size is checked.
//!
//! With `data.image.transforms` everything is done as PIL and torchvision do it ([`steps`]); the rest of this text is about configurations without them.
//!
//! What is done, in this order: 16 bit becomes 8 bit; grey becomes RGB; an alpha channel is dropped and the colour under it kept (as PIL's
//! `convert("RGB")` does, and so torchvision's `ImageFolder`); then the picture is brought to size as [`Resize`] says (`resize`), with `image`'s triangle filter,
//! which is bilinear and antialiased. A picture that already has the size is not resampled. An EXIF orientation is ignored, as PIL and `ImageFolder` do,
//! unless [`Orientation::Apply`] says that training turned the pictures.

use super::raster::Raster;
use super::resample::resample;
use super::resize::to_size;
use super::{jpeg, steps};
use crate::error::{Error, Result};
use delta_guard_contract::job::ImageLimits;
use delta_guard_contract::picture::Resampling;
use delta_guard_contract::{ImageConfig, Orientation, Resize};
use image::metadata::Orientation as Turn;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// Limits for pictures of data sets: generous, there to stop a damaged header from taking the machine down.
pub const DATA_LIMITS: ImageLimits = ImageLimits {
    max_bytes: 256 << 20,
    max_pixels: 100_000_000,
};

mod refusal;

pub use refusal::PictureRefusal;
use refusal::refusal;

/// Longest side in pixels: what JPEG can hold. Decoders keep whole rows, so that a row must be small beside the picture.
const MAX_SIDE: u32 = 65_535;
/// Decoded pictures of more bytes than this are worked on one at a time.
const LARGE: u64 = 64 << 20;
static ONE_LARGE: Mutex<()> = Mutex::new(());

/// What a picture's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Pixels, as stored.
    pub width: u32,
    /// Pixels, as stored.
    pub height: u32,
}

/// Width and height (as stored: [`Orientation::Ignore`]) of an encoded picture, without decoding it.
pub fn header(bytes: &[u8], limits: &ImageLimits) -> std::result::Result<Header, PictureRefusal> {
    guarded(|| {
        let format = check(bytes, limits)?;
        let (width, height) = decoder(bytes, format, limits)?.dimensions();
        Ok(Header { width, height })
    })
}

/// Decode to planar bytes [channels, height, width] (R, G, B, or grey) of the size in `image`.
pub fn decode(bytes: &[u8], limits: &ImageLimits, image: &ImageConfig) -> std::result::Result<Vec<u8>, PictureRefusal> {
    guarded(|| {
        let (decoder, orientation) = open(bytes, limits, image)?;
        // Data sets are decoded on all cores: many large pictures at once would take what one may take, times the cores.
        let _alone = (decoder.total_bytes() > LARGE).then(|| ONE_LARGE.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(steps) = &image.steps else {
            let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| refusal(&e))?;
            picture.apply_orientation(orientation);
            return sized(picture.into_rgb8(), image, limits);
        };
        let mut picture = DynamicImage::ImageRgb8(as_pil(bytes, decoder)?);
        picture.apply_orientation(orientation);
        Ok(steps::apply(picture.into_rgb8().into(), steps, image, limits)?.planar())
    })
}

/// An R, G, B picture of any size to planar bytes as `image` says.
pub(crate) fn sized(picture: RgbImage, image: &ImageConfig, limits: &ImageLimits) -> std::result::Result<Vec<u8>, PictureRefusal> {
    let raster = match &image.steps {
        None => Raster::from(to_size(picture, image, limits)?).of_channels(image.channels()),
        Some(steps) => steps::apply(picture.into(), steps, image, limits)?,
    };
    Ok(raster.planar())
}

/// What PIL's `convert("RGB")` gives: JPEG by libjpeg's arithmetic; of 16 bits the upper 8, but grey of 16 bits cut at 255, so that all but the darkest of it is white.
fn as_pil(bytes: &[u8], decoder: impl ImageDecoder) -> std::result::Result<RgbImage, PictureRefusal> {
    let scans = bytes.starts_with(&[0xFF, 0xD8]).then(|| jpeg_scans(bytes)).flatten();
    if let Some(picture) = scans.map(|scans| jpeg::decode(bytes, scans)).transpose()?.flatten() {
        return Ok(picture);
    }
    fn upper<const N: usize>(pixel: [u16; N]) -> [u8; N] {
        pixel.map(|v| (v >> 8) as u8)
    }
    let picture = DynamicImage::from_decoder(decoder).map_err(|e| refusal(&e))?;
    let (width, height) = (picture.width(), picture.height());
    Ok(match picture {
        DynamicImage::ImageLuma16(deep) => RgbImage::from_fn(width, height, |x, y| Rgb([deep.get_pixel(x, y)[0].min(255) as u8; 3])),
        DynamicImage::ImageLumaA16(deep) => RgbImage::from_fn(width, height, |x, y| Rgb([upper(deep.get_pixel(x, y).0)[0]; 3])),
        DynamicImage::ImageRgb16(deep) => RgbImage::from_fn(width, height, |x, y| Rgb(upper(deep.get_pixel(x, y).0))),
        DynamicImage::ImageRgba16(deep) => RgbImage::from_fn(width, height, |x, y| {
            let [r, g, b, _] = upper(deep.get_pixel(x, y).0);
            Rgb([r, g, b])
        }),
        plain => plain.into_rgb8(),
    })
}

/// A decoder whose picture is within the limits and, with `Resize::Refuse`, of the right size; and how its picture is to be turned.
fn open<'a>(bytes: &'a [u8], limits: &ImageLimits, image: &ImageConfig) -> std::result::Result<(impl ImageDecoder + 'a, Turn), PictureRefusal> {
    let format = check(bytes, limits)?;
    let mut decoder = decoder(bytes, format, limits)?;
    let turn = match image.orientation {
        Orientation::Ignore => Turn::NoTransforms,
        Orientation::Apply => decoder.orientation().map_err(|e| refusal(&e))?,
    };
    let (width, height) = decoder.dimensions();
    let found = if turns(turn) { (height, width) } else { (width, height) };
    let wanted = (image.width, image.height);
    if image.steps.is_none() && image.resize == Resize::Refuse && found != wanted {
        return Err(PictureRefusal::WrongSize { found, wanted });
    }
    Ok((decoder, turn))
}

/// Decode as it is, alpha included, at its own size and as stored.
pub(crate) fn decode_any(bytes: &[u8], limits: &ImageLimits) -> std::result::Result<DynamicImage, PictureRefusal> {
    guarded(|| DynamicImage::from_decoder(decoder(bytes, check(bytes, limits)?, limits)?).map_err(|e| refusal(&e)))
}

/// Planar bytes [3, height, width] → interleaved; `None` when the length does not fit.
pub(crate) fn from_planar(pixels: &[u8], height: u32, width: u32) -> Option<RgbImage> {
    let raster = Raster::from_planar(pixels, height, width).filter(|raster| raster.channels == 3)?;
    RgbImage::from_raw(width, height, raster.samples)
}

/// Planar bytes [3, height, width] (R, G, B) or [1, height, width] (grey) as a PNG, each pixel enlarged to `scale` × `scale` (nearest neighbour: thumbnails show the pixels that the model saw).
///
/// Errors: a length that is not 3·height·width or height·width, a scale of 0 or a picture above 100 million pixels (`Internal`: the caller knows its sizes).
pub fn encode_png(pixels: &[u8], height: u32, width: u32, scale: u32) -> Result<Vec<u8>> {
    let no_picture = || {
        Error::internal(format!(
            "{} bytes are no picture of 1 or 3 × {height} × {width}, scale {scale}",
            pixels.len()
        ))
    };
    let picture = Raster::from_planar(pixels, height, width).filter(|_| scale > 0).ok_or_else(no_picture)?;
    let large = u64::from(height) * u64::from(width) * u64::from(scale) * u64::from(scale);
    if large > DATA_LIMITS.max_pixels {
        return Err(Error::internal(format!("a thumbnail of {large} pixels was asked for")));
    }
    // By the nearest pixel each becomes a square.
    let picture = match scale {
        1 => picture,
        _ => resample(picture, width * scale, height * scale, Resampling::Nearest),
    };
    let mut out = Cursor::new(Vec::new());
    picture
        .into_image()
        .ok_or_else(no_picture)?
        .write_to(&mut out, ImageFormat::Png)
        .map_err(|e| Error::internal(format!("writing a PNG: {e}")))?;
    Ok(out.into_inner())
}

/// Everything that can be said of the bytes before a decoder sees them.
fn check(bytes: &[u8], limits: &ImageLimits) -> std::result::Result<ImageFormat, PictureRefusal> {
    if bytes.is_empty() {
        return Err(PictureRefusal::Empty);
    }
    if bytes.len() as u64 > limits.max_bytes {
        return Err(PictureRefusal::TooManyBytes {
            bytes: bytes.len() as u64,
            max: limits.max_bytes,
        });
    }
    let format = match image::guess_format(bytes) {
        Ok(format) => format,
        Err(_) if is_text(bytes) => return Err(PictureRefusal::Text),
        Err(_) => return Err(PictureRefusal::Unknown),
    };
    match format {
        ImageFormat::Png => {
            if let (Some(width), Some(height)) = (be32(bytes, 16), be32(bytes, 20)) {
                pixels_allowed(width, height, limits)?;
            }
            if png_animated(bytes) {
                return Err(PictureRefusal::Animated);
            }
        }
        // RIFF size WEBP 'VP8X' size flags: bit 1 of the flags says animation.
        ImageFormat::WebP if bytes.get(12..16) == Some(b"VP8X") && bytes.get(20).is_some_and(|flags| flags & 2 != 0) => {
            return Err(PictureRefusal::Animated);
        }
        // image's JPEG decoder fills what is missing with grey and says nothing.
        ImageFormat::Jpeg if !jpeg_ends(bytes) => return Err(PictureRefusal::Truncated),
        ImageFormat::WebP | ImageFormat::Jpeg | ImageFormat::Bmp | ImageFormat::Pnm | ImageFormat::Tiff => {}
        other => return Err(PictureRefusal::Unsupported(format!("the picture format {other:?}"))),
    }
    Ok(format)
}

fn decoder<'a>(bytes: &'a [u8], format: ImageFormat, limits: &ImageLimits) -> std::result::Result<impl ImageDecoder + 'a, PictureRefusal> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let side = u32::try_from(limits.max_pixels).unwrap_or(u32::MAX);
    let mut own = Limits::default();
    own.max_image_width = Some(side);
    own.max_image_height = Some(side);
    // 16-bit RGBA is the widest that comes out of a decoder; twice that for its working memory.
    own.max_alloc = Some(limits.max_pixels.saturating_mul(16).saturating_add(1 << 20));
    reader.limits(own);
    let decoder = reader.into_decoder().map_err(|e| refusal(&e))?;
    let (width, height) = decoder.dimensions();
    pixels_allowed(width, height, limits)?;
    Ok(decoder)
}

fn pixels_allowed(width: u32, height: u32, limits: &ImageLimits) -> std::result::Result<(), PictureRefusal> {
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return Err(PictureRefusal::TooManyPixels {
            width,
            height,
            max: limits.max_pixels,
        });
    }
    if width.max(height) > MAX_SIDE {
        return Err(PictureRefusal::TooLongSide { width, height });
    }
    if width == 0 || height == 0 {
        return Err(PictureRefusal::Damaged(format!("its size is given as {width} × {height}")));
    }
    Ok(())
}

/// Does it swap width and height?
fn turns(turn: Turn) -> bool {
    matches!(turn, Turn::Rotate90 | Turn::Rotate270 | Turn::Rotate90FlipH | Turn::Rotate270FlipH)
}

/// A decoder that panics on damaged bytes costs one picture, not the job.
fn guarded<T>(work: impl FnOnce() -> std::result::Result<T, PictureRefusal>) -> std::result::Result<T, PictureRefusal> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(PictureRefusal::Damaged("the decoder gave up on it".into())))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn is_text(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(4096)];
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character cut by the end of the head is still text.
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default(),
        Err(_) => return false,
    };
    !text.is_empty() && text.chars().all(|c| !c.is_control() || c.is_whitespace())
}

/// Is there an `acTL` chunk before the first `IDAT`?
fn png_animated(bytes: &[u8]) -> bool {
    let mut at = 8usize;
    while let (Some(length), Some(kind)) = (be32(bytes, at), bytes.get(at + 4..at + 8)) {
        match kind {
            b"acTL" => return true,
            b"IDAT" | b"IEND" => return false,
            _ => at = at.saturating_add(12).saturating_add(length as usize),
        }
    }
    false
}

/// Is there an end marker (FF D9) after the start of the first scan? Inside scans FF is always followed by a stuffed 0 or a restart marker, so it cannot
/// occur by chance there; segments before the scan (an EXIF thumbnail has an end marker of its own) are stepped over.
fn jpeg_ends(bytes: &[u8]) -> bool {
    jpeg_scans(bytes).is_some_and(|scans| scans.windows(2).any(|w| w == [0xFF, 0xD9]))
}

/// What follows the header of a JPEG's first scan.
fn jpeg_scans(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 2usize;
    loop {
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(0xFF), Some(0xFF)) => at += 1,
            (Some(0xFF), Some(0xD8 | 0x01 | 0xD0..=0xD7)) => at += 2,
            (Some(0xFF), Some(marker)) => {
                let length = bytes.get(at + 2..at + 4)?;
                let next = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
                if *marker == 0xDA {
                    return bytes.get(next..);
                }
                at = next;
            }
            // Rubbish between segments: decoders look for the next marker, and so do we.
            (Some(_), _) => at += 1,
            (None, _) => return None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod pil;
#[cfg(test)]
mod tests;
