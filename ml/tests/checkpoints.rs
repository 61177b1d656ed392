//! Checkpoint files: one byte form, the kinds of numbers kept, and what people name in their place.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "checkpoints/forms.rs"]
mod forms;

use delta_guard_contract::method::Name;
use delta_guard_contract::method::unlearn::Unlearner;
use delta_guard_contract::{
    DataConfig, DataSource, Device, FaultKind, ImageConfig, Job, JobResult, ModelConfig, PROTOCOL, Recipe, Task, TrainId, WorkerSetup,
};
use delta_influence::data::encode_png;
use delta_influence::files;
use delta_influence::files::tensors::{read_tensors, write_tensors};
use delta_influence::model::{Weights, zoo};
use delta_influence::progress::Report;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use tch::{Kind, Tensor};

struct Silent;

impl Report for Silent {
    fn progress(&mut self, _: &str, _: u64, _: u64, _: &str) {}
    fn log(&mut self, _: &str) {}
}

/// Every order of tensors, of metadata keys, and of a hash map's own chance gives the same bytes; other tensors or texts give others.
#[test]
fn equal_weights_are_equal_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let graph = zoo::small_cnn([3, 8, 8], 2, 3).unwrap();
    let tensors: Vec<(String, Tensor)> = Weights::init(&graph, 7).unwrap().0.into_iter().collect();
    let texts: Vec<(String, String)> = ["format", "made_by", "note", "Über", "a \"quoted\" key", "z", "epoch", "b", "c", "d"]
        .iter()
        .map(|k| ((*k).to_string(), format!("{k}\n\\ \u{1} ✓")))
        .collect();
    let mut digests = BTreeSet::new();
    for turn in 0..40 {
        let (mut tensors, mut texts): (Vec<_>, Vec<_>) = (tensors.iter().collect(), texts.clone());
        let (by_tensor, by_text) = (turn % tensors.len(), turn % texts.len());
        tensors.rotate_left(by_tensor);
        texts.rotate_left(by_text);
        if turn % 2 == 1 {
            tensors.reverse();
        }
        write_tensors(&path, tensors.iter().map(|(n, t)| (n.as_str(), t)), texts.into_iter().collect()).unwrap();
        digests.insert(files::digest(&path).unwrap().0);
    }
    assert_eq!(digests.len(), 1, "{digests:?}");
    let read = read_tensors(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(read.len(), tensors.len());
    assert!(tensors.iter().all(|(name, tensor)| read[name] == *tensor));
    // A transposed layout in memory is the same tensor.
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let tensor = Tensor::randn([3, 5], (Kind::Float, tch::Device::Cpu));
    let other = tensor.tr().contiguous().tr();
    write_tensors(&a, [("t", &tensor)].into_iter(), HashMap::new()).unwrap();
    write_tensors(&b, [("t", &other)].into_iter(), HashMap::new()).unwrap();
    assert_eq!(files::digest(&a).unwrap(), files::digest(&b).unwrap());
    write_tensors(&b, [("t", &(&tensor + 1e-3))].into_iter(), HashMap::new()).unwrap();
    assert_ne!(files::digest(&a).unwrap(), files::digest(&b).unwrap());
    write_tensors(&b, [("t", &tensor)].into_iter(), HashMap::from([("k".into(), "v".into())])).unwrap();
    assert_ne!(files::digest(&a).unwrap(), files::digest(&b).unwrap());
}

#[test]
fn a_checkpoint_is_saved_twice_as_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let graph = zoo::small_cnn([3, 8, 8], 2, 3).unwrap();
    let weights = Weights::init(&graph, 7).unwrap();
    let digests: BTreeSet<String> = (0..20)
        .map(|n| {
            let path = dir.path().join(format!("{n}.safetensors"));
            weights.save(&path, &[("made_by", "test".into()), ("note", "x".into())]).unwrap();
            files::digest(&path).unwrap().0
        })
        .collect();
    assert_eq!(digests.len(), 1);
}

/// Bytes, and what must be said of them.
#[test]
fn what_is_no_checkpoint_is_told() {
    let graph = zoo::small_cnn([3, 8, 8], 2, 3).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("production.pt");
    let whole = {
        Weights::init(&graph, 1).unwrap().save(&path, &[]).unwrap();
        std::fs::read(&path).unwrap()
    };
    let cases: [(&[u8], &str, &str); 7] = [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "Git LFS pointer",
            "git lfs pull",
        ),
        (b"<!DOCTYPE html><html>", "HTML page", "download"),
        (
            b"PK\x03\x04\0\0\0\0\0\0production/data.pkl",
            "PyTorch pickle",
            "torch.load(\"production.pt\"",
        ),
        (b"\x80\x02\x8a\x0a\x6c\xfc", "Python pickle", "\"production.safetensors\""),
        (b"", "empty", "copy"),
        (&whole[..whole.len() - 1], "cut short", "copy"),
        (&whole[..60], "cut short", "copy"),
    ];
    for (bytes, says, helps) in cases {
        std::fs::write(&path, bytes).unwrap();
        let fault = Weights::load(&path, &graph, Kind::Float).unwrap_err().fault().clone();
        assert_eq!(fault.kind, FaultKind::Configuration);
        assert!(
            fault.message.contains(says) && fault.message.contains("production.pt") && fault.help.contains(helps),
            "{fault:?}"
        );
    }
}

