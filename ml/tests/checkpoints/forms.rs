//! Checkpoints as people have them: in several files, with wrappers' names, averaged copies and optimisers beside, as an exported program. What takes their place
//! has the same form.

use delta_guard_contract::Code;
use delta_influence::files::tensors::{read_tensors, write_tensors};
use delta_influence::model::weights::{CheckpointFile, digest};
use delta_influence::model::{Graph, Weights, zoo};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use tch::{Device, Kind, Tensor};

type Tensors = BTreeMap<String, Tensor>;

fn network() -> Graph {
    zoo::small_cnn([3, 8, 8], 2, 3).unwrap()
}

fn put(path: &Path, tensors: &Tensors) {
    write_tensors(path, tensors.iter().map(|(n, t)| (n.as_str(), t)), HashMap::new()).unwrap();
}

fn under(prefix: &str, weights: &Weights) -> Tensors {
    weights.0.iter().map(|(n, t)| (format!("{prefix}{n}"), t.copy())).collect()
}

fn same(a: &Tensors, b: &Tensors) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, tensor) in a {
        assert!(tensor.kind() == b[name].kind() && *tensor == b[name], "{name}");
    }
}

/// What takes a checkpoint's place, written and read again.
fn successor(weights: &Weights, source: CheckpointFile<'_>, to: &Path) -> Tensors {
    weights.like(source).unwrap().save(to, &[]).unwrap();
    read_tensors(&std::fs::read(to).unwrap()).unwrap()
}

/// Two shards and their index, as `save_pretrained` leaves them; the file to name.
fn sharded(dir: &Path, tensors: &Tensors) -> PathBuf {
    let mut shards = [Tensors::new(), Tensors::new()];
    let mut map = serde_json::Map::new();
    for (n, (name, tensor)) in tensors.iter().enumerate() {
        shards[n % 2].insert(name.clone(), tensor.copy());
        map.insert(name.clone(), format!("model-0000{}-of-00002.safetensors", n % 2 + 1).into());
    }
    for (n, shard) in shards.iter().enumerate() {
        put(&dir.join(format!("model-0000{}-of-00002.safetensors", n + 1)), shard);
    }
    let index = dir.join("model.safetensors.index.json");
    let text = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
    std::fs::write(&index, serde_json::to_vec(&text).unwrap()).unwrap();
    index
}

/// Names with what Lightning, torch.compile and data parallelism put before them, float16, bfloat16 and float64; beside them an averaged copy and an optimiser.
#[test]
fn a_successor_has_the_names_kinds_and_neighbours_of_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (graph, path) = (network(), dir.path().join("last.safetensors"));
    let (production, averaged, repaired) = (
        Weights::init(&graph, 1).unwrap(),
        Weights::init(&graph, 2).unwrap(),
        Weights::init(&graph, 3).unwrap(),
    );
    for (prefix, kind) in [
        ("", Kind::Float),
        ("module.", Kind::Half),
        ("model._orig_mod.", Kind::BFloat16),
        ("net.module.", Kind::Double),
    ] {
        let mut file = under(prefix, &production.to(Device::Cpu, kind));
        file.extend(under("ema.", &averaged));
        file.insert("optimizer.step".into(), Tensor::from_slice(&[7i64]));
        put(&path, &file);
        let (read, notes) = Weights::load_noted(&path, &graph, Kind::Float).unwrap();
        same(&read.0, &production.to(Device::Cpu, kind).to(Device::Cpu, Kind::Float).0);
        let told = notes.join("\n");
        assert!(told.contains("14 tensors") || told.contains("under `ema.`"), "{told}");
        assert_eq!(prefix.is_empty(), !told.contains(&format!("those under `{prefix}`")), "{told}");
        // The repaired values where production's were, everything else as it was.
        let mut wanted = file;
        wanted.extend(under(prefix, &repaired.to(Device::Cpu, kind)));
        let to = dir.path().join("candidate.safetensors");
        same(&successor(&repaired, CheckpointFile::from(&path), &to), &wanted);
        same(
            &Weights::load(&to, &graph, Kind::Float).unwrap().0,
            &repaired.to(Device::Cpu, kind).to(Device::Cpu, Kind::Float).0,
        );
        // The averaged copy, where that is in use.
        let ema = CheckpointFile {
            path: &path,
            prefix: Some("ema"),
        };
        if !prefix.is_empty() {
            same(&Weights::load(ema, &graph, Kind::Float).unwrap().0, &averaged.0);
            let written = successor(&repaired, ema, &to);
            assert_eq!(written["ema.fc.weight"], repaired.0["fc.weight"]);
            assert_eq!(
                written[&format!("{prefix}fc.weight")],
                production.to(Device::Cpu, kind).0["fc.weight"],
                "production's other copy is nobody's"
            );
        }
    }
}

