//! From a grid to victims, and what is asked of each. The same victim under several runs is one.

use super::file::{ControlsAsked, Grid, GridRun, Repairs};
use super::row::VictimName;
use crate::story::StoryFile;
use crate::story::controls::ControlKind;
use anyhow::{Context, anyhow};
use delta_guard_contract::job::StoryConfig;
use delta_guard_contract::method::changed;
use delta_guard_contract::method::unlearn::Unlearner;
use delta_guard_contract::{DetectConfig, ImageConfig};
use serde::Serialize;

/// A victim, and what is asked of it.
#[derive(Clone, Debug)]
pub struct Planned {
    /// By name.
    pub place: VictimName,
    /// Its story; detectors and unlearners are those of `asks`.
    pub story: StoryFile,
    /// How pictures are read. None: as the story's data are.
    pub image: Option<ImageConfig>,
    /// Each once, in an order in which later ones use what earlier ones left.
    pub asks: Vec<GridAsk>,
}

/// A question about a victim.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GridAsk {
    /// What does a detector say of so many anomalies?
    Detect {
        /// Its name here. Names are no part of a key.
        #[serde(skip)]
        name: String,
        /// Its settings.
        settings: Box<DetectConfig>,
        /// How many.
        anomalies: u32,
    },
    /// What remains of the attack after unlearning?
    Repair {
        /// The unlearner's name here.
        #[serde(skip)]
        name: String,
        /// Its settings.
        settings: Unlearner,
        /// What is forgotten.
        source: Forgotten,
    },
    /// How far does the attack succeed with a network that was never attacked?
    Clean,
    /// What does a detector say of clean pictures?
    Control {
        /// Its name here.
        #[serde(skip)]
        name: String,
        /// Its settings.
        settings: Box<DetectConfig>,
        /// Which.
        #[serde(serialize_with = "named")]
        kind: ControlKind,
        /// How many.
        pictures: u32,
    },
}

fn named<S: serde::Serializer>(kind: &ControlKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.name())
}

/// What is forgotten.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forgotten {
    /// What a detector flags for one anomaly.
    Flagged {
        /// Its name here.
        #[serde(skip)]
        name: String,
        /// Its settings.
        settings: Box<DetectConfig>,
    },
    /// The poisons that it does not flag.
    Missed {
        /// Its name here.
        #[serde(skip)]
        name: String,
        /// Its settings.
        settings: Box<DetectConfig>,
    },
    /// This share of the poisons, drawn under the story's seed.
    Known(f64),
}

impl Forgotten {
    /// In words, for tables.
    pub fn words(&self) -> String {
        match self {
            Self::Flagged { name, .. } => format!("flagged by {name}"),
            Self::Missed { name, .. } => format!("missed by {name}"),
            Self::Known(share) => format!("{} % of the poisons", 100.0 * share),
        }
    }
}

impl Planned {
    /// What names the victim: everything that it depends on. Where the pictures lie is the machine's business: the grid's name of them stands for it.
    pub fn key(&self) -> String {
        let mut told = self.story.story.clone();
        told.data = told.data.map(|_| self.place.data.clone().into());
        let story = (&told, &self.story.model, &self.story.recipe);
        match &self.image {
            None => digest(&story),
            Some(image) => digest(&(story, image)),
        }
    }

    /// What names an answer.
    pub fn key_of(&self, ask: &GridAsk) -> String {
        digest(&(self.key(), ask))
    }
}

/// Half a BLAKE3 digest of a value's JSON.
fn digest(of: &impl Serialize) -> String {
    // These types have no maps with other keys than texts, which is all that could fail.
    let text = serde_json::to_vec(of).unwrap_or_default();
    blake3::hash(&text).to_hex()[..32].to_string()
}

/// Victims in the order of the runs; within a run seed by seed, so that an evaluation that is stopped has a whole table of the first seeds.
///
/// # Errors
/// An attack that has no dose where one is asked for.
pub fn plan(grid: &Grid) -> anyhow::Result<Vec<Planned>> {
    let mut all: Vec<Planned> = Vec::new();
    for (n, run) in grid.runs.iter().enumerate() {
        for planned in of_run(grid, run).with_context(|| format!("grid.runs.{n}"))? {
            match all.iter_mut().find(|there| there.key() == planned.key()) {
                Some(there) => {
                    for ask in planned.asks {
                        if !there.asks.contains(&ask) {
                            there.asks.push(ask);
                        }
                    }
                }
                None => all.push(planned),
            }
        }
    }
    Ok(all)
}

