//! Witches' Brew (Geiping et al. 2021): poisons of the target class whose gradient is that of reading one picture as that class. Labels stay; the picture itself is not touched.

use super::matching::{Matching, Search};
use super::{Attack, Change, Draw, Ground, Paint, Plan, Role, Surrogate, Tested, untouched};
use crate::error::{Error, Result};
use crate::progress::Report;
use crate::train::augment::augment;
use delta_guard_contract::Augment;
use delta_guard_contract::method::attack::witches_brew::Keys;
use rand::RngExt;
use rand::seq::SliceRandom;
use std::rc::Rc;
use tch::{Kind, Tensor};

impl Attack for Keys {
    fn plan(&self, ground: &Ground<'_>, report: &mut dyn Report) -> Result<Plan> {
        let target = ground.class(&self.target_class, "target_class")?;
        let candidates = candidates(self, ground, target)?;
        let chosen = ground.some_of(target, self.poisons)?;
        let surrogates = ground.surrogates(self.surrogates, report)?;
        let row = match self.picture {
            Some(_) => candidates[0],
            None => readable(ground, &surrogates, candidates)?,
        };
        let brew = brew(self, ground, &surrogates, (row, target), &chosen, report)?;

        let (from, to) = (name(ground, ground.test_label(row)), name(ground, target));
        let poison = |(at, bytes)| Change {
            at,
            role: Role::Poison,
            label: target,
            paint: replaced(bytes),
        };
        // The one picture is submitted, and measured.
        let one = || {
            vec![Tested {
                row,
                label: target,
                paint: untouched(),
            }]
        };
        Ok(Plan {
            summary: format!("one picture of {from} → {to}"),
            changes: chosen.into_iter().zip(brew).map(poison).collect(),
            baits: one(),
            measured: one(),
            success: [
                "target success".into(),
                "target pictures".into(),
                format!("share of target pictures (one, of {from}) that are read as {to}"),
            ],
        })
    }
}

fn name<'a>(ground: &'a Ground<'_>, label: u32) -> &'a str {
    ground.classes()[label as usize].as_str()
}

/// Puts other pixels in the place of a picture's.
fn replaced(bytes: Rc<[u8]>) -> Paint {
    Rc::new(move |pixels| pixels.copy_from_slice(&bytes))
}

/// Rows that may be the target; not empty.
fn candidates(keys: &Keys, ground: &Ground<'_>, target: u32) -> Result<Vec<usize>> {
    let victim = keys.victim_class.as_ref().map(|class| ground.class(class, "victim_class")).transpose()?;
    if victim == Some(target) {
        let message = format!("attack.victim_class and attack.target_class are both {}", name(ground, target));
        return Err(Error::configuration(message, "choose two classes"));
    }
    let suits = |label: u32| label != target && victim.is_none_or(|victim| label == victim);
    let whose = victim.map_or("classes other than the target", |victim| name(ground, victim));
    let Some(picture) = keys.picture else {
        let rows: Vec<usize> = ground.test().iter().copied().filter(|&row| suits(ground.test_label(row))).collect();
        if rows.is_empty() {
            let message = format!("the test part has no picture of {whose}");
            return Err(Error::configuration(message, "take another attack.victim_class"));
        }
        return Ok(rows);
    };
    let row = picture as usize;
    if !ground.test().contains(&row) {
        let message = format!("attack.picture is {picture}, which is no picture of the test part");
        let [first, last] = [ground.test().first(), ground.test().last()].map(|row| row.copied().unwrap_or_default());
        return Err(Error::configuration(message, format!("its numbers are between {first} and {last}")));
    }
    if !suits(ground.test_label(row)) {
        let message = format!(
            "attack.picture {picture} is a picture of {}, not of {whose}",
            name(ground, ground.test_label(row))
        );
        return Err(Error::configuration(message, "take another attack.picture or attack.victim_class"));
    }
    Ok(vec![row])
}

