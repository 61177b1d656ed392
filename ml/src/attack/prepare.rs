//! The story's data: take or draw a data set, poison it, and lay out what `demo` and `evaluate` need.
//!
//! In `out_dir`: `train/` (poisoned; CIFAR batches where the source was CIFAR, else class folders of PNG files), `validation/` (clean, complete), `triggered/<victim>/`
//! (victim-class test pictures with the trigger, for the measure of poison success), `anomalies/` (others of them, disjoint from `triggered/`, to be submitted), and
//! `poisons.json` (the truth). Everything follows from the settings and the source: the same again gives the same bytes.

mod moments;
mod writer;

use self::moments::Moments;
use self::writer::SetWriter;
use super::synth;
use super::{Attack, BadNet};
use crate::data::cifar::CifarKind;
use crate::data::{DataSet, cifar_kind, encode_png, has_test_part, peek_sizes};
use crate::error::{Error, Result};
use crate::progress::{Report, Silent};
use delta_guard_contract::job::{PrepareResult, StoryConfig};
use delta_guard_contract::{DataFormat, DataSource, ImageConfig, Orientation, Resize, Split, TrainId};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Pictures set aside as anomalies, where the victim class has twice as many.
const ANOMALIES: usize = 10;
/// Drawn pictures where the settings say 0: (training, validation).
const DRAWN: (u32, u32) = (4000, 1000);
/// Unreadable pictures of a source are skipped up to this share.
const MAX_UNREADABLE: f64 = 0.01;
/// Largest side at which pictures of mixed sizes are taken (Imagenette's customary one).
const MIXED_SIDE: u32 = 160;
/// What this module writes, and may therefore remove.
const OURS: [&str; 4] = ["train", "validation", "triggered", "anomalies"];
/// Written first: says that the folder is a story's.
const MARK: &str = "story.json";

/// One poisoned example.
#[derive(Debug, Serialize)]
struct Truth {
    id: TrainId,
    /// Its name in the source.
    source: String,
    /// Its true class.
    class: String,
}

/// `poisons.json`.
#[derive(Debug, Serialize)]
struct TruthFile<'a> {
    attack: &'a str,
    victim: &'a str,
    target: &'a str,
    seed: u64,
    poisons: Vec<Truth>,
}

/// Clean pictures to choose from.
struct Pool<'a> {
    labels: Vec<u32>,
    name: Box<dyn Fn(usize) -> String + 'a>,
    pixels: Box<dyn Fn(usize) -> Cow<'a, [u8]> + 'a>,
}

impl<'a> Pool<'a> {
    fn of(data: &'a DataSet) -> Self {
        Self {
            labels: data.labels().to_vec(),
            name: Box::new(|i| data.ids()[i].0.clone()),
            pixels: Box::new(|i| Cow::Borrowed(data.pixels(i))),
        }
    }

    fn drawn(seed: u64, part: u32, count: u32) -> Self {
        Self {
            labels: (0..count).map(|i| i % synth::CLASSES.len() as u32).collect(),
            name: Box::new(move |i| format!("drawn-{part}-{i}")),
            pixels: Box::new(move |i| Cow::Owned(synth::draw(seed, part, i as u32, i as u32 % synth::CLASSES.len() as u32))),
        }
    }
}

/// A generator for one purpose, so that a change in one choice leaves the others as they were.
fn generator(seed: u64, purpose: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Far from the streams of drawn pictures.
    rng.set_stream(u64::MAX - purpose);
    rng
}

