//! Folds in parts: several processes sum over parts of the same examples, in any order and on any machine, and their files are put together afterwards.
//!
//! Parts end where batches end, so that every batch is the same as in a fold of one part. Float64 sums are taken in the order of the parts: the same parts give the
//! same bits, in whatever order they were computed; another number of parts gives the same but for the last digits of those sums.

use crate::error::{Error, Result, ResultExt};
use crate::files::tensors::{Texts, read_sealed, write_sealed};
use crate::fold::Fold;
use delta_guard_contract::Digest;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Version of the file.
const FORMAT: &str = "delta-guard-part/1";

/// What all parts of a sum have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartsPlan {
    digest: Digest,
    examples: usize,
    batch: usize,
    parts: u32,
}

impl PartsPlan {
    /// `what`: everything that the sum depends on besides the examples' number, the batch size and the number of parts.
    ///
    /// # Errors
    /// `Internal` for no parts at all.
    pub fn new(what: &[&str], examples: usize, batch: usize, parts: u32) -> Result<Self> {
        if parts == 0 || batch == 0 {
            return Err(Error::internal(format!("a sum in {parts} parts, in batches of {batch}")));
        }
        let mut hasher = blake3::Hasher::new();
        for text in [FORMAT].iter().chain(what) {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        for number in [examples as u64, batch as u64, u64::from(parts)] {
            hasher.update(&number.to_le_bytes());
        }
        Ok(Self {
            digest: Digest(hasher.finalize().to_hex().to_string()),
            examples,
            batch,
            parts,
        })
    }

    /// Its digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The examples of a part, by their places in the list of all: whole batches, as many for each part as may be, the first parts one more.
    ///
    /// # Errors
    /// `Configuration`: there is no such part.
    pub fn range(&self, part: u32) -> Result<Range<usize>> {
        if part >= self.parts {
            return Err(Error::configuration(
                format!("part {part} of {} parts, counted from 0", self.parts),
                "number the parts from 0 to one less than there are",
            ));
        }
        let (part, parts) = (part as usize, self.parts as usize);
        let batches = self.examples.div_ceil(self.batch);
        let first = |part: usize| (batches / parts * part + part.min(batches % parts)) * self.batch;
        Ok(first(part).min(self.examples)..first(part + 1).min(self.examples))
    }

    /// Write the fold over a part.
    ///
    /// # Errors
    /// `Resource` when the disk is full.
    pub fn save<F: Fold>(&self, part: u32, mut fold: F, path: &Path) -> Result<()> {
        let state = fold.save()?;
        let texts: Texts = self.texts(part).into_iter().map(|(key, text)| (key.to_string(), text)).collect();
        write_sealed(path, state.iter().map(|(name, tensor)| (name.as_str(), tensor)), texts).context(|| format!("part {part}"))
    }

    /// The fold over all examples, from the files of the parts in their order. `empty` makes a fold.
    ///
    /// # Errors
    /// `Configuration`: too few or too many files, one that is damaged, another part's, or of another plan.
    pub fn merge<F: Fold>(&self, files: &[PathBuf], empty: impl Fn() -> Result<F>) -> Result<F> {
        if files.len() != self.parts as usize {
            return Err(Error::configuration(
                format!("{} files of {} parts", files.len(), self.parts),
                "name the file of every part once, in the order of the parts",
            ));
        }
        let mut whole: Option<F> = None;
        for (part, path) in (0..).zip(files) {
            let wanted = self.texts(part);
            let wanted: Vec<(&str, &str)> = wanted.iter().map(|(key, text)| (*key, text.as_str())).collect();
            let what = || format!("part {part} of {} is not used, compute it again", self.parts);
            let (state, _) = read_sealed(path, &wanted).context(what)?;
            let mut fold = empty()?;
            fold.load(state).context(|| path.display().to_string()).context(what)?;
            match &mut whole {
                Some(whole) => whole.merge(fold)?,
                None => whole = Some(fold),
            }
        }
        whole.ok_or_else(|| Error::internal("a sum of no parts"))
    }

    fn texts(&self, part: u32) -> [(&'static str, String); 3] {
        [
            ("format", FORMAT.to_string()),
            ("plan", self.digest.0.clone()),
            ("part", format!("{part} of {}", self.parts)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(examples: usize, batch: usize, parts: u32) -> PartsPlan {
        PartsPlan::new(&["test"], examples, batch, parts).unwrap()
    }

    #[test]
    fn parts_are_whole_batches_and_hold_everything_once() {
        for (examples, batch, parts) in [
            (0, 8, 3),
            (1, 8, 3),
            (100, 8, 1),
            (100, 8, 3),
            (100, 8, 7),
            (100, 8, 13),
            (100, 8, 40),
            (96, 8, 4),
        ] {
            let plan = plan(examples, batch, parts);
            let mut next = 0;
            let mut sizes = Vec::new();
            for part in 0..parts {
                let range = plan.range(part).unwrap();
                assert_eq!(range.start, next, "{examples} {batch} {parts}");
                assert!(range.end.is_multiple_of(batch) || range.end == examples);
                sizes.push(range.len().div_ceil(batch));
                next = range.end;
            }
            assert_eq!(next, examples);
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(most - least <= 1, "{sizes:?}");
            assert!(plan.range(parts).is_err());
        }
        assert!(PartsPlan::new(&["test"], 10, 8, 0).is_err());
    }

    #[test]
    fn whatever_differs_is_another_plan() {
        let made = |what: &[&str], examples, batch, parts| PartsPlan::new(what, examples, batch, parts).unwrap().digest;
        let plans = [
            made(&["ab", "c"], 10, 2, 3),
            made(&["a", "bc"], 10, 2, 3),
            made(&["ab", "c"], 11, 2, 3),
            made(&["ab", "c"], 10, 3, 3),
            made(&["ab", "c"], 10, 2, 4),
        ];
        for (i, a) in plans.iter().enumerate() {
            assert!(plans[i + 1..].iter().all(|b| a != b));
        }
        assert_eq!(plans[0], made(&["ab", "c"], 10, 2, 3));
    }
}
