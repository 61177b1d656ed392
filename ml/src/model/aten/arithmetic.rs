//! Numbers: element by element, sums, products.

use super::super::value::{Args, Datum};
use super::operators;
use crate::error::{Error, Result};
use tch::{Kind, Scalar, Tensor};

operators! {
    "add.Tensor" => sum;
    "add.Scalar" => sum;
    "sub.Tensor" => difference;
    "sub.Scalar" => difference;
    "rsub.Scalar" => |a| Ok(a.tensor("self")?.f_neg()?.f_add_scalar(a.scalar("other")?)?.into());
    "mul.Tensor" => product;
    "mul.Scalar" => product;
    "div.Tensor" => ratio;
    "div.Scalar" => ratio;
    "div.Tensor_mode" => |a| rounded_division(a);
    "addcmul" => |a| {
        let product = a.tensor("tensor1")?.f_mul(a.tensor("tensor2")?)?;
        Ok(a.tensor("self")?.f_add(&product.f_mul_scalar(a.float_or("value", 1.0)?)?)?.into())
    };
    "neg" => |a| Ok(a.tensor("self")?.f_neg()?.into());
    "abs" => |a| Ok(a.tensor("self")?.f_abs()?.into());
    "exp" => |a| Ok(a.tensor("self")?.f_exp()?.into());
    "log" => |a| Ok(a.tensor("self")?.f_log()?.into());
    "sqrt" => |a| Ok(a.tensor("self")?.f_sqrt()?.into());
    "rsqrt" => |a| Ok(a.tensor("self")?.f_rsqrt()?.into());
    "reciprocal" => |a| Ok(a.tensor("self")?.f_reciprocal()?.into());
    "square" => |a| Ok(a.tensor("self")?.f_square()?.into());
    "sin" => |a| Ok(a.tensor("self")?.f_sin()?.into());
    "cos" => |a| Ok(a.tensor("self")?.f_cos()?.into());
    "floor" => |a| Ok(a.tensor("self")?.f_floor()?.into());
    "pow.Tensor_Scalar" => |a| Ok(a.tensor("self")?.f_pow_tensor_scalar(a.scalar("exponent")?)?.into());
    "pow.Tensor_Tensor" => |a| Ok(a.tensor("self")?.f_pow(a.tensor("exponent")?)?.into());
    "pow.Scalar" => |a| Ok(Tensor::f_pow_scalar(a.scalar("self")?, a.tensor("exponent")?)?.into());
    "clamp" => |a| clamp(a.tensor("self")?, a.maybe_scalar("min")?, a.maybe_scalar("max")?);
    "clamp_min" => |a| Ok(a.tensor("self")?.f_clamp_min(a.scalar("min")?)?.into());
    "clamp_max" => |a| Ok(a.tensor("self")?.f_clamp_max(a.scalar("max")?)?.into());
    "maximum" => |a| Ok(a.tensor("self")?.f_maximum(a.tensor("other")?)?.into());
    "minimum" => |a| Ok(a.tensor("self")?.f_minimum(a.tensor("other")?)?.into());
    "eq.Tensor" => |a| Ok(a.tensor("self")?.f_eq_tensor(a.tensor("other")?)?.into());
    "ne.Tensor" => |a| Ok(a.tensor("self")?.f_ne_tensor(a.tensor("other")?)?.into());
    "lt.Tensor" => |a| Ok(a.tensor("self")?.f_lt_tensor(a.tensor("other")?)?.into());
    "ge.Tensor" => |a| Ok(a.tensor("self")?.f_ge_tensor(a.tensor("other")?)?.into());
    "le.Tensor" => |a| Ok(a.tensor("self")?.f_le_tensor(a.tensor("other")?)?.into());
    "gt.Tensor" => |a| Ok(a.tensor("self")?.f_gt_tensor(a.tensor("other")?)?.into());
    "eq.Scalar" => |a| Ok(a.tensor("self")?.f_eq(a.scalar("other")?)?.into());
    "ne.Scalar" => |a| Ok(a.tensor("self")?.f_ne(a.scalar("other")?)?.into());
    "lt.Scalar" => |a| Ok(a.tensor("self")?.f_lt(a.scalar("other")?)?.into());
    "ge.Scalar" => |a| Ok(a.tensor("self")?.f_ge(a.scalar("other")?)?.into());
    "le.Scalar" => |a| Ok(a.tensor("self")?.f_le(a.scalar("other")?)?.into());
    "gt.Scalar" => |a| Ok(a.tensor("self")?.f_gt(a.scalar("other")?)?.into());
    "bitwise_not" => |a| Ok(a.tensor("self")?.f_bitwise_not()?.into());
    "logical_not" => |a| Ok(a.tensor("self")?.f_logical_not()?.into());
    "bitwise_and.Tensor" => |a| Ok(a.tensor("self")?.f_bitwise_and_tensor(a.tensor("other")?)?.into());
    "bitwise_or.Tensor" => |a| Ok(a.tensor("self")?.f_bitwise_or_tensor(a.tensor("other")?)?.into());
    "__and__.Tensor" => |a| Ok(a.tensor("self")?.f_bitwise_and_tensor(a.tensor("other")?)?.into());
    "__or__.Tensor" => |a| Ok(a.tensor("self")?.f_bitwise_or_tensor(a.tensor("other")?)?.into());
    "logical_and" => |a| Ok(a.tensor("self")?.f_logical_and(a.tensor("other")?)?.into());
    "logical_or" => |a| Ok(a.tensor("self")?.f_logical_or(a.tensor("other")?)?.into());
    "masked_fill.Scalar" => |a| Ok(a.tensor("self")?.f_masked_fill(a.tensor("mask")?, a.scalar("value")?)?.into());
    "where.self" => |a| Ok(a.tensor("self")?.f_where_self(a.tensor("condition")?, a.tensor("other")?)?.into());
    "where.ScalarOther" => |a| either(a.tensor("condition")?, a.tensor("self")?, &number(a, "other", a.tensor("self")?)?);
    "where.ScalarSelf" => |a| either(a.tensor("condition")?, &number(a, "self", a.tensor("other")?)?, a.tensor("other")?);
    "where.Scalar" => |a| {
        let condition = a.tensor("condition")?;
        let kind = a.computed(Kind::Float);
        let of = |name: &str| -> Result<Tensor> { Ok(Tensor::f_full([1], a.scalar(name)?, (kind, condition.device()))?) };
        either(condition, &of("self")?, &of("other")?)
    };
    "fill.Tensor" => |a| filled(a.tensor("self")?, &a.tensor("value")?.f_reshape([1])?);
    "fill.Scalar" => |a| Ok(a.tensor("self")?.f_full_like(a.scalar("value")?)?.into());
    "zero" => |a| Ok(a.tensor("self")?.f_zeros_like()?.into());
    "copy" => |a| {
        let to = a.tensor("self")?;
        Ok(a.tensor("src")?.f_to_kind(to.kind())?.f_expand_as(to)?.into())
    };
    "sum.dim_IntList" => |a| Ok(a.tensor("self")?.f_sum_dim_intlist(dims(a)?.as_deref(), a.bool_or("keepdim", false)?, a.maybe_kind("dtype")?)?.into());
    "sum" => |a| {
        let x = a.tensor("self")?;
        Ok(x.f_sum(a.maybe_kind("dtype")?.unwrap_or(x.kind()))?.into())
    };
    "mean.dim" => |a| Ok(a.tensor("self")?.f_mean_dim(dims(a)?.as_deref(), a.bool_or("keepdim", false)?, a.maybe_kind("dtype")?)?.into());
    "mean" => |a| {
        let x = a.tensor("self")?;
        Ok(x.f_mean(a.maybe_kind("dtype")?.unwrap_or(x.kind()))?.into())
    };
    "var.correction" => |a| {
        let correction = a.float_or("correction", 1.0)?;
        Ok(a.tensor("self")?.f_var_correction(dims(a)?.as_deref(), correction, a.bool_or("keepdim", false)?)?.into())
    };
    "std.correction" => |a| {
        let correction = a.float_or("correction", 1.0)?;
        Ok(a.tensor("self")?.f_std_correction(dims(a)?.as_deref(), correction, a.bool_or("keepdim", false)?)?.into())
    };
    "amax" => |a| Ok(a.tensor("self")?.f_amax(dims(a)?.unwrap_or_default(), a.bool_or("keepdim", false)?)?.into());
    "amin" => |a| Ok(a.tensor("self")?.f_amin(dims(a)?.unwrap_or_default(), a.bool_or("keepdim", false)?)?.into());
    "max.dim" => |a| {
        let (values, places) = a.tensor("self")?.f_max_dim(a.int("dim")?, a.bool_or("keepdim", false)?)?;
        Ok(vec![values, places].into())
    };
    "argmax" => |a| Ok(a.tensor("self")?.f_argmax(a.maybe_int("dim")?, a.bool_or("keepdim", false)?)?.into());
    "cumsum" => |a| Ok(a.tensor("self")?.f_cumsum(a.int("dim")?, a.maybe_kind("dtype")?)?.into());
    "linalg_vector_norm" => |a| {
        let (x, order) = (a.tensor("self")?, a.float_or("ord", 2.0)?);
        Ok(match dims(a)? {
            Some(dims) => x.f_norm_scalaropt_dim(order, dims, a.bool_or("keepdim", false)?)?.into(),
            None => x.f_flatten(0, -1)?.f_norm_scalaropt_dim(order, [0i64], false)?.into(),
        })
    };
    "matmul" => |a| Ok(a.tensor("self")?.f_matmul(a.tensor("other")?)?.into());
    "bmm" => |a| Ok(a.tensor("self")?.f_bmm(a.tensor("mat2")?)?.into());
    "mm" => |a| Ok(a.tensor("self")?.f_mm(a.tensor("mat2")?)?.into());
    "baddbmm" => |a| {
        let product = a.tensor("batch1")?.f_bmm(a.tensor("batch2")?)?.f_mul_scalar(a.float_or("alpha", 1.0)?)?;
        Ok(a.tensor("self")?.f_mul_scalar(a.float_or("beta", 1.0)?)?.f_add(&product)?.into())
    };
    "einsum" => |a| Ok(Tensor::f_einsum(a.text_or("equation", "")?, &a.tensors("tensors")?, None::<i64>)?.into());
    "_operator.mul" => |a| Ok(Datum::Int(a.int("a")?.saturating_mul(a.int("b")?)));
    "_operator.add" => |a| Ok(Datum::Int(a.int("a")?.saturating_add(a.int("b")?)));
    "_operator.sub" => |a| Ok(Datum::Int(a.int("a")?.saturating_sub(a.int("b")?)));
    "_operator.floordiv" => |a| quotient(a.int("a")?, a.int("b")?);
}