/// Make the story's data in `out_dir` (made if missing; an earlier story there is replaced, anything else is an error).
///
/// The source is `story.data` (its training and test parts; where it has no test part, a seeded fifth of each class is split off) or, where that is unset, drawn. Of both parts a
/// seeded, class-balanced choice is taken. Pictures of one size are taken as they are; of mixed sizes their centre, at the smallest side seen among the first hundred, at most 160.
///
/// Errors: `Configuration` for settings that the data do not allow, `Resource` for a full disk.
pub fn prepare(story: &StoryConfig, out_dir: &Path, report: &mut dyn Report) -> Result<PrepareResult> {
    claim(story, out_dir)?;
    let Some(path) = &story.data else {
        let or = |n: u32, standard: u32| if n == 0 { standard } else { n };
        let train = Pool::drawn(story.seed, 0, or(story.train_examples, DRAWN.0));
        let test = Pool::drawn(story.seed, 1, or(story.validation_examples, DRAWN.1));
        let classes = synth::CLASSES.map(String::from);
        let all = |pool: &Pool| (0..pool.labels.len()).collect();
        let (rows, kept) = (all(&train), all(&test));
        return Story {
            story,
            out_dir,
            classes: &classes,
            size: (synth::SIDE, synth::SIDE),
            form: None,
        }
        .tell((&train, rows), (&test, kept), None, report);
    };
    // Only for the time of this job: what is kept is written anew.
    let cache = tempfile::Builder::new().prefix(".pixels-").tempdir_in(out_dir)?;
    let source = |split| DataSource {
        path: path.clone(),
        format: DataFormat::Auto,
        split,
    };
    let form = cifar_kind(&source(Split::Train))?;
    let size = size_of(&source(Split::Train), cache.path())?;
    let train = DataSet::open(&source(Split::Train), &size, MAX_UNREADABLE, cache.path(), None, report)?;
    let setting = Story {
        story,
        out_dir,
        classes: train.classes(),
        size: (size.height, size.width),
        form,
    };
    let counts = (story.train_examples, story.validation_examples);
    let train_pool = Pool::of(&train);
    if has_test_part(path, DataFormat::Auto)? {
        let test = DataSet::open(&source(Split::Test), &size, MAX_UNREADABLE, cache.path(), Some(train.classes()), report)?;
        let test_pool = Pool::of(&test);
        let rows = balanced(
            &train_pool.labels,
            &all(train.len()),
            counts.0,
            "story.train_examples",
            &mut generator(story.seed, 1),
        )?;
        let kept = balanced(
            &test_pool.labels,
            &all(test.len()),
            counts.1,
            "story.validation_examples",
            &mut generator(story.seed, 2),
        )?;
        setting.tell((&train_pool, rows), (&test_pool, kept), None, report)
    } else {
        let (rest, fifth) = split_off(&train_pool.labels, &mut generator(story.seed, 3));
        let rows = balanced(&train_pool.labels, &rest, counts.0, "story.train_examples", &mut generator(story.seed, 1))?;
        let kept = balanced(
            &train_pool.labels,
            &fifth,
            counts.1,
            "story.validation_examples",
            &mut generator(story.seed, 2),
        )?;
        setting.tell((&train_pool, rows), (&train_pool, kept), Some(&fifth), report)
    }
}

fn all(n: usize) -> Vec<usize> {
    (0..n).collect()
}

/// Make `out_dir` ours: mark it, and remove what an earlier story left.
fn claim(story: &StoryConfig, out_dir: &Path) -> Result<()> {
    fs_err::create_dir_all(out_dir)?;
    let mark = out_dir.join(MARK);
    let there: Vec<PathBuf> = OURS.iter().map(|f| out_dir.join(f)).filter(|f| f.symlink_metadata().is_ok()).collect();
    if let Some(first) = there.first()
        && !mark.exists()
    {
        let message = format!(
            "{} exists, and {} has no {MARK}: it was not made by an earlier story",
            first.display(),
            out_dir.display()
        );
        return Err(Error::configuration(message, "give another folder"));
    }
    there.iter().try_for_each(fs_err::remove_dir_all)?;
    let text = serde_json::to_vec_pretty(story).map_err(|e| Error::internal(e.to_string()))?;
    Ok(fs_err::write(mark, text)?)
}

