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
        let ground = Ground {
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
        };
        let plan = attack::plan(&self.story.attack, &ground, report)?;
        let total = (ground.rows.len() + self.kept.len() + plan.measured.len() + plan.baits.len()) as u64;
        let mut steps = Steps { done: 0, total, report };
        let mut truth = TruthFile {
            attack: self.story.attack.name(),
            what: plan.summary.clone(),
            seed: self.story.seed,
            ..TruthFile::default()
        };
        let (train, mean, std) = self.training(&ground, &plan, &mut truth, &mut steps)?;
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
                mean,
                std,
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
        let mut made = Vec::with_capacity(baits.len());
        for (n, tested) in baits.iter().enumerate() {
            let mut pixels = pool.pixels(tested.row);
            (tested.paint)(pixels.to_mut());
            let name = format!("{n:03}.png");
            let picture = folder.join(&name);
            fs_err::write(&picture, encode_png(&pixels, self.size.0, self.size.1, 1)?)?;
            truth.anomalies.push(self.truth(TrainId(name), pool, tested.row));
            made.push(Bait {
                picture,
                label: self.classes[tested.label as usize].clone(),
            });
            steps.step();
        }
        Ok(made)
    }
}
