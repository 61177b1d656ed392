//! Calls that become typed nodes.

use super::super::graph::Op;
use super::super::layer::{Conv, Linear};
use super::super::value::{Extent, Operand};
use super::unusable;
use crate::error::Result;
use crate::import::{self, Call, Program};
use std::collections::BTreeMap;

type Arguments = BTreeMap<String, Operand>;

/// The typed node that a call is, with the arguments left that such a node reads; None: it is another operator.
///
/// # Errors
/// Settings that make no sense.
pub(super) fn op(target: &str, arguments: &mut Arguments, program: &Program, call: &Call) -> Result<Option<Op>> {
    let op = match target {
        "conv2d" | "conv2d.padding" => conv(target, arguments, program, call),
        "linear" => weight(program, call).and_then(|shape| match shape[..] {
            [out_features, in_features] => Some(Op::Linear(Linear {
                in_features,
                out_features,
                bias: arguments.contains_key("bias"),
            })),
            _ => None,
        }),
        // Without running statistics it standardises weights, or an example: that is no training.
        "batch_norm" if matches!(arguments.get("training"), Some(Operand::Bool(true))) && arguments.contains_key("running_mean") => {
            return Err(unusable(
                "it was exported in training mode".into(),
                "call model.eval() before torch.export.export",
            ));
        }
        "batch_norm" => batch_norm(arguments, program),
        "dropout" | "feature_dropout" if matches!(arguments.get("train"), Some(Operand::Bool(true))) => {
            return Err(unusable(
                "it was exported in training mode".into(),
                "call model.eval() before torch.export.export",
            ));
        }
        "dropout" | "feature_dropout" => Some(Op::Dropout {
            // Dropping everything is no training: such a node is left out of it.
            p: float(arguments, "p").filter(|p| (0.0..1.0).contains(p)).unwrap_or(0.0),
            channels: target == "feature_dropout",
        }),
        _ => None,
    };
    if op.is_some() {
        // `dropout_` calls it `self`.
        if let Some(own) = arguments.remove("self") {
            arguments.insert("input".into(), own);
        }
        let read = ["input", "weight", "bias", "running_mean", "running_var", "num_batches_tracked"];
        arguments.retain(|name, _| read.contains(&name.as_str()));
    }
    Ok(op)
}

/// The shape of what is called `weight`.
fn weight(program: &Program, call: &Call) -> Option<Vec<i64>> {
    let (_, argument) = call.inputs.iter().find(|(name, _)| name == "weight")?;
    match argument {
        import::Argument::Tensor(name) => program.values.get(name)?.shape.iter().copied().collect(),
        _ => None,
    }
}

fn conv(target: &str, arguments: &Arguments, program: &Program, call: &Call) -> Option<Op> {
    let shape = weight(program, call)?;
    let [out, inner, height, width] = shape[..] else { return None };
    let groups = match arguments.get("groups") {
        None => 1,
        Some(Operand::Int(n)) => *n,
        Some(_) => return None,
    };
    let (stride, dilation) = (pair(arguments, "stride", 1)?, pair(arguments, "dilation", 1)?);
    let padding = match arguments.get("padding") {
        Some(Operand::Text(word)) if word == "same" && target == "conv2d.padding" => same([height, width], stride, dilation)?,
        Some(Operand::Text(word)) if word == "valid" => [0, 0],
        None if target == "conv2d.padding" => [0, 0],
        _ => pair(arguments, "padding", 0)?,
    };
    Some(Op::Conv2d(Conv {
        in_channels: inner.checked_mul(groups)?,
        out_channels: out,
        kernel: [height, width],
        stride,
        padding,
        dilation,
        groups,
        bias: arguments.contains_key("bias"),
    }))
}

/// Padding that keeps height and width, where it is the same on both sides.
fn same(kernel: [i64; 2], stride: [i64; 2], dilation: [i64; 2]) -> Option<[i64; 2]> {
    let whole = [0, 1].map(|i| dilation[i].saturating_mul(kernel[i] - 1));
    (stride == [1, 1] && whole.iter().all(|n| n % 2 == 0)).then(|| whole.map(|n| n / 2))
}

fn pair(arguments: &Arguments, name: &str, usual: i64) -> Option<[i64; 2]> {
    match arguments.get(name) {
        None => Some([usual; 2]),
        Some(Operand::Int(both)) => Some([*both; 2]),
        Some(Operand::Ints(sizes)) => match sizes[..] {
            [Extent::Known(both)] => Some([both; 2]),
            [Extent::Known(height), Extent::Known(width)] => Some([height, width]),
            _ => None,
        },
        Some(_) => None,
    }
}

fn float(arguments: &Arguments, name: &str) -> Option<f64> {
    match arguments.get(name) {
        Some(Operand::Float(x)) => Some(*x),
        Some(Operand::Int(n)) => Some(*n as f64),
        _ => None,
    }
}

/// Of running statistics; its counter is found by its name beside them, since the evaluation graph does not read it.
fn batch_norm(arguments: &mut Arguments, program: &Program) -> Option<Op> {
    let mean = arguments.get("running_mean").and_then(Operand::state)?.to_string();
    let count = mean.strip_suffix("running_mean").map(|module| format!("{module}num_batches_tracked"));
    if let Some(count) = count.filter(|count| program.tensors.contains_key(count)) {
        arguments.insert("num_batches_tracked".into(), Operand::State(count));
    }
    Some(Op::BatchNorm {
        eps: float(arguments, "eps").unwrap_or(1e-5),
        momentum: float(arguments, "momentum").unwrap_or(0.1),
    })
}
