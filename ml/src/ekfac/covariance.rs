//! First pass: A = Σ_i Σ_t a aᵀ / (N·T) and G = Σ_i Σ_t g gᵀ / (N·T), per layer and block.
//!
//! A of a k×k convolution is k×k kernel-row blocks. With inputs unfolded along the width only, block (y, y') is a product of the picture rows
//! that kernel rows y and y' read; at stride 1 all blocks with the same y' − y differ by border rows only, so that one large product per
//! difference (k of them instead of k²) and a few one-row products give all of A exactly.

use std::collections::HashMap;

use tch::{Device, Kind, Tensor};

use super::blocks::shared;
use super::geometry::{Geometry, batch_size};
use super::unfold::{Order, once, reach, take_rows, wide};
use super::workspace::Workspace;
use crate::error::{Error, Result, ResultExt};
use crate::fold::{Batch, Fold, FoldState, Totals, number, restored, restored_number};
use crate::model::layer::Layer;

/// Running sums of a aᵀ and g gᵀ. Inputs and output gradients are counted apart, so that either may be fed alone.
#[derive(Debug)]
pub struct CovarianceFold {
    layers: Vec<Layer>,
    geometries: Vec<Geometry>,
    workspace: Workspace,
    inputs: Vec<Sum>,
    grads: Vec<Sum>,
    /// Of each layer, the one whose sum is also its own: itself, but for parts of a layer.
    same_inputs: Vec<usize>,
    same_grads: Vec<usize>,
    examples: u64,
}

/// A sum of outer products over positions, float64, per block.
#[derive(Debug)]
struct Sum {
    outer: Tensor,
    positions: f64,
}

/// Covariances of all layers.
#[derive(Debug)]
pub struct Covariances {
    /// The layers, in the order of `blocks`.
    pub layers: Vec<Layer>,
    /// One entry per layer.
    pub blocks: Vec<LayerCovariance>,
    /// Examples whose output gradients went in.
    pub examples: u64,
}

/// Covariances of a layer, float64 on the CPU, symmetric.
#[derive(Debug)]
pub struct LayerCovariance {
    /// A: [b, d, d]; columns as in the flattened weight, the bias last.
    pub input: Tensor,
    /// G: [b, o, o].
    pub output_grad: Tensor,
}

impl CovarianceFold {
    /// An empty fold over `layers`.
    pub fn new(layers: &[Layer], workspace: Workspace) -> Result<Self> {
        let geometries = Geometry::list(layers)?;
        let (same_inputs, same_grads) = (shared(layers, |part| part.inputs), shared(layers, |part| part.outputs));
        let sums = |size: fn(&Geometry) -> i64, same: &[usize]| -> Result<Vec<Sum>> {
            let one = |(place, g): (usize, &Geometry)| {
                let wide = if same[place] == place { size(g) } else { 0 };
                Ok(Sum {
                    outer: workspace.accumulator(&[g.conv.groups, wide, wide])?,
                    positions: 0.0,
                })
            };
            geometries.iter().enumerate().map(one).collect()
        };
        let (inputs, grads) = (sums(Geometry::inputs, &same_inputs)?, sums(|g| g.out, &same_grads)?);
        Ok(Self {
            layers: layers.to_vec(),
            geometries,
            workspace,
            inputs,
            grads,
            same_inputs,
            same_grads,
            examples: 0,
        })
    }

    /// Adds a batch of layer inputs only: A does not need a backward pass.
    pub fn add_inputs(&mut self, inputs: &[&Tensor]) -> Result<Totals> {
        let _guard = tch::no_grad_guard();
        self.one_per_layer(inputs.len())?;
        let mut totals = Totals::default();
        for (place, ((geometry, sum), input)) in self.geometries.iter().zip(&mut self.inputs).zip(inputs).enumerate() {
            if self.same_inputs[place] != place {
                continue;
            }
            let image = geometry.input_image(input)?;
            let (outer, positions) =
                input_outer(geometry, &image, &self.workspace).context(|| format!("layer {}: input covariance", geometry.name))?;
            totals.note(format!("layer {}: inputs", geometry.name), &sum.add(&outer, positions)?)?;
        }
        Ok(totals)
    }

