//! A detector's exhibits, drawn by their shape: whatever the detector, its titles and captions say what one sees.

use super::evidence::data_uri;
use super::{chart, words};
use crate::cli::advice;
use crate::engine::CaseView;
use delta_guard_contract::TraceReport;
use delta_guard_contract::finding::{Exhibit, Histogram, Review, Scatter, SharedPixels, Sources, Strip, Table};
use maud::{Markup, html};

/// Rows of a table that are put into the page.
const ROWS: usize = 100;

/// Why one should believe it: everything that the detector shows beside the flagged examples themselves.
pub(super) fn why(view: &CaseView) -> Markup {
    let Some(trace) = &view.trace else { return html! {} };
    let drawn: Vec<Markup> = trace.exhibits.iter().filter_map(|exhibit| one(view, trace, exhibit)).collect();
    if drawn.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Why these" }
            @for note in &trace.notes { p { (note) } }
            @for exhibit in &drawn { (exhibit) }
        }
    }
}

/// None where there is nothing to draw, and for those that stand elsewhere on the page.
fn one(view: &CaseView, trace: &TraceReport, exhibit: &Exhibit) -> Option<Markup> {
    match exhibit {
        Exhibit::Histogram(histogram) => histogram_card(histogram),
        Exhibit::Strip(strip) => strip_card(strip),
        Exhibit::Scatter(scatter) => scatter_card(scatter),
        Exhibit::Table(table) => (!table.rows.is_empty()).then(|| table_card(view, trace, table)),
        Exhibit::Sources(sources) => (!sources.rows.is_empty()).then(|| sources_card(sources)),
        Exhibit::Shared(_) | Exhibit::Beside(_) | Exhibit::Note(_) | Exhibit::Review(_) => None,
    }
}

/// What a person may look at where nothing was flagged.
pub(super) fn review(view: &CaseView) -> Markup {
    let found = view
        .trace
        .iter()
        .flat_map(|trace| trace.exhibits.iter().map(move |exhibit| (trace, exhibit)));
    let reviews = found.filter_map(|(trace, exhibit)| match exhibit {
        Exhibit::Review(review) if !review.rows.is_empty() => Some(review_section(view, trace, review)),
        _ => None,
    });
    html! { @for section in reviews { (section) } }
}

fn review_section(view: &CaseView, trace: &TraceReport, review: &Review) -> Markup {
    html! {
        section class="thumbs-section" {
            h2 { (review.title) }
            p class="intro" { (review.caption) }
            div class="thumbs" {
                @for row in &review.rows {
                    figure class="thumb" title=(row.id) {
                        @match data_uri(view.paths.trace_dir.as_deref(), trace.thumbnails.get(&row.id.0)) {
                            Some(uri) => img src=(uri) alt=(row.id) loading="lazy";,
                            None => div class="none" { "no picture" },
                        }
                        figcaption {
                            span class="id" { bdi { (row.id) } }
                            (row.label) " " (words::percent(row.probability)) br;
                            "rather " bdi { (row.suggested) } " " (words::percent(row.suggested_probability))
                        }
                    }
                }
            }
        }
    }
}

/// Title, what one sees, and the chart with its legend.
fn card(title: &str, captions: [&str; 2], legend: &[String], chart: &Markup) -> Markup {
    html! {
        h3 { (title) }
        p class="intro" { @for caption in captions { (caption) " " } }
        div class="card" {
            @if !legend.is_empty() {
                div class="legend" { @for (series, name) in legend.iter().enumerate() { span class=(chart::colour(series)) { i {} (name) } } }
            }
            (chart)
        }
    }
}

fn histogram_card(histogram: &Histogram) -> Option<Markup> {
    let named = |name: &str, counts: &[u64]| format!("{name} ({})", words::thousands(counts.iter().sum()));
    let legend: Vec<String> = histogram.series.iter().map(|series| named(&series.name, &series.counts)).collect();
    Some(card(&histogram.title, [&histogram.caption, ""], &legend, &chart::histogram(histogram)?))
}

fn strip_card(strip: &Strip) -> Option<Markup> {
    let legend = ["this case".to_owned(), strip.others.clone()];
    Some(card(&strip.title, [&strip.caption, &strip.pass], &legend, &chart::strip(strip)?))
}

fn scatter_card(scatter: &Scatter) -> Option<Markup> {
    let legend: Vec<String> = scatter
        .series
        .iter()
        .map(|series| format!("{} ({})", series.name, words::thousands(series.points.len() as u64)))
        .collect();
    Some(card(&scatter.title, [&scatter.caption, ""], &legend, &chart::scatter(scatter)?))
}

