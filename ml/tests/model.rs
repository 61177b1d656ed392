//! Networks against PyTorch: names, shapes, values, training steps; checkpoints in both directions; bad checkpoints.

use delta_guard_contract::{FaultKind, Recipe, Stem};
use delta_influence::files::tensors::{read_metadata, read_tensors, write_tensors};
use delta_influence::model::{Graph, Model, Weights, zoo};
use delta_influence::train::optimizer::Stepper;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use tch::{Kind, Tensor};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/resnet18").join(name)
}

fn close(a: &Tensor, b: &Tensor, tolerance: f64) -> bool {
    a.size() == b.size() && (a - b).abs().max().double_value(&[]) <= tolerance * (1.0 + b.abs().max().double_value(&[]))
}

#[test]
fn resnet18_has_torchvisions_state_dict() {
    let listing: Vec<(String, String, Vec<i64>)> = serde_json::from_str(&std::fs::read_to_string(fixture("torchvision.json")).unwrap()).unwrap();
    let graph = zoo::resnet18([3, 160, 160], 64, Stem::Imagenette, 10).unwrap();
    let ours: Vec<(String, String, Vec<i64>)> = graph
        .state()
        .into_iter()
        .map(|e| (e.name, if e.kind == Kind::Float { "F32" } else { "I64" }.to_string(), e.shape))
        .collect();
    let by_name = |list: Vec<(String, String, Vec<i64>)>| list.into_iter().map(|(n, k, s)| (n, (k, s))).collect::<BTreeMap<_, _>>();
    assert_eq!(by_name(ours), by_name(listing));
    let cifar: BTreeMap<_, _> = zoo::resnet18([3, 32, 32], 64, Stem::Cifar, 10)
        .unwrap()
        .state()
        .into_iter()
        .map(|e| (e.name, e.shape))
        .collect();
    assert_eq!(cifar["conv1.weight"], [64, 3, 3, 3], "only the stem differs");
    assert_eq!(cifar.len(), 122);
}

/// Twenty times: oneDNN's fault that `unit_stride` keeps away from showed in one run of seven.
#[test]
fn evaluation_training_and_sgd_agree_with_pytorch() {
    let file = read_tensors(&std::fs::read(fixture("w4.safetensors")).unwrap()).unwrap();
    for _ in 0..20 {
        let graph = zoo::resnet18([3, 16, 16], 4, Stem::Cifar, 5).unwrap();
        let state: BTreeMap<String, Tensor> = file
            .iter()
            .filter_map(|(n, t)| n.strip_prefix("state.").map(|n| (n.to_string(), t.copy())))
            .collect();
        let model = Model::new(graph, Weights(state));
        assert!(close(&model.forward(&file["images"]).unwrap(), &file["eval.logits"], 1e-5));

        let parameters: Vec<_> = model.parameters().into_iter().map(|(n, t)| (n, t.set_requires_grad(true))).collect();
        let mut sgd = Stepper::new(parameters, &Recipe::default());
        for step in 0..2 {
            let logits = model.forward_train(&file["images"]).unwrap();
            assert!(close(&logits, &file[&format!("train.logits.{step}")], 1e-4), "logits of step {step}");
            sgd.step(&logits.cross_entropy_for_logits(&file["labels"]), 0.1).unwrap();
        }
        for (name, expected) in file.iter().filter_map(|(n, t)| n.strip_prefix("after.").map(|n| (n, t))) {
            assert!(close(&model.weights.0[name].detach(), expected, 1e-4), "{name} after two steps");
        }
    }
}

