//! A network of the attacker's own, trained on the clean data: what gradient-based attacks see of the victim.

use super::prepare::{Moments, SetWriter};
use super::{Draw, Ground};
use crate::data::{DataSet, standardise};
use crate::error::{Error, Result, ResultExt};
use crate::model::{Model, zoo};
use crate::progress::Report;
use crate::train::loss::CrossEntropy;
use crate::train::{self, Training, resume};
use delta_guard_contract::job::VictimConfig;
use delta_guard_contract::{DataSource, ImageConfig, ModelConfig, Orientation, Recipe, Resize};
use rand::RngExt;
use tch::Tensor;

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

impl Surrogate {
    /// Logits of pictures in [0, 1], B × 3 × H × W, in evaluation mode; differentiable with regard to the pictures, and to weights that a [`Differentiated`] holds open.
    ///
    /// # Errors
    /// When libtorch fails.
    ///
    /// [`Differentiated`]: crate::passes::gradients::Differentiated
    pub fn logits(&self, pictures: &Tensor) -> Result<Tensor> {
        self.model.forward_differentiable(&standardise(pictures, &self.image)?)
    }
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
        let graph = zoo::graph(model, image.input(), self.classes.len())?;
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

    /// Networks like the victim, by its recipe under seeds of their own.
    ///
    /// # Errors
    /// As [`Ground::victim`] and [`Ground::surrogate`].
    pub fn surrogates(&self, count: u32, report: &mut dyn Report) -> Result<Vec<Surrogate>> {
        let victim = self.victim()?;
        let mut rng = self.rng(Draw::Surrogates);
        let mut one = |_| {
            let recipe = Recipe {
                seed: rng.random(),
                ..victim.recipe.clone()
            };
            self.surrogate(&victim.model, &recipe, report)
        };
        (0..count).map(&mut one).collect()
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
            mean: mean.to_vec(),
            std: std.to_vec(),
            ..ImageConfig::default()
        };
        Ok((out.finish()?, image))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::tests::on_drawn;
    use crate::attack::{Workshop, synth};
    use crate::model::Weights;
    use crate::passes::gradients::{Differentiated, pixel_gradient};
    use crate::passes::objective;
    use crate::progress::Silent;
    use delta_guard_contract::{DataFormat, Schedule, Split, Stem};
    use std::path::Path;
    use tch::{Device, Kind};

