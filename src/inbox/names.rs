//! File names are bytes that somebody else chose.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Prefix of a file that is being removed.
pub(super) const TAKEN: &[u8] = b".taken-";

/// A file that its writer has not given its final name yet.
pub(super) fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b".")
        || [&b".tmp"[..], b".part", b".swp"]
            .iter()
            .any(|end| name.to_ascii_lowercase().ends_with(end))
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

/// The name under which a file waits for its removal, if there is room for the prefix.
pub(super) fn taken(name: &OsStr) -> Option<OsString> {
    let bytes = [TAKEN, name.as_bytes()].concat();
    (bytes.len() <= 255).then(|| OsString::from_vec(bytes))
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
        assert_eq!(untaken(&taken(name).expect("short")), Some(name));
        assert_eq!(taken(OsStr::new(&"a".repeat(250))), None);
        assert!(is_unfinished(&taken(name).expect("short")));
    }
}
