//! The rows' file: one line of JSON each, appended and synced. A line that a crash cut off is dropped; its row is made again.

use super::GridRow;
use anyhow::Context;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The rows that are there.
pub struct RowFile {
    file: fs_err::File,
    all: Vec<GridRow>,
    keys: BTreeSet<String>,
}

impl RowFile {
    /// Open the file, or begin it.
    ///
    /// # Errors
    /// With line, where a line is no row; where the file cannot be read or written, or somebody else writes to it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs_err::create_dir_all(folder)?;
        }
        let file = fs_err::OpenOptions::new().read(true).append(true).create(true).open(path)?;
        if file.try_lock().is_err() {
            anyhow::bail!(
                "{} is being written to by another evaluation\n  help: wait for it, or name another file with --rows",
                path.display()
            );
        }
        let text = fs_err::read_to_string(path)?;
        // What stands behind the last line break was cut off while it was written.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            file.set_len(whole as u64)?;
        }
        let mut rows = Self {
            file,
            all: Vec::new(),
            keys: BTreeSet::new(),
        };
        for (n, line) in text[..whole].lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let row: GridRow = serde_json::from_str(line).with_context(|| {
                format!(
                    "{}:{}: this line is no row of an evaluation\n  help: delete the line, and it is made again",
                    path.display(),
                    n + 1
                )
            })?;
            rows.take(row);
        }
        Ok(rows)
    }

    fn take(&mut self, row: GridRow) {
        // The first one of a key counts.
        if self.keys.insert(row.key.clone()) {
            self.all.push(row);
        }
    }

    /// Is there a row of this key?
    pub fn has(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    /// The row of this key.
    pub fn get(&self, key: &str) -> Option<&GridRow> {
        self.all.iter().find(|row| row.key == key)
    }

    /// All, in the order in which they were made.
    pub fn all(&self) -> &[GridRow] {
        &self.all
    }

    /// Keep a row; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, row: GridRow) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(&row)?;
        line.push('\n');
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()?;
        self.take(row);
        Ok(())
    }
}

/// Where rows are kept when nobody says.
pub fn usual(out: &Path) -> PathBuf {
    out.join("rows.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::row::{ControlRow, Shown, VictimName};
    use std::collections::BTreeMap;

    fn row(key: &str, tried: u64) -> GridRow {
        GridRow {
            key: key.into(),
            version: "1".into(),
            place: VictimName {
                data: "d".into(),
                network: "n".into(),
                attack: "a".into(),
                dose: None,
                seed: 1,
            },
            found: Shown::Control(ControlRow {
                detector: "guard".into(),
                kind: "placebo".into(),
                tried,
                of_class: 0,
                decided: 0,
                decided_poisons: 0,
                most_clean: 0,
                abstained: BTreeMap::new(),
            }),
            seconds: 0.5,
            device: None,
            peak_memory: None,
        }
    }

    #[test]
    fn rows_are_kept_and_a_line_that_was_cut_off_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/rows.jsonl");
        let mut rows = RowFile::open(&path).unwrap();
        rows.add(row("a", 1)).unwrap();
        rows.add(row("b", 2)).unwrap();
        assert!(RowFile::open(&path).is_err(), "it is open already");
        drop(rows);
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let rows = RowFile::open(&path).unwrap();
            let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(rows.all().len(), lines, "{cut}");
            assert_eq!((rows.has("a"), rows.has("b")), (lines > 0, lines > 1));
        }
        // After the cut the next row stands on a line of its own.
        let mut rows = RowFile::open(&path).unwrap();
        rows.add(row("c", 3)).unwrap();
        drop(rows);
        let keys: Vec<String> = RowFile::open(&path).unwrap().all().iter().map(|row| row.key.clone()).collect();
        assert_eq!(keys, ["a", "c"]);
    }

    #[test]
    fn the_first_row_of_a_key_counts_and_a_foreign_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        let lines = [row("a", 1), row("a", 9)].map(|row| serde_json::to_string(&row).unwrap() + "\n").concat();
        std::fs::write(&path, &lines).unwrap();
        let rows = RowFile::open(&path).unwrap();
        assert_eq!(rows.all(), [row("a", 1)]);
        assert_eq!(rows.get("a"), Some(&row("a", 1)));
        drop(rows);
        std::fs::write(&path, lines + "{}\n").unwrap();
        let said = format!("{:#}", RowFile::open(&path).map(|_| ()).unwrap_err());
        assert!(said.contains("rows.jsonl:3"), "{said}");
    }
}