    /// Adds a batch of output gradients only.
    pub fn add_output_grads(&mut self, output_grads: &[&Tensor]) -> Result<Totals> {
        let _guard = tch::no_grad_guard();
        self.one_per_layer(output_grads.len())?;
        let mut totals = Totals::default();
        for (place, ((geometry, sum), output_grad)) in self.geometries.iter().zip(&mut self.grads).zip(output_grads).enumerate() {
            if self.same_grads[place] != place {
                continue;
            }
            let image = geometry.output_image(output_grad)?;
            let (outer, positions) =
                grad_outer(geometry, &image, &self.workspace).context(|| format!("layer {}: gradient covariance", geometry.name))?;
            totals.note(format!("layer {}: output gradients", geometry.name), &sum.add(&outer, positions)?)?;
        }
        self.examples += output_grads.first().map_or(0, |t| t.size()[0]) as u64;
        Ok(totals)
    }

    fn one_per_layer(&self, tensors: usize) -> Result<()> {
        if tensors != self.layers.len() {
            return Err(Error::internal(format!("{tensors} tensors for {} tracked layers", self.layers.len())));
        }
        Ok(())
    }

    /// The sums with their names in a saved state.
    fn named(&mut self) -> impl Iterator<Item = (String, &mut Sum)> {
        let name = |layer: &Layer, what: &str| format!("{}.{what}", layer.name);
        // Those that are shared once.
        let (same_inputs, same_grads) = (&self.same_inputs, &self.same_grads);
        let inputs = self.layers.iter().zip(&mut self.inputs).enumerate();
        let grads = self.layers.iter().zip(&mut self.grads).enumerate();
        let inputs = inputs
            .filter(move |(place, _)| same_inputs[*place] == *place)
            .map(move |(_, (layer, sum))| (name(layer, "a"), sum));
        inputs.chain(
            grads
                .filter(move |(place, _)| same_grads[*place] == *place)
                .map(move |(_, (layer, sum))| (name(layer, "g"), sum)),
        )
    }
}

impl Fold for CovarianceFold {
    type Finished = Covariances;

    fn add(&mut self, batch: &Batch<'_>) -> Result<Totals> {
        batch_size(&self.geometries, batch.pairs)?;
        for (geometry, pair) in self.geometries.iter().zip(batch.pairs) {
            let _ = geometry.images(pair)?;
        }
        let mut totals = self.add_inputs(&batch.pairs.iter().map(|p| &p.input).collect::<Vec<_>>())?;
        totals.extend(self.add_output_grads(&batch.pairs.iter().map(|p| &p.output_grad).collect::<Vec<_>>())?);
        Ok(totals)
    }

    fn merge(&mut self, later: Self) -> Result<()> {
        if self.layers != later.layers {
            return Err(Error::internal("covariances of different layers cannot be merged"));
        }
        for (mine, theirs) in self.inputs.iter_mut().zip(&later.inputs).chain(self.grads.iter_mut().zip(&later.grads)) {
            let _ = mine.add(&theirs.outer.f_to_device(self.workspace.device)?, theirs.positions)?;
        }
        self.examples += later.examples;
        Ok(())
    }

    fn save(&mut self) -> Result<FoldState> {
        let examples = self.examples as f64;
        let mut state = FoldState::from([("examples".to_string(), number(examples))]);
        for (name, sum) in self.named() {
            state.insert(format!("{name}.positions"), number(sum.positions));
            state.insert(name, sum.outer.shallow_clone());
        }
        Ok(state)
    }

