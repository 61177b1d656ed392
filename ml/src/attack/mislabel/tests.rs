use super::*;
use crate::attack::tests::Scene;
use crate::progress::Silent;

fn keys(kind: Errors, poisons: u32, likeness: Likeness) -> Keys {
    Keys {
        kind,
        poisons,
        likeness,
        target_class: "dog".into(),
        victim_class: Some("cat".into()),
    }
}

fn at(plan: &Plan) -> Vec<usize> {
    plan.changes.iter().map(|c| c.at).collect()
}

/// Nobody's pixels are changed.
fn unchanged(plan: &Plan) -> bool {
    let paints = plan.changes.iter().map(|c| &c.paint);
    let same = |paint: &crate::attack::Paint| {
        let mut pixels: Vec<u8> = (0..144).collect();
        paint(&mut pixels);
        pixels == (0..144).collect::<Vec<u8>>()
    };
    paints.chain(plan.baits.iter().chain(&plan.measured).map(|t| &t.paint)).all(same)
}

/// In this scene a picture is its number in every pixel, so what is near is known.
#[test]
fn a_group_is_what_is_nearest_to_one_and_so_are_its_test_pictures() {
    let scene = Scene::new(60, 90);
    for (seed, likeness) in [(1, Likeness::Color), (2, Likeness::Brightness), (3, Likeness::Layout)] {
        let plan = keys(Errors::Group, 5, likeness).plan(&scene.seeded(seed), &mut Silent).unwrap();
        assert!(plan.check(&scene.ground(), "mislabel", false).is_ok() && unchanged(&plan));
        let found = at(&plan);
        // Cats are every third; five neighbours around one are a run, unless the one is at an end.
        assert!(
            found.iter().all(|i| i % 3 == 0) && found.windows(2).all(|pair| pair[1] - pair[0] == 3),
            "{found:?}"
        );
        assert!(plan.changes.iter().all(|c| c.label == 1 && c.role == Role::Poison));
        let middle = (0..60).step_by(3).find(|like: &usize| {
            let mut all: Vec<usize> = (0..60).step_by(3).collect();
            all.sort_by_key(|i| (i.abs_diff(*like), *i));
            all.truncate(5);
            let radius = all.iter().map(|i| i.abs_diff(*like)).max().unwrap();
            all.sort_unstable();
            let rows: Vec<usize> = (0..90).step_by(3).filter(|row: &usize| row.abs_diff(*like) <= radius).collect();
            let mut tested: Vec<usize> = plan.baits.iter().chain(&plan.measured).map(|t| t.row).collect();
            tested.sort_unstable();
            all == found && rows == tested
        });
        assert!(middle.is_some(), "{found:?} are not the nearest of any");
        assert!(plan.baits.iter().chain(&plan.measured).all(|t| t.label == 1));
        assert_eq!(plan.summary, "cat of a kind → dog");
    }
}

#[test]
fn the_group_follows_the_seed_and_without_a_class_any_but_the_target_is_its() {
    let scene = Scene::new(60, 90);
    let any = Keys {
        victim_class: None,
        ..keys(Errors::Group, 4, Likeness::Color)
    };
    let of = |seed| any.plan(&scene.seeded(seed), &mut Silent).unwrap();
    assert_eq!(at(&of(7)), at(&of(7)));
    let classes: std::collections::BTreeSet<usize> = (0..20)
        .map(|seed| {
            let plan = of(seed);
            assert!(at(&plan).iter().all(|i| i % 3 == plan.changes[0].at % 3), "one class");
            plan.changes[0].at % 3
        })
        .collect();
    assert_eq!(classes, [0, 2].into());
}

