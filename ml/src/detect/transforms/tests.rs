//! Fixed parameters against torchvision's results (`tests/fixtures/transforms`, made by the script there), and properties of the draws.

use super::geometry::{Interpolation, affine, elastic, rotate};
use super::*;
use rand::SeedableRng;
use safetensors::SafeTensors;
use tch::Device;

const GOLDEN: &[u8] = include_bytes!("../../../../tests/fixtures/transforms/golden.safetensors");
const PICTURES: [&str; 3] = ["square", "wide", "normalised"];

struct Golden {
    file: SafeTensors<'static>,
    parameters: serde_json::Value,
    jitter: Vec<(String, f64)>,
}

fn golden() -> Golden {
    let (_, metadata) = SafeTensors::read_metadata(GOLDEN).unwrap();
    let metadata = metadata.metadata().clone().unwrap();
    let json = |key: &str| serde_json::from_str(&metadata[key]).unwrap();
    Golden {
        file: SafeTensors::deserialize(GOLDEN).unwrap(),
        parameters: json("parameters"),
        jitter: serde_json::from_value(json("jitter")).unwrap(),
    }
}

impl Golden {
    fn tensor(&self, name: &str) -> Tensor {
        let view = self.file.tensor(name).unwrap();
        let values: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        Tensor::from_slice(&values).view(view.shape().iter().map(|&n| n as i64).collect::<Vec<_>>().as_slice())
    }

