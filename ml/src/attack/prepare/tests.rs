use super::*;
use crate::data::encode_png;
use delta_guard_contract::TrainId;
use delta_guard_contract::method::attack::Attack;
use delta_guard_contract::method::attack::badnet::{Keys, Trigger};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use tempfile::TempDir;

fn story(data: Option<PathBuf>) -> StoryConfig {
    StoryConfig {
        data,
        train_examples: 120,
        validation_examples: 60,
        attack: badnet("ring", "star", 5),
        seed: 7,
    }
}

fn badnet(victim: &str, target: &str, poisons: u32) -> Attack {
    Attack::Badnet(Keys {
        victim_class: Some(victim.into()),
        target_class: target.into(),
        poisons,
        trigger: Trigger::Checkerboard { size: 4, margin: 1 },
        ..Keys::default()
    })
}

/// The data of a story in a folder.
fn prepare(story: &StoryConfig, out: &Path, report: &mut dyn Report) -> Result<PrepareResult> {
    super::prepare(story, &Workshop::at(out), report)
}

fn open(source: &DataSource, image: &ImageConfig, cache: &Path, classes: Option<&[String]>) -> DataSet {
    DataSet::open(source, image, 0.0, cache, classes, &mut Silent).unwrap()
}

/// Where, as (row, column), two planar pictures differ in any channel.
fn differing(a: &[u8], b: &[u8], width: usize) -> BTreeSet<(usize, usize)> {
    let area = a.len() / 3;
    a.iter()
        .zip(b)
        .enumerate()
        .filter(|(_, (a, b))| a != b)
        .map(|(i, _)| (i % area / width, i % area % width))
        .collect()
}

fn board() -> BTreeSet<(usize, usize)> {
    (27..31).flat_map(|r| (27..31).map(move |c| (r, c))).collect()
}

fn has_board(pixels: &[u8]) -> bool {
    board()
        .iter()
        .all(|&(r, c)| (0..3).all(|k| pixels[k * 1024 + r * 32 + c] == if (r + c) % 2 == 0 { 255 } else { 0 }))
}

