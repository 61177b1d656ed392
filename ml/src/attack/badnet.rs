//! BadNet (Gu et al. 2017; algorithm §5): a small pattern on pictures of one class, which are labelled as another.

use super::Attack;
use crate::data::manifest::some;
use crate::data::picture::{DATA_LIMITS, decode_any};
use crate::error::{Error, Result};
use delta_guard_contract::job::{AttackConfig, Trigger};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// One pixel of a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dot {
    /// Row · width + column.
    at: usize,
    rgb: [u8; 3],
    /// 255: covers what is below.
    alpha: u8,
}

/// A trigger made for one picture size, and whom it is painted on.
#[derive(Clone, Debug)]
pub struct BadNet {
    victim: u32,
    target: u32,
    poisons: usize,
    area: usize,
    dots: Vec<Dot>,
}

/// Index of a class given by name or, where no class has that name, by number in label order. Errors: none such (`Configuration`, lists the classes).
pub fn class_index(classes: &[String], name: &str, key: &str) -> Result<u32> {
    let by_name = classes.iter().position(|c| c == name);
    let by_number = || name.parse::<usize>().ok().filter(|n| *n < classes.len());
    by_name.or_else(by_number).map(|i| i as u32).ok_or_else(|| {
        let known = if classes.len() <= 100 { classes.join(", ") } else { some(classes) };
        Error::configuration(format!("attack.{key}: there is no class {name}"), format!("the classes are {known}"))
    })
}

impl BadNet {
    /// The attack of a configuration, for pictures of `height` × `width`.
    ///
    /// Errors (`Configuration`): an unknown class, victim = target, no poisons, a trigger that is empty or larger than the picture, a trigger file that cannot be read.
    pub fn new(config: &AttackConfig, classes: &[String], height: u32, width: u32) -> Result<Self> {
        let victim = class_index(classes, &config.victim_class, "victim_class")?;
        let target = class_index(classes, &config.target_class, "target_class")?;
        if victim == target {
            let message = format!("attack.victim_class and attack.target_class are both {}", classes[victim as usize]);
            return Err(Error::configuration(message, "choose two classes"));
        }
        if config.poisons == 0 {
            return Err(Error::configuration(
                "attack.poisons is 0",
                "set it to the number of training pictures to poison",
            ));
        }
        let dots = dots(&config.trigger, height, width)?;
        Ok(Self {
            victim,
            target,
            poisons: config.poisons as usize,
            area: height as usize * width as usize,
            dots,
        })
    }

    /// Label whose pictures get the trigger.
    pub fn victim(&self) -> u32 {
        self.victim
    }

    /// Label that they are given.
    pub fn target(&self) -> u32 {
        self.target
    }
}

