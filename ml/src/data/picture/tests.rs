use super::*;
use crate::data::submission::decode_submission;
use image::{GrayImage, ImageBuffer, Luma, Rgba, RgbaImage};

const LIMITS: ImageLimits = ImageLimits {
    max_bytes: 1 << 20,
    max_pixels: 1 << 20,
};

fn config(height: u32, width: u32, resize: Resize) -> ImageConfig {
    ImageConfig {
        height,
        width,
        resize,
        ..ImageConfig::default()
    }
}

/// A smooth picture without symmetry, so that JPEG keeps it and every turn shows.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([
            (x * 200 / width) as u8,
            (y * 150 / height + 50) as u8,
            ((x + 2 * y) * 80 / (width + 2 * height)) as u8,
        ])
    })
}

fn to_planar(picture: &RgbImage) -> Vec<u8> {
    Raster::from(picture.clone()).planar()
}

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    picture.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

fn read(bytes: &[u8], height: u32, width: u32) -> std::result::Result<Vec<u8>, PictureRefusal> {
    decode(bytes, &LIMITS, &config(height, width, Resize::Refuse))
}

#[test]
fn reads_the_four_formats_into_planes() {
    let original = picture(9, 7);
    let planar = to_planar(&original);
    assert_eq!(planar[63 + 9 + 2], original.get_pixel(2, 1)[1]);
    assert_eq!(from_planar(&planar, 7, 9).unwrap(), original);
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
        assert_eq!(read(&encoded(original.clone(), format), 7, 9).unwrap(), planar, "{format:?}");
    }
    let jpeg = read(&encoded(original, ImageFormat::Jpeg), 7, 9).unwrap();
    assert!(jpeg.iter().zip(&planar).all(|(a, b)| a.abs_diff(*b) < 40), "{jpeg:?}");
}

#[test]
fn grey_sixteen_bit_and_alpha_become_rgb() {
    let grey = encoded(GrayImage::from_pixel(4, 4, Luma([77])), ImageFormat::Png);
    assert_eq!(read(&grey, 4, 4).unwrap(), vec![77; 48]);
    let deep: ImageBuffer<Rgb<u16>, Vec<u16>> = ImageBuffer::from_pixel(4, 4, Rgb([0xFFFF, 0x8080, 0]));
    let got = read(&encoded(deep, ImageFormat::Png), 4, 4).unwrap();
    assert_eq!((got[0], got[16], got[32]), (255, 128, 0));
    // The colour under a transparent pixel stays, as with PIL's convert("RGB").
    let clear = encoded(RgbaImage::from_pixel(4, 4, Rgba([10, 20, 30, 0])), ImageFormat::Png);
    let got = read(&clear, 4, 4).unwrap();
    assert_eq!((got[0], got[16], got[32]), (10, 20, 30));
}

