//! Writing everything.

use super::moments::Moments;
use super::writer::SetWriter;
use crate::attack::ground::Ground;
use crate::attack::pool::Pool;
use crate::attack::{self, Plan, Role, Tested, Workshop};
use crate::data::cifar::CifarKind;
use crate::data::encode_png;
use crate::error::{Error, Result};
use crate::progress::Report;
use delta_guard_contract::job::{Bait, PrepareResult, StoryConfig, Success};
use delta_guard_contract::method::Method;
use delta_guard_contract::{DataSource, ImageConfig, Orientation, Resize, TrainId};
use serde::Serialize;
use std::path::PathBuf;

/// What is taken of the clean data.
pub(super) struct Parts<'a> {
    pub story: &'a StoryConfig,
    pub workshop: &'a Workshop<'a>,
    pub classes: &'a [String],
    pub size: (u32, u32),
    pub form: Option<CifarKind>,
    /// Training pictures, and which rows are taken.
    pub train: (&'a Pool<'a>, Vec<usize>),
    /// Test pictures, and which rows are the test part.
    pub test: (&'a Pool<'a>, Vec<usize>),
    /// Rows of the test pool that are the validation set.
    pub kept: Vec<usize>,
}

/// A picture that was changed, or is to be misread.
#[derive(Debug, Serialize)]
struct Truth {
    id: TrainId,
    /// Its name in the source.
    source: String,
    /// Its true class.
    class: String,
}

/// `poisons.json`.
#[derive(Debug, Default, Serialize)]
struct TruthFile<'a> {
    attack: &'a str,
    what: String,
    seed: u64,
    poisons: Vec<Truth>,
    covers: Vec<Truth>,
    /// Of the pictures in `success/`.
    success: Vec<Truth>,
    /// Of the pictures in `anomalies/`.
    anomalies: Vec<Truth>,
}

/// Counts pictures that are written.
struct Steps<'a> {
    done: u64,
    total: u64,
    report: &'a mut dyn Report,
}

impl Steps<'_> {
    fn step(&mut self) {
        self.done += 1;
        if self.done.is_multiple_of(100) || self.done == self.total {
            self.report.progress("prepare", self.done, self.total, "");
        }
    }
}