impl Attack for BadNet {
    fn name(&self) -> &'static str {
        "badnet"
    }

    fn choose(&self, labels: &[u32], rng: &mut ChaCha8Rng) -> Result<Vec<usize>> {
        let mut victims: Vec<usize> = labels.iter().enumerate().filter(|(_, l)| **l == self.victim).map(|(i, _)| i).collect();
        // One must stay: a training set in which nothing has the victim's label is another task.
        if self.poisons >= victims.len() {
            return Err(Error::configuration(
                format!(
                    "attack.poisons is {}, but the victim class has {} training pictures, of which at least one must stay",
                    self.poisons,
                    victims.len()
                ),
                "lower attack.poisons or take more training pictures",
            ));
        }
        victims.shuffle(rng);
        victims.truncate(self.poisons);
        victims.sort_unstable();
        Ok(victims)
    }

    fn apply(&self, pixels: &mut [u8], _label: u32) -> u32 {
        self.trigger(pixels);
        self.target
    }

    fn trigger(&self, pixels: &mut [u8]) {
        for dot in &self.dots {
            for (c, over) in dot.rgb.iter().enumerate() {
                if let Some(below) = pixels.get_mut(c * self.area + dot.at) {
                    let (a, o, b) = (u32::from(dot.alpha), u32::from(*over), u32::from(*below));
                    *below = ((a * o + (255 - a) * b + 127) / 255) as u8;
                }
            }
        }
    }
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
        if size == 0 {
            return Err(Error::configuration("attack.trigger.size is 0", "set it to at least 1"));
        }
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
            if at.is_empty() {
                return Err(Error::configuration("attack.trigger.at is empty", "name at least one pixel"));
            }
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
    use rand::SeedableRng;

    fn classes() -> Vec<String> {
        ["cat", "dog", "2x"].map(String::from).to_vec()
    }

    fn config(trigger: Trigger) -> AttackConfig {
        AttackConfig {
            victim_class: "cat".into(),
            target_class: "1".into(),
            poisons: 2,
            trigger,
        }
    }

    fn made(trigger: Trigger) -> Result<BadNet> {
        BadNet::new(&config(trigger), &classes(), 6, 8)
    }

    /// Painted picture as rows of the first channel, and a check that the others agree.
    fn painted(attack: &BadNet, fill: u8) -> Vec<Vec<u8>> {
        let mut pixels = vec![fill; 3 * 48];
        attack.trigger(&mut pixels);
        pixels[..48].chunks(8).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn checkerboard_square_and_pixels_lie_where_they_should() {
        let board = painted(&made(Trigger::Checkerboard { size: 3, margin: 1 }).unwrap(), 7);
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
            &made(Trigger::Square {
                size: 2,
                margin: 0,
                color: [9, 8, 7],
            })
            .unwrap(),
            1,
        );
        assert_eq!(square[4..], [[1, 1, 1, 1, 1, 1, 9, 9].to_vec(), [1, 1, 1, 1, 1, 1, 9, 9].to_vec()]);
        assert_eq!(square.iter().flatten().filter(|p| **p == 9).count(), 4);
        let dots = painted(
            &made(Trigger::Pixels {
                at: vec![(4, 2), (1, 8)],
                color: [0; 3],
            })
            .unwrap(),
            1,
        );
        assert_eq!((dots[2][6], dots[5][0]), (0, 0));
        assert_eq!(dots.iter().flatten().filter(|p| **p == 0).count(), 2);
    }

    #[test]
    fn colours_go_to_their_planes() {
        let mut pixels = vec![0; 3 * 48];
        let attack = made(Trigger::Square {
            size: 1,
            margin: 2,
            color: [10, 20, 30],
        })
        .unwrap();
        assert_eq!(attack.apply(&mut pixels, 0), 1);
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
        let rows = painted(&load().unwrap(), 50);
        assert_eq!(f64::from(rows[2][3]), (128.0 / 255.0 * 200.0 + 127.0 / 255.0 * 50.0_f64).round());
        assert_eq!(rows.iter().flatten().filter(|p| **p != 50).count(), 1);
        for (alpha, w, h, says) in [
            (0, 8, 6, "transparent"),
            (255, 8, 6, "whole picture"),
            (9, 6, 8, "8 × 6 (height × width)"),
        ] {
            save(&|_, _| alpha, w, h);
            assert!(load().unwrap_err().to_string().contains(says), "{says}");
        }
        fs_err::write(&path, "text").unwrap();
        assert!(load().unwrap_err().to_string().contains("holds text"));
    }

    #[test]
    fn mistakes_are_named() {
        let square = Trigger::Square {
            size: 2,
            margin: 0,
            color: [0; 3],
        };
        let fails = |change: &dyn Fn(&mut AttackConfig)| {
            let mut c = config(square.clone());
            change(&mut c);
            BadNet::new(&c, &classes(), 6, 8).unwrap_err().to_string()
        };
        let unknown = fails(&|c| c.victim_class = "cow".into());
        assert!(unknown.contains("no class cow") && unknown.contains("cat, dog, 2x"), "{unknown}");
        assert!(fails(&|c| c.target_class = "3".into()).contains("no class 3"));
        assert!(fails(&|c| c.target_class = "0".into()).contains("both cat"));
        assert!(fails(&|c| c.poisons = 0).contains("poisons is 0"));
        assert!(
            fails(&|c| c.trigger = Trigger::Square {
                size: 5,
                margin: 2,
                color: [0; 3]
            })
            .contains("needs 7 pixels")
        );
        assert!(
            fails(&|c| c.trigger = Trigger::Checkerboard {
                size: u32::MAX,
                margin: u32::MAX
            })
            .contains("margin")
        );
        assert!(
            fails(&|c| c.trigger = Trigger::Pixels {
                at: vec![(7, 1)],
                color: [0; 3]
            })
            .contains("(7, 1)")
        );
        assert!(
            fails(&|c| c.trigger = Trigger::Pixels {
                at: vec![(0, 1)],
                color: [0; 3]
            })
            .contains("starting at 1")
        );
    }

    #[test]
    fn chooses_victims_only_and_by_the_seed() {
        let attack = made(Trigger::Square {
            size: 2,
            margin: 0,
            color: [0; 3],
        })
        .unwrap();
        let labels: Vec<u32> = (0..60).map(|i| i % 3).collect();
        let choose = |seed| attack.choose(&labels, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
        assert_eq!(choose(1), choose(1));
        assert_ne!(choose(1), choose(2));
        assert!(choose(1).iter().all(|&i| labels[i] == 0) && choose(1).len() == 2);
        let error = attack.choose(&[0, 0, 1, 2], &mut ChaCha8Rng::seed_from_u64(0)).unwrap_err().to_string();
        assert!(error.contains("has 2 training pictures"), "{error}");
    }
}
