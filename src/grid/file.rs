//! Grid files: named parts, and runs over them.

use crate::config::file::Worker;
use crate::story::file::StoryModel;
use anyhow::{Context, bail};
use delta_guard_contract::method::Method;
use delta_guard_contract::method::attack::Attack;
use delta_guard_contract::method::unlearn::Unlearner;
use delta_guard_contract::{DetectConfig, Recipe};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A grid file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridFile {
    /// Everything.
    pub grid: Grid,
}

/// Named parts, and the runs over them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// What its page is called.
    pub name: String,
    /// Clean data, by name.
    pub data: BTreeMap<String, GridData>,
    /// Networks and how they are trained, by name.
    pub networks: BTreeMap<String, Network>,
    /// Attacks, by name.
    pub attacks: BTreeMap<String, Attack>,
    /// Detectors with their settings, by name.
    #[serde(default)]
    pub detectors: BTreeMap<String, DetectConfig>,
    /// Unlearners with their settings, by name.
    #[serde(default)]
    pub unlearners: BTreeMap<String, Unlearner>,
    /// What the worker may use, as in a configuration (`device`, `threads`, `memory_budget`, …). It belongs to no row's key.
    #[serde(default)]
    pub worker: Worker,
    /// What is combined with what.
    pub runs: Vec<GridRun>,
}

/// Clean data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridData {
    /// Where it lies, as `story.data`; unset: drawn.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// As `story.train_examples`.
    pub train_examples: u32,
    /// As `story.validation_examples`.
    pub validation_examples: u32,
}

/// A network and its recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// As `model` of a story.
    pub model: StoryModel,
    /// How a victim is trained; its seed is the run's.
    #[serde(default)]
    pub recipe: Recipe,
}

/// Every combination of data, networks, attacks, doses and seeds is a victim; of each the rest is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridRun {
    /// Names of data.
    pub data: Vec<String>,
    /// Names of networks.
    pub networks: Vec<String>,
    /// Names of attacks.
    pub attacks: Vec<String>,
    /// Poisons as shares of the training set, above 0 and at most 1; empty: as many as the attack itself says.
    #[serde(default)]
    pub doses: Vec<f64>,
    /// Seeds of data, attack and training.
    pub seeds: Vec<u64>,
    /// Names of detectors.
    #[serde(default)]
    pub detectors: Vec<String>,
    /// Numbers of anomalies that are handed in at once.
    #[serde(default = "one")]
    pub anomalies: Vec<u32>,
    /// What is repaired.
    #[serde(default)]
    pub repairs: Vec<Repairs>,
    /// Train the same network on the training set as it was before the attack, and measure the attack on that: what success is there without any.
    #[serde(default)]
    pub clean: bool,
    /// Clean pictures handed in as if they were anomalies.
    #[serde(default)]
    pub controls: ControlsAsked,
}

fn one() -> Vec<u32> {
    vec![1]
}

/// Every unlearner with every set of examples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Repairs {
    /// Names of unlearners.
    pub unlearners: Vec<String>,
    /// Names of detectors: what each flags for one anomaly is forgotten.
    pub flagged_by: Vec<String>,
    /// Names of detectors: the poisons that each does not flag are forgotten (the paper's Table 3).
    pub missed_by: Vec<String>,
    /// Shares of the poisons, drawn at random, that are forgotten.
    pub known: Vec<f64>,
}

/// Clean pictures handed in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlsAsked {
    /// Names of detectors.
    pub detectors: Vec<String>,
    /// Pictures that the victim misreads: those read as the poisons' class first.
    pub natural_errors: u32,
    /// Pictures that it reads rightly: those of the poisons' class first.
    pub placebos: u32,
}

impl GridFile {
    /// Does this text say that it is a grid, and no story?
    pub fn is_one(text: &str) -> bool {
        serde_yaml::from_str::<serde_yaml::Value>(crate::config::without_mark(text)).is_ok_and(|all| all.get("grid").is_some())
    }

