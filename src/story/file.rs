//! Story files: data, attack, victim, and how the guard is to find and repair it.

use crate::policy::GateLimits;
use anyhow::{Context, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use delta_guard_contract::config::{UnlearnConfig, UnlearnMethod};
use delta_guard_contract::detect::DetectMode;
use delta_guard_contract::job::{StoryConfig, Trigger};
use delta_guard_contract::{DetectConfig, Recipe, Stem};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The demo's own story.
pub const DEMO: &str = include_str!("../../config/evaluate/demo.yaml");
/// The demo's story with the paper's augmentation.
pub const AUGMENTED: &str = include_str!("../../config/evaluate/demo-paper-augment.yaml");
/// The story of the CIFAR-10 subset.
pub const CIFAR10: &str = include_str!("../../config/evaluate/cifar10.yaml");

/// A story file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoryFile {
    /// Data and attack.
    pub story: StoryConfig,
    /// The victim's network.
    pub model: StoryModel,
    /// How the victim is trained.
    #[serde(default)]
    pub recipe: Recipe,
    /// How its poisons are found.
    #[serde(default)]
    pub detect: DetectConfig,
    /// How it is repaired.
    #[serde(default)]
    pub unlearn: UnlearnConfig,
    /// What the repaired model must show.
    #[serde(default)]
    pub gate: GateLimits,
    /// What `evaluate` does.
    #[serde(default)]
    pub evaluate: Evaluate,
}

/// The victim's network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoryModel {
    /// As `model.architecture` of the guard's configuration.
    pub architecture: String,
    /// As `model.width`.
    pub width: u32,
    /// As `model.stem`.
    #[serde(default)]
    pub stem: Stem,
}

/// What `evaluate` does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluate {
    /// The story is told once for each.
    pub seeds: Vec<u64>,
    /// Clean pictures that the victim misreads, handed in as if they were anomalies: those read as the target class first.
    pub natural_errors: u32,
    /// Clean pictures that it reads correctly, handed in with the prediction check off: those of the target class first.
    pub placebos: u32,
    /// The paper's rule beside the guard, each mode with its own settings (`paper-code`, `paper-text`; empty: none).
    pub published: Vec<DetectMode>,
}

impl Default for Evaluate {
    fn default() -> Self {
        Self {
            seeds: vec![201, 202, 203],
            natural_errors: 20,
            placebos: 20,
            published: vec![DetectMode::PaperCode],
        }
    }
}

/// What the command line changes.
#[derive(Clone, Debug, Default, clap::Args, Serialize)]
pub struct Changes {
    /// Clean data: a CIFAR folder or archive, an image folder, a tar (default: the story's; for the demo the program draws its own)
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Seed of everything that is drawn
    #[arg(long)]
    pub seed: Option<u64>,
    /// How the model is repaired
    #[arg(long, value_parser = method())]
    pub unlearn: Option<UnlearnMethod>,
    /// Class whose pictures get the trigger: name, or number in label order
    #[arg(long, value_name = "CLASS")]
    pub victim_class: Option<String>,
    /// Class that they are labelled as
    #[arg(long, value_name = "CLASS")]
    pub target_class: Option<String>,
    /// Number of poisoned training pictures
    #[arg(long)]
    pub poisons: Option<u32>,
    /// The trigger as JSON, as in a story file: '{"kind": "square", "size": 4, "margin": 1, "color": [255, 0, 255]}', or the path of a PNG with alpha channel
    #[arg(long, value_name = "JSON|PNG")]
    pub trigger: Option<String>,
    /// Training pictures to take or draw (0: all)
    #[arg(long)]
    pub train_examples: Option<u32>,
    /// Epochs of the victim's recipe
    #[arg(long)]
    pub epochs: Option<u32>,
}

/// Reads a method of repair by its name: the words are those of the enum.
pub fn method() -> impl TypedValueParser<Value = UnlearnMethod> {
    PossibleValuesParser::new(UnlearnMethod::ALL.map(UnlearnMethod::as_str)).try_map(|name| serde_json::from_value(name.into()))
}

