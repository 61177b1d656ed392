//! Views, copies, pieces: the numbers stay what they are.

use super::super::value::{Args, Datum};
use super::operators;
use crate::error::{Error, Result};
use tch::{Kind, Tensor};

/// Those whose outcome can share memory with their first argument.
pub const SHARING: &[&str] = &[
    "view",
    "reshape",
    "reshape_as",
    "view_as",
    "permute",
    "transpose.int",
    "swapaxes",
    "t",
    "slice.Tensor",
    "select.int",
    "narrow",
    "unsqueeze",
    "squeeze.dim",
    "squeeze.dims",
    "squeeze",
    "expand",
    "expand_as",
    "flatten.using_ints",
    "unflatten.int",
    "unbind.int",
    "chunk",
    "split.Tensor",
    "split_with_sizes",
    "contiguous",
    "detach",
    "detach_",
    "alias",
    "to.dtype",
    "to.device",
    "to.dtype_layout",
    "type_as",
    "movedim.int",
    "movedim.intlist",
    "dropout",
    "feature_dropout",
];

operators! {
    // A view of numbers that lie otherwise in memory is a copy here: nothing else can be told apart.
    "view" => |a| Ok(a.tensor("self")?.f_reshape(a.ints("size")?)?.into());
    "reshape" => |a| Ok(a.tensor("self")?.f_reshape(a.ints("shape")?)?.into());
    "reshape_as" => |a| Ok(a.tensor("self")?.f_reshape(a.tensor("other")?.size())?.into());
    "view_as" => |a| Ok(a.tensor("self")?.f_reshape(a.tensor("other")?.size())?.into());
    "flatten.using_ints" => |a| Ok(a.tensor("self")?.f_flatten(a.int_or("start_dim", 0)?, a.int_or("end_dim", -1)?)?.into());
    "unflatten.int" => |a| Ok(a.tensor("self")?.f_unflatten(a.int("dim")?, a.ints("sizes")?)?.into());
    "permute" => |a| Ok(a.tensor("self")?.f_permute(a.ints("dims")?)?.into());
    "transpose.int" => |a| Ok(a.tensor("self")?.f_transpose(a.int("dim0")?, a.int("dim1")?)?.into());
    "swapaxes" => |a| Ok(a.tensor("self")?.f_transpose(a.int("axis0")?, a.int("axis1")?)?.into());
    "t" => |a| Ok(a.tensor("self")?.f_tr()?.into());
    "movedim.int" => |a| Ok(a.tensor("self")?.f_movedim([a.int("source")?], [a.int("destination")?])?.into());
    "movedim.intlist" => |a| Ok(a.tensor("self")?.f_movedim(a.ints("source")?, a.ints("destination")?)?.into());
    "slice.Tensor" => |a| Ok(a.tensor("self")?.f_slice(a.int_or("dim", 0)?, a.maybe_int("start")?, a.maybe_int("end")?, a.int_or("step", 1)?)?.into());
    "select.int" => |a| Ok(a.tensor("self")?.f_select(a.int("dim")?, a.int("index")?)?.into());
    "narrow" => |a| Ok(a.tensor("self")?.f_narrow(a.int("dim")?, a.int("start")?, a.int("length")?)?.into());
    "unsqueeze" => |a| Ok(a.tensor("self")?.f_unsqueeze(a.int("dim")?)?.into());
    "squeeze.dim" => |a| Ok(a.tensor("self")?.f_squeeze_dim(a.int("dim")?)?.into());
    "squeeze.dims" => |a| squeeze(a);
    "squeeze" => |a| Ok(a.tensor("self")?.f_squeeze()?.into());
    "expand" => |a| Ok(a.tensor("self")?.f_expand(a.ints("size")?, false)?.into());
    "expand_as" => |a| Ok(a.tensor("self")?.f_expand_as(a.tensor("other")?)?.into());
    "repeat" => |a| Ok(a.tensor("self")?.f_repeat(a.ints("repeats")?)?.into());
    "tile" => |a| Ok(a.tensor("self")?.f_tile(a.ints("dims")?)?.into());
    "repeat_interleave.self_int" => |a| Ok(a.tensor("self")?.f_repeat_interleave_self_int(a.int("repeats")?, a.maybe_int("dim")?, None)?.into());
    "unbind.int" => |a| Ok(a.tensor("self")?.f_unbind(a.int_or("dim", 0)?)?.into());
    "chunk" => |a| Ok(a.tensor("self")?.f_chunk(a.int("chunks")?, a.int_or("dim", 0)?)?.into());
    "split.Tensor" => |a| Ok(a.tensor("self")?.f_split(a.int("split_size")?, a.int_or("dim", 0)?)?.into());
    "split_with_sizes" => |a| Ok(a.tensor("self")?.f_split_with_sizes(a.ints("split_sizes")?, a.int_or("dim", 0)?)?.into());
    "meshgrid" => |a| Ok(Tensor::f_meshgrid_indexing(&a.tensors("tensors")?, "ij")?.into());
    "meshgrid.indexing" => |a| Ok(Tensor::f_meshgrid_indexing(&a.tensors("tensors")?, a.text_or("indexing", "ij")?)?.into());
    "cat" => |a| Ok(Tensor::f_cat(&a.tensors("tensors")?, a.int_or("dim", 0)?)?.into());
    "stack" => |a| Ok(Tensor::f_stack(&a.tensors("tensors")?, a.int_or("dim", 0)?)?.into());
    "roll" => |a| Ok(a.tensor("self")?.f_roll(a.ints("shifts")?, a.maybe_ints("dims")?.unwrap_or_default())?.into());
    "flip" => |a| Ok(a.tensor("self")?.f_flip(a.ints("dims")?)?.into());
    "index.Tensor" => |a| Ok(a.tensor("self")?.f_index(&a.maybe_tensors("indices")?)?.into());
    "index_select" => |a| Ok(a.tensor("self")?.f_index_select(a.int("dim")?, a.tensor("index")?)?.into());
    "gather" => |a| Ok(a.tensor("self")?.f_gather(a.int("dim")?, a.tensor("index")?, false)?.into());
    "pad" => |a| Ok(a.tensor("self")?.f_pad(a.ints("pad")?, a.text_or("mode", "constant")?, a.maybe_float("value")?)?.into());
    "constant_pad_nd" => |a| Ok(a.tensor("self")?.f_pad(a.ints("pad")?, "constant", a.maybe_float("value")?)?.into());
    "im2col" => |a| {
        let [kernel, dilation, padding, stride] = windows(a)?;
        Ok(a.tensor("self")?.f_im2col(kernel, dilation, padding, stride)?.into())
    };
    "col2im" => |a| {
        let [kernel, dilation, padding, stride] = windows(a)?;
        Ok(a.tensor("self")?.f_col2im(a.ints("output_size")?, kernel, dilation, padding, stride)?.into())
    };
    "pixel_shuffle" => |a| Ok(a.tensor("self")?.f_pixel_shuffle(a.int("upscale_factor")?)?.into());
    "pixel_unshuffle" => |a| Ok(a.tensor("self")?.f_pixel_unshuffle(a.int("downscale_factor")?)?.into());
    "channel_shuffle" => |a| Ok(a.tensor("self")?.f_channel_shuffle(a.int("groups")?)?.into());
    "contiguous" => |a| Ok(a.tensor("self")?.f_contiguous()?.into());
    "clone" => |a| copied(a.tensor("self")?);
    "lift_fresh_copy" => |a| copied(a.tensor("self")?);
    "detach" => |a| Ok(a.tensor("self")?.f_detach()?.into());
    "detach_" => |a| Ok(a.tensor("self")?.f_detach()?.into());
    "alias" => |a| Ok(a.tensor("self")?.shallow_clone().into());
    "to.dtype" => |a| to(a, a.tensor("self")?, a.maybe_kind("dtype")?);
    "to.device" => |a| to(a, a.tensor("self")?, a.maybe_kind("dtype")?);
    "to.dtype_layout" => |a| to(a, a.tensor("self")?, a.maybe_kind("dtype")?);
    "_to_copy" => |a| to(a, a.tensor("self")?, a.maybe_kind("dtype")?);
    "type_as" => |a| to(a, a.tensor("self")?, Some(a.tensor("other")?.kind()));
    "new_zeros" => |a| made(a, |size, options| Tensor::f_zeros(size, options));
    "new_ones" => |a| made(a, |size, options| Tensor::f_ones(size, options));
    "zeros" => |a| made(a, |size, options| Tensor::f_zeros(size, options));
    "ones" => |a| made(a, |size, options| Tensor::f_ones(size, options));
    "full" => |a| {
        let value = a.float_or("fill_value", 0.0)?;
        made(a, |size, options| Tensor::f_full(size, value, options))
    };
    "full_like" => |a| {
        let like = a.tensor("self")?;
        let kind = a.computed(a.maybe_kind("dtype")?.unwrap_or(like.kind()));
        Ok(Tensor::f_full(like.size(), a.scalar("fill_value")?, (kind, like.device()))?.into())
    };
    "scalar_tensor" => |a| Ok(Tensor::f_full([0i64; 0], a.scalar("s")?, (a.computed(a.maybe_kind("dtype")?.unwrap_or(Kind::Float)), a.device))?.into());
    "zeros_like" => |a| Ok(a.tensor("self")?.f_zeros_like()?.into());
    "ones_like" => |a| Ok(a.tensor("self")?.f_ones_like()?.into());
    "arange" => |a| Ok(Tensor::f_arange(a.scalar("end")?, (counted(a, &["end"])?, a.device))?.into());
    "arange.start" => |a| Ok(Tensor::f_arange_start(a.scalar("start")?, a.scalar("end")?, (counted(a, &["start", "end"])?, a.device))?.into());
    "arange.start_step" => |a| {
        let step = a.maybe_scalar("step")?.unwrap_or_else(|| tch::Scalar::int(1));
        let kind = counted(a, &["start", "end", "step"])?;
        Ok(Tensor::f_arange_start_step(a.scalar("start")?, a.scalar("end")?, step, (kind, a.device))?.into())
    };
    "sym_size.int" => |a| {
        let (x, dim) = (a.tensor("self")?, a.int("dim")?);
        let size = x.size();
        let place = if dim < 0 { dim + size.len() as i64 } else { dim };
        let found = usize::try_from(place).ok().and_then(|place| size.get(place).copied());
        found.map(Datum::Int).ok_or_else(|| Error::internal(format!("a tensor of shape {size:?} has no dimension {dim}")))
    };
}

