//! Bringing a picture to the model's size, with every step's memory known before it is taken.
//!
//! `image` resamples columns first and keeps float32 RGBA between the two directions: 16 bytes for each pixel of (own width × new height). Of a picture that is
//! long and thin that is many times the picture itself. Where it would be too much, the picture is turned first, so that the other side comes first; where that
//! is too much as well, the picture is refused.

use super::picture::PictureRefusal;
use delta_guard_contract::job::ImageLimits;
use delta_guard_contract::{ImageConfig, Resize};
use image::RgbImage;
use image::imageops::{self, FilterType};

/// Pixels between the two directions of a resampling: half a gibibyte.
const MOST_BETWEEN: u64 = 32 << 20;

/// Bring a picture to size as `image.resize` says. No step takes more than `limits.max_pixels` pixels, and none between two directions more than 32 Mi.
pub(crate) fn to_size(picture: RgbImage, image: &ImageConfig, limits: &ImageLimits) -> std::result::Result<RgbImage, PictureRefusal> {
    let (found, wanted) = (picture.dimensions(), (image.width, image.height));
    if found == wanted {
        return Ok(picture);
    }
    match image.resize {
        Resize::Refuse => Err(PictureRefusal::WrongSize { found, wanted }),
        Resize::Stretch => resample(&picture, wanted, wanted, limits),
        Resize::CenterCrop => {
            let scale = f64::max(f64::from(wanted.0) / f64::from(found.0), f64::from(wanted.1) / f64::from(found.1));
            let side = |found: u32, wanted: u32| ((f64::from(found) * scale).round() as u32).max(wanted);
            let (width, height) = (side(found.0, wanted.0), side(found.1, wanted.1));
            // A sliver of 1 × 60,000 pixels would be blown up to something huge before the cut.
            if area(width, height) > limits.max_pixels.max(area(wanted.0, wanted.1)) {
                return Err(PictureRefusal::TooLong { found, wanted });
            }
            let scaled = if (width, height) == found {
                picture
            } else {
                resample(&picture, (width, height), wanted, limits)?
            };
            let (x, y) = ((width - wanted.0) / 2, (height - wanted.1) / 2);
            Ok(imageops::crop_imm(&scaled, x, y, wanted.0, wanted.1).to_image())
        }
    }
}

fn area(width: u32, height: u32) -> u64 {
    u64::from(width) * u64::from(height)
}

/// Bilinear, antialiased; `wanted` is what is told when it cannot be done.
fn resample(picture: &RgbImage, to: (u32, u32), wanted: (u32, u32), limits: &ImageLimits) -> std::result::Result<RgbImage, PictureRefusal> {
    let found = picture.dimensions();
    // Never less than what the result itself needs, whatever the limits say.
    let most = MOST_BETWEEN.min(limits.max_pixels).max(area(to.0, to.1));
    if area(found.0, to.1) <= most {
        return Ok(imageops::resize(picture, to.0, to.1, FilterType::Triangle));
    }
    if area(to.0, found.1) <= most {
        let turned = imageops::resize(&imageops::rotate90(picture), to.1, to.0, FilterType::Triangle);
        return Ok(imageops::rotate270(&turned));
    }
    Err(PictureRefusal::TooLong { found, wanted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    const SMALL: ImageLimits = ImageLimits {
        max_bytes: 1 << 20,
        max_pixels: 4096,
    };

    fn config(resize: Resize, side: u32) -> ImageConfig {
        ImageConfig {
            height: side,
            width: side,
            resize,
            ..ImageConfig::default()
        }
    }

    /// A picture without symmetry.
    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x * 7 + y * 13) as u8, (x * 5) as u8, (y * 3) as u8]))
    }

    #[test]
    fn the_turned_way_gives_the_same_picture() {
        let long = picture(2000, 2);
        let plain = imageops::resize(&long, 8, 8, FilterType::Triangle);
        // 2,000 × 8 is more than 4,096, 8 × 2 is not.
        let turned = to_size(long, &config(Resize::Stretch, 8), &SMALL).unwrap();
        assert!(turned.pixels().zip(plain.pixels()).all(|(a, b)| (0..3).all(|c| a[c].abs_diff(b[c]) <= 1)));
        assert_ne!(turned.get_pixel(0, 0), turned.get_pixel(7, 7));
    }

    #[test]
    fn what_no_order_can_do_in_bounds_is_refused() {
        let refused = |w, h, resize| to_size(picture(w, h), &config(resize, 32), &SMALL).unwrap_err();
        for resize in [Resize::Stretch, Resize::CenterCrop] {
            assert_eq!(
                refused(200, 200, resize),
                PictureRefusal::TooLong {
                    found: (200, 200),
                    wanted: (32, 32)
                }
            );
        }
        assert_eq!(
            refused(200, 1, Resize::CenterCrop),
            PictureRefusal::TooLong {
                found: (200, 1),
                wanted: (32, 32)
            }
        );
        // A result that is itself larger than the limits is the model's size, not the submitter's doing.
        assert!(to_size(picture(9, 9), &config(Resize::Stretch, 100), &SMALL).is_ok());
    }
}
