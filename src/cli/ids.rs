//! Reads a list of training ids: what `flagged` and `trace` write, or one id a line.

use super::{Exit, Failure};
use anyhow::Context;
use delta_guard_contract::TrainId;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// The ids in `path`, each once, in their order.
///
/// # Errors
/// When it cannot be read, or holds no ids.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<TrainId>> {
    let text = fs_err::read_to_string(path)?;
    // Spreadsheets and some editors put a byte order mark first.
    let ids = parse(crate::config::without_mark(&text)).with_context(|| format!("{} is no list of training ids", path.display()))?;
    let mut seen = BTreeSet::new();
    let ids: Vec<TrainId> = ids.into_iter().filter(|id| seen.insert(id.clone())).map(TrainId).collect();
    if ids.is_empty() {
        return Err(Failure::new(
            Exit::Failed,
            format!("{} names no training example", path.display()),
            "give what `delta-guard flagged --csv`, `delta-guard flagged --json` or `delta-guard trace PICTURE --json` wrote, or a text with one id a line",
        ));
    }
    Ok(ids)
}

fn parse(text: &str) -> anyhow::Result<Vec<String>> {
    let start = text.trim_start();
    if start.starts_with(['[', '{']) {
        return from_json(&serde_json::from_str(text)?);
    }
    let first = start.lines().next().unwrap_or_default();
    if first.split(',').any(|name| name.trim() == "id") {
        let mut reader = csv::Reader::from_reader(start.as_bytes());
        let column = reader
            .headers()?
            .iter()
            .position(|name| name.trim() == "id")
            .context("there is no column `id`")?;
        return reader
            .records()
            .map(|row| row?.get(column).map(String::from).context("a row is too short"))
            .collect();
    }
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(String::from)
        .collect())
}

/// A list of texts or of objects with `id`, or an object that holds such a list under `flagged`.
fn from_json(value: &Value) -> anyhow::Result<Vec<String>> {
    match value {
        Value::Array(list) => list
            .iter()
            .map(|item| {
                item.as_str()
                    .or_else(|| item.get("id")?.as_str())
                    .map(String::from)
                    .context("an element is neither a text nor has an `id`")
            })
            .collect(),
        Value::Object(map) => from_json(map.get("flagged").context("there is no list `flagged`")?),
        _ => anyhow::bail!("it is neither a list nor an object"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_is_written_is_read() {
        for text in [
            "a/1.png\n# comment\n\nb,2.png\n",
            "[\"a/1.png\", \"b,2.png\"]",
            "[{\"id\": \"a/1.png\", \"rank\": 1}, {\"id\": \"b,2.png\"}]",
            "{\"flagged\": [{\"id\": \"a/1.png\"}, {\"id\": \"b,2.png\"}]}",
            "rank,id,label\n1,a/1.png,x\n2,\"b,2.png\",x\n",
        ] {
            assert_eq!(parse(text).unwrap(), ["a/1.png", "b,2.png"], "{text}");
        }
    }

    #[test]
    fn everything_else_is_an_error() {
        for text in ["{\"x\": 1}", "[1]", "[", "rank,id\n1\n"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), "\n# nothing\n").unwrap();
        assert!(read(&folder.path().join("f")).is_err());
        std::fs::write(folder.path().join("marked.csv"), "\u{feff}id,label\na/1.png,x\n").unwrap();
        assert_eq!(read(&folder.path().join("marked.csv")).unwrap(), [TrainId("a/1.png".into())]);
    }
}