impl StoryFile {
    /// Read a story file; relative paths start at its folder.
    ///
    /// # Errors
    /// With file and line.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = fs_err::read_to_string(path)?;
        let path = std::path::absolute(path)?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("/"))).with_context(|| format!("story file {}", path.display()))
    }

    /// Parse a story.
    ///
    /// # Errors
    /// With line and key.
    pub fn parse(text: &str, base: &Path) -> anyhow::Result<Self> {
        let mut story: Self = serde_yaml::from_str(crate::config::without_mark(text))?;
        if let Some(data) = &mut story.story.data {
            *data = base.join(&data);
        }
        if let Trigger::Image { path } = &mut story.story.attack.trigger {
            *path = base.join(&path);
        }
        Ok(story)
    }

    /// Apply what the command line says.
    ///
    /// # Errors
    /// A trigger that is none, a data path that is not there.
    pub fn change(&mut self, changes: &Changes) -> anyhow::Result<()> {
        let attack = &mut self.story.attack;
        if let Some(path) = &changes.data {
            let path = std::path::absolute(path)?;
            if !path.exists() {
                bail!("--data {}: there is no such file or folder", path.display());
            }
            self.story.data = Some(path);
        }
        if let Some(text) = &changes.trigger {
            attack.trigger = if text.trim_start().starts_with('{') {
                serde_json::from_str(text).context("--trigger: not a trigger")?
            } else {
                Trigger::Image {
                    path: std::path::absolute(text)?,
                }
            };
        }
        for (changed, class) in [
            (&changes.victim_class, &mut attack.victim_class),
            (&changes.target_class, &mut attack.target_class),
        ] {
            if let Some(name) = changed {
                class.clone_from(name);
            }
        }
        attack.poisons = changes.poisons.unwrap_or(attack.poisons);
        self.story.train_examples = changes.train_examples.unwrap_or(self.story.train_examples);
        self.recipe.epochs = changes.epochs.unwrap_or(self.recipe.epochs);
        if let Some(seed) = changes.seed {
            self.seeded(seed);
        }
        self.unlearn.method = changes.unlearn.unwrap_or(self.unlearn.method);
        Ok(())
    }

    /// The same story under another seed: of the data, the poisons, and the victim's training.
    pub fn seeded(&mut self, seed: u64) {
        self.story.seed = seed;
        self.recipe.seed = seed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stories_that_come_along_are_read_and_changed() {
        let demo = StoryFile::parse(DEMO, Path::new("/x")).unwrap();
        assert_eq!(demo.story.data, None);
        // The augmented story differs from the demo's in its augmentation and its seeds, which are the paper's and its own.
        let mut augmented = StoryFile::parse(AUGMENTED, Path::new("/x")).unwrap();
        let augment = std::mem::replace(&mut augmented.recipe.augment, demo.recipe.augment.clone());
        assert_eq!(augment, delta_guard_contract::Augment::default());
        let seeds = std::mem::replace(&mut augmented.evaluate.seeds, demo.evaluate.seeds.clone());
        assert!(seeds.len() >= 3 && seeds.iter().all(|seed| !demo.evaluate.seeds.contains(seed)));
        assert_eq!(augmented, demo);
        let mut cifar = StoryFile::parse(CIFAR10, Path::new("/x/y/z")).unwrap();
        assert_eq!(cifar.story.data.as_deref(), Some(Path::new("/x/y/z/../../data/cifar10")));
        let changes = Changes {
            seed: Some(9),
            unlearn: Some(UnlearnMethod::Cf),
            trigger: Some(r#"{"kind": "square", "size": 3, "margin": 0, "color": [1, 2, 3]}"#.into()),
            poisons: Some(7),
            ..Changes::default()
        };
        cifar.change(&changes).unwrap();
        assert_eq!((cifar.story.seed, cifar.recipe.seed, cifar.story.attack.poisons), (9, 9, 7));
        assert_eq!(cifar.unlearn.method, UnlearnMethod::Cf);
        assert_eq!(
            cifar.story.attack.trigger,
            Trigger::Square {
                size: 3,
                margin: 0,
                color: [1, 2, 3]
            }
        );
        let bad = Changes {
            trigger: Some("{\"kind\": \"hexagon\"}".into()),
            ..Changes::default()
        };
        assert!(format!("{:#}", cifar.change(&bad).unwrap_err()).contains("hexagon"));
        let error = StoryFile::parse(&DEMO.replace("poisons:", "poisson:"), Path::new("/")).unwrap_err();
        assert!(
            format!("{error:#}").contains("poisson") && format!("{error:#}").contains("line"),
            "{error:#}"
        );
    }
}
