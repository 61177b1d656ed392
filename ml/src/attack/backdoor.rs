//! What backdoors have in common: a trigger on some training pictures, so that every victim picture with the trigger is read as the target.

use super::{Change, Draw, Ground, Paint, Plan, Role, Tested, untouched};
use crate::error::{Error, Result};
use rand::seq::SliceRandom;

/// Whose pictures are to be misread with the trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victims {
    /// Those of one class.
    Class(u32),
    /// Those of every class but the target; of every class where each has its own target.
    Others,
}

/// What a picture with the trigger is to be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// One class.
    Class(u32),
    /// The class after its own; after the last one comes the first (all-to-all).
    Next,
}

/// Which training pictures bear the trigger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bearers {
    /// Those of the victims, under the target's label.
    #[default]
    Victims,
    /// Those of the target, whose label is right (clean label).
    Target,
}

/// A backdoor.
pub struct Backdoor {
    /// Whose pictures.
    pub victims: Victims,
    /// What they are to be read as.
    pub aim: Aim,
    /// Which training pictures are poisons.
    pub bearers: Bearers,
    /// This many.
    pub poisons: u32,
    /// This many others, of any class, bear the trigger under their true label.
    pub covers: u32,
    /// The trigger in training.
    pub training: Paint,
    /// The trigger on test pictures.
    pub test: Paint,
}

impl Backdoor {
    /// Poisons of the victims and no covers; the trigger is still to be said.
    pub fn new(victims: Victims, aim: Aim, poisons: u32) -> Self {
        Self {
            victims,
            aim,
            bearers: Bearers::Victims,
            poisons,
            covers: 0,
            training: untouched(),
            test: untouched(),
        }
    }

    /// The victims and the aim of settings that have these two keys; no class: the others, or every class. A class that is called `next` is meant before the next class.
    ///
    /// # Errors
    /// `Configuration`: no such class, or one class for both.
    pub fn between(ground: &Ground<'_>, victim_class: Option<&str>, target_class: &str, poisons: u32) -> Result<Self> {
        let aim = match target_class {
            "next" if !ground.classes().iter().any(|class| class == "next") => Aim::Next,
            class => Aim::Class(ground.class(class, "target_class")?),
        };
        let victims = match victim_class {
            Some(class) => Victims::Class(ground.class(class, "victim_class")?),
            None => Victims::Others,
        };
        Ok(Self::new(victims, aim, poisons))
    }

    /// Its plan.
    ///
    /// # Errors
    /// `Configuration`: too few pictures of the victims, or victims that are the target.
    pub fn plan(self, ground: &Ground<'_>) -> Result<Plan> {
        let words = Words::of(&self, ground)?;
        let poisons = self.poisoned(ground, &words)?;
        let covers = self.covered(ground, &poisons)?;
        let change = |role, at: usize| {
            let own = ground.labels()[at];
            Change {
                at,
                role,
                label: match (role, self.bearers) {
                    (Role::Poison, Bearers::Victims) => self.aim.of(own, ground),
                    _ => own,
                },
                paint: self.training.clone(),
            }
        };
        let poisons = poisons.into_iter().map(|at| change(Role::Poison, at));
        let mut changes: Vec<Change> = poisons.chain(covers.into_iter().map(|at| change(Role::Cover, at))).collect();
        changes.sort_unstable_by_key(|change| change.at);

        let is_victim = |&row: &usize| self.is_victim(ground.test_label(row));
        let tested: Vec<usize> = ground.test().iter().copied().filter(is_victim).collect();
        if tested.len() < 2 {
            let message = format!(
                "the test part has {} pictures of {}; one is needed as anomaly and one to measure",
                tested.len(),
                words.whose
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
                label: self.aim.of(ground.test_label(row), ground),
                paint: self.test.clone(),
            };
            rows.into_iter().map(one).collect()
        };
        Ok(Plan {
            summary: format!("{} → {}", words.whose, words.target),
            changes,
            baits: all(baits),
            measured: all(measured),
            success: [
                "poison success".into(),
                "triggered pictures".into(),
                format!("share of triggered pictures of {} that are read as {}", words.whose, words.target),
            ],
        })
    }

