//! Rows of a list of pictures, from CSV or JSON lines. Read one by one, each of bounded length.

use super::labels::Label;
use super::origin;
use super::webdataset::id_fault;
use crate::error::{Error, Result, ResultExt};
use delta_guard_contract::Code;
use serde_json::{Map, Value};
use std::cell::Cell;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Bytes of the longest row.
const MOST: u64 = 1 << 20;

/// One row.
#[derive(Debug, PartialEq)]
pub(crate) struct ListRow {
    /// Its line, from 1.
    pub(crate) line: u64,
    pub(crate) path: String,
    pub(crate) label: Label,
    pub(crate) id: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) split: Option<String>,
}

/// The columns that are read.
const COLUMNS: [&str; 5] = ["path", "label", "id", "source", "split"];
/// Those that must be there.
const NEEDED: usize = 2;

/// The rows of a file, in order.
pub(crate) struct Rows {
    file: PathBuf,
    form: Form,
}

enum Form {
    Csv {
        reader: Box<csv::Reader<Measured>>,
        left: Rc<Cell<u64>>,
        /// Place of each of [`COLUMNS`].
        columns: [Option<usize>; 5],
    },
    Json {
        reader: BufReader<fs_err::File>,
        line: u64,
    },
}

/// Gives out no more bytes than one row may have; a quote that is never closed would otherwise be the whole file.
struct Measured {
    file: fs_err::File,
    left: Rc<Cell<u64>>,
}

const TOO_LONG: &str = "a row of more than 1 MiB: is a quote not closed?";

impl Read for Measured {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left.get() == 0 {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, TOO_LONG));
        }
        let most = usize::try_from(self.left.get()).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.file.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - got as u64);
        Ok(got)
    }
}

/// Is the file one of JSON lines, by its name?
fn is_json(file: &Path) -> bool {
    file.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("jsonl") || e.eq_ignore_ascii_case("ndjson"))
}

/// Is the file a list of pictures, by its name?
pub(crate) fn is_list(file: &Path) -> bool {
    is_json(file) || file.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"))
}

impl Rows {
    pub(crate) fn open(file: &Path) -> Result<Self> {
        let opened = fs_err::File::open(file)?;
        let form = if is_json(file) {
            Form::Json {
                reader: BufReader::with_capacity(1 << 16, opened),
                line: 0,
            }
        } else {
            let left = Rc::new(Cell::new(MOST));
            let measured = Measured {
                file: opened,
                left: left.clone(),
            };
            let mut reader = Box::new(csv::Reader::from_reader(measured));
            let head = reader.headers().map_err(|error| of_csv(file, 1, error))?.clone();
            let columns = COLUMNS.map(|column| head.iter().position(|name| name.trim() == column));
            if let Some((column, _)) = COLUMNS[..NEEDED].iter().zip(columns).find(|(_, at)| at.is_none()) {
                let there: Vec<&str> = head.iter().map(str::trim).collect();
                return Err(wrong(
                    file,
                    1,
                    &format!("the first line names no column `{column}`; it has: {}", super::manifest::some(&there)),
                ));
            }
            if let Some(twice) = COLUMNS
                .iter()
                .find(|column| head.iter().filter(|name| name.trim() == **column).count() > 1)
            {
                return Err(wrong(file, 1, &format!("the first line names the column `{twice}` twice")));
            }
            Form::Csv { reader, left, columns }
        };
        Ok(Self {
            file: file.to_path_buf(),
            form,
        })
    }

    /// The next row, if there is one. Its label may be empty: see [`Label::fault`].
    ///
    /// # Errors
    /// `Configuration` with file and line.
    pub(crate) fn next(&mut self) -> Result<Option<ListRow>> {
        let row = match &mut self.form {
            Form::Csv { reader, left, columns } => csv_row(&self.file, reader, left, columns)?,
            Form::Json { reader, line } => json_row(&self.file, reader, line)?,
        };
        let Some(row) = row else { return Ok(None) };
        let fault = if row.path.is_empty() || row.path.contains('\0') {
            Some("has no path")
        } else {
            row.source.as_deref().and_then(origin::fault).or(row.id.as_deref().and_then(id_fault))
        };
        match fault {
            Some(fault) => Err(wrong(&self.file, row.line, &format!("the row {fault}"))),
            None => Ok(Some(row)),
        }
    }
}

