//! File names are bytes that somebody else chose.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Prefix of a file that is being removed.
pub(super) const TAKEN: &[u8] = b".taken-";

/// Prefix of a refused file that could not be moved out of the inbox: it was told, nobody waits for it.
pub(super) const REFUSED: &[u8] = b".refused-";

/// A file that its writer has not given its final name yet.
pub(super) fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_bytes();
    (name.starts_with(b".") && !is_ours(name))
        || [&b".tmp"[..], b".part", b".swp"]
            .iter()
            .any(|end| name.to_ascii_lowercase().ends_with(end))
}

/// Is it a name that only the guard gives?
pub(super) fn is_ours(name: &[u8]) -> bool {
    name.starts_with(TAKEN) || name.starts_with(REFUSED)
}

/// Is it a sidecar?
pub(super) fn is_sidecar(name: &OsStr) -> bool {
    name.as_bytes().to_ascii_lowercase().ends_with(b".json")
}

/// The name up to its last dot: what a picture and its sidecar share.
pub(super) fn stem(name: &OsStr) -> &[u8] {
    let name = name.as_bytes();
    match name.iter().rposition(|byte| *byte == b'.') {
        Some(dot) if dot > 0 => &name[..dot],
        _ => name,
    }
}

/// A name for a file of ours that people recognise: the submitter's own where it is plain, else with the odd bytes replaced and a digest to tell it from others.
pub(super) fn safe(name: &OsStr) -> String {
    const MOST: usize = 150;
    let bytes = name.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b" ._-+=@,()".contains(byte);
    if bytes.len() <= MOST && bytes.iter().all(plain) && !bytes.starts_with(b".") {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let kept: String = bytes
        .iter()
        .take(MOST)
        .map(|byte| if plain(byte) { char::from(*byte) } else { '_' })
        .collect();
    format!("{}-{}", kept.trim_start_matches('.'), blake3::hash(bytes).to_hex().split_at(8).0)
}

/// The names under which a file may wait for its removal, as far as there is room for the prefix: others may be taken.
pub(super) fn taken(name: &OsStr) -> impl Iterator<Item = OsString> {
    numbered(name)
        .map(|name| [TAKEN, name.as_bytes()].concat())
        .filter(|bytes| bytes.len() <= 255)
        .map(OsString::from_vec)
}

/// The name itself, then `2-name` and so on.
pub(super) fn numbered(name: &OsStr) -> impl Iterator<Item = OsString> {
    (1..1000u32).map(move |n| match n {
        1 => name.to_owned(),
        _ => OsString::from_vec([format!("{n}-").as_bytes(), name.as_bytes()].concat()),
    })
}

/// The name that a file had before it was to be removed.
pub(super) fn untaken(name: &OsStr) -> Option<&OsStr> {
    name.as_bytes().strip_prefix(TAKEN).filter(|rest| !rest.is_empty()).map(OsStr::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_pair_pictures_and_sidecars() {
        for (name, expected) in [("a.png", "a"), ("a.json", "a"), ("a.b.png", "a.b"), ("a", "a"), ("a.", "a")] {
            assert_eq!(stem(OsStr::new(name)), expected.as_bytes());
        }
        assert!(is_sidecar(OsStr::new("A.JSON")) && !is_sidecar(OsStr::new("json")));
    }

    #[test]
    fn safe_names_stay_apart_and_inside() {
        assert_eq!(safe(OsStr::new("cat 7.png")), "cat 7.png");
        let odd = [&b"..\x01x"[..], b"..\x02x", b"\xff.png", b"-\n-", &[b'a'; 255], b"\xe2\x80\xaegnp.exe"];
        let names: std::collections::BTreeSet<String> = odd.iter().map(|name| safe(OsStr::from_bytes(name))).collect();
        assert_eq!(names.len(), odd.len());
        for name in names {
            assert!(
                name.len() <= 160 && !name.starts_with('.') && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'/'),
                "{name}"
            );
        }
    }

    #[test]
    fn taken_names_come_back() {
        let name = OsStr::from_bytes(b"a\xffb.png");
        let hidden: Vec<OsString> = taken(name).take(2).collect();
        assert_eq!(untaken(&hidden[0]), Some(name));
        assert_eq!(untaken(&hidden[1]), Some(OsStr::from_bytes(b"2-a\xffb.png")));
        assert_eq!(taken(OsStr::new(&"a".repeat(250))).next(), None);
        assert!(is_ours(hidden[0].as_bytes()) && !is_unfinished(&hidden[0]) && is_unfinished(OsStr::new(".x.png")));
    }
}
