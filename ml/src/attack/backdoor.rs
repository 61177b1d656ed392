//! What backdoors have in common: a trigger on some pictures, which are labelled as the target; every victim picture with the trigger is to be read as it.

use super::{Change, Draw, Ground, Paint, Plan, Role, Tested};
use crate::error::{Error, Result};
use rand::seq::SliceRandom;

/// Whose pictures get the trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victims {
    /// Those of one class.
    Class(u32),
    /// Those of every class but the target.
    Others,
}

/// A backdoor.
pub struct Backdoor {
    /// Whose pictures.
    pub victims: Victims,
    /// What they are labelled as.
    pub target: u32,
    /// This many training pictures.
    pub poisons: u32,
    /// The trigger in training.
    pub training: Paint,
    /// The trigger on test pictures.
    pub test: Paint,
}

impl Backdoor {
    /// Its plan.
    ///
    /// # Errors
    /// `Configuration`: too few pictures of the victims, or victims that are the target.
    pub fn plan(self, ground: &Ground<'_>) -> Result<Plan> {
        let name = |label: u32| ground.classes()[label as usize].as_str();
        let target = name(self.target);
        if self.victims == Victims::Class(self.target) {
            let message = format!("attack.victim_class and attack.target_class are both {target}");
            return Err(Error::configuration(message, "choose two classes"));
        }
        let is_victim = |label: u32| match self.victims {
            Victims::Class(victim) => label == victim,
            Victims::Others => label != self.target,
        };
        let whose = match self.victims {
            Victims::Class(victim) => name(victim),
            Victims::Others => "other classes",
        };

        let mut victims: Vec<usize> = (0..ground.labels().len()).filter(|&i| is_victim(ground.labels()[i])).collect();
        // One must stay: a training set in which nothing has the victim's label is another task.
        if self.poisons as usize >= victims.len() {
            let message = format!(
                "attack.poisons is {}, but there are {} training pictures of {whose}, of which at least one must stay",
                self.poisons,
                victims.len()
            );
            return Err(Error::configuration(message, "lower attack.poisons or take more training pictures"));
        }
        victims.shuffle(&mut ground.rng(Draw::Poisons));
        victims.truncate(self.poisons as usize);
        victims.sort_unstable();

        let tested: Vec<usize> = ground.test().iter().copied().filter(|&row| is_victim(ground.test_label(row))).collect();
        if tested.len() < 2 {
            let message = format!(
                "the test part has {} pictures of {whose}; one is needed as anomaly and one to measure",
                tested.len()
            );
            return Err(Error::configuration(
                message,
                "take another attack.victim_class or more validation pictures",
            ));
        }
        let (baits, measured) = ground.set_aside(tested);
        let all = |rows: Vec<usize>| -> Vec<Tested> {
            let one = |row| Tested {
                row,
                label: self.target,
                paint: self.test.clone(),
            };
            rows.into_iter().map(one).collect()
        };
        let poison = |at| Change {
            at,
            role: Role::Poison,
            label: self.target,
            paint: self.training.clone(),
        };
        Ok(Plan {
            summary: format!("{whose} → {target}"),
            changes: victims.into_iter().map(poison).collect(),
            baits: all(baits),
            measured: all(measured),
            success: [
                "poison success".into(),
                "triggered pictures".into(),
                format!("share of triggered pictures of {whose} that are read as {target}"),
            ],
        })
    }
}
