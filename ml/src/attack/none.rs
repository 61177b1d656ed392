//! No attack: the training set stays as it is. What is submitted is what the model misreads by itself.

use super::misread::{success, under_other_labels};
use super::{Attack, Draw, Ground, Plan};
use crate::error::{Error, Result};
use crate::progress::Report;
use delta_guard_contract::method::attack::none::Keys;

impl Attack for Keys {
    fn changes_nothing(&self) -> bool {
        true
    }

    fn plan(&self, ground: &Ground<'_>, _report: &mut dyn Report) -> Result<Plan> {
        let (classes, pictures) = (ground.classes().len(), ground.test().len());
        if classes < 2 || pictures < 2 {
            return Err(Error::configuration(
                format!("of {classes} classes and {pictures} test pictures none can be misread and another measured"),
                "take data of two classes or more, with test pictures",
            ));
        }
        let (baits, measured) = under_other_labels(ground, ground.test().to_vec(), &mut ground.rng(Draw::Labels));
        Ok(Plan {
            summary: "nothing changed".into(),
            changes: Vec::new(),
            baits,
            measured,
            success: success(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::attack::tests::Scene;
    use crate::attack::{Settings, plan};
    use crate::progress::Silent;
    use delta_guard_contract::method::Method;

    #[test]
    fn nothing_is_changed_and_any_misreading_is_an_anomaly() {
        let (scene, none) = (Scene::new(60, 60), Settings::named("none").unwrap());
        let made = plan(&none, &scene.ground(), &mut Silent).unwrap();
        assert!(made.changes.is_empty());
        // Ten baits under both other labels, the rest measured once under one of them: of the three classes in turn the label is never the picture's own.
        assert_eq!((made.baits.len(), made.measured.len()), (20, 50));
        assert!(
            made.baits
                .iter()
                .chain(&made.measured)
                .all(|t| t.label < 3 && t.label != t.row as u32 % 3)
        );
        let labels = |row: usize| -> Vec<u32> { made.baits.iter().filter(|t| t.row == row).map(|t| t.label).collect() };
        assert!(made.baits.iter().all(|t| labels(t.row).len() == 2));
        assert!((0..3).all(|label| made.measured.iter().any(|t| t.label == label)));
        let mut pixels = vec![7; 3 * 48];
        made.baits.iter().chain(&made.measured).for_each(|t| (t.paint)(&mut pixels));
        assert!(pixels.iter().all(|pixel| *pixel == 7));
        let said = plan(&none, &Scene::new(60, 1).ground(), &mut Silent).err().expect("refused").to_string();
        assert!(said.contains("1 test pictures"), "{said}");
    }
}