fn csv_row(file: &Path, reader: &mut csv::Reader<Measured>, left: &Cell<u64>, columns: &[Option<usize>; 5]) -> Result<Option<ListRow>> {
    left.set(MOST);
    let mut record = csv::StringRecord::new();
    let line = reader.position().line();
    if !reader.read_record(&mut record).map_err(|error| of_csv(file, line, error))? {
        return Ok(None);
    }
    let field = |at: Option<usize>| at.and_then(|at| record.get(at)).map(str::trim).filter(|text| !text.is_empty());
    let own = |at: Option<usize>| field(at).map(String::from);
    Ok(Some(ListRow {
        line: record.position().map_or(0, csv::Position::line),
        path: own(columns[0]).unwrap_or_default(),
        label: Label::Text(own(columns[1]).unwrap_or_default()),
        id: own(columns[2]),
        source: own(columns[3]),
        split: own(columns[4]),
    }))
}

fn json_row(file: &Path, reader: &mut BufReader<fs_err::File>, line: &mut u64) -> Result<Option<ListRow>> {
    let mut text = Vec::new();
    // Empty lines are none.
    while text.trim_ascii().is_empty() {
        text.clear();
        *line += 1;
        let got = reader.take(MOST).read_until(b'\n', &mut text).context(|| file.display().to_string())?;
        if got == 0 {
            return Ok(None);
        }
        if got as u64 == MOST {
            return Err(wrong(file, *line, "a line of more than 1 MiB"));
        }
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").filter(|_| *line == 1).unwrap_or(&text);
    let map: Map<String, Value> = serde_json::from_slice(text).map_err(|error| {
        // The place that it names is one in the row.
        let error = error.to_string();
        wrong(
            file,
            *line,
            &format!("no JSON object: {}", error.split(" at line ").next().unwrap_or_default()),
        )
    })?;
    let word = |name: &str| match map.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Some(Value::Number(n)) if name == "id" || name == "source" => Ok(Some(n.to_string())),
        Some(_) => Err(wrong(file, *line, &format!("`{name}` is no text"))),
    };
    let needed = |name: &str| match map.get(name) {
        Some(value) if !value.is_null() => Ok(value),
        _ => {
            let there: Vec<&String> = map.keys().collect();
            let message = format!("the object has no `{name}`; it has: {}", super::manifest::some(&there));
            Err(wrong(file, *line, &message))
        }
    };
    needed("path")?;
    // Rows of a part that nobody asks for need none.
    let label = match needed("label") {
        Err(_) if map.contains_key("split") => Label::Text(String::new()),
        value => Label::of_json(value?).ok_or_else(|| wrong(file, *line, "`label` is neither a name nor a whole number"))?,
    };
    Ok(Some(ListRow {
        line: *line,
        path: word("path")?.unwrap_or_default(),
        label,
        id: word("id")?,
        source: word("source")?,
        split: word("split")?,
    }))
}

/// `line`: where the row begins, for errors that do not know.
fn of_csv(file: &Path, line: u64, error: csv::Error) -> Error {
    let line = error.position().map_or(line, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Io(error) if error.to_string() != TOO_LONG => Error::from(error).within(|| file.display().to_string()),
        csv::ErrorKind::Io(_) => wrong(file, line, TOO_LONG),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => wrong(
            file,
            line,
            &format!("the row has {len} fields, the first line {expected_len}; a field with a comma in it stands in quotes"),
        ),
        csv::ErrorKind::Utf8 { .. } => wrong(file, line, "the row is not UTF-8"),
        other => wrong(file, line, &format!("the row cannot be read: {other:?}")),
    }
}

/// A mistake of a line.
pub(crate) fn wrong(file: &Path, line: u64, what: &str) -> Error {
    Error::new(
        Code::DataUnusable,
        format!("{}, line {line}: {what}", file.display()),
        "a list of pictures has the columns path and label, and perhaps id, source and split: as CSV with these names in its first line, or as JSON lines with these keys",
    )
}
