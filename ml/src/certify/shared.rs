//! What the flagged pictures share: the pixels on which they look alike and the others of their class do not. A trigger that is painted over the picture
//! shows as exactly its own pixels; poisons without such a trigger (blended, clean label), and most groups of natural pictures, share none.

/// Two values of a channel (0 to 255) that are no further apart look alike.
pub const ALIKE: i32 = 16;
/// Of the flagged at least this share must look alike in a pixel …
pub const AGREE: f64 = 0.9;
/// … and of the others at most this share may look like them.
pub const OTHERS: f64 = 0.5;
/// Of fewer pictures nothing is said: a handful agrees by chance.
pub const FEWEST: usize = 5;
/// Pixels that are looked at together, so that their histograms fit the processor's cache.
const BLOCK: usize = 256;

/// Pixels on which the flagged agree against the others.
#[derive(Clone, Debug, PartialEq)]
pub struct AlikePixels {
    /// (position in the picture, row by row; the flagged ones' median R, G, B there), ascending.
    pub pixels: Vec<(usize, [u8; 3])>,
    /// Over these pixels the smallest share of the flagged that look like their median; 0 where there are no such pixels.
    pub flagged_alike: f64,
    /// Over these pixels the largest share of the others that do.
    pub others_alike: f64,
}

/// Compare pictures (planar bytes, 3 · `area` each, or `area` of grey ones, whose values stand for R, G and B). None where either side has fewer than [`FEWEST`].
pub fn shared(flagged: &[&[u8]], others: &[&[u8]], area: usize) -> Option<AlikePixels> {
    if flagged.len() < FEWEST || others.len() < FEWEST {
        return None;
    }
    let mut found = AlikePixels {
        pixels: Vec::new(),
        flagged_alike: 1.0,
        others_alike: 0.0,
    };
    let channels = flagged[0].len().checked_div(area).unwrap_or(0).clamp(1, 3);
    for start in (0..area).step_by(BLOCK) {
        let block = start..area.min(start + BLOCK);
        let medians: [Vec<u8>; 3] = std::array::from_fn(|channel| medians(flagged, channel.min(channels - 1) * area + block.start, block.len()));
        let alike = |pictures: &[&[u8]]| -> Vec<f64> {
            let mut counts = vec![0u32; block.len()];
            for picture in pictures {
                for (n, count) in counts.iter_mut().enumerate() {
                    let near =
                        |channel: usize| (i32::from(picture[channel * area + block.start + n]) - i32::from(medians[channel][n])).abs() <= ALIKE;
                    *count += u32::from((0..channels).all(near));
                }
            }
            counts.into_iter().map(|count| f64::from(count) / pictures.len() as f64).collect()
        };
        for (n, (ours, theirs)) in alike(flagged).into_iter().zip(alike(others)).enumerate() {
            if ours >= AGREE && theirs <= OTHERS {
                found.pixels.push((block.start + n, std::array::from_fn(|channel| medians[channel][n])));
                found.flagged_alike = found.flagged_alike.min(ours);
                found.others_alike = found.others_alike.max(theirs);
            }
        }
    }
    if found.pixels.is_empty() {
        found.flagged_alike = 0.0;
    }
    Some(found)
}

/// Lower median of each of `count` bytes from `start` on.
fn medians(pictures: &[&[u8]], start: usize, count: usize) -> Vec<u8> {
    let mut histograms = vec![[0u32; 256]; count];
    for picture in pictures {
        for (histogram, &value) in histograms.iter_mut().zip(&picture[start..start + count]) {
            histogram[usize::from(value)] += 1;
        }
    }
    let half = pictures.len().div_ceil(2) as u32;
    let median = |histogram: &[u32; 256]| {
        let mut below = 0;
        histogram
            .iter()
            .position(|&here| {
                below += here;
                below >= half
            })
            .unwrap_or(0) as u8
    };
    histograms.iter().map(median).collect()
}

impl AlikePixels {
    /// As a picture (planar bytes): the shared pixels as the flagged have them, everything else in one grey.
    pub fn picture(&self, area: usize) -> Vec<u8> {
        let mut picture = vec![GROUND; 3 * area];
        for &(position, color) in &self.pixels {
            for (channel, value) in color.into_iter().enumerate() {
                picture[channel * area + position] = value;
            }
        }
        picture
    }

    /// The smallest box that holds the pixels of pictures that are `width` wide: first row, first column, rows, columns. None without pixels.
    pub fn place(&self, width: usize) -> Option<[u32; 4]> {
        let rows = || self.pixels.iter().map(|(position, _)| position / width);
        let columns = || self.pixels.iter().map(|(position, _)| position % width);
        let (top, bottom) = (rows().min()?, rows().max()?);
        let (left, right) = (columns().min()?, columns().max()?);
        Some([top, left, bottom - top + 1, right - left + 1].map(|v| v as u32))
    }
}

