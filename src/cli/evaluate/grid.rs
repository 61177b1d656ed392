//! `evaluate` of a grid: rows that are missing are made, and the tables of all rows are written.

use super::super::{Exit, Failure, Global, say};
use super::Evaluate;
use crate::config::file::Worker;
use crate::grid::file::Grid;
use crate::grid::{GridFile, GridRow, Planned, RowFile, page, plan, rows, run, tables};
use crate::publish;
use crate::story::Changes;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What `--json` prints.
#[derive(Serialize)]
struct Results<'a> {
    rows: &'a [GridRow],
    /// Victims that could not be told: why. They are tried again when the command is repeated.
    failed: &'a BTreeMap<String, String>,
}

pub(super) fn run(asked: Evaluate, global: &Global) -> anyhow::Result<Exit> {
    let planned = read(&asked)?;
    let out = match &asked.out {
        Some(out) => std::path::absolute(out)?,
        None => tempfile::Builder::new().prefix("delta-guard-evaluate-").tempdir()?.keep(),
    };
    fs_err::create_dir_all(&out)?;
    say::note(&format!("everything of this evaluation lies in {}", out.display()));
    let file = asked.rows.clone().unwrap_or_else(|| rows::usual(&out));
    let mut rows = RowFile::open(&file)?;
    let mut failed = BTreeMap::new();
    if !asked.tables {
        let todo: Vec<&Planned> = planned.1.iter().filter(|victim| run::left(victim, &rows).is_some()).collect();
        say::note(&format!(
            "{} of {} victims are finished; rows: {}",
            planned.1.len() - todo.len(),
            planned.1.len(),
            file.display()
        ));
        for (n, victim) in todo.iter().enumerate() {
            let name = name(victim);
            say::note(&format!("== {} of {}: {name}", n + 1, todo.len()));
            let folder = out.join("victims").join(victim.key());
            match one(victim, &planned.0.worker, &mut rows, &folder, global) {
                Ok(()) if asked.keep => {}
                // Its rows stand: what cannot be deleted is in nobody's way.
                Ok(()) => {
                    if let Err(error) = fs_err::remove_dir_all(&folder) {
                        say::note(&format!("   what is finished cannot be deleted: {error}"));
                    }
                }
                Err(error) if say::exit_of(&error) == Exit::Interrupted => {
                    let help = format!("the same command with --rows {} goes on where it was", file.display());
                    return Err(Failure::new(Exit::Interrupted, "interrupted", help));
                }
                Err(error) => {
                    say::note(&format!("{name} failed: {error:#}"));
                    failed.insert(name, format!("{error:#}"));
                }
            }
            write(&planned.0.name, rows.all(), &out)?;
        }
    }
    let all = of_plan(&planned.1, &rows);
    write(&planned.0.name, &all, &out)?;
    if global.json {
        say::json(&Results { rows: &all, failed: &failed })?;
    } else {
        say::out(&told(&all, &failed, &out))?;
    }
    let took = |row: &GridRow| !matches!(&row.found, crate::grid::Shown::Victim(victim) if !victim.took);
    Ok(if !failed.is_empty() {
        Exit::Failed
    } else if all.iter().all(took) {
        Exit::Done
    } else {
        Exit::No
    })
}

/// The grid, and its victims.
fn read(asked: &Evaluate) -> anyhow::Result<(Grid, Vec<Planned>)> {
    let none = Changes {
        data: asked.changes.data.clone(),
        ..Changes::default()
    };
    if serde_json::to_value(&none)? != serde_json::to_value(&asked.changes)? {
        return Err(Failure::new(
            Exit::Usage,
            format!("{} is a grid: of it only --data and --seeds can be changed here", asked.story.display()),
            "change the file instead",
        ));
    }
    let mut grid = GridFile::load(&asked.story)?.grid;
    if let Some(data) = &asked.changes.data {
        let data = std::path::absolute(data)?;
        grid.data
            .values_mut()
            .filter(|source| source.path.is_some())
            .for_each(|source| source.path = Some(data.clone()));
    }
    let mut victims = plan(&grid)?;
    victims.retain(|victim| asked.seeds.is_empty() || asked.seeds.contains(&victim.place.seed));
    if victims.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            format!("nothing is asked: {} has no run with these seeds", asked.story.display()),
            "name seeds of its runs with --seeds, or leave that out",
        ));
    }
    Ok((grid, victims))
}

fn one(victim: &Planned, worker: &Worker, rows: &mut RowFile, folder: &Path, global: &Global) -> anyhow::Result<()> {
    fs_err::create_dir_all(folder)?;
    let mut run = global.runner_with(folder, worker)?;
    run::tell(victim, rows, folder, &mut run, &|text| say::note(&format!("   {text}")))
}

/// For messages.
fn name(victim: &Planned) -> String {
    let place = &victim.place;
    let dose = place.dose.map_or_else(String::new, |dose| format!(" at {} %", 100.0 * dose));
    format!("{}{dose} on {} of {}, seed {}", place.attack, place.network, place.data, place.seed)
}

/// The rows that this grid asks for: the file may hold others' too.
fn of_plan(victims: &[Planned], rows: &RowFile) -> Vec<GridRow> {
    let keys: BTreeSet<String> = victims
        .iter()
        .flat_map(|victim| std::iter::once(victim.key()).chain(victim.asks.iter().map(|ask| victim.key_of(ask))))
        .collect();
    rows.all().iter().filter(|row| keys.contains(&row.key)).cloned().collect()
}

fn write(name: &str, rows: &[GridRow], out: &Path) -> anyhow::Result<()> {
    let files = page::files(name, rows)?;
    files.iter().try_for_each(|(file, text)| publish::publish_file(out, file, text))
}

/// The tables for a terminal, and where they lie.
fn told(rows: &[GridRow], failed: &BTreeMap<String, String>, out: &Path) -> String {
    let mut text = String::new();
    for table in tables::tables(rows).into_iter().filter(|table| !table.long) {
        let columns: Vec<&str> = table.columns.iter().map(String::as_str).collect();
        text.push_str(&format!("{}\n{}\n\n", table.title, say::table(&columns, table.rows)));
    }
    for (name, why) in failed {
        text.push_str(&format!("{name} failed and is tried again when the command is repeated: {why}\n"));
    }
    for (what, file) in [("all tables", "tables.md"), ("the same as a page", "page.html"), ("all rows", "rows.csv")] {
        text.push_str(&format!("{what}: {}\n", out.join(file).display()));
    }
    text
}
