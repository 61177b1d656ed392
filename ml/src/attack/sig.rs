//! SIG (Barni et al. 2019): x' = x + Δ·sin(2π·j·f/m), j the column (from 0), m the width, the same in every row and channel. Poisons are pictures of the target class, whose
//! labels stay; any other picture with the signal is to be read as it.

use super::{Attack, Backdoor, Bearers, Ground, Paint, Plan};
use crate::error::Result;
use crate::progress::Report;
use delta_guard_contract::method::attack::sig::Keys;
use std::f64::consts::TAU;
use std::rc::Rc;

impl Attack for Keys {
    fn plan(&self, ground: &Ground<'_>, _report: &mut dyn Report) -> Result<Plan> {
        let width = ground.size().1;
        // One class: there is no `next` whose pictures could bear the signal.
        ground.class(&self.target_class, "target_class")?;
        let backdoor = Backdoor::between(ground, self.victim_class.as_deref(), &self.target_class, self.poisons)?;
        Backdoor {
            bearers: Bearers::Target,
            training: signal(self.delta, self.frequency, width),
            test: signal(self.test_delta.unwrap_or(self.delta), self.frequency, width),
            ..backdoor
        }
        .plan(ground)
    }
}

/// Adds the signal to pictures of this width.
fn signal(delta: f64, frequency: f64, width: u32) -> Paint {
    let row: Vec<f64> = (0..width)
        .map(|column| delta * (TAU * f64::from(column) * frequency / f64::from(width)).sin())
        .collect();
    Rc::new(move |pixels| {
        for (pixel, added) in pixels.iter_mut().zip(row.iter().cycle()) {
            *pixel = (f64::from(*pixel) + added).round().clamp(0.0, 255.0) as u8;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Role;
    use crate::attack::tests::Scene;
    use crate::progress::Silent;

    fn painted(paint: &Paint, fill: u8) -> Vec<u8> {
        let mut pixels = vec![fill; 144];
        paint(&mut pixels);
        pixels
    }

    /// Closed form: two periods over 8 columns are sin(π·j/2) = 0, 1, 0, −1, …
    #[test]
    fn the_signal_is_a_sine_along_each_row() {
        let wave = |mid: u8, up: u8, down: u8| [mid, up, mid, down, mid, up, mid, down].repeat(18);
        assert_eq!(painted(&signal(20.0, 2.0, 8), 100), wave(100, 120, 80));
        assert_eq!(painted(&signal(20.0, 2.0, 8), 250), wave(250, 255, 230), "cut off at white");
        assert_eq!(painted(&signal(20.0, 2.0, 8), 5), wave(5, 25, 0), "and at black");
        // One period: 40·sin(π/4) = 28.28.
        assert_eq!(painted(&signal(40.0, 1.0, 8), 100)[..8], [100, 128, 140, 128, 100, 72, 60, 72]);
    }

    #[test]
    fn labels_stay_and_the_others_are_tested() {
        let scene = Scene::new(60, 60);
        let keys = Keys {
            target_class: "dog".into(),
            poisons: 20,
            frequency: 2.0,
            test_delta: Some(40.0),
            ..Keys::default()
        };
        let plan = keys.plan(&scene.ground(), &mut Silent).unwrap();
        // Every picture of the target may be a poison.
        assert_eq!(plan.changes.len(), 20);
        for change in &plan.changes {
            assert_eq!((change.at % 3, change.label, change.role), (1, 1, Role::Poison));
            assert_eq!(painted(&change.paint, 100)[..4], [100, 120, 100, 80]);
        }
        let tested: Vec<_> = plan.baits.iter().chain(&plan.measured).collect();
        assert!(tested.len() == 40 && tested.iter().all(|t| t.row % 3 != 1 && t.label == 1));
        assert_eq!(painted(&tested[0].paint, 100)[..4], [100, 140, 100, 60]);
        assert_eq!(plan.summary, "other classes → dog");
        let cats = Keys {
            victim_class: Some("cat".into()),
            ..keys.clone()
        };
        let plan = cats.plan(&scene.ground(), &mut Silent).unwrap();
        assert!(plan.changes.iter().all(|c| c.at % 3 == 1) && plan.measured.iter().all(|t| t.row % 3 == 0));
        let next = Keys {
            target_class: "next".into(),
            ..keys.clone()
        };
        let said = next.plan(&scene.ground(), &mut Silent).err().expect("refused").to_string();
        assert!(said.contains("there is no class next"), "{said}");
        let many = Keys { poisons: 21, ..keys };
        let said = many.plan(&scene.ground(), &mut Silent).err().expect("refused").to_string();
        assert!(said.contains("there are 20 training pictures of dog"), "{said}");
    }
}