#[test]
fn a_checkpoint_in_several_files_is_one_model() {
    let dir = tempfile::tempdir().unwrap();
    let graph = network();
    let (production, repaired) = (Weights::init(&graph, 1).unwrap(), Weights::init(&graph, 3).unwrap());
    let index = sharded(dir.path(), &under("model.", &production.to(Device::Cpu, Kind::Half)));
    let read = Weights::load(&index, &graph, Kind::Float).unwrap();
    same(&read.0, &production.to(Device::Cpu, Kind::Half).to(Device::Cpu, Kind::Float).0);
    let to = dir.path().join("candidate.safetensors");
    same(
        &successor(&repaired, CheckpointFile::from(&index), &to),
        &under("model.", &repaired.to(Device::Cpu, Kind::Half)),
    );
    // Another file is another checkpoint, though the index is the same.
    let (before, second) = (digest(&index).unwrap(), dir.path().join("model-00002-of-00002.safetensors"));
    assert_eq!(before, digest(&index).unwrap());
    let kept = std::fs::read(&second).unwrap();
    let mut tensors = read_tensors(&kept).unwrap();
    let name = tensors.keys().next().unwrap().clone();
    tensors.insert(name.clone(), &tensors[&name] + 1.0);
    put(&second, &tensors);
    assert_ne!(before, digest(&index).unwrap());
    let refused = |words: &[&str]| {
        let fault = Weights::load(&index, &graph, Kind::Float).unwrap_err().fault().clone();
        assert!(words.iter().all(|w| fault.message.contains(w)) && !fault.help.is_empty(), "{fault:?}");
        assert!(matches!(fault.code, Code::CheckpointUnusable | Code::FileUnusable), "{fault:?}");
    };
    tensors.insert("stranger".into(), Tensor::zeros([1], (Kind::Float, Device::Cpu)));
    put(&second, &tensors);
    refused(&["model-00002-of-00002.safetensors", "stranger", "does not name"]);
    tensors.retain(|n, _| *n != name && n != "stranger");
    put(&second, &tensors);
    refused(&[&name, "model-00002-of-00002.safetensors"]);
    std::fs::write(&second, b"version https://git-lfs.github.com/spec/v1\n").unwrap();
    refused(&["model-00002-of-00002.safetensors", "Git LFS pointer"]);
    std::fs::remove_file(&second).unwrap();
    refused(&["model-00002-of-00002.safetensors"]);
    std::fs::write(&index, br#"{"weight_map": {"fc.weight": "../../etc/passwd"}}"#).unwrap();
    refused(&["../../etc/passwd", "beside"]);
    std::fs::write(&index, br#"{"architectures": ["ResNet"]}"#).unwrap();
    refused(&["not the index"]);
}

/// An exported program's weights, of every kind that lies in one; its successor is a state dict that the model's owner loads.
#[test]
fn an_exported_program_is_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import");
    let torchs = read_tensors(&std::fs::read(fixtures.join("odd.safetensors")).unwrap()).unwrap();
    let mut persistent = torchs;
    persistent.retain(|name, _| name != "scale" && name != "lifted_tensor_0");
    let floats = |t: &Tensor| if t.is_floating_point() { t.to_kind(Kind::Float) + 0.5 } else { t.copy() };
    let repaired = Weights(persistent.iter().map(|(n, t)| (n.clone(), floats(t))).collect());
    let path = fixtures.join("odd.pt2");
    let written = successor(&repaired, CheckpointFile::from(&path), &dir.path().join("candidate.safetensors"));
    let wanted = |t: &Tensor| {
        if t.is_floating_point() {
            (t.to_kind(Kind::Float) + 0.5).to_kind(t.kind())
        } else {
            t.copy()
        }
    };
    same(&written, &persistent.iter().map(|(n, t)| (n.clone(), wanted(t))).collect());
    let fault = Weights::load(&path, &network(), Kind::Float).unwrap_err().fault().clone();
    assert!(
        fault.message.contains("odd.pt2") && fault.message.contains("tensors missing: bn1"),
        "{fault:?}"
    );
}

/// Python writes it in two files, we read it and write its successor, Python loads that strictly: same names, kinds and shapes.
#[test]
fn python_takes_the_successor_of_what_it_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let python = |script: &str| {
        let mut command = Command::new("python3");
        if let Ok(extra) = std::env::var("DELTA_GUARD_PYTHONPATH") {
            command.env("PYTHONPATH", extra);
        }
        command.args(["-c", script]).current_dir(dir.path()).output()
    };
    if !python("import safetensors, numpy").is_ok_and(|done| done.status.success()) {
        eprintln!("SKIPPED python_takes_the_successor_of_what_it_wrote: Python's safetensors and numpy are not there (make test installs them)");
        return;
    }
    let (graph, plain) = (network(), dir.path().join("plain.safetensors"));
    let production = Weights::init(&graph, 1).unwrap();
    put(&plain, &under("", &production));
    let write = r#"
import json
from safetensors.numpy import load_file, save_file
state = {"module._orig_mod." + k: v.astype("float16") if v.dtype == "float32" else v for k, v in load_file("plain.safetensors").items()}
state["ema.fc.weight"] = state["module._orig_mod.fc.weight"] * 2
names = sorted(state)
parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
for file, some in parts.items():
    save_file({k: state[k] for k in some}, file, {"format": "pt"})
json.dump({"metadata": {}, "weight_map": {k: f for f, some in parts.items() for k in some}}, open("model.safetensors.index.json", "w"))
"#;
    let done = python(write).unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let index = dir.path().join("model.safetensors.index.json");
    let read = Weights::load(&index, &graph, Kind::Float).unwrap();
    same(&read.0, &production.to(Device::Cpu, Kind::Half).to(Device::Cpu, Kind::Float).0);
    let candidate = dir.path().join("candidate.safetensors");
    let repaired = Weights::init(&graph, 3).unwrap();
    repaired.like(&index).unwrap().save(&candidate, &[]).unwrap();
    let check = r#"
from safetensors.numpy import load_file
before = load_file("a.safetensors") | load_file("b.safetensors")
after = load_file("candidate.safetensors")
assert before.keys() == after.keys(), before.keys() ^ after.keys()
assert all(after[k].dtype == v.dtype and after[k].shape == v.shape for k, v in before.items())
assert (after["ema.fc.weight"] == before["ema.fc.weight"]).all()
assert (after["module._orig_mod.fc.weight"] != before["module._orig_mod.fc.weight"]).any()
print(float(after["module._orig_mod.fc.weight"].astype("float64").sum()))
"#;
    let done = python(check).unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let sum: f64 = String::from_utf8_lossy(&done.stdout).trim().parse().unwrap();
    let ours = repaired.0["fc.weight"]
        .to_kind(Kind::Half)
        .to_kind(Kind::Double)
        .sum(Kind::Double)
        .double_value(&[]);
    assert!((sum - ours).abs() < 1e-9, "{sum} {ours}");
}

/// The guard has the same test with the same number (`src/publish/mod.rs`): both mean the same by a checkpoint.
#[test]
fn guard_and_worker_have_one_digest_of_several_files() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("m.safetensors.index.json");
    std::fs::write(&index, br#"{"weight_map": {"a": "2.safetensors", "b": "1.safetensors"}}"#).unwrap();
    std::fs::write(dir.path().join("1.safetensors"), b"one").unwrap();
    std::fs::write(dir.path().join("2.safetensors"), b"two").unwrap();
    assert_eq!(
        digest(&index).unwrap().0,
        "5fefefc73466d58c92fb1a6d58b63774ff24a2ceba0031663457235098649a4e"
    );
}
