//! The metrics page of a daemon that has worked, as Prometheus' own tool judges it.

use super::daemon::{Place, text};
use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn the_page_is_what_prometheus_expects() {
    let place = Place::new("");
    let daemon = place.start();
    place.drop_in(b"wrong.png", "label=dog\nverdict=undecided\n");
    place.drop_in(b"empty.png", "");
    daemon.wait_for_metric("delta_guard_cases_ended_total{end=\"undecided\"} 1");
    daemon.wait_for_metric("delta_guard_refused_total{reason=\"empty\"} 1");
    let (code, page) = daemon.get("/metrics").unwrap();
    assert_eq!(code, 200);
    let value = |name: &str| {
        page.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok())
    };
    // What was seen became a case or was refused: nothing is lost in between.
    assert_eq!(
        (value("delta_guard_files_seen_total"), value("delta_guard_accepted_total")),
        (Some(2.0), Some(1.0)),
        "{page}"
    );
    assert_eq!(value("delta_guard_ready"), Some(1.0));
    let build = page.lines().find(|line| line.starts_with("delta_guard_build_info{")).unwrap();
    assert!(build.contains("mode=\"propose\""), "{build}");
    assert!(value("delta_guard_journal_records_total") > Some(4.0));
    let series = page.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series <= 500, "{series} series");

    let documented = include_str!("../../docs/operations.md");
    for name in page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| name.starts_with("delta_guard_"))
    {
        assert!(documented.contains(&format!("`{name}`")), "docs/operations.md does not explain {name}");
    }

    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    match promtool {
        Ok(mut child) => {
            child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "promtool: {}{}", text(&output.stdout), text(&output.stderr));
        }
        Err(error) => eprintln!("SKIPPED: promtool check metrics ({error})"),
    }
}