fn dims(a: &Args<'_>) -> Result<Option<Vec<i64>>> {
    a.maybe_ints("dim")
}

/// What stands on the right: a tensor, or a number (torch writes numbers into `.Tensor` overloads too), times α.
enum Right {
    Tensor(Tensor),
    Number(Scalar),
}

fn right(a: &Args<'_>) -> Result<Right> {
    let alpha = a.maybe_float("alpha")?.filter(|alpha| *alpha != 1.0);
    Ok(match (a.maybe_tensor("other"), alpha) {
        (Ok(Some(other)), None) => Right::Tensor(other.shallow_clone()),
        (Ok(Some(other)), Some(alpha)) => Right::Tensor(other.f_mul_scalar(alpha)?),
        (_, None) => Right::Number(a.scalar("other")?),
        (_, Some(alpha)) => Right::Number(Scalar::float(alpha * a.float_or("other", 0.0)?)),
    })
}

fn sum(a: &Args<'_>) -> Result<Datum> {
    let x = a.tensor("self")?;
    Ok(match right(a)? {
        Right::Tensor(other) => x.f_add(&other)?.into(),
        Right::Number(other) => x.f_add_scalar(other)?.into(),
    })
}

fn difference(a: &Args<'_>) -> Result<Datum> {
    let x = a.tensor("self")?;
    Ok(match right(a)? {
        Right::Tensor(other) => x.f_sub(&other)?.into(),
        Right::Number(other) => x.f_sub_scalar(other)?.into(),
    })
}

