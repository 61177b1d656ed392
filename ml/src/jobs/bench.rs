//! What most jobs lay out first: data, network, weights.

use super::Place;
use crate::data::{DataSet, KnownClasses, class_names};
use crate::error::{Error, Result, ResultExt};
use crate::model::weights::{self, CheckpointFile};
use crate::model::{Graph, Model, Weights, zoo};
use crate::progress::Report;
use crate::verify::OwnersModel;
use delta_guard_contract::job::{Anomaly, ImageLimits, Proof};
use delta_guard_contract::{Code, DataConfig, DataSource, Digest, ImageConfig, ModelConfig};
use std::path::Path;
use tch::Kind;

/// The training set.
///
/// # Errors
/// `Configuration` with the key that names it.
pub fn training_set(place: &Place<'_>, data: &DataConfig, report: &mut dyn Report) -> Result<DataSet> {
    let what = || "training set (data.train)".to_string();
    let listed = data.classes.as_ref().map(class_names).transpose()?;
    let set = open_known(place, data, &data.train, listed.as_deref().map(KnownClasses::Listed), report).context(what)?;
    several_classes(&set, &data.train.path).context(what)?;
    Ok(set)
}

/// A model that tells classes apart needs two of them. One alone is most often a path that is a folder too deep or too high.
fn several_classes(set: &DataSet, path: &Path) -> Result<()> {
    let [only] = set.classes() else { return Ok(()) };
    let (looked, help) = if path.is_dir() {
        let deeper = path.join(only);
        (
            format!("one folder per class was looked for in {}", path.display()),
            format!(
                "set data.train.path to the folder that holds the class folders; if those lie in `{only}`, to {}",
                deeper.display()
            ),
        )
    } else {
        let help = "a model that tells classes apart needs two of them: check the labels there, and data.train.split";
        (format!("they were read from {}", path.display()), help.into())
    };
    Err(Error::new(
        Code::DataUnusable,
        format!("the data have one class only, `{only}`: {looked}"),
        help,
    ))
}

/// The validation set, its labels in the training set's class order.
///
/// # Errors
/// `Configuration` with the key that names it.
pub fn validation_set(place: &Place<'_>, data: &DataConfig, classes: &[String], report: &mut dyn Report) -> Result<DataSet> {
    open(place, data, &data.validation, Some(classes), report).context(|| "validation set (data.validation)".into())
}

/// Any labelled set with the training set's sizes and class order.
///
/// # Errors
/// `Configuration`.
pub fn open(place: &Place<'_>, data: &DataConfig, source: &DataSource, classes: Option<&[String]>, report: &mut dyn Report) -> Result<DataSet> {
    open_known(place, data, source, classes.map(KnownClasses::Training), report)
}

fn open_known(place: &Place<'_>, data: &DataConfig, source: &DataSource, known: Option<KnownClasses>, report: &mut dyn Report) -> Result<DataSet> {
    let set = DataSet::open_known(source, &data.image, data.max_unreadable_share, &place.setup.cache_dir, known, report)?;
    for unreadable in set.skipped().iter().take(5) {
        report.log(&format!("skipped {}: {}", unreadable.id, unreadable.reason));
    }
    if set.passed_over().count > 0 {
        report.log(&set.passed_over().to_string());
    }
    if set.skipped().len() > 5 {
        report.log(&format!("skipped {} unreadable pictures in all", set.skipped().len()));
    }
    Ok(set)
}

/// The network for a training set. One that comes with pictures of its owner's must answer them as the owner's does.
///
/// # Errors
/// `Configuration`; `ModelDiffers`.
pub fn graph(model: &ModelConfig, image: &ImageConfig, classes: usize) -> Result<Graph> {
    proof(model, image)?;
    zoo::graph(model, image.input(), classes)
}

/// How an exported network answers its owner's pictures; None: it comes with none, or is no exported one.
///
/// # Errors
/// `ModelDiffers`: otherwise than its owner's.
pub fn proof(model: &ModelConfig, image: &ImageConfig) -> Result<Option<Proof>> {
    let file = Path::new(&model.architecture);
    if file.extension().is_none_or(|e| e != "pt2") {
        return Ok(None);
    }
    let proof = OwnersModel::read(file, Some(image))?.proof().context(|| model.architecture.clone())?;
    let Some(proof) = proof else { return Ok(None) };
    if proof.agrees() {
        return Ok(Some(proof));
    }
    let why = match &proof.likely[..] {
        [] => "nothing that is usually wrong explains it".to_string(),
        likely => format!("most likely: {}", likely.join("; or: ")),
    };
    Err(Error::new(
        Code::ModelDiffers,
        format!(
            "{}: logits differ by up to {:.1e} from those that its owner stored, {} of {} pictures are read as the same class; {why}",
            file.display(),
            proof.difference,
            proof.same_class,
            proof.pictures
        ),
        "make data.image say what the model saw (`init` writes it as the file says), or export the model again with docs/export.py",
    ))
}

