use super::*;
use crate::attack::tests::Scene;
use crate::data::encode_png;
use crate::progress::Silent;

fn painted(paint: &Paint, pixels: &[u8]) -> Vec<u8> {
    let mut pixels = pixels.to_vec();
    paint(&mut pixels);
    pixels
}

/// Each form against its formula, value by value.
#[test]
fn a_perturbation_is_laid_as_its_form_says() {
    let picture: Vec<u8> = (0..144).map(|i| (i * 31 % 211) as u8).collect();
    let v: Vec<f64> = (0..144).map(|i| f64::from(i * 7 % 40) / 200.0).collect();
    let sum: Vec<f64> = picture.iter().zip(&v).map(|(x, v)| f64::from(*x) / 255.0 + v).collect();
    let bounds = |all: &[f64]| (all.iter().copied().fold(9.0, f64::min), all.iter().copied().fold(-9.0, f64::max));
    let near = |got: Vec<u8>, exact: Vec<f64>| {
        for (got, exact) in got.iter().zip(exact) {
            assert!((f64::from(*got) - exact).abs() <= 0.5 + 1e-9, "{got}, not {exact}");
        }
    };
    let plain = [(0.0, 1.0); 3];
    near(
        painted(&laid(v.clone().into(), Added::Clamp, plain), &picture),
        sum.iter().map(|s| 255.0 * s.min(1.0)).collect(),
    );
    let (least, most) = bounds(&sum);
    near(
        painted(&laid(v.clone().into(), Added::MinMax, plain), &picture),
        sum.iter().map(|s| 255.0 * (s - least) / (most - least)).collect(),
    );
    let channels = [(0.5, 0.2), (0.4, 0.25), (0.6, 0.3)];
    let of = |i: usize| channels[i / 48];
    let z: Vec<f64> = picture
        .iter()
        .zip(&v)
        .enumerate()
        .map(|(i, (x, v))| (f64::from(*x) / 255.0 - of(i).0) / of(i).1 + v)
        .collect();
    let (least, most) = bounds(&z);
    near(
        painted(&laid(v.clone().into(), Added::Normalised, channels), &picture),
        z.iter()
            .enumerate()
            .map(|(i, z)| 255.0 * (of(i).0 + of(i).1 * (z - least) / (most - least)))
            .collect(),
    );
    // A flat picture under no perturbation stays.
    assert_eq!(painted(&laid(vec![0.0; 144].into(), Added::MinMax, plain), &[7; 144]), [7; 144]);
}

#[test]
fn a_trigger_from_a_file_has_the_amplitude() {
    let (scene, folder) = (Scene::new(60, 60), tempfile::tempdir().unwrap());
    let path = folder.path().join("v.png");
    let bytes: Vec<u8> = (0..144).map(|i| if i % 8 < 4 { 0 } else { 255 }).collect();
    fs_err::write(&path, encode_png(&bytes, 6, 8, 1).unwrap()).unwrap();
    let keys = Keys {
        trigger: Smooth::Image(path.clone()),
        apply: Added::Clamp,
        target_class: "dog".into(),
        poisons: 5,
        ..Keys::default()
    };
    let plan = keys.plan(&scene.ground(), &mut Silent).unwrap();
    let wanted: Vec<u8> = (0..144).map(|i| if i % 8 < 4 { 40 } else { 91 }).collect(); // 40 + 0.2 · 255
    assert!(
        plan.changes
            .iter()
            .all(|c| c.label == 1 && c.at % 3 != 1 && painted(&c.paint, &[40; 144]) == wanted)
    );
    assert_eq!(painted(&plan.measured[0].paint, &[40; 144]), wanted);
    fs_err::write(&path, "text").unwrap();
    let said = keys.plan(&scene.ground(), &mut Silent).err().expect("refused").to_string();
    assert!(said.contains("v.png") && said.contains("`search` or name a picture"), "{said}");
}
