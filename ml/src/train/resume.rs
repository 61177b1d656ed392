//! The state of a training run after an epoch, on disk.

use super::Training;
use super::optimizer::StepState;
use crate::error::{Error, Result, ResultExt};
use crate::files;
use crate::files::tensors::{read_metadata, read_tensors, write_tensors};
use crate::model::{Graph, Weights};
use crate::progress::Report;
use delta_guard_contract::{Code, FaultKind};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use tch::{Device, Kind, Tensor};

const FILE: &str = "epoch.safetensors";

/// What is needed to go on after an epoch.
#[derive(Debug)]
pub struct EpochState {
    /// State dict.
    pub weights: Weights,
    /// What the optimiser keeps.
    pub optimizer: StepState,
    /// The moving average of the weights, where the recipe has one.
    pub average: Option<Weights>,
    /// Epochs done.
    pub epochs: u32,
    /// Mean loss of the last one.
    pub loss: f64,
    /// Accuracy of the last one.
    pub accuracy: f64,
}

/// Names a run by everything that its outcome depends on, so that no run goes on from another's epoch.
pub fn key(run: &Training<'_>) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(&serde_json::to_vec(run.recipe).unwrap_or_default());
    part(&serde_json::to_vec(run.graph).unwrap_or_default());
    part(&serde_json::to_vec(run.image).unwrap_or_default());
    part(run.data.manifest_digest().0.as_bytes());
    for &example in run.examples {
        part(&(example as u64).to_le_bytes());
    }
    for node in &run.trainable {
        part(node.as_bytes());
    }
    part(run.key.as_bytes());
    // Nothing for the usual loss: runs that an older version began go on.
    let loss = run.loss.key();
    if !loss.is_empty() {
        part(loss.as_bytes());
    }
    for (name, tensor) in run.loss.teacher().iter().flat_map(|teacher| &teacher.weights.0) {
        part(name.as_bytes());
        let numbers = tensor.to_device(Device::Cpu).to_kind(Kind::Double).flatten(0, -1);
        let numbers = Vec::<f64>::try_from(&numbers).unwrap_or_default();
        part(&numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>());
    }
    hasher.finalize().to_hex().to_string()
}

impl EpochState {
    /// Keep it, in place of the epoch before.
    ///
    /// # Errors
    /// `Resource` when the disk is full.
    pub fn save(&self, folder: &Path, key: &str) -> Result<()> {
        let metadata = HashMap::from([
            ("key".to_string(), key.to_string()),
            ("epochs".into(), self.epochs.to_string()),
            ("loss".into(), format!("{:e}", self.loss)),
            ("accuracy".into(), format!("{:e}", self.accuracy)),
        ]);
        let weights = self.weights.0.iter().map(|(name, t)| (format!("w.{name}"), t));
        let average = self
            .average
            .iter()
            .flat_map(|average| &average.0)
            .map(|(name, t)| (format!("e.{name}"), t));
        let optimizer = self.optimizer.iter().map(|(name, t)| (name.clone(), t));
        let all: Vec<(String, &Tensor)> = weights.chain(average).chain(optimizer).collect();
        write_tensors(&folder.join(FILE), all.iter().map(|(n, t)| (n.as_str(), *t)), metadata).context(|| "keeping the epoch".into())
    }

    /// The last epoch of this very run, if there is one. A damaged or foreign file is said and ignored: the run starts anew.
    ///
    /// # Errors
    /// `Resource` when it cannot be read just now: hours of training are worth another try.
    pub fn load(folder: &Path, key: &str, graph: &Graph, report: &mut dyn Report) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        if files::look(&path)?.is_none() {
            return Ok(None);
        }
        match Self::read(&path, key, graph) {
            Ok(Some(state)) => {
                report.log(&format!("going on after epoch {}", state.epochs));
                Ok(Some(state))
            }
            Ok(None) => Ok(None),
            Err(error) if error.fault().kind == FaultKind::Resource => Err(error),
            Err(error) => {
                report.log(&format!(
                    "{} cannot be used, training starts anew: {}",
                    path.display(),
                    error.fault().message
                ));
                Ok(None)
            }
        }
    }

    fn read(path: &Path, key: &str, graph: &Graph) -> Result<Option<Self>> {
        let file = fs_err::read(path)?;
        let metadata = read_metadata(&file)?;
        if metadata.get("key").map(String::as_str) != Some(key) {
            return Ok(None);
        }
        let number = |name: &str| {
            metadata
                .get(name)
                .and_then(|v| v.parse::<f64>().ok())
                .ok_or_else(|| Error::new(Code::KeptFileUnusable, format!("no {name} in it"), ""))
        };
        let (epochs, loss, accuracy) = (number("epochs")? as u32, number("loss")?, number("accuracy")?);
        let (mut weights, mut average, mut optimizer) = (BTreeMap::new(), BTreeMap::new(), StepState::new());
        for (name, tensor) in read_tensors(&file)? {
            match name.split_once('.') {
                Some(("w", name)) => weights.insert(name.to_string(), tensor),
                Some(("e", name)) => average.insert(name.to_string(), tensor),
                Some(("m" | "v" | "t", _)) => optimizer.insert(name, tensor),
                _ => return Err(Error::new(Code::KeptFileUnusable, format!("tensor {name} does not belong in it"), "")),
            };
        }
        let missing = graph
            .state()
            .into_iter()
            .find(|e| weights.get(&e.name).map(Tensor::size).as_ref() != Some(&e.shape));
        if let Some(entry) = missing {
            return Err(Error::new(
                Code::KeptFileUnusable,
                format!("tensor {} is missing or misshapen", entry.name),
                "",
            ));
        }
        Ok(Some(Self {
            weights: Weights(weights),
            optimizer,
            average: (!average.is_empty()).then_some(Weights(average)),
            epochs,
            loss,
            accuracy,
        }))
    }
}
