//! Torn or damaged? The last bytes of the last segment decide whether something may be cut.

use super::Hash;
use super::frame::{self, Parsed};

/// Unit in which a disk writes.
const SECTOR: u64 = 512;

/// What is at the end of a segment, where the next frame should begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// A record whose writing did not end: nobody was told of it, it may be cut.
    Torn,
    /// Anything else; why.
    Damage(&'static str),
}

/// Judge `rest`, the bytes from `offset` of the file to its end, where record `seq` after `prev` should be. Not empty.
pub(super) fn judge(rest: &[u8], offset: u64, prev: &Hash, seq: u64) -> Judgement {
    let why = match frame::parse(rest, prev, seq) {
        Parsed::Prefix => return Judgement::Torn,
        Parsed::Frame { .. } => return Judgement::Damage("it is whole"),
        Parsed::Bad(why) => why,
    };
    if follows(rest) || frame::declared_len(rest).is_some_and(|len| rest.len() > len) {
        // More than the one record that can have been under way.
        return Judgement::Damage(why);
    }
    // A file that was made longer before its content arrived has sectors of zeros; no frame holds a zero byte.
    if has_zero_sector(rest, offset) {
        Judgement::Torn
    } else {
        Judgement::Damage(why)
    }
}

/// Is there anything after the first line that looks like a whole record?
fn follows(rest: &[u8]) -> bool {
    rest.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .any(|(at, _)| frame::looks_whole(&rest[at + 1..]))
}

/// Is one of the sectors (the first and the last may be partial) all zeros?
fn has_zero_sector(rest: &[u8], offset: u64) -> bool {
    let first = ((SECTOR - offset % SECTOR) as usize).min(rest.len());
    let (head, tail) = rest.split_at(first);
    std::iter::once(head)
        .chain(tail.chunks(SECTOR as usize))
        .any(|sector| !sector.is_empty() && sector.iter().all(|byte| *byte == 0))
}
