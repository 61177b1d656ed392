//! Gradients of three weights of three layers beside finite differences, in float64.

use crate::ekfac::{Workspace, gradient};
use crate::error::{Error, Result};
use crate::model::{Graph, Model, Weights};
use crate::random;
use tch::{Device, Kind, Tensor};

/// Largest relative difference; 0 where no layer has a weight of its own.
pub(super) fn difference(graph: &Graph, weights: &Weights) -> Result<f64> {
    let model = Model::new(graph.clone(), weights.to(Device::Cpu, Kind::Double));
    let [channels, height, width] = graph.input;
    let _alone = random::seeded(17);
    let options = (Kind::Double, Device::Cpu);
    let image = Tensor::f_randn([1, channels, height, width], options)?;
    let direction = Tensor::f_randn([graph.classes()], options)?;
    let objective = |logits: &Tensor| -> Result<Tensor> { Ok(logits.f_matmul(&direction)?.f_sum(Kind::Double)?) };
    let layers = graph.layers();
    let owned: Vec<usize> = (0..layers.len()).filter(|&at| weight(&model, &layers[at].name).is_some()).collect();
    let Some(last) = owned.len().checked_sub(1) else { return Ok(0.0) };
    let mut chosen = vec![owned[0], owned[last / 2], owned[last]];
    chosen.dedup();
    let tapped = model.forward_tapped(&image)?;
    let asked = objective(&tapped.logits)?;
    let pairs = tapped.pairs(&asked, &chosen)?;
    let mut worst = 0f64;
    for (&at, pair) in chosen.iter().zip(pairs) {
        let layer = layers[at].clone();
        let tensor = weight(&model, &layer.name).ok_or_else(|| Error::internal("a weight that is gone"))?;
        let own = gradient(std::slice::from_ref(&layer), &[pair], &Workspace::new(Kind::Double, Device::Cpu))?;
        let inputs = tensor.size()[1..].iter().product::<i64>();
        // [1, b·o, d]: what belongs to the bias comes last.
        let of_weight = own[0].f_narrow(2, 0, inputs)?.f_reshape([-1])?;
        let place = of_weight.abs().argmax(0, false).int64_value(&[]);
        let slope = of_weight.double_value(&[place]);
        let measured = tch::no_grad(|| measured(&model, &image, &tensor, place, &objective))?;
        worst = worst.max((measured - slope).abs() / slope.abs().max(1e-12));
    }
    Ok(worst)
}

/// A layer's weight in the state.
fn weight(model: &Model, name: &str) -> Option<Tensor> {
    let found = model.weights.0.get(&format!("{name}.weight")).or_else(|| model.weights.0.get(name));
    found.map(Tensor::shallow_clone)
}

/// (f(w + h) − f(w − h)) / 2h for one number of a weight.
fn measured(model: &Model, image: &Tensor, weight: &Tensor, place: i64, objective: &impl Fn(&Tensor) -> Result<Tensor>) -> Result<f64> {
    let mut at = Vec::new();
    let mut rest = place;
    for size in weight.size().iter().rev() {
        at.push(rest % size);
        rest /= size;
    }
    let mut number = weight.shallow_clone();
    for index in at.iter().rev() {
        number = number.f_select(0, *index)?;
    }
    let before = number.f_double_value(&[])?;
    let step = 1e-6 * before.abs().max(1.0);
    let value = |to: f64| -> Result<f64> {
        let _ = number.shallow_clone().f_fill_(to)?;
        Ok(objective(&model.forward(image)?)?.double_value(&[]))
    };
    let slope = (value(before + step)? - value(before - step)?) / (2.0 * step);
    let _ = number.shallow_clone().f_fill_(before)?;
    Ok(slope)
}