/// The first of the candidates, in an order under the seed, that every network reads rightly: of another one success would say nothing.
fn readable(ground: &Ground<'_>, surrogates: &[Surrogate], mut rows: Vec<usize>) -> Result<usize> {
    rows.shuffle(&mut ground.rng(Draw::Baits));
    for &row in &rows {
        let picture = ground.ball(&[ground.test_pixels(row)], 0)?.centre;
        let reads = |surrogate: &Surrogate| {
            let logits = tch::no_grad(|| surrogate.logits(&picture))?;
            Ok(logits.f_argmax(1, false)?.f_int64_value(&[0])? == i64::from(ground.test_label(row)))
        };
        if surrogates
            .iter()
            .map(reads)
            .collect::<Result<Vec<bool>>>()?
            .into_iter()
            .all(|right| right)
        {
            return Ok(row);
        }
    }
    let message = format!("the attacker's networks read none of {} test pictures rightly", rows.len());
    Err(Error::configuration(
        message,
        "name a picture (attack.picture), or take a recipe of more epochs or more training pictures",
    ))
}

/// Bytes of the chosen pictures after the search.
fn brew(
    keys: &Keys,
    ground: &Ground<'_>,
    surrogates: &[Surrogate],
    (row, target): (usize, u32),
    chosen: &[usize],
    report: &mut dyn Report,
) -> Result<Vec<Rc<[u8]>>> {
    let device = ground.device();
    let label = |count: usize| -> Result<Tensor> { Ok(Tensor::f_full([count as i64], i64::from(target), (Kind::Int64, device))?) };
    let picture = ground.ball(&[ground.test_pixels(row)], 0)?.centre;
    let matching = Matching::towards(surrogates, &picture, &label(1)?)?;
    let pictures: Vec<_> = chosen.iter().map(|&at| ground.pixels(at)).collect();
    let ball = ground.ball(&pictures, keys.epsilon)?;
    let search = Search {
        ball: &ball,
        labels: &label(chosen.len())?,
        iterations: keys.iterations,
        lr: keys.lr,
        batch_size: keys.batch_size,
    };
    let seen_as: Augment = match &keys.augment {
        Some(augment) => augment.clone(),
        None => ground.victim()?.recipe.augment.clone(),
    };
    let mut rng = ground.rng(Draw::Search);
    let total = u64::from(keys.iterations) * u64::from(keys.restarts);
    let mut best: Option<(f64, Tensor)> = None;
    for restart in 0..keys.restarts {
        let start = ball.noisy(rng.random())?;
        let before = u64::from(restart) * u64::from(keys.iterations);
        let found = search.run(&matching, start, &mut |batch| augment(batch, &seen_as, &mut rng), &mut |done| {
            report.progress("brew", before + u64::from(done), total, "");
        })?;
        let found = ball.rounded(&found)?;
        let value = search.value(&matching, &found)?;
        if best.as_ref().is_none_or(|(lowest, _)| value < *lowest) {
            best = Some((value, found));
        }
    }
    let (_, best) = best.ok_or_else(|| Error::internal("a search without a start"))?;
    ball.bytes(&best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::tests::{on_drawn, small_victim};
    use crate::attack::{Workshop, plan};
    use crate::passes::gradients::Differentiated;
    use crate::passes::objective;
    use crate::progress::Silent;
    use delta_guard_contract::method::attack::Attack as Settings;
    use std::borrow::Cow;
    use std::path::Path;
    use tch::Device;

    fn keys() -> Keys {
        Keys {
            target_class: "star".into(),
            poisons: 3,
            epsilon: 9,
            iterations: 2,
            restarts: 2,
            batch_size: 2,
            ..Keys::default()
        }
    }

    fn on<T>(folder: &Path, seed: u64, then: impl FnOnce(&Ground<'_>) -> T) -> T {
        let victim = small_victim();
        let workshop = Workshop {
            out_dir: folder,
            victim: Some(&victim),
            device: Device::Cpu,
        };
        on_drawn(&workshop, seed, then)
    }

    fn planned(folder: &Path, seed: u64, keys: &Keys) -> Result<Plan> {
        on(folder, seed, |ground| plan(&Settings::WitchesBrew(keys.clone()), ground, &mut Silent))
    }

    /// Every poison's pixels.
    fn bytes(folder: &Path, seed: u64, plan: &Plan) -> Vec<Vec<u8>> {
        on(folder, seed, |ground| {
            let painted = |change: &Change| {
                let mut pixels = ground.pixels(change.at).into_owned();
                (change.paint)(&mut pixels);
                pixels
            };
            plan.changes.iter().map(painted).collect()
        })
    }

    #[test]
    fn poisons_keep_their_label_and_stay_within_epsilon() {
        let folder = tempfile::tempdir().unwrap();
        let made = planned(folder.path(), 3, &keys()).unwrap();
        let star = 8;
        assert_eq!(made.changes.len(), 3);
        on(folder.path(), 3, |ground| {
            for (change, bytes) in made.changes.iter().zip(bytes(folder.path(), 3, &made)) {
                assert_eq!((change.role, change.label, ground.labels()[change.at]), (Role::Poison, star, star));
                let far = bytes.iter().zip(ground.pixels(change.at).iter()).map(|(a, b)| a.abs_diff(*b)).max();
                assert_eq!(far, Some(9), "as far as is allowed, and no farther");
            }
            // One picture of another class, as it is, is submitted and measured.
            let [[bait], [measured]] = [&made.baits[..], &made.measured[..]] else {
                panic!("one picture")
            };
            assert_eq!((bait.row, bait.label, measured.label), (measured.row, star, star));
            assert_ne!(ground.test_label(bait.row), star);
            let mut pixels = vec![5; 8];
            (bait.paint)(&mut pixels);
            assert_eq!(pixels, [5; 8]);
            let read = ground.surrogates(1, &mut Silent).unwrap()[0].logits(&ground.ball(&[ground.test_pixels(bait.row)], 0).unwrap().centre);
            assert_eq!(read.unwrap().argmax(1, false).int64_value(&[0]), i64::from(ground.test_label(bait.row)));
        });
        assert!(
            made.summary.starts_with("one picture of ") && made.summary.ends_with(" → star"),
            "{}",
            made.summary
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let made = |seed, keys: &Keys| {
            let plan = planned(folder.path(), seed, keys).unwrap();
            (plan.baits[0].row, bytes(folder.path(), seed, &plan))
        };
        let (once, again) = (made(3, &keys()), made(3, &keys()));
        assert_eq!(once, again);
        assert_ne!(once.1, made(5, &keys()).1);
        let longer = Keys { iterations: 3, ..keys() };
        assert_ne!(once.1, made(3, &longer).1);
    }

    /// Loss of the target under the intended label after a small step of training on pictures under that label, from the attacker's network.
    fn after_a_step(ground: &Ground<'_>, pictures: &[Cow<'_, [u8]>], row: usize) -> f64 {
        const LENGTH: f64 = 0.02;
        let surrogate = ground.surrogates(1, &mut Silent).unwrap().remove(0);
        let loss = |pictures: &[Cow<'_, [u8]>]| {
            let labels = Tensor::full([pictures.len() as i64], 8, (Kind::Int64, Device::Cpu));
            objective::loss(&surrogate.logits(&ground.ball(pictures, 0).unwrap().centre).unwrap(), &labels).unwrap()
        };
        let weights = Differentiated::new(&surrogate.model, &surrogate.model.graph.last_layers(0));
        if !pictures.is_empty() {
            let gradient = weights.gradients(&loss(pictures), false).unwrap();
            let length = gradient
                .iter()
                .map(|g| g.square().sum(Kind::Double).double_value(&[]))
                .sum::<f64>()
                .sqrt();
            for (name, along) in weights.names().iter().zip(&gradient) {
                let _ = surrogate.model.weights.0[name].detach().f_sub_(&(along * (LENGTH / length))).unwrap();
            }
        }
        loss(&[ground.test_pixels(row)]).double_value(&[])
    }

    /// A network that has learnt its 40 pictures, so that others of a class are no lesson for it.
    #[test]
    fn a_step_of_training_on_the_poisons_teaches_the_misreading() {
        let folder = tempfile::tempdir().unwrap();
        let mut victim = small_victim();
        victim.model.width = 8;
        victim.recipe.epochs = 60;
        victim.recipe.augment.flip = false;
        victim.recipe.augment.shift = 0.0;
        let workshop = Workshop {
            out_dir: folder.path(),
            victim: Some(&victim),
            device: Device::Cpu,
        };
        let keys = Keys {
            epsilon: 32,
            iterations: 40,
            batch_size: 3,
            restarts: 1,
            ..keys()
        };
        on_drawn(&workshop, 3, |ground| {
            let made = plan(&Settings::WitchesBrew(keys), ground, &mut Silent).unwrap();
            let row = made.baits[0].row;
            let clean: Vec<_> = made.changes.iter().map(|change| ground.pixels(change.at)).collect();
            let mut poisons = clean.clone();
            made.changes
                .iter()
                .zip(&mut poisons)
                .for_each(|(change, pixels)| (change.paint)(pixels.to_mut()));
            // The best that a step of this length can do is along the target's own gradient.
            let target = [ground.test_pixels(row)];
            let [none, before, after, best] = [&clean[..0], &clean, &poisons, &target].map(|pictures| after_a_step(ground, pictures, row));
            let [before, after] = [before, after].map(|loss| (none - loss) / (none - best));
            println!("of what a step can teach: clean pictures {before}, poisons {after}");
            assert!(
                best < none && after > 0.5 && after > before + 0.1,
                "clean pictures {before}, poisons {after}"
            );
        });
    }

    #[test]
    fn without_a_step_it_is_the_better_one_of_the_random_starts() {
        let folder = tempfile::tempdir().unwrap();
        let kept = |restarts| {
            let keys = Keys {
                iterations: 0,
                restarts,
                ..keys()
            };
            let plan = planned(folder.path(), 3, &keys).unwrap();
            (
                bytes(folder.path(), 3, &plan),
                plan.changes.iter().map(|c| c.at).collect::<Vec<_>>(),
                plan.baits[0].row,
            )
        };
        let (_, chosen, row) = kept(1);
        on(folder.path(), 3, |ground| {
            let surrogates = ground.surrogates(1, &mut Silent).unwrap();
            let pictures: Vec<_> = chosen.iter().map(|&at| ground.pixels(at)).collect();
            let (ball, target) = (ground.ball(&pictures, 9).unwrap(), ground.ball(&[ground.test_pixels(row)], 0).unwrap());
            let matching = Matching::towards(&surrogates, &target.centre, &Tensor::from_slice(&[8i64])).unwrap();
            let labels = Tensor::from_slice(&[8i64; 3]);
            let search = Search {
                ball: &ball,
                labels: &labels,
                iterations: 0,
                lr: 0.1,
                batch_size: 2,
            };
            let mut rng = ground.rng(Draw::Search);
            let starts: Vec<Tensor> = (0..6).map(|_| ball.rounded(&ball.noisy(rng.random()).unwrap()).unwrap()).collect();
            let values: Vec<f64> = starts.iter().map(|start| search.value(&matching, start).unwrap()).collect();
            for restarts in [1, 2, 6] {
                let best = (0..restarts).min_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap();
                let by_hand: Vec<Vec<u8>> = ball.bytes(&starts[best]).unwrap().iter().map(|b| b.to_vec()).collect();
                assert_eq!(kept(restarts as u32).0, by_hand, "of {restarts}");
            }
        });
    }

    #[test]
    fn a_target_may_be_named_and_must_suit() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |keys: Keys| planned(folder.path(), 3, &keys).err().expect("refused").to_string();
        let named = Keys {
            picture: Some(6),
            iterations: 0,
            ..keys()
        };
        let made = planned(folder.path(), 3, &named).unwrap();
        assert_eq!((made.baits[0].row, made.summary.as_str()), (6, "one picture of ring → star"));
        // Test picture n is of class n % 10: 8 is a star, 6 a ring.
        for (picture, victim, says) in [
            (20, None, "is no picture of the test part"),
            (8, None, "is a picture of star"),
            (6, Some("disc"), "is a picture of ring, not of disc"),
        ] {
            let said = refused(Keys {
                picture: Some(picture),
                victim_class: victim.map(String::from),
                ..keys()
            });
            assert!(said.contains(says), "{said}");
        }
        let same = Keys {
            victim_class: Some("8".into()),
            ..keys()
        };
        assert!(refused(same).contains("are both star"));
        assert!(refused(Keys { poisons: 5, ..keys() }).contains("there are 4 training pictures of star"));
        let whole = Keys {
            poisons: 4,
            picture: Some(6),
            iterations: 0,
            ..keys()
        };
        assert_eq!(
            planned(folder.path(), 3, &whole).unwrap().changes.len(),
            4,
            "all of the class may be poisoned"
        );
    }
}
