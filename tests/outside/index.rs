//! The index's files damaged under a running daemon.

use super::daemon::{Place, wait_for};
use std::os::unix::fs::FileExt;

/// Every answer over HTTP is right, while the index is out of use and after; metrics and log tell.
#[test]
fn questions_are_answered_rightly_while_a_damaged_index_is_made_again() {
    let place = Place::new("mode: observe");
    let daemon = place.start();
    // More than the index keeps in memory.
    for n in 0..4 {
        place.drop_in(format!("{n}.png").as_bytes(), &format!("label=dog\nflag=12000\nn={n}\n"));
    }
    daemon.wait_for_metric("delta_guard_cases_ended_total{end=\"observed\"} 4");
    daemon.wait_for_metric("delta_guard_stage_duration_seconds_count{stage=\"tell\"} 4");
    let ask = |path: &str| -> serde_json::Value {
        let (code, body) = daemon.get(path).unwrap();
        assert_eq!(code, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    };
    let cases = ask("/api/v1/cases?state=observed");
    let ids: Vec<String> = cases
        .as_array()
        .unwrap()
        .iter()
        .map(|case| case["case"].as_str().unwrap().into())
        .collect();
    assert_eq!(ids.len(), 4, "{cases}");
    let one = ask(&format!("/api/v1/cases/{}", ids[3]));
    assert_eq!(ask("/api/v1/status")["index"], true);
    for entry in std::fs::read_dir(place.at("state/index")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let length = std::fs::metadata(&path).unwrap().len();
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&vec![0xff; length as usize], 0).unwrap();
        }
    }
    let mut n = 0;
    wait_for("a new index", || {
        assert_eq!(ask("/api/v1/cases?state=observed"), cases);
        assert_eq!(ask(&format!("/api/v1/cases/{}", ids[3])), one);
        // Work goes on, and each record is one more look at the index.
        place.drop_in(format!("small-{n}.png").as_bytes(), &format!("BROKEN {n}"));
        n += 1;
        let page = daemon.get("/metrics").unwrap().1;
        page.lines().any(|line| line == "delta_guard_index_rebuilt_total 1").then_some(())
    });
    wait_for("the index in use", || (ask("/api/v1/status")["index"] == true).then_some(()));
    assert_eq!(ask(&format!("/api/v1/cases/{}", ids[3])), one);
    assert!(daemon.get("/metrics").unwrap().1.contains("\ndelta_guard_index_failed_total 1\n"));
    let log = daemon.log();
    assert!(
        log.contains("Index out of use") && log.contains("Index rebuilt from the journal"),
        "{log}"
    );
    assert_eq!(daemon.stop(), Some(0));
}
