//! A network of the attacker's own, trained on the clean data: what gradient-based attacks see of the victim.

use super::Ground;
use super::prepare::{Moments, SetWriter};
use crate::data::DataSet;
use crate::error::{Error, Result, ResultExt};
use crate::model::{Model, zoo};
use crate::progress::Report;
use crate::train::loss::CrossEntropy;
use crate::train::{self, Training, resume};
use delta_guard_contract::job::VictimConfig;
use delta_guard_contract::{DataSource, ImageConfig, ModelConfig, Orientation, Recipe, Resize};

/// The clean training set as it is written for a surrogate.
pub(super) const CLEAN: &str = "clean";

/// A trained network, in `Float` on the job's device, and how it reads pictures.
#[derive(Debug)]
pub struct Surrogate {
    /// The network.
    pub model: Model,
    /// Sizes and normalisation.
    pub image: ImageConfig,
    /// Epochs that an earlier job had done already.
    pub resumed_epochs: u32,
}

impl Ground<'_> {
    /// The network to be attacked and its recipe.
    ///
    /// # Errors
    /// `Configuration` where the job does not name them.
    pub fn victim(&self) -> Result<&VictimConfig> {
        self.workshop.victim.ok_or_else(|| {
            let help = "name the victim's model and recipe in the job, beside the story";
            Error::configuration("this attack trains a network like the victim's, and the job does not name it", help)
        })
    }

    /// A network trained on the clean training pictures. It is trained once and kept under a digest of everything that it depends on; an interrupted training goes on.
    ///
    /// # Errors
    /// As [`train::train`].
    pub fn surrogate(&self, model: &ModelConfig, recipe: &Recipe, report: &mut dyn Report) -> Result<Surrogate> {
        let out_dir = self.workshop.out_dir;
        let (source, image) = self.clean()?;
        let cache = tempfile::Builder::new().prefix(".pixels-").tempdir_in(out_dir)?;
        let data = DataSet::open(&source, &image, 0.0, cache.path(), Some(self.classes), report).context(|| "the clean set".into())?;
        let graph = zoo::graph(model, image.height, image.width, self.classes.len())?;
        let examples: Vec<usize> = (0..data.len()).collect();
        let mut run = Training {
            graph: &graph,
            data: &data,
            image: &image,
            examples: &examples,
            recipe,
            start: None,
            loss: &CrossEntropy,
            trainable: graph.last_layers(0),
            device: self.workshop.device,
            out_dir,
            key: "surrogate".into(),
        };
        let folder = out_dir.join("surrogates").join(resume::key(&run));
        fs_err::create_dir_all(&folder)?;
        run.out_dir = &folder;
        let trained = train::train(run, report).context(|| "training the attacker's network".into())?;
        Ok(Surrogate {
            model: trained.model,
            image,
            resumed_epochs: trained.resumed_epochs,
        })
    }

    /// The clean training set on disk, written when it is first asked for.
    fn clean(&self) -> Result<(DataSource, ImageConfig)> {
        let folder = self.workshop.out_dir.join(CLEAN);
        if folder.exists() {
            fs_err::remove_dir_all(&folder)?;
        }
        let mut moments = Moments::default();
        let mut out = SetWriter::new(&folder, self.form, false, self.classes, self.size)?;
        for (at, &label) in self.labels.iter().enumerate() {
            let pixels = self.pixels(at);
            moments.add(&pixels);
            out.push(&pixels, label)?;
        }
        let (mean, std) = moments.figures()?;
        let image = ImageConfig {
            height: self.size.0,
            width: self.size.1,
            resize: Resize::Refuse,
            orientation: Orientation::Ignore,
            mean,
            std,
        };
        Ok((out.finish()?, image))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::pool::Pool;
    use crate::attack::{Workshop, synth};
    use crate::progress::Silent;
    use delta_guard_contract::{DataFormat, Schedule, Split, Stem};
    use std::path::Path;
    use tch::Tensor;

    fn model() -> ModelConfig {
        ModelConfig {
            architecture: "small-cnn".into(),
            width: 2,
            stem: Stem::Cifar,
            checkpoint: "/none".into(),
        }
    }

    fn recipe(epochs: u32) -> Recipe {
        Recipe {
            epochs,
            batch_size: 16,
            schedule: Schedule::OneCycle { warmup: 0.3 },
            seed: 4,
            ..Recipe::default()
        }
    }

    /// A ground of 40 drawn pictures in a folder.
    fn on_ground<T>(out_dir: &Path, seed: u64, then: impl FnOnce(&Ground<'_>) -> T) -> T {
        let (train, test) = (Pool::drawn(seed, 0, 40), Pool::drawn(seed, 1, 20));
        let (classes, workshop) = (synth::CLASSES.map(String::from), Workshop::at(out_dir));
        then(&Ground {
            classes: &classes,
            size: (synth::SIDE, synth::SIDE),
            form: None,
            seed,
            train: &train,
            rows: train.all(),
            labels: train.labels.clone(),
            test: &test,
            part: test.all(),
            workshop: &workshop,
        })
    }

    fn same(a: &Model, b: &Model) -> bool {
        a.weights.0.iter().all(|(name, t)| {
            let difference: Tensor = t - &b.weights.0[name];
            difference.abs().max().double_value(&[]) == 0.0
        })
    }

    #[test]
    fn a_surrogate_is_trained_once_on_the_clean_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let made = |seed, epochs| {
            on_ground(folder.path(), seed, |ground| {
                ground.surrogate(&model(), &recipe(epochs), &mut Silent).unwrap()
            })
        };
        let kept = || fs_err::read_dir(folder.path().join("surrogates")).unwrap().count();
        let first = made(3, 2);
        let again = made(3, 2);
        assert_eq!((first.resumed_epochs, again.resumed_epochs, kept()), (0, 2, 1));
        assert!(same(&first.model, &again.model));
        // By hand: the ordinary training on the same pictures.
        let source = DataSource {
            path: folder.path().join(CLEAN),
            format: DataFormat::Auto,
            split: Split::All,
        };
        let data = DataSet::open(&source, &first.image, 0.0, &folder.path().join("c"), None, &mut Silent).unwrap();
        for (i, id) in data.ids().iter().enumerate() {
            let n: u32 = id.0.rsplit('/').next().unwrap().strip_suffix(".png").unwrap().parse().unwrap();
            assert_eq!((data.pixels(i), data.labels()[i]), (&synth::draw(3, 0, n, n % 10)[..], n % 10));
        }
        let graph = zoo::graph(&model(), synth::SIDE, synth::SIDE, 10).unwrap();
        let (examples, recipe): (Vec<usize>, Recipe) = ((0..40).collect(), recipe(2));
        let by_hand = Training {
            graph: &graph,
            data: &data,
            image: &first.image,
            examples: &examples,
            recipe: &recipe,
            start: None,
            loss: &CrossEntropy,
            trainable: graph.last_layers(0),
            device: tch::Device::Cpu,
            out_dir: &folder.path().join("c"),
            key: "by hand".into(),
        };
        assert!(same(&first.model, &train::train(by_hand, &mut Silent).unwrap().model));
        // Another recipe and other pictures are other networks, also in the same folder.
        let (longer, others) = (made(3, 3), made(5, 2));
        assert_eq!((longer.resumed_epochs, others.resumed_epochs, kept()), (0, 0, 3));
        assert!(!same(&first.model, &longer.model) && !same(&first.model, &others.model));
    }

    #[test]
    fn a_job_that_names_no_victim_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let said = on_ground(folder.path(), 3, |ground| ground.victim().unwrap_err().to_string());
        assert!(said.contains("the job does not name it"), "{said}");
    }
}
