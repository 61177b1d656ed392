//! Pictures beside a trace report: thumbnails, and what the flagged share.

use super::Place;
use crate::certify;
use crate::data::{DataSet, encode_png};
use crate::detect::Detection;
use crate::error::{Result, ResultExt};
use crate::files;
use delta_guard_contract::finding::{SharedPicture, SharedPixels};
use delta_guard_contract::{Digest, ImageConfig};
use std::collections::{BTreeMap, BTreeSet};

/// Thumbnails are written of at most this many flagged examples: the strongest ...
const STRONGEST: usize = 160;
/// ... and the least sure, where there are more: those are the ones to look at before anything is removed.
const LEAST_SURE: usize = 40;
/// Pictures of each side that are compared for what the flagged share.
const COMPARED: usize = 500;

/// On which pixels the flagged examples of label ŷ agree against its other examples (`members`: all of that label), with a picture of it.
pub fn shared_pixels(place: &Place<'_>, train: &DataSet, wrong: u32, members: &[usize], detection: &Detection) -> Result<Option<SharedPixels>> {
    let flagged: Vec<usize> = detection.flagged.iter().map(|f| f.position).collect();
    shared_by(place, train, wrong, members, &flagged)
}

/// The same of any examples.
pub fn shared_by(place: &Place<'_>, train: &DataSet, wrong: u32, members: &[usize], group: &[usize]) -> Result<Option<SharedPixels>> {
    let (height, width) = train.size();
    let area = height as usize * width as usize;
    let gone: BTreeSet<usize> = group.iter().copied().collect();
    let flagged = group.iter().copied().filter(|&i| train.labels()[i] == wrong);
    let flagged: Vec<&[u8]> = flagged.take(COMPARED).map(|i| train.pixels(i)).collect();
    let rest: Vec<usize> = members.iter().copied().filter(|i| !gone.contains(i)).collect();
    let n = rest.len().min(COMPARED);
    let others: Vec<&[u8]> = (0..n).map(|i| train.pixels(rest[i * rest.len() / n])).collect();
    let Some(found) = certify::shared::shared(&flagged, &others, area) else {
        return Ok(None);
    };
    let picture = match found.pixels.is_empty() {
        true => None,
        false => {
            let png = encode_png(&found.picture(area), height, width, thumbnail_scale(height, width))?;
            let digest = Digest(blake3::hash(&png).to_hex().to_string());
            let file = format!("thumbs/shared-{}.png", digest.short());
            files::write_atomic(&place.out_dir.join(&file), &png).context(|| "writing what the flagged share".into())?;
            Some(SharedPicture { file, digest })
        }
    };
    Ok(Some(SharedPixels {
        pixels: found.pixels.len() as u64,
        of: area as u64,
        place: found.place(width as usize),
        flagged: flagged.len() as u64,
        others: others.len() as u64,
        flagged_alike: found.flagged_alike,
        others_alike: found.others_alike,
        picture,
    }))
}

/// Small pictures are shown larger.
fn thumbnail_scale(height: u32, width: u32) -> u32 {
    (96 / height.max(width)).clamp(1, 3)
}

/// Places among `n` flagged examples, strongest first, of those that get a thumbnail.
fn shown(n: usize) -> impl Iterator<Item = usize> {
    let strongest = n.min(STRONGEST);
    (0..strongest).chain(strongest.max(n.saturating_sub(LEAST_SURE))..n)
}

/// Small PNGs of some training examples: their file names in the job's folder, in order.
pub fn of_examples(job: &Place<'_>, train: &DataSet, image: &ImageConfig, positions: &[usize], prefix: &str) -> Result<Vec<String>> {
    let scale = thumbnail_scale(image.height, image.width);
    let one = |(number, &position): (usize, &usize)| {
        let file = format!("thumbs/{prefix}-{number:03}.png");
        let png = encode_png(train.pixels(position), image.height, image.width, scale)?;
        files::write_atomic(&job.out_dir.join(&file), &png).context(|| "writing thumbnails".into())?;
        Ok(file)
    };
    (1..).zip(positions).map(one).collect()
}

/// Small PNGs of the first anomaly, of the strongest and the least sure flagged examples, and of those `listed` for a person to look at.
pub fn thumbnails(
    job: &Place<'_>,
    train: &DataSet,
    image: &ImageConfig,
    pictures: &[Vec<u8>],
    detection: &Detection,
    listed: &[usize],
) -> Result<BTreeMap<String, String>> {
    let mut written = BTreeMap::new();
    let scale = thumbnail_scale(image.height, image.width);
    let mut write = |key: String, file: String, pixels: &[u8]| -> Result<()> {
        let png = encode_png(pixels, image.height, image.width, scale)?;
        files::write_atomic(&job.out_dir.join(&file), &png).context(|| "writing thumbnails".into())?;
        written.insert(key, file);
        Ok(())
    };
    if let Some(first) = pictures.first() {
        write("anomaly".into(), "thumbs/anomaly.png".into(), first)?;
    }
    for (place, found) in shown(detection.flagged.len()).filter_map(|place| Some((place, detection.flagged.get(place)?))) {
        write(
            train.ids()[found.position].0.clone(),
            format!("thumbs/{:04}.png", place + 1),
            train.pixels(found.position),
        )?;
    }
    for (place, &position) in (1..).zip(listed) {
        write(
            train.ids()[position].0.clone(),
            format!("thumbs/look-{place:02}.png"),
            train.pixels(position),
        )?;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn the_strongest_and_the_least_sure_are_shown_each_once() {
        for n in [0, 1, 159, 160, 161, 200] {
            assert_eq!(shown(n).collect::<Vec<_>>(), (0..n).collect::<Vec<_>>(), "{n}: all of them");
        }
        for n in [201, 1000] {
            let places: Vec<usize> = shown(n).collect();
            assert_eq!(places.len(), 200);
            assert_eq!(places[..160], (0..160).collect::<Vec<_>>(), "{n}: the strongest");
            assert_eq!(places[160..], (n - 40..n).collect::<Vec<_>>(), "{n}: the least sure");
        }
    }
}
