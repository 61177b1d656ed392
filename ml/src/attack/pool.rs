//! Clean pictures to choose from.

use super::synth;
use crate::data::DataSet;
use crate::error::{Error, Result};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::borrow::Cow;

/// Clean pictures.
pub(super) struct Pool<'a> {
    pub labels: Vec<u32>,
    source: Source<'a>,
}

enum Source<'a> {
    Read(&'a DataSet),
    Drawn {
        seed: u64,
        part: u32,
    },
    /// A picture of this many bytes, each of them the picture's number.
    #[cfg(test)]
    Flat(usize),
}

impl<'a> Pool<'a> {
    pub fn of(data: &'a DataSet) -> Self {
        Self {
            labels: data.labels().to_vec(),
            source: Source::Read(data),
        }
    }

    pub fn drawn(seed: u64, part: u32, count: u32) -> Self {
        Self {
            labels: (0..count).map(|i| i % synth::CLASSES.len() as u32).collect(),
            source: Source::Drawn { seed, part },
        }
    }

    #[cfg(test)]
    pub fn flat(labels: Vec<u32>, bytes: usize) -> Self {
        Self {
            labels,
            source: Source::Flat(bytes),
        }
    }

    /// Every row.
    pub fn all(&self) -> Vec<usize> {
        (0..self.labels.len()).collect()
    }

    /// A picture's name in its source.
    pub fn name(&self, row: usize) -> String {
        match self.source {
            Source::Read(data) => data.ids()[row].0.clone(),
            Source::Drawn { part, .. } => format!("drawn-{part}-{row}"),
            #[cfg(test)]
            Source::Flat(_) => row.to_string(),
        }
    }

    /// Planar bytes [3, H, W].
    pub fn pixels(&self, row: usize) -> Cow<'a, [u8]> {
        match self.source {
            Source::Read(data) => Cow::Borrowed(data.pixels(row)),
            Source::Drawn { seed, part } => Cow::Owned(synth::draw(seed, part, row as u32, self.labels[row])),
            #[cfg(test)]
            Source::Flat(bytes) => Cow::Owned(vec![row as u8; bytes]),
        }
    }
}

/// `count` of `from` (0: all), as evenly over the labels as their numbers allow; ascending.
pub(super) fn balanced(labels: &[u32], from: &[usize], count: u32, key: &str, rng: &mut ChaCha8Rng) -> Result<Vec<usize>> {
    let count = count as usize;
    if count > from.len() {
        let message = format!("{key} is {count}, but there are only {} pictures", from.len());
        return Err(Error::configuration(message, "lower it, or set it to 0: all"));
    }
    if count == 0 {
        return Ok(from.to_vec());
    }
    let classes = labels.iter().max().map_or(0, |l| *l as usize + 1);
    let mut by_label: Vec<Vec<usize>> = vec![Vec::new(); classes];
    from.iter().for_each(|&i| by_label[labels[i] as usize].push(i));
    by_label.iter_mut().for_each(|list| list.shuffle(rng));
    // Which classes get one more where the number does not divide: seeded, too.
    by_label.shuffle(rng);
    let rounds = by_label.iter().map(Vec::len).max().unwrap_or(0);
    let mut chosen: Vec<usize> = (0..rounds)
        .flat_map(|r| by_label.iter().filter_map(move |list| list.get(r).copied()))
        .take(count)
        .collect();
    chosen.sort_unstable();
    Ok(chosen)
}

/// Four fifths and one fifth of each class, both ascending.
pub(super) fn split_off(labels: &[u32], rng: &mut ChaCha8Rng) -> (Vec<usize>, Vec<usize>) {
    let classes = labels.iter().max().map_or(0, |l| l + 1);
    let (mut rest, mut fifth) = (Vec::new(), Vec::new());
    for class in 0..classes {
        let mut own: Vec<usize> = labels.iter().enumerate().filter(|(_, l)| **l == class).map(|(i, _)| i).collect();
        own.shuffle(rng);
        let cut = own.len() / 5;
        fifth.extend(&own[..cut]);
        rest.extend(&own[cut..]);
    }
    rest.sort_unstable();
    fifth.sort_unstable();
    (rest, fifth)
}
