//! What is too long for a record lies in a file of the case, named by its digest; the record names the file.

use crate::case::Kept;
use crate::publish;
use anyhow::{Context, Result};
use delta_guard_contract::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Folder of such files in a case's folder.
const FOLDER: &str = "kept";

/// Write a value as JSON, durably. Doing it again gives the same file.
pub(super) fn keep<T: Serialize>(case_dir: &Path, value: &T) -> Result<Kept> {
    let bytes = serde_json::to_vec(value)?;
    keep_bytes(case_dir, &bytes, "json")
}

/// The same for a text.
pub(super) fn keep_text(case_dir: &Path, text: &str) -> Result<Kept> {
    keep_bytes(case_dir, text.as_bytes(), "txt")
}

fn keep_bytes(case_dir: &Path, bytes: &[u8], kind: &str) -> Result<Kept> {
    let digest = Digest(blake3::hash(bytes).to_hex().to_string());
    let name = format!("{digest}.{kind}");
    let dir = case_dir.join(FOLDER);
    publish::make_dir(&dir)?;
    publish::publish_file(&dir, &name, bytes)?;
    Ok(Kept {
        file: format!("{FOLDER}/{name}"),
        digest,
        bytes: bytes.len() as u64,
    })
}

/// Read such a file and hold it against its digest.
///
/// # Errors
/// When it is gone, was changed, or is of another form.
pub fn load<T: DeserializeOwned>(case_dir: &Path, kept: &Kept) -> Result<T> {
    let file = case_dir.join(&kept.file);
    let bytes = read_checked(&file, &kept.digest)?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not what it should hold", file.display()))
}

/// The bytes of a file whose digest is known.
///
/// # Errors
/// When it cannot be read or was changed.
pub(super) fn read_checked(file: &Path, digest: &Digest) -> Result<Vec<u8>> {
    let bytes = fs_err::read(file)?;
    let found = blake3::hash(&bytes).to_hex();
    anyhow::ensure!(
        found.as_str() == digest.0,
        "{} was changed since it was written: its BLAKE3 is {found}, not {digest}",
        file.display()
    );
    Ok(bytes)
}