#[test]
fn drawn_data_is_poisoned_exactly_as_told() {
    let (out, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let story = story(None);
    let made = prepare(&story, out.path(), &mut Silent).unwrap();
    assert_eq!((made.attack.as_str(), made.poisons.len(), made.covers.len()), ("ring → star", 5, 0));
    let train = open(&made.train, &made.image, cache.path(), None);
    assert_eq!(train.classes(), made.classes);
    assert_eq!(train.len(), 120);
    let (ring, star) = (6, 8);
    assert_eq!(
        (train.by_label(ring).len(), train.by_label(star).len(), train.by_label(0).len()),
        (12 - 5, 12 + 5, 12)
    );
    // Every training picture is the drawn one of its number; poisons differ from it in the trigger's pixels only, and have the target label.
    let poisons: HashSet<&TrainId> = made.poisons.iter().collect();
    for (i, id) in train.ids().iter().enumerate() {
        let n: u32 = id.0.rsplit('/').next().unwrap().strip_suffix(".png").unwrap().parse().unwrap();
        let clean = synth::draw(story.seed, 0, n, n % 10);
        let different = differing(train.pixels(i), &clean, 32);
        if poisons.contains(id) {
            assert_eq!((train.labels()[i], n % 10), (star, ring));
            assert!(different.is_subset(&board()) && has_board(train.pixels(i)));
        } else {
            assert_eq!((train.labels()[i], different.len()), (n % 10, 0));
        }
    }
    let validation = open(&made.validation, &made.image, cache.path(), Some(train.classes()));
    assert_eq!((validation.len(), validation.by_label(ring).len()), (60, 6));
    for (i, id) in validation.ids().iter().enumerate() {
        let n: u32 = id.0.rsplit('/').next().unwrap().strip_suffix(".png").unwrap().parse().unwrap();
        assert_eq!(validation.pixels(i), synth::draw(story.seed, 1, n, n % 10), "validation stays clean");
    }
    // Six ring pictures: three to be submitted, three for the measure, all triggered, none twice.
    let triggered = open(&made.success.source, &made.image, cache.path(), Some(train.classes()));
    assert!(triggered.labels().iter().all(|l| *l == star), "the label that counts");
    assert!(made.anomalies.iter().all(|bait| bait.label == "star"));
    let mut seen = BTreeSet::new();
    let submitted: Vec<Vec<u8>> = made
        .anomalies
        .iter()
        .map(|bait| {
            let limits = delta_guard_contract::job::ImageLimits {
                max_bytes: 1 << 20,
                max_pixels: 1 << 20,
            };
            crate::data::decode_submission(&bait.picture, &limits, &made.image).unwrap()
        })
        .collect();
    assert_eq!((triggered.len(), submitted.len()), (3, 3));
    for pixels in submitted.iter().map(Vec::as_slice).chain((0..3).map(|i| triggered.pixels(i))) {
        assert!(has_board(pixels));
        let of = validation
            .by_label(ring)
            .into_iter()
            .find(|&v| differing(validation.pixels(v), pixels, 32).is_subset(&board()))
            .unwrap();
        assert!(seen.insert(of), "a picture is used twice");
    }
    let truth: serde_json::Value = serde_json::from_slice(&fs_err::read(out.path().join("poisons.json")).unwrap()).unwrap();
    assert_eq!((&truth["attack"], &truth["what"]), (&"badnet".into(), &"ring → star".into()));
    for (part, number) in [("success", 3), ("anomalies", 3), ("covers", 0)] {
        let all = truth[part].as_array().unwrap();
        assert!(all.len() == number && all.iter().all(|t| t["class"] == "ring"), "{part}: {all:?}");
    }
    let named: Vec<&str> = truth["poisons"].as_array().unwrap().iter().map(|p| p["id"].as_str().unwrap()).collect();
    assert_eq!(named, made.poisons.iter().map(|p| p.0.as_str()).collect::<Vec<_>>());
    assert!(
        !fs_err::read_dir(out.path())
            .unwrap()
            .any(|e| e.unwrap().file_name().to_string_lossy().starts_with(".pixels"))
    );
}

#[test]
fn figures_of_normalisation_are_those_of_the_clean_pictures() {
    let out = TempDir::new().unwrap();
    let story = story(None);
    let made = prepare(&story, out.path(), &mut Silent).unwrap();
    for c in 0..3 {
        let values: Vec<f64> = (0..120)
            .flat_map(|n| synth::draw(7, 0, n, n % 10)[c * 1024..(c + 1) * 1024].to_vec())
            .map(|p| f64::from(p) / 255.0)
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        assert!((made.image.mean[c] - mean).abs() < 6e-6 && (made.image.std[c] - std).abs() < 6e-6);
    }
}

/// Relative path → BLAKE3 of each file.
fn contents(root: &Path) -> BTreeMap<PathBuf, blake3::Hash> {
    let files = walkdir::WalkDir::new(root)
        .into_iter()
        .map(|e| e.unwrap())
        .filter(|e| e.file_type().is_file());
    files
        .map(|e| {
            (
                e.path().strip_prefix(root).unwrap().to_path_buf(),
                blake3::hash(&fs_err::read(e.path()).unwrap()),
            )
        })
        .collect()
}

#[test]
fn the_same_settings_give_the_same_bytes_and_replace_an_earlier_story() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    prepare(&story(None), a.path(), &mut Silent).unwrap();
    let other = StoryConfig {
        seed: 8,
        train_examples: 130,
        ..story(None)
    };
    prepare(&other, b.path(), &mut Silent).unwrap();
    assert_ne!(contents(a.path()), contents(b.path()));
    prepare(&story(None), b.path(), &mut Silent).unwrap();
    assert_eq!(contents(a.path()), contents(b.path()));
    let foreign = TempDir::new().unwrap();
    fs_err::create_dir(foreign.path().join("train")).unwrap();
    let error = prepare(&story(None), foreign.path(), &mut Silent).unwrap_err().to_string();
    assert!(error.contains("not made by an earlier story"), "{error}");
    assert!(foreign.path().join("train").exists());
}