fn table_card(view: &CaseView, trace: &TraceReport, table: &Table) -> Markup {
    let all = trace.flagged.len().min(table.rows.len());
    html! {
        details {
            summary { (table.title) }
            p class="intro" { (table.caption) }
            div class="card scroll" {
                table {
                    thead { tr { th { "#" } th { "example" } @for column in &table.columns { th class="n" title=(column.meaning) { (column.name) } } } }
                    tbody {
                        @for (example, row) in trace.flagged.iter().zip(&table.rows).take(ROWS) {
                            tr {
                                td { (example.rank) }
                                td { (example.id) }
                                @for (column, cell) in table.columns.iter().zip(row) { td class="n" { (words::cell(cell, column.decimals)) } }
                            }
                        }
                    }
                }
            }
            p class="soft" {
                @for column in &table.columns { (column.name) ": " (column.meaning) ". " }
                @if all > ROWS {
                    (words::thousands((all - ROWS) as u64)) " further rows: " code { (advice::flagged(view.case.short()).line(view.config.as_deref())) }
                }
            }
        }
    }
}

pub(super) fn sources_card(sources: &Sources) -> Markup {
    html! {
        h3 { (sources.title) }
        p class="intro" {
            (sources.caption) " Of: the source’s examples with a label of the flagged. Expected: what a random draw with the same labels would bring. "
            "p: how likely such a draw brings as many or more, corrected for the number of sources (Holm)."
        }
        div class="card scroll" {
            table {
                thead { tr { th { "source" } th class="n" { "flagged" } th class="n" { "of" } th class="n" { "expected" } th class="n" { "p" } } }
                tbody {
                    @for row in &sources.rows {
                        tr {
                            td { @if row.source.is_empty() { "not said" } @else { bdi { (row.source) } } }
                            td class="n" { (words::thousands(row.flagged)) }
                            td class="n" { (words::thousands(row.examples)) }
                            td class="n" { (words::number(row.expected, 1)) }
                            td class="n" { (words::probability(row.corrected)) }
                        }
                    }
                }
            }
        }
        @if sources.further > 0 {
            p class="soft" { (words::thousands(sources.further)) " further sources have " (words::thousands(sources.further_flagged)) " flagged examples in all." }
        }
    }
}

/// The first of that kind.
fn shared_pixels(trace: &TraceReport) -> Option<&SharedPixels> {
    trace.exhibits.iter().find_map(|exhibit| match exhibit {
        Exhibit::Shared(shared) => Some(shared),
        _ => None,
    })
}

/// What the flagged share, drawn and said.
pub(super) fn shared(view: &CaseView, trace: &TraceReport) -> Markup {
    let Some((shared, sentence)) = shared_pixels(trace).and_then(|shared| Some((shared, shared_said(trace)?))) else {
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

/// What the flagged share, in a sentence. None where they share no pixel.
pub(super) fn shared_said(trace: &TraceReport) -> Option<String> {
    pixels_said(shared_pixels(trace)?)
}

/// The same of any group of examples.
pub(super) fn pixels_said(shared: &SharedPixels) -> Option<String> {
    let [row, column, rows, columns] = shared.place?;
    let alike = if shared.flagged_alike < 0.9995 {
        format!("at least {}", words::percent(shared.flagged_alike))
    } else {
        "all".into()
    };
    let others = if shared.others_alike < 0.0005 {
        "none".into()
    } else {
        format!("at most {}", words::percent(shared.others_alike))
    };
    (shared.pixels > 0).then(|| {
        format!(
            "They share {} of {} pixels, in a box of {rows} × {columns} at row {row}, column {column}: there {alike} of the flagged look alike, and {others} of the others of their class look like them.",
            words::thousands(shared.pixels),
            words::thousands(shared.of),
        )
    })
}

/// Exhibits that are said rather than drawn: what another rule flagged, facts in words. Title and words.
pub(crate) fn facts(trace: &TraceReport) -> impl Iterator<Item = (&str, String)> {
    trace.exhibits.iter().filter_map(|exhibit| match exhibit {
        Exhibit::Beside(beside) => Some((
            beside.title.as_str(),
            format!("{} flagged with {}", words::thousands(beside.flagged.len() as u64), beside.caption),
        )),
        Exhibit::Note(note) => Some((note.title.as_str(), note.caption.clone())),
        _ => None,
    })
}
