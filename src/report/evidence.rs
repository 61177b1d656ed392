//! The pictures: the anomaly, and the flagged examples with their evidence.

use super::{chart, exhibits, words};
use crate::cli::advice;
use crate::engine::CaseView;
use base64::Engine;
use delta_guard_contract::finding::{Cell, Table};
use delta_guard_contract::job::PICTURE_FILE;
use delta_guard_contract::{Flagged, TraceReport};
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
pub(super) fn data_uri(folder: Option<&Path>, name: Option<&String>) -> Option<String> {
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
    let strongest = trace.flagged.iter().map(|e| e.score).fold(f64::EPSILON, f64::max);
    let facts = Facts::of(trace);
    let card = |example: &Flagged| thumb(view, trace, example, strongest, &facts);
    let (first, rest) = trace.flagged.split_at(trace.flagged.len().min(SHOWN));
    // The end of the list is where a mistake would stand.
    let (middle, least) = rest.split_at(rest.len().saturating_sub(LEAST));
    let (more, beyond) = middle.split_at(middle.len().min(MOST - SHOWN - LEAST));
    html! {
        section class="thumbs-section" {
            h2 { "The training examples behind it" }
            p class="intro" {
                "Strongest evidence first. "
                @if !trace.words.score.is_empty() { "The bar and the number are " (trace.words.score) ": " (trace.words.score_meaning) ". " }
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
            (exhibits::shared(view, trace))
        }
    }
}

/// The table of further facts, for the words beside a picture.
struct Facts<'a> {
    table: Option<&'a Table>,
    /// Columns that tell one example from another.
    telling: Vec<usize>,
}

impl<'a> Facts<'a> {
    fn of(trace: &'a TraceReport) -> Self {
        let table = trace.table();
        let telling = table.map_or_else(Vec::new, |table| {
            // Where all say yes, or all no, the word tells nothing.
            let column = |of: usize| table.rows.iter().filter_map(move |row| row.get(of));
            (0..table.columns.len())
                .filter(|&of| column(of).any(|cell| !matches!(cell, Cell::Yes(_))) || column(of).any(|cell| *cell != Cell::Yes(true)))
                .collect()
        });
        Self { table, telling }
    }

    /// Those of an example: `fell in 50, Δ −0.9`.
    fn words(&self, rank: u32) -> String {
        let Some((table, row)) = self.table.and_then(|table| Some((table, table.rows.get(rank.checked_sub(1)? as usize)?))) else {
            return String::new();
        };
        let word = |of: &usize| -> Option<String> {
            let (column, cell) = (table.columns.get(*of)?, row.get(*of)?);
            match cell {
                Cell::None | Cell::Yes(false) => None,
                Cell::Yes(true) => Some(column.name.clone()),
                cell => Some(format!("{} {}", column.name, words::cell(cell, column.decimals))),
            }
        };
        self.telling.iter().filter_map(word).map(|word| format!(", {word}")).collect()
    }
}

fn thumb(view: &CaseView, trace: &TraceReport, example: &Flagged, strongest: f64, facts: &Facts) -> Markup {
    let from = example.source.as_ref().map_or_else(String::new, |source| format!(", from {source}"));
    let title = format!(
        "{} – label {}{from}, rank {}{}",
        example.id,
        example.label,
        example.rank,
        facts.words(example.rank)
    );
    let score = words::number(example.score, trace.words.score_decimals);
    html! {
        figure class="thumb" title=(title) {
            @match data_uri(view.paths.trace_dir.as_deref(), trace.thumbnails.get(&example.id.0)) {
                Some(uri) => img src=(uri) alt=(example.id) loading="lazy";,
                None => div class="none" { "no picture" },
            }
            figcaption {
                @if example.score > 0.0 { (chart::bar(example.score / strongest, "hot")) }
                span class="id" { bdi { (example.id) } }
                "#" (example.rank) " · " (trace.words.score) " " (score)
            }
        }
    }
}
