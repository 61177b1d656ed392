//! Several attacks at once. Each plans on the training pictures that those before it left, under a seed of its own; the test pictures are the same for all.

use super::{Attack, Ground, Plan, of};
use crate::error::Result;
use crate::progress::Report;
use delta_guard_contract::method::Method;
use delta_guard_contract::method::attack::several::{Keys, SuccessOf};
use std::collections::BTreeSet;

/// Seeds of attacks in one story lie this far apart: no other story's seed is met.
const APART: u64 = 1 << 48;

impl Attack for Keys {
    fn plan(&self, ground: &Ground<'_>, report: &mut dyn Report) -> Result<Plan> {
        let mut taken = BTreeSet::new();
        let mut plans = Vec::new();
        for (n, settings) in (0..).zip(&self.attacks) {
            let left: Vec<usize> = (0..ground.labels().len()).filter(|at| !taken.contains(at)).collect();
            let mut plan = of(settings).plan(&ground.part(&left, ground.seed.wrapping_add(n * APART)), report)?;
            plan.changes.iter_mut().for_each(|change| change.at = left[change.at]);
            taken.extend(plan.changes.iter().map(|change| change.at));
            plans.push((settings.name(), plan));
        }
        let summary = plans
            .iter()
            .map(|(name, plan)| format!("{name} {}", plan.summary))
            .collect::<Vec<_>>()
            .join(", ");
        let measured = match self.measured {
            SuccessOf::All => plans.len(),
            SuccessOf::First => 1,
        };
        let sentence = plans
            .iter()
            .take(measured)
            .map(|(_, plan)| plan.success[2].clone())
            .collect::<Vec<_>>()
            .join("; ");
        let mut whole = Plan {
            summary,
            changes: Vec::new(),
            baits: Vec::new(),
            measured: Vec::new(),
            success: [String::new(), String::new(), sentence],
        };
        for (n, (_, plan)) in plans.into_iter().enumerate() {
            whole.changes.extend(plan.changes);
            if n < measured {
                let [name, pictures, _] = plan.success;
                (whole.success[0], whole.success[1]) = (name, pictures);
                whole.baits.extend(plan.baits);
                whole.measured.extend(plan.measured);
            }
        }
        whole.changes.sort_unstable_by_key(|change| change.at);
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::tests::Scene;
    use crate::progress::Silent;
    use serde_json::{Value, from_value, json};

    fn planned(value: Value) -> Plan {
        let keys: Keys = from_value(value).unwrap();
        let scene = Scene::new(90, 60);
        let plan = keys.plan(&scene.ground(), &mut Silent).unwrap();
        plan.check(&scene.ground(), "several", false).unwrap();
        plan
    }

    fn square(margin: u32, level: u8) -> Value {
        json!({"kind": "square", "size": 1, "margin": margin, "color": [level, level, level]})
    }

    /// Which of two marks a picture gets: (last pixel, third from the last row and column).
    fn marks(paint: &crate::attack::Paint) -> (u8, u8) {
        let mut pixels = vec![0; 144];
        paint(&mut pixels);
        (pixels[47], pixels[3 * 8 + 5])
    }

    #[test]
    fn attacks_share_no_picture_and_success_is_over_all() {
        let attack = |target: &str, trigger| json!({"victim_class": "cat", "target_class": target, "poisons": 14, "trigger": trigger});
        let attacks = json!([attack("dog", square(0, 200)), attack("2x", square(2, 100))]);
        let plan = planned(json!({ "attacks": attacks }));
        // 28 of the 30 cats: disjoint, or there would be fewer.
        assert_eq!(plan.changes.len(), 28);
        for (label, mark) in [(1, (200, 0)), (2, (0, 100))] {
            let own: Vec<_> = plan.changes.iter().filter(|c| c.label == label).collect();
            assert!(own.len() == 14 && own.iter().all(|c| c.at % 3 == 0 && marks(&c.paint) == mark));
            let tested: Vec<_> = plan.measured.iter().filter(|t| t.label == label).collect();
            assert!(tested.len() == 10 && tested.iter().all(|t| marks(&t.paint) == mark));
        }
        assert_eq!((plan.baits.len(), plan.summary.as_str()), (20, "badnet cat → dog, badnet cat → 2x"));
        assert!(plan.success[2].contains("read as dog; share") && plan.success[2].ends_with("read as 2x"));
        let first = planned(json!({"attacks": attacks, "measured": "first"}));
        assert_eq!(first.changes.len(), 28);
        assert!(first.baits.len() == 10 && first.measured.iter().chain(&first.baits).all(|t| t.label == 1));
    }

    #[test]
    fn each_has_a_seed_of_its_own_and_the_first_is_as_it_was_alone() {
        let blend = json!({"method": "blend", "target_class": "dog", "poisons": 10});
        let two = planned(json!({"attacks": [blend, blend]}));
        let painted = |paint: &crate::attack::Paint| {
            let mut pixels = vec![40; 144];
            paint(&mut pixels);
            pixels
        };
        let patterns: BTreeSet<Vec<u8>> = two.changes.iter().map(|c| painted(&c.paint)).collect();
        assert_eq!((two.changes.len(), patterns.len()), (20, 2));
        let scene = Scene::new(90, 60);
        let alone = of(&from_value(blend).unwrap()).plan(&scene.ground(), &mut Silent).unwrap();
        let pattern = painted(&alone.changes[0].paint);
        let own: Vec<usize> = two.changes.iter().filter(|c| painted(&c.paint) == pattern).map(|c| c.at).collect();
        assert_eq!(own, alone.changes.iter().map(|c| c.at).collect::<Vec<_>>());
    }

    #[test]
    fn what_one_cannot_have_is_told() {
        let keys: Keys = from_value(
            json!({"attacks": [{"victim_class": "cat", "target_class": "dog", "poisons": 20, "trigger": square(0, 1)},
            {"victim_class": "cat", "target_class": "dog", "poisons": 20, "trigger": square(1, 1)}]}),
        )
        .unwrap();
        let said = keys.plan(&Scene::new(90, 60).ground(), &mut Silent).err().expect("refused").to_string();
        assert!(said.contains("poisons is 20, but there are 10 training pictures of cat"), "{said}");
    }
}
