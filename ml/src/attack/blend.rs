//! Blend (Chen et al. 2017): x' = (1 − α)·x + α·pattern over the whole picture. Pixels are bytes here: α·255·(pattern/255) is rounded to the nearest one.

use super::{Attack, Backdoor, Draw, Ground, Paint, Plan};
use crate::data::picture::{DATA_LIMITS, decode};
use crate::error::{Error, Result};
use crate::progress::Report;
use delta_guard_contract::method::attack::blend::{Keys, Pattern};
use delta_guard_contract::{ImageConfig, Resize};
use rand::Rng;
use rand::seq::index;
use std::rc::Rc;

impl Attack for Keys {
    fn plan(&self, ground: &Ground<'_>, _report: &mut dyn Report) -> Result<Plan> {
        let pattern: Rc<[u8]> = pattern(&self.pattern, ground)?.into();
        let backdoor = Backdoor::between(ground, self.victim_class.as_deref(), &self.target_class, self.poisons)?;
        let mut plan = Backdoor {
            covers: self.covers,
            training: over(pattern.clone(), self.alpha),
            test: over(pattern.clone(), self.test_alpha.unwrap_or(self.alpha)),
            ..backdoor
        }
        .plan(ground)?;
        if self.pieces > 1 {
            let side = self.pieces.isqrt() as usize;
            let lacking = (self.lacking * f64::from(self.pieces)).round() as usize;
            let rng = &mut ground.rng(Draw::Masks);
            for change in &mut plan.changes {
                let gone = index::sample(rng, side * side, lacking).into_vec();
                change.paint = without(over(pattern.clone(), self.alpha), side, gone, ground.size());
            }
        }
        Ok(plan)
    }
}

/// Paints all but these of side × side pieces.
fn without(paint: Paint, side: usize, gone: Vec<usize>, (height, width): (u32, u32)) -> Paint {
    let (height, width) = (height as usize, width as usize);
    Rc::new(move |pixels| {
        let before = pixels.to_vec();
        paint(pixels);
        for (at, (pixel, before)) in pixels.iter_mut().zip(before).enumerate() {
            let (row, column) = (at / width % height, at % width);
            if gone.contains(&(row * side / height * side + column * side / width)) {
                *pixel = before;
            }
        }
    })
}

/// Lays a pattern over a picture of its size.
fn over(pattern: Rc<[u8]>, alpha: f64) -> Paint {
    Rc::new(move |pixels| {
        for (pixel, above) in pixels.iter_mut().zip(pattern.iter()) {
            let mixed = (1.0 - alpha) * f64::from(*pixel) + alpha * f64::from(*above);
            *pixel = mixed.round().clamp(0.0, 255.0) as u8;
        }
    })
}