/// A data set of two classes, told apart by their brightness.
fn data(root: &Path) -> DataConfig {
    for n in 0..12u8 {
        for (class, base) in [("dark", 10), ("light", 180)] {
            let folder = root.join("data").join(class);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("{n}.png")), encode_png(&[base + 5 * n; 192], 8, 8, 1).unwrap()).unwrap();
        }
    }
    let source = DataSource {
        path: root.join("data"),
        format: Default::default(),
        split: Default::default(),
        source: None,
    };
    DataConfig {
        train: source.clone(),
        validation: source,
        image: ImageConfig {
            height: 8,
            width: 8,
            ..ImageConfig::default()
        },
        classes: None,
        max_unreadable_share: 0.0,
    }
}

fn kinds(path: &Path) -> BTreeMap<String, (Kind, Vec<i64>)> {
    let tensors = read_tensors(&std::fs::read(path).unwrap()).unwrap();
    tensors.into_iter().map(|(n, t)| (n, (t.kind(), t.size()))).collect()
}

/// Whatever kinds of numbers production's checkpoint has, in float16, bfloat16, a mixture, without batch norm's counters: the candidate has them, too.
#[test]
fn a_candidate_has_productions_kinds_of_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let data = data(dir.path());
    let graph = zoo::small_cnn([3, 8, 8], 2, 2).unwrap();
    type Change = fn(&str, &Tensor) -> Option<Tensor>;
    let changes: [(&str, Change); 5] = [
        ("float16", |_, t| {
            Some(if t.is_floating_point() { t.to_kind(Kind::Half) } else { t.copy() })
        }),
        ("bfloat16", |_, t| {
            Some(if t.is_floating_point() { t.to_kind(Kind::BFloat16) } else { t.copy() })
        }),
        ("float64", |_, t| {
            Some(if t.is_floating_point() { t.to_kind(Kind::Double) } else { t.copy() })
        }),
        ("mixed", |n, t| Some(if n.starts_with("conv") { t.to_kind(Kind::Half) } else { t.copy() })),
        ("no counters, int32", |n, t| match n {
            "bn1.num_batches_tracked" => None,
            _ if !t.is_floating_point() => Some(t.to_kind(Kind::Int)),
            _ => Some(t.copy()),
        }),
    ];
    for (what, change) in changes {
        let production = dir.path().join(format!("{what}.safetensors"));
        let tensors: Vec<(String, Tensor)> = Weights::init(&graph, 3)
            .unwrap()
            .0
            .iter()
            .filter_map(|(n, t)| Some((n.clone(), change(n, t)?)))
            .collect();
        write_tensors(&production, tensors.iter().map(|(n, t)| (n.as_str(), t)), HashMap::new()).unwrap();
        for method in Name::<Unlearner>::all() {
            if method.to_string() == "command" {
                continue; // the owner's own trainer: ml/tests/command.rs
            }
            let job = Job {
                v: PROTOCOL,
                out_dir: dir.path().join(format!("out-{what}-{method}")),
                setup: WorkerSetup {
                    cache_dir: dir.path().join("cache"),
                    factors_dir: dir.path().join("factors"),
                    device: Device::Auto,
                    threads: 1,
                    memory_budget: 64 << 20,
                    query_budget: 6 << 30,
                    memory_limit: 0,
                },
                task: Task::Unlearn {
                    data: data.clone(),
                    model: ModelConfig {
                        architecture: "small-cnn".into(),
                        width: 2,
                        stem: Default::default(),
                        checkpoint: production.clone(),
                        prefix: None,
                        min_tracked_share: 0.0,
                    },
                    recipe: Recipe {
                        epochs: 1,
                        batch_size: 8,
                        lr: 0.01,
                        schedule: delta_guard_contract::Schedule::Constant,
                        ..Recipe::default()
                    },
                    method: method.method(),
                    flagged: vec![TrainId("dark/3.png".into())],
                    standing: Vec::new(),
                    standing_digest: None,
                },
            };
            let JobResult::Train(done) = delta_influence::jobs::run(&job, &mut Silent).unwrap() else {
                panic!("an unlearn job yields a model")
            };
            let candidate = job.out_dir.join(&done.file);
            assert_eq!(kinds(&candidate), kinds(&production), "{what}, {method}");
            assert_eq!(files::digest(&candidate).unwrap(), done.digest);
            assert!(Weights::load(&candidate, &graph, Kind::Float).is_ok());
        }
    }
}

#[test]
fn a_value_too_large_for_productions_kind_is_a_named_fault() {
    let dir = tempfile::tempdir().unwrap();
    let graph = zoo::small_cnn([3, 8, 8], 2, 2).unwrap();
    let production = dir.path().join("half.safetensors");
    let mut weights = Weights::init(&graph, 3).unwrap();
    weights.to(tch::Device::Cpu, Kind::Half).save(&production, &[]).unwrap();
    assert!(weights.like(&production).is_ok());
    weights.0.insert("bn1.running_var".into(), Tensor::from_slice(&[70_000f32, 1.0]));
    let fault = weights.like(&production).unwrap_err().fault().clone();
    assert_eq!(fault.kind, FaultKind::Configuration);
    assert!(fault.message.contains("bn1.running_var") && fault.help.contains("float32"), "{fault:?}");
}
