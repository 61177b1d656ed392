//! The report of a case: one HTML page that holds everything it shows. No script, no request to anywhere; everything that others wrote is escaped.
//!
//! The page is read by people who must decide whether to remove training data, so it says first what was found, then why one should believe it,
//! then what it costs, and last how it was made.

pub mod actions;
mod answers;
pub mod audit;
mod chart;
mod evidence;
mod exhibits;
mod making;
mod repair;
pub mod words;

pub use chart::colour;
pub use evidence::picture;
pub(crate) use exhibits::facts;

use crate::engine::CaseView;
use delta_guard_contract::verify::UNPROVED;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use words::{Tone, headline};

/// The style sheet, inlined.
pub(crate) const STYLE: &str = include_str!("style.css");

/// What a browser may do with the page: show the pictures that are in it, and nothing else.
pub(crate) const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
/// The same for a page that is served, where a header can also keep it out of others' frames.
pub const SERVED_POLICY: &str =
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The head of a page that is complete in itself.
pub(crate) fn page_head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta http-equiv="Content-Security-Policy" content=(POLICY);
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="referrer" content="no-referrer";
            meta name="robots" content="noindex";
            title { (title) }
            style { (PreEscaped(STYLE)) }
        }
    }
}

/// The report of `view` as one HTML page. Reads the thumbnails beside the trace report; one that cannot be read is shown as missing.
pub fn page(view: &CaseView) -> String {
    let head = headline(view);
    let tone = class_of(head.tone);
    let date = view.ended_at.unwrap_or(view.accepted_at);
    html! {
        (DOCTYPE)
        html lang="en" {
            (page_head(&format!("{}: {} – {}", head.tag, view.submission.name, view.instance)))
            body {
                header class=(tone) {
                    div class="brand" {
                        b { "delta-guard" } span { (view.instance) }
                        @if !view.owner.is_empty() { span { (view.owner) } }
                        span { (date.strftime("%-d %B %Y, %H:%M UTC")) } span { "case " code { (view.case.short()) } }
                    }
                    div class="lead" {
                        div {
                            span class=(format!("tag {tone}")) { (head.tag) }
                            h1 { (head.title) }
                            p { (head.meaning) }
                            @if view.unproved { p { "Take this with care: " (UNPROVED) "." } }
                        }
                        (evidence::anomaly(view))
                    }
                    (answers::answers(view))
                    (figures(view))
                }
                main {
                    (repair::readings(view))
                    (evidence::flagged(view))
                    (exhibits::review(view))
                    (exhibits::why(view))
                    (repair::left_out(view))
                    (repair::regrown(view))
                    (repair::before_and_after(view))
                    (next_steps(view))
                    (making::made(view))
                }
                footer {
                    "Made by delta-guard " (env!("CARGO_PKG_VERSION")) " from the records of case " code { (view.case) } ". "
                    "This page holds everything it shows and asks nothing of any network."
                }
            }
        }
    }
    .into_string()
}

/// The tone's CSS class.
fn class_of(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Attention => "attention",
        Tone::Bad => "bad",
        Tone::Quiet => "quiet",
    }
}

/// The four numbers that one looks for first.
fn figures(view: &CaseView) -> Markup {
    let total: f64 = view.seconds.values().sum();
    let cell = |name: &str, value: Markup, note: String| html! { div { div class="name" { (name) } div class="value" { (value) } div class="note" { (note) } } };
    html! {
        div class="figures" {
            @if let Some(trace) = &view.trace {
                (cell(
                    "Flagged training examples",
                    html! { (words::thousands(trace.flagged.len() as u64)) small { " of " (words::thousands(trace.examples)) } },
                    format!("{} of {} with the label “{}”", words::thousands(trace.flagged.iter().filter(|e| e.label == trace.predicted_label).count() as u64), words::thousands(trace.examples_of_label), trace.predicted_label),
                ))
            }
            @if let Some(certify) = &view.certify {
                (cell(
                    "Validation accuracy",
                    html! { (words::percent(certify.before.share())) small { " → " } (words::percent(certify.after.share())) },
                    format!("{} on {} pictures", words::points(certify.before.share(), certify.after.share()), words::thousands(certify.after.examples)),
                ))
                @if let Some((name, before, after)) = words::worst_class(&certify.before, &certify.after) {
                    (cell("Class that lost most", html! { (words::points(before, after)) }, format!("“{name}”, {} → {}", words::percent(before), words::percent(after))))
                }
            }
            @if total > 0.0 {
                (cell("Time of all stages", html! { (words::seconds(total)) }, device(view)))
            }
        }
    }
}

/// Where it was computed, without the explanation in brackets that the worker may add.
fn device(view: &CaseView) -> String {
    view.trace
        .as_ref()
        .map_or_else(String::new, |trace| format!("on {}", trace.device.split(" (").next().unwrap_or_default()))
}

fn next_steps(view: &CaseView) -> Markup {
    html! {
        section id="next" {
            h2 { "What you can do now" }
            ol class="steps" {
                @for action in actions::actions(view) {
                    li { (action.why) @if !action.command.is_empty() { pre { (action.command) } } }
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
