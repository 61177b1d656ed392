//! What the readers have in common.

use super::manifest::{KnownClasses, Manifest};
use super::stat::StatIndex;
use crate::error::Result;
use crate::progress::Report;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Pictures handed over at a time: enough to keep all cores busy, few enough to be small in memory.
pub(crate) const BLOCK: usize = 512;
/// Encoded bytes handed over at a time.
pub(crate) const BLOCK_BYTES: usize = 64 << 20;

/// One example's content.
pub(crate) enum RawContent {
    /// In a file of its own.
    File(PathBuf),
    /// A picture file's bytes.
    Encoded(Vec<u8>),
    /// A CIFAR record: label bytes, then 3,072 bytes R, G, B.
    Record(Vec<u8>),
}

/// An example by its position in the manifest.
pub(crate) struct Raw {
    pub(crate) position: usize,
    pub(crate) content: RawContent,
}

/// Takes blocks of examples; may stop the reader.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(Vec<Raw>) -> Result<ControlFlow<()>>;

/// A way in which data sets lie on disk.
pub(crate) trait SetReader {
    /// List all examples with the digests of their contents. `known`: the class names to use. Contents that `index` knows unchanged are not read.
    fn scan(&mut self, known: Option<KnownClasses>, index: &mut StatIndex, report: &mut dyn Report) -> Result<Manifest>;

    /// Hand over the contents of the scanned manifest's examples, each once, in its order, in blocks.
    fn read(&self, sink: Sink) -> Result<()>;
}
