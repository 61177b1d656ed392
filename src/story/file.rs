//! Story files: data, attack, victim, and how the guard is to find and repair it.

use crate::policy::GateLimits;
use anyhow::{Context, anyhow, bail};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use delta_guard_contract::detect::Detector;
use delta_guard_contract::job::StoryConfig;
use delta_guard_contract::method::attack::Attack;
use delta_guard_contract::method::unlearn::{Unlearner, Unlearning};
use delta_guard_contract::method::{self, Method, Name};
use delta_guard_contract::{DetectConfig, ModelConfig, Recipe, Stem};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The demo's own story.
pub const DEMO: &str = include_str!("../../config/evaluate/demo.yaml");
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
    /// How it is repaired: by `method`; `evaluate` compares it with those that stand under `also`.
    #[serde(default)]
    pub unlearn: Unlearning,
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

impl StoryModel {
    /// The network with a checkpoint.
    pub fn with(&self, checkpoint: &Path) -> ModelConfig {
        ModelConfig {
            architecture: self.architecture.clone(),
            width: self.width,
            stem: self.stem,
            checkpoint: checkpoint.to_path_buf(),
            prefix: None,
            min_tracked_share: delta_guard_contract::verify::LEAST_TRACKED,
        }
    }
}

/// What `evaluate` does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluate {
    /// The story is told once for each.
    pub seeds: Vec<u64>,
    /// Clean pictures that the victim misreads, handed in as if they were anomalies: those read as the poisons' class first.
    pub natural_errors: u32,
    /// Clean pictures that it reads correctly, handed in with the prediction check off: those of the poisons' class first.
    pub placebos: u32,
    /// Detectors beside the guard's, by name, each with its own settings (`paper-code`, `paper-text`, …; empty: none).
    pub published: Vec<Name<Detector>>,
}

impl Default for Evaluate {
    fn default() -> Self {
        Self {
            seeds: vec![201, 202, 203],
            natural_errors: 20,
            placebos: 20,
            published: "paper-code".parse().into_iter().collect(),
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
    pub unlearn: Option<Name<Unlearner>>,
    /// The attack; keys that it shares with the story's keep their values
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Attack::NAMES))]
    pub attack: Option<String>,
    /// A key of the attack, its value as in a story file (may be given several times)
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Class whose pictures are attacked: name, or number in label order
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

/// Reads a method of repair by its name: the names, and what each does, are the registry's.
pub fn method() -> impl TypedValueParser<Value = Name<Unlearner>> {
    let values = Name::<Unlearner>::all().map(|name| PossibleValue::new(name.as_str()).help(name.method().own().about()));
    PossibleValuesParser::new(values).try_map(|name| name.parse::<Name<Unlearner>>())
}

impl Changes {
    /// The attack as the command line changes it.
    fn attack(&self, story: &Attack) -> anyhow::Result<Attack> {
        let mut attack = match &self.attack {
            Some(name) => method::other(story, name).map_err(|why| anyhow!("--attack: {why}"))?,
            None => story.clone(),
        };
        let trigger = self.trigger.as_deref().map(trigger).transpose()?;
        let flags = [
            ("--victim-class", "victim_class", self.victim_class.clone().map(Value::from)),
            ("--target-class", "target_class", self.target_class.clone().map(Value::from)),
            ("--poisons", "poisons", self.poisons.map(Value::from)),
            ("--trigger", "trigger", trigger),
        ];
        for (flag, key, value) in flags {
            if let Some(value) = value {
                attack = method::changed(&attack, key, value).map_err(|why| anyhow!("{flag}: {why}"))?;
            }
        }
        for setting in &self.set {
            attack = set(&attack, setting).map_err(|why| anyhow!("--set {setting}: {why}"))?;
        }
        for file in attack.files() {
            *file = std::path::absolute(&file)?;
        }
        Ok(attack)
    }
}

/// A trigger as JSON, or the PNG that is one.
fn trigger(text: &str) -> anyhow::Result<Value> {
    match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text).context("--trigger: not a trigger"),
        false => Ok(json!({"kind": "image", "path": text})),
    }
}

