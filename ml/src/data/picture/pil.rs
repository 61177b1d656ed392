//! Against PIL and torchvision: `tests/fixtures/pictures`, made by the script there.

use super::*;
use delta_guard_contract::picture::{Edges, ImageKeys, StepKeys};
use safetensors::SafeTensors;
use std::path::PathBuf;

fn folder() -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures")
}

fn file(name: &str) -> Vec<u8> {
    fs_err::read(folder().join(name)).unwrap()
}

/// Largest and mean difference.
fn apart(got: &[u8], wanted: &[u8]) -> (u8, f64) {
    assert_eq!(got.len(), wanted.len());
    let off = || got.iter().zip(wanted).map(|(a, b)| a.abs_diff(*b));
    (off().max().unwrap_or(0), off().map(f64::from).sum::<f64>() / got.len() as f64)
}

/// A list without normalisation, for pictures that then have `shape` (channels, height, width).
fn config(list: serde_json::Value, shape: &[usize]) -> ImageConfig {
    let steps: Vec<StepKeys> = serde_json::from_value(list).unwrap();
    let keys = |size: bool| ImageKeys {
        height: size.then_some(shape[1] as u32),
        width: size.then_some(shape[2] as u32),
        transforms: Some(steps.clone()),
        ..ImageKeys::default()
    };
    let image = ImageConfig::try_from(keys(false)).or_else(|_| ImageConfig::try_from(keys(true))).unwrap();
    assert_eq!(image.input(), [shape[0], shape[1], shape[2]].map(|n| n as i64));
    image
}

/// As [`config`], for pictures that may be smaller than any model reads.
fn as_stored(shape: &[usize]) -> ImageConfig {
    ImageConfig {
        height: shape[1] as u32,
        width: shape[2] as u32,
        steps: Some(Vec::new()),
        ..ImageConfig::default()
    }
}

#[test]
fn every_format_is_decoded_as_pil_does() {
    let expected = file("decoded.safetensors");
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let mut seen = 0;
    for (name, wanted) in expected.iter() {
        let got = decode(&file(name), &DATA_LIMITS, &as_stored(wanted.shape())).unwrap();
        let (most, mean) = apart(&got, wanted.data());
        // Four colours are the one case where the decoder in Rust speaks.
        let allowed = if name == "jpeg-cmyk.jpg" { (1, 0.05) } else { (0, 0.0) };
        assert!(most <= allowed.0 && mean <= allowed.1, "{name}: at most {most}, in the mean {mean}");
        seen += 1;
    }
    assert!(seen >= 38, "{seen} files");
}

