//! Layers without weights of their own, or whose weights are not tracked: pools, activations, norms over an example, attention.

use super::super::value::{Args, Datum};
use super::arithmetic::clamp;
use super::operators;
use crate::error::Result;
use tch::{Scalar, Tensor};

operators! {
    "relu" => |a| Ok(a.tensor("self")?.f_relu()?.into());
    "relu6" => |a| clamp(a.tensor("self")?, Some(Scalar::float(0.0)), Some(Scalar::float(6.0)));
    "hardtanh" => |a| clamp(a.tensor("self")?, Some(Scalar::float(a.float_or("min_val", -1.0)?)), Some(Scalar::float(a.float_or("max_val", 1.0)?)));
    "leaky_relu" => |a| {
        let (x, slope) = (a.tensor("self")?, a.float_or("negative_slope", 0.01)?);
        Ok(x.f_relu()?.f_sub(&x.f_neg()?.f_relu()?.f_mul_scalar(slope)?)?.into())
    };
    "prelu" => |a| Ok(a.tensor("self")?.f_prelu(a.tensor("weight")?)?.into());
    "elu" => |a| elu(a);
    "selu" => |a| Ok(a.tensor("self")?.f_selu()?.into());
    "gelu" => |a| Ok(a.tensor("self")?.f_gelu(a.text_or("approximate", "none")?)?.into());
    "silu" => |a| Ok(a.tensor("self")?.f_silu()?.into());
    "mish" => |a| Ok(a.tensor("self")?.f_mish()?.into());
    "softplus" => |a| softplus(a);
    "sigmoid" => |a| Ok(a.tensor("self")?.f_sigmoid()?.into());
    "tanh" => |a| Ok(a.tensor("self")?.f_tanh()?.into());
    "hardsigmoid" => |a| Ok(a.tensor("self")?.f_hardsigmoid()?.into());
    "hardswish" => |a| Ok(a.tensor("self")?.f_hardswish()?.into());
    "softmax.int" => |a| Ok(a.tensor("self")?.f_softmax(a.int("dim")?, None)?.into());
    "_softmax" => |a| Ok(a.tensor("self")?.f_softmax(a.int("dim")?, None)?.into());
    "log_softmax.int" => |a| Ok(a.tensor("self")?.f_log_softmax(a.int("dim")?, None)?.into());
    "max_pool2d" => |a| {
        let kernel = a.pair_or("kernel_size", [1, 1])?;
        let [stride, padding, dilation] = [a.pair_or("stride", kernel)?, a.pair_or("padding", [0, 0])?, a.pair_or("dilation", [1, 1])?];
        Ok(a.tensor("self")?.f_max_pool2d(kernel, stride, padding, dilation, a.bool_or("ceil_mode", false)?)?.into())
    };
    "avg_pool2d" => |a| {
        let kernel = a.pair_or("kernel_size", [1, 1])?;
        let [stride, padding] = [a.pair_or("stride", kernel)?, a.pair_or("padding", [0, 0])?];
        let (ceil, counted) = (a.bool_or("ceil_mode", false)?, a.bool_or("count_include_pad", true)?);
        Ok(a.tensor("self")?.f_avg_pool2d(kernel, stride, padding, ceil, counted, a.maybe_int("divisor_override")?)?.into())
    };
    "adaptive_avg_pool2d" => |a| Ok(a.tensor("self")?.f_adaptive_avg_pool2d(a.pair_or("output_size", [1, 1])?)?.into());
    "adaptive_avg_pool1d" => |a| Ok(a.tensor("self")?.f_adaptive_avg_pool1d(a.ints("output_size")?)?.into());
    "adaptive_max_pool2d" => |a| Ok(Datum::from(a.tensor("self")?.f_adaptive_max_pool2d(a.pair_or("output_size", [1, 1])?)?.0));
    "layer_norm" => |a| {
        let (weight, bias) = (a.maybe_tensor("weight")?, a.maybe_tensor("bias")?);
        Ok(a.tensor("input")?.f_layer_norm(a.ints("normalized_shape")?, weight, bias, a.float_or("eps", 1e-5)?, true)?.into())
    };
    "group_norm" => |a| {
        let (weight, bias) = (a.maybe_tensor("weight")?, a.maybe_tensor("bias")?);
        Ok(a.tensor("input")?.f_group_norm(a.int("num_groups")?, weight, bias, a.float_or("eps", 1e-5)?, true)?.into())
    };
    "rms_norm" => |a| rms_norm(a);
    "instance_norm" => |a| {
        let (weight, bias) = (a.maybe_tensor("weight")?, a.maybe_tensor("bias")?);
        let (mean, var) = (a.maybe_tensor("running_mean")?, a.maybe_tensor("running_var")?);
        let (by_input, eps) = (a.bool_or("use_input_stats", true)?, a.float_or("eps", 1e-5)?);
        Ok(a.tensor("input")?.f_instance_norm(weight, bias, mean, var, by_input, a.float_or("momentum", 0.1)?, eps, true)?.into())
    };
    "scaled_dot_product_attention" => |a| {
        let (query, key, value) = (a.tensor("query")?, a.tensor("key")?, a.tensor("value")?);
        let (mask, causal, scale) = (a.maybe_tensor("attn_mask")?, a.bool_or("is_causal", false)?, a.maybe_float("scale")?);
        Ok(Tensor::f_scaled_dot_product_attention(query, key, value, mask, 0.0, causal, scale, a.bool_or("enable_gqa", false)?)?.into())
    };
    "conv1d" => |a| {
        let [stride, padding, dilation] = [("stride", 1), ("padding", 0), ("dilation", 1)].map(|(name, usual)| a.maybe_ints(name).map(|n| n.unwrap_or(vec![usual])));
        let (weight, bias) = (a.tensor("weight")?, a.maybe_tensor("bias")?);
        Ok(a.tensor("input")?.f_conv1d(weight, bias, stride?, padding?, dilation?, a.int_or("groups", 1)?)?.into())
    };
    "conv2d" => |a| {
        let [stride, padding, dilation] = [a.pair_or("stride", [1, 1])?, a.pair_or("padding", [0, 0])?, a.pair_or("dilation", [1, 1])?];
        let (weight, bias) = (a.tensor("weight")?, a.maybe_tensor("bias")?);
        Ok(a.tensor("input")?.f_conv2d(weight, bias, stride, padding, dilation, a.int_or("groups", 1)?)?.into())
    };
    "conv2d.padding" => |a| {
        let [stride, dilation] = [a.pair_or("stride", [1, 1])?, a.pair_or("dilation", [1, 1])?];
        let (weight, bias) = (a.tensor("weight")?, a.maybe_tensor("bias")?);
        Ok(a.tensor("input")?.f_conv2d_padding(weight, bias, stride, a.text_or("padding", "valid")?, dilation, a.int_or("groups", 1)?)?.into())
    };
    "linear" => |a| Ok(a.tensor("input")?.f_linear(a.tensor("weight")?, a.maybe_tensor("bias")?)?.into());
    "addmm" => |a| Ok(a.tensor("self")?.f_add(&a.tensor("mat1")?.f_mm(a.tensor("mat2")?)?)?.into());
    "batch_norm" => |a| {
        let (weight, bias) = (a.maybe_tensor("weight")?, a.maybe_tensor("bias")?);
        let (mean, var) = (a.maybe_tensor("running_mean")?, a.maybe_tensor("running_var")?);
        let (training, eps) = (a.bool_or("training", false)?, a.float_or("eps", 1e-5)?);
        Ok(a.tensor("input")?.f_batch_norm(weight, bias, mean, var, training, a.float_or("momentum", 0.1)?, eps, true)?.into())
    };
    "upsample_nearest2d.vec" => |a| match resized(a)? {
        Resized::To(size) => Ok(a.tensor("input")?.f_upsample_nearest2d(size, None, None)?.into()),
        Resized::By(scales) => Ok(a.tensor("input")?.f_upsample_nearest2d_vec(None::<&[i64]>, scales)?.into()),
    };
    "upsample_bilinear2d.vec" => |a| {
        let corners = a.bool_or("align_corners", false)?;
        match resized(a)? {
            Resized::To(size) => Ok(a.tensor("input")?.f_upsample_bilinear2d(size, corners, None, None)?.into()),
            Resized::By(scales) => Ok(a.tensor("input")?.f_upsample_bilinear2d_vec(None::<&[i64]>, corners, scales)?.into()),
        }
    };
    "upsample_bicubic2d.vec" => |a| {
        let corners = a.bool_or("align_corners", false)?;
        match resized(a)? {
            Resized::To(size) => Ok(a.tensor("input")?.f_upsample_bicubic2d(size, corners, None, None)?.into()),
            Resized::By(scales) => Ok(a.tensor("input")?.f_upsample_bicubic2d_vec(None::<&[i64]>, corners, scales)?.into()),
        }
    };
    "embedding" => |a| Ok(Tensor::f_embedding(a.tensor("weight")?, a.tensor("indices")?, -1, false, false)?.into());
    // Evaluation's: nothing is dropped. In training a node of its own does it.
    "dropout" => |a| Ok(a.tensor("input")?.shallow_clone().into());
    "feature_dropout" => |a| Ok(a.tensor("input")?.shallow_clone().into());
}

