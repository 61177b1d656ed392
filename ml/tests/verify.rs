//! OwnersModel models before they are guarded: the owner's answers, gradients beside finite differences, and what is said where answers differ.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use delta_guard_contract::ImageConfig;
use delta_guard_contract::job::VerifyResult;
use delta_guard_contract::picture::{ImageStep, Resampling};
use delta_influence::verify::{OwnersModel, verify};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/models")
        .join(format!("{name}.pt2"))
}

fn verified(name: &str, image: Option<&ImageConfig>) -> VerifyResult {
    verify(&fixture(name), image, 1 << 30).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn what_an_owner_stored_is_answered_as_the_owner_did() {
    let found = verified("guarded", None);
    let (proof, stored) = (found.proof.unwrap(), found.stored.unwrap());
    assert_eq!((proof.pictures, proof.same_class), (8, 8));
    assert!(proof.difference <= 1e-5 && proof.agrees() && proof.likely.is_empty(), "{proof:?}");
    assert!(found.gradient_difference <= 1e-6, "{:e}", found.gradient_difference);
    assert_eq!(stored.classes.len() as u64, found.classes);
    assert_eq!(stored.pictures.len(), 8);
    assert!(found.tracked.tracked_share > 0.9 && found.tracked.layers > 3 && found.factor_bytes > 0 && found.peak_memory > 0);
}

#[test]
fn without_pictures_nothing_is_proved() {
    for name in [
        "resnet_bottleneck",
        "vit_timm",
        "swin_v2",
        "mobilenet_v3",
        "densenet",
        "shared_linear",
        "one_channel",
    ] {
        let found = verified(name, None);
        assert!(found.proof.is_none() && found.stored.is_none(), "{name}");
        assert!(found.gradient_difference <= 1e-6, "{name}: {:e}", found.gradient_difference);
    }
    let swin = verified("swin_v2", None);
    assert!(
        swin.tracked
            .untracked
            .iter()
            .any(|(name, why)| name.contains("cpb_mlp") && why.contains("do not reach")),
        "{:?}",
        swin.tracked.untracked
    );
    assert_eq!(verified("one_channel", None).input[0], 1);
}

/// One mistake at a time in what the configuration says: it is the first that is named.
#[test]
fn what_differs_is_named() {
    let right = OwnersModel::read(&fixture("guarded"), None).unwrap().image.unwrap();
    let told = |image: &ImageConfig| {
        let proof = verified("guarded", Some(image)).proof.unwrap();
        assert!(!proof.agrees(), "{image:?}");
        proof.likely
    };
    let steps = right.steps.clone().unwrap();
    let filter = steps.iter().find_map(|step| match step {
        ImageStep::Resize { resampling, .. } => Some(*resampling),
        _ => None,
    });
    let other = if filter == Some(Resampling::Bicubic) {
        Resampling::Bilinear
    } else {
        Resampling::Bicubic
    };
    let resized = ImageConfig {
        steps: Some(
            steps
                .iter()
                .map(|step| match *step {
                    ImageStep::Resize { to, .. } => ImageStep::Resize { to, resampling: other },
                    same => same,
                })
                .collect(),
        ),
        ..right.clone()
    };
    let likely = told(&resized);
    let name = format!("{:?}", filter.unwrap()).to_lowercase();
    assert!(likely[0].contains(&name) && likely[0].contains("answers agree"), "{likely:?}");

    let bytes = ImageConfig {
        mean: right.mean.iter().map(|m| m * 255.0).collect(),
        std: right.std.iter().map(|s| s * 255.0).collect(),
        ..right.clone()
    };
    let likely = told(&bytes);
    assert!(likely[0].contains("0 to 255") && likely[0].contains("answers agree"), "{likely:?}");

    let mut turned = right.clone();
    turned.mean = vec![0.0; 3];
    turned.std = vec![1.0; 3];
    let likely = told(&turned);
    println!("{likely:?} for {:?} {:?}", right.mean, right.std);
}
