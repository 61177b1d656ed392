//! Where single examples lie, for programs of others that read them.

use super::layout::{Layout, look};
use super::listed;
use crate::error::Result;
use delta_guard_contract::{DataSource, TrainId};
use std::collections::HashMap;
use std::path::PathBuf;

/// Where the examples of a source lie.
#[derive(Debug)]
pub enum Places {
    /// Each is a file below this folder, named by its id.
    Below(PathBuf),
    /// Each is a file that a list names.
    Listed(HashMap<TrainId, PathBuf>),
    /// Inside tars, batches or tables: an example is no file of its own.
    Inside,
}

impl Places {
    /// Of a source.
    ///
    /// # Errors
    /// As for opening it.
    pub fn of(source: &DataSource) -> Result<Self> {
        Ok(match look(source)? {
            Layout::Folder(root) => Self::Below(std::path::absolute(root)?),
            Layout::List { file, split } => Self::Listed(listed::paths(&std::path::absolute(file)?, split)?),
            _ => Self::Inside,
        })
    }

    /// The path of an example; its id where it is no file of its own.
    pub fn path(&self, id: &TrainId) -> String {
        let path = match self {
            Self::Below(root) => Some(root.join(&id.0)),
            Self::Listed(paths) => paths.get(id).cloned(),
            Self::Inside => None,
        };
        path.map_or_else(|| id.0.clone(), |path| path.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_is_the_examples_own_file_or_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs_err::create_dir_all(root.join("set/a")).unwrap();
        fs_err::write(root.join("set/a/1.png"), "").unwrap();
        fs_err::write(root.join("set/list.csv"), "path,label,id\na/1.png,a,first\na/2.png,a,\n").unwrap();
        let path = |at: &str, id: &str| {
            let source: DataSource = serde_json::from_value(json!({"path": root.join(at)})).unwrap();
            Places::of(&source).unwrap().path(&TrainId(id.into()))
        };
        let whole = |at: &str| root.join(at).display().to_string();
        assert_eq!(path("set/list.csv", "first"), whole("set/a/1.png"));
        assert_eq!(path("set/list.csv", "a/2.png"), whole("set/a/2.png"));
        fs_err::remove_file(root.join("set/list.csv")).unwrap();
        assert_eq!(path("set", "a/1.png"), whole("set/a/1.png"));
        let mut tar = tar::Builder::new(fs_err::File::create(root.join("set.tar")).unwrap());
        tar.append_dir_all("a", root.join("set/a")).unwrap();
        tar.finish().unwrap();
        assert_eq!(path("set.tar", "a/1.png"), "a/1.png");
    }
}