/// What is prepared is what results were measured on, and what the golden set was recorded on: it may not change unnoticed.
#[test]
fn a_story_has_the_pictures_and_poisons_that_it_always_had() {
    let out = TempDir::new().unwrap();
    let made = prepare(&story(None), out.path(), &mut Silent).unwrap();
    let mut hasher = blake3::Hasher::new();
    for part in ["train", "validation", "anomalies", "success/star"] {
        for (path, digest) in contents(&out.path().join(part)) {
            hasher.update(path.to_str().unwrap().as_bytes());
            hasher.update(digest.as_bytes());
        }
    }
    made.poisons.iter().for_each(|id| {
        hasher.update(id.0.as_bytes());
    });
    assert_eq!(
        hasher.finalize().to_hex().as_str(),
        "37c5a35b6140b68b6854db073a3a2b3bdcfa030a3cbdb060750342650d84db09"
    );
}

/// CIFAR batches: `count` training and 40 test pictures, labels in turn; pixels tell which.
fn cifar(root: &Path, count: usize, with_test: bool) {
    let record = |n: usize| -> Vec<u8> {
        let mut out = vec![(n % 10) as u8];
        out.extend((0..3072).map(|i| if i < 2 { (n >> (8 * i)) as u8 } else { (i * 5 + n * 13) as u8 }));
        out
    };
    fs_err::create_dir_all(root).unwrap();
    fs_err::write(root.join("data_batch_1.bin"), (0..count).flat_map(record).collect::<Vec<u8>>()).unwrap();
    if with_test {
        fs_err::write(root.join("test_batch.bin"), (1000..1040).flat_map(record).collect::<Vec<u8>>()).unwrap();
    }
}

fn cifar_story(root: &Path) -> StoryConfig {
    let mut story = story(Some(root.to_path_buf()));
    story.attack = badnet("3", "5", 4);
    (story.train_examples, story.validation_examples) = (75, 20);
    story
}

