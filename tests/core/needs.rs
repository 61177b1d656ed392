//! A case's course is what its detector needs: without factors nothing is fitted, and the journal says so.

use crate::support::{drop_picture, run_to_end, settings};
use delta_guard::case::Stage;
use delta_guard::engine::CaseView;
use delta_guard::journal::Reader;
use delta_guard::policy::Mode;
use delta_guard::vfs::Disk;
use delta_guard_contract::DetectConfig;
use delta_guard_contract::detect::Detector;
use delta_guard_contract::method::Method;
use std::sync::Arc;

/// One case for each detector that there is.
#[test]
fn only_what_the_detector_needs_is_fitted() {
    for name in Detector::NAMES {
        let root = tempfile::tempdir().unwrap();
        let mut settings = settings(root.path(), Mode::Observe);
        settings.detect = DetectConfig {
            method: Detector::named(name).unwrap(),
            ..DetectConfig::default()
        };
        let fits = settings.detect.needs().factors.is_some();
        drop_picture(&settings, "odd.png", "label=dog\n", None);
        let case = run_to_end(&settings);
        assert_eq!(case.state.as_str(), "observed", "{name}");
        assert_eq!(
            (case.seconds.contains_key(&Stage::Fit), case.seconds.contains_key(&Stage::Trace)),
            (fits, true),
            "{name}"
        );

        let mut course = Vec::new();
        let mut reader = Reader::new(Arc::new(Disk), &settings.journal_dir());
        reader
            .read(&mut |record, _| {
                match record.kind.as_str() {
                    "stage-started" => course.push(record.data["stage"].as_str().unwrap().to_owned()),
                    "fit-skipped" => course.push(format!("none for {}", record.data["detector"].as_str().unwrap())),
                    _ => {}
                }
                Ok(())
            })
            .unwrap();
        let fit = if fits { "fit".to_owned() } else { format!("none for {name}") };
        assert_eq!(course[..3], ["predict".to_owned(), fit, "trace".to_owned()]);

        let factors = CaseView::new(&case, &settings).trace.map(|trace| trace.factors.is_some());
        assert_eq!(factors, Some(fits), "{name}");
    }
}
