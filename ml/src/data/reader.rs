//! What the readers have in common.

use super::manifest::Manifest;
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
pub(crate) enum Content {
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
    pub(crate) content: Content,
}

/// Takes blocks of examples; may stop the reader.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(Vec<Raw>) -> Result<ControlFlow<()>>;

/// A way in which data sets lie on disk.
pub(crate) trait Reader {
    /// List all examples with the digests of their contents. `known`: class order to use. Contents that `index` knows unchanged are not read.
    fn scan(&mut self, known: Option<&[String]>, index: &mut StatIndex, report: &mut dyn Report) -> Result<Manifest>;

    /// Hand over the contents of the scanned manifest's examples, each once, in its order, in blocks.
    fn read(&self, sink: Sink) -> Result<()>;
}

/// Apply `work` to each item, on all cores, keeping the order.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores == 1 || items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let share = items.len().div_ceil(cores);
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items
            .chunks(share)
            .map(|chunk| scope.spawn(move || chunk.iter().map(work).collect::<Vec<R>>()))
            .collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn parallel_work_keeps_the_order() {
        for n in [0usize, 1, 2, 3, 17, 1000] {
            let items: Vec<usize> = (0..n).collect();
            assert_eq!(super::in_parallel(&items, |i| i * i), items.iter().map(|i| i * i).collect::<Vec<_>>());
        }
    }
}
