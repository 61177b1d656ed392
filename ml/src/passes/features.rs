//! Activations of training examples: what one layer reads.

use super::labels::PassLabels;
use super::stream::{GradientOf, Keep, Stream};
use crate::error::{Error, Result};
use crate::fold::{Batch, Fold, FoldState, Totals};
use crate::model::Graph;
use crate::model::layer::LayerKind;
use crate::progress::Report;
use delta_guard_contract::detect::Objective;
use tch::{Device, Kind, Tensor};

/// Rows of activations, one per example, in the order in which they come.
#[derive(Debug, Default)]
pub struct FeatureFold {
    rows: Vec<Tensor>,
}

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
        let rows = pair.input.f_flatten(1, -1)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
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

/// Activations of all examples of a stream that tracks one layer.
///
/// # Errors
/// `Configuration`: one is not finite; libtorch's.
pub fn of_all(stream: &mut Stream<'_>, report: &mut dyn Report) -> Result<Tensor> {
    let mut fold = FeatureFold::default();
    let examples: Vec<usize> = (0..stream.data.len()).collect();
    // Whatever gradient is taken stops at the layer's output: nothing of it is looked at.
    let ask = GradientOf {
        labels: PassLabels::Training,
        objective: Objective::Margin,
    };
    stream.run("features", &examples, ask, Keep::Nothing, &mut fold, report)?;
    fold.finish()
}