#[test]
fn taps_yield_each_examples_weight_gradient() {
    let graph = zoo::small_cnn([3, 8, 8], 2, 4).unwrap();
    let model = Model::new(graph.clone(), Weights::init(&graph, 3).unwrap().to(tch::Device::Cpu, Kind::Double));
    let images = Tensor::randn([5, 3, 8, 8], (Kind::Double, tch::Device::Cpu));
    let labels = Tensor::from_slice(&[0i64, 1, 2, 3, 0]);
    let tapped = model.forward_tapped(&images).unwrap();
    let objective = tapped
        .logits
        .f_cross_entropy_loss(&labels, None::<Tensor>, tch::Reduction::Sum, -100, 0.0)
        .unwrap();
    let pairs = tapped.pairs(&objective, &[0, 1, 2, 3, 4]).unwrap();
    let layers = graph.layers();
    assert_eq!(pairs.len(), layers.len());
    for i in 0..5 {
        // The same example alone, with autograd's own weight gradient of the last (linear) and the first (convolution) layer.
        let weight = |name: &str| model.weights.0[&format!("{name}.weight")].shallow_clone();
        let (first, last) = (weight("conv1").set_requires_grad(true), weight("fc").set_requires_grad(true));
        let logits = model.forward_tapped(&images.narrow(0, i, 1)).unwrap().logits;
        let loss = logits.cross_entropy_loss::<Tensor>(&labels.narrow(0, i, 1), None, tch::Reduction::Sum, -100, 0.0);
        let grads = Tensor::run_backward(&[loss], &[&first, &last], false, false);
        let (input, grad) = (pairs[4].input.get(i), pairs[4].output_grad.get(i));
        assert!(close(&grad.outer(&input), &grads[1], 1e-12));
        let patches = pairs[0].input.narrow(0, i, 1).im2col([3, 3], [1, 1], [1, 1], [1, 1]).squeeze();
        let by_hand = pairs[0].output_grad.get(i).flatten(1, -1).matmul(&patches.tr()).view([2, 3, 3, 3]);
        assert!(close(&by_hand, &grads[0], 1e-12));
        let _ = (first.set_requires_grad(false), last.set_requires_grad(false));
    }
}

