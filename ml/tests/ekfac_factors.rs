//! The factor file: what is read is what was written, and a damaged or foreign file is refused with a reason.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use delta_guard_contract::Digest;
use delta_influence::ekfac::{CovarianceFold, Damping, Factors, LambdaFold, Queries, Workspace, gradient, scores};
use delta_influence::fold::Fold;
use delta_influence::model::layer::{Conv, Layer, LayerKind, Linear, Pair};
use tch::{Device, Kind, Tensor};

fn layers() -> Vec<Layer> {
    let conv = LayerKind::Conv2d(Conv {
        padding: [1, 1],
        groups: 2,
        bias: true,
        ..Conv::new([4, 6], [3, 3])
    });
    let linear = LayerKind::Linear(Linear {
        in_features: 5,
        out_features: 3,
        bias: false,
    });
    vec![
        Layer {
            name: "block.conv".into(),
            kind: conv,
            part: None,
        },
        Layer {
            name: "fc".into(),
            kind: linear,
            part: None,
        },
    ]
}

fn pairs(workspace: &Workspace) -> Vec<Pair> {
    tch::manual_seed(11);
    let randn = |size: &[i64]| Tensor::randn(size, (workspace.kind, workspace.device));
    vec![
        Pair {
            input: randn(&[8, 4, 5, 5]),
            output_grad: randn(&[8, 6, 5, 5]),
        },
        Pair {
            input: randn(&[8, 5]),
            output_grad: randn(&[8, 3]),
        },
    ]
}

fn fit(workspace: Workspace) -> Factors {
    let pairs = pairs(&workspace);
    let mut fold = CovarianceFold::new(&layers(), workspace).unwrap();
    fold.take(&pairs).unwrap();
    let mut fold = LambdaFold::new(&fold.finish().unwrap().eigenbasis(&workspace, |_| ()).unwrap(), workspace).unwrap();
    fold.take(&pairs).unwrap();
    fold.finish().unwrap()
}

fn key() -> Digest {
    Digest("ab".repeat(32))
}

#[test]
fn what_is_read_is_what_was_written() {
    for kind in [Kind::Float, Kind::Double] {
        let workspace = Workspace::new(kind, Device::Cpu);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("factors.safetensors");
        let written = fit(workspace);
        fs_err::write(&path, b"an older file, to be replaced").unwrap();
        written.save(&path, &key()).unwrap();
        let read = Factors::load(&path, &layers(), &key(), &workspace).unwrap();
        assert_eq!((read.examples(), read.layers()), (8, &layers()[..]));
        for i in 0..layers().len() {
            let (a, b) = (written.layer(i).unwrap(), read.layer(i).unwrap());
            assert!(a.q_a.equal(&b.q_a) && a.q_g.equal(&b.q_g) && a.lambda.equal(&b.lambda));
            assert_eq!(b.q_a.kind(), kind);
        }
        let pairs = pairs(&workspace);
        let score = |factors: &Factors| {
            let queries = Queries::new(
                factors,
                Damping::Heuristic(0.1),
                &gradient(&layers(), &pairs, &workspace).unwrap(),
                workspace,
            )
            .unwrap();
            scores(&queries, &pairs).unwrap()
        };
        assert!(score(&written).equal(&score(&read)));
        let left: Vec<_> = fs_err::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["factors.safetensors"], "no temporary file is left");
    }
}

#[test]
fn q_a_is_kept_in_the_order_of_the_weight() {
    // Q_Aᵀ A Q_A is diagonal only if the file's Q_A and the covariance agree on the order of columns.
    let workspace = Workspace::new(Kind::Double, Device::Cpu);
    let mut fold = CovarianceFold::new(&layers(), workspace).unwrap();
    fold.take(&pairs(&workspace)).unwrap();
    let covariances = fold.finish().unwrap();
    let q_a = fit(workspace).layer(0).unwrap().q_a;
    let rotated = q_a.transpose(1, 2).matmul(&covariances.blocks[0].input).matmul(&q_a);
    let diagonal = rotated.diagonal(0, 1, 2).diag_embed(0, 1, 2);
    assert!((&rotated - &diagonal).norm().double_value(&[]) < 1e-12 * diagonal.norm().double_value(&[]));
}

/// Loads and returns the refusal.
fn refusal(path: &Path, layers: &[Layer], key: &Digest) -> String {
    Factors::load(path, layers, key, &Workspace::new(Kind::Float, Device::Cpu))
        .unwrap_err()
        .to_string()
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("factors.safetensors");
    fit(Workspace::new(Kind::Float, Device::Cpu)).save(&path, &key()).unwrap();
    let whole = fs_err::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;

    assert!(refusal(&path, &layers(), &Digest("cd".repeat(32))).contains("its key is"));
    assert!(refusal(&path, &layers()[..1], &key()).contains("its layers is"));
    let missing = folder.path().join("missing.safetensors");
    assert!(refusal(&missing, &layers(), &key()).contains("missing.safetensors"));

    // Cut anywhere, or with any byte changed, it is refused and names the file; nothing panics.
    let cuts: Vec<Vec<u8>> = [0, 4, 8, 60, header, header + 1, whole.len() - 1]
        .iter()
        .map(|&n| whole[..n].to_vec())
        .collect();
    let flips = (0..whole.len()).step_by(7).map(|i| {
        let mut bytes = whole.clone();
        bytes[i] ^= 0x11;
        bytes
    });
    let mut longer = whole.clone();
    longer.push(0);
    let mut tried = 0;
    for bytes in cuts.into_iter().chain(flips).chain([longer]) {
        // A header byte may be one that says the same in another spelling (white space at its end).
        let padding = (0..header)
            .filter(|&i| bytes.len() == whole.len() && bytes[i] != whole[i])
            .all(|i| whole[i] == b' ')
            && bytes[header.min(bytes.len())..] == whole[header..];
        fs_err::write(&path, &bytes).unwrap();
        match Factors::load(&path, &layers(), &key(), &Workspace::new(Kind::Float, Device::Cpu)) {
            Ok(_) => assert!(padding, "a changed file was accepted"),
            Err(error) => assert!(error.to_string().contains("factors.safetensors"), "{error}"),
        }
        tried += 1;
    }
    assert!(tried > 500);
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("nowhere"), b"a file").unwrap();
    let path = folder.path().join("nowhere/factors.safetensors");
    let error = fit(Workspace::new(Kind::Float, Device::Cpu)).save(&path, &key()).unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
}
