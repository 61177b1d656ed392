use super::*;
use crate::detect::known_features::positions;
use crate::evidence::KnownLab;
use crate::progress::Silent;
use delta_guard_contract::TraceVerdict;
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/detect").join(name)
}

fn answers() -> BTreeMap<String, Tensor> {
    read_tensors(&fs_err::read(fixture("frequency_answers.safetensors")).unwrap()).unwrap()
}

fn keys() -> Keys {
    Keys {
        weights: Some(fixture("frequency.safetensors")),
        mean: vec![0.4, 0.5, 0.6],
        std: vec![0.2, 0.25, 0.3],
        ..Keys::default()
    }
}

fn close(found: &Tensor, expected: &Tensor, within: f64) {
    let off = (found - expected).abs().max().double_value(&[]);
    assert!(off < within, "off by {off}");
}

/// Against sums written out in NumPy; a transform that keeps lengths.
#[test]
fn the_cosine_transform_is_the_sum_that_defines_it() {
    let answers = answers();
    let image = ImageConfig {
        mean: keys().mean,
        std: keys().std,
        ..ImageConfig::default()
    };
    let seen = standardise(&answers["pictures"], &image).unwrap();
    let found = cosines(&seen).unwrap();
    close(&found, &answers["waves"], 1e-5);
    close(
        &found.square().sum(Kind::Double),
        &seen.to_kind(Kind::Double).square().sum(Kind::Double),
        1e-6,
    );
    // Height and width are not mixed up: a wave along one side only.
    let wave = basis(6).unwrap().get(2).view([1, 1, 1, 6]).repeat([1, 1, 4, 1]);
    let found = cosines(&wave).unwrap();
    assert!((found.double_value(&[0, 0, 0, 2]) - 2.0).abs() < 1e-12 && (found.abs().sum(Kind::Double).double_value(&[]) - 2.0).abs() < 1e-12);
}

#[test]
fn probabilities_are_pytorchs() {
    let answers = answers();
    let labels = [0, 1, 1, 1];
    let expected = Vec::<f64>::try_from(&answers["probabilities"]).unwrap();
    let detect = |keys: &Keys| {
        let mut lab = KnownLab {
            pictures: Some(answers["pictures"].shallow_clone()),
            ..KnownLab::default()
        };
        let case = DetectCase {
            anomalies: &[Tensor::zeros([3, 16, 16], (Kind::Float, Device::Cpu))],
            wrong_label: 1,
            classes: 2,
            labels: &labels,
            placebos: &[],
            seed: 5,
            image: &ImageConfig::default(),
        };
        keys.detect(&mut lab, &case, &mut Silent)
    };
    let found = detect(&Keys { probability: 0.0, ..keys() }).unwrap();
    assert_eq!(found.flagged.len(), 4);
    for f in &found.flagged {
        assert!((f.score - expected[f.position]).abs() < 1e-4, "{} {}", f.score, expected[f.position]);
    }
    assert_eq!(positions(&detect(&keys()).unwrap()), [0, 1]);
    let predicted = Keys {
        classes: Classes::Predicted,
        ..keys()
    };
    assert_eq!(positions(&detect(&predicted).unwrap()), [1]);
    let limit = Keys {
        probability: found.flagged[1].score,
        ..keys()
    };
    assert_eq!(positions(&detect(&limit).unwrap()), [0, 1], "at the limit is flagged");
    let high = detect(&Keys { probability: 1.0, ..keys() }).unwrap();
    assert!(matches!(&high.verdict, TraceVerdict::Undecided { why } if why.code() == "no-frequency"));
}

#[test]
fn files_and_pictures_that_do_not_fit_are_named() {
    let reader = FrequencyNet::open(&fixture("frequency.safetensors")).unwrap();
    let said = reader
        .probabilities(&Tensor::zeros([1, 3, 32, 32], (Kind::Float, Device::Cpu)))
        .unwrap_err();
    assert!(said.to_string().contains("3 × 32 × 32"), "{said}");
    assert!(reader.probabilities(&Tensor::zeros([1, 1, 16, 16], (Kind::Float, Device::Cpu))).is_err());
    let folder = tempfile::tempdir().unwrap();
    let whole = read_tensors(&fs_err::read(fixture("frequency.safetensors")).unwrap()).unwrap();
    let broken = |name: &str, instead: Option<Tensor>| {
        let path = folder.path().join("broken.safetensors");
        let mut tensors: BTreeMap<&str, &Tensor> = whole.iter().map(|(n, t)| (n.as_str(), t)).collect();
        match &instead {
            Some(t) => tensors.insert(name, t),
            None => tensors.remove(name),
        };
        crate::files::tensors::write_tensors(&path, tensors.into_iter(), Default::default()).unwrap();
        FrequencyNet::open(&path).unwrap_err().to_string()
    };
    let zeros = |size: &[i64]| Some(Tensor::zeros(size, (Kind::Float, Device::Cpu)));
    for (name, instead, said) in [
        ("bn3.running_var", None, "no tensor bn3.running_var"),
        ("conv2.bias", zeros(&[9]), "conv2.bias does not belong"),
        ("conv4.weight", zeros(&[3, 2, 3, 3]), "conv4 reads 2"),
        ("conv1.weight", zeros(&[2, 3, 5, 5]), "no convolution of 3 × 3"),
        ("fc1.weight", zeros(&[3, 16]), "two outputs"),
    ] {
        let found = broken(name, instead);
        assert!(found.contains(said), "{name}: {found}");
    }
}
