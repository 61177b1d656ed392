//! The pictures: the anomaly, the flagged examples with their evidence, and why the group stands out.

use super::{answers, chart, words};
use crate::cli::advice;
use crate::engine::CaseView;
use base64::Engine;
use delta_guard_contract::job::PICTURE_FILE;
use delta_guard_contract::{FlaggedExample, TraceReport};
use maud::{Markup, html};
use std::path::{Component, Path};

/// Of the strongest, at most this many are shown at once; the rest on request.
const SHOWN: usize = 24;
/// Of the least sure, at most this many are shown, on request.
const LEAST: usize = 24;
/// At most this many are put into the page: it must stay a page that one can mail.
const MOST: usize = 400;
/// A thumbnail is a small PNG; anything larger is not one.
const THUMBNAIL_BYTES: u64 = 256 * 1024;

/// A thumbnail as a data URI.
fn data_uri(folder: Option<&Path>, name: Option<&String>) -> Option<String> {
    png(folder?, Path::new(name?)).map(|bytes| uri(&bytes))
}

fn uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png))
}

/// The submitted picture as the worker wrote it anew: by the trace, or before that by the prediction. None where there is neither.
pub fn picture(view: &CaseView) -> Option<Vec<u8>> {
    let traced = view.trace.as_ref().and_then(|trace| trace.thumbnails.get("anomaly"));
    if let (Some(folder), Some(name)) = (view.paths.trace_dir.as_deref(), traced)
        && let Some(bytes) = png(folder, Path::new(name))
    {
        return Some(bytes);
    }
    // One folder for each set of settings under which it was predicted.
    let work = view.paths.case_dir.join("work");
    let mut folders: Vec<_> = std::fs::read_dir(work)
        .ok()?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    folders.sort();
    let predicted = |folder: &Path| folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("predict-"));
    folders
        .iter()
        .filter(|folder| predicted(folder))
        .find_map(|folder| png(folder, Path::new(PICTURE_FILE)))
}

/// A small PNG. None when it is not there, too large, outside its folder or no PNG: the worker writes PNG, and nothing else is passed on.
fn png(folder: &Path, name: &Path) -> Option<Vec<u8>> {
    if !name.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let path = folder.join(name);
    let meta = std::fs::symlink_metadata(&path).ok()?;
    if !meta.is_file() || meta.len() > THUMBNAIL_BYTES {
        return None;
    }
    let bytes = std::fs::read(&path).ok()?;
    bytes.starts_with(b"\x89PNG\r\n\x1a\n").then_some(bytes)
}

/// The submitted picture and what it was taken for.
pub(super) fn anomaly(view: &CaseView) -> Markup {
    let thumbnail = picture(view).map(|png| uri(&png));
    html! {
        figure class="anomaly" {
            @match thumbnail {
                Some(uri) => img src=(uri) alt="the submitted picture";,
                None => div class="none" { "no picture" },
            }
            figcaption {
                b { (view.submission.name) }
                @if let Some(label) = words::wrong_label(view) { br; "read as " b { "“" (label) "”" } }
                @if let Some(label) = &view.submission.true_label { br; "it shows “" (label) "”" }
                @if let Some(note) = &view.submission.note { br; (note) }
            }
        }
    }
}

/// The flagged examples, each with its evidence, and what they share.
pub(super) fn flagged(view: &CaseView) -> Markup {
    let Some(trace) = view.trace.as_ref().filter(|trace| !trace.flagged.is_empty()) else {
        return html! {};
    };
    let strongest = trace.flagged.iter().map(|e| e.kappa).fold(f64::EPSILON, f64::max);
    let card = |example: &FlaggedExample| thumb(view, trace, example, strongest);
    let (first, rest) = trace.flagged.split_at(trace.flagged.len().min(SHOWN));
    // The end of the list is where a mistake would stand.
    let (middle, least) = rest.split_at(rest.len().saturating_sub(LEAST));
    let (more, beyond) = middle.split_at(middle.len().min(MOST - SHOWN - LEAST));
    html! {
        section class="thumbs-section" {
            h2 { "The training examples behind it" }
            p class="intro" {
                "Strongest evidence first. The bar and the number are κ: how much an example’s effect on the model is like that of the seeds. "
                "Point at a picture for the rest. Every figure of every example: " code { (advice::flagged(view.case.short()).line(view.config.as_deref())) }
            }
            div class="thumbs" { @for example in first { (card(example)) } }
            @if !least.is_empty() {
                details { summary { "The " (words::thousands(least.len() as u64)) " least sure" } div class="thumbs" { @for example in least.iter().rev() { (card(example)) } } }
            }
            @if !more.is_empty() {
                details { summary { "Those between (" (words::thousands(more.len() as u64)) ")" } div class="thumbs" { @for example in more { (card(example)) } } }
            }
            @if !beyond.is_empty() {
                p class="soft" { (words::thousands(beyond.len() as u64)) " further examples are not shown here." }
            }
            (shared(view, trace))
        }
    }
}

