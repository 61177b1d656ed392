//! Looks at a path and says what lies there.

use super::cifar::{CifarKind, Home};
use super::folder::not_utf8;
use super::manifest::some;
use super::parquet_set::files as parquet;
use super::{archive, listed, rows, webdataset};
use crate::error::{Error, Result, ResultExt};
use crate::files::{self, is_dir};
use delta_guard_contract::{Code, DataFormat, DataSource, FaultKind, Split, in_braces};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// What lies at a path.
#[derive(Debug, PartialEq)]
pub(crate) enum Layout {
    /// A folder of class folders.
    Folder(PathBuf),
    /// Tar files that hold class folders; `split` is still to be looked for inside them.
    Tars { files: Vec<PathBuf>, split: Split },
    /// CIFAR batches.
    Cifar { kind: CifarKind, home: Home, split: Split },
    /// WebDataset shards.
    Shards(Vec<PathBuf>),
    /// A list of pictures; `split` is still to be looked for in its rows.
    List { file: PathBuf, split: Split },
    /// Parquet files.
    Parquet(Vec<PathBuf>),
}

/// Names of the folders that hold a part of a data set.
pub(super) const PARTS: [&str; 4] = ["train", "test", "val", "validation"];

/// Folder names that a split goes by, best first.
fn names(split: Split) -> &'static [&'static str] {
    match split {
        Split::All => &[],
        Split::Train => &PARTS[..1],
        Split::Test => &PARTS[1..],
    }
}

/// Which of the parts found is the one asked for? `Ok(None)`: there are no parts, take everything.
pub(crate) fn choose_part<'a>(found: &[&'a str], split: Split, place: &Path) -> Result<Option<&'a str>> {
    if found.is_empty() {
        return Ok(None);
    }
    if split == Split::All {
        let help = "set split to train or test, or point the path at one of them";
        return Err(Error::new(
            Code::DataUnusable,
            format!("{} holds parts of a data set ({}), not classes", place.display(), some(found)),
            help,
        ));
    }
    if let Some(part) = names(split).iter().find_map(|n| found.iter().find(|f| *f == n)) {
        return Ok(Some(part));
    }
    let wanted = if split == Split::Train { "training" } else { "test" };
    Err(Error::new(
        Code::DataUnusable,
        format!(
            "{} has no {wanted} part: looked for {}, found {}",
            place.display(),
            some(names(split)),
            some(found)
        ),
        "point the path at the right folder, or change split",
    ))
}

/// Find out what lies at the source's path.
pub(crate) fn look(source: &DataSource) -> Result<Layout> {
    let path = &source.path;
    let meta = match fs_err::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if let Some(files) = in_braces(path) {
                return several(path, files, source.format, source.split);
            }
            let help = "check data.train.path and data.validation.path, and that the file system is mounted";
            return Err(Error::new(
                Code::DataUnusable,
                format!("the data {} does not exist", path.display()),
                help,
            ));
        }
        other => other.context(|| "the data cannot be read".into())?,
    };
    match source.format {
        DataFormat::Auto => auto(path, meta.is_dir(), source.split),
        DataFormat::Folder if meta.is_dir() => folder(path, source.split),
        DataFormat::Folder => Err(Error::new(
            Code::DataUnusable,
            format!("{} is no folder", path.display()),
            "set format: auto, or point the path at a folder",
        )),
        DataFormat::Tar => {
            let (files, split) = tars_at(path, meta.is_dir(), source.split)?;
            Ok(Layout::Tars { files, split })
        }
        DataFormat::WebDataset => Ok(Layout::Shards(tars_at(path, meta.is_dir(), source.split)?.0)),
        DataFormat::Manifest => list(path, meta.is_dir(), source.split),
        DataFormat::Parquet if meta.is_dir() => Ok(Layout::Parquet(parquet::of_folder(path, source.split)?)),
        DataFormat::Parquet => Ok(Layout::Parquet(vec![path.clone()])),
        DataFormat::Cifar10 => cifar(path, meta.is_dir(), CifarKind::Ten, source.split),
        DataFormat::Cifar100 => cifar(path, meta.is_dir(), CifarKind::Hundred, source.split),
    }
}

