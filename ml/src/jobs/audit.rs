//! The audit job: class by class, groups that stand apart, as `audit.json` and thumbnails.

use super::case::{Case, name};
use super::lab::{Curvature, FactorSource, ModelLab};
use super::{Place, bench, origins, pictures};
use crate::certify;
use crate::detect::audit::{self, ApartGroup, Audited};
use crate::detect::{PlaceboPicture, queries::picture_from_bytes};
use crate::device;
use crate::error::{Error, Result};
use crate::files;
use crate::progress::{Report, SharedReport};
use delta_guard_contract::audit::{AuditGroup, AuditMember, AuditReport, ClassAudit};
use delta_guard_contract::detect::Detector;
use delta_guard_contract::job::JobResult;
use delta_guard_contract::method::Method;
use delta_guard_contract::{DataConfig, DetectConfig, ModelConfig, Seed};
use std::collections::BTreeMap;
use std::time::Instant;

/// Pictures of other classes that are read as one, and that its kin may grow from: the surest.
const MISREAD: usize = 20;
/// Members of a group that get a thumbnail.
const SHOWN: usize = 48;

/// What is asked.
pub struct AuditAsked<'a> {
    /// Classes by name; none: all.
    pub classes: &'a [String],
    /// Seed of what is drawn where `detect.seed` is unset.
    pub seed: Seed,
    /// Of the factors.
    pub factors_seed: Seed,
}

/// [`delta_guard_contract::Task::Audit`].
pub fn audit(
    place: &Place<'_>,
    data: &DataConfig,
    model: &ModelConfig,
    detect: &DetectConfig,
    asked: &AuditAsked<'_>,
    report: &mut dyn Report,
) -> Result<JobResult> {
    let Detector::Guard(keys) = &detect.method else {
        return Err(Error::configuration(
            format!("an audit is made by the guard's steps, and detect.method is {}", detect.method.name()),
            "set detect.method to guard",
        ));
    };
    let mut case = Case::of_no_class(place, data, model, detect, asked.seed, report)?;
    let labels: Vec<u32> = match asked.classes {
        [] => (0..case.train.classes().len() as u32).collect(),
        names => names
            .iter()
            .map(|name| bench::class_of(name, case.train.classes()))
            .collect::<Result<_>>()?,
    };
    let start = Instant::now();
    let misread = Misread::of(&case, report)?;
    let mut seconds = BTreeMap::from([("predict".to_string(), start.elapsed().as_secs_f64())]);
    let mut classes = Vec::new();
    for (done, &label) in labels.iter().enumerate() {
        let class = name(&case.train, label);
        report.log(&format!("class {class} ({} of {})", done + 1, labels.len()));
        case.turn_to(label, report)?;
        let source = FactorSource {
            detect,
            seed: asked.factors_seed,
            scores: None,
        };
        let (shared, curvature) = (SharedReport::new(report), Curvature::default());
        let (mut passes, mut sources, mut steps) = (&shared, &shared, &shared);
        let mut lab = ModelLab::new(place, &case, source, &curvature, (&mut passes, &mut sources));
        let found = audit::audit(keys, &mut lab, &case.question(), &misread.as_label(&case, label)?, &mut steps)?;
        for (step, took) in lab.seconds() {
            *seconds.entry(step).or_default() += took;
        }
        drop(lab);
        classes.push(of_class(place, &case, class, found)?);
    }
    let report = AuditReport {
        classes,
        checkpoint: case.checkpoint.clone(),
        manifest: case.train.manifest_digest().clone(),
        settings: detect.clone().resolved(),
        seed: case.seed,
        seconds,
        peak_memory: device::peak_memory(),
        device: place.device_name.clone(),
    };
    let text = serde_json::to_vec_pretty(&report).map_err(|e| Error::internal(format!("audit report: {e}")))?;
    files::write_atomic(&place.out_dir.join("audit.json"), &text)?;
    Ok(JobResult::Audit(Box::new(report)))
}

/// Validation pictures that the model reads wrongly: position, what it reads, how surely. The surest first.
struct Misread(Vec<(usize, u32, f64)>);

impl Misread {
    fn of(case: &Case<'_>, report: &mut dyn Report) -> Result<Self> {
        let Some(set) = &case.validation else { return Ok(Self(Vec::new())) };
        let all: Vec<usize> = (0..set.len()).collect();
        let read = certify::predictions(&case.model, set, case.image, &all, "predict", report)?;
        let wrong = all.iter().zip(read).filter(|(i, (class, _))| set.labels()[**i] != *class);
        let mut wrong: Vec<(usize, u32, f64)> = wrong.map(|(&i, (class, probability))| (i, class, probability)).collect();
        wrong.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
        Ok(Self(wrong))
    }

    /// The surest of those that are read as `label`.
    fn as_label(&self, case: &Case<'_>, label: u32) -> Result<Vec<PlaceboPicture>> {
        let Some(set) = &case.validation else { return Ok(Vec::new()) };
        let image = case.image;
        let one = |&(i, ..): &(usize, u32, f64)| {
            Ok(PlaceboPicture {
                id: set.ids()[i].clone(),
                picture: picture_from_bytes(set.pixels(i), image.channels(), image.height as usize, image.width as usize)?,
            })
        };
        self.0.iter().filter(|(_, class, _)| *class == label).take(MISREAD).map(one).collect()
    }
}

fn of_class(place: &Place<'_>, case: &Case<'_>, label: String, found: Audited) -> Result<ClassAudit> {
    let members = case.question().members();
    let groups = (1..)
        .zip(&found.groups)
        .map(|(number, group)| of_group(place, case, &members, number, group));
    Ok(ClassAudit {
        label,
        examples: members.len() as u64,
        null_pictures: found.null_pictures as u64,
        starts: found.starts as u64,
        groups: groups.collect::<Result<_>>()?,
        skipped: found.skipped,
        notes: found.notes,
    })
}

fn of_group(place: &Place<'_>, case: &Case<'_>, class: &[usize], number: usize, group: &ApartGroup) -> Result<AuditGroup> {
    let train = &case.train;
    let positions: Vec<usize> = group.members.iter().map(|(position, _)| *position).collect();
    let prefix = format!("{}-{number}", case.wrong);
    let thumbnails = pictures::of_examples(place, train, case.image, &positions[..positions.len().min(SHOWN)], &prefix)?;
    let shown = thumbnails.into_iter().map(Some).chain(std::iter::repeat(None));
    let members = (group.members.iter().zip(shown))
        .map(|(&(position, kappa), thumbnail)| AuditMember {
            id: train.ids()[position].clone(),
            kappa,
            thumbnail,
        })
        .collect();
    Ok(AuditGroup {
        members,
        d_prime: group.d_prime,
        founders: group.founders as u64,
        p: group.p,
        grown_from: group.grown_from.clone(),
        features: group.features,
        shared: pictures::shared_by(place, train, case.wrong, class, &positions)?,
        sources: origins::sources(train, &positions),
    })
}
