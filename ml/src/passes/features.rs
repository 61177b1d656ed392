//! Activations of training examples: what one layer reads.

use super::labels::PassLabels;
use super::objective;
use super::stream::{GradientOf, Keep, Stream};
use crate::error::{Error, Result};
use crate::fold::{Batch, Fold, FoldState, Totals};
use crate::model::layer::{LayerKind, Pair};
use crate::model::{Graph, Model};
use crate::progress::Report;
use delta_guard_contract::Code;
use delta_guard_contract::detect::Objective;
use tch::{Device, Kind, Tensor};

/// Rows of activations, one per example, in the order in which they come.
#[derive(Debug, Default)]
pub struct FeatureFold {
    rows: Vec<Tensor>,
}

/// Whatever gradient is taken stops at the layer's output: nothing of it is looked at.
const UNSEEN: Objective = Objective::Margin;

/// The rows in a saved state.
const ROWS: &str = "features";

impl FeatureFold {
    fn all(&self) -> Result<Option<Tensor>> {
        match self.rows.is_empty() {
            true => Ok(None),
            false => Ok(Some(Tensor::f_cat(&self.rows, 0)?)),
        }
    }
}

impl Fold for FeatureFold {
    type Finished = Tensor;

    fn add(&mut self, batch: &Batch<'_>) -> Result<Totals> {
        let [pair] = batch.pairs else {
            return Err(Error::internal("activations of other than one layer"));
        };
        let rows = rows_of(pair)?;
        let mut totals = Totals::default();
        totals.note("activations".into(), &rows)?;
        self.rows.push(rows);
        Ok(totals)
    }

    fn merge(&mut self, later: Self) -> Result<()> {
        self.rows.extend(later.rows);
        Ok(())
    }

    fn save(&mut self) -> Result<FoldState> {
        Ok(self.all()?.into_iter().map(|rows| (ROWS.to_string(), rows)).collect())
    }

    fn load(&mut self, mut state: FoldState) -> Result<()> {
        self.rows.extend(state.remove(ROWS));
        Ok(())
    }

    fn finish(self) -> Result<Tensor> {
        self.all()?.ok_or_else(|| Error::internal("activations of no examples"))
    }
}

/// What a layer read, one row per example: float64, on the CPU.
fn rows_of(pair: &Pair) -> Result<Tensor> {
    Ok(pair.input.f_flatten(1, -1)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)
}

/// The place, in layer order, of the layer of this name; without a name, of the last linear one (of the last one, where none is linear).
///
/// # Errors
/// `Configuration`: there is no such layer.
pub fn place(graph: &Graph, name: Option<&str>) -> Result<usize> {
    let layers = graph.layers();
    let linear = |place: &usize| matches!(layers[*place].kind, LayerKind::Linear { .. });
    let found = match name {
        Some(name) => layers.iter().position(|layer| layer.name == name),
        None => (0..layers.len()).rev().find(linear).or(layers.len().checked_sub(1)),
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
        Error::configuration(
            format!("detect.layer: there is no layer {:?}", name.unwrap_or_default()),
            format!("the layers are: {}", names.join(", ")),
        )
    })
}

/// Activations of examples of a stream that tracks one layer, in the order given.
///
/// # Errors
/// `Configuration`: one is not finite; libtorch's.
pub fn of_examples(stream: &mut Stream<'_>, examples: &[usize], report: &mut dyn Report) -> Result<Tensor> {
    let mut fold = FeatureFold::default();
    let ask = GradientOf {
        labels: PassLabels::Training,
        objective: UNSEEN,
    };
    stream.run("features", examples, ask, Keep::Nothing, &mut fold, report)?;
    fold.finish()
}

/// Activations of pictures, as the model sees them.
///
/// # Errors
/// `Configuration`: one is not finite; libtorch's.
pub fn of_pictures(model: &Model, place: usize, images: &[Tensor]) -> Result<Tensor> {
    let images = Tensor::f_stack(images, 0)?.f_to_kind(model.kind())?.f_to_device(model.device())?;
    let labels = Tensor::f_zeros([images.size()[0]], (Kind::Int64, model.device()))?;
    let tapped = model.forward_tapped(&images)?;
    let objective = objective::of(UNSEEN, &tapped.logits, &labels)?;
    let pairs = tapped.pairs(&objective, &[place])?;
    let rows = rows_of(pairs.first().ok_or_else(|| Error::internal("activations of no layer"))?)?;
    match bool::try_from(rows.f_isfinite()?.f_all()?)? {
        true => Ok(rows),
        false => Err(Error::new(
            Code::NotFinite,
            "an activation of a submitted picture is not a number",
            "look for NaN or huge weights in the checkpoint",
        )),
    }
}
