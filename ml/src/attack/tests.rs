use super::pool::Pool;
use super::*;
use crate::progress::Silent;
use delta_guard_contract::job::VictimConfig;
use delta_guard_contract::{ModelConfig, Recipe, Schedule, Stem};
use std::collections::BTreeSet;
use std::path::Path;

/// Pictures of 6 × 8 of three classes in turn; each pixel is the picture's number.
pub(super) struct Scene {
    classes: Vec<String>,
    train: Pool<'static>,
    test: Pool<'static>,
    workshop: Workshop<'static>,
}

fn pool(count: u32) -> Pool<'static> {
    Pool::flat((0..count).map(|i| i % 3).collect(), 3 * 48)
}

impl Scene {
    pub fn new(train: u32, test: u32) -> Self {
        Self {
            classes: ["cat", "dog", "2x"].map(String::from).to_vec(),
            train: pool(train),
            test: pool(test),
            workshop: Workshop::at(Path::new("/nowhere")),
        }
    }

    pub fn ground(&self) -> Ground<'_> {
        self.seeded(1)
    }

    pub fn seeded(&self, seed: u64) -> Ground<'_> {
        Ground {
            classes: &self.classes,
            size: (6, 8),
            form: None,
            seed,
            train: &self.train,
            rows: self.train.all(),
            labels: self.train.labels.clone(),
            test: &self.test,
            part: self.test.all(),
            workshop: &self.workshop,
        }
    }
}

/// On a ground of 40 drawn training pictures and 20 test pictures.
pub(super) fn on_drawn<T>(workshop: &Workshop<'_>, seed: u64, then: impl FnOnce(&Ground<'_>) -> T) -> T {
    let (train, test) = (Pool::drawn(seed, 0, 40), Pool::drawn(seed, 1, 20));
    then(&Ground {
        classes: &synth::CLASSES.map(String::from),
        size: (synth::SIDE, synth::SIDE),
        form: None,
        seed,
        train: &train,
        rows: train.all(),
        labels: train.labels.clone(),
        test: &test,
        part: test.all(),
        workshop,
    })
}

/// A small network that learns drawn pictures a little, within a second.
pub(super) fn small_victim() -> VictimConfig {
    VictimConfig {
        model: ModelConfig {
            architecture: "small-cnn".into(),
            width: 2,
            stem: Stem::Cifar,
            checkpoint: "/none".into(),
            prefix: None,
            min_tracked_share: 0.0,
        },
        recipe: Recipe {
            epochs: 2,
            batch_size: 16,
            schedule: Schedule::OneCycle { warmup: 0.3 },
            seed: 4,
            ..Recipe::default()
        },
    }
}

fn backdoor(victims: Victims, poisons: u32) -> Backdoor {
    Backdoor {
        training: Rc::new(|pixels| pixels[0] = 201),
        test: Rc::new(|pixels| pixels[0] = 202),
        ..Backdoor::new(victims, Aim::Class(1), poisons)
    }
}

/// First pixels of pictures that a plan changes.
fn painted(paint: &Paint) -> u8 {
    let mut pixels = vec![7; 3 * 48];
    paint(&mut pixels);
    pixels[0]
}

#[test]
fn a_backdoor_takes_its_victims_only_and_by_the_seed() {
    let scene = Scene::new(60, 60);
    for (victims, mine) in [(Victims::Class(0), &[0][..]), (Victims::Others, &[0, 2])] {
        let plan = |seed| backdoor(victims, 6).plan(&scene.seeded(seed)).unwrap();
        let at = |plan: &Plan| plan.changes.iter().map(|c| c.at).collect::<Vec<_>>();
        let (one, same, other) = (plan(1), plan(1), plan(2));
        assert_eq!(at(&one), at(&same));
        assert_ne!(at(&one), at(&other));
        assert!(one.check(&scene.ground(), "x", false).is_ok());
        assert_eq!(one.changes.len(), 6);
        for change in &one.changes {
            assert!(mine.contains(&(change.at as u32 % 3)), "{victims:?}");
            assert_eq!((change.label, change.role, painted(&change.paint)), (1, Role::Poison, 201));
        }
        // Baits and measured pictures: all test pictures of the victims, each once.
        let rows: Vec<usize> = one.baits.iter().chain(&one.measured).map(|t| t.row).collect();
        let distinct: BTreeSet<usize> = rows.iter().copied().collect();
        assert_eq!((one.baits.len(), rows.len(), distinct.len()), (10, 20 * mine.len(), 20 * mine.len()));
        assert!(rows.iter().all(|row| mine.contains(&(*row as u32 % 3))));
        assert!(one.baits.iter().chain(&one.measured).all(|t| t.label == 1 && painted(&t.paint) == 202));
        assert!(one.measured.is_sorted_by_key(|t| t.row));
    }
    assert_eq!(backdoor(Victims::Others, 6).plan(&scene.ground()).unwrap().summary, "other classes → dog");
    let [name, pictures, sentence] = backdoor(Victims::Class(0), 6).plan(&scene.ground()).unwrap().success;
    assert_eq!((name.as_str(), pictures.as_str()), ("poison success", "triggered pictures"));
    assert_eq!(sentence, "share of triggered pictures of cat that are read as dog");
}

