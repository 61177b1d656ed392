//! One batch and three linear networks, with what PyTorch makes of them (ml/tests/fixtures/unlearn/make.py): for the tests of losses that look at a teacher.
#![allow(clippy::unwrap_used, reason = "tests")]

use crate::model::{Graph, Model, Weights};
use crate::train::loss::{Loss, Seen};
use serde_json::Value;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// The fixture.
pub(super) struct Lesson(Value);

impl Lesson {
    pub(super) fn new() -> Self {
        Self(serde_json::from_str(include_str!("../../tests/fixtures/unlearn/teachers.json")).unwrap())
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap()
    }

    /// Numbers of one or two dimensions.
    fn tensor(value: &Value) -> Tensor {
        let row = |row: &Value| row.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect::<Vec<_>>();
        match value[0].is_array() {
            true => Tensor::from_slice2(&value.as_array().unwrap().iter().map(row).collect::<Vec<_>>()),
            false => Tensor::from_slice(&row(value)),
        }
    }

    fn images(&self) -> Tensor {
        Self::tensor(&self.0["images"]).reshape([-1, 1, 1, 5])
    }

    /// A linear network of the fixture's, in float64.
    pub(super) fn network(&self, name: &str) -> Model {
        let graph = r#"{"format": 2, "input": [1, 1, 5], "state": [
            {"name": "fc.weight", "shape": [4, 5], "kind": "float32", "parameter": true}, {"name": "fc.bias", "shape": [4], "kind": "float32", "parameter": true}], "nodes": [
            {"name": "flat", "op": {"op": "aten", "target": "flatten.using_ints"}, "arguments": {"self": {"value": "input"}, "start_dim": {"int": 1}}},
            {"name": "fc", "op": {"op": "linear", "in_features": 5, "out_features": 4}, "arguments": {"input": {"value": "flat"}, "weight": {"state": "fc.weight"}, "bias": {"state": "fc.bias"}}}]}"#;
        let weights = ["weight", "bias"].map(|key| (format!("fc.{key}"), Self::tensor(&self.0[name][key])));
        Model::new(Graph::read(graph).unwrap(), Weights(BTreeMap::from(weights)))
    }

    /// The loss of the batch in an epoch, and its gradients: (loss, weight, bias). The flagged are the second and the fifth of the `examples`.
    pub(super) fn of(&self, loss: &dyn Loss, epoch: u32) -> (f64, Tensor, Tensor) {
        let (student, images) = (self.network("student"), self.images());
        let leaves = ["fc.weight", "fc.bias"].map(|name| student.weights.0[name].set_requires_grad(true));
        let logits = student.forward_differentiable(&images).unwrap();
        let labels = Self::tensor(&self.0["labels"]).to_kind(Kind::Int64);
        let teacher = loss.teacher().map(|teacher| teacher.forward(&images).unwrap());
        let value = loss
            .of(&Seen {
                images: &images,
                student: &logits,
                teacher: teacher.as_ref(),
                labels: &labels,
                others: None,
                smoothing: self.number("smoothing"),
                examples: &[10, 20, 30, 40, 50, 60],
                epoch,
            })
            .unwrap();
        let mut gradients = Tensor::run_backward(&[&value], &leaves.each_ref(), false, false);
        let bias = gradients.remove(1);
        (value.double_value(&[]), gradients.remove(0), bias)
    }

    /// That these are the fixture's numbers, times `factor`.
    pub(super) fn agrees(&self, (loss, weight, bias): &(f64, Tensor, Tensor), name: &str, factor: f64) {
        let expected = &self.0[name];
        let near = |found: &Tensor, key: &str| (found - Self::tensor(&expected[key]) * factor).abs().max().double_value(&[]);
        assert!((loss - expected["loss"].as_f64().unwrap() * factor).abs() < 1e-12, "{name}: {loss}");
        assert!(near(weight, "weight") < 1e-12 && near(bias, "bias") < 1e-12, "{name}: {weight}, {bias}");
    }
}
