//! Folds: sums over examples that may be taken batch by batch, in parts, and in several processes.
//!
//! A fold is made empty, takes batches, and is finished. Between, it can be saved as tensors and loaded into an empty fold of the same making; two of them are
//! merged, the earlier range taking in the later one. What must agree for that (model, data, settings) is the business of who makes them: see `passes::parts`.

use crate::error::{Error, Result};
use crate::model::layer::Pair;
use delta_guard_contract::Code;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Some examples, as a pass sees them.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Positions in the data set.
    pub examples: &'a [usize],
    /// One pair per tracked layer, in layer order; none where a pass takes gradients.
    pub pairs: &'a [Pair],
    /// The gradient of the examples' mean objective for each chosen weight, in the model's order; none where a pass takes pairs.
    pub gradients: &'a [Tensor],
}

impl<'a> Batch<'a> {
    /// Of examples that nobody asks the positions of.
    pub fn of(pairs: &'a [Pair]) -> Self {
        Self {
            examples: &[],
            pairs,
            gradients: &[],
        }
    }
}

/// What a fold has summed so far, by name.
pub type FoldState = BTreeMap<String, Tensor>;

/// A sum over examples.
pub trait Fold: Sized {
    /// What comes out.
    type Finished;

    /// Add a batch. What is returned is not a number exactly where something that was added is none: the caller decides when to look.
    ///
    /// # Errors
    /// When libtorch fails (memory), or the batch has another shape than the fold was made for.
    fn add(&mut self, batch: &Batch<'_>) -> Result<Totals>;

    /// [`Self::add`], looking at once.
    ///
    /// # Errors
    /// As there, and values that are not finite.
    fn take(&mut self, pairs: &[Pair]) -> Result<()> {
        self.add(&Batch::of(pairs))?.check("a batch")
    }

    /// Take in the fold over a later range of the same examples.
    ///
    /// # Errors
    /// `Internal` when it is of another making.
    fn merge(&mut self, later: Self) -> Result<()>;

    /// What was summed.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    fn save(&mut self) -> Result<FoldState>;

    /// Take over what [`Self::save`] gave. The fold must be empty.
    ///
    /// # Errors
    /// `Configuration`: a tensor is missing or has another shape.
    fn load(&mut self, state: FoldState) -> Result<()>;

    /// The result.
    ///
    /// # Errors
    /// `Internal` when nothing was added.
    fn finish(self) -> Result<Self::Finished>;
}

/// One float64 number for each thing that was added, with its name.
#[derive(Debug, Default)]
#[must_use]
pub struct Totals(Vec<(String, Tensor)>);

impl Totals {
    /// The total of everything in `added`, which is called `name` in an error.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn note(&mut self, name: String, added: &Tensor) -> Result<()> {
        self.0.push((name, added.f_sum(Kind::Double)?));
        Ok(())
    }

    /// All of these, too.
    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// An error that names the first that is not finite. One transfer for all. `place`: where they come from.
    ///
    /// # Errors
    /// `Configuration`.
    pub fn check(&self, place: &str) -> Result<()> {
        match first_not_finite(self.0.iter())? {
            Some(at) => Err(self.refused(at, place)),
            None => Ok(()),
        }
    }

    fn refused(&self, at: usize, place: &str) -> Error {
        let name = self.0.get(at).map_or("", |(name, _)| name.as_str());
        Error::new(
            Code::NotFinite,
            format!("{name} that are not finite came out of {place}"),
            "check the checkpoint and the pixels of that range; in float32 very large activations overflow: detect.precision f64 tells, and so does the \
             heuristic damping where an absolute one is as small as 1e-8",
        )
    }
}

fn first_not_finite<'a>(totals: impl Iterator<Item = &'a (String, Tensor)>) -> Result<Option<usize>> {
    let values: Vec<&Tensor> = totals.map(|(_, value)| value).collect();
    if values.is_empty() {
        return Ok(None);
    }
    let values = Vec::<f64>::try_from(Tensor::f_stack(&values, 0)?)?;
    Ok(values.iter().position(|value| !value.is_finite()))
}