/// In memory of its own.
fn copied(x: &Tensor) -> Result<Datum> {
    Ok(x.f_alias_copy()?.into())
}

fn squeeze(a: &Args<'_>) -> Result<Datum> {
    let mut x = a.tensor("self")?.shallow_clone();
    let mut dims: Vec<i64> = a.ints("dim")?.iter().map(|d| if *d < 0 { d + x.dim() as i64 } else { *d }).collect();
    dims.sort_unstable();
    for dim in dims.into_iter().rev() {
        x = x.f_squeeze_dim(dim)?;
    }
    Ok(x.into())
}

fn windows(a: &Args<'_>) -> Result<[[i64; 2]; 4]> {
    let [one, zero] = [[1, 1], [0, 0]];
    Ok([
        a.pair_or("kernel_size", one)?,
        a.pair_or("dilation", one)?,
        a.pair_or("padding", zero)?,
        a.pair_or("stride", one)?,
    ])
}

/// Half-precision parts of a network are computed in the precision of the pass: better than asked, and the same on every device.
fn to(a: &Args<'_>, x: &Tensor, kind: Option<Kind>) -> Result<Datum> {
    Ok(match kind {
        Some(kind) if !(is_float(kind) && x.is_floating_point()) && kind != x.kind() => x.f_to_kind(a.computed(kind))?.into(),
        _ => x.shallow_clone().into(),
    })
}

/// Is it a kind of floating-point numbers?
pub fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16)
}

fn made(a: &Args<'_>, make: impl Fn(&[i64], (Kind, tch::Device)) -> std::result::Result<Tensor, tch::TchError>) -> Result<Datum> {
    let like = a.maybe_tensor("self")?.map(|x| (x.kind(), x.device()));
    let (kind, device) = like.unwrap_or((Kind::Float, a.device));
    Ok(make(&a.ints("size")?, (a.computed(a.maybe_kind("dtype")?.unwrap_or(kind)), device))?.into())
}

/// What numbers of a range are: whole ones count in whole numbers.
fn counted(a: &Args<'_>, names: &[&str]) -> Result<Kind> {
    if let Some(kind) = a.maybe_kind("dtype")? {
        return Ok(a.computed(kind));
    }
    let whole = names.iter().all(|name| a.maybe_int(name).is_ok());
    Ok(a.computed(if whole { Kind::Int64 } else { Kind::Float }))
}