    fn is_victim(&self, label: u32) -> bool {
        match (self.victims, self.aim) {
            (Victims::Class(victim), _) => label == victim,
            (Victims::Others, Aim::Class(target)) => label != target,
            (Victims::Others, Aim::Next) => true,
        }
    }

    /// The poisons, ascending.
    fn poisoned(&self, ground: &Ground<'_>, words: &Words<'_>) -> Result<Vec<usize>> {
        let bears = |label: u32| match (self.bearers, self.aim) {
            (Bearers::Target, Aim::Class(target)) => label == target,
            _ => self.is_victim(label),
        };
        let mut bearers: Vec<usize> = (0..ground.labels().len()).filter(|&i| bears(ground.labels()[i])).collect();
        // Of relabelled classes one must stay: a training set in which nothing has the victim's label is another task.
        let (of, most, stays) = match self.bearers {
            Bearers::Victims => (words.whose, bearers.len().saturating_sub(1), ", of which at least one must stay"),
            Bearers::Target => (words.target, bearers.len(), ""),
        };
        if self.poisons as usize > most {
            let message = format!(
                "attack.poisons is {}, but there are {} training pictures of {of}{stays}",
                self.poisons,
                bearers.len()
            );
            return Err(Error::configuration(message, "lower attack.poisons or take more training pictures"));
        }
        bearers.shuffle(&mut ground.rng(Draw::Poisons));
        bearers.truncate(self.poisons as usize);
        bearers.sort_unstable();
        Ok(bearers)
    }

    /// The covers: any that are no poisons.
    fn covered(&self, ground: &Ground<'_>, poisons: &[usize]) -> Result<Vec<usize>> {
        if self.covers == 0 {
            return Ok(Vec::new());
        }
        let mut others: Vec<usize> = (0..ground.labels().len()).filter(|i| poisons.binary_search(i).is_err()).collect();
        if self.covers as usize > others.len() {
            let message = format!(
                "attack.covers is {}, but only {} training pictures are no poisons",
                self.covers,
                others.len()
            );
            return Err(Error::configuration(message, "lower attack.covers or take more training pictures"));
        }
        others.shuffle(&mut ground.rng(Draw::Covers));
        others.truncate(self.covers as usize);
        Ok(others)
    }
}

impl Aim {
    /// The target of a picture of this class.
    fn of(self, own: u32, ground: &Ground<'_>) -> u32 {
        match self {
            Self::Class(target) => target,
            Self::Next => (own + 1) % ground.classes().len() as u32,
        }
    }
}

/// Victims and target, in words.
struct Words<'a> {
    whose: &'a str,
    target: &'a str,
}

impl<'a> Words<'a> {
    fn of(attack: &Backdoor, ground: &'a Ground<'_>) -> Result<Self> {
        let name = |label: u32| ground.classes()[label as usize].as_str();
        let whose = match (attack.victims, attack.aim) {
            (Victims::Class(victim), _) => name(victim),
            (Victims::Others, Aim::Class(_)) => "other classes",
            (Victims::Others, Aim::Next) => "every class",
        };
        let target = match (attack.victims, attack.aim) {
            (_, Aim::Class(target)) => name(target),
            (Victims::Class(victim), Aim::Next) => name(Aim::Next.of(victim, ground)),
            (Victims::Others, Aim::Next) => "the next class",
        };
        if whose == target {
            let message = format!("attack.victim_class and attack.target_class are both {target}");
            return Err(Error::configuration(message, "choose two classes"));
        }
        Ok(Self { whose, target })
    }
}

/// What `paint` makes of a picture, laid over it with this opacity: x' = (1 − α)·x + α·paint(x), rounded to the nearest byte.
pub(super) fn faded(paint: Paint, alpha: f64) -> Paint {
    if alpha >= 1.0 {
        return paint;
    }
    std::rc::Rc::new(move |pixels| {
        let mut painted = pixels.to_vec();
        paint(&mut painted);
        for (pixel, above) in pixels.iter_mut().zip(painted) {
            let mixed = (1.0 - alpha) * f64::from(*pixel) + alpha * f64::from(above);
            *pixel = mixed.round().clamp(0.0, 255.0) as u8;
        }
    })
}