/// Has the data a test part of its own (a test batch, or a folder `test`, `val` or `validation`)?
///
/// Errors: as for opening it: nothing there, or nothing known.
pub fn has_test_part(path: &Path, format: DataFormat) -> Result<bool> {
    // Without parts, everything is taken whatever the split; with parts, `All` is refused, so ask for the training part first.
    let layout = look(&DataSource {
        path: path.to_path_buf(),
        format,
        split: Split::Train,
        source: None,
    })?;
    match layout {
        Layout::List { file, .. } => listed::has_test_part(&file),
        Layout::Parquet(files) => match files.first().and_then(|file| file.parent()) {
            Some(folder) if files.iter().all(|file| file != path) => parquet::has_test_part(folder),
            _ => Ok(false),
        },
        Layout::Shards(files) if files.iter().all(|file| file.parent() != Some(path) && file != path) => {
            Ok(parts_of(path)?.iter().any(|p| *p != "train"))
        }
        Layout::Shards(_) => Ok(false),
        Layout::Cifar { kind, home, .. } => Ok(!home.batches(kind, Split::Test)?.is_empty()),
        Layout::Folder(root) => Ok(root != path && parts_of(path)?.iter().any(|p| *p != "train")),
        Layout::Tars { files, split: Split::Train } => {
            let mut all = Vec::new();
            for file in &files {
                all.extend(archive::names(file)?);
            }
            Ok(super::tars::tar_parts(&all).1.iter().any(|p| *p != "train"))
        }
        Layout::Tars { .. } => Ok(parts_of(path)?.iter().any(|p| *p != "train")),
    }
}

/// Which CIFAR the source is, if it is one. Errors: as for opening it.
pub fn cifar_kind(source: &DataSource) -> Result<Option<CifarKind>> {
    Ok(match look(source)? {
        Layout::Cifar { kind, .. } => Some(kind),
        _ => None,
    })
}

fn auto(path: &Path, is_dir: bool, split: Split) -> Result<Layout> {
    if !is_dir {
        if archive::is_tar(path)? {
            return Ok(match cifar_tar(path)? {
                Some(kind) => Layout::Cifar {
                    kind,
                    home: Home::Tar(path.to_path_buf()),
                    split,
                },
                None if webdataset::is_shard(path)? => Layout::Shards(vec![path.to_path_buf()]),
                None => Layout::Tars {
                    files: vec![path.to_path_buf()],
                    split,
                },
            });
        }
        if rows::is_list(path) {
            return list(path, false, split);
        }
        if parquet::is_parquet_name(&path.to_string_lossy()) {
            return Ok(Layout::Parquet(vec![path.to_path_buf()]));
        }
        if path.extension().is_some_and(|e| e == "bin") {
            let size = fs_err::metadata(path)?.len();
            let fits: Vec<CifarKind> = [CifarKind::Ten, CifarKind::Hundred]
                .into_iter()
                .filter(|k| size > 0 && size % k.record() as u64 == 0)
                .collect();
            if let [kind] = fits[..] {
                return cifar(path, false, kind, split);
            }
        }
        return Err(unknown(path));
    }
    for kind in [CifarKind::Ten, CifarKind::Hundred] {
        if cifar_folder(path, kind)?.is_some() {
            return cifar(path, true, kind, split);
        }
    }
    let (files, rest) = tars_in(path, split)?;
    if let [file] = &files[..]
        && let Some(kind) = cifar_tar(file)?
    {
        return Ok(Layout::Cifar {
            kind,
            home: Home::Tar(file.clone()),
            split,
        });
    }
    match files.first() {
        Some(first) if webdataset::is_shard(first)? => Ok(Layout::Shards(files)),
        Some(_) => Ok(Layout::Tars { files, split: rest }),
        None if parquet::home(path)?.is_some() => Ok(Layout::Parquet(parquet::of_folder(path, split)?)),
        None => folder(path, split),
    }
}

