//! What the model said before and after, and what the repair cost.

use super::{answers, chart, words};
use crate::engine::CaseView;
use delta_guard_contract::job::Prediction;
use maud::{Markup, html};

/// At most this many classes are shown at once.
const CLASSES: usize = 6;

/// How the models read the anomaly.
pub(super) fn readings(view: &CaseView) -> Markup {
    let certify = view.certify.as_ref();
    let before = certify.and_then(|certify| certify.anomalies_before.first()).or(view.prediction.as_ref());
    let after = certify.and_then(|certify| certify.anomalies_after.first());
    let wrong = words::wrong_label(view);
    let Some(before) = before else { return html! {} };
    html! {
        section {
            h2 { "What the model says about this picture" }
            div class="two" {
                div class="card" { (reading("Production model", before, wrong)) }
                @if let Some(after) = after { div class="card" { (reading("Candidate", after, wrong)) } }
            }
            @if let Some(read) = certify.and_then(|certify| certify.flagged.as_ref()) {
                h3 { "And about the flagged training pictures" }
                p class="intro" { (answers::read_otherwise(read)) " What it reads them as is often what they should have been labelled." }
                @if !read.read_as.is_empty() {
                    div class="card reading" {
                        @for (label, count) in &read.read_as {
                            span class="name" { (label) }
                            (chart::bar(*count as f64 / read.examples.max(1) as f64, if Some(label.as_str()) == wrong { "hot" } else { "" }))
                            span { (words::thousands(*count)) }
                        }
                    }
                }
            }
        }
    }
}

fn reading(title: &str, prediction: &Prediction, wrong: Option<&str>) -> Markup {
    html! {
        h3 style="margin-top:0" { (title) ": “" (prediction.label) "”" }
        div class="reading" {
            @for (label, probability) in prediction.top.iter().take(5) {
                span class="name" { (label) }
                (chart::bar(*probability, if Some(label.as_str()) == wrong { "hot" } else { "" }))
                span { (words::percent(*probability)) }
            }
        }
    }
}

/// Accuracy before and after, the classes that lost most, and the gate's word.
pub(super) fn before_and_after(view: &CaseView) -> Markup {
    let Some(certify) = &view.certify else { return html! {} };
    let changes = words::class_changes(&certify.before, &certify.after);
    let (first, rest) = changes.split_at(changes.len().min(CLASSES));
    let row = |name: Markup, before: f64, after: f64| {
        let class = if after < before - 0.0005 {
            "n down"
        } else if after > before + 0.0005 {
            "n up"
        } else {
            "n"
        };
        html! { tr { td { (name) } td class="n" { (words::percent(before)) } td class="n" { (words::percent(after)) } td class=(class) { (words::points(before, after)) } } }
    };
    let table = |rows: Markup| html! { div class="scroll" { table { thead { tr { th { "" } th class="n" { "production" } th class="n" { "candidate" } th class="n" { "change" } } } tbody { (rows) } } } };
    html! {
        section {
            h2 { "What the repair costs" }
            p class="intro" { "Both models on the same " (words::thousands(certify.after.examples)) " clean validation pictures." }
            div class="card" {
                (table(html! {
                    (row(html! { b { "All classes" } }, certify.before.share(), certify.after.share()))
                    @for (name, before, after) in first { (row(html! { (name) }, *before, *after)) }
                }))
                @if !rest.is_empty() {
                    details { summary { (rest.len()) " more classes" } (table(html! { @for (name, before, after) in rest { (row(html! { (name) }, *before, *after)) } })) }
                }
            }
            @if let Some(gate) = &view.gate {
                h3 { "Gate: " span class=(if gate.pass { "tag good" } else { "tag bad" }) { (if gate.pass { "passed" } else { "not passed" }) } }
                @if !gate.reasons.is_empty() { ul class="reasons" { @for reason in &gate.reasons { li { (reason) } } } }
                @if !gate.notes.is_empty() { ul class="reasons soft" { @for note in &gate.notes { li { (note) } } } }
            }
            @if let Some(unlearn) = &view.unlearn {
                p class="soft" {
                    "Candidate trained on " (words::thousands(unlearn.examples)) " examples in " (words::seconds(unlearn.seconds))
                    " (last epoch: loss " (format!("{:.3}", unlearn.train_loss)) ", accuracy " (words::percent(unlearn.train_accuracy)) ")."
                }
            }
        }
    }
}