/// A JPEG with an EXIF orientation tag (TIFF, little-endian, one entry: 0x0112).
fn with_orientation(jpeg: &[u8], value: u8) -> Vec<u8> {
    let tiff = [b'I', b'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, value, 0, 0, 0, 0, 0, 0, 0];
    let mut out = vec![0xFF, 0xD8, 0xFF, 0xE1, 0, (2 + 6 + tiff.len()) as u8];
    out.extend(b"Exif\0\0");
    out.extend(tiff);
    out.extend(&jpeg[2..]);
    out
}

#[test]
fn the_exif_orientation_is_ignored_unless_it_is_to_be_applied() {
    let upright = encoded(picture(16, 8), ImageFormat::Jpeg);
    let plain = from_planar(&read(&upright, 8, 16).unwrap(), 8, 16).unwrap();
    let turned = with_orientation(&upright, 6);
    assert_eq!(header(&turned, &LIMITS).unwrap(), Header { width: 16, height: 8 });
    assert_eq!(read(&turned, 8, 16).unwrap(), read(&upright, 8, 16).unwrap());
    let apply = |height, width| ImageConfig {
        orientation: Orientation::Apply,
        ..config(height, width, Resize::Refuse)
    };
    let read = |bytes: &[u8], height, width| decode(bytes, &LIMITS, &apply(height, width));
    // 6: the stored picture must be turned by 90 degrees clockwise; (x, y) ← (y, height − 1 − x).
    let got = from_planar(&read(&turned, 16, 8).unwrap(), 16, 8).unwrap();
    assert!(got.enumerate_pixels().all(|(x, y, p)| p == plain.get_pixel(y, 7 - x)));
    assert_eq!(
        read(&turned, 8, 16).unwrap_err(),
        PictureRefusal::WrongSize {
            found: (8, 16),
            wanted: (16, 8)
        }
    );
}

#[test]
fn resizes_as_told() {
    let flat = encoded(RgbImage::from_pixel(50, 20, Rgb([40, 90, 200])), ImageFormat::Png);
    assert_eq!(
        read(&flat, 8, 8).unwrap_err(),
        PictureRefusal::WrongSize {
            found: (50, 20),
            wanted: (8, 8)
        }
    );
    // Left half black, right half white, 64 wide: stretching keeps both halves, the centre of a 2:1 picture has both, too.
    let halves = RgbImage::from_fn(64, 32, |x, _| if x < 32 { Rgb([0; 3]) } else { Rgb([255; 3]) });
    let stretched = decode(&encoded(halves.clone(), ImageFormat::Png), &LIMITS, &config(8, 8, Resize::Stretch)).unwrap();
    assert_eq!(stretched.len(), 192);
    assert_eq!((stretched[0], stretched[7]), (0, 255));
    // Left quarter black: gone after a centre crop.
    let quarter = RgbImage::from_fn(64, 32, |x, _| if x < 16 { Rgb([0; 3]) } else { Rgb([255; 3]) });
    let cropped = decode(&encoded(quarter, ImageFormat::Png), &LIMITS, &config(32, 32, Resize::CenterCrop)).unwrap();
    assert!(cropped.iter().all(|p| *p == 255));
    // Antialiased: a fine checkerboard becomes even grey, not a moiré.
    let fine = RgbImage::from_fn(64, 64, |x, y| Rgb([if (x + y) % 2 == 0 { 0 } else { 255 }; 3]));
    let grey = decode(&encoded(fine, ImageFormat::Png), &LIMITS, &config(8, 8, Resize::Stretch)).unwrap();
    assert!(grey.iter().all(|p| p.abs_diff(128) < 6), "{grey:?}");
    let sliver = encoded(RgbImage::new(60_000, 1), ImageFormat::Png);
    assert!(matches!(
        decode(&sliver, &LIMITS, &config(512, 512, Resize::CenterCrop)),
        Err(PictureRefusal::TooLong { .. })
    ));
    assert!(decode(&sliver, &LIMITS, &config(512, 512, Resize::Stretch)).is_ok());
    let longest = encoded(RgbImage::new(65_535, 1), ImageFormat::Png);
    assert!(decode(&longest, &LIMITS, &config(512, 512, Resize::Stretch)).is_ok());
    let longer = encoded(RgbImage::new(65_536, 1), ImageFormat::Png);
    for resize in [Resize::Refuse, Resize::Stretch, Resize::CenterCrop] {
        assert!(matches!(
            decode(&longer, &LIMITS, &config(512, 512, resize)),
            Err(PictureRefusal::TooLongSide { .. })
        ));
    }
}

/// A PNG that ends after a header which claims this size.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encoded(RgbImage::new(1, 1), ImageFormat::Png)[..33].to_vec();
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    bytes
}

