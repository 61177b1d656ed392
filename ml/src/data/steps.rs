//! The list `data.image.transforms`, carried out on one picture as torchvision's transforms do it on PIL's pictures.

use super::picture::PictureRefusal;
use super::raster::{Raster, bounded};
use super::resample::{between, resample};
use delta_guard_contract::ImageConfig;
use delta_guard_contract::job::ImageLimits;
use delta_guard_contract::picture::ImageStep;

/// All steps in order. No step makes a picture, or half-made one, of more pixels than `limits.max_pixels` (or the model's own size, whatever that is).
pub(crate) fn apply(mut picture: Raster, steps: &[ImageStep], image: &ImageConfig, limits: &ImageLimits) -> Result<Raster, PictureRefusal> {
    let wanted = (image.width, image.height);
    let refused = PictureRefusal::TooLong {
        found: (picture.width, picture.height),
        wanted,
    };
    let most = limits.max_pixels.max(u64::from(image.width) * u64::from(image.height));
    for step in steps {
        picture = match *step {
            ImageStep::Resize { to, resampling } => {
                let (height, width) = to.of(picture.height, picture.width);
                bounded((height, width), most, refused.clone())?;
                if (width, height) == (picture.width, picture.height) {
                    continue;
                }
                bounded(between(&picture, width, height), most, refused.clone())?;
                resample(picture, width, height, resampling)
            }
            ImageStep::CenterCrop { height, width } => {
                bounded((height, width), most.max(1 << 24), refused.clone())?;
                picture.center_crop(height, width)
            }
            ImageStep::Grayscale { channels } => picture.grey(channels as usize),
        };
    }
    let found = (picture.width, picture.height);
    if found != wanted {
        return Err(PictureRefusal::SizeAfterSteps { found, wanted });
    }
    Ok(picture)
}
