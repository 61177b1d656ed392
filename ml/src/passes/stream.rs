//! The one loop over examples: decode → device → forward → output gradients → fold.
//!
//! A stream runs over a list of positions in batches and hands (input, output gradient) pairs to a fold. Reading ahead, keeping pairs for later passes, progress,
//! and looking whether all values are finite are its business, not the folds'. What the batch size is does not change a result beyond rounding.

use super::budget::Budget;
use super::cache::PairCache;
use super::labels::PassLabels;
use super::objective;
use crate::data::{DataSet, normalise};
use crate::ekfac::{Blocks, Workspace};
use crate::error::{Error, Result};
use crate::fold::{Batch, Fold, Looks, Totals};
use crate::model::Model;
use crate::model::layer::{Layer, Pair};
use crate::progress::Report;
use delta_guard_contract::ImageConfig;
use delta_guard_contract::detect::Objective;
use delta_guard_contract::job::Tracked;
use std::sync::mpsc::sync_channel;
use tch::{Device, Kind, Tensor};

/// Batches between two looks whether their values are finite. On a CPU a look costs nothing, and an error comes at once.
const LOOK_ON_A_GPU: usize = 32;

/// What is asked of each example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GradientOf {
    /// Under which labels.
    pub labels: PassLabels,
    /// What the gradient is taken of.
    pub objective: Objective,
}

/// A model over a data set.
#[derive(Debug)]
pub struct Stream<'a> {
    /// The network, in evaluation mode; its weights need no gradient.
    pub model: &'a Model,
    /// Pictures.
    pub data: &'a DataSet,
    /// Normalisation.
    pub image: &'a ImageConfig,
    /// Tracked layers: places in the graph's layer order, ascending.
    pub layers: Vec<usize>,
    /// Examples per batch.
    pub batch: usize,
    /// Decode and copy a batch while the one before is computed. Usual on a GPU only: on a CPU both would want the same cores.
    pub read_ahead: bool,
    /// Bytes that a covariance of a layer may take; wider layers are taken in blocks.
    covariance: u64,
    kept: PairCache,
}

/// Which batches of a pass later passes will ask for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// None.
    Nothing,
    /// All of them, as far as the budget reaches.
    Pairs,
}

impl<'a> Stream<'a> {
    /// A stream over the tracked `layers` of a model.
    pub fn new(model: &'a Model, data: &'a DataSet, image: &'a ImageConfig, layers: Vec<usize>, budget: Budget) -> Self {
        Self {
            model,
            data,
            image,
            layers,
            batch: budget.batch,
            read_ahead: model.device() != Device::Cpu,
            covariance: u64::MAX,
            kept: PairCache::new(budget.kept),
        }
    }

    /// The same, for EK-FAC within `budget` bytes (`worker.memory_budget`): layers whose covariances are too wide for that are tracked in blocks.
    pub fn in_blocks(self, budget: u64) -> Self {
        Self { covariance: budget, ..self }
    }

    /// The tracked layers, those in blocks as their parts.
    pub fn tracked(&self) -> Vec<Layer> {
        self.blocks().layers
    }

    /// How they are divided.
    pub fn blocks(&self) -> Blocks {
        let all = self.model.graph.layers();
        let chosen: Vec<Layer> = self.layers.iter().filter_map(|&l| all.get(l).cloned()).collect();
        Blocks::within(&chosen, self.covariance)
    }

    /// What of the network they are.
    pub fn coverage(&self) -> Tracked {
        Tracked {
            blocks: self.blocks().told(),
            ..self.model.graph.tracked_of(&self.layers)
        }
    }

    /// How the folds compute.
    pub fn workspace(&self) -> Workspace {
        Workspace::new(self.model.kind(), self.model.device())
    }

    /// Run a fold over `examples`.
    ///
    /// # Errors
    /// The fold's, or libtorch's.
    pub fn run<F: Fold>(&mut self, step: &str, examples: &[usize], ask: GradientOf, keep: Keep, fold: &mut F, report: &mut dyn Report) -> Result<()> {
        let (mut done, mut looks, blocks) = (0, self.looks(), self.blocks());
        let batches: Vec<&[usize]> = examples.chunks(self.batch).collect();
        let missing: Vec<&[usize]> = batches.iter().copied().filter(|b| self.kept.get(ask, b).is_none()).collect();
        let (model, data, layers, kept) = (self.model, self.data, &self.layers, &mut self.kept);
        let source = Source::of(model, data, self.image);
        source.each(&missing, self.read_ahead, |next| {
            for batch in &batches {
                let fresh = match kept.get(ask, batch) {
                    Some(_) => None,
                    None => Some(pairs(model, data, layers, batch, &next()?, ask)?),
                };
                let pairs = fresh.as_deref().or_else(|| kept.get(ask, batch)).unwrap_or_default();
                let totals = tch::no_grad(|| added(fold, &blocks, batch, pairs))?;
                looks.add(format!("the batch after {done} examples ({step})"), totals)?;
                if let (Keep::Pairs, Some(fresh)) = (keep, fresh) {
                    kept.offer(ask, batch, fresh);
                }
                done += batch.len() as u64;
                report.progress(step, done, examples.len() as u64, "");
            }
            looks.settle()
        })
    }

