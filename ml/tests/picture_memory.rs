//! What a picture may cost: whatever its header claims and however long and thin it is, decoding allocates no more than the limits allow for.
//!
//! One test only: the allocator counts for the whole process.

#![allow(clippy::unwrap_used, reason = "a test")]

use delta_guard_contract::job::ImageLimits;
use delta_guard_contract::{ImageConfig, Orientation, Resize};
use delta_influence::data::picture::decode;
use image::{DynamicImage, ImageFormat};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::io::Cursor;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const LIMITS: ImageLimits = ImageLimits {
    max_bytes: 4 << 20,
    max_pixels: 1 << 20,
};
/// The model's side: stretching a row of 65,535 pixels to it the plain way would take 512 MiB between the two directions.
const SIDE: u32 = 512;
/// Per pixel that is allowed: 8 bytes decoded (16-bit RGBA), the same again in the decoder, 3 as RGB and again turned, or 16 between two directions.
const PER_PIXEL: usize = 32;
/// Tables of decoders, the picture's file, the model's picture.
const BESIDE: usize = 24 << 20;

/// Decode, and hold what it took against the bound. Returns whether there was a picture.
fn within_bounds(bytes: &[u8], resize: Resize, orientation: Orientation) -> bool {
    let image = ImageConfig {
        height: SIDE,
        width: SIDE,
        resize,
        orientation,
        ..ImageConfig::default()
    };
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let decoded = decode(bytes, &LIMITS, &image);
    let taken = ALLOCATED.peak_usage() - before;
    let most = LIMITS.max_pixels as usize * PER_PIXEL + BESIDE;
    assert!(
        taken <= most,
        "{taken} bytes, more than {most}: {resize:?}, {:?}",
        decoded.map(|p| p.len()).map_err(|r| r.to_string())
    );
    if let Ok(pixels) = &decoded {
        assert_eq!(pixels.len(), (3 * SIDE * SIDE) as usize);
    }
    decoded.is_ok()
}

fn encoded(width: u32, height: u32, colour: u8, format: ImageFormat) -> Option<Vec<u8>> {
    let picture = match colour {
        0 => DynamicImage::new_rgb8(width, height),
        1 => DynamicImage::new_luma8(width, height),
        2 => DynamicImage::new_rgba16(width, height),
        _ => DynamicImage::new_rgba8(width, height),
    };
    // Each format takes what it can hold.
    let picture = match format {
        ImageFormat::Png => picture,
        ImageFormat::WebP if colour == 3 => picture,
        _ => DynamicImage::from(picture.into_rgb8()),
    };
    let mut out = Cursor::new(Vec::new());
    picture.write_to(&mut out, format).ok()?;
    Some(out.into_inner())
}

/// A side of any order of magnitude.
fn side() -> impl Strategy<Value = u32> {
    (0u32..18, 0u32..1000).prop_map(|(power, more)| (1 << power) + more % (1 << power))
}

fn any_resize() -> impl Strategy<Value = Resize> {
    prop_oneof![Just(Resize::Refuse), Just(Resize::Stretch), Just(Resize::CenterCrop)]
}

fn any_format() -> impl Strategy<Value = ImageFormat> {
    prop_oneof![
        Just(ImageFormat::Png),
        Just(ImageFormat::Jpeg),
        Just(ImageFormat::WebP),
        Just(ImageFormat::Bmp)
    ]
}

/// Where a format writes its width and height: (offset, bytes, big-endian), both.
fn claim(bytes: &mut [u8], format: ImageFormat, width: u32, height: u32) {
    let mut put = |at: usize, value: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    };
    match format {
        ImageFormat::Png => {
            put(16, &width.to_be_bytes());
            put(20, &height.to_be_bytes());
        }
        ImageFormat::Bmp => {
            put(18, &width.to_le_bytes());
            put(22, &height.to_le_bytes());
        }
        ImageFormat::Jpeg => {
            if let Some(sof) = bytes.windows(2).position(|w| w == [0xFF, 0xC0]) {
                let both = [(height as u16).to_be_bytes(), (width as u16).to_be_bytes()].concat();
                bytes[sof + 5..sof + 9].copy_from_slice(&both);
            }
        }
        // VP8L: 14 bits each after the signature byte.
        ImageFormat::WebP => {
            let packed = ((width - 1) & 0x3FFF) | (((height - 1) & 0x3FFF) << 14);
            put(21, &packed.to_le_bytes());
        }
        _ => {}
    }
}

#[test]
fn no_picture_takes_more_than_the_limits_allow_for() {
    // The extremes by hand: one row, one column, and a size just within the limits.
    for (width, height) in [(65_535, 16), (16, 65_535), (65_535, 1), (1, 65_535), (1024, 1024), (32_768, 32)] {
        for resize in [Resize::Stretch, Resize::CenterCrop] {
            let bytes = encoded(width, height, 2, ImageFormat::Png).unwrap();
            let got = within_bounds(&bytes, resize, Orientation::Ignore);
            assert!(got || resize == Resize::CenterCrop, "{width} × {height}");
        }
    }
    let mut runner = TestRunner::new(Config::with_cases(150));
    let pictures = (side(), side(), 0u8..4, any_format(), any_resize(), any::<bool>());
    runner
        .run(&pictures, |(width, height, colour, format, resize, turn)| {
            // Writing them costs more than reading: the larger ones only by their headers.
            prop_assume!(u64::from(width) * u64::from(height) <= 1 << 20);
            let Some(bytes) = encoded(width, height, colour, format) else {
                return Ok(());
            };
            within_bounds(&bytes, resize, if turn { Orientation::Apply } else { Orientation::Ignore });
            Ok(())
        })
        .unwrap();
    let mut runner = TestRunner::new(Config::with_cases(600));
    let hostile = (any::<u32>(), any::<u32>(), 0u32..32, 0u32..32, 0u8..4, any_format(), any_resize());
    runner
        .run(&hostile, |(width, height, a, b, colour, format, resize)| {
            let (width, height) = ((width >> a).max(1), (height >> b).max(1));
            let mut bytes = encoded(13, 11, colour, format).unwrap();
            claim(&mut bytes, format, width, height);
            within_bounds(&bytes, resize, Orientation::Ignore);
            Ok(())
        })
        .unwrap();
}