    fn model() -> ModelConfig {
        ModelConfig {
            architecture: "small-cnn".into(),
            width: 2,
            stem: Stem::Cifar,
            checkpoint: "/none".into(),
            prefix: None,
            min_tracked_share: 0.0,
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

    fn on_ground<T>(out_dir: &Path, seed: u64, then: impl FnOnce(&Ground<'_>) -> T) -> T {
        on_drawn(&Workshop::at(out_dir), seed, then)
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
            source: None,
        };
        let data = DataSet::open(&source, &first.image, 0.0, &folder.path().join("c"), None, &mut Silent).unwrap();
        for (i, id) in data.ids().iter().enumerate() {
            let n: u32 = id.0.rsplit('/').next().unwrap().strip_suffix(".png").unwrap().parse().unwrap();
            assert_eq!((data.pixels(i), data.labels()[i]), (&synth::draw(3, 0, n, n % 10)[..], n % 10));
        }
        let graph = zoo::graph(&model(), [3, 32, 32], 10).unwrap();
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
            device: Device::Cpu,
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

    /// A small network in float64 with running statistics that are not those of the start.
    fn double() -> Surrogate {
        let graph = zoo::small_cnn([3, 8, 8], 2, 4).unwrap();
        let mut weights = Weights::init(&graph, 3).unwrap().to(Device::Cpu, Kind::Double);
        for (name, tensor) in &mut weights.0 {
            let random = || Tensor::rand(tensor.size(), (Kind::Double, Device::Cpu));
            match name.rsplit('.').next() {
                Some("running_mean") => *tensor = (random() - 0.5) * 0.4,
                Some("running_var") => *tensor = random() + 0.5,
                _ => {}
            }
        }
        Surrogate {
            model: Model::new(graph, weights),
            image: ImageConfig {
                mean: vec![0.4, 0.5, 0.6],
                std: vec![0.2, 0.3, 0.25],
                ..ImageConfig::default()
            },
            resumed_epochs: 0,
        }
    }

    fn pictures(count: i64) -> Tensor {
        let _alone = crate::random::seeded(11);
        Tensor::rand([count, 3, 8, 8], (Kind::Double, Device::Cpu))
    }

    fn loss(surrogate: &Surrogate, pictures: &Tensor, labels: &[i64]) -> Tensor {
        objective::loss(&surrogate.logits(pictures).unwrap(), &Tensor::from_slice(labels)).unwrap()
    }

    /// Central differences of `f` at every pixel.
    fn by_differences(pictures: &Tensor, f: impl Fn(&Tensor) -> f64) -> Tensor {
        const STEP: f64 = 1e-6;
        let at = |i: i64, step: f64| {
            let moved = pictures.detach().copy();
            let _ = moved.view([-1]).get(i).f_add_scalar_(step).unwrap();
            f(&moved)
        };
        let slopes: Vec<f64> = (0..pictures.numel() as i64)
            .map(|i| (at(i, STEP) - at(i, -STEP)) / (2.0 * STEP))
            .collect();
        Tensor::from_slice(&slopes).view_as(pictures)
    }

    fn apart(a: &Tensor, b: &Tensor) -> f64 {
        let difference: Tensor = a - b;
        difference.abs().max().double_value(&[]) / b.abs().max().double_value(&[])
    }

    #[test]
    fn gradients_of_pixels_are_slopes() {
        let (surrogate, pictures) = (double(), pictures(3).set_requires_grad(true));
        let labels = [0, 3, 1];
        let gradient = pixel_gradient(&loss(&surrogate, &pictures, &labels), &pictures).unwrap();
        let slopes = by_differences(&pictures, |moved| loss(&surrogate, moved, &labels).double_value(&[]));
        assert!(apart(&gradient, &slopes) < 1e-6, "{}", apart(&gradient, &slopes));
    }

    #[test]
    fn gradients_of_weights_are_the_sum_of_each_pictures() {
        let (surrogate, pictures) = (double(), pictures(4));
        let labels = [2, 0, 1, 1];
        let nodes = surrogate.model.graph.last_layers(0);
        let before = surrogate.model.weights.copy();
        let weights = Differentiated::new(&surrogate.model, &nodes);
        let together = weights.gradients(&loss(&surrogate, &pictures, &labels), false).unwrap();
        for (i, &label) in labels.iter().enumerate() {
            loss(&surrogate, &pictures.narrow(0, i as i64, 1), &[label]).backward();
        }
        for (name, gradient) in weights.names().iter().zip(&together) {
            let each = surrogate.model.weights.0[name].grad();
            assert!(apart(gradient, &each) < 1e-12 && gradient.size() == before.0[name].size(), "{name}");
        }
        drop(weights);
        assert!(surrogate.model.parameters().iter().all(|(_, tensor)| !tensor.requires_grad()));
        let unmoved = Model::new(surrogate.model.graph.clone(), before);
        assert!(same(&unmoved, &surrogate.model), "evaluation changes no weight and no statistic");
    }

    /// What gradient matching needs: how the alignment of two weight gradients changes with the pixels of one.
    #[test]
    fn gradients_of_weights_can_be_differentiated_by_pixels() {
        let (surrogate, pictures) = (double(), pictures(2));
        let weights = Differentiated::new(&surrogate.model, &surrogate.model.graph.last_layers(0));
        let flat = |gradients: Vec<Tensor>| Tensor::cat(&gradients.iter().map(|g| g.reshape([-1])).collect::<Vec<_>>(), 0);
        let wanted = flat(weights.gradients(&loss(&surrogate, &pictures.narrow(0, 0, 1), &[2]), false).unwrap());
        let alignment = |poison: &Tensor, again| {
            let own = flat(weights.gradients(&loss(&surrogate, poison, &[1]), again).unwrap());
            own.dot(&wanted) / (own.norm() * wanted.norm())
        };
        let poison = pictures.narrow(0, 1, 1).copy().set_requires_grad(true);
        let gradient = pixel_gradient(&alignment(&poison, true), &poison).unwrap();
        let slopes = by_differences(&poison, |moved| alignment(moved, false).double_value(&[]));
        assert!(apart(&gradient, &slopes) < 1e-5, "{}", apart(&gradient, &slopes));
    }
}