/// Several files that a range in braces names.
fn several(path: &Path, files: std::result::Result<Vec<PathBuf>, String>, format: DataFormat, split: Split) -> Result<Layout> {
    let refuse = |what: String, help: &str| Err(Error::new(Code::DataUnusable, format!("{}: {what}", path.display()), help));
    let files = match files {
        Ok(files) => files,
        Err(what) => return refuse(what, "write the range as {000..123}, from the first number to the last"),
    };
    for file in &files {
        if !files::look(file)?.is_some_and(|found| found.is_file()) {
            return refuse(
                format!("{} is not there, or no file", file.display()),
                "copy what is missing, or write the range as the files are numbered",
            );
        }
    }
    let all_parquet = || files.iter().all(|file| parquet::is_parquet_name(&file.to_string_lossy()));
    if format == DataFormat::Parquet || format == DataFormat::Auto && all_parquet() {
        return Ok(Layout::Parquet(files));
    }
    let shards = match (format, files.first()) {
        (DataFormat::WebDataset, _) => true,
        (DataFormat::Tar, _) => false,
        (DataFormat::Auto, Some(first)) if archive::is_tar(first)? => webdataset::is_shard(first)?,
        _ => return refuse("several files of this format cannot be read".into(), "name one file, or a folder"),
    };
    Ok(if shards { Layout::Shards(files) } else { Layout::Tars { files, split } })
}

/// A list of pictures: this file, or of a folder the one that the split names.
fn list(path: &Path, is_dir: bool, split: Split) -> Result<Layout> {
    if !is_dir {
        return Ok(Layout::List {
            file: path.to_path_buf(),
            split,
        });
    }
    let lists: Vec<String> = listing(path)?
        .into_iter()
        .filter(|(name, dir)| !dir && rows::is_list(Path::new(name)))
        .map(|(name, _)| name)
        .collect();
    let stems: Vec<&str> = lists.iter().map(|name| name.split('.').next().unwrap_or_default()).collect();
    let at = match &lists[..] {
        [] => None,
        [_] => Some(0),
        _ => choose_part(&stems, split, path)?.and_then(|part| stems.iter().position(|stem| *stem == part)),
    };
    match at {
        // The file is the part; a column `split` is looked at where there is one.
        Some(at) => Ok(Layout::List {
            file: path.join(&lists[at]),
            split,
        }),
        None => Err(Error::new(
            Code::DataUnusable,
            format!("{} holds no list of pictures", path.display()),
            "point the path at a CSV file (train.csv) or a file of JSON lines (train.jsonl)",
        )),
    }
}

fn unknown(path: &Path) -> Error {
    Error::new(
        Code::DataUnusable,
        format!("{} is no data set that is known here", path.display()),
        "give a folder with one sub-folder per class, a tar of it, WebDataset shards, a list (CSV or JSON lines), parquet files, or CIFAR-10/100 binary batches",
    )
}

fn folder(path: &Path, split: Split) -> Result<Layout> {
    Ok(Layout::Folder(match choose_part(&parts_of(path)?, split, path)? {
        Some(part) => path.join(part),
        None => path.to_path_buf(),
    }))
}

/// Tar files in the folder, or in the part of it that `split` names; and the split that is still to be looked for inside them.
fn tars_in(path: &Path, split: Split) -> Result<(Vec<PathBuf>, Split)> {
    let own = tars(path)?;
    if !own.is_empty() {
        return Ok((own, split));
    }
    for part in names(split) {
        let inside = path.join(part);
        if is_dir(&inside)? {
            return Ok((tars(&inside)?, Split::All));
        }
    }
    Ok((Vec::new(), split))
}

/// This tar, or those of the folder as [`tars_in`]; at least one.
fn tars_at(path: &Path, is_dir: bool, split: Split) -> Result<(Vec<PathBuf>, Split)> {
    let (files, split) = if is_dir {
        tars_in(path, split)?
    } else {
        (vec![path.to_path_buf()], split)
    };
    if files.is_empty() {
        return Err(Error::new(
            Code::DataUnusable,
            format!("{} holds no tar files", path.display()),
            "set format: auto, or name them: shards/train-{000..123}.tar",
        ));
    }
    Ok((files, split))
}

fn tars(path: &Path) -> Result<Vec<PathBuf>> {
    Ok(listing(path)?
        .into_iter()
        .filter(|(name, dir)| !dir && is_tar_name(name))
        .map(|(name, _)| path.join(name))
        .collect())
}

