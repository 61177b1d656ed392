//! A glance at a source: its classes and how many files each has, without reading a picture.

use super::layout::{Layout, look};
use super::manifest::KnownClasses;
use super::{folder, listed, parquet_set};
use crate::error::Result;
use delta_guard_contract::DataSource;

/// What a glance shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Glance {
    /// Class names in label order with their files; of a validation set also the training set's classes that it has no folder of, with 0.
    Classes(Vec<(String, u64)>),
    /// The number of classes; their names and sizes stand in the batches.
    Number(usize),
    /// Archives: they would have to be read.
    Unknown,
}

/// Look at a source. `known`: the class names, as for [`super::DataSet::open_known`].
///
/// # Errors
/// `Configuration`, as for opening it.
pub fn glance(source: &DataSource, known: Option<KnownClasses>) -> Result<Glance> {
    Ok(match look(source)? {
        Layout::Folder(root) => Glance::Classes(folder::count(&root, known)?),
        Layout::Cifar { kind, .. } => Glance::Number(kind.classes()),
        Layout::List { file, split } => Glance::Classes(listed::count(&file, split, known)?),
        Layout::Parquet(files) => Glance::Classes(parquet_set::count(&files, known, &source.path)?),
        Layout::Tars { .. } | Layout::Shards(_) => Glance::Unknown,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use delta_guard_contract::{DataFormat, Split};
    use std::path::Path;

    fn source(path: &Path) -> DataSource {
        DataSource {
            path: path.into(),
            format: DataFormat::Auto,
            split: Split::All,
            source: None,
        }
    }

    #[test]
    fn classes_and_files_are_counted_and_what_would_fail_later_fails_now() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        };
        put("train/b/1.png");
        put("train/b/deep/2.png");
        put("train/a/1.png");
        put("validation/b/1.png");
        let train = glance(&source(&folder.path().join("train")), None).unwrap();
        assert_eq!(train, Glance::Classes(vec![("a".into(), 1), ("b".into(), 2)]));
        let known = ["a".to_owned(), "b".to_owned()];
        let validation = source(&folder.path().join("validation"));
        assert_eq!(
            glance(&validation, Some(KnownClasses::Training(&known))).unwrap(),
            Glance::Classes(vec![("a".into(), 0), ("b".into(), 1)])
        );
        put("validation/c/1.png");
        assert!(
            glance(&validation, Some(KnownClasses::Training(&known))).is_err(),
            "a class that was not trained"
        );
        assert!(glance(&source(&folder.path().join("train/a")), None).is_err(), "no class folders");
        assert!(glance(&source(&folder.path().join("nowhere")), None).is_err());
    }
}