fn product(a: &Args<'_>) -> Result<Datum> {
    let x = a.tensor("self")?;
    Ok(match right(a)? {
        Right::Tensor(other) => x.f_mul(&other)?.into(),
        Right::Number(other) => x.f_mul_scalar(other)?.into(),
    })
}

fn ratio(a: &Args<'_>) -> Result<Datum> {
    let x = a.tensor("self")?;
    Ok(match right(a)? {
        Right::Tensor(other) => x.f_div(&other)?.into(),
        Right::Number(other) => x.f_div_scalar(other)?.into(),
    })
}

fn rounded_division(a: &Args<'_>) -> Result<Datum> {
    let x = a.tensor("self")?;
    let y = match right(a)? {
        Right::Tensor(other) => other,
        Right::Number(other) => x.f_ones_like()?.f_mul_scalar(other)?,
    };
    let y = &y;
    Ok(match a.text_or("rounding_mode", "")? {
        "" => x.f_div(y)?.into(),
        mode => x.f_div_tensor_mode(y, mode)?.into(),
    })
}

pub(super) fn clamp(x: &Tensor, min: Option<Scalar>, max: Option<Scalar>) -> Result<Datum> {
    Ok(match (min, max) {
        (Some(min), Some(max)) => x.f_clamp(min, max)?.into(),
        (Some(min), None) => x.f_clamp_min(min)?.into(),
        (None, Some(max)) => x.f_clamp_max(max)?.into(),
        (None, None) => x.shallow_clone().into(),
    })
}

/// `yes` where `condition` holds, else `no`.
fn either(condition: &Tensor, yes: &Tensor, no: &Tensor) -> Result<Datum> {
    Ok(yes.f_where_self(condition, no)?.into())
}

/// A number as a tensor of the kind of `like`, where that holds it: a number with a fraction beside whole ones makes all of them floats, as in torch.
fn number(a: &Args<'_>, name: &str, like: &Tensor) -> Result<Tensor> {
    let kind = if like.is_floating_point() || a.maybe_int(name).is_ok() {
        like.kind()
    } else {
        a.computed(Kind::Float)
    };
    Ok(Tensor::f_full([1], a.scalar(name)?, (kind, like.device()))?)
}

fn filled(x: &Tensor, value: &Tensor) -> Result<Datum> {
    let kind = if x.is_floating_point() { x.kind() } else { Kind::Double };
    let value = value.f_to_kind(kind)?.f_double_value(&[0])?;
    Ok(x.f_full_like(value)?.into())
}

fn quotient(a: i64, b: i64) -> Result<Datum> {
    a.checked_div_euclid(b)
        .map(Datum::Int)
        .ok_or_else(|| Error::internal(format!("{a} cannot be divided by {b}")))
}
