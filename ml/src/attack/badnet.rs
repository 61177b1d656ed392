//! BadNet (Gu et al. 2017; algorithm §5): a small pattern on pictures of one class, which are labelled as another.

use super::backdoor::faded;
use super::{Attack, Backdoor, Ground, Paint, Plan, Role};
use crate::data::picture::{DATA_LIMITS, decode_any};
use crate::error::{Error, Result};
use crate::progress::Report;
use delta_guard_contract::method::attack::badnet::{Keys, Trigger};
use std::rc::Rc;

impl Attack for Keys {
    fn plan(&self, ground: &Ground<'_>, _report: &mut dyn Report) -> Result<Plan> {
        let (height, width) = ground.size();
        let triggers = std::iter::once(&self.trigger).chain(&self.also);
        let paints = triggers.map(|trigger| painter(trigger, height, width)).collect::<Result<Vec<Paint>>>()?;
        let each: Vec<Paint> = paints.iter().map(|paint| faded(paint.clone(), self.opacity)).collect();
        let backdoor = Backdoor::between(ground, self.victim_class.as_deref(), &self.target_class, self.poisons)?;
        let mut plan = Backdoor {
            covers: self.covers,
            test: Rc::new(move |pixels| paints.iter().for_each(|paint| paint(pixels))),
            ..backdoor
        }
        .plan(ground)?;
        for role in [Role::Poison, Role::Cover] {
            let bearers = plan.changes.iter_mut().filter(|change| change.role == role);
            bearers.zip(each.iter().cycle()).for_each(|(bearer, paint)| bearer.paint = paint.clone());
        }
        Ok(plan)
    }
}

/// One pixel of a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dot {
    /// Row · width + column.
    at: usize,
    rgb: [u8; 3],
    /// 255: covers what is below.
    alpha: u8,
}

/// Paints the trigger on pictures of `height` × `width`.
fn painter(trigger: &Trigger, height: u32, width: u32) -> Result<Paint> {
    let dots = dots(trigger, height, width)?;
    let area = height as usize * width as usize;
    Ok(Rc::new(move |pixels| {
        for dot in &dots {
            for (c, over) in dot.rgb.iter().enumerate() {
                if let Some(below) = pixels.get_mut(c * area + dot.at) {
                    let (a, o, b) = (u32::from(dot.alpha), u32::from(*over), u32::from(*below));
                    *below = ((a * o + (255 - a) * b + 127) / 255) as u8;
                }
            }
        }
    }))
}

