//! One byte form of a safetensors file. The crate writes the header's texts in the order of a hash map, which differs from run to run: the same
//! tensors would have two digests.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of the header's length.
const LENGTH: usize = 8;
/// What the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// An entry of the header.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Tensor {
        dtype: String,
        shape: Vec<usize>,
        data_offsets: (usize, usize),
    },
    /// `__metadata__`.
    Texts(BTreeMap<String, String>),
}

/// Put the header of a safetensors file that is open for reading and writing into its canonical order: by name, metadata too. Sizes and offsets stay as they are.
///
/// # Errors
/// `Internal`: the bytes were just written by the crate. And those of reading and writing.
pub fn sort_header(file: &File) -> Result<()> {
    let mut length = [0; LENGTH];
    file.read_exact_at(&mut length, 0)?;
    let mut header = vec![0; header_length(&length)?];
    file.read_exact_at(&mut header, LENGTH as u64)?;
    Ok(file.write_all_at(&sorted(&header)?, LENGTH as u64)?)
}

fn header_length(bytes: &[u8]) -> Result<usize> {
    let length = bytes.first_chunk::<LENGTH>().map(|n| u64::from_le_bytes(*n));
    length.filter(|n| *n <= MAX_HEADER).map(|n| n as usize).ok_or_else(broken)
}

fn sorted(header: &[u8]) -> Result<Vec<u8>> {
    let entries: BTreeMap<String, Entry> = serde_json::from_slice(header).map_err(|_| broken())?;
    let mut text = serde_json::to_vec(&entries).map_err(|_| broken())?;
    // The format pads with blanks.
    if text.len() > header.len() {
        return Err(broken());
    }
    text.resize(header.len(), b' ');
    Ok(text)
}

fn broken() -> Error {
    Error::internal("the header of a safetensors file that was just written cannot be read")
}