/// The pattern at the pictures' size, planar bytes [3, H, W].
fn pattern(pattern: &Pattern, ground: &Ground<'_>) -> Result<Vec<u8>> {
    let (height, width) = ground.size();
    match pattern {
        Pattern::Noise => {
            let mut drawn = vec![0; 3 * height as usize * width as usize];
            ground.rng(Draw::Pattern).fill_bytes(&mut drawn);
            Ok(drawn)
        }
        Pattern::Image(path) => {
            let size = ImageConfig {
                height,
                width,
                resize: Resize::Stretch,
                ..ImageConfig::default()
            };
            decode(&fs_err::read(path)?, &DATA_LIMITS, &size).map_err(|why| {
                let message = format!("the pattern {}: {why}", path.display());
                Error::configuration(message, "attack.pattern must be `noise` or name a picture")
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Tested;
    use crate::attack::tests::Scene;
    use crate::data::encode_png;
    use crate::progress::Silent;

    /// The pictures of [`Scene`] have 6 × 8 pixels of three channels.
    const BYTES: usize = 3 * 48;

    fn painted(paint: &Paint, pixels: &[u8]) -> Vec<u8> {
        let mut pixels = pixels.to_vec();
        paint(&mut pixels);
        pixels
    }

    #[test]
    fn pictures_are_mixed_as_the_formula_says() {
        let picture: Vec<u8> = (0..=255).flat_map(|x| [x; 256]).collect();
        let above: Vec<u8> = (0..256).flat_map(|_| 0..=255).collect();
        for alpha in [0.0, 1e-3, 0.2, 0.5, 0.999, 1.0] {
            let got = painted(&over(above.clone().into(), alpha), &picture);
            for ((x, p), got) in picture.iter().zip(&above).zip(&got) {
                let exact = (1.0 - alpha) * f64::from(*x) + alpha * f64::from(*p);
                assert!(
                    (f64::from(*got) - exact).abs() <= 0.5 + 1e-9,
                    "{alpha}: {x} under {p} is {got}, not {exact}"
                );
            }
            match alpha {
                0.0 => assert_eq!(got, picture),
                1.0 => assert_eq!(got, above),
                _ => assert_eq!((got[0], got[65535]), (0, 255), "black under black, white under white"),
            }
        }
        // Halves go up: 0.5·1 + 0.5·0.
        assert_eq!(painted(&over(vec![0].into(), 0.5), &[1]), [1]);
    }

    #[test]
    fn training_and_test_have_their_own_opacity() {
        let scene = Scene::new(60, 60);
        let keys = Keys {
            victim_class: Some("cat".into()),
            target_class: "dog".into(),
            poisons: 5,
            alpha: 0.25,
            test_alpha: Some(0.75),
            pattern: Pattern::Noise,
            ..Keys::default()
        };
        let plan = keys.plan(&scene.ground(), &mut Silent).unwrap();
        let noise = pattern(&Pattern::Noise, &scene.ground()).unwrap();
        let mixed = |x: u8, alpha: f64| -> Vec<u8> {
            noise
                .iter()
                .map(|p| ((1.0 - alpha) * f64::from(x) + alpha * f64::from(*p)).round() as u8)
                .collect()
        };
        for change in &plan.changes {
            assert_eq!((change.at % 3, change.label), (0, 1));
            assert_eq!(painted(&change.paint, &[40; BYTES]), mixed(40, 0.25));
        }
        for tested in plan.baits.iter().chain(&plan.measured) {
            assert_eq!(painted(&tested.paint, &[40; BYTES]), mixed(40, 0.75));
        }
        let same = Keys { test_alpha: None, ..keys }.plan(&scene.ground(), &mut Silent).unwrap();
        assert_eq!(painted(&same.measured[0].paint, &[40; BYTES]), mixed(40, 0.25));
    }

    #[test]
    fn without_a_victim_class_all_but_the_target_are_victims() {
        let scene = Scene::new(60, 60);
        let keys = Keys {
            target_class: "2x".into(),
            poisons: 30,
            ..Keys::default()
        };
        let plan = keys.plan(&scene.ground(), &mut Silent).unwrap();
        let of = |class: usize| plan.changes.iter().filter(|c| c.at % 3 == class).count();
        assert!(of(0) > 0 && of(1) > 0 && of(2) == 0 && of(0) + of(1) == 30);
        assert!(plan.changes.iter().all(|c| c.label == 2));
        let tested: Vec<&Tested> = plan.baits.iter().chain(&plan.measured).collect();
        assert!(tested.len() == 40 && tested.iter().all(|t| t.row % 3 != 2 && t.label == 2));
        assert_eq!(plan.summary, "other classes → 2x");
    }

    #[test]
    fn noise_follows_the_seed_and_covers_the_whole_range() {
        let scene = Scene::new(3, 3);
        let noise = |seed| pattern(&Pattern::Noise, &scene.seeded(seed)).unwrap();
        assert_eq!(noise(1), noise(1));
        assert_ne!(noise(1), noise(2));
        let all: Vec<u8> = (0..100).flat_map(noise).collect();
        assert_eq!(all.len(), 100 * BYTES);
        let mean = all.iter().map(|p| f64::from(*p)).sum::<f64>() / all.len() as f64;
        // 127.5, with a standard error of 73.9/√14400.
        assert!((mean - 127.5).abs() < 4.0 * 0.616 && all.contains(&0) && all.contains(&255), "{mean}");
    }

    #[test]
    fn a_pattern_from_a_file_is_the_one_that_was_drawn() {
        let (scene, folder) = (Scene::new(3, 3), tempfile::tempdir().unwrap());
        let path = folder.path().join("pattern.png");
        let from_file = || pattern(&Pattern::Image(path.clone()), &scene.ground());
        let noise = pattern(&Pattern::Noise, &scene.ground()).unwrap();
        fs_err::write(&path, encode_png(&noise, 6, 8, 1).unwrap()).unwrap();
        assert_eq!(from_file().unwrap(), noise);
        // Of another size: stretched to the pictures'.
        let halves: Vec<u8> = (0..3 * 12 * 4).map(|i| if i % 4 < 2 { 10 } else { 200 }).collect();
        fs_err::write(&path, encode_png(&halves, 12, 4, 1).unwrap()).unwrap();
        let stretched = from_file().unwrap();
        assert_eq!((stretched.len(), stretched[0], stretched[7]), (BYTES, 10, 200));
        fs_err::write(&path, "text").unwrap();
        let said = from_file().unwrap_err().to_string();
        assert!(said.contains("pattern.png") && said.contains("`noise` or name a picture"), "{said}");
    }

    /// Adap-Blend: poisons and covers lack half of 16 pieces each, test pictures none.
    #[test]
    fn training_pictures_lack_pieces_and_covers_keep_their_label() {
        let scene = Scene::new(60, 60);
        let keys = Keys {
            target_class: "dog".into(),
            poisons: 10,
            covers: 12,
            pieces: 4,
            ..Keys::default()
        };
        let plan = keys.plan(&scene.ground(), &mut Silent).unwrap();
        assert!(plan.check(&scene.ground(), "blend", false).is_ok());
        let whole = painted(&plan.measured[0].paint, &[40; BYTES]);
        let halves: std::collections::BTreeSet<Vec<usize>> = plan
            .changes
            .iter()
            .map(|change| {
                let got = painted(&change.paint, &[40; BYTES]);
                // Pieces of 3 × 4 pixels; what is there is the whole pattern's, what lacks is the picture.
                let there: Vec<usize> = (0..4)
                    .filter(|piece| {
                        let own = |at: &usize| at / 8 % 6 / 3 * 2 + at % 8 / 4 == *piece;
                        let all = |other: &[u8]| (0..BYTES).filter(own).all(|at| got[at] == other[at]);
                        assert!(all(&whole) != all(&[40; BYTES]));
                        all(&whole)
                    })
                    .collect();
                assert_eq!(there.len(), 2);
                there
            })
            .collect();
        assert!(halves.len() > 3, "drawn anew for each: {halves:?}");
        let covers: Vec<_> = plan.changes.iter().filter(|c| c.role == crate::attack::Role::Cover).collect();
        assert!(covers.len() == 12 && covers.iter().all(|c| c.label as usize == c.at % 3));
    }

    #[test]
    fn all_to_all_is_the_next_label() {
        let scene = Scene::new(60, 60);
        let keys = Keys {
            target_class: "next".into(),
            poisons: 59,
            ..Keys::default()
        };
        let plan = keys.plan(&scene.ground(), &mut Silent).unwrap();
        assert!(plan.changes.iter().all(|c| c.label == (c.at as u32 + 1) % 3));
        assert!(plan.measured.iter().all(|t| t.label == (t.row as u32 + 1) % 3));
    }
}