/// What the flagged share, drawn and said.
fn shared(view: &CaseView, trace: &TraceReport) -> Markup {
    let Some((shared, sentence)) = trace.shared.as_ref().and_then(|shared| Some((shared, answers::shared(shared)?))) else {
        return html! {};
    };
    let picture = data_uri(view.paths.trace_dir.as_deref(), shared.picture.as_ref().map(|picture| &picture.file));
    html! {
        h3 { "What they share" }
        div class="shared" {
            @if let Some(uri) = picture { img src=(uri) alt="the pixels that the flagged examples share"; }
            p { (sentence) " Compared were " (words::thousands(shared.flagged)) " flagged and " (words::thousands(shared.others)) " others." }
        }
    }
}

fn thumb(view: &CaseView, trace: &TraceReport, example: &FlaggedExample, strongest: f64) -> Markup {
    // In the last round the whole group may have served as seeds: then the word tells nothing.
    let seed = example.seed && trace.flagged.iter().any(|other| !other.seed);
    let title = format!(
        "{} – label {}, rank {}, κ {:.3}, Δ {:.3}, fell in {} of {} changes{}",
        example.id,
        example.label,
        example.rank,
        example.kappa,
        example.mean_scaled_delta,
        example.count,
        trace.settings.queries,
        if seed { ", seed" } else { "" }
    );
    // The paper's rule has no κ.
    let evidence = if example.kappa > 0.0 {
        format!("κ {:.2}", example.kappa)
    } else {
        format!("Δ {}", words::delta(example.mean_scaled_delta))
    };
    html! {
        figure class="thumb" title=(title) {
            @match data_uri(view.paths.trace_dir.as_deref(), trace.thumbnails.get(&example.id.0)) {
                Some(uri) => img src=(uri) alt=(example.id) loading="lazy";,
                None => div class="none" { "no picture" },
            }
            figcaption {
                @if example.kappa > 0.0 { (chart::bar(example.kappa / strongest, "hot")) }
                span class="id" { bdi { (example.id) } }
                "#" (example.rank) " · " (evidence)
            }
        }
    }
}

/// Why one should believe it: the distribution of Δ, and the case against its own placebos.
pub(super) fn why(view: &CaseView) -> Markup {
    let Some(trace) = &view.trace else { return html! {} };
    let histogram = chart::histogram(&trace.histogram);
    let strips = trace.stand_out.as_ref().and_then(chart::stand_out);
    if histogram.is_none() && strips.is_none() {
        return html! {};
    }
    let placebos = trace.stand_out.as_ref().map_or(0, |stand_out| stand_out.placebos.len());
    html! {
        section {
            h2 { "Why these" }
            @for note in &trace.notes { p { (note) } }
            @if let Some(histogram) = histogram {
                p class="intro" {
                    "If an example taught the model this error, its influence must fall when picture and label are changed. Each group is drawn as shares of itself, all with the label “"
                    (trace.predicted_label) "”."
                }
                div class="card" {
                    div class="legend" { span class="f" { i {} "flagged (" (words::thousands(trace.histogram.flagged.iter().sum())) ")" } span { i {} "others (" (words::thousands(trace.histogram.others.iter().sum())) ")" } }
                    (histogram)
                }
            }
            @if let Some(strips) = strips {
                h3 { "Against " (placebos) " placebos" }
                p class="intro" {
                    "The same steps were run on clean, correctly read pictures of the same class. A real cause must beat them all; where it does not, the guard abstains."
                }
                div class="card" {
                    div class="legend" { span class="f" { i {} "this case" } span { i {} "placebos" } }
                    (strips)
                }
            }
        }
    }
}
