//! The story's data: take or draw a data set, attack it, and lay out what `demo` and `evaluate` need.
//!
//! In `out_dir`: `train/` (attacked; CIFAR batches where the source was CIFAR, else class folders of PNG files), `validation/` (clean, complete), `success/<label>/`
//! (test pictures as the attack changes them, under the label that counts as its success), `anomalies/` (pictures to be submitted), and `poisons.json` (the truth).
//! Everything follows from the settings and the source: the same again gives the same bytes.

mod lay;
mod moments;
mod writer;

use super::ground::{Draw, generator};
use super::pool::{Pool, balanced, split_off};
use super::surrogate::CLEAN;
use super::synth;
use crate::data::{DataSet, cifar_kind, has_test_part, peek_sizes};
use crate::error::{Error, Result};
use crate::progress::{Report, Silent};
use delta_guard_contract::job::{PrepareResult, StoryConfig, VictimConfig};
use delta_guard_contract::{DataFormat, DataSource, ImageConfig, Resize, Split};
use lay::Parts;
pub(super) use moments::Moments;
use std::path::{Path, PathBuf};
use tch::Device;
pub(super) use writer::SetWriter;

/// Drawn pictures where the settings say 0: (training, validation).
const DRAWN: (u32, u32) = (4000, 1000);
/// Unreadable pictures of a source are skipped up to this share.
const MAX_UNREADABLE: f64 = 0.01;
/// Largest side at which pictures of mixed sizes are taken (Imagenette's customary one).
const MIXED_SIDE: u32 = 160;
/// What this module writes, and may therefore remove.
const OURS: [&str; 5] = ["train", "validation", "success", "anomalies", CLEAN];
/// Written first: says that the folder is a story's.
const MARK: &str = "story.json";

/// Where a story's data are made, and by what means.
#[derive(Clone, Copy, Debug)]
pub struct Workshop<'a> {
    /// Folder of everything.
    pub out_dir: &'a Path,
    /// The network to be attacked and its recipe, where the job names them.
    pub victim: Option<&'a VictimConfig>,
    /// Where an attack computes.
    pub device: Device,
}

impl<'a> Workshop<'a> {
    /// A folder and a CPU: enough for attacks that compute nothing.
    pub fn at(out_dir: &'a Path) -> Self {
        Self {
            out_dir,
            victim: None,
            device: Device::Cpu,
        }
    }
}

/// Make the story's data in `out_dir` (made if missing; an earlier story there is replaced, anything else is an error).
///
/// The source is `story.data` (its training and test parts; where it has no test part, a seeded fifth of each class is split off) or, where that is unset, drawn. Of both parts a
/// seeded, class-balanced choice is taken. Pictures of one size are taken as they are; of mixed sizes their centre, at the smallest side seen among the first hundred, at most 160.
///
/// # Errors
/// `Configuration` for settings that the data do not allow, `Resource` for a full disk.
pub fn prepare(story: &StoryConfig, workshop: &Workshop<'_>, report: &mut dyn Report) -> Result<PrepareResult> {
    let out_dir = workshop.out_dir;
    claim(story, out_dir)?;
    let Some(path) = &story.data else {
        let or = |n: u32, standard: u32| if n == 0 { standard } else { n };
        let train = Pool::drawn(story.seed, 0, or(story.train_examples, DRAWN.0));
        let test = Pool::drawn(story.seed, 1, or(story.validation_examples, DRAWN.1));
        let classes = synth::CLASSES.map(String::from);
        let parts = Parts {
            story,
            workshop,
            classes: &classes,
            size: (synth::SIDE, synth::SIDE),
            form: None,
            train: (&train, train.all()),
            test: (&test, test.all()),
            kept: test.all(),
        };
        return parts.lay(report);
    };
    // Only for the time of this job: what is kept is written anew.
    let cache = tempfile::Builder::new().prefix(".pixels-").tempdir_in(out_dir)?;
    let source = |split| DataSource {
        path: path.clone(),
        format: DataFormat::Auto,
        split,
        source: None,
    };
    let form = cifar_kind(&source(Split::Train))?;
    let size = size_of(&source(Split::Train), cache.path())?;
    let train = DataSet::open(&source(Split::Train), &size, MAX_UNREADABLE, cache.path(), None, report)?;
    let train_pool = Pool::of(&train);
    let parts = |test, kept, rows| Parts {
        story,
        workshop,
        classes: train.classes(),
        size: (size.height, size.width),
        form,
        train: (&train_pool, rows),
        test,
        kept,
    };
    let choose = |pool: &Pool, from: &[usize], purpose| {
        let (count, key) = match purpose {
            Draw::Training => (story.train_examples, "story.train_examples"),
            _ => (story.validation_examples, "story.validation_examples"),
        };
        balanced(&pool.labels, from, count, key, &mut generator(story.seed, purpose))
    };
    if has_test_part(path, DataFormat::Auto)? {
        let test = DataSet::open(&source(Split::Test), &size, MAX_UNREADABLE, cache.path(), Some(train.classes()), report)?;
        let test_pool = Pool::of(&test);
        let rows = choose(&train_pool, &train_pool.all(), Draw::Training)?;
        let kept = choose(&test_pool, &test_pool.all(), Draw::Validation)?;
        parts((&test_pool, test_pool.all()), kept, rows).lay(report)
    } else {
        let (rest, fifth) = split_off(&train_pool.labels, &mut generator(story.seed, Draw::TestPart));
        let rows = choose(&train_pool, &rest, Draw::Training)?;
        let kept = choose(&train_pool, &fifth, Draw::Validation)?;
        parts((&train_pool, fifth), kept, rows).lay(report)
    }
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

#[cfg(test)]
mod tests;
