//! How the figures were made: seconds, digests, places, every setting.

use super::{chart, exhibits, words};
use crate::engine::CaseView;
use delta_guard_contract::method::Method;
use maud::{Markup, html};

/// The last section.
pub(super) fn made(view: &CaseView) -> Markup {
    let total: f64 = view.seconds.values().sum();
    // In the order of the stages, not of the alphabet.
    let stages: Vec<_> = crate::case::Stage::ALL
        .iter()
        .filter_map(|stage| view.seconds.get_key_value(stage.as_str()))
        .collect();
    html! {
        section {
            h2 { "How this was made" }
            @if !stages.is_empty() {
                div class="card" {
                    table {
                        thead { tr { th { "stage" } th style="width:55%" {} th class="n" { "time" } } }
                        tbody { @for (stage, seconds) in stages {
                            tr { td { (stage) } td style="vertical-align:middle" { (chart::bar(seconds / total.max(1e-9), "")) } td class="n" { (words::seconds(*seconds)) } }
                        } }
                    }
                    @if let Some(trace) = view.trace.as_ref().filter(|trace| !trace.seconds.is_empty()) {
                        details {
                            summary { "Steps of the trace" }
                            table { tbody { @for (step, seconds) in &trace.seconds { tr { td { (step) } td class="n" { (words::seconds(*seconds)) } } } } }
                        }
                    }
                }
            }
            h3 { "What it rests on" }
            div class="card scroll" { table { tbody { @for (name, value) in facts(view) { tr { td { (name) } td class="wide" { code { (value) } } } } } } }
            @if let Some(trace) = &view.trace { (settings("Settings of the detector, resolved", &serde_json::to_value(&trace.settings).unwrap_or_default())) }
            (settings("All settings of the guard", &view.settings))
        }
    }
}

fn settings(title: &str, value: &serde_json::Value) -> Markup {
    html! {
        @if !value.is_null() {
            details { summary { (title) } pre { (serde_json::to_string_pretty(value).unwrap_or_default()) } }
        }
    }
}

/// Digests and places.
fn facts(view: &CaseView) -> Vec<(&str, String)> {
    let submission = &view.submission;
    let mut facts = vec![
        ("case", view.case.to_string()),
        ("picture", format!("{} ({})", submission.content, words::bytes(submission.bytes))),
        ("production checkpoint", submission.checkpoint.to_string()),
    ];
    if let Some(source) = &submission.source {
        facts.push(("source, as submitted", source.clone()));
    }
    if let Some(trace) = &view.trace {
        facts.push(("training manifest", trace.manifest.to_string()));
        let factors = match &trace.factors {
            None => format!("none: the detector {} needs none", trace.settings.method.name()),
            Some(factors) => {
                let how = if factors.reused { "found on disk" } else { "fitted for this case" };
                format!("{} ({how}, {} examples)", factors.key, words::thousands(factors.examples))
            }
        };
        facts.push(("EK-FAC factors", factors));
        facts.extend(trace.tracked.iter().map(|tracked| ("influence is computed on", tracked.sentence())));
        facts.push(("device, peak memory", format!("{}, {}", trace.device, words::bytes(trace.peak_memory))));
        facts.extend(exhibits::facts(trace));
    }
    if let Some(certify) = &view.certify {
        facts.push(("candidate", certify.candidate.to_string()));
    }
    facts.push(("case folder", view.paths.case_dir.display().to_string()));
    if let Some(candidate) = &view.paths.candidate {
        facts.push(("candidate folder", candidate.display().to_string()));
    }
    facts
}