#[test]
fn a_graph_survives_its_file_and_bad_ones_are_named() {
    let graph = zoo::resnet18([3, 32, 32], 8, Stem::Cifar, 10).unwrap();
    let text = serde_json::to_string(&graph).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("graph.json");
    std::fs::write(&path, &text).unwrap();
    assert_eq!(Graph::load(&path).unwrap(), graph);
    for (from, to, told) in [
        (
            r#""in_channels":8,"out_channels":16"#,
            r#""in_channels":9,"out_channels":16"#,
            "layer2.0.conv1",
        ),
        (r#""self":{"value":"bn1"}"#, r#""self":{"value":"nobody"}"#, "nobody"),
        (r#""weight":{"state":"bn1.weight"}"#, r#""weight":{"state":"bn1.wait"}"#, "bn1.wait"),
        (r#""name":"bn1","#, r#""name":"conv1","#, "twice"),
        (r#""format":2"#, r#""format":1"#, "format 1 is not known"),
        (r#""target":"relu""#, r#""target":"frobnicate""#, "frobnicate"),
        (r#""target":"relu""#, r#""target":"random""#, "random"),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let fault = Graph::load(&path).unwrap_err().fault().clone();
        assert!(fault.kind == FaultKind::Configuration && fault.message.contains(told), "{fault:?}");
    }
}

/// Closed form in plain numbers: evaluation by running statistics, training by the batch's, whose unbiased variance goes into the running one.
#[test]
fn batch_norm_takes_epsilon_and_momentum_from_the_graph() {
    let graph = |norm: &str| {
        let state = |name: &str, parameter: bool| format!(r#"{{"name": "bn.{name}", "shape": [2], "kind": "float32", "parameter": {parameter}}}"#);
        let state = [
            state("weight", true),
            state("bias", true),
            state("running_mean", false),
            state("running_var", false),
        ]
        .join(",");
        let read = ["weight", "bias", "running_mean", "running_var"].map(|name| format!(r#", "{name}": {{"state": "bn.{name}"}}"#));
        let text = format!(
            r#"{{"format": 2, "input": [2, 1, 1], "state": [{state}], "nodes": [
                {{"name": "bn", "op": {{"op": "batch_norm"{norm}}}, "arguments": {{"input": {{"value": "input"}}{}}}}},
                {{"name": "flat", "op": {{"op": "aten", "target": "flatten.using_ints"}}, "arguments": {{"self": {{"value": "bn"}}, "start_dim": {{"int": 1}}}}}}]}}"#,
            read.concat()
        );
        Graph::read(&text)
    };
    let images = Tensor::from_slice2(&[[1.0, -2.0], [4.0, 0.5], [-3.0, 2.5]]).view([3, 2, 1, 1]);
    let (mean, var, weight, bias) = ([0.5, -1.0], [0.02, 3.0], [1.5, -0.5], [0.25, 2.0]);
    for (norm, eps, momentum) in [
        ("", 1e-5, 0.1),
        (r#", "eps": 0.001, "momentum": 0.03"#, 0.001, 0.03),
        (r#", "eps": 0.5"#, 0.5, 0.1),
        (r#", "momentum": 1.0"#, 1e-5, 1.0),
    ] {
        let graph = graph(norm).unwrap();
        let state = || {
            let mut state = Weights::init(&graph, 1).unwrap().to(tch::Device::Cpu, Kind::Double);
            for (name, values) in [("running_mean", mean), ("running_var", var), ("weight", weight), ("bias", bias)] {
                state.0.insert(format!("bn.{name}"), Tensor::from_slice(&values));
            }
            Model::new(graph.clone(), state)
        };
        let expected = |mean: [f64; 2], var: [f64; 2]| -> Tensor {
            let values: Vec<f64> = (0..6)
                .map(|k| {
                    let (i, c) = ((k / 2) as i64, k % 2);
                    (images.double_value(&[i, c as i64, 0, 0]) - mean[c]) / (var[c] + eps).sqrt() * weight[c] + bias[c]
                })
                .collect();
            Tensor::from_slice(&values).view([3, 2])
        };
        assert!(
            close(&state().forward(&images).unwrap(), &expected(mean, var), 1e-12),
            "{norm}: evaluation"
        );
        let batch_mean = [2.0 / 3.0, 1.0 / 3.0];
        let squares = |c: usize| {
            (0..3)
                .map(|i| (images.double_value(&[i, c as i64, 0, 0]) - batch_mean[c]).powi(2))
                .sum::<f64>()
        };
        let model = state();
        let output = model.forward_train(&images).unwrap();
        assert!(
            close(&output, &expected(batch_mean, [squares(0) / 3.0, squares(1) / 3.0]), 1e-12),
            "{norm}: training"
        );
        for c in 0..2 {
            let running = |name: &str| model.weights.0[&format!("bn.{name}")].double_value(&[c as i64]);
            let moved = |old: f64, new: f64| (1.0 - momentum) * old + momentum * new;
            assert!((running("running_mean") - moved(mean[c], batch_mean[c])).abs() < 1e-12, "{norm}");
            assert!((running("running_var") - moved(var[c], squares(c) / 2.0)).abs() < 1e-12, "{norm}");
        }
    }
    for (norm, told) in [
        (r#", "eps": 0.0"#, "eps is 0"),
        (r#", "eps": -1.0"#, "eps is -1"),
        (r#", "momentum": 1.5"#, "momentum is 1.5"),
    ] {
        let fault = graph(norm).unwrap_err().fault().clone();
        assert!(fault.message.contains("node `bn`") && fault.message.contains(told), "{fault:?}");
    }
    let plain = graph("").unwrap();
    let written = serde_json::to_string(&plain).unwrap();
    assert!(written.contains(r#""eps":0.00001"#) && written.contains(r#""momentum":0.1"#), "{written}");
    assert_eq!(Graph::read(&written).unwrap(), plain);
}

#[test]
fn bad_checkpoints_are_refused_by_name() {
    let graph = zoo::small_cnn([3, 16, 16], 4, 10).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let check = |change: &dyn Fn(&mut BTreeMap<String, Tensor>), told: &[&str]| {
        let mut tensors = Weights::init(&graph, 1).unwrap().0;
        change(&mut tensors);
        write_tensors(&path, tensors.iter().map(|(n, t)| (n.as_str(), t)), HashMap::new()).unwrap();
        let result = Weights::load(&path, &graph, Kind::Float);
        if told.is_empty() {
            assert!(result.is_ok(), "{:?}", result.err());
            return;
        }
        let fault = result.unwrap_err().fault().clone();
        assert_eq!(fault.kind, FaultKind::Configuration);
        assert!(
            told.iter().all(|t| fault.message.contains(t)) && fault.message.contains("model.safetensors") && !fault.help.is_empty(),
            "{fault:?}"
        );
    };
    check(&|_| {}, &[]);
    check(&|t| drop(t.remove("bn2.num_batches_tracked")), &[]);
    check(
        &|t| drop((t.remove("conv2.weight"), t.remove("fc.bias"))),
        &["2 tensors missing", "conv2.weight", "fc.bias"],
    );
    check(
        &|t| drop(t.insert("head.weight".into(), Tensor::zeros([2], (Kind::Float, tch::Device::Cpu)))),
        &["too many", "head.weight"],
    );
    check(
        &|t| drop(t.insert("fc.weight".into(), Tensor::zeros([10, 17], (Kind::Float, tch::Device::Cpu)))),
        &["fc.weight", "[10, 17]", "[10, 16]"],
    );
    check(
        &|t| drop(t["bn3.running_var"].narrow(0, 3, 1).fill_(f64::NAN)),
        &["bn3.running_var", "NaN"],
    );
    check(
        &|t| drop(t.insert("fc.bias".into(), Tensor::zeros([10], (Kind::Int64, tch::Device::Cpu)))),
        &["fc.bias", "Int64"],
    );
    let whole = {
        Weights::init(&graph, 1).unwrap().save(&path, &[]).unwrap();
        std::fs::read(&path).unwrap()
    };
    for cut in [0, 4, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(Weights::load(&path, &graph, Kind::Float).is_err(), "cut at {cut}");
    }
}

/// Needs Python's `safetensors` and `numpy`; `DELTA_GUARD_PYTHONPATH` (set by `make test`) says where they are.
#[test]
fn python_reads_our_checkpoints_and_we_read_pythons() {
    let python = |script: &str, path: &Path| {
        let mut command = Command::new("python3");
        if let Ok(extra) = std::env::var("DELTA_GUARD_PYTHONPATH") {
            command.env("PYTHONPATH", extra);
        }
        command.args(["-c", script]).arg(path).output()
    };
    match python("import safetensors, numpy", Path::new("")) {
        Ok(output) if output.status.success() => {}
        _ => {
            eprintln!(
                "SKIPPED python_reads_our_checkpoints_and_we_read_pythons: Python's safetensors and numpy are not there (make test installs them)"
            );
            return;
        }
    }
    let graph = zoo::resnet18([3, 32, 32], 8, Stem::Cifar, 10).unwrap();
    let weights = Weights::init(&graph, 5).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    weights.save(&path, &[("note", "hello".into())]).unwrap();
    let script = r#"
import sys, json
from safetensors import safe_open
from safetensors.numpy import save_file
with safe_open(sys.argv[1], "np") as f:
    tensors = {k: f.get_tensor(k) for k in f.keys()}
    assert f.metadata() == {"format": "pt", "note": "hello"}, f.metadata()
save_file({k: v + (1 if v.dtype == "int64" else v * 0 + 0.5) for k, v in tensors.items()}, sys.argv[1] + ".back", {"format": "pt"})
print(json.dumps({k: [str(v.dtype), list(v.shape), float(v.astype("float64").sum())] for k, v in tensors.items()}))
"#;
    let output = python(script, &path).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: BTreeMap<String, (String, Vec<i64>, f64)> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(read.len(), weights.0.len());
    for entry in graph.state() {
        let (kind, shape, sum) = &read[&entry.name];
        let ours = &weights.0[&entry.name];
        assert_eq!(
            (kind.as_str(), shape),
            (if entry.kind == Kind::Float { "float32" } else { "int64" }, &entry.shape),
            "{}",
            entry.name
        );
        assert!(
            (ours.to_kind(Kind::Double).sum(Kind::Double).double_value(&[]) - sum).abs() < 1e-6 * (1.0 + sum.abs()),
            "{}",
            entry.name
        );
    }
    let back = dir.path().join("model.safetensors.back");
    let returned = Weights::load(&back, &graph, Kind::Float).unwrap();
    assert!(close(&returned.0["fc.weight"], &(&weights.0["fc.weight"] + 0.5), 1e-6));
    assert_eq!(read_metadata(&std::fs::read(&back).unwrap()).unwrap()["format"], "pt");
}