/// Grey of what is not shared: neither black nor white, which triggers like to be.
const GROUND: u8 = 144;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::synth;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeSet;

    const AREA: usize = 32 * 32;

    /// The definition, word by word: pixel by pixel, by sorting.
    fn naive(flagged: &[&[u8]], others: &[&[u8]], area: usize) -> Vec<(usize, [u8; 3])> {
        let mut found = Vec::new();
        for position in 0..area {
            let median: [u8; 3] = std::array::from_fn(|channel| {
                let mut values: Vec<u8> = flagged.iter().map(|p| p[channel * area + position]).collect();
                values.sort_unstable();
                values[(values.len() - 1) / 2]
            });
            let share = |pictures: &[&[u8]]| {
                let like = |p: &&&[u8]| (0..3).all(|channel| p[channel * area + position].abs_diff(median[channel]) <= 16);
                pictures.iter().filter(like).count() as f64 / pictures.len() as f64
            };
            if share(flagged) >= 0.9 && share(others) <= 0.5 {
                found.push((position, median));
            }
        }
        found
    }

    fn pictures(class: u32, from: u32, n: u32) -> Vec<Vec<u8>> {
        (from..from + n).map(|index| synth::draw(5, 0, index, class)).collect()
    }

    fn slices(pictures: &[Vec<u8>]) -> Vec<&[u8]> {
        pictures.iter().map(Vec::as_slice).collect()
    }

    /// An 8 × 8 board of black and white cells, one pixel from the lower right corner.
    fn board(picture: &mut [u8]) -> BTreeSet<usize> {
        let mut painted = BTreeSet::new();
        for row in 23..31 {
            for column in 23..31 {
                let position = row * 32 + column;
                let value = if (row + column) % 2 == 0 { 255 } else { 0 };
                (0..3).for_each(|channel| picture[channel * AREA + position] = value);
                painted.insert(position);
            }
        }
        painted
    }

    #[test]
    fn a_trigger_is_exactly_its_own_pixels() {
        let (mut flagged, others) = (pictures(3, 0, 60), pictures(8, 100, 90));
        let mut painted = BTreeSet::new();
        // Three of the flagged are clean ones that were taken with the others.
        flagged.iter_mut().skip(3).for_each(|picture| painted = board(picture));
        let (flagged, others) = (slices(&flagged), slices(&others));
        let found = shared(&flagged, &others, AREA).unwrap();
        assert_eq!(found.pixels.iter().map(|p| p.0).collect::<BTreeSet<_>>(), painted);
        assert_eq!(found.pixels, naive(&flagged, &others, AREA));
        assert_eq!(found.flagged_alike, 57.0 / 60.0);
        assert!(found.others_alike < 0.2, "{}", found.others_alike);
        assert_eq!(found.place(32), Some([23, 23, 8, 8]));
        let picture = found.picture(AREA);
        for position in 0..AREA {
            let want = if !painted.contains(&position) {
                GROUND
            } else if (position / 32 + position % 32) % 2 == 0 {
                255
            } else {
                0
            };
            assert!((0..3).all(|channel| picture[channel * AREA + position] == want), "pixel {position}");
        }
    }

    #[test]
    fn clean_pictures_share_nothing_against_their_own_class() {
        let (flagged, others) = (pictures(8, 0, 40), pictures(8, 100, 90));
        let found = shared(&slices(&flagged), &slices(&others), AREA).unwrap();
        assert_eq!((found.pixels.len(), found.place(32), found.flagged_alike), (0, None, 0.0));
        assert_eq!(found.picture(AREA), vec![GROUND; 3 * AREA]);
    }

    /// Pictures that differ little and only in places, so that both borders are met from both sides.
    #[test]
    fn agrees_with_the_naive_computation() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for (n, m, area) in [(5, 5, 700), (6, 11, 300), (21, 20, 257), (40, 5, 1)] {
            let mut draw = |spread: i32| -> Vec<u8> {
                (0..3 * area)
                    .map(|i| (100 + (i % 7) as i32 * 20 + rng.random_range(-spread..=spread)) as u8)
                    .collect()
            };
            let flagged: Vec<Vec<u8>> = (0..n).map(|_| draw(18)).collect();
            let others: Vec<Vec<u8>> = (0..m).map(|_| draw(24)).collect();
            let (flagged, others) = (slices(&flagged), slices(&others));
            let found = shared(&flagged, &others, area).unwrap();
            assert_eq!(found.pixels, naive(&flagged, &others, area));
            if area > 1 {
                assert!(!found.pixels.is_empty() && found.pixels.len() < area, "{} of {area}", found.pixels.len());
            }
        }
    }

    #[test]
    fn of_a_handful_nothing_is_said() {
        let pictures = pictures(8, 0, 9);
        let all = slices(&pictures);
        assert_eq!(shared(&all[..4], &all[4..], AREA), None);
        assert_eq!(shared(&all[4..], &all[..4], AREA), None);
        assert_eq!(shared(&[], &[], 0), None);
    }
}