/// The size at which a source is taken, and how it is got.
fn size_of(source: &DataSource, cache: &Path) -> Result<ImageConfig> {
    let sizes = peek_sizes(source, 100, cache, &mut Silent)?;
    let Some(&(width, height)) = sizes.first() else {
        return Err(Error::configuration(
            format!("{} has no readable picture", source.path.display()),
            "point story.data at pictures",
        ));
    };
    let one_size = sizes.iter().all(|s| *s == (width, height));
    if one_size && width <= 1024 && height <= 1024 {
        return Ok(ImageConfig {
            height,
            width,
            resize: Resize::Refuse,
            ..ImageConfig::default()
        });
    }
    let side = sizes.iter().map(|(w, h)| *w.min(h)).min().unwrap_or(MIXED_SIDE).min(MIXED_SIDE);
    Ok(ImageConfig {
        height: side,
        width: side,
        resize: Resize::CenterCrop,
        ..ImageConfig::default()
    })
}

/// `count` of `from` (0: all), as evenly over the labels as their numbers allow; ascending.
fn balanced(labels: &[u32], from: &[usize], count: u32, key: &str, rng: &mut ChaCha8Rng) -> Result<Vec<usize>> {
    let count = count as usize;
    if count > from.len() {
        let message = format!("{key} is {count}, but there are only {} pictures", from.len());
        return Err(Error::configuration(message, "lower it, or set it to 0: all"));
    }
    if count == 0 {
        return Ok(from.to_vec());
    }
    let classes = labels.iter().max().map_or(0, |l| *l as usize + 1);
    let mut by_label: Vec<Vec<usize>> = vec![Vec::new(); classes];
    from.iter().for_each(|&i| by_label[labels[i] as usize].push(i));
    by_label.iter_mut().for_each(|list| list.shuffle(rng));
    // Which classes get one more where the number does not divide: seeded, too.
    by_label.shuffle(rng);
    let rounds = by_label.iter().map(Vec::len).max().unwrap_or(0);
    let mut chosen: Vec<usize> = (0..rounds)
        .flat_map(|r| by_label.iter().filter_map(move |list| list.get(r).copied()))
        .take(count)
        .collect();
    chosen.sort_unstable();
    Ok(chosen)
}

/// Four fifths and one fifth of each class, both ascending.
fn split_off(labels: &[u32], rng: &mut ChaCha8Rng) -> (Vec<usize>, Vec<usize>) {
    let classes = labels.iter().max().map_or(0, |l| l + 1);
    let (mut rest, mut fifth) = (Vec::new(), Vec::new());
    for class in 0..classes {
        let mut own: Vec<usize> = labels.iter().enumerate().filter(|(_, l)| **l == class).map(|(i, _)| i).collect();
        own.shuffle(rng);
        let cut = own.len() / 5;
        fifth.extend(&own[..cut]);
        rest.extend(&own[cut..]);
    }
    rest.sort_unstable();
    fifth.sort_unstable();
    (rest, fifth)
}

struct Story<'a> {
    story: &'a StoryConfig,
    out_dir: &'a Path,
    classes: &'a [String],
    size: (u32, u32),
    form: Option<CifarKind>,
}