#[test]
fn hostile_submissions_are_refused_with_reason_and_remedy() {
    let good = encoded(picture(32, 32), ImageFormat::Png);
    let jpeg = encoded(picture(32, 32), ImageFormat::Jpeg);
    let mut animated = good[..33].to_vec();
    animated.extend([0, 0, 0, 8]);
    animated.extend(b"acTL\0\0\0\x02\0\0\0\0\0\0\0\0");
    animated.extend(&good[33..]);
    let mut moving = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\x1f\0\0\x1f\0\0".to_vec();
    moving.extend([0; 8]);
    let mut huge_jpeg = jpeg.clone();
    let sof = huge_jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    huge_jpeg[sof + 5..sof + 9].copy_from_slice(&[0xFF; 4]);
    let mut huge_bmp = encoded(picture(4, 4), ImageFormat::Bmp);
    huge_bmp[18..22].copy_from_slice(&60_000u32.to_le_bytes());
    huge_bmp[22..26].copy_from_slice(&60_000u32.to_le_bytes());
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xFF;
    let large = vec![0u8; (1 << 20) + 1];
    let cases: [(&str, &[u8], &str); 16] = [
        ("text.png", b"This is not a picture.\n", "holds text"),
        ("noise.png", &[0x80, 0x01, 0x02, 0xFF, 0x00, 0x17], "not a picture"),
        ("empty.png", b"", "empty"),
        ("cut.jpg", &jpeg[..jpeg.len() / 2], "truncated"),
        ("almost.jpg", &jpeg[..jpeg.len() - 2], "truncated"),
        ("start.jpg", &jpeg[..3], "truncated"),
        ("cut.png", &good[..good.len() / 2], "truncated"),
        ("huge.png", &png_header(40_000, 40_000), "40000 × 40000 pixels, more than"),
        ("overflow.png", &png_header(u32::MAX, u32::MAX), "more than"),
        ("huge.jpg", &huge_jpeg, "65535 × 65535 pixels, more than"),
        ("huge.bmp", &huge_bmp, "60000 × 60000 pixels, more than"),
        (
            "small.png",
            &encoded(picture(31, 32), ImageFormat::Png),
            "31 × 32 pixels (width × height), the model reads 32 × 32",
        ),
        ("moving.png", &animated, "animated"),
        ("moving.webp", &moving, "animated"),
        ("old.gif", b"GIF89a\x01\0\x01\0\0\0\0", "Gif is not supported"),
        ("large.png", &large, "more than the 1048576 allowed"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let submit = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs_err::write(&path, bytes).unwrap();
        decode_submission(&path, &LIMITS, &config(32, 32, Resize::Refuse))
    };
    for (name, bytes, says) in cases {
        let error = submit(name, bytes).unwrap_err();
        let fault = error.fault();
        assert_eq!(fault.kind, delta_guard_contract::FaultKind::Submission, "{name}");
        assert!(fault.message.contains(says) && fault.message.contains(name), "{name}: {}", fault.message);
        assert!(!fault.help.is_empty(), "{name} has no remedy");
    }
    let damaged = submit("damaged.png", &flipped).unwrap_err();
    assert_eq!(damaged.fault().kind, delta_guard_contract::FaultKind::Submission);
    assert_eq!(submit("good.png", &good).unwrap(), to_planar(&picture(32, 32)));
    // What a file is called decides nothing.
    assert_eq!(submit("good.jpg", &good).unwrap(), to_planar(&picture(32, 32)));
    for not_a_file in [folder.path().to_path_buf(), folder.path().join("missing.png")] {
        let error = decode_submission(&not_a_file, &LIMITS, &config(32, 32, Resize::Refuse)).unwrap_err();
        assert_eq!(error.fault().kind, delta_guard_contract::FaultKind::Submission);
    }
}

/// A pipe would block a reader for ever; this test would hang if it were opened.
#[test]
fn a_pipe_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe.png");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let error = decode_submission(&path, &LIMITS, &config(32, 32, Resize::Refuse)).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

/// Every file that is damaged in one byte, or cut anywhere, gives a picture of the right size or a refusal; never a panic or a hang.
#[test]
fn damaged_files_never_take_the_decoder_down() {
    let original = picture(12, 10);
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp] {
        let good = encoded(original.clone(), format);
        for at in 0..good.len() {
            for bytes in [
                good[..at].to_vec(),
                {
                    let mut b = good.clone();
                    b[at] ^= 1 << (at % 8);
                    b
                },
                {
                    let mut b = good.clone();
                    b[at] = 0xFF;
                    b
                },
            ] {
                if let Ok(pixels) = read(&bytes, 10, 12) {
                    assert_eq!(pixels.len(), 360);
                }
            }
        }
    }
}

#[test]
fn thumbnails_enlarge_without_blurring() {
    let pixels: Vec<u8> = (0..12).map(|i| i * 20).collect();
    let png = encode_png(&pixels, 2, 2, 3).unwrap();
    let large = image::load_from_memory(&png).unwrap().into_rgb8();
    assert_eq!(large.dimensions(), (6, 6));
    for (x, y, p) in large.enumerate_pixels() {
        let at = (y / 3 * 2 + x / 3) as usize;
        assert_eq!(p.0, [pixels[at], pixels[4 + at], pixels[8 + at]]);
    }
    assert_eq!(read(&encode_png(&pixels, 2, 2, 1).unwrap(), 2, 2).unwrap(), pixels);
    assert!(encode_png(&pixels, 2, 3, 1).is_err());
    assert!(encode_png(&pixels, 2, 2, 0).is_err());
    assert!(encode_png(&pixels, 2, 2, u32::MAX).is_err());
}