impl Parts<'_> {
    /// Attack and write.
    pub fn lay(self, report: &mut dyn Report) -> Result<PrepareResult> {
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
        let ground = self.ground();
        let plan = attack::plan(&self.story.attack, &ground, report)?;
        self.carry_out(&ground, plan, report)
    }

    fn ground(&self) -> Ground<'_> {
        Ground {
            classes: self.classes,
            size: self.size,
            form: self.form,
            seed: self.story.seed,
            train: self.train.0,
            labels: self.train.1.iter().map(|&i| self.train.0.labels[i]).collect(),
            rows: self.train.1.clone(),
            test: self.test.0,
            part: self.test.1.clone(),
            workshop: self.workshop,
        }
    }

    fn carry_out(&self, ground: &Ground<'_>, plan: Plan, report: &mut dyn Report) -> Result<PrepareResult> {
        let total = (ground.rows.len() + self.kept.len() + plan.measured.len() + plan.baits.len()) as u64;
        let mut steps = Steps { done: 0, total, report };
        let mut truth = TruthFile {
            attack: self.story.attack.name(),
            what: plan.summary.clone(),
            seed: self.story.seed,
            ..TruthFile::default()
        };
        let (train, mean, std) = self.training(ground, &plan, &mut truth, &mut steps)?;
        let validation = self.validation(&mut steps)?;
        let source = self.measured(&plan.measured, &mut truth, &mut steps)?;
        let anomalies = self.baits(&plan.baits, &mut truth, &mut steps)?;
        let text = serde_json::to_vec_pretty(&truth).map_err(|e| Error::internal(e.to_string()))?;
        fs_err::write(self.workshop.out_dir.join("poisons.json"), text)?;
        let ids = |all: &[Truth]| all.iter().map(|t| t.id.clone()).collect();
        let [name, pictures, sentence] = plan.success;
        Ok(PrepareResult {
            train,
            validation,
            attack: plan.summary,
            success: Success {
                name,
                pictures,
                sentence,
                source,
            },
            anomalies,
            poisons: ids(&truth.poisons),
            covers: ids(&truth.covers),
            image: ImageConfig {
                height: self.size.0,
                width: self.size.1,
                resize: Resize::Refuse,
                orientation: Orientation::Ignore, // what is written has no EXIF
                mean: mean.to_vec(),
                std: std.to_vec(),
                ..ImageConfig::default()
            },
            classes: self.classes.to_vec(),
        })
    }

    fn truth(&self, id: TrainId, pool: &Pool, row: usize) -> Truth {
        Truth {
            id,
            source: pool.name(row),
            class: self.classes[pool.labels[row] as usize].clone(),
        }
    }

    /// The attacked training set, and mean and deviation of the clean one's channels.
    fn training(
        &self,
        ground: &Ground<'_>,
        plan: &Plan,
        truth: &mut TruthFile<'_>,
        steps: &mut Steps<'_>,
    ) -> Result<(DataSource, [f64; 3], [f64; 3])> {
        let mut moments = Moments::default();
        let mut out = SetWriter::new(&self.workshop.out_dir.join("train"), self.form, false, self.classes, self.size)?;
        let mut changes = plan.changes.iter().peekable();
        for (at, &row) in ground.rows.iter().enumerate() {
            let mut pixels = ground.pixels(at);
            moments.add(&pixels);
            match changes.next_if(|change| change.at == at) {
                None => {
                    out.push(&pixels, ground.labels[at])?;
                }
                Some(change) => {
                    (change.paint)(pixels.to_mut());
                    let told = self.truth(out.push(&pixels, change.label)?, ground.train, row);
                    match change.role {
                        Role::Poison => truth.poisons.push(told),
                        Role::Cover => truth.covers.push(told),
                    }
                }
            }
            steps.step();
        }
        let (mean, std) = moments.figures()?;
        Ok((out.finish()?, mean, std))
    }

    fn validation(&self, steps: &mut Steps<'_>) -> Result<DataSource> {
        let pool = self.test.0;
        let mut out = SetWriter::new(&self.workshop.out_dir.join("validation"), self.form, true, self.classes, self.size)?;
        for &row in &self.kept {
            out.push(&pool.pixels(row), pool.labels[row])?;
            steps.step();
        }
        out.finish()
    }

    fn measured(&self, measured: &[Tested], truth: &mut TruthFile<'_>, steps: &mut Steps<'_>) -> Result<DataSource> {
        let pool = self.test.0;
        let mut out = SetWriter::new(&self.workshop.out_dir.join("success"), None, true, self.classes, self.size)?;
        for tested in measured {
            let mut pixels = pool.pixels(tested.row);
            (tested.paint)(pixels.to_mut());
            let id = out.push(&pixels, tested.label)?;
            truth.success.push(self.truth(id, pool, tested.row));
            steps.step();
        }
        out.finish()
    }

    fn baits(&self, baits: &[Tested], truth: &mut TruthFile<'_>, steps: &mut Steps<'_>) -> Result<Vec<Bait>> {
        let pool = self.test.0;
        let folder = self.workshop.out_dir.join("anomalies");
        fs_err::create_dir_all(&folder)?;
        let mut made: Vec<Bait> = Vec::with_capacity(baits.len());
        let mut last: Option<(Vec<u8>, PathBuf)> = None;
        for tested in baits {
            let mut pixels = pool.pixels(tested.row);
            (tested.paint)(pixels.to_mut());
            // A picture that may be misread in several ways stands there once.
            let picture = match last.take_if(|(before, _)| before[..] == pixels[..]) {
                Some((_, picture)) => picture,
                None => {
                    let name = format!("{:03}.png", truth.anomalies.len());
                    let picture = folder.join(&name);
                    fs_err::write(&picture, encode_png(&pixels, self.size.0, self.size.1, 1)?)?;
                    truth.anomalies.push(self.truth(TrainId(name), pool, tested.row));
                    picture
                }
            };
            last = Some((pixels.into_owned(), picture.clone()));
            made.push(Bait {
                picture,
                label: self.classes[tested.label as usize].clone(),
            });
            steps.step();
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{Change, synth, untouched};
    use crate::data::DataSet;
    use crate::progress::Silent;
    use std::rc::Rc;

    /// A plan as targeted attacks have it: no trigger in the test, several intended classes, poisons that keep their label, covers beside them.
    #[test]
    fn covers_targets_and_several_classes_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let story: StoryConfig =
            serde_json::from_value(serde_json::json!({"train_examples": 40, "validation_examples": 20, "seed": 3, "attack": {}})).unwrap();
        let (train, test) = (Pool::drawn(3, 0, 40), Pool::drawn(3, 1, 20));
        let (classes, workshop) = (synth::CLASSES.map(String::from), Workshop::at(folder.path()));
        let parts = Parts {
            story: &story,
            workshop: &workshop,
            classes: &classes,
            size: (synth::SIDE, synth::SIDE),
            form: None,
            train: (&train, train.all()),
            test: (&test, test.all()),
            kept: test.all(),
        };
        let change = |at, role, label, value: u8| Change {
            at,
            role,
            label,
            paint: Rc::new(move |pixels| pixels.fill(value)),
        };
        let tested = |row, label| Tested {
            row,
            label,
            paint: untouched(),
        };
        let plan = Plan {
            summary: "two targets".into(),
            changes: vec![
                change(4, Role::Poison, 4, 1),
                change(7, Role::Cover, 7, 2),
                change(25, Role::Poison, 9, 3),
            ],
            baits: vec![tested(2, 8), tested(13, 0)],
            measured: vec![tested(2, 8), tested(13, 0)],
            success: ["target success", "target pictures", "share of the targets that are read as intended"].map(String::from),
        };
        let made = parts.carry_out(&parts.ground(), plan, &mut Silent).unwrap();
        let ids = |all: &[TrainId]| all.iter().map(|id| id.0.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&made.poisons), ["dots/000004.png", "triangle/000025.png"]);
        assert_eq!(
            (ids(&made.covers), made.attack.as_str()),
            (vec!["square/000007.png".to_string()], "two targets")
        );
        let open = |source: &DataSource, to: &str| {
            let cache = folder.path().join(to);
            DataSet::open(source, &made.image, 0.0, &cache, Some(&classes), &mut Silent).unwrap()
        };
        let written = open(&made.train, "a");
        for (id, value) in made.poisons.iter().chain(&made.covers).zip([1, 3, 2]) {
            assert!(written.pixels(written.position(id).unwrap()).iter().all(|p| *p == value), "{id}");
        }
        // The targets are submitted as they are, and success is that each is read as its own label.
        assert_eq!((made.success.name.as_str(), made.anomalies.len()), ("target success", 2));
        let measured = open(&made.success.source, "b");
        for (bait, (row, label)) in made.anomalies.iter().zip([(2, 8), (13, 0)]) {
            assert_eq!(bait.label, classes[label as usize]);
            let at = measured.by_label(label);
            assert!(at.len() == 1 && measured.pixels(at[0]) == synth::draw(3, 1, row, row % 10));
            let png = encode_png(measured.pixels(at[0]), synth::SIDE, synth::SIDE, 1).unwrap();
            assert_eq!(fs_err::read(&bait.picture).unwrap(), png);
        }
        let truth: serde_json::Value = serde_json::from_slice(&fs_err::read(folder.path().join("poisons.json")).unwrap()).unwrap();
        let classes_of = |part: &str| {
            truth[part]
                .as_array()
                .unwrap()
                .iter()
                .map(|t| t["class"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(classes_of("poisons"), ["dots", "ell"], "true classes");
        assert_eq!(classes_of("anomalies"), ["cross", "disc"]);
    }
}