    fn load(&mut self, mut state: FoldState) -> Result<()> {
        self.examples = restored_number(&mut state, "examples")? as u64;
        for (name, sum) in self.named() {
            sum.positions = restored_number(&mut state, &format!("{name}.positions"))?;
            sum.outer = restored(&mut state, &name, &sum.outer)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Covariances> {
        let _guard = tch::no_grad_guard();
        let mut blocks: Vec<LayerCovariance> = Vec::with_capacity(self.layers.len());
        for (place, ((geometry, input), grad)) in self.geometries.iter().zip(self.inputs).zip(self.grads).enumerate() {
            let (as_input, as_grad) = (self.same_inputs[place], self.same_grads[place]);
            let input = if as_input < place {
                blocks[as_input].input.shallow_clone()
            } else {
                let upper = input.mean(geometry)?;
                let order = Tensor::f_from_slice(&geometry.weight_columns())?;
                symmetric(&mirror(geometry, &upper)?.f_index_select(1, &order)?.f_index_select(2, &order)?)?
            };
            let output_grad = if as_grad < place {
                blocks[as_grad].output_grad.shallow_clone()
            } else {
                symmetric(&grad.mean(geometry)?)?
            };
            blocks.push(LayerCovariance { input, output_grad });
        }
        Ok(Covariances {
            layers: self.layers,
            blocks,
            examples: self.examples,
        })
    }
}

impl Sum {
    /// Adds a batch's sum; returns it in float64.
    fn add(&mut self, outer: &Tensor, positions: f64) -> Result<Tensor> {
        let outer = outer.f_to_kind(Kind::Double)?;
        let _ = self.outer.f_add_(&outer)?;
        self.positions += positions;
        Ok(outer)
    }

    /// Over positions, on the CPU.
    fn mean(self, geometry: &Geometry) -> Result<Tensor> {
        if self.positions == 0.0 {
            return Err(Error::internal(format!("layer {}: covariances of no examples", geometry.name)));
        }
        Ok(self.outer.f_to_device(Device::Cpu)?.f_div_scalar(self.positions)?)
    }
}

/// Σ a aᵀ of a batch in native order, upper kernel-row blocks only, and N·T.
fn input_outer(geometry: &Geometry, image: &Tensor, workspace: &Workspace) -> Result<(Tensor, f64)> {
    let (batch, _, height, width) = image.size4()?;
    let [output_height, output_width] = geometry.conv.output_size([height, width]);
    let (row, kernel_inputs) = (geometry.row(), geometry.kernel_inputs());
    let outer = workspace.zeros(&[geometry.conv.groups, geometry.inputs(), geometry.inputs()])?;
    let elements = height * geometry.conv.groups * (output_width * row + (width + 2 * geometry.conv.padding[1]) * geometry.channels);
    for (start, length) in workspace.chunks(batch, elements) {
        let rows = wide(geometry, &workspace.take(&image.f_narrow(0, start, length)?)?, Order::Rows, workspace)?;
        let rows = once(geometry, &rows)?;
        let add = |y: i64, z: i64, product: &Tensor| -> Result<()> {
            let _ = outer.f_narrow(1, y * row, row)?.f_narrow(2, z * row, row)?.f_add_(product)?;
            Ok(())
        };
        if geometry.conv.stride[0] == 1 {
            shifted_products(geometry, &rows, [height, output_height], add)?;
        } else {
            strided_products(geometry, &rows, [height, output_height], add)?;
        }
        if geometry.conv.bias {
            for y in 0..geometry.conv.kernel[0] {
                let reach = reach(geometry, y, height, output_height);
                let sum =
                    take_rows(&rows, 1, reach.input, reach.rows, geometry.conv.stride[0])?.f_sum_dim_intlist([1i64, 2, 3].as_slice(), false, None)?;
                let _ = outer
                    .f_narrow(2, kernel_inputs, 1)?
                    .f_narrow(1, y * row, row)?
                    .f_add_(&sum.f_unsqueeze(-1)?)?;
            }
        }
    }
    let positions = (batch * output_height * output_width) as f64;
    if geometry.conv.bias {
        let _ = outer.f_narrow(1, kernel_inputs, 1)?.f_narrow(2, kernel_inputs, 1)?.f_fill_(positions)?;
    }
    Ok((outer, positions))
}

/// Stride 1: one product per distance of kernel rows, corrected at the borders.
fn shifted_products(
    geometry: &Geometry,
    rows: &Tensor,
    [height, output_height]: [i64; 2],
    add: impl Fn(i64, i64, &Tensor) -> Result<()>,
) -> Result<()> {
    let kernel = geometry.conv.kernel[0];
    for distance in 0..kernel {
        let shift = distance * geometry.conv.dilation[0];
        // Rows u with x[u]·x[u + shift] in block (y, y + distance): where both kernel rows stay off the padding.
        let ranges: Vec<(i64, i64)> = (0..kernel - distance)
            .map(|y| {
                let offset = geometry.conv.dilation[0] * y - geometry.conv.padding[0];
                (offset.max(0), (output_height + offset).min(height - shift))
            })
            .collect();
        let common = ranges.iter().fold((0, i64::MAX), |c, r| (c.0.max(r.0), c.1.min(r.1)));
        let shared = common.0 < common.1;
        let mut products: HashMap<(i64, i64), Tensor> = HashMap::new();
        for (y, &(low, high)) in ranges.iter().enumerate() {
            let pieces = if shared {
                vec![(low, common.0), common, (common.1, high)]
            } else {
                vec![(low, high)]
            };
            for piece in pieces.into_iter().filter(|p| p.0 < p.1) {
                let product = match products.get(&piece) {
                    Some(known) => known.shallow_clone(),
                    None => {
                        let product = row_product(rows, piece.0, piece.0 + shift, piece.1 - piece.0, 1)?;
                        products.insert(piece, product.shallow_clone());
                        product
                    }
                };
                add(y as i64, y as i64 + distance, &product)?;
            }
        }
    }
    Ok(())
}

/// Any stride: one product per pair of kernel rows (y ≤ z).
fn strided_products(
    geometry: &Geometry,
    rows: &Tensor,
    [height, output_height]: [i64; 2],
    add: impl Fn(i64, i64, &Tensor) -> Result<()>,
) -> Result<()> {
    let stride = geometry.conv.stride[0];
    for y in 0..geometry.conv.kernel[0] {
        let first = reach(geometry, y, height, output_height);
        for z in y..geometry.conv.kernel[0] {
            let second = reach(geometry, z, height, output_height);
            let start = first.output.max(second.output);
            let count = (first.output + first.rows).min(second.output + second.rows) - start;
            if count > 0 {
                let from = |reach: &super::unfold::Reach| reach.input + stride * (start - reach.output);
                add(y, z, &row_product(rows, from(&first), from(&second), count, stride)?)?;
            }
        }
    }
    Ok(())
}

/// Σ over `count` picture rows (every `stride`-th) from `left` and from `right` of xᵀ x: [b, row, row].
fn row_product(rows: &Tensor, left: i64, right: i64, count: i64, stride: i64) -> Result<Tensor> {
    let size = rows.size();
    let take =
        |start: i64| -> Result<Tensor> { Ok(take_rows(rows, 1, start, count, stride)?.f_reshape([size[0], count * size[2] * size[3], size[4]])?) };
    gram(&take(left)?, &if left == right { take(left)? } else { take(right)? })
}

/// leftᵀ right per block: [b, n, p] and [b, n, q] → [b, p, q].
fn gram(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    if left.size()[0] == 1 {
        return Ok(left.f_select(0, 0)?.f_tr()?.f_mm(&right.f_select(0, 0)?)?.f_unsqueeze(0)?);
    }
    Ok(left.f_transpose(1, 2)?.f_bmm(right)?)
}

/// Σ g gᵀ of a batch and N·T.
fn grad_outer(geometry: &Geometry, image: &Tensor, workspace: &Workspace) -> Result<(Tensor, f64)> {
    let (batch, _, height, width) = image.size4()?;
    let positions = height * width;
    let mut outer = workspace.zeros(&[geometry.conv.groups, geometry.out, geometry.out])?;
    for (start, length) in workspace.chunks(batch, 2 * geometry.outputs() * positions) {
        let chunk = workspace.take(&image.f_narrow(0, start, length)?)?;
        let split = chunk.f_reshape([length, geometry.conv.groups, geometry.out, positions])?;
        let flat = split
            .f_permute([1, 0, 3, 2])?
            .f_reshape([geometry.conv.groups, length * positions, geometry.out])?;
        let _ = outer.f_add_(&gram(&flat, &flat)?)?;
    }
    Ok((outer, (batch * positions) as f64))
}

/// Fills the lower kernel-row blocks from the upper ones.
fn mirror(geometry: &Geometry, upper: &Tensor) -> Result<Tensor> {
    let full = upper.f_detach_copy()?;
    let pieces = geometry.ranges();
    for (i, &(y, height)) in pieces.iter().enumerate() {
        for &(z, width) in &pieces[i + 1..] {
            let block = upper.f_narrow(1, y, height)?.f_narrow(2, z, width)?.f_transpose(1, 2)?;
            full.f_narrow(1, z, width)?.f_narrow(2, y, height)?.f_copy_(&block)?;
        }
    }
    Ok(full)
}

fn symmetric(matrix: &Tensor) -> Result<Tensor> {
    Ok(matrix.f_add(&matrix.f_transpose(1, 2)?)?.f_mul_scalar(0.5)?)
}
