#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use delta_guard_contract::Digest;

fn page(metrics: &Metrics) -> String {
    String::from_utf8(metrics.page().unwrap()).unwrap()
}

#[test]
fn every_label_is_there_from_the_start_and_every_event_counts() {
    let metrics = Metrics::new("animals", "propose");
    let before = page(&metrics);
    for line in [
        "delta_guard_refused_total{reason=\"bad-sidecar\"} 0",
        "delta_guard_stage_failures_total{fault=\"resource\",stage=\"trace\"} 0",
        "delta_guard_cases_ended_total{end=\"no-anomaly\"} 0",
        "delta_guard_mail_retried_total{why=\"timeout\"} 0",
        "delta_guard_stage_duration_seconds_count{stage=\"unlearn\"} 0",
        "delta_guard_ready 0",
    ] {
        assert!(before.contains(line), "{line} not in\n{before}");
    }
    let case = Digest("ab".repeat(32));
    metrics.on(Happening::Refused {
        reason: Refusal::BadSidecar,
        name: "x".into(),
        sentence: "y".into(),
    });
    metrics.on(Happening::StageStarted {
        case: case.clone(),
        stage: Stage::Trace,
        attempt: 1,
    });
    assert!(page(&metrics).contains("delta_guard_worker_up 1"));
    let progress = Progress {
        step: "score".into(),
        done: 1,
        total: 4,
        note: String::new(),
    };
    metrics.on(Happening::Progress {
        case: case.clone(),
        stage: Stage::Trace,
        progress,
    });
    let ratio = |metrics: &Metrics| -> f64 {
        let page = page(metrics);
        let line = page
            .lines()
            .find(|line| line.starts_with("delta_guard_stage_progress_ratio{stage=\"trace\"}"));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (far, now) = (ratio(&metrics), metrics.under_way().unwrap().1);
    assert!(far > 0.3 && far == now.ratio && now.step == "score", "{now:?}");
    // Another step that is nearer to its end does not make it more, nor an earlier one less.
    for step in ["read", "score", "null"] {
        let progress = Progress {
            step: step.into(),
            done: 0,
            total: 4,
            note: String::new(),
        };
        metrics.on(Happening::Progress {
            case: case.clone(),
            stage: Stage::Trace,
            progress,
        });
        assert!(ratio(&metrics) >= far, "{step}");
    }
    metrics.on(Happening::StageFailed {
        case: case.clone(),
        stage: Stage::Trace,
        kind: FaultKind::Resource,
        message: "m".into(),
        retry_in: None,
    });
    metrics.on(Happening::CaseEnded {
        case,
        state: State::NoAnomaly,
        reason: String::new(),
    });
    metrics.on(Happening::Queue {
        open: 3,
        held: 1,
        proposed: 2,
    });
    let after = page(&metrics);
    for line in [
        "delta_guard_refused_total{reason=\"bad-sidecar\"} 1",
        "delta_guard_stage_failures_total{fault=\"resource\",stage=\"trace\"} 1",
        "delta_guard_cases_ended_total{end=\"no-anomaly\"} 1",
        "delta_guard_worker_up 0",
        "delta_guard_queue_length 3",
        "delta_guard_cases_held 1",
    ] {
        assert!(after.contains(line), "{line} not in\n{after}");
    }
}

#[test]
fn hostile_names_cannot_break_the_page() {
    let metrics = Metrics::new("a\"b\n\\c", "propose");
    let page = page(&metrics);
    assert!(page.contains(r#"guard="a\"b\n\\c""#), "{page}");
}
