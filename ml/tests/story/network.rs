//! The story's network written out by hand in float64, and per-example gradients by autograd with respect to the weights. Nothing of the library's executor, taps or
//! folds is used here.

use delta_guard_contract::ImageConfig;
use delta_influence::files::tensors::read_tensors;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Layers with weights, in order; strides of the convolutions.
const CONVOLUTIONS: [(&str, i64); 4] = [("conv1", 1), ("conv2", 2), ("conv3", 1), ("conv4", 2)];
/// Batch norm's ε, as PyTorch has it.
const EPS: f64 = 1e-5;

/// What a gradient is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Loss,
    Margin,
}

pub struct Network {
    weights: BTreeMap<String, Tensor>,
}

/// One example's forward pass: input and output of each layer with weights, and the logits.
struct Tape {
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    logits: Tensor,
}

/// One example's gradients.
pub struct Gradients {
    /// Per layer: ∂objective/∂W as [outputs, inputs], the bias as last column.
    pub weights: Vec<Tensor>,
    /// Per layer: unfolded inputs [inputs, positions], a row of ones for a bias.
    pub patches: Vec<Tensor>,
    /// Per layer: ∂objective/∂output [outputs, positions].
    pub outputs: Vec<Tensor>,
}

impl Gradients {
    /// All layers in one row.
    pub fn flat(&self) -> Tensor {
        Tensor::cat(&self.weights.iter().map(|w| w.reshape([-1])).collect::<Vec<_>>(), 0)
    }
}

impl Network {
    pub fn load(checkpoint: &Path) -> Self {
        let tensors = read_tensors(&std::fs::read(checkpoint).unwrap()).unwrap();
        let weights = tensors
            .into_iter()
            .map(|(name, t)| (name, t.to_kind(Kind::Double).contiguous().set_requires_grad(true)))
            .collect();
        Self { weights }
    }

    fn weight(&self, name: &str) -> &Tensor {
        &self.weights[name]
    }

    /// `image`: 3 × H × W, normalised.
    fn tape(&self, image: &Tensor) -> Tape {
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        let mut x = image.to_kind(Kind::Double).unsqueeze(0);
        for (n, (name, stride)) in (1..).zip(CONVOLUTIONS) {
            inputs.push(x.detach());
            let y = x.conv2d(
                self.weight(&format!("{name}.weight")),
                None::<Tensor>,
                [stride, stride],
                [1, 1],
                [1, 1],
                1,
            );
            let channel = |what: &str| self.weight(&format!("bn{n}.{what}")).reshape([1, -1, 1, 1]);
            let normed = (&y - channel("running_mean")) / (channel("running_var") + EPS).sqrt();
            x = (normed * channel("weight") + channel("bias")).relu();
            outputs.push(y);
        }
        let x = x.mean_dim(&[2i64, 3][..], false, Kind::Double);
        inputs.push(x.detach());
        let logits = x.matmul(&self.weight("fc.weight").tr()) + self.weight("fc.bias");
        outputs.push(logits.shallow_clone());
        Tape { inputs, outputs, logits }
    }

    /// What the last layer reads, one row per picture.
    pub fn features<'a>(&self, pictures: impl Iterator<Item = &'a [u8]>, image: &ImageConfig) -> Tensor {
        let rows: Vec<Tensor> = pictures
            .map(|pixels| self.tape(&normalised(pixels, image)).inputs.pop().unwrap())
            .collect();
        Tensor::cat(&rows, 0)
    }

    /// Class probabilities.
    pub fn probabilities(&self, image: &Tensor) -> Vec<f64> {
        Vec::<f64>::try_from(self.tape(image).logits.detach().softmax(1, Kind::Double).view(-1)).unwrap()
    }

    /// The likeliest class and its probability.
    pub fn read(&self, image: &Tensor) -> (u32, f64) {
        let p = self.probabilities(image);
        let best = (0..p.len()).max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap();
        (best as u32, p[best])
    }

    /// Gradients of one example's objective under a label.
    pub fn gradients(&self, image: &Tensor, label: i64, of: Of) -> Gradients {
        let tape = self.tape(image);
        let logits = tape.logits.view(-1);
        let others: Vec<i64> = (0..logits.size()[0]).filter(|&k| of == Of::Loss || k != label).collect();
        let objective = logits.index_select(0, &Tensor::from_slice(&others)).exp().sum(Kind::Double).log() - logits.get(label);
        let layers = tape.outputs.len();
        let mut asked: Vec<&Tensor> = CONVOLUTIONS.iter().map(|(name, _)| self.weight(&format!("{name}.weight"))).collect();
        asked.extend([self.weight("fc.weight"), self.weight("fc.bias")]);
        asked.extend(&tape.outputs);
        let found = Tensor::run_backward(&[objective], &asked, false, false);
        let mut weights: Vec<Tensor> = found[..layers].iter().map(|w| w.flatten(1, -1)).collect();
        let bias = found[layers].unsqueeze(1);
        weights[layers - 1] = Tensor::cat(&[&weights[layers - 1], &bias], 1);
        let outputs = found[layers + 1..].iter().map(|g| g.reshape([g.size()[1], -1])).collect();
        let one = Tensor::ones([1, 1], (Kind::Double, Device::Cpu));
        let patches = (0..layers)
            .map(|l| match CONVOLUTIONS.get(l) {
                Some(&(_, stride)) => tape.inputs[l].im2col([3, 3], [1, 1], [1, 1], [stride, stride]).squeeze_dim(0),
                None => Tensor::cat(&[&tape.inputs[l].tr(), &one], 0),
            })
            .collect();
        Gradients { weights, patches, outputs }
    }
}

/// Planar bytes as the network sees them, by the formula.
pub fn normalised(pixels: &[u8], image: &ImageConfig) -> Tensor {
    let area = (image.height * image.width) as usize;
    let values: Vec<f64> = (0..pixels.len())
        .map(|i| (f64::from(pixels[i]) / 255.0 - image.mean[i / area]) / image.std[i / area])
        .collect();
    Tensor::from_slice(&values).view([3, i64::from(image.height), i64::from(image.width)])
}
