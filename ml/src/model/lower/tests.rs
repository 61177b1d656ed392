//! Small programs, written by hand: what torch would compute is plain.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;
use crate::import::Argument as Given;
use crate::model::Model;
use tch::Tensor;

fn call(target: &str, inputs: &[(&str, Given)], output: &str) -> Call {
    Call {
        target: format!("torch.ops.aten.{target}"),
        inputs: inputs.iter().map(|(name, given)| ((*name).to_string(), given.clone())).collect(),
        outputs: vec![Output::Tensor(output.into())],
        module: None,
    }
}

fn tensor(name: &str) -> Given {
    Given::Tensor(name.into())
}

/// Of pictures of two pixels, `x`, which the first call makes rows, `f`; the last call's output are the logits.
fn program(calls: Vec<Call>) -> Program {
    let rows = call("flatten.using_ints", &[("self", tensor("x")), ("start_dim", Given::Int(1))], "f");
    let output = match &calls[calls.len() - 1].outputs[0] {
        Output::Tensor(name) => name.clone(),
        other => panic!("{other:?}"),
    };
    Program {
        input: "x".into(),
        input_shape: vec![None, Some(1), Some(1), Some(2)],
        output,
        calls: [vec![rows], calls].concat(),
        state: BTreeMap::new(),
        tensors: BTreeMap::new(),
        values: BTreeMap::new(),
        extra: BTreeMap::new(),
        torch_version: String::new(),
    }
}

/// What it makes of the pictures (1, 2) and (−3, 4).
fn answers(calls: Vec<Call>) -> Result<Vec<f64>> {
    let (graph, weights) = graph(&program(calls), [1, 1, 2])?;
    let images = Tensor::from_slice(&[1f32, 2.0, -3.0, 4.0]).reshape([2, 1, 1, 2]);
    let logits = Model::new(graph, weights).forward(&images)?;
    Ok(Vec::try_from(logits.to_kind(tch::Kind::Double).flatten(0, -1))?)
}

fn plus(target: &str, of: &str, number: f64, output: &str) -> Call {
    call(target, &[("self", tensor(of)), ("other", Given::Float(number))], output)
}

#[test]
fn who_reads_what_was_changed_in_place_reads_it_changed() {
    // f += 1; f += 10; 2 f, all by the first name.
    let calls = vec![
        plus("add_.Tensor", "f", 1.0, "g"),
        plus("add_.Tensor", "f", 10.0, "h"),
        plus("mul.Tensor", "f", 2.0, "out"),
    ];
    assert_eq!(answers(calls).unwrap(), [24.0, 26.0, 16.0, 30.0]);
}

#[test]
fn a_view_of_what_was_changed_is_not_read_as_it_was() {
    let view = || call("slice.Tensor", &[("self", tensor("f")), ("dim", Given::Int(1))], "v");
    let said = answers(vec![view(), plus("add_.Tensor", "f", 1.0, "g"), plus("mul.Tensor", "v", 2.0, "out")]).unwrap_err();
    assert!(said.to_string().contains("`v`, which shares its memory, is read later"), "{said}");
    // Where nobody reads the view afterwards, nothing is lost.
    let before = vec![
        view(),
        plus("mul.Tensor", "v", 2.0, "w"),
        plus("add_.Tensor", "f", 1.0, "g"),
        call("add.Tensor", &[("self", tensor("w")), ("other", tensor("f"))], "out"),
    ];
    assert_eq!(answers(before).unwrap(), [4.0, 7.0, -8.0, 13.0]);
}

#[test]
fn what_no_picture_reaches_is_written_through_its_views() {
    let calls = vec![
        call("zeros.default", &[("size", Given::Ints(vec![2]))], "mask"),
        call(
            "slice.Tensor",
            &[("self", tensor("mask")), ("dim", Given::Int(0)), ("start", Given::Int(1))],
            "part",
        ),
        call("fill_.Scalar", &[("self", tensor("part")), ("value", Given::Float(5.0))], "filled"),
        call("add.Tensor", &[("self", tensor("f")), ("other", tensor("mask"))], "out"),
    ];
    assert_eq!(answers(calls).unwrap(), [1.0, 7.0, -3.0, 9.0]);
}

#[test]
fn what_is_not_computed_is_told_with_its_place() {
    for target in ["bernoulli.default", "random_.default", "from_file.default", "set_.source_Tensor"] {
        let said = answers(vec![call(target, &[("self", tensor("f"))], "out")]).unwrap_err().to_string();
        assert!(
            said.contains("call 1") && said.contains(target) && said.contains("not among those"),
            "{said}"
        );
    }
    let mut mine = call("relu.default", &[("self", tensor("f"))], "out");
    mine.target = "torch.ops.mine.relu.default".into();
    let said = answers(vec![mine]).unwrap_err().to_string();
    assert!(said.contains("torch.ops.mine.relu.default"), "{said}");
}

#[test]
fn a_fixed_batch_and_other_pictures_are_told() {
    let relu = || vec![call("relu.default", &[("self", tensor("f"))], "out")];
    let said = |change: fn(&mut Program), input| {
        let mut program = program(relu());
        change(&mut program);
        graph(&program, input).unwrap_err().to_string()
    };
    assert!(said(|p| p.input_shape[0] = Some(2), [1, 1, 2]).contains("fixed to 2"));
    assert!(said(|_| (), [3, 1, 2]).contains("1 × 1 × 2"));
}

#[test]
fn targets_lose_their_prefix_and_their_usual_overload() {
    assert_eq!(name("torch.ops.aten.relu_.default"), Some("relu_"));
    assert_eq!(name("torch.ops.aten.add.Tensor"), Some("add.Tensor"));
    assert_eq!(name("_operator.mul"), Some("_operator.mul"));
    assert_eq!(name("torch.ops.mine.relu.default"), None);
    assert_eq!(name("os.system"), None);
}

#[test]
fn twins_change_nothing() {
    assert_eq!(twin("relu_"), ("relu".into(), true));
    assert_eq!(twin("add_.Tensor"), ("add.Tensor".into(), true));
    assert_eq!(twin("add.Tensor"), ("add.Tensor".into(), false));
    assert_eq!(twin("detach_"), ("detach_".into(), false));
}
