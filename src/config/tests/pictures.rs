//! The section `data.image`.

use super::*;

/// What a file says stands in the place of the keys, and its mistakes stand at the key that names it.
#[test]
fn a_file_may_say_how_pictures_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let text = |image: &str| {
        format!(
            "paths: {{inbox: i, state: s, candidates: c}}\ndata:\n  train: {{path: a}}\n  validation: {{path: b}}\n  image: {image}\nmodel: {{architecture: resnet18, checkpoint: m.safetensors}}\n"
        )
    };
    let read = |image: &str| parse(&text(image), Path::new("t.yaml"), folder.path(), Look::AtTextOnly);
    std::fs::write(
        folder.path().join("cfg.json"),
        r#"{"pretrained_cfg": {"input_size": [3, 96, 96], "crop_pct": 0.96, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}"#,
    )
    .unwrap();
    let image = read("{from: cfg.json, orientation: apply}").unwrap().file.data.image;
    assert_eq!((image.input(), image.mean[0], &image.from), ([3, 96, 96], 0.5, &None));
    assert_eq!(image.orientation, delta_guard_contract::Orientation::Apply);
    // A file of another machine is named again, not guessed.
    let elsewhere = read("{from: elsewhere.json}").unwrap().file.data.image;
    assert_eq!(elsewhere.from, Some(folder.path().join("elsewhere.json")));
    std::fs::write(folder.path().join("cfg.json"), r#"[{"resize": {"size": 96}}]"#).unwrap();
    for (image, key, says) in [
        ("{from: cfg.json}", "data.image.from", "one size"),
        ("{from: ~/cfg.json}", "data.image.from", "in full"),
        (
            "{transforms: [{resize: {size: 8, antialias: false}}, {center_crop: 8}]}",
            "data.image.transforms[0].resize.antialias",
            "PIL",
        ),
        (
            "{transforms: [{resise: {size: 8}}]}",
            "data.image.transforms[0].resise",
            "did you mean \"resize\"",
        ),
        (
            "{transforms: [{center_crop: big}]}",
            "data.image.transforms[0].center_crop",
            "whole number",
        ),
        (
            "{transforms: [{center_crop: [8, 8, 8]}]}",
            "data.image.transforms[0].center_crop",
            "at most 2",
        ),
        ("{transforms: [{center_crop: 8}], resize: stretch}", "data.image.resize", "in the list"),
        (
            "{mean: [123.7, 116.3, 103.5], std: [58.4, 57.1, 57.4]}",
            "data.image.mean",
            "0.4851, 0.45608, 0.40588",
        ),
    ] {
        let found = read(image).unwrap_err().problems;
        assert_eq!(found.len(), 1, "{image}: {found:?}");
        let said = format!("{} {}", found[0].what, found[0].help);
        assert!(
            found[0].key == key && said.contains(says) && found[0].line == 5,
            "{image}: {:?}",
            found[0]
        );
    }
}