fn is_tar_name(name: &str) -> bool {
    [".tar", ".tar.gz", ".tgz"].iter().any(|e| name.ends_with(e))
}

/// Which sub-folders are parts of a data set: named so, and holding folders or tars but no pictures of their own (`train` may be a class of vehicles).
fn parts_of(path: &Path) -> Result<Vec<&'static str>> {
    let mut parts = Vec::new();
    for part in PARTS {
        let inside = path.join(part);
        if is_dir(&inside)? {
            let files = listing(&inside)?;
            let holds = files.iter().any(|(_, dir)| *dir) || !tars(&inside)?.is_empty();
            if holds && !files.iter().any(|(name, dir)| !dir && is_picture_name(name)) {
                parts.push(part);
            }
        }
    }
    Ok(parts)
}

/// Does the name end like a picture's? This is the list of torchvision's `ImageFolder`.
pub(crate) fn is_picture_name(name: &str) -> bool {
    let Some((_, extension)) = name.rsplit_once('.') else { return false };
    ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"]
        .iter()
        .any(|e| extension.eq_ignore_ascii_case(e))
}

/// Names (sorted; hidden ones left out) and whether they are folders. A loose file whose name is not UTF-8 is nobody's; a folder or archive is an error.
pub(crate) fn listing(path: &Path) -> Result<Vec<(String, bool)>> {
    let mut out = Vec::new();
    for entry in fs_err::read_dir(path)? {
        let entry = entry?;
        match entry.file_name().into_string() {
            Ok(name) if name.starts_with('.') => {}
            Ok(name) => out.push((name, is_dir(&entry.path())?)),
            Err(name) => {
                let shown = name.to_string_lossy();
                let hidden = shown.starts_with('.');
                let part = is_dir(&entry.path())? || is_data_name(&shown);
                if part && !hidden {
                    return Err(not_utf8(&entry.path()));
                }
            }
        }
    }
    out.sort();
    Ok(out)
}

/// Does a file of this name hold examples by itself?
fn is_data_name(name: &str) -> bool {
    is_tar_name(name) || parquet::is_parquet_name(name) || name.ends_with(".bin")
}

fn cifar(path: &Path, is_dir: bool, kind: CifarKind, split: Split) -> Result<Layout> {
    let home = if is_dir {
        match cifar_folder(path, kind)? {
            Some(folder) => Home::Folder(folder),
            None => {
                let mut tar = None;
                for file in tars(path)? {
                    match cifar_tar(&file) {
                        Ok(Some(found)) if found == kind => {
                            tar = Some(file);
                            break;
                        }
                        Err(error) if error.fault().kind == FaultKind::Resource => return Err(error),
                        // Another tar, or a damaged one: not what is looked for.
                        _ => {}
                    }
                }
                Home::Tar(tar.ok_or_else(|| {
                    Error::new(
                        Code::DataUnusable,
                        format!("{} holds no {kind} batches", path.display()),
                        format!("expected {} in it", kind.expected()),
                    )
                })?)
            }
        }
    } else if archive::is_tar(path)? {
        Home::Tar(path.to_path_buf())
    } else {
        Home::File(path.to_path_buf())
    };
    Ok(Layout::Cifar { kind, home, split })
}

/// The folder that holds the batches: this one, or the one that the official archive makes.
fn cifar_folder(path: &Path, kind: CifarKind) -> Result<Option<PathBuf>> {
    for folder in [path.to_path_buf(), path.join(kind.folder())] {
        if is_dir(&folder)? && listing(&folder)?.iter().any(|(name, dir)| !dir && kind.part(name).is_some()) {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

/// Does the tar hold CIFAR batches? Decided by its first members.
fn cifar_tar(path: &Path) -> Result<Option<CifarKind>> {
    let (mut kind, mut seen) = (None, 0);
    archive::members(path, &mut |member| {
        seen += 1;
        let name = member.name.rsplit('/').next().unwrap_or_default();
        kind = [CifarKind::Ten, CifarKind::Hundred]
            .into_iter()
            .find(|k| k.part(name).is_some() && member.size % k.record() as u64 == 0);
        Ok(if kind.is_some() || seen == 100 || is_picture_name(name) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    Ok(kind)
}
