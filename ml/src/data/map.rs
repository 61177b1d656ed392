//! A file's bytes as a slice.

use crate::error::{Result, ResultExt};
use memmap2::Mmap;
use std::path::Path;

/// A read-only map of a whole file.
#[derive(Debug)]
pub(crate) struct Map(Mmap);

impl Map {
    /// Map a finished file of a folder that is ours.
    ///
    /// Unsafe because the bytes may change, and reading past a shortened end raises SIGBUS. Both are excluded by how cache files are made: they are
    /// complete, fsynced and renamed into place before anybody opens them, named by the digest of what they hold, never written again, and their
    /// length was checked on this very handle. Whoever shortens a file in the cache folder by hand ends the job (a worker process), not the guard.
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