    /// Read a grid file; relative paths start at its folder.
    ///
    /// # Errors
    /// With file, and line or key.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = fs_err::read_to_string(path)?;
        let path = std::path::absolute(path)?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("/"))).with_context(|| format!("grid file {}", path.display()))
    }

    /// Parse and check a grid.
    ///
    /// # Errors
    /// With line or key.
    pub fn parse(text: &str, base: &Path) -> anyhow::Result<Self> {
        let mut file: Self = serde_yaml::from_str(crate::config::without_mark(text))?;
        let grid = &mut file.grid;
        for path in grid.data.values_mut().filter_map(|data| data.path.as_mut()) {
            *path = base.join(&path);
        }
        for file in grid.attacks.values_mut().flat_map(Attack::files) {
            *file = base.join(&file);
        }
        for file in grid.detectors.values_mut().flat_map(|detector| detector.method.files()) {
            *file = base.join(&file);
        }
        for file in grid.networks.values_mut().filter_map(|network| network.recipe.init.as_mut()) {
            *file = base.join(&file);
        }
        grid.check()?;
        Ok(file)
    }
}

impl Grid {
    /// Rules that the types do not hold.
    fn check(&self) -> anyhow::Result<()> {
        let methods = |kind: &str, name: &str, found: Vec<delta_guard_contract::method::Mistake>| match found.first() {
            Some(first) => bail!("{}\n  help: {}", first.sentence(&format!("grid.{kind}.{name}")), first.help),
            None => Ok(()),
        };
        for (name, attack) in &self.attacks {
            methods("attacks", name, attack.check())?;
        }
        for (name, detector) in &self.detectors {
            methods("detectors", name, detector.check())?;
        }
        for (name, unlearner) in &self.unlearners {
            methods("unlearners", name, unlearner.check())?;
        }
        self.runs.iter().enumerate().try_for_each(|(n, run)| self.check_run(n, run))
    }

    fn check_run(&self, n: usize, run: &GridRun) -> anyhow::Result<()> {
        let at = |key: &str| format!("grid.runs.{n}.{key}");
        known(&at("data"), &run.data, &self.data)?;
        known(&at("networks"), &run.networks, &self.networks)?;
        known(&at("attacks"), &run.attacks, &self.attacks)?;
        known(&at("detectors"), &run.detectors, &self.detectors)?;
        known(&at("controls.detectors"), &run.controls.detectors, &self.detectors)?;
        shares(&at("doses"), &run.doses)?;
        if run.anomalies.contains(&0) {
            bail!("{}: 0 anomalies cannot be handed in\n  help: write at least 1", at("anomalies"));
        }
        for (i, repairs) in run.repairs.iter().enumerate() {
            let at = |key: &str| at(&format!("repairs.{i}.{key}"));
            known(&at("unlearners"), &repairs.unlearners, &self.unlearners)?;
            known(&at("flagged_by"), &repairs.flagged_by, &self.detectors)?;
            known(&at("missed_by"), &repairs.missed_by, &self.detectors)?;
            shares(&at("known"), &repairs.known)?;
        }
        Ok(())
    }
}

/// Names that are defined.
fn known<T>(key: &str, names: &[String], all: &BTreeMap<String, T>) -> anyhow::Result<()> {
    match names.iter().find(|name| !all.contains_key(*name)) {
        Some(name) => {
            let names: Vec<&str> = all.keys().map(String::as_str).collect();
            bail!("{key}: there is no `{name}`\n  help: these are defined: {}", names.join(", "))
        }
        None => Ok(()),
    }
}

/// Shares of the whole.
fn shares(key: &str, shares: &[f64]) -> anyhow::Result<()> {
    match shares.iter().find(|share| !(**share > 0.0 && **share <= 1.0)) {
        Some(share) => bail!("{key}: {share} is no share\n  help: write it above 0 and at most 1: 0.01 is one percent"),
        None => Ok(()),
    }
}