/// Covers: any picture that is no poison, with the trigger, under its true label.
#[test]
fn covers_are_drawn_beside_the_poisons() {
    let scene = Scene::new(60, 60);
    let with = |covers| {
        let backdoor = Backdoor {
            covers,
            ..backdoor(Victims::Class(0), 6)
        };
        backdoor.plan(&scene.ground())
    };
    let at = |plan: &Plan, role| -> Vec<usize> { plan.changes.iter().filter(|c| c.role == role).map(|c| c.at).collect() };
    let (none, some, all) = (with(0).unwrap(), with(20).unwrap(), with(54).unwrap());
    assert!(some.check(&scene.ground(), "x", false).is_ok());
    // The poisons are the same whatever the covers.
    assert_eq!(at(&none, Role::Poison), at(&some, Role::Poison));
    let (poisons, covers) = (at(&some, Role::Poison), at(&some, Role::Cover));
    assert!(covers.len() == 20 && covers.iter().all(|c| !poisons.contains(c)));
    let classes: BTreeSet<usize> = covers.iter().map(|c| c % 3).collect();
    assert_eq!(classes.len(), 3);
    for cover in some.changes.iter().filter(|c| c.role == Role::Cover) {
        assert_eq!((cover.label, painted(&cover.paint)), (cover.at as u32 % 3, 201));
    }
    assert_eq!(all.changes.len(), 60);
    let said = with(55).err().expect("too many").to_string();
    assert!(said.contains("attack.covers is 55, but only 54 training pictures"), "{said}");
}

#[test]
fn a_backdoor_that_the_data_do_not_allow_is_refused() {
    let refused = |victims, poisons, scene: Scene| backdoor(victims, poisons).plan(&scene.ground()).err().expect("refused").to_string();
    assert!(refused(Victims::Class(1), 2, Scene::new(60, 60)).contains("are both dog"));
    let said = refused(Victims::Class(0), 20, Scene::new(60, 60));
    assert!(said.contains("there are 20 training pictures of cat"), "{said}");
    assert!(backdoor(Victims::Class(0), 19).plan(&Scene::new(60, 60).ground()).is_ok());
    let said = refused(Victims::Class(2), 2, Scene::new(60, 5));
    assert!(said.contains("the test part has 1 pictures of 2x"), "{said}");
}

#[test]
fn a_class_is_named_or_numbered() {
    let scene = Scene::new(3, 3);
    let ground = scene.ground();
    assert_eq!((ground.class("dog", "k").unwrap(), ground.class("0", "k").unwrap()), (1, 0));
    for unknown in ["cow", "3", "2y"] {
        let said = ground.class(unknown, "victim_class").unwrap_err().to_string();
        let named = format!("attack.victim_class: there is no class {unknown}");
        assert!(said.contains(&named) && said.contains("cat, dog, 2x"), "{said}");
    }
}

/// Rules on settings hold here too, whoever wrote the job.
#[test]
fn settings_that_break_a_rule_are_refused() {
    let scene = Scene::new(60, 60);
    let wrong: Settings = serde_json::from_value(serde_json::json!({"poisons": 0, "victim_class": "dog", "target_class": "dog"})).unwrap();
    let said = plan(&wrong, &scene.ground(), &mut Silent).err().expect("refused").to_string();
    assert!(
        said.contains("attack.target_class is dog") && said.contains("attack.poisons is 0"),
        "{said}"
    );
}

#[test]
fn a_plan_that_breaks_what_all_keep_to_is_a_defect() {
    let scene = Scene::new(60, 60);
    let ground = scene.ground();
    let broken = |change: &dyn Fn(&mut Plan)| {
        let mut plan = backdoor(Victims::Class(0), 3).plan(&ground).unwrap();
        change(&mut plan);
        let said = plan.check(&ground, "x", false).expect_err("a broken plan");
        assert_eq!(said.fault().kind, delta_guard_contract::FaultKind::Internal);
        said.to_string()
    };
    assert!(broken(&|plan| plan.changes.swap(0, 1)).contains("not in order"));
    assert!(broken(&|plan| plan.changes[1].at = plan.changes[0].at).contains("not in order"));
    assert!(broken(&|plan| plan.changes[2].at = 60).contains("that there is not"));
    assert!(broken(&|plan| plan.changes[0].label = 3).contains("that there is not"));
    assert!(broken(&|plan| plan.changes[0].role = Role::Cover).contains("a cover under another label"));
    let hidden = |plan: &mut Plan| {
        for change in &mut plan.changes {
            (change.role, change.label) = (Role::Cover, 0);
        }
    };
    assert!(broken(&hidden).contains("no poison"));
    assert!(broken(&|plan| plan.baits.clear()).contains("no picture"));
    assert!(broken(&|plan| plan.measured.clear()).contains("no picture"));
    assert!(broken(&|plan| plan.measured[0].row = 60).contains("a test picture"));
    assert!(broken(&|plan| plan.baits[0].label = 3).contains("a test picture"));
    let changed = backdoor(Victims::Class(0), 3).plan(&ground).unwrap();
    assert!(changed.check(&ground, "x", true).unwrap_err().to_string().contains("a change"));
}