#[test]
fn figures_are_means_of_fields() {
    // Two pictures of 4 × 8: every pixel its own value.
    let pixels: Vec<u8> = (0..96).map(|i| (i * i * 31 % 251) as u8).collect();
    let mean = |channel: usize, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>| {
        let all: Vec<f64> = rows
            .flat_map(|r| {
                columns
                    .clone()
                    .map(move |c| f64::from(((channel * 32 + r * 8 + c) * (channel * 32 + r * 8 + c) * 31 % 251) as u8))
            })
            .collect();
        all.iter().sum::<f64>() / all.len() as f64
    };
    let channels: Vec<f64> = (0..3).map(|c| mean(c, 0..4, 0..8)).collect();
    assert_eq!(figures(&pixels, Likeness::Color, (4, 8)), channels);
    assert_eq!(figures(&pixels, Likeness::Brightness, (4, 8)), [channels.iter().sum::<f64>() / 3.0]);
    let layout = figures(&pixels, Likeness::Layout, (4, 8));
    let wanted: Vec<f64> = (0..48)
        .map(|i| (i / 16, i / 4 % 4, i % 4))
        .map(|(c, r, f)| mean(c, r..r + 1, 2 * f..2 * f + 2))
        .collect();
    assert_eq!(layout, wanted);
    let kind = Kind::around(&pixels, Likeness::Color, (4, 8));
    let other: Vec<u8> = pixels
        .iter()
        .enumerate()
        .map(|(i, p)| if i < 32 { p.saturating_add(1) } else { *p })
        .collect();
    assert!(kind.distance(&pixels).abs() < 1e-12 && (kind.distance(&other) - 1.0).abs() < 1e-9);
}

#[test]
fn uniform_labels_are_any_but_the_true_one_each_as_often() {
    let scene = Scene::new(600, 60);
    let all = Keys {
        victim_class: None,
        ..keys(Errors::Uniform, 500, Likeness::Color)
    };
    let plan = all.plan(&scene.ground(), &mut Silent).unwrap();
    assert!(plan.check(&scene.ground(), "mislabel", false).is_ok() && unchanged(&plan));
    let step = |own: usize, label: u32| (label + 3 - own as u32 % 3) % 3;
    let steps: Vec<u32> = plan.changes.iter().map(|c| step(c.at, c.label)).collect();
    let ones = steps.iter().filter(|s| **s == 1).count();
    // Binomial(500, ½): within four deviations of 11.2.
    assert!(steps.len() == 500 && !steps.contains(&0) && (205..=295).contains(&ones), "{ones}");
    // Every bait may be misread as any other class, and its two ways stand beside each other.
    assert_eq!(plan.baits.len(), 20);
    for ways in plan.baits.chunks(2) {
        assert_eq!(ways[0].row, ways[1].row);
        let mut steps = [0, 1].map(|i| step(ways[i].row, ways[i].label));
        steps.sort_unstable();
        assert_eq!(steps, [1, 2]);
    }
    assert!(plan.measured.len() == 50 && plan.measured.iter().all(|t| step(t.row, t.label) != 0));
    let again = all.plan(&scene.seeded(2), &mut Silent).unwrap();
    assert_ne!(at(&plan), at(&again));
    let cats = keys(Errors::Uniform, 20, Likeness::Color).plan(&scene.ground(), &mut Silent).unwrap();
    assert!(at(&cats).iter().all(|i| i % 3 == 0));
    assert_eq!(
        (cats.summary.as_str(), plan.summary.as_str()),
        ("labels of cat drawn anew", "labels of any class drawn anew")
    );
}

#[test]
fn what_the_data_do_not_allow_is_refused() {
    let refused = |keys: Keys, scene: Scene| keys.plan(&scene.ground(), &mut Silent).err().expect("refused").to_string();
    let said = refused(keys(Errors::Group, 20, Likeness::Color), Scene::new(60, 60));
    assert!(said.contains("there are 20 training pictures of cat"), "{said}");
    let both = Keys {
        target_class: "0".into(),
        ..keys(Errors::Group, 2, Likeness::Color)
    };
    assert!(refused(both, Scene::new(60, 60)).contains("both cat"));
    let said = refused(keys(Errors::Group, 2, Likeness::Color), Scene::new(60, 1));
    assert!(said.contains("pictures of cat like the group"), "{said}");
    let said = refused(keys(Errors::Uniform, 20, Likeness::Color), Scene::new(60, 60));
    assert!(said.contains("there are 20 training pictures of cat"), "{said}");
}