/// `key=value`. A value that reads as a number may be a class's name.
fn set(attack: &Attack, setting: &str) -> Result<Attack, String> {
    let (key, text) = setting.split_once('=').ok_or("write KEY=VALUE")?;
    let value = serde_yaml::from_str(text).unwrap_or_else(|_| Value::from(text));
    method::changed(attack, key, value).or_else(|why| method::changed(attack, key, text.into()).map_err(|_| why))
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
        let named = story.story.attack.files().into_iter().chain(story.detect.method.files());
        for file in named.chain(&mut story.recipe.init) {
            *file = base.join(&file);
        }
        Ok(story)
    }

    /// Apply what the command line says.
    ///
    /// # Errors
    /// A key that the attack does not have, a value that is none for it, a data path that is not there.
    pub fn change(&mut self, changes: &Changes) -> anyhow::Result<()> {
        if let Some(path) = &changes.data {
            let path = std::path::absolute(path)?;
            if !path.exists() {
                bail!("--data {}: there is no such file or folder", path.display());
            }
            self.story.data = Some(path);
        }
        self.story.attack = changes.attack(&self.story.attack)?;
        self.story.train_examples = changes.train_examples.unwrap_or(self.story.train_examples);
        self.recipe.epochs = changes.epochs.unwrap_or(self.recipe.epochs);
        if let Some(seed) = changes.seed {
            self.seeded(seed);
        }
        if let Some(name) = changes.unlearn {
            self.unlearn.choose(name);
        }
        Ok(())
    }

    /// Rules that do not hold: in sentences, and what to do about the first.
    pub fn mistakes(&self) -> Option<(String, String)> {
        let found = self.story.attack.check();
        let sentences: Vec<String> = found.iter().map(|mistake| mistake.sentence("story.attack")).collect();
        Some((sentences.join("; "), found.first()?.help.clone()))
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

    /// The demo's story with the paper's augmentation.
    const AUGMENTED: &str = include_str!("../../config/evaluate/demo-paper-augment.yaml");

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
            unlearn: Some("cf".parse().unwrap()),
            trigger: Some(r#"{"kind": "square", "size": 3, "margin": 0, "color": [1, 2, 3]}"#.into()),
            poisons: Some(7),
            ..Changes::default()
        };
        cifar.change(&changes).unwrap();
        assert_eq!((cifar.story.seed, cifar.recipe.seed), (9, 9));
        assert_eq!(cifar.unlearn.name().as_str(), "cf");
        let attack = json!({"method": "badnet", "victim_class": "ship", "target_class": "dog", "poisons": 7,
            "trigger": {"kind": "square", "size": 3, "margin": 0, "color": [1, 2, 3]}, "also": [], "opacity": 1.0, "covers": 0});
        assert_eq!(serde_json::to_value(&cifar.story.attack).unwrap(), attack);
        let error = StoryFile::parse(&DEMO.replace("poisons:", "poisson:"), Path::new("/")).unwrap_err();
        assert!(
            format!("{error:#}").contains("poisson") && format!("{error:#}").contains("line"),
            "{error:#}"
        );
    }

    /// The demo's attack after a command line's changes, or what is said.
    fn attacked(changes: Changes) -> Result<Value, String> {
        let mut demo = StoryFile::parse(DEMO, Path::new("/x")).unwrap();
        demo.change(&changes).map_err(|error| format!("{error:#}"))?;
        Ok(serde_json::to_value(&demo.story.attack).unwrap())
    }

    #[test]
    fn keys_of_the_attack_are_set_by_name() {
        let set = |settings: &[&str]| {
            attacked(Changes {
                set: settings.iter().map(ToString::to_string).collect(),
                ..Changes::default()
            })
        };
        let attack = set(&[
            "poisons=80",
            "victim_class=4",
            "target_class=disc",
            "trigger={kind: checkerboard, size: 4, margin: 0}",
        ])
        .unwrap();
        assert_eq!(
            (&attack["poisons"], &attack["victim_class"], &attack["target_class"]),
            (&json!(80), &json!("4"), &json!("disc"))
        );
        assert_eq!(attack["trigger"], json!({"kind": "checkerboard", "size": 4, "margin": 0}));
        let here = std::env::current_dir().unwrap();
        let attack = set(&["trigger={kind: image, path: t.png}"]).unwrap();
        assert_eq!(attack["trigger"]["path"], here.join("t.png").to_str().unwrap());
        for (setting, says) in [
            ("poisons", "--set poisons: write KEY=VALUE"),
            (
                "colour=3",
                "--set colour=3: attack badnet has no key `colour`; it has also, covers, opacity, poisons, target_class, trigger, victim_class",
            ),
            ("poisons=many", "invalid type"),
        ] {
            let said = set(&[setting]).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn flags_of_the_attack_go_to_its_keys() {
        let attack = attacked(Changes {
            attack: Some("badnet".into()),
            victim_class: Some("2".into()),
            target_class: Some("ring".into()),
            poisons: Some(3),
            trigger: Some("t.png".into()),
            ..Changes::default()
        })
        .unwrap();
        let path = std::env::current_dir().unwrap().join("t.png");
        let trigger = json!({"kind": "image", "path": path});
        assert_eq!(
            attack,
            json!({"method": "badnet", "victim_class": "2", "target_class": "ring", "poisons": 3, "trigger": trigger, "also": [], "opacity": 1.0, "covers": 0})
        );
        let hexagon = attacked(Changes {
            trigger: Some("{\"kind\": \"hexagon\"}".into()),
            ..Changes::default()
        });
        assert!(hexagon.unwrap_err().contains("hexagon"));
    }

    /// What a method's file says stands in the page about stories: its name, its keys.
    #[test]
    fn every_attack_and_its_keys_are_explained() {
        let page = include_str!("../../docs/stories.md");
        for name in Attack::NAMES {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}`"))).expect(name);
            let settings = serde_json::to_value(Attack::named(name).unwrap()).unwrap();
            for key in settings.as_object().unwrap().keys().filter(|key| *key != method::METHOD) {
                assert!(row.contains(&format!("`{key}`")), "{name}: {key}");
            }
        }
    }

    #[test]
    fn a_trigger_file_lies_beside_the_story() {
        let text = DEMO.replace("{ kind: checkerboard, size: 8, margin: 1 }", "{ kind: image, path: t.png }");
        let mut story = StoryFile::parse(&text, Path::new("/x/y")).unwrap();
        assert_eq!(story.story.attack.files(), [Path::new("/x/y/t.png")]);
        let unknown = StoryFile::parse(&DEMO.replace("method: badnet", "method: hexagon"), Path::new("/")).unwrap_err();
        assert!(
            format!("{unknown:#}").contains("there is no attack `hexagon`: take one of badnet"),
            "{unknown:#}"
        );
    }
}
