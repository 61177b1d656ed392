//! Unlearners: how a model is repaired (algorithm §4). The default one is taken where nothing is said.

use super::{Method, Mistake, Name, Section, methods};
use crate::Recipe;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

methods! {
    /// How a model is repaired.
    Unlearner as Own, "unlearner";
    Eu(eu) = "eu",
    Cf(cf) = "cf",
    Ssd(ssd) = "ssd",
    Scrub(scrub) = "scrub",
    Badt(badt) = "badt",
    Potion(potion) = "potion",
    Command(command) = "command",
}

/// What is asked of an unlearner besides its name and its rules.
pub trait Own {
    /// What it does, as half a sentence that follows its name: "train again from scratch …".
    fn about(&self) -> &'static str;

    /// What it will cost with these settings, by the production model's recipe: "40 epochs from the start".
    fn effort(&self, recipe: &Recipe) -> String;

    /// Is its result only as good as `recipe` is the production model's?
    fn rests_on_recipe(&self) -> bool {
        false
    }

    /// The program that it runs, where that is none of ours.
    fn outside(&self) -> Option<Outside<'_>> {
        None
    }
}

/// A program of the owner's: what the guard can see of it before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside<'a> {
    /// The program and its arguments.
    pub command: &'a [PathBuf],
    /// Its working folder; None: the job's.
    pub cwd: Option<&'a Path>,
    /// Longest time of one attempt.
    pub deadline: Option<Duration>,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
}

/// Keys that all unlearners share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Common {
    /// Settings of other methods, for when one of them is asked for by name (`retry CASE --method cf`). One that stands nowhere has its defaults.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Unlearner>,
}

impl super::Common for Common {
    const KEYS: &'static [&'static str] = &["also"];
    const MOVED: &'static [(&'static str, &'static str)] = &[(
        "cf",
        "write its keys beside the method's name (`method: cf`); where another method is the usual one, under `also`: `also: [{method: cf, epochs: 8}]`",
    )];

    fn check(&self, method: &str) -> Vec<Mistake> {
        let mut found = Vec::new();
        let mut seen = vec![method];
        for (n, other) in self.also.iter().enumerate() {
            let at = format!("also.{n}");
            found.extend(other.check().into_iter().map(|mistake| mistake.below(&at)));
            if seen.contains(&other.name()) {
                let what = format!("the settings of `{}` are written twice", other.name());
                found.push(Mistake::new(&at, what, "keep one of the two"));
            }
            seen.push(other.name());
        }
        found
    }
}

/// The section `unlearn` of a configuration or a story.
pub type Unlearning = Section<Common, Unlearner>;

impl Unlearning {
    /// The name of the usual method.
    pub fn name(&self) -> Name<Unlearner> {
        Name::of(&self.method)
    }

    /// The method of a name with the settings that stand here, else with its defaults; the usual one where none is named.
    pub fn by(&self, name: Option<Name<Unlearner>>) -> Unlearner {
        let Some(name) = name else { return self.method.clone() };
        let known = self.all().find(|method| method.name() == name.as_str());
        known.cloned().unwrap_or_else(|| name.method())
    }

    /// Every method that stands here, the usual one first.
    pub fn all(&self) -> impl Iterator<Item = &Unlearner> {
        std::iter::once(&self.method).chain(&self.common.also)
    }

    /// The files that the methods name ([`super::Keys::files`]).
    pub fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let all = std::iter::once(&mut self.method).chain(&mut self.common.also);
        all.flat_map(Method::files)
    }

    /// Make another method the usual one. The settings of the one before are kept.
    pub fn choose(&mut self, name: Name<Unlearner>) {
        let chosen = self.by(Some(name));
        let before = std::mem::replace(&mut self.method, chosen);
        self.common.also.retain(|other| Name::of(other) != name);
        if Name::of(&before) != name {
            self.common.also.insert(0, before);
        }
    }
}

#[cfg(test)]
mod tests;
