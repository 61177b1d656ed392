//! The files and variables that the owner's trainer is given.

use crate::data::{DataSet, Places};
use crate::error::{Error, Result};
use crate::files::{look, write_atomic, write_atomic_with};
use crate::unlearn::Unlearning;
use delta_guard_contract::Code;
use std::ffi::OsString;
use std::path::PathBuf;

/// What lies ready for one attempt.
pub(super) struct Papers {
    /// Folder of all of it.
    pub folder: PathBuf,
    /// Where the new checkpoint is expected.
    pub output: PathBuf,
    /// The trainer's own folder, kept between attempts.
    pub resume: PathBuf,
    /// 1 the first time.
    pub attempt: u32,
}

impl Papers {
    /// Write them, and take an earlier attempt's checkpoint away: it must not pass for a result of this one.
    ///
    /// # Errors
    /// `DataUnusable`: an id that a line cannot hold. And those of reading the set's place and of writing.
    pub fn lay_out(case: &Unlearning<'_>) -> Result<Self> {
        let folder = std::path::absolute(case.out_dir)?.join("command");
        let papers = Self {
            output: folder.join("model.safetensors"),
            resume: folder.join("resume"),
            attempt: 1 + attempts(&folder.join("attempt"))?,
            folder,
        };
        fs_err::create_dir_all(&papers.resume)?;
        write_atomic(&papers.folder.join("attempt"), papers.attempt.to_string().as_bytes())?;
        if look(&papers.output)?.is_some() {
            fs_err::remove_file(&papers.output)?;
        }
        let mut excluded: Vec<usize> = case.flagged.to_vec();
        excluded.sort_by(|&a, &b| case.data.ids()[a].cmp(&case.data.ids()[b]));
        let ids: Vec<&str> = excluded.iter().map(|&i| case.data.ids()[i].0.as_str()).collect();
        write_atomic(&papers.folder.join("excluded.txt"), lines(&ids)?.as_bytes())?;
        let classes: Vec<&str> = case.data.classes().iter().map(String::as_str).collect();
        write_atomic(&papers.folder.join("classes.txt"), lines(&classes)?.as_bytes())?;
        let places = Places::of(case.source)?;
        let row = |i: usize| Row::of(case.data, &places, i);
        papers.table("excluded.csv", ["id", "path", "label"], excluded.iter().map(|&i| row(i).excluded()))?;
        papers.table("retained.csv", ["path", "label", "id"], case.retained.iter().map(|&i| row(i).retained()))?;
        Ok(papers)
    }

    fn table(&self, name: &str, header: [&str; 3], rows: impl Iterator<Item = [String; 3]>) -> Result<()> {
        write_atomic_with(&self.folder.join(name), |file| {
            let mut table = csv::Writer::from_writer(std::io::BufWriter::new(file));
            table.write_record(header)?;
            for row in rows {
                table.write_record(row)?;
            }
            table.flush()
        })
    }

    /// The variables that name them.
    pub fn variables(&self, case: &Unlearning<'_>) -> Vec<(&'static str, OsString)> {
        let here = |name: &str| self.folder.join(name).into_os_string();
        vec![
            ("DELTA_GUARD_EXCLUDED", here("excluded.txt")),
            ("DELTA_GUARD_EXCLUDED_CSV", here("excluded.csv")),
            ("DELTA_GUARD_RETAINED", here("retained.csv")),
            ("DELTA_GUARD_CLASSES", here("classes.txt")),
            ("DELTA_GUARD_DATA", case.source.path.clone().into_os_string()),
            ("DELTA_GUARD_CHECKPOINT", case.production_file.path.as_os_str().to_owned()),
            ("DELTA_GUARD_OUTPUT", self.output.clone().into_os_string()),
            ("DELTA_GUARD_RESUME", self.resume.clone().into_os_string()),
            ("DELTA_GUARD_FOLDER", self.folder.clone().into_os_string()),
            ("DELTA_GUARD_ATTEMPT", self.attempt.to_string().into()),
            // As for `eu`: nothing of the production run's randomness is repeated.
            ("DELTA_GUARD_SEED", case.recipe.seed.wrapping_add(1).to_string().into()),
        ]
    }
}

/// Attempts that were begun before this one.
fn attempts(file: &std::path::Path) -> Result<u32> {
    match look(file)? {
        None => Ok(0),
        Some(_) => Ok(fs_err::read_to_string(file)?.trim().parse().unwrap_or(0)),
    }
}

/// An example in the lists.
struct Row {
    id: String,
    path: String,
    label: String,
}

impl Row {
    fn of(data: &DataSet, places: &Places, i: usize) -> Self {
        let id = &data.ids()[i];
        Self {
            path: places.path(id),
            id: id.0.clone(),
            label: data.classes()[data.labels()[i] as usize].clone(),
        }
    }

    fn excluded(self) -> [String; 3] {
        [self.id, self.path, self.label]
    }

    fn retained(self) -> [String; 3] {
        [self.path, self.label, self.id]
    }
}

/// One a line.
fn lines(texts: &[&str]) -> Result<String> {
    if let Some(text) = texts.iter().find(|text| text.contains(['\n', '\r'])) {
        return Err(Error::new(
            Code::DataUnusable,
            format!("{text:?} has a line end in it, so a list with one name a line cannot hold it"),
            "rename the file or the class's folder, or repair by another method (`unlearn.method: eu`)",
        ));
    }
    Ok(texts.iter().map(|text| format!("{text}\n")).collect())
}