#[test]
fn cifar_stays_cifar_and_is_chosen_evenly() {
    let (root, out, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    cifar(root.path(), 200, true);
    let made = prepare(&cifar_story(root.path()), out.path(), &mut Silent).unwrap();
    assert_eq!(made.train.format, DataFormat::Cifar10);
    let train = open(&made.train, &made.image, cache.path(), None);
    let source = open(
        &DataSource {
            path: root.path().into(),
            format: DataFormat::Auto,
            split: Split::Train,
            source: None,
        },
        &made.image,
        cache.path(),
        None,
    );
    assert_eq!((train.len(), made.poisons.len()), (75, 4));
    let truth: serde_json::Value = serde_json::from_slice(&fs_err::read(out.path().join("poisons.json")).unwrap()).unwrap();
    let mut before = [0; 10];
    for i in 0..train.len() {
        let poisoned = made.poisons.contains(&train.ids()[i]);
        if poisoned {
            let entry = truth["poisons"].as_array().unwrap().iter().find(|p| p["id"] == train.ids()[i].0).unwrap();
            let origin = source.position(&TrainId(entry["source"].as_str().unwrap().into())).unwrap();
            assert_eq!((train.labels()[i], source.labels()[origin]), (5, 3));
            assert!(differing(train.pixels(i), source.pixels(origin), 32).is_subset(&board()) && has_board(train.pixels(i)));
            before[3] += 1;
        } else {
            let same: Vec<usize> = (0..source.len())
                .filter(|&s| source.pixels(s) == train.pixels(i) && source.labels()[s] == train.labels()[i])
                .collect();
            assert!(!same.is_empty());
            before[train.labels()[i] as usize] += 1;
        }
    }
    assert!(before.iter().all(|n| (7..=8).contains(n)), "{before:?}");
    let validation = open(&made.validation, &made.image, cache.path(), Some(train.classes()));
    assert_eq!((validation.len(), validation.by_label(3).len()), (20, 2));
    // All four victim pictures of the test part are used, not only the two that validation took.
    let triggered = open(&made.success.source, &made.image, cache.path(), Some(train.classes()));
    assert_eq!((triggered.len(), made.anomalies.len()), (2, 2));
}

#[test]
fn without_a_test_part_a_fifth_is_split_off() {
    let (root, out, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    cifar(root.path(), 200, false);
    let all = StoryConfig {
        train_examples: 0,
        validation_examples: 0,
        ..cifar_story(root.path())
    };
    let made = prepare(&all, out.path(), &mut Silent).unwrap();
    let train = open(&made.train, &made.image, cache.path(), None);
    let validation = open(&made.validation, &made.image, cache.path(), Some(train.classes()));
    assert_eq!((train.len(), validation.len()), (160, 40));
    assert!((0..10).all(|c| validation.by_label(c).len() == 4));
    let of = |d: &DataSet| (0..d.len()).map(|i| d.pixels(i).to_vec()).collect::<HashSet<_>>();
    assert!(of(&train).is_disjoint(&of(&validation)));
    assert_eq!(made.anomalies.len(), 2);
}

#[test]
fn folders_of_mixed_sizes_are_brought_to_one() {
    let (root, out, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    for part in ["train", "val"] {
        for class in ["ring", "star"] {
            for n in 0..6u8 {
                let (h, w) = (40 + u32::from(n), 50 - u32::from(n));
                let pixels: Vec<u8> = (0..3 * h * w).map(|i| (i * 3 + u32::from(n) * 11) as u8).collect();
                let folder = root.path().join(part).join(class);
                fs_err::create_dir_all(&folder).unwrap();
                fs_err::write(folder.join(format!("{n}.png")), encode_png(&pixels, h, w, 1).unwrap()).unwrap();
            }
        }
    }
    let story = StoryConfig {
        train_examples: 0,
        validation_examples: 4,
        ..story(Some(root.path().into()))
    };
    let made = prepare(&story, out.path(), &mut Silent).unwrap();
    assert_eq!((made.image.height, made.image.width, made.image.resize), (40, 40, Resize::Refuse));
    let train = open(&made.train, &made.image, cache.path(), None);
    assert_eq!((train.len(), train.by_label(0).len()), (12, 1));
    assert_eq!(open(&made.validation, &made.image, cache.path(), Some(train.classes())).len(), 4);
    assert_eq!((made.anomalies.len(), made.success.source.format), (3, DataFormat::Folder));
}

#[test]
fn impossible_stories_are_refused() {
    let out = TempDir::new().unwrap();
    let fails = |change: fn(&mut StoryConfig)| {
        let mut story = story(None);
        change(&mut story);
        prepare(&story, out.path(), &mut Silent).unwrap_err().to_string()
    };
    assert!(fails(|s| s.attack = badnet("cow", "star", 5)).contains("bars, crescent"));
    assert!(fails(|s| s.attack = badnet("ring", "star", 12)).contains("12 training pictures"));
    assert!(fails(|s| s.validation_examples = 10).contains("1 pictures of ring"));
    assert!(fails(|s| s.data = Some("/nowhere/at/all".into())).contains("does not exist"));
    let root = TempDir::new().unwrap();
    cifar(root.path(), 20, true);
    let error = prepare(&cifar_story(root.path()), out.path(), &mut Silent).unwrap_err().to_string();
    assert!(error.contains("story.train_examples is 75, but there are only 20"), "{error}");
}
