//! Framing: bytes ↔ one record. Strict: exactly one spelling of each frame is accepted, so that any changed bit shows.

use super::Hash;

/// Most bytes of a record's JSON that is read.
pub const MAX_JSON: usize = 1 << 20;
/// Most bytes of a record's JSON that is written. (Earlier versions wrote larger ones.)
pub const MAX_WRITTEN: usize = 64 << 10;
/// Bytes before the JSON: eight digits, a space, sixty-four digits, a space.
pub const PREFIX: usize = 8 + 1 + 64 + 1;

/// Hash of a record that follows `prev`.
pub fn hash(prev: &Hash, seq: u64, json: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key("delta-guard journal v1");
    hasher.update(prev);
    hasher.update(&seq.to_le_bytes());
    hasher.update(&(json.len() as u32).to_le_bytes());
    hasher.update(json);
    *hasher.finalize().as_bytes()
}

/// The frame of `json` (at most [`MAX_JSON`] bytes, no newline), and its hash.
pub fn encode(prev: &Hash, seq: u64, json: &[u8]) -> (Vec<u8>, Hash) {
    debug_assert!(json.len() <= MAX_JSON && !json.contains(&b'\n'));
    let hash = hash(prev, seq, json);
    let mut frame = Vec::with_capacity(PREFIX + json.len() + 1);
    frame.extend_from_slice(format!("{:08x} {} ", json.len(), hex::encode(hash)).as_bytes());
    frame.extend_from_slice(json);
    frame.push(b'\n');
    (frame, hash)
}

/// What bytes at the place of a frame are.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole frame of this many bytes; its JSON and its hash, which agrees with the chain.
    Frame {
        /// The JSON.
        json: &'a [u8],
        /// The link.
        hash: Hash,
        /// Bytes of the frame.
        len: usize,
    },
    /// The beginning of a frame, whose rest is missing. An empty slice is one too.
    Prefix,
    /// Neither; why.
    Bad(&'static str),
}

/// Read the frame of record `seq`, which follows `prev`, at the start of `bytes`.
pub fn parse<'a>(bytes: &'a [u8], prev: &Hash, seq: u64) -> Parsed<'a> {
    let len = match shape(bytes) {
        Shape::Whole { len } => len,
        Shape::Prefix => return Parsed::Prefix,
        Shape::Bad(why) => return Parsed::Bad(why),
    };
    let json = &bytes[PREFIX..len - 1];
    let hash = hash(prev, seq, json);
    if hex::encode(hash).as_bytes() != &bytes[9..73] {
        return Parsed::Bad("its hash does not agree with its content and the record before");
    }
    Parsed::Frame { json, hash, len }
}

/// Does a whole frame begin here, as far as can be told without the record before?
pub fn looks_whole(bytes: &[u8]) -> bool {
    matches!(shape(bytes), Shape::Whole { .. })
}

/// Bytes of the frame that begins here, as its length says; None where the length cannot be read.
pub fn declared_len(bytes: &[u8]) -> Option<usize> {
    let digits = bytes.get(..8)?;
    if !digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let json = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (2..=MAX_JSON).contains(&json).then_some(PREFIX + json + 1)
}

enum Shape {
    Whole { len: usize },
    Prefix,
    Bad(&'static str),
}

fn shape(bytes: &[u8]) -> Shape {
    for (at, byte) in bytes.iter().take(PREFIX).enumerate() {
        let fits = if at == 8 || at == 73 {
            *byte == b' '
        } else {
            matches!(byte, b'0'..=b'9' | b'a'..=b'f')
        };
        if !fits {
            return Shape::Bad("it does not begin like a record");
        }
    }
    if bytes.len() < 8 {
        return Shape::Prefix;
    }
    let length = std::str::from_utf8(&bytes[..8])
        .ok()
        .and_then(|digits| usize::from_str_radix(digits, 16).ok());
    let Some(json) = length.filter(|json| (2..=MAX_JSON).contains(json)) else {
        return Shape::Bad("its length is out of range");
    };
    let len = PREFIX + json + 1;
    let body = bytes.get(PREFIX..bytes.len().min(len - 1)).unwrap_or_default();
    if body.contains(&b'\n') {
        return Shape::Bad("it is shorter than its length says");
    }
    match bytes.get(len - 1) {
        None => Shape::Prefix,
        Some(b'\n') => Shape::Whole { len },
        Some(_) => Shape::Bad("it does not end where its length says"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_framed_is_read_and_nothing_else(json in "\\{[ -~]{0,300}\\}", seq in any::<u64>(), prev in any::<[u8; 32]>(), bit in any::<prop::sample::Index>()) {
            let (mut bytes, link) = encode(&prev, seq, json.as_bytes());
            let whole = bytes.len();
            bytes.extend_from_slice(b"0000");
            prop_assert_eq!(parse(&bytes, &prev, seq), Parsed::Frame { json: json.as_bytes(), hash: link, len: whole });
            for cut in 0..whole {
                prop_assert_eq!(parse(&bytes[..cut], &prev, seq), Parsed::Prefix);
            }
            let wrong_seq = matches!(parse(&bytes, &prev, seq.wrapping_add(1)), Parsed::Bad(_));
            prop_assert!(wrong_seq);
            bytes.truncate(whole);
            let bit = bit.index(whole * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let flipped = matches!(parse(&bytes, &prev, seq), Parsed::Bad(_) | Parsed::Prefix);
            prop_assert!(flipped);
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, &[0; 32], 1);
            let _ = looks_whole(&bytes);
        }
    }
}