fn of_run(grid: &Grid, run: &GridRun) -> anyhow::Result<Vec<Planned>> {
    let doses: Vec<Option<f64>> = match run.doses.is_empty() {
        true => vec![None],
        false => run.doses.iter().copied().map(Some).collect(),
    };
    let asks = asks(grid, run)?;
    let mut all = Vec::new();
    for &seed in &run.seeds {
        for data in &run.data {
            for network in &run.networks {
                for attack in &run.attacks {
                    for &dose in &doses {
                        let place = VictimName {
                            data: data.clone(),
                            network: network.clone(),
                            attack: attack.clone(),
                            dose,
                            seed,
                        };
                        all.push(Planned {
                            story: story(grid, &place)?,
                            place,
                            image: None,
                            asks: asks.clone(),
                        });
                    }
                }
            }
        }
    }
    Ok(all)
}

fn story(grid: &Grid, place: &VictimName) -> anyhow::Result<StoryFile> {
    let missing = |what: &str| anyhow!("there is no such {what}");
    let data = grid.data.get(&place.data).ok_or_else(|| missing("data"))?;
    let network = grid.networks.get(&place.network).ok_or_else(|| missing("network"))?;
    let mut attack = grid.attacks.get(&place.attack).ok_or_else(|| missing("attack"))?.clone();
    if let Some(dose) = place.dose {
        let poisons = (dose * f64::from(data.train_examples)).round().max(1.0) as u32;
        attack = changed(&attack, "poisons", poisons.into()).map_err(|why| anyhow!("attack {} with a dose: {why}", place.attack))?;
    }
    let mut story = StoryFile {
        story: StoryConfig {
            data: data.path.clone(),
            train_examples: data.train_examples,
            validation_examples: data.validation_examples,
            attack,
            seed: place.seed,
        },
        model: network.model.clone(),
        recipe: network.recipe.clone(),
        detect: DetectConfig::default(),
        unlearn: Default::default(),
        gate: Default::default(),
        evaluate: Default::default(),
    };
    story.seeded(place.seed);
    Ok(story)
}

fn asks(grid: &Grid, run: &GridRun) -> anyhow::Result<Vec<GridAsk>> {
    let detector = |name: &String| -> anyhow::Result<Box<DetectConfig>> {
        let found = grid.detectors.get(name).ok_or_else(|| anyhow!("there is no detector {name}"))?;
        Ok(Box::new(found.clone()))
    };
    let mut all = Vec::new();
    for &anomalies in &run.anomalies {
        for name in &run.detectors {
            all.push(GridAsk::Detect {
                name: name.clone(),
                settings: detector(name)?,
                anomalies,
            });
        }
    }
    for repairs in &run.repairs {
        for source in sources(repairs, &detector)? {
            for name in &repairs.unlearners {
                let settings = grid.unlearners.get(name).ok_or_else(|| anyhow!("there is no unlearner {name}"))?;
                all.push(GridAsk::Repair {
                    name: name.clone(),
                    settings: settings.clone(),
                    source: source.clone(),
                });
            }
        }
    }
    if run.clean {
        all.push(GridAsk::Clean);
    }
    all.extend(controls(&run.controls, &detector)?);
    Ok(all)
}

type Detectors<'a> = dyn Fn(&String) -> anyhow::Result<Box<DetectConfig>> + 'a;

fn sources(repairs: &Repairs, detector: &Detectors<'_>) -> anyhow::Result<Vec<Forgotten>> {
    let mut all = Vec::new();
    for name in &repairs.flagged_by {
        let settings = detector(name)?;
        all.push(Forgotten::Flagged {
            name: name.clone(),
            settings,
        });
    }
    for name in &repairs.missed_by {
        let settings = detector(name)?;
        all.push(Forgotten::Missed {
            name: name.clone(),
            settings,
        });
    }
    all.extend(repairs.known.iter().copied().map(Forgotten::Known));
    Ok(all)
}

