//! The audit job: what it lays out for each class, on a set whose truth is known.

use super::scene::{SCENE, attempt, detect, small, with};
use delta_guard_contract::audit::AuditReport;
use delta_guard_contract::detect::{Delta, DetectConfig, Detector, paper_code};
use delta_guard_contract::{Fault, JobResult, Seed, Task};
use std::collections::BTreeSet;

fn audit(name: &str, detect: DetectConfig, classes: &[&str]) -> Result<AuditReport, Fault> {
    let task = Task::Audit {
        data: SCENE.data(),
        model: SCENE.model(),
        detect,
        classes: classes.iter().map(|class| (*class).to_owned()).collect(),
        seed: Seed(77),
        factors_seed: Seed(78),
    };
    match attempt(&SCENE.folder, name, task)? {
        JobResult::Audit(report) => Ok(*report),
        other => panic!("an audit answers with {other:?}"),
    }
}

#[test]
fn the_poisons_are_found_without_an_anomaly_and_every_class_is_told() {
    let report = audit("audit", with(detect(), "alpha", 0.05.into()), &[]).unwrap();
    let classes = &SCENE.prepared.classes;
    assert!(
        report.classes.iter().map(|class| &class.label).eq(classes.iter()),
        "all classes, in label order"
    );
    let train = SCENE.open(&SCENE.data().train);
    for (label, class) in (0..).zip(&report.classes) {
        assert_eq!(class.examples as usize, train.labels().iter().filter(|&&l| l == label).count());
        // Of the others there are too few validation pictures.
        assert_eq!(class.skipped.is_none(), class.label == SCENE.target(), "{class:?}");
        assert_eq!(class.groups.is_empty(), class.label != SCENE.target());
    }
    let (class, group) = report.groups().next().unwrap();
    assert!(class.null_pictures >= 50 && class.groups.len() == 1);
    let poisons: BTreeSet<_> = SCENE.prepared.poisons.iter().collect();
    let hits = group.members.iter().filter(|member| poisons.contains(&member.id)).count();
    assert!(
        hits >= 18 && group.members.len() - hits <= 2,
        "{hits} of {} members are poisons",
        group.members.len()
    );
    assert!(group.members.windows(2).all(|pair| pair[0].kappa >= pair[1].kappa));
    for member in &group.members {
        let picture = SCENE.folder.join("audit").join(member.thumbnail.as_ref().unwrap());
        assert!(std::fs::read(picture).unwrap().starts_with(b"\x89PNG"));
    }
    // They share the trigger: a checkered square of 8 × 8.
    let shared = group.shared.as_ref().unwrap();
    assert!((50..=80).contains(&shared.pixels), "{shared:?}");
    let written: AuditReport = serde_json::from_slice(&std::fs::read(SCENE.folder.join("audit/audit.json")).unwrap()).unwrap();
    assert_eq!(written, report);
    assert!(report.seconds["score"] > 0.0 && report.seconds.contains_key("predict"));
}

#[test]
fn the_classes_that_are_named_are_asked_and_others_are_refused() {
    let report = audit("audit-one", detect(), &["disc"]).unwrap();
    assert_eq!(report.classes.len(), 1);
    assert_eq!((&report.classes[0].label[..], report.classes[0].skipped.is_some()), ("disc", true));
    let unknown = audit("audit-none", detect(), &["unicorn"]).unwrap_err();
    assert!(unknown.message.contains("unicorn"), "{unknown:?}");
    let other = DetectConfig {
        method: Detector::PaperCode(paper_code::Keys {
            delta: small(Delta::default()),
        }),
        ..detect()
    };
    let refused = audit("audit-other", other, &[]).unwrap_err();
    assert!(
        refused.message.contains("paper-code") && refused.help.contains("detect.method"),
        "{refused:?}"
    );
    let gradients = audit(
        "audit-gradients",
        with(with(detect(), "alpha", 0.05.into()), "feature_weight", 0.0.into()),
        &[SCENE.target()],
    )
    .unwrap();
    assert!(gradients.groups().all(|(_, group)| !group.features) && gradients.groups().count() == 1);
}