/// To which size, or by how much. One of both is given: tch cannot leave out the scales of torch's own form for both.
enum Resized {
    To(Vec<i64>),
    By(Vec<f64>),
}

fn resized(a: &Args<'_>) -> Result<Resized> {
    Ok(match a.maybe_ints("output_size")? {
        Some(size) => Resized::To(size),
        None => Resized::By(a.floats("scale_factors")?),
    })
}

/// scale · (max(x, 0) + α (exp(min(x, 0) · input_scale) − 1)).
fn elu(a: &Args<'_>) -> Result<Datum> {
    let (x, alpha) = (a.tensor("self")?, a.float_or("alpha", 1.0)?);
    let below = x.f_clamp_max(0.0)?.f_mul_scalar(a.float_or("input_scale", 1.0)?)?.f_expm1()?;
    let sum = x.f_relu()?.f_add(&below.f_mul_scalar(alpha)?)?;
    Ok(sum.f_mul_scalar(a.float_or("scale", 1.0)?)?.into())
}

/// log(1 + exp(β x)) / β.
fn softplus(a: &Args<'_>) -> Result<Datum> {
    let beta = a.float_or("beta", 1.0)?;
    Ok(a.tensor("self")?.f_mul_scalar(beta)?.f_softplus()?.f_div_scalar(beta)?.into())
}

/// x / √(mean(x²) + ε) · weight, over the last dimensions.
fn rms_norm(a: &Args<'_>) -> Result<Datum> {
    let (x, shape) = (a.tensor("input")?, a.ints("normalized_shape")?);
    let dims: Vec<i64> = (1..=shape.len() as i64).map(|d| -d).collect();
    let eps = a.float_or("eps", f64::from(f32::EPSILON))?;
    let scale = x.f_square()?.f_mean_dim(dims.as_slice(), true, None)?.f_add_scalar(eps)?.f_rsqrt()?;
    let normal = x.f_mul(&scale)?;
    Ok(match a.maybe_tensor("weight")? {
        Some(weight) => normal.f_mul(weight)?.into(),
        None => normal.into(),
    })
}