/// The trigger as pixels of a picture of `height` × `width`.
fn dots(trigger: &Trigger, height: u32, width: u32) -> Result<Vec<Dot>> {
    let opaque = |row: u32, column: u32, rgb| Dot {
        at: row as usize * width as usize + column as usize,
        rgb,
        alpha: 255,
    };
    // A square of `size`, `margin` pixels off the lower right corner.
    let square = |size: u32, margin: u32, color: &dyn Fn(u32, u32) -> [u8; 3]| {
        let needed = u64::from(size) + u64::from(margin);
        if needed > u64::from(height.min(width)) {
            let message = format!("the trigger needs {needed} pixels ({size} and a margin of {margin}), the pictures are {height} × {width}");
            return Err(Error::configuration(message, "lower attack.trigger.size or attack.trigger.margin"));
        }
        let (top, left) = (height - margin - size, width - margin - size);
        Ok((0..size * size)
            .map(|i| (i / size, i % size))
            .map(|(r, c)| opaque(top + r, left + c, color(r, c)))
            .collect())
    };
    match trigger {
        // White where it begins, top left.
        Trigger::Checkerboard { size, margin } => square(*size, *margin, &|r, c| [if (r + c) % 2 == 0 { 255 } else { 0 }; 3]),
        Trigger::Square { size, margin, color } => square(*size, *margin, &|_, _| *color),
        Trigger::Pixels { at, color } => {
            let dot = |&(row, column): &(u32, u32)| {
                if row == 0 || column == 0 || row > height || column > width {
                    let message = format!("the trigger's pixel ({row}, {column}) is outside of pictures of {height} × {width}");
                    return Err(Error::configuration(
                        message,
                        "rows and columns in attack.trigger.at count from the bottom right corner, starting at 1",
                    ));
                }
                Ok(opaque(height - row, width - column, *color))
            };
            at.iter().map(dot).collect()
        }
        Trigger::Image { path } => {
            let place = format!("the trigger {}", path.display());
            let bytes = fs_err::read(path)?;
            let help = "attack.trigger.path must name a PNG of the pictures' size with an alpha channel";
            let refused = |why: String| Error::configuration(format!("{place}: {why}"), help);
            let picture = decode_any(&bytes, &DATA_LIMITS).map_err(|r| refused(r.to_string()))?;
            if (picture.height(), picture.width()) != (height, width) {
                return Err(refused(format!(
                    "it is {} × {} (height × width), the pictures are {height} × {width}",
                    picture.height(),
                    picture.width()
                )));
            }
            let layer = picture.into_rgba8();
            let dots: Vec<Dot> = layer
                .pixels()
                .enumerate()
                .map(|(at, p)| Dot {
                    at,
                    rgb: [p[0], p[1], p[2]],
                    alpha: p[3],
                })
                .filter(|d| d.alpha > 0)
                .collect();
            match dots.len() {
                0 => Err(refused("all of it is transparent".into())),
                n if n == layer.pixels().len() && dots.iter().all(|d| d.alpha == 255) => {
                    Err(refused("nothing of it is transparent: it would replace the whole picture".into()))
                }
                _ => Ok(dots),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::tests::Scene;
    use crate::progress::Silent;

    fn made(trigger: Trigger) -> Result<Paint> {
        painter(&trigger, 6, 8)
    }

    fn why(refused: Result<Paint>) -> String {
        refused.err().expect("it is refused").to_string()
    }

    /// Painted picture as rows of the first channel.
    fn painted(trigger: Trigger, fill: u8) -> Vec<Vec<u8>> {
        rows(&made(trigger).unwrap(), fill)
    }

    fn rows(paint: &Paint, fill: u8) -> Vec<Vec<u8>> {
        let mut pixels = vec![fill; 3 * 48];
        paint(&mut pixels);
        pixels[..48].chunks(8).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn checkerboard_square_and_pixels_lie_where_they_should() {
        let board = painted(Trigger::Checkerboard { size: 3, margin: 1 }, 7);
        let want = [
            [7; 8],
            [7; 8],
            [7, 7, 7, 7, 255, 0, 255, 7],
            [7, 7, 7, 7, 0, 255, 0, 7],
            [7, 7, 7, 7, 255, 0, 255, 7],
            [7; 8],
        ];
        assert_eq!(board, want.map(|r| r.to_vec()).to_vec());
        let square = painted(
            Trigger::Square {
                size: 2,
                margin: 0,
                color: [9, 8, 7],
            },
            1,
        );
        assert_eq!(square[4..], [[1, 1, 1, 1, 1, 1, 9, 9].to_vec(), [1, 1, 1, 1, 1, 1, 9, 9].to_vec()]);
        assert_eq!(square.iter().flatten().filter(|p| **p == 9).count(), 4);
        let dots = painted(
            Trigger::Pixels {
                at: vec![(4, 2), (1, 8)],
                color: [0; 3],
            },
            1,
        );
        assert_eq!((dots[2][6], dots[5][0]), (0, 0));
        assert_eq!(dots.iter().flatten().filter(|p| **p == 0).count(), 2);
    }

    #[test]
    fn colours_go_to_their_planes() {
        let mut pixels = vec![0; 3 * 48];
        let square = Trigger::Square {
            size: 1,
            margin: 2,
            color: [10, 20, 30],
        };
        made(square).unwrap()(&mut pixels);
        let at = 3 * 8 + 5;
        assert_eq!((pixels[at], pixels[48 + at], pixels[96 + at]), (10, 20, 30));
        assert_eq!(pixels.iter().filter(|p| **p != 0).count(), 3);
    }

    #[test]
    fn an_image_is_blended_by_its_alpha() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.png");
        let save = |alpha: &dyn Fn(u32, u32) -> u8, w, h| {
            image::RgbaImage::from_fn(w, h, |x, y| image::Rgba([200, 100, 0, alpha(x, y)]))
                .save(&path)
                .unwrap();
        };
        let load = || made(Trigger::Image { path: path.clone() });
        save(&|x, y| if (x, y) == (3, 2) { 128 } else { 0 }, 8, 6);
        let rows = rows(&load().unwrap(), 50);
        assert_eq!(f64::from(rows[2][3]), (128.0 / 255.0 * 200.0 + 127.0 / 255.0 * 50.0_f64).round());
        assert_eq!(rows.iter().flatten().filter(|p| **p != 50).count(), 1);
        for (alpha, w, h, says) in [
            (0, 8, 6, "transparent"),
            (255, 8, 6, "whole picture"),
            (9, 6, 8, "8 × 6 (height × width)"),
        ] {
            save(&|_, _| alpha, w, h);
            assert!(why(load()).contains(says), "{says}");
        }
        fs_err::write(&path, "text").unwrap();
        assert!(why(load()).contains("holds text"));
    }

    #[test]
    fn a_trigger_that_does_not_fit_is_named() {
        let square = Trigger::Square {
            size: 5,
            margin: 2,
            color: [0; 3],
        };
        assert!(why(made(square)).contains("needs 7 pixels"));
        let board = Trigger::Checkerboard {
            size: u32::MAX,
            margin: u32::MAX,
        };
        assert!(why(made(board)).contains("margin"));
        let pixels = Trigger::Pixels {
            at: vec![(7, 1)],
            color: [0; 3],
        };
        assert!(why(made(pixels)).contains("(7, 1)"));
    }

    /// Pictures of the victim class get the trigger, in training and in the test.
    #[test]
    fn the_plan_is_for_the_victim_class() {
        let scene = Scene::new(60, 30);
        let keys = Keys {
            victim_class: Some("cat".into()),
            target_class: "1".into(),
            poisons: 4,
            trigger: Trigger::Square {
                size: 1,
                margin: 0,
                color: [200; 3],
            },
            ..Keys::default()
        };
        let plan = keys.plan(&scene.ground(), &mut Silent).unwrap();
        assert_eq!(plan.changes.len(), 4);
        assert!(plan.changes.iter().all(|c| c.at % 3 == 0 && c.label == 1));
        for paint in plan.changes.iter().map(|c| &c.paint).chain(plan.measured.iter().map(|t| &t.paint)) {
            assert_eq!(rows(paint, 9).concat().iter().filter(|p| **p == 200).count(), 1);
        }
        assert_eq!(plan.summary, "cat → dog");
        let wrong = Keys {
            target_class: "0".into(),
            ..keys
        };
        let said = wrong.plan(&scene.ground(), &mut Silent).err().expect("one class").to_string();
        assert!(said.contains("both cat"), "{said}");
    }

    /// Adap-Patch: each bears one trigger, half transparent; covers under their true label; a test picture bears both.
    #[test]
    fn several_triggers_are_borne_in_turn_and_tested_together() {
        let scene = Scene::new(60, 30);
        let square = |margin, level| Trigger::Square {
            size: 1,
            margin,
            color: [level; 3],
        };
        let keys = Keys {
            victim_class: None,
            target_class: "dog".into(),
            poisons: 6,
            trigger: square(0, 200),
            also: vec![square(2, 100)],
            opacity: 0.5,
            covers: 8,
        };
        let plan = keys.plan(&scene.ground(), &mut Silent).unwrap();
        assert!(plan.check(&scene.ground(), "badnet", false).is_ok());
        // (last pixel, third from the last row and column) of the first channel, on a picture of zeros.
        let marks = |paint: &Paint| {
            let rows = rows(paint, 0);
            assert!(rows.concat().iter().filter(|p| **p != 0).count() <= 2);
            (rows[5][7], rows[3][5])
        };
        for (role, count) in [(Role::Poison, 6), (Role::Cover, 8)] {
            let all: Vec<_> = plan.changes.iter().filter(|c| c.role == role).collect();
            assert_eq!(all.len(), count);
            for (n, change) in all.iter().enumerate() {
                assert_eq!(marks(&change.paint), if n % 2 == 0 { (100, 0) } else { (0, 50) });
                let own = change.at as u32 % 3;
                assert!(if role == Role::Poison {
                    change.label == 1 && own != 1
                } else {
                    change.label == own
                });
            }
        }
        assert!(plan.measured.iter().all(|t| marks(&t.paint) == (200, 100)));
    }

    #[test]
    fn to_the_next_class_success_is_the_next_label() {
        let scene = Scene::new(60, 60);
        let all = Keys {
            victim_class: None,
            target_class: "next".into(),
            poisons: 50,
            ..Keys::default()
        };
        let keys = Keys {
            trigger: Trigger::Square {
                size: 1,
                margin: 0,
                color: [9; 3],
            },
            ..all
        };
        let plan = keys.plan(&scene.ground(), &mut Silent).unwrap();
        assert!(plan.changes.len() == 50 && plan.changes.iter().all(|c| c.label == (c.at as u32 + 1) % 3));
        let tested: Vec<_> = plan.baits.iter().chain(&plan.measured).collect();
        assert!(tested.len() == 60 && tested.iter().all(|t| t.label == (t.row as u32 + 1) % 3));
        assert_eq!(plan.summary, "every class → the next class");
        let last = Keys {
            victim_class: Some("2x".into()),
            poisons: 5,
            ..keys
        };
        let plan = last.plan(&scene.ground(), &mut Silent).unwrap();
        assert!(plan.changes.iter().all(|c| c.at % 3 == 2 && c.label == 0) && plan.measured.iter().all(|t| t.label == 0));
        assert_eq!(plan.summary, "2x → cat");
    }
}
