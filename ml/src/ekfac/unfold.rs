//! Patches without a full im2col: an input is unfolded along its width only, and each kernel row is a range of rows of that.
//!
//! A 3×3 kernel so costs 3 copies instead of 9, and rows of zeros above and below the picture are never made: positions whose kernel row
//! lies in the padding are left out of the products, which is exact.

use tch::Tensor;

use super::geometry::Geometry;
use super::workspace::Workspace;
use crate::error::Result;

/// Dimension order of a width-unfolded input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// [B, b, H, W', row]: one matrix per example and block.
    Examples,
    /// [b, H, B, W', row]: any range of picture rows over all examples is one matrix.
    Rows,
}

/// Unfolds an image B × (b·c) × H × W along its width: for each output column the kernel row's (column, channel) entries, zero where padded.
pub(super) fn wide(geometry: &Geometry, image: &Tensor, order: Order, workspace: &Workspace) -> Result<Tensor> {
    let (batch, _, height, width) = image.size4()?;
    let (groups, channels, padding) = (geometry.conv.groups, geometry.channels, geometry.conv.padding[1]);
    let split = image.f_reshape([batch, groups, channels, height, width])?;
    let (split, lead) = match order {
        Order::Examples => (split.f_permute([0, 1, 3, 4, 2])?, [batch, groups, height]),
        Order::Rows => (split.f_permute([1, 3, 0, 4, 2])?, [groups, height, batch]),
    };
    let padded_width = width + 2 * padding;
    let padded = if padding == 0 {
        split.f_contiguous()?
    } else {
        let padded = workspace.zeros(&[lead[0], lead[1], lead[2], padded_width, channels])?;
        padded.f_narrow(3, padding, width)?.f_copy_(&split)?;
        padded
    };
    let columns = geometry.conv.output_size([height, width])[1];
    if geometry.conv.kernel[1] == 1 && geometry.conv.stride[1] == 1 {
        return Ok(padded);
    }
    let line = padded_width * channels;
    let overlapping = padded.f_as_strided(
        [lead[0], lead[1], lead[2], columns, geometry.conv.kernel[1], channels],
        [
            lead[1] * lead[2] * line,
            lead[2] * line,
            line,
            geometry.conv.stride[1] * channels,
            geometry.conv.dilation[1] * channels,
            1,
        ],
        None, // from where `padded` begins: of one channel it can be a view of some examples of a batch, or of some channels of a picture
    )?;
    Ok(overlapping.f_reshape([lead[0], lead[1], lead[2], columns, geometry.row()])?)
}

/// Output rows that a kernel row reaches without touching the padding, and the input rows they read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// First output row.
    pub output: i64,
    /// First input row; the next ones follow at the stride.
    pub input: i64,
    /// How many; may be 0.
    pub rows: i64,
}

/// The reach of kernel row `y` for an input of `height` rows.
pub(super) fn reach(geometry: &Geometry, y: i64, height: i64, output_height: i64) -> Reach {
    let (stride, shift) = (geometry.conv.stride[0], geometry.conv.dilation[0] * y - geometry.conv.padding[0]);
    // output row t reads input row stride·t + shift, which must lie in 0..height
    let first = (-shift).max(0).div_euclid(stride) + i64::from((-shift).max(0).rem_euclid(stride) != 0);
    let end = ((height - 1 - shift).div_euclid(stride) + 1).min(output_height);
    Reach {
        output: first,
        input: stride * first + shift,
        rows: (end - first).max(0),
    }
}

/// Rows `reach.input`, `+ stride`, … along dimension `dim`.
pub(super) fn take_rows(wide: &Tensor, dim: i64, start: i64, rows: i64, stride: i64) -> Result<Tensor> {
    if rows == 0 {
        return Ok(wide.f_narrow(dim, 0, 0)?);
    }
    Ok(wide.f_slice(dim, start, start + (rows - 1) * stride + 1, stride)?)
}

/// One kernel row's share of every W_i: a batch of (positions × row) matrices with the output gradients that belong to them.
pub(super) struct KernelRow {
    /// First native column.
    pub start: i64,
    /// [B·b, positions, columns]
    pub inputs: Tensor,
    /// [B·b, positions, o]
    pub grads: Tensor,
}

/// A width-unfolded input whose picture rows are read by several kernel rows, copied once, so that each of them reads a view. (It is a view itself, of
/// overlapping patches. Where rows are skipped each kernel row copies its own.)
pub(super) fn once(geometry: &Geometry, wide: &Tensor) -> Result<Tensor> {
    Ok(if geometry.conv.kernel[0] > 1 && geometry.conv.stride[0] == 1 {
        wide.f_contiguous()?
    } else {
        wide.shallow_clone()
    })
}

/// Splits W_i = Σ_t g aᵀ by kernel row. `wide` is in [`Order::Examples`]; `grads` is [B·b, H', W', o], or some of the outputs of such. The bias is not among the parts.
pub(super) fn parts(geometry: &Geometry, wide: &Tensor, grads: &Tensor) -> Result<Vec<KernelRow>> {
    let size = wide.size();
    let (height, columns, row) = (size[2], size[3], geometry.row());
    let blocks = size[0] * size[1];
    let rows_of = wide.f_reshape([blocks, height, columns, row])?;
    let (_, output_height, _, out) = grads.size4()?;
    (0..geometry.conv.kernel[0])
        .map(|y| {
            let reach = reach(geometry, y, height, output_height);
            let inputs = take_rows(&rows_of, 1, reach.input, reach.rows, geometry.conv.stride[0])?.f_reshape([blocks, reach.rows * columns, row])?;
            let grads = take_rows(grads, 1, reach.output, reach.rows, 1)?.f_reshape([blocks, reach.rows * columns, out])?;
            Ok(KernelRow {
                start: y * row,
                inputs,
                grads,
            })
        })
        .collect()
}

/// All patches of a chunk, [B, b, T, d], in native order, with the ones column of a bias. `wide` is in [`Order::Examples`].
pub(super) fn patches(geometry: &Geometry, wide: &Tensor, output_height: i64, workspace: &Workspace) -> Result<Tensor> {
    let size = wide.size();
    let (height, columns, row) = (size[2], size[3], geometry.row());
    let inputs = geometry.inputs();
    let flat = [size[0], size[1], output_height * columns, inputs];
    if !geometry.conv.bias && geometry.conv.kernel[0] == 1 && geometry.conv.stride[0] == 1 && geometry.conv.padding[0] == 0 {
        return Ok(wide.f_reshape(flat)?);
    }
    let all = workspace.zeros(&[size[0], size[1], output_height, columns, inputs])?;
    for y in 0..geometry.conv.kernel[0] {
        let reach = reach(geometry, y, height, output_height);
        if reach.rows > 0 {
            let rows = take_rows(wide, 2, reach.input, reach.rows, geometry.conv.stride[0])?;
            all.f_narrow(4, y * row, row)?.f_narrow(2, reach.output, reach.rows)?.f_copy_(&rows)?;
        }
    }
    if geometry.conv.bias {
        let _ = all.f_narrow(4, geometry.kernel_inputs(), 1)?.f_fill_(1.0)?;
    }
    Ok(all.f_reshape(flat)?)
}