    /// Run a fold over `members`, few of `examples` (both ascending). What is kept of the examples' batches is taken from there; of other batches only the
    /// members are computed.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_members<F: Fold>(
        &mut self,
        step: &str,
        examples: &[usize],
        members: &[usize],
        ask: GradientOf,
        fold: &mut F,
        report: &mut dyn Report,
    ) -> Result<()> {
        let mut alone: Vec<usize> = members.iter().filter(|m| examples.binary_search(m).is_err()).copied().collect();
        let (mut done, mut looks, blocks) = (0, self.looks(), self.blocks());
        for batch in examples.chunks(self.batch) {
            let is_member = |(_, example): &(i64, &usize)| members.binary_search(example).is_ok();
            let (places, chosen): (Vec<i64>, Vec<usize>) = (0..).zip(batch).filter(is_member).map(|(place, &e)| (place, e)).unzip();
            match self.kept.get(ask, batch) {
                Some(_) if places.is_empty() => {}
                Some(pairs) => {
                    let pairs = pairs.iter().map(|p| p.select(&places)).collect::<Result<Vec<_>>>()?;
                    let totals = tch::no_grad(|| added(fold, &blocks, &chosen, &pairs))?;
                    looks.add(format!("the batch after {done} members ({step})"), totals)?;
                    done += places.len() as u64;
                    report.progress(step, done, members.len() as u64, "");
                }
                None => alone.extend(chosen),
            }
        }
        looks.settle()?;
        self.run(step, &alone, ask, Keep::Nothing, fold, report)
    }

    /// Hand the logits of each batch of `examples` to `seen`. No gradient.
    ///
    /// # Errors
    /// Those of `seen`, or libtorch's.
    pub fn run_logits(
        &self,
        step: &str,
        examples: &[usize],
        report: &mut dyn Report,
        mut seen: impl FnMut(&[usize], &Tensor) -> Result<()>,
    ) -> Result<()> {
        let batches: Vec<&[usize]> = examples.chunks(self.batch).collect();
        let mut done = 0;
        self.source().each(&batches, self.read_ahead, |next| {
            for batch in &batches {
                let logits = self.model.forward(&next()?)?;
                tch::no_grad(|| seen(batch, &logits))?;
                done += batch.len() as u64;
                report.progress(step, done, examples.len() as u64, "");
            }
            Ok(())
        })
    }

    /// The pictures of this stream.
    pub(super) fn source(&self) -> Source<'_> {
        Source::of(self.model, self.data, self.image)
    }

    pub(super) fn looks(&self) -> Looks {
        Looks::new(if self.model.device() == Device::Cpu { 1 } else { LOOK_ON_A_GPU })
    }
}

impl GradientOf {
    /// The summed objective of a batch whose logits are given.
    pub(super) fn objective_of(self, data: &DataSet, batch: &[usize], logits: &Tensor) -> Result<Tensor> {
        let labels = self.labels.of_batch(data, batch, logits)?;
        objective::of(self.objective, logits, &labels)
    }
}

/// Hand a fold a batch's pairs, those of wide layers in blocks.
fn added<F: Fold>(fold: &mut F, blocks: &Blocks, examples: &[usize], pairs: &[Pair]) -> Result<Totals> {
    let add = |fold: &mut F, pairs: &[Pair]| {
        fold.add(&Batch {
            examples,
            ..Batch::of(pairs)
        })
    };
    if blocks.none() {
        return add(fold, pairs);
    }
    add(fold, &blocks.split(pairs)?)
}

/// Pairs of one batch of examples, whose pictures are given, each with the gradient of its own objective.
fn pairs(model: &Model, data: &DataSet, layers: &[usize], batch: &[usize], images: &Tensor, ask: GradientOf) -> Result<Vec<Pair>> {
    let tapped = model.forward_tapped(images)?;
    let objective = ask.objective_of(data, batch, &tapped.logits)?;
    tapped.pairs(&objective, layers)
}

/// Where pictures come from, and where they go.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    data: &'a DataSet,
    image: &'a ImageConfig,
    kind: Kind,
    device: Device,
}

impl<'a> Source<'a> {
    fn of(model: &Model, data: &'a DataSet, image: &'a ImageConfig) -> Self {
        Self {
            data,
            image,
            kind: model.kind(),
            device: model.device(),
        }
    }

    fn images(self, batch: &[usize]) -> Result<Tensor> {
        normalise(&self.data.batch(batch)?, self.image, self.kind, self.device)
    }

    /// Give `work` the pictures of one batch after the other.
    pub(super) fn each(self, batches: &[&[usize]], ahead: bool, work: impl FnOnce(&mut dyn FnMut() -> Result<Tensor>) -> Result<()>) -> Result<()> {
        let none = || Error::internal("a pass asked for more batches than it has");
        if !ahead {
            let mut rest = batches.iter();
            return work(&mut || self.images(rest.next().ok_or_else(none)?));
        }
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(1);
            scope.spawn(move || {
                // Nobody takes it any more when the pass has failed.
                let _ = batches.iter().try_for_each(|batch| sender.send(self.images(batch)));
            });
            work(&mut || receiver.recv().map_err(|_| none())?)
        })
    }
}