fn controls(asked: &ControlsAsked, detector: &Detectors<'_>) -> anyhow::Result<Vec<GridAsk>> {
    let mut all = Vec::new();
    for name in &asked.detectors {
        for (kind, pictures) in [(ControlKind::NaturalError, asked.natural_errors), (ControlKind::Placebo, asked.placebos)] {
            if pictures > 0 {
                all.push(GridAsk::Control {
                    name: name.clone(),
                    settings: detector(name)?,
                    kind,
                    pictures,
                });
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::GridFile;
    use std::path::Path;

    const GRID: &str = "
grid:
  name: small
  data: { drawn: { train_examples: 400, validation_examples: 200 } }
  networks:
    net: { model: { architecture: small-cnn, width: 8 }, recipe: { epochs: 1 } }
  attacks:
    board: { method: badnet, victim_class: '3', target_class: '8', poisons: 9 }
    laid: { method: blend, target_class: '8', poisons: 9 }
  detectors: { ours: { method: guard }, theirs: { method: paper-code } }
  unlearners: { again: { method: eu }, tuned: { method: cf, epochs: 2 } }
  runs:
    - { data: [drawn], networks: [net], attacks: [board, laid], doses: [0.01, 0.1], seeds: [1, 2], detectors: [ours, theirs], anomalies: [1, 5] }
    - { data: [drawn], networks: [net], attacks: [board], doses: [0.1], seeds: [2], detectors: [ours],
        repairs: [{ unlearners: [again, tuned], flagged_by: [ours], missed_by: [ours], known: [0.1] }],
        controls: { detectors: [ours], natural_errors: 7 } }
";

    fn planned(text: &str) -> Vec<Planned> {
        plan(&GridFile::parse(text, Path::new("/x")).unwrap().grid).unwrap()
    }

    /// The grids that come with the program: each can be planned, its settings keep their rules, and what two of them share has one key.
    #[test]
    fn the_grids_that_come_with_it_can_be_planned() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/evaluate");
        let read = |name: &str| plan(&GridFile::load(&folder.join(name)).unwrap().grid).unwrap();
        for (name, victims) in [
            ("laptop.yaml", 31),
            ("night.yaml", 86),
            ("paper-cifar10.yaml", 10),
            ("paper-cifar100.yaml", 9),
            ("paper-imagenette.yaml", 9),
        ] {
            let all = read(name);
            assert_eq!(all.len(), victims, "{name}");
            assert!(
                all.iter().all(|victim| victim.story.mistakes().is_none() && !victim.asks.is_empty()),
                "{name}"
            );
        }
        let (laptop, night) = (read("laptop.yaml"), read("night.yaml"));
        let shared = night
            .iter()
            .filter(|victim| laptop.iter().any(|other| other.key() == victim.key()))
            .count();
        assert_eq!(shared, 20, "the headline cells");
    }

    /// A file of rows is taken to another machine.
    #[test]
    fn a_key_does_not_know_where_the_pictures_lie() {
        let at = |folder: &str, name: &str| -> Vec<String> {
            let data = format!("{name}: {{ path: {folder}, train_examples: 400");
            let text = GRID
                .replace("drawn: { train_examples: 400", &data)
                .replace("[drawn]", &format!("[{name}]"));
            planned(&text).iter().map(Planned::key).collect()
        };
        assert_eq!(at("here", "photos"), at("/there/photos", "photos"));
        assert!(
            at("here", "photos").iter().all(|key| !at("here", "sketches").contains(key)),
            "other pictures are others"
        );
        let drawn: Vec<String> = planned(GRID).iter().map(Planned::key).collect();
        assert!(at("here", "photos").iter().all(|key| !drawn.contains(key)), "drawn ones, too");
    }

    #[test]
    fn runs_are_multiplied_out_and_a_victim_of_two_runs_is_one() {
        let all = planned(GRID);
        assert_eq!(all.len(), 8, "2 attacks × 2 doses × 2 seeds");
        let seeds: Vec<u64> = all.iter().map(|victim| victim.place.seed).collect();
        assert_eq!(seeds, [1, 1, 1, 1, 2, 2, 2, 2], "seed by seed");
        for victim in &all {
            let poisons = (victim.place.dose.unwrap() * 400.0) as u64;
            let attack = serde_json::to_value(&victim.story.story.attack).unwrap();
            assert_eq!(attack["poisons"], poisons);
            assert_eq!(
                (victim.story.story.seed, victim.story.recipe.seed),
                (victim.place.seed, victim.place.seed)
            );
        }
        let both = all.iter().filter(|victim| victim.asks.len() > 4).collect::<Vec<_>>();
        assert_eq!(both.len(), 1);
        let place = &both[0].place;
        assert_eq!((place.attack.as_str(), place.dose, place.seed), ("board", Some(0.1), 2));
        // Four detections, of which one was asked for twice; 2 × 3 repairs; one control.
        assert_eq!(both[0].asks.len(), 4 + 6 + 1);
        let words: BTreeSet<String> = both[0]
            .asks
            .iter()
            .filter_map(|ask| match ask {
                GridAsk::Repair { source, .. } => Some(source.words()),
                _ => None,
            })
            .collect();
        assert_eq!(
            words,
            ["10 % of the poisons", "flagged by ours", "missed by ours"].map(String::from).into()
        );
    }

    use std::collections::BTreeSet;

    /// A key is what a row is found by again: it changes with every setting that matters and with nothing else.
    #[test]
    fn keys_follow_settings_and_not_names() {
        let keys = |text: &str| -> BTreeSet<String> {
            let all = planned(text);
            all.iter()
                .flat_map(|victim| std::iter::once(victim.key()).chain(victim.asks.iter().map(|ask| victim.key_of(ask))))
                .collect()
        };
        let before = keys(GRID);
        assert_eq!(before.len(), 8 + 7 * 4 + 11, "all differ");
        for (old, new) in [
            ("ours", "mine"),
            ("again", "anew"),
            ("[net]", "[web]"),
            ("board", "patch"),
            ("name: small", "name: x"),
        ] {
            let text = GRID
                .replace(old, new)
                .replace("    net: {", if old == "[net]" { "    web: {" } else { "    net: {" });
            assert_eq!(keys(&text), before, "{old} → {new}");
        }
        for (old, new) in [
            ("epochs: 1", "epochs: 3"),
            ("width: 8", "width: 9"),
            ("train_examples: 400", "train_examples: 500"),
            ("seeds: [1, 2]", "seeds: [3, 4]"),
        ] {
            let shared = keys(&GRID.replace(old, new)).intersection(&before).count();
            assert!(shared <= 12, "{old} → {new}: {shared}");
        }
        let cf = keys(&GRID.replace("epochs: 2", "epochs: 4"));
        assert_eq!(cf.intersection(&before).count(), before.len() - 3, "three repairs by cf");
        let control = keys(&GRID.replace("natural_errors: 7", "natural_errors: 8"));
        assert_eq!(control.intersection(&before).count(), before.len() - 1);
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (old, new, says) in [
            ("attacks: [board]", "attacks: [bord]", "grid.runs.1.attacks: there is no `bord`"),
            ("flagged_by: [ours]", "flagged_by: [our]", "grid.runs.1.repairs.0.flagged_by"),
            ("doses: [0.01, 0.1]", "doses: [0.01, 10]", "grid.runs.0.doses: 10 is no share"),
            ("known: [0.1]", "known: [0.0]", "grid.runs.1.repairs.0.known: 0 is no share"),
            ("anomalies: [1, 5]", "anomalies: [0]", "grid.runs.0.anomalies"),
            ("controls: {", "controls: { natural: 3,", "natural"),
            ("method: blend,", "method: blend, alpha: 2,", "grid.attacks.laid.alpha"),
        ] {
            let text = GRID.replace(old, new);
            assert_ne!(text, GRID, "{old}");
            let said = format!("{:#}", GridFile::parse(&text, Path::new("/x")).unwrap_err());
            assert!(said.contains(says), "{said}");
        }
        assert!(GridFile::is_one(GRID) && !GridFile::is_one(crate::story::file::DEMO) && !GridFile::is_one("{"));
    }
}
