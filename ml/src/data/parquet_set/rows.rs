//! Rows of a parquet file, a few at a time.

use super::columns::SetColumns;
use super::pages;
use crate::data::labels::Label;
use crate::error::{Error, Result};
use ::parquet::basic::Compression;
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, DataType};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use delta_guard_contract::{Code, is_passing};
use std::collections::VecDeque;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Rows that are read at a time.
const AT_A_TIME: usize = 16;
/// Bytes of the longest footer that is taken.
const MOST_FOOTER: u64 = 256 << 20;

/// What is read of a row.
pub(super) struct Cells {
    /// The picture; none where the row has none, or pictures are not asked for.
    pub(super) bytes: Option<ByteArray>,
    pub(super) label: Label,
    pub(super) source: Option<String>,
}

const HELP: &str = "a set in parquet has a column of pictures (bytes, or a struct with `bytes`) and a column `label`, written without compression or with snappy, as `datasets` does";

pub(super) fn wrong_file(path: &Path, what: &str) -> Error {
    Error::new(Code::DataUnusable, format!("{}: {what}", path.display()), HELP)
}

/// `row`: from 0, as in ids.
pub(super) fn wrong(path: &Path, row: u64, what: &str) -> Error {
    Error::new(Code::DataUnusable, format!("{}, row {row}: {what}", path.display()), HELP)
}

fn damaged(path: &Path, error: ParquetError) -> Error {
    if let ParquetError::External(source) = &error
        && let Some(io) = source.downcast_ref::<std::io::Error>()
        && is_passing(io)
    {
        return Error::passing(format!("reading {}: {io}", path.display()));
    }
    wrong_file(path, &format!("the file cannot be read: {error}"))
}

/// The library may panic on files that nobody meant to write; that is such a file's error.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(wrong_file(path, "the file is damaged: its parts do not fit together")))
}

/// An open file whose footer is of a size that can be held.
pub(super) fn open(path: &Path) -> Result<SerializedFileReader<std::fs::File>> {
    let (mut file, _) = fs_err::File::open(path)?.into_parts();
    let context = |error: std::io::Error| Error::from(error).within(|| path.display().to_string());
    let length = file.metadata().map_err(context)?.len();
    if length < 12 {
        return Err(wrong_file(path, "the file is no parquet file: it is too short"));
    }
    let mut end = [0; 8];
    file.seek(SeekFrom::End(-8)).map_err(context)?;
    file.read_exact(&mut end).map_err(context)?;
    let footer = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    if &end[4..] != b"PAR1" {
        return Err(wrong_file(path, "the file is no parquet file, or cut short: its last bytes are not PAR1"));
    }
    if footer > MOST_FOOTER {
        return Err(wrong_file(path, "its footer has more than 256 MiB"));
    }
    guarded(path, || SerializedFileReader::new(file).map_err(|error| damaged(path, error)))
}

/// Calls `take` with each row and its number, until it breaks. `pictures`: read them, too.
pub(super) fn each(path: &Path, columns: &SetColumns, pictures: bool, take: &mut dyn FnMut(u64, Cells) -> Result<ControlFlow<()>>) -> Result<()> {
    let file = open(path)?;
    let (own, _) = fs_err::File::open(path)?.into_parts();
    let mut own = BufReader::new(own);
    guarded(path, || {
        let mut row = 0;
        for group in 0..file.num_row_groups() {
            let chunks = file.metadata().row_group(group);
            for at in [
                Some(columns.picture).filter(|_| pictures),
                Some(columns.label),
                columns.source.filter(|_| pictures),
            ]
            .into_iter()
            .flatten()
            {
                let compression = chunks.column(at).compression();
                if !matches!(compression, Compression::UNCOMPRESSED | Compression::SNAPPY) {
                    return Err(wrong_file(path, &format!("it is compressed as {compression}, which is not read here")));
                }
                let (start, length) = chunks.column(at).byte_range();
                pages::check(&mut own, start, length).map_err(|error| damaged(path, ParquetError::External(Box::new(error))))?;
            }
            let group = file.get_row_group(group).map_err(|error| damaged(path, error))?;
            if rows_of(path, group.as_ref(), columns, pictures, &mut row, take)?.is_break() {
                break;
            }
        }
        Ok(())
    })
}