#[test]
fn resizing_cropping_and_grey_are_torchvisions_bit_for_bit() {
    let expected = file("transformed.safetensors");
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let chains: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&file("chains.json")).unwrap();
    let mut seen = 0;
    for source in ["wide", "tall", "small"] {
        let bytes = file(&format!("source-{source}.png"));
        for (name, list) in &chains {
            let wanted = expected.tensor(&format!("{source}/{name}")).unwrap();
            let shape = wanted.shape();
            let got = decode(&bytes, &DATA_LIMITS, &config(list.clone(), shape)).unwrap();
            assert_eq!(apart(&got, wanted.data()), (0, 0.0), "{source}/{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, expected.len());
}

#[test]
fn sizes_and_places_are_torchvisions() {
    let table: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&file("geometry.json")).unwrap();
    let rows = |part: &str| -> Vec<Vec<Option<u32>>> {
        let (_, rows) = table.iter().find(|(name, _)| name.starts_with(part)).unwrap();
        serde_json::from_value(rows.clone()).unwrap()
    };
    let resize = rows("resize");
    assert!(resize.len() > 300);
    for row in resize {
        let [Some(w), Some(h), Some(side), max, Some(new_w), Some(new_h)] = row[..] else {
            panic!("{row:?}")
        };
        assert_eq!(Edges::Shorter { side, max }.of(h, w), (new_h, new_w), "{row:?}");
    }
    let crops = rows("crop");
    assert!(crops.len() >= 200);
    for row in crops {
        let [w, h, cw, ch, left, top, first_x, first_y, columns, rows] = row.iter().map(|v| v.unwrap() as usize).collect::<Vec<_>>()[..] else {
            panic!("{row:?}")
        };
        // Each pixel tells where it stood: x in the first channel, y in the second, 255 in the third.
        let samples = (0..h).flat_map(|y| (0..w).flat_map(move |x| [x as u8, y as u8, 255])).collect();
        let picture = Raster {
            width: w as u32,
            height: h as u32,
            channels: 3,
            samples,
        };
        let cut = picture.center_crop(ch as u32, cw as u32);
        assert_eq!(cut.samples.len(), 3 * cw * ch);
        for (at, pixel) in cut.samples.chunks_exact(3).enumerate() {
            let (x, y) = (at % cw, at / cw);
            let inside = (left..left + columns).contains(&x) && (top..top + rows).contains(&y);
            let wanted = match inside {
                true => [(first_x + x - left) as u8, (first_y + y - top) as u8, 255],
                false => [0; 3],
            };
            assert_eq!(pixel, wanted, "{row:?} at {x}, {y}");
        }
    }
}

/// What the same picture is without a list, at its own size, it is with an empty one.
#[test]
fn an_empty_list_changes_nothing_where_the_decoders_agree() {
    for name in ["png-rgb.png", "png-rgba.png", "png-palette.png", "webp-q80.webp", "bmp-rgb.bmp"] {
        let plain = ImageConfig {
            height: 37,
            width: 53,
            ..ImageConfig::default()
        };
        let listed = as_stored(&[3, 37, 53]);
        let bytes = file(name);
        assert_eq!(
            decode(&bytes, &DATA_LIMITS, &plain).unwrap(),
            decode(&bytes, &DATA_LIMITS, &listed).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn a_size_that_the_steps_do_not_reach_is_told_as_such() {
    let bytes = file("png-rgb.png");
    let list = serde_json::json!([{"resize": {"size": 40}}]);
    let image = config(list, &[3, 40, 40]);
    let refusal = decode(&bytes, &DATA_LIMITS, &image).unwrap_err();
    // 53 × 37: 40 · 53 / 37 = 57.3.
    assert_eq!(
        refusal,
        PictureRefusal::SizeAfterSteps {
            found: (57, 40),
            wanted: (40, 40)
        }
    );
    assert!(refusal.remedy().contains("data.image.transforms"));
}

#[test]
fn orientation_comes_before_the_steps() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/exif");
    let none = fs_err::read(fixtures.join("exif_none_same_pixels.jpg")).unwrap();
    let turned = fs_err::read(fixtures.join("exif6.jpg")).unwrap();
    let side = 16;
    let square = config(serde_json::json!([{"resize": {"size": 16}}, {"center_crop": 16}]), &[3, side, side]);
    let upright = decode(&none, &DATA_LIMITS, &square).unwrap();
    assert_eq!(decode(&turned, &DATA_LIMITS, &square).unwrap(), upright, "ignored");
    let apply = ImageConfig {
        orientation: Orientation::Apply,
        ..square
    };
    let got = decode(&turned, &DATA_LIMITS, &apply).unwrap();
    assert_ne!(got, upright);
    // 6: clockwise by 90 degrees, (x, y) ← (y, side − 1 − x); resampling goes along first, so that a turned picture may be 1 off.
    for (at, value) in got.iter().enumerate() {
        let (c, y, x) = (at / (side * side), at / side % side, at % side);
        let from = upright[c * side * side + (side - 1 - x) * side + y];
        assert!(value.abs_diff(from) <= 1, "{c} {x} {y}: {value} {from}");
    }
}

#[test]
fn hostile_jpegs_and_slivers_are_refused() {
    let image = config(serde_json::json!([{"resize": {"size": 64}}, {"center_crop": 64}]), &[3, 64, 64]);
    let refused = |bytes: &[u8]| decode(bytes, &DATA_LIMITS, &image).map(|pixels| pixels.len()).unwrap_err();
    let good = file("jpeg-progressive-420.jpg");
    let mut cut = good[..good.len() / 2].to_vec();
    assert_eq!(refused(&cut), PictureRefusal::Truncated);
    cut.extend([0xFF, 0xD9]);
    // libjpeg, as PIL, fills what is missing: whatever it says, nothing breaks.
    let _ = decode(&cut, &DATA_LIMITS, &image);
    let mut scans = good[..good.len() - 2].to_vec();
    scans.extend([0xFF, 0xDA].repeat(400));
    scans.extend([0xFF, 0xD9]);
    assert!(matches!(refused(&scans), PictureRefusal::Damaged(why) if why.contains("300 scans")));
    for at in (2..good.len() - 2).step_by(7) {
        let mut damaged = good.clone();
        damaged[at] ^= 0x5A;
        let _ = decode(&damaged, &DATA_LIMITS, &image);
    }
    let sliver = encode_png(&vec![7; 3 * 60_000], 1, 60_000, 1).unwrap();
    assert!(matches!(refused(&sliver), PictureRefusal::TooLong { found: (60_000, 1), .. }));
}
