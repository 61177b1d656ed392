//! The tables as one HTML page that asks nothing of any network, as Markdown, and the rows as CSV.

use super::curve;
use super::row::{GridRow, Shown};
use super::tables::{GridTable, figures, tables};
use maud::{DOCTYPE, Markup, html};

/// The files of an evaluation: name and text.
///
/// # Errors
/// As [`csv`].
pub fn files(name: &str, rows: &[GridRow]) -> anyhow::Result<[(&'static str, Vec<u8>); 3]> {
    Ok([
        ("tables.md", markdown(name, rows).into_bytes()),
        ("page.html", html(name, rows).into_bytes()),
        ("rows.csv", csv(rows)?),
    ])
}

/// Everything on one page.
pub fn html(name: &str, rows: &[GridRow]) -> String {
    let victims = rows.iter().filter(|row| matches!(row.found, Shown::Victim(_))).count();
    html! {
        (DOCTYPE)
        html lang="en" {
            (crate::report::page_head(&format!("{name} – evaluation")))
            body {
                header {
                    div class="brand" { b { "delta-guard" } span { "evaluation" } }
                    h1 { (name) }
                    p class="intro" { (victims) " victims, " (rows.len()) " rows. What is not here was not measured." }
                }
                main {
                    @for figure in figures(rows) {
                        section {
                            h2 { (figure.title) }
                            div class="card" {
                                @if let Some(drawn) = curve::over_dose(&figure.lines) { (drawn) }
                                div class="legend" {
                                    @for (n, line) in figure.lines.iter().enumerate() { span class=(crate::report::colour(n)) { i {} (line.name) } }
                                }
                            }
                        }
                    }
                    @for table in tables(rows) { (section(&table)) }
                }
                footer { "Made by delta-guard " (env!("CARGO_PKG_VERSION")) " from its rows." }
            }
        }
    }
    .into_string()
}

fn section(table: &GridTable) -> Markup {
    html! {
        section {
            h2 { (table.title) }
            p class="intro" { (table.about) }
            div class="scroll" {
                table {
                    thead { tr { @for column in &table.columns { th { (column) } } } }
                    tbody { @for row in &table.rows { tr { @for text in row { td { (text) } } } } }
                }
            }
        }
    }
}

/// The tables as Markdown.
pub fn markdown(name: &str, rows: &[GridRow]) -> String {
    let line = |texts: &[String]| {
        let cells: Vec<String> = texts.iter().map(|text| text.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = format!("# {name}\n");
    for table in tables(rows) {
        text.push_str(&format!("\n## {}\n\n{}\n\n", table.title, table.about));
        text.push_str(&line(&table.columns));
        text.push_str(&line(&vec!["---".to_string(); table.columns.len()]));
        table.rows.iter().for_each(|row| text.push_str(&line(row)));
    }
    text
}

/// The rows as CSV: one column for each key that any row has, a row's lists and maps as JSON.
///
/// # Errors
/// When a row cannot be written as JSON.
pub fn csv(rows: &[GridRow]) -> anyhow::Result<Vec<u8>> {
    let mut keys: Vec<String> = Vec::new();
    let mut all = Vec::new();
    for row in rows {
        let serde_json::Value::Object(row) = serde_json::to_value(row)? else {
            continue;
        };
        keys.extend(row.keys().filter(|key| !keys.contains(key)).cloned().collect::<Vec<_>>());
        all.push(row);
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&keys)?;
    for row in &all {
        writer.write_record(keys.iter().map(|key| match row.get(key) {
            None | Some(serde_json::Value::Null) => String::new(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        }))?;
    }
    Ok(writer.into_inner()?)
}