/// Looks at the totals of many batches at once: on a GPU each look waits for everything before it.
#[derive(Debug)]
pub struct Looks {
    every: usize,
    open: Vec<(String, Totals)>,
}

impl Looks {
    /// Look after `every` batches.
    pub fn new(every: usize) -> Self {
        Self { every, open: Vec::new() }
    }

    /// One batch more, from `place`.
    ///
    /// # Errors
    /// `Configuration`: see [`Totals::check`].
    pub fn add(&mut self, place: String, totals: Totals) -> Result<()> {
        self.open.push((place, totals));
        if self.open.len() < self.every { Ok(()) } else { self.settle() }
    }

    /// Look at what is open.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn settle(&mut self) -> Result<()> {
        let open = std::mem::take(&mut self.open);
        if first_not_finite(open.iter().flat_map(|(_, totals)| &totals.0))?.is_some() {
            open.iter().try_for_each(|(place, totals)| totals.check(place))?;
        }
        Ok(())
    }
}

/// Take a tensor of a saved state: of this shape, on the device of `like`.
///
/// # Errors
/// `Configuration`: it is missing or has another shape or kind of number.
pub fn restored(state: &mut FoldState, name: &str, like: &Tensor) -> Result<Tensor> {
    let damaged = |why: String| Error::new(Code::KeptFileUnusable, format!("{name} {why}"), "take this part anew");
    let found = state.remove(name).ok_or_else(|| damaged("is missing".into()))?;
    if found.size() != like.size() || found.kind() != like.kind() {
        return Err(damaged(format!(
            "has shape {:?} of {:?}, wanted {:?} of {:?}",
            found.size(),
            found.kind(),
            like.size(),
            like.kind()
        )));
    }
    Ok(found.f_to_device(like.device())?)
}

/// A number as a tensor of a state.
pub fn number(value: f64) -> Tensor {
    Tensor::from(value)
}

/// A number of a saved state.
///
/// # Errors
/// As [`restored`].
pub fn restored_number(state: &mut FoldState, name: &str) -> Result<f64> {
    Ok(restored(state, name, &number(0.0))?.f_double_value(&[])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(values: &[f64]) -> Totals {
        let mut totals = Totals::default();
        for (i, value) in values.iter().enumerate() {
            totals.note(format!("value {i}"), &Tensor::from_slice(&[1.0, *value])).unwrap();
        }
        totals
    }

    #[test]
    fn the_first_value_that_is_none_is_named_with_its_place() {
        let mut looks = Looks::new(3);
        looks.add("batch 0".into(), totals(&[1.0, 2.0])).unwrap();
        looks.add("batch 1".into(), totals(&[1.0, f64::NAN])).unwrap();
        let error = looks.add("batch 2".into(), totals(&[f64::INFINITY, 1.0])).unwrap_err().to_string();
        assert!(error.contains("value 1") && error.contains("batch 1"), "{error}");
        looks.settle().unwrap();
    }

    #[test]
    fn what_is_open_at_the_end_is_looked_at() {
        let mut looks = Looks::new(10);
        looks.add("batch 0".into(), totals(&[f64::NEG_INFINITY])).unwrap();
        assert!(looks.settle().is_err());
        assert!(Totals::default().check("nothing").is_ok());
    }

    #[test]
    fn a_state_of_another_making_is_refused() {
        let like = Tensor::from_slice(&[0.0, 0.0]);
        let of = |tensor: Tensor| FoldState::from([("sum".to_string(), tensor)]);
        assert!(restored(&mut of(Tensor::from_slice(&[1.0, 2.0])), "sum", &like).is_ok());
        for (mut state, why) in [
            (of(Tensor::from_slice(&[1.0])), "shape"),
            (of(Tensor::from_slice(&[1.0f32, 2.0])), "Float"),
            (FoldState::new(), "missing"),
        ] {
            let error = restored(&mut state, "sum", &like).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(restored_number(&mut FoldState::from([("n".into(), number(3.0))]), "n").unwrap(), 3.0);
    }
}