impl Story<'_> {
    /// Write everything. `test_rows`: the rows of the test pool that are its test part (None: all of it).
    fn tell(
        &self,
        (train, rows): (&Pool, Vec<usize>),
        (test, kept): (&Pool, Vec<usize>),
        test_rows: Option<&[usize]>,
        report: &mut dyn Report,
    ) -> Result<PrepareResult> {
        let (height, width) = self.size;
        if let Some(bad) = self
            .classes
            .iter()
            .find(|c| c.is_empty() || c.starts_with('.') || c.contains(['/', '\0']))
        {
            return Err(Error::configuration(
                format!("the class name {bad:?} cannot be a folder's name"),
                "rename the class",
            ));
        }
        let attack = BadNet::new(&self.story.attack, self.classes, height, width)?;
        let (victim, target) = (&self.classes[attack.victim() as usize], &self.classes[attack.target() as usize]);
        let labels: Vec<u32> = rows.iter().map(|&i| train.labels[i]).collect();
        let chosen = attack.choose(&labels, &mut generator(self.story.seed, 4))?;

        // Victim pictures of the test part: some to be submitted, the others for the measure.
        let part: Vec<usize> = test_rows.map_or_else(|| all(test.labels.len()), <[usize]>::to_vec);
        let mut victims: Vec<usize> = part.into_iter().filter(|&i| test.labels[i] == attack.victim()).collect();
        if victims.len() < 2 {
            let message = format!(
                "the test part has {} pictures of {victim}; one is needed as anomaly and one to measure",
                victims.len()
            );
            return Err(Error::configuration(
                message,
                "take another attack.victim_class or more validation pictures",
            ));
        }
        victims.shuffle(&mut generator(self.story.seed, 5));
        let mut measured = victims.split_off(ANOMALIES.min(victims.len() / 2));
        measured.sort_unstable();

        let total = (rows.len() + kept.len() + measured.len() + victims.len()) as u64;
        let mut done = 0;
        let mut step = |report: &mut dyn Report| {
            done += 1;
            if done % 100 == 0 || done == total {
                report.progress("prepare", done, total, "");
            }
        };

        let mut moments = Moments::default();
        let mut out = SetWriter::new(&self.out_dir.join("train"), self.form, false, self.classes, self.size)?;
        let mut truth = Vec::with_capacity(chosen.len());
        let mut poisons = chosen.iter().peekable();
        for (n, (&row, &label)) in rows.iter().zip(&labels).enumerate() {
            let mut pixels = (train.pixels)(row);
            moments.add(&pixels);
            if poisons.next_if(|p| **p == n).is_some() {
                let given = attack.apply(pixels.to_mut(), label);
                let id = out.push(&pixels, given)?;
                truth.push(Truth {
                    id,
                    source: (train.name)(row),
                    class: self.classes[label as usize].clone(),
                });
            } else {
                out.push(&pixels, label)?;
            }
            step(report);
        }
        let train_source = out.finish()?;

        let mut out = SetWriter::new(&self.out_dir.join("validation"), self.form, true, self.classes, self.size)?;
        for &row in &kept {
            out.push(&(test.pixels)(row), test.labels[row])?;
            step(report);
        }
        let validation = out.finish()?;

        let mut out = SetWriter::new(&self.out_dir.join("triggered"), None, true, self.classes, self.size)?;
        for &row in &measured {
            let mut pixels = (test.pixels)(row);
            attack.trigger(pixels.to_mut());
            out.push(&pixels, attack.victim())?;
            step(report);
        }
        let triggered = out.finish()?;

        let folder = self.out_dir.join("anomalies");
        fs_err::create_dir_all(&folder)?;
        let mut anomalies = Vec::with_capacity(victims.len());
        for (n, &row) in victims.iter().enumerate() {
            let mut pixels = (test.pixels)(row);
            attack.trigger(pixels.to_mut());
            let path = folder.join(format!("{n:03}.png"));
            fs_err::write(&path, encode_png(&pixels, height, width, 1)?)?;
            anomalies.push(path);
            step(report);
        }

        let poisons = truth.iter().map(|t| t.id.clone()).collect();
        let file = TruthFile {
            attack: attack.name(),
            victim,
            target,
            seed: self.story.seed,
            poisons: truth,
        };
        let text = serde_json::to_vec_pretty(&file).map_err(|e| Error::internal(e.to_string()))?;
        fs_err::write(self.out_dir.join("poisons.json"), text)?;
        let (mean, std) = moments.figures()?;
        let image = ImageConfig {
            height,
            width,
            resize: Resize::Refuse,
            orientation: Orientation::Ignore, // what is written has no EXIF
            mean,
            std,
        };
        let (victim, target) = (victim.clone(), target.clone());
        Ok(PrepareResult {
            train: train_source,
            validation,
            triggered,
            anomalies,
            poisons,
            image,
            classes: self.classes.to_vec(),
            victim,
            target,
        })
    }
}

#[cfg(test)]
mod tests;