fn rows_of(
    path: &Path,
    group: &dyn RowGroupReader,
    columns: &SetColumns,
    pictures: bool,
    row: &mut u64,
    take: &mut dyn FnMut(u64, Cells) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let column = |at: usize| Column::of(group, at).map_err(|error| damaged(path, error));
    let (mut bytes, mut label) = (pictures.then(|| column(columns.picture)).transpose()?, column(columns.label)?);
    let mut source = columns.source.filter(|_| pictures).map(column).transpose()?;
    let uneven = || wrong_file(path, "the file is damaged: its columns have different numbers of rows");
    while let Some(value) = label.next(path)? {
        let label = match value {
            Some(Value::Number(n)) => Label::Number(n),
            Some(Value::Bytes(text)) => Label::Text(text_of(path, *row, &text)?),
            None => return Err(wrong(path, *row, "it has no label")),
        };
        let source = match source.as_mut().map(|column| column.next(path)).transpose()? {
            Some(None) => return Err(uneven()),
            Some(Some(Some(Value::Bytes(text)))) => Some(text_of(path, *row, &text)?).filter(|text| !text.is_empty()),
            _ => None,
        };
        let bytes = match bytes.as_mut().map(|column| column.next(path)).transpose()? {
            Some(None) => return Err(uneven()),
            Some(Some(Some(Value::Bytes(bytes)))) => Some(bytes),
            _ => None,
        };
        let flow = take(*row, Cells { bytes, label, source })?;
        *row += 1;
        if flow.is_break() {
            return Ok(flow);
        }
    }
    match bytes.map(|mut column| column.next(path)).transpose()? {
        Some(Some(_)) => Err(uneven()),
        _ => Ok(ControlFlow::Continue(())),
    }
}

fn text_of(path: &Path, row: u64, bytes: &ByteArray) -> Result<String> {
    let text = std::str::from_utf8(bytes.data()).map_err(|_| wrong(path, row, "it has a text that is not UTF-8"))?;
    Ok(text.trim().to_owned())
}

/// A value of a column.
enum Value {
    Number(i64),
    Bytes(ByteArray),
}

/// One column of a row group, value by value.
struct Column {
    reader: ColumnReader,
    most: i16,
    ahead: VecDeque<Option<Value>>,
}

impl Column {
    fn of(group: &dyn RowGroupReader, at: usize) -> std::result::Result<Self, ParquetError> {
        Ok(Self {
            reader: group.get_column_reader(at)?,
            most: group.metadata().column(at).column_descr().max_def_level(),
            ahead: VecDeque::new(),
        })
    }

    /// The next row's value (none: null); none at the end.
    fn next(&mut self, path: &Path) -> Result<Option<Option<Value>>> {
        if self.ahead.is_empty() {
            self.ahead = match &mut self.reader {
                ColumnReader::Int32ColumnReader(column) => some(column, self.most, |n| Value::Number(i64::from(n))),
                ColumnReader::Int64ColumnReader(column) => some(column, self.most, Value::Number),
                ColumnReader::ByteArrayColumnReader(column) => some(column, self.most, Value::Bytes),
                _ => return Err(wrong_file(path, "the file is damaged: a column is of another kind than its schema says")),
            }
            .map_err(|error| damaged(path, error))?;
        }
        Ok(self.ahead.pop_front())
    }
}

/// The next few values. `most`: the level of a value that is there; lower ones are nulls.
fn some<T: DataType>(
    column: &mut ColumnReaderImpl<T>,
    most: i16,
    value: impl Fn(T::T) -> Value,
) -> std::result::Result<VecDeque<Option<Value>>, ParquetError> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (rows, _, _) = column.read_records(AT_A_TIME, Some(&mut levels), None, &mut values)?;
    let mut values = values.into_iter();
    let there = |at: usize| most == 0 || levels.get(at).is_some_and(|level| *level == most);
    Ok((0..rows).map(|at| there(at).then(|| values.next().map(&value)).flatten()).collect())
}