/// A checkpoint on the job's device, with its digest. How it was read goes into the log.
///
/// # Errors
/// `Configuration`: missing, misshapen, not finite.
pub fn load<'a>(
    place: &Place<'_>,
    graph: &Graph,
    checkpoint: impl Into<CheckpointFile<'a>>,
    kind: Kind,
    report: &mut dyn Report,
) -> Result<(Model, Digest)> {
    let (weights, digest) = weights(graph, checkpoint, kind, report)?;
    Ok((Model::new(graph.clone(), weights.to(place.device, kind)), digest))
}

/// A checkpoint's weights, with the digest of the file that they were read from. How it was read goes into the log.
///
/// # Errors
/// `Configuration`: missing, misshapen, not finite, replaced while it was read.
pub fn weights<'a>(graph: &Graph, checkpoint: impl Into<CheckpointFile<'a>>, kind: Kind, report: &mut dyn Report) -> Result<(Weights, Digest)> {
    let source = checkpoint.into();
    let checkpoint = source.path;
    let digest = weights::digest(checkpoint)?;
    let (weights, notes) = Weights::load_noted(source, graph, kind)?;
    // Two readings of one name may be of two files.
    if weights::digest(checkpoint)? == digest {
        for note in notes {
            report.log(&format!("checkpoint {}: {note}", checkpoint.display()));
        }
        return Ok((weights, digest));
    }
    Err(Error::new(
        Code::ChangedWhileRead,
        format!("the checkpoint {} was replaced while it was read", checkpoint.display()),
        "let nothing write to it while the guard works; put a new checkpoint in its place by renaming it",
    ))
}

/// Position of a class name.
///
/// # Errors
/// `Submission`, listing the classes.
pub fn class_of(name: &str, classes: &[String]) -> Result<u32> {
    classes.iter().position(|c| c == name).map(|p| p as u32).ok_or_else(|| {
        Error::new(
            Code::LabelUnknown,
            format!("there is no class `{name}`"),
            format!("the classes are: {}", classes.join(", ")),
        )
    })
}

/// Decode a submission's picture into planar uint8 of the model's size.
///
/// # Errors
/// `Submission` with the reason.
pub fn picture(anomaly: &Anomaly, limits: &ImageLimits, image: &ImageConfig) -> Result<Vec<u8>> {
    crate::data::decode_submission(&anomaly.image, limits, image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::encode_png;
    use delta_guard_contract::{Device as Wanted, FaultKind, WorkerSetup};

    #[derive(Default)]
    struct Said(Vec<String>);

    impl Report for Said {
        fn progress(&mut self, _: &str, _: u64, _: u64, _: &str) {}
        fn log(&mut self, message: &str) {
            self.0.push(message.into());
        }
    }

    fn training(root: &Path, report: &mut dyn Report) -> Result<DataSet> {
        let source = DataSource {
            path: root.join("set"),
            format: Default::default(),
            split: Default::default(),
            source: None,
        };
        let data = DataConfig {
            train: source.clone(),
            validation: source,
            image: ImageConfig {
                height: 4,
                width: 4,
                ..ImageConfig::default()
            },
            classes: None,
            max_unreadable_share: 0.0,
        };
        let setup = WorkerSetup {
            cache_dir: root.join("cache"),
            factors_dir: root.join("factors"),
            device: Wanted::Cpu,
            threads: 1,
            memory_budget: 1 << 20,
            query_budget: 6 << 30,
            memory_limit: 0,
        };
        let place = Place {
            setup: &setup,
            out_dir: root,
            device: tch::Device::Cpu,
            device_name: "cpu".into(),
            query_budget: 0,
        };
        training_set(&place, &data, report)
    }

    #[test]
    fn one_class_alone_is_told_with_its_place() {
        let root = tempfile::tempdir().unwrap();
        let class = root.path().join("set/products");
        fs_err::create_dir_all(class.join("mug")).unwrap();
        fs_err::write(class.join("mug/1.png"), encode_png(&[9; 48], 4, 4, 1).unwrap()).unwrap();
        let fault = training(root.path(), &mut Said::default()).unwrap_err().fault().clone();
        assert_eq!(fault.kind, FaultKind::Configuration);
        for part in [
            "data.train",
            "one class only",
            "`products`",
            &root.path().join("set").display().to_string(),
        ] {
            assert!(fault.message.contains(part), "{part}: {fault:?}");
        }
        assert!(fault.help.contains(&class.display().to_string()), "{fault:?}");
    }

    #[test]
    fn what_was_passed_over_is_told() {
        let root = tempfile::tempdir().unwrap();
        for class in ["a", "b"] {
            let folder = root.path().join("set").join(class);
            fs_err::create_dir_all(&folder).unwrap();
            fs_err::write(folder.join("1.png"), encode_png(&[9; 48], 4, 4, 1).unwrap()).unwrap();
        }
        let mut said = Said::default();
        assert_eq!(training(root.path(), &mut said).unwrap().len(), 2);
        assert!(!said.0.iter().any(|line| line.contains("passed over")), "{:?}", said.0);
        for name in ["a/1.png~", "b/Thumbs.db"] {
            fs_err::write(root.path().join("set").join(name), b"x").unwrap();
        }
        assert_eq!(training(root.path(), &mut said).unwrap().len(), 2);
        assert!(
            said.0
                .iter()
                .any(|line| line.contains("passed over 2 files") && line.contains("a/1.png~")),
            "{:?}",
            said.0
        );
    }
}
