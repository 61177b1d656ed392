use super::*;
use serde_json::{Value, json};

fn mistakes(section: Value) -> Vec<Mistake> {
    serde_json::from_value::<ImageKeys>(section).expect("the form is right").check()
}

fn image(section: Value) -> ImageConfig {
    serde_json::from_value(section).expect("no mistake")
}

const LIST: &str = r#"[{"resize": {"size": 256, "interpolation": "bicubic", "antialias": true}}, {"center_crop": 224},
    {"normalize": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}]"#;

#[test]
fn a_list_says_size_channels_and_figures_and_comes_back_the_same() {
    let list: Value = serde_json::from_str(LIST).expect("JSON");
    let read = image(json!({"transforms": list, "orientation": "apply"}));
    assert_eq!(read.input(), [3, 224, 224]);
    assert_eq!((read.mean[2], read.std[0], read.orientation), (0.406, 0.229, Orientation::Apply));
    let resize = ImageStep::Resize {
        to: Edges::Shorter { side: 256, max: None },
        resampling: Resampling::Bicubic,
    };
    let crop = ImageStep::CenterCrop { height: 224, width: 224 };
    assert_eq!(read.steps, Some(vec![resize, crop]));
    assert_eq!(image(serde_json::to_value(&read).expect("JSON")), read);

    let grey = image(json!({"transforms": [{"grayscale": {}}, {"resize": {"size": [28, 30]}}]}));
    assert_eq!(
        (grey.input(), grey.mean.as_slice(), grey.std.as_slice()),
        ([1, 28, 30], &[0.0][..], &[1.0][..])
    );
    assert_eq!(image(serde_json::to_value(&grey).expect("JSON")), grey);

    let same = image(json!({"height": 64, "width": 48, "transforms": [{"normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}]}));
    assert_eq!((same.input(), same.steps.as_deref()), ([3, 64, 48], Some(&[][..])));
    assert_eq!(image(serde_json::to_value(&same).expect("JSON")), same);
}

#[test]
fn the_short_keys_mean_what_they_meant() {
    let usual = ImageConfig::default();
    assert_eq!(image(json!({})), usual);
    // What is written into factors' names stays as it was.
    let text =
        r#"{"height":32,"width":32,"resize":"refuse","orientation":"ignore","mean":[0.49147,0.48226,0.44677],"std":[0.24703,0.24349,0.26159]}"#;
    assert_eq!(serde_json::to_string(&usual).expect("JSON"), text);
    let grey = image(json!({"height": 28, "width": 28, "resize": "stretch", "mean": [0.13], "std": [0.31]}));
    assert_eq!((grey.input(), grey.resize, grey.bytes()), ([1, 28, 28], Resize::Stretch, 784));
    assert_eq!(image(serde_json::to_value(&grey).expect("JSON")), grey);
}

/// Each section has one mistake: its key, and what its text or help says.
#[test]
fn mistakes_name_the_key_and_the_remedy() {
    let crop = json!({"center_crop": 8});
    for (section, key, says) in [
        (json!({"transforms": [crop], "resize": "stretch"}), "resize", "in the list"),
        (json!({"transforms": [crop], "mean": [0.5, 0.5, 0.5]}), "mean", "normalize"),
        (json!({"transforms": [crop], "height": 8}), "height", "says the size"),
        (json!({"transforms": [crop], "from": "a.json"}), "transforms", "keep one"),
        (json!({"from": "a.json", "std": [0.5, 0.5, 0.5]}), "std", "the file says it"),
        (json!({"from": "a.json", "width": 8}), "width", "the file says it"),
        (json!({"transforms": [{"resize": {"size": 8}}]}), "transforms", "center_crop"),
        (json!({"transforms": [], "height": 8}), "transforms", "height and width"),
        (json!({"transforms": [{"center_crop": 2}]}), "transforms", "4 to 1024"),
        (json!({"transforms": [{}]}), "transforms.0", "is empty"),
        (json!({"transforms": [{"center_crop": 8, "grayscale": {}}]}), "transforms.0", "of its own"),
        (
            json!({"transforms": [{"normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}, crop]}),
            "transforms.0.normalize",
            "last",
        ),
        (
            json!({"transforms": [crop, {"normalize": {"mean": [0.5], "std": [0.5]}}]}),
            "transforms.1.normalize.mean",
            "grayscale: {channels: 1}",
        ),
        (
            json!({"transforms": [{"grayscale": {"channels": 1}}, crop, {"normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}]}),
            "transforms.2.normalize.mean",
            "one value",
        ),
        (
            json!({"transforms": [{"grayscale": {"channels": 2}}, crop]}),
            "transforms.0.grayscale.channels",
            "1, or 3",
        ),
        (
            json!({"transforms": [{"resize": {"size": 8, "antialias": false}}, crop]}),
            "transforms.0.resize.antialias",
            "PIL",
        ),
        (
            json!({"transforms": [{"resize": {"size": 8, "max_size": 8}}, crop]}),
            "transforms.0.resize.max_size",
            "more than size",
        ),
        (
            json!({"transforms": [{"resize": {"size": [8, 8], "max_size": 9}}]}),
            "transforms.0.resize.max_size",
            "leave it out",
        ),
        (
            json!({"transforms": [{"resize": {"size": 0}}, crop]}),
            "transforms.0.resize.size",
            "1 to 4096",
        ),
        (json!({"mean": [0.1, 0.2]}), "mean", "3 (R, G, B) or 1"),
        (json!({"mean": [0.1]}), "std", "one of each"),
        (json!({"std": [0.1, 0.0, 0.1]}), "std.1", "units of full brightness"),
    ] {
        let found = mistakes(section.clone());
        assert_eq!(found.len(), 1, "{section}: {found:?}");
        assert_eq!(found[0].key, key, "{section}");
        let text = format!("{} {}", found[0].what, found[0].help);
        assert!(text.contains(says), "{section}: {text}");
        assert!(serde_json::from_value::<ImageConfig>(section).is_err());
    }
    assert!(mistakes(json!({"transforms": [{"resize": {"size": 8, "antialias": false, "interpolation": "nearest"}}, crop]})).is_empty());
}

#[test]
fn figures_of_bytes_are_recognised_and_divided() {
    for (section, help) in [
        (
            json!({"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}),
            "mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]",
        ),
        (json!({"mean": [125.3], "std": [1.0]}), "mean: [0.49137], std: [0.00392]"),
        (json!({"mean": [0.0], "std": [255.0]}), "mean: [0], std: [1]"),
        (json!({"mean": [0.4], "std": [63.75]}), "it is std: [0.25]"),
    ] {
        let found = mistakes(section.clone());
        assert_eq!(found.len(), 1, "{section}: {found:?}");
        assert!(found[0].what.contains("0 to 255") && found[0].help.contains(help), "{section}: {found:?}");
    }
    // Zero and one: no normalisation; a mean of 1/2 and a deviation of 1/255 are odd, but can be.
    for fine in [
        json!({"mean": [0.0], "std": [1.0]}),
        json!({"mean": [0.5], "std": [0.0039]}),
        json!({"mean": [1.0], "std": [1.0]}),
    ] {
        assert!(mistakes(fine.clone()).is_empty(), "{fine}");
    }
}

#[test]
fn timms_configurations_give_what_timms_transforms_do() {
    let table: Vec<Value> = serde_json::from_str(include_str!("../../../ml/tests/fixtures/pictures/timm.json")).expect("JSON");
    assert!(table.len() > 8);
    for row in &table {
        let told = json!({"architecture": "x", "pretrained_cfg": row["pretrained_cfg"]}).to_string();
        let got = from_timm(&told).expect("followed");
        assert_eq!(
            got,
            from_timm(&row["pretrained_cfg"].to_string()).expect("followed"),
            "with and without the frame"
        );
        assert_eq!(got, preset(&told, None).expect("followed"));
        let wanted = from_torchvision(&row["transforms"].to_string(), None).expect("followed");
        assert_eq!((&got.steps, got.input()), (&wanted.steps, wanted.input()), "{}", row["model"]);
        for (a, b) in got.mean.iter().chain(&got.std).zip(wanted.mean.iter().chain(&wanted.std)) {
            assert!((a - b).abs() < 1e-6, "{}", row["model"]);
        }
    }
    let grey = from_timm(r#"{"input_size": [1, 28, 28], "mean": [0.13], "std": [0.3], "crop_pct": 1.0, "crop_mode": "squash"}"#).expect("followed");
    assert_eq!(grey.input(), [1, 28, 28]);
    assert_eq!(grey.steps.map(|steps| steps[0]), Some(ImageStep::Grayscale { channels: 1 }));
    for (text, says) in [
        ("{", "not JSON"),
        ("{}", "neither"),
        (r#"{"input_size": [3, 224, 224], "crop_mode": "border"}"#, "border"),
        (r#"{"input_size": [3, 224, 160]}"#, "224 × 160"),
        (r#"{"input_size": [3, 224, 224], "interpolation": "random"}"#, "random"),
        (r#"{"input_size": [3, 224, 224], "crop_pct": -1}"#, "crop_pct: -1"),
        (r#"{"input_size": [3, 224, 224], "mean": [123.0, 117.0, 104.0]}"#, "0 to 255"),
        (
            r#"{"input_size": [4, 224, 224], "mean": [0.1, 0.1, 0.1, 0.1], "std": [0.1, 0.1, 0.1, 0.1]}"#,
            "4 values",
        ),
    ] {
        let told = preset(text, None).expect_err("not followed");
        assert!(told.what.contains(says), "{text}: {told:?}");
    }
}

#[test]
fn an_exported_list_takes_the_networks_size_only_where_it_has_none() {
    let exported = format!(r#"{{"format": 1, "classes": ["a", "b"], "preprocess": {LIST}}}"#);
    let read = preset(&exported, Some((96, 96))).expect("followed");
    assert_eq!(read.input(), [3, 224, 224]);
    let plain = r#"[{"normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}]"#;
    assert_eq!(from_torchvision(plain, Some((64, 48))).expect("followed").input(), [3, 64, 48]);
    assert!(from_torchvision(plain, None).expect_err("no size").what.contains("one size"));
    assert!(
        from_torchvision(r#"[{"random_crop": 4}]"#, None)
            .expect_err("no such word")
            .what
            .contains("random_crop")
    );
}