    fn numbers(&self, key: &str) -> Vec<f64> {
        self.parameters[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

fn jitter_of(name: &str, factor: f64) -> Jitter {
    match name {
        "brightness" => Jitter::Brightness(factor),
        "contrast" => Jitter::Contrast(factor),
        "saturation" => Jitter::Saturation(factor),
        "hue" => Jitter::Hue(factor),
        other => panic!("{other}"),
    }
}

/// A function of the test, over each picture and each parameter of `key`.
fn check(key: &str, tolerance: f64, apply: impl Fn(&Tensor, f64) -> Result<Tensor>) {
    let golden = golden();
    let numbers = golden.numbers(key);
    assert_eq!(numbers.len(), 2);
    for picture in PICTURES {
        let x = golden.tensor(picture).unsqueeze(0);
        for (i, &number) in numbers.iter().enumerate() {
            let expected = golden.tensor(&format!("{picture}.{key}.{i}")).unsqueeze(0);
            let difference = largest_difference(&apply(&x, number).unwrap(), &expected);
            assert!(difference <= tolerance, "{picture}.{key}.{i}: {difference:e}");
            assert!(
                largest_difference(&x, &expected) > 1e-3,
                "{picture}.{key}.{i} changes nothing: the comparison would be empty"
            );
        }
    }
}

#[test]
fn colour_steps_are_torchvisions() {
    for key in ["brightness", "contrast", "saturation"] {
        check(key, 1e-6, |x, f| color::jitter(x, jitter_of(key, f)));
    }
    check("hue", 1e-5, |x, f| color::jitter(x, jitter_of("hue", f)));
}

#[test]
fn jitter_is_its_steps_in_order() {
    let golden = golden();
    let steps: Vec<Jitter> = golden.jitter.iter().map(|(name, factor)| jitter_of(name, *factor)).collect();
    let transform = Transform::ColorJitter(steps.clone().try_into().unwrap());
    let reversed = Transform::ColorJitter([steps[3], steps[2], steps[1], steps[0]]);
    for picture in PICTURES {
        let (x, expected) = (golden.tensor(picture), golden.tensor(&format!("{picture}.jitter")));
        assert!(largest_difference(&transform.apply(&x).unwrap(), &expected) <= 1e-5);
        assert!(largest_difference(&reversed.apply(&x).unwrap(), &expected) > 1e-3, "order matters");
    }
}

#[test]
fn blur_and_rotation_are_torchvisions() {
    check("blur", 1e-5, |x, sigma| Transform::Blur { sigma }.apply(x));
    check("rotation", 1e-5, rotate);
}

#[test]
fn affine_is_torchvisions_but_for_ties() {
    let golden = golden();
    for picture in PICTURES {
        let x = golden.tensor(picture);
        let (_, h, w) = x.size3().unwrap();
        for i in 0..3 {
            let p: Vec<f64> = golden.parameters["affine"][i]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_f64().unwrap())
                .collect();
            let ours = Transform::RandomAffine {
                angle: p[0],
                scale: p[1],
                shear_x: p[2],
            }
            .apply(&x)
            .unwrap();
            let expected = golden.tensor(&format!("{picture}.affine.{i}"));
            let wrong = (ours - expected)
                .abs()
                .amax([0i64], false)
                .gt(1e-6)
                .sum(tch::Kind::Int64)
                .int64_value(&[]);
            // A quarter turn of a picture of odd by even sides reads between pixels everywhere: ties all over.
            if !(p[0] == 90.0 && (h - w) % 2 != 0) {
                assert!(wrong <= 1, "{picture}.affine.{i}: {wrong} of {} pixels differ", h * w);
            }
        }
    }
}

#[test]
fn elastic_is_torchvisions_from_the_noise_on() {
    let golden = golden();
    for picture in PICTURES {
        let x = golden.tensor(picture);
        let (_, h, w) = x.size3().unwrap();
        let noise = Vec::<f32>::try_from(golden.tensor(&format!("{picture}.noise")).view([-1])).unwrap();
        let ours = Transform::Elastic {
            noise,
            height: h as usize,
            width: w as usize,
        }
        .apply(&x)
        .unwrap();
        let difference = largest_difference(&ours, &golden.tensor(&format!("{picture}.elastic")));
        assert!(difference <= 2e-5, "{picture}: {difference:e}");
    }
}

#[test]
fn flip_invert_and_switch_by_hand() {
    let golden = golden();
    for picture in PICTURES {
        let x = golden.tensor(picture);
        assert!(Transform::Flip.apply(&x).unwrap().equal(&golden.tensor(&format!("{picture}.flip"))));
        assert!(largest_difference(&Transform::Invert.apply(&x).unwrap(), &golden.tensor(&format!("{picture}.invert"))) <= 1e-6);
        let switched = Transform::ColorSwitch.apply(&x).unwrap();
        assert!(switched.get(0).equal(&x.get(1)) && switched.get(1).equal(&x.get(0)) && switched.get(2).equal(&x.get(2)));
    }
}

#[test]
fn double_precision_agrees_with_single() {
    let x = golden().tensor("square");
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    for kind in Kind::ALL {
        let transform = Transform::draw(kind, &mut rng, 24, 24);
        let (single, double) = (transform.apply(&x).unwrap(), transform.apply(&x.to_kind(tch::Kind::Double)).unwrap());
        assert_eq!(double.kind(), tch::Kind::Double);
        let off = (single.to_kind(tch::Kind::Double) - double)
            .abs()
            .gt(1e-4)
            .sum(tch::Kind::Int64)
            .int64_value(&[]);
        // Nearest neighbours may tip at ties.
        assert!(off <= if kind == Kind::RandomAffine { 6 } else { 0 }, "{}: {off}", kind.name());
    }
}

#[test]
fn draws_are_within_the_published_ranges_and_repeat() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut first = std::collections::BTreeSet::new();
    for round in 0..400u64 {
        let within = |v: f64, low: f64, high: f64| assert!((low..high).contains(&v), "{v} outside {low}..{high}");
        for kind in Kind::ALL {
            match Transform::draw(kind, &mut rng, 8, 6) {
                Transform::ColorJitter(steps) => {
                    let mut names: Vec<u8> = Vec::new();
                    for step in steps {
                        match step {
                            Jitter::Brightness(f) | Jitter::Contrast(f) => within(f, 0.9, 1.1),
                            Jitter::Saturation(f) => within(f, 0.6, 1.4),
                            Jitter::Hue(f) => within(f, -0.1, 0.1),
                        }
                        names.push(match step {
                            Jitter::Brightness(_) => 0,
                            Jitter::Contrast(_) => 1,
                            Jitter::Saturation(_) => 2,
                            Jitter::Hue(_) => 3,
                        });
                    }
                    first.insert(names.clone());
                    names.sort_unstable();
                    assert_eq!(names, [0, 1, 2, 3]);
                }
                Transform::RandomAffine { angle, scale, shear_x } => {
                    within(angle, -180.0, 180.0);
                    within(scale, 1.0, 2.0);
                    within(shear_x, -10.0, 10.0);
                }
                Transform::Elastic { noise, height, width } => {
                    assert_eq!((noise.len(), height, width), (96, 8, 6));
                    noise.iter().for_each(|&v| within(f64::from(v), -1.0, 1.0));
                }
                Transform::Blur { sigma } => within(sigma, 8.0, 10.0),
                Transform::Rotation { angle } => within(angle, -180.0, 180.0),
                Transform::Flip | Transform::Invert | Transform::ColorSwitch => {}
            }
        }
        let draw = |seed| Transform::draw(Kind::Elastic, &mut ChaCha8Rng::seed_from_u64(seed), 4, 4);
        assert_eq!(draw(round), draw(round));
        assert_ne!(draw(round), draw(round + 1));
    }
    assert_eq!(first.len(), 24, "every order comes up");
}

#[test]
fn any_size_and_channel_count_works_and_batches_are_their_rows() {
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    for (c, h, w) in [(3, 1, 1), (3, 2, 3), (1, 7, 4), (2, 5, 5), (4, 9, 3), (3, 40, 12)] {
        let x = Tensor::rand([2, c, h, w], (tch::Kind::Float, Device::Cpu));
        for kind in Kind::ALL {
            let transform = Transform::draw(kind, &mut rng, h as usize, w as usize);
            let both = transform.apply(&x).unwrap();
            assert_eq!(both.size(), x.size());
            assert!(bool::try_from(both.isfinite().all()).unwrap());
            let second = transform.apply(&x.get(1)).unwrap();
            assert!(largest_difference(&both.get(1), &second) < 1e-6, "{} {c} {h} {w}", kind.name());
        }
    }
}

#[test]
fn jitter_of_a_normalised_picture_with_an_exact_zero_maximum_is_finite() {
    let x = Tensor::from_slice(&[0f32, -0.5, -1.0]).view([3, 1, 1]);
    assert!(bool::try_from(color::jitter(&x.unsqueeze(0), Jitter::Hue(0.05)).unwrap().isfinite().all()).unwrap());
}

#[test]
fn identity_parameters_change_nothing() {
    let x = golden().tensor("wide").unsqueeze(0);
    assert!(largest_difference(&affine(&x, 0.0, 1.0, 0.0, Interpolation::Nearest).unwrap(), &x) == 0.0);
    assert!(largest_difference(&rotate(&x, 0.0).unwrap(), &x) < 1e-5);
    let still = Tensor::zeros([1, 21, 26, 2], (tch::Kind::Float, Device::Cpu));
    assert!(largest_difference(&elastic(&x, &still).unwrap(), &x) < 1e-5);
    // A turn to the left: the top right corner comes to the top left.
    let square = golden().tensor("square").unsqueeze(0);
    let turned = rotate(&square, 90.0).unwrap();
    assert!(largest_difference(&turned, &square.rot90(1, [2i64, 3])) < 1e-4);
}

#[test]
fn wrong_shapes_are_errors() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let float = (tch::Kind::Float, Device::Cpu);
    assert!(Transform::Flip.apply(&Tensor::zeros([3, 8], float)).is_err());
    assert!(Transform::Flip.apply(&Tensor::zeros([3, 0, 8], float)).is_err());
    assert!(
        Transform::Invert
            .apply(&Tensor::zeros([3, 8, 8], (tch::Kind::Int64, Device::Cpu)))
            .is_err()
    );
    let error = Transform::draw(Kind::Elastic, &mut rng, 8, 8)
        .apply(&Tensor::zeros([3, 9, 8], float))
        .unwrap_err()
        .to_string();
    assert!(error.contains("transform elastic: drawn for 8 × 8 pictures, applied to 9 × 8"), "{error}");
}
