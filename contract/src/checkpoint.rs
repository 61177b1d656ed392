//! A checkpoint in several files: an index (`*.index.json`) that names for each tensor the file that it lies in, as `save_pretrained` writes it. Pure: reads nothing.

use crate::id::Digest;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Whether a checkpoint of this name is an index.
pub fn is_index(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().to_ascii_lowercase().ends_with(".json"))
}

/// Which file each tensor lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards(pub BTreeMap<String, String>);

impl Shards {
    /// Read an index.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence about the file.
    pub fn read(index: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let Index { weight_map } = serde_json::from_slice(index).map_err(|e| format!("is not the index of a checkpoint: {e}"))?;
        if weight_map.is_empty() {
            return Err("names no tensor".into());
        }
        // Plain names: the files lie beside the index, and nowhere else.
        let plain = |name: &str| !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', '\0']);
        if let Some(odd) = weight_map.values().find(|name| !plain(name)) {
            return Err(format!("names the file {odd:?}, which does not lie beside it"));
        }
        Ok(Self(weight_map))
    }

    /// The files, each once, by name.
    pub fn files(&self) -> Vec<&str> {
        self.0.values().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// What the digest of such a checkpoint is taken of: the digests of its index and of its files, in the order of their names.
pub fn joined(index: &Digest, files: &[(String, Digest)]) -> String {
    let mut text = format!("delta-guard checkpoint in several files\n{index}\n");
    for (name, digest) in files {
        text += &format!("{digest} {name:?}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_files_beside_it() {
        let read = |text: &str| Shards::read(text.as_bytes());
        let good = read(r#"{"metadata": {"total_size": 8}, "weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "1.safetensors"}}"#);
        assert_eq!(good.map(|s| s.files().join(" ")), Ok("1.safetensors 2.safetensors".into()));
        for (text, words) in [
            ("{}", "weight_map"),
            (r#"{"weight_map": {}}"#, "no tensor"),
            (r#"{"weight_map": {"a": "../b"}}"#, "../b"),
            (r#"{"weight_map": {"a": "/etc/passwd"}}"#, "/etc/passwd"),
            (r#"{"weight_map": {"a": ".."}}"#, "beside"),
            (r#"{"weight_map": {"a": 1}}"#, "not the index"),
        ] {
            let told = read(text).err().unwrap_or_default();
            assert!(told.contains(words), "{text}: {told}");
        }
        assert!(is_index(Path::new("/m/model.safetensors.index.json")) && !is_index(Path::new("/m/json/model.safetensors")));
    }

    #[test]
    fn each_file_is_in_the_digest() {
        let digest = |text: &str| Digest(text.into());
        let files = [("1".to_string(), digest("x")), ("2".to_string(), digest("y"))];
        let text = joined(&digest("i"), &files);
        for other in [
            joined(&digest("j"), &files),
            joined(&digest("i"), &files[..1]),
            joined(&digest("i"), &[files[1].clone(), files[0].clone()]),
            joined(&digest("i"), &[files[0].clone(), ("2".into(), digest("z"))]),
        ] {
            assert_ne!(text, other);
        }
    }
}
