//! Writing a set.

use crate::data::cifar::{self, CifarKind};
use crate::data::encode_png;
use crate::error::{Error, Result, ResultExt};
use delta_guard_contract::{DataFormat, DataSource, Split, TrainId};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes a labelled set, as CIFAR batches or as class folders of PNG files.
pub(in crate::attack) struct SetWriter<'a> {
    folder: PathBuf,
    classes: &'a [String],
    size: (u32, u32),
    next: usize,
    batch: Option<Batch>,
}

struct Batch {
    kind: CifarKind,
    name: &'static str,
    out: BufWriter<fs_err::File>,
}

impl<'a> SetWriter<'a> {
    pub(in crate::attack) fn new(folder: &Path, form: Option<CifarKind>, test: bool, classes: &'a [String], size: (u32, u32)) -> Result<Self> {
        fs_err::create_dir_all(folder)?;
        let batch = match form {
            None => None,
            Some(kind) => {
                let name = match (kind, test) {
                    (CifarKind::Ten, false) => "data_batch_1.bin",
                    (CifarKind::Ten, true) => "test_batch.bin",
                    (CifarKind::Hundred, false) => "train.bin",
                    (CifarKind::Hundred, true) => "test.bin",
                };
                fs_err::write(folder.join(kind.names_file()), classes.join("\n") + "\n")?;
                Some(Batch {
                    kind,
                    name,
                    out: BufWriter::with_capacity(1 << 20, fs_err::File::create(folder.join(name))?),
                })
            }
        };
        Ok(Self {
            folder: folder.to_path_buf(),
            classes,
            size,
            next: 0,
            batch,
        })
    }

    /// Append a picture; returns the id that it will be read under.
    pub(in crate::attack) fn push(&mut self, pixels: &[u8], label: u32) -> Result<TrainId> {
        let n = self.next;
        self.next += 1;
        match &mut self.batch {
            Some(batch) => {
                if pixels.len() != cifar::PIXELS {
                    return Err(Error::internal(format!("a CIFAR record of {} bytes", pixels.len())));
                }
                // CIFAR-100's coarse label, which nothing here reads, is left 0.
                let mut record = vec![0u8; batch.kind.label_bytes()];
                record[batch.kind.label_bytes() - 1] = u8::try_from(label).map_err(|_| Error::internal(format!("label {label} in CIFAR")))?;
                batch.out.write_all(&record)?;
                batch.out.write_all(pixels)?;
                Ok(TrainId(format!("{}#{n}", batch.name)))
            }
            None => {
                let class = &self.classes[label as usize];
                let folder = self.folder.join(class);
                let name = format!("{n:06}.png");
                if !folder.is_dir() {
                    fs_err::create_dir_all(&folder)?;
                }
                fs_err::write(folder.join(&name), encode_png(pixels, self.size.0, self.size.1, 1)?)?;
                Ok(TrainId(format!("{class}/{name}")))
            }
        }
    }

    pub(in crate::attack) fn finish(self) -> Result<DataSource> {
        let format = match self.batch {
            None => DataFormat::Folder,
            Some(mut batch) => {
                batch
                    .out
                    .flush()
                    .context(|| format!("writing {}", self.folder.join(batch.name).display()))?;
                if batch.kind == CifarKind::Ten {
                    DataFormat::Cifar10
                } else {
                    DataFormat::Cifar100
                }
            }
        };
        Ok(DataSource {
            path: self.folder,
            format,
            split: Split::All,
            source: None,
        })
    }
}
