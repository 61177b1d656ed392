//! A file's bytes as a slice.

use crate::error::{Result, ResultExt};
use memmap2::Mmap;
use std::path::Path;

/// A read-only map of a whole file.
#[derive(Debug)]
pub(crate) struct Map(Mmap);

impl Map {
    /// Map a file that nobody changes while it is read.
    ///
    /// Unsafe because the bytes may change, and reading past a shortened end raises SIGBUS. For files of our cache both are excluded by how they are made: they are
    /// complete, fsynced and renamed into place before anybody opens them, named by the digest of what they hold, never written again, and their
    /// length was checked on this very handle. The owner's model is asked to be put in place by renaming, too. No text is looked at in the map itself
    /// (`import` copies it first), and numbers are copied into tensors: bytes that change there are other numbers, which checksum or finiteness show.
    /// Whoever shortens such a file in place ends the job (a worker process), not the guard.
    #[allow(unsafe_code)]
    pub(crate) fn new(file: &fs_err::File, path: &Path) -> Result<Self> {
        crate::memory::allow_mapping(file.metadata()?.len());
        // SAFETY: see above; the map is read-only and lives as long as `Self`.
        let map = unsafe { Mmap::map(file.file()) };
        map.map(Self).context(|| format!("mapping {}", path.display()))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
