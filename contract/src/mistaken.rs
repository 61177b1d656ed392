//! What people have in the place of a checkpoint: told by the file's first bytes, with what to do about it.

use crate::checkpoint::is_index;
use std::path::Path;

/// Bytes of a file's start that are enough to tell.
pub const HEAD: usize = 4096;

/// A file that is no safetensors file, told by its first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistaken {
    /// What the file is, as the end of the sentence "the file is …".
    pub what: String,
    /// What to do, in whole sentences.
    pub help: String,
    /// Whether the bytes are those of something known, and not merely none of a safetensors file.
    pub known: bool,
}

/// What the file named `name` is when its first bytes (up to [`HEAD`]) cannot begin a checkpoint (safetensors, the index of several, an exported program); `None` when
/// they can. Pure: reads nothing.
pub fn mistaken(head: &[u8], name: &str) -> Option<Mistaken> {
    if starts_as_safetensors(head) || starts_as_program(head, name) || starts_as_index(head, name) {
        return None;
    }
    let (what, help) = kind(head, name);
    Some(Mistaken {
        what: what.into(),
        help,
        known: !UNKNOWN.contains(&what),
    })
}

/// The two lines of Python that make a safetensors file of a state dict saved by `torch.save` under `name`.
pub fn two_lines(name: &str) -> String {
    let made = name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_string() + ".safetensors";
    let part = if is_lightning(name) { "[\"state_dict\"]" } else { "" };
    // Rust's quoting of a text is Python's, too, for every name that people give to files.
    format!(
        "import torch; from safetensors.torch import save_file\n\
         save_file({{k: v.contiguous().clone() for k, v in torch.load({name:?}, map_location=\"cpu\", weights_only=True){part}.items()}}, {made:?})"
    )
}

/// PyTorch Lightning's checkpoints hold the state dict beside the trainer's state.
fn is_lightning(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".ckpt")
}

/// What is said of bytes that could be anything.
const UNKNOWN: [&str; 3] = [
    "a text file",
    "none that is known here, though it is named like a pickle",
    "none that is known here",
];

/// Eight bytes of header length, then a JSON object.
fn starts_as_safetensors(head: &[u8]) -> bool {
    head.get(..8)
        .and_then(|n| n.try_into().ok())
        .map(u64::from_le_bytes)
        .is_some_and(|n| n <= 100_000_000)
        && head.get(8) == Some(&b'{')
}

/// A zip file whose first entry is a weight, as torch.export.save writes it.
fn starts_as_program(head: &[u8], name: &str) -> bool {
    let first = &head[..head.len().min(400)];
    let named = || first.windows(14).any(|w| w == b"/data/weights/");
    head.starts_with(b"PK\x03\x04") && (named() || name.to_ascii_lowercase().ends_with(".pt2"))
}

/// A JSON object under the name of an index.
fn starts_as_index(head: &[u8], name: &str) -> bool {
    is_index(Path::new(name)) && text_start(head).starts_with('{')
}

fn kind(head: &[u8], name: &str) -> (&'static str, String) {
    let find = |needle: &[u8]| head.windows(needle.len()).any(|w| w == needle);
    let pickled = || {
        let part = if is_lightning(name) {
            ""
        } else {
            " (where the file holds more than the state dict, take its part: torch.load(…)[\"state_dict\"].items())"
        };
        format!(
            "pickles are not read, because they can run code. Make a safetensors file of it with these two lines of Python{part}:\n{}",
            two_lines(name)
        )
    };
    let again = "name the model's weights, saved as safetensors (the section 'On your own model' of the README tells how)";
    let text = text_start(head);
    match head {
        [] => ("empty", "copy the checkpoint again".into()),
        _ if head.starts_with(b"version https://git-lfs.github.com/spec/") => (
            "a Git LFS pointer: a few lines of text that stand for the real file until it is fetched",
            "fetch the real file with `git lfs pull` in its repository, then copy it here".into(),
        ),
        // torch.save since 1.6 writes a ZIP whose members lie in a folder of the model's name.
        [b'P', b'K', 3, 4, ..] if find(b"/data.pkl") || find(b"/byteorder") || find(b"/version") || is_torch_name(name) => {
            ("a PyTorch pickle (torch.save)", pickled())
        }
        [b'P', b'K', 3, 4, ..] if find(b".npy") => ("a NumPy archive (.npz)", again.into()),
        [b'P', b'K', 3, 4, ..] => ("a ZIP archive", again.into()),
        [0x80, 1..=5, ..] => ("a Python pickle (torch.save of old, or pickle.dump)", pickled()),
        // TensorFlow's and Keras' old format.
        [0x89, b'H', b'D', b'F', ..] => ("an HDF5 file (Keras, .h5)", again.into()),
        [b'G', b'G', b'U', b'F', ..] => ("a GGUF file", again.into()),
        [0x1f, 0x8b, ..] => ("compressed with gzip", "unpack it with `gunzip`, and name the file that comes out".into()),
        _ if head.get(257..262) == Some(b"ustar") => ("a tar archive", "unpack it with `tar -xf`, and name the safetensors file in it".into()),
        // ONNX: field 1 (IR version), then field 2 (producer).
        [8, version, 18, ..] if *version < 64 => ("an ONNX model", again.into()),
        _ if text.starts_with("<!doctype html") || text.starts_with("<html") || (text.starts_with('<') && text.contains("<html")) => (
            "an HTML page, most often a log-in or error page that was saved in the place of the download",
            "open the page in a browser to see what it says, then download the checkpoint again".into(),
        ),
        _ if text.starts_with("<?xml") || text.starts_with('<') => (
            "an XML text, most often a storage service's error",
            "look at it (it names the error), then download the checkpoint again".into(),
        ),
        _ if text.starts_with('{') && text.contains("\"weight_map\"") => (
            "the index of a checkpoint in several files, under another name than *.safetensors.index.json",
            "name it as it was written, beside the files that it names".into(),
        ),
        _ if text.starts_with('{') || text.starts_with('[') => ("a JSON text", again.into()),
        _ if !text.is_empty() => (UNKNOWN[0], again.into()),
        _ if is_torch_name(name) => (UNKNOWN[1], pickled()),
        _ => (UNKNOWN[2], again.into()),
    }
}

fn is_torch_name(name: &str) -> bool {
    [".pt", ".pth", ".ckpt", ".pkl", ".bin"]
        .iter()
        .any(|end| name.to_ascii_lowercase().ends_with(end))
}

/// The start of a text in lower case, byte order mark and blanks before it left out; empty when it is no text.
fn text_start(head: &[u8]) -> String {
    let head = head.strip_prefix(&[0xEF, 0xBB, 0xBF]).unwrap_or(head);
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character cut by the end of the head.
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default(),
        Err(_) => return String::new(),
    };
    if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return String::new();
    }
    text.trim_start().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_place_of_a_checkpoint_is_told() {
        let zip = |member: &str| [b"PK\x03\x04\0\0\0\0".as_slice(), member.as_bytes()].concat();
        let mut tar = vec![0; 512];
        tar[..5].copy_from_slice(b"m.bin");
        tar[257..262].copy_from_slice(b"ustar");
        let cases: [(&[u8], &str, &str, &str); 18] = [
            (b"", "m.safetensors", "empty", "copy"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 44757104\n",
                "m.safetensors",
                "Git LFS pointer",
                "git lfs pull",
            ),
            (b"\n<!DOCTYPE html>\n<title>Sign in</title>", "m.safetensors", "HTML page", "download"),
            (b"\xEF\xBB\xBF<HTML><body>403", "m.safetensors", "HTML page", "download"),
            (b"<?xml version='1.0'?><Error><Code>AccessDenied", "m.safetensors", "XML", "download"),
            (
                &zip("archive/data.pkl"),
                "m.safetensors",
                "PyTorch pickle",
                "save_file({k: v.contiguous().clone()",
            ),
            (&zip("m/version"), "m.pth", "PyTorch pickle", "save_file("),
            (&zip("weights.npy"), "m.npz", "NumPy", "safetensors"),
            (&zip("readme"), "m.zip", "ZIP", "safetensors"),
            (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9", "m.pt", "Python pickle", "torch.load(\"m.pt\""),
            (b"\x80\x04\x95", "m", "Python pickle", "\"m.safetensors\""),
            (b"\x89HDF\r\n\x1a\n", "m.h5", "HDF5", "safetensors"),
            (b"GGUF\x03\0\0\0", "m.gguf", "GGUF", "safetensors"),
            (b"\x08\x08\x12\x07pytorch", "m.onnx", "ONNX", "safetensors"),
            (b"\x1f\x8b\x08\0", "m.safetensors.gz", "gzip", "gunzip"),
            (&tar, "m.tar", "tar archive", "tar -xf"),
            (b"{\"metadata\": {}, \"weight_map\": {", "index.txt", "several files", "beside the files"),
            (b"\x00\x01\x02\xff\xfe", "m.dat", "none that is known", "safetensors"),
        ];
        for (head, name, what, help) in cases {
            let told = mistaken(head, name).unwrap();
            assert!(told.what.contains(what) && told.help.contains(help), "{name}: {told:?}");
            assert_eq!(told.known, name != "m.dat", "{name}");
        }
        for (head, name) in [
            (&b"{\"metadata\": {}, \"weight_map\": {"[..], "m.safetensors.index.json"),
            (&zip("m/data/weights/weight_0"), "m.zip"),
            (&zip("m/models/model.json"), "m.pt2"),
        ] {
            assert_eq!(mistaken(head, name), None, "{name}");
        }
        assert!(two_lines("last.ckpt").contains("weights_only=True)[\"state_dict\"].items()") && !two_lines("m.pth").contains("state_dict"));
        let bin = mistaken(&zip("pytorch_model/data.pkl"), "pytorch_model.bin").unwrap();
        assert!(bin.help.contains("\"pytorch_model.safetensors\"") && bin.help.contains("take its part"));
        let good = [&120u64.to_le_bytes()[..], b"{\"a\":"].concat();
        assert_eq!(mistaken(&good, "m.safetensors"), None);
        // A length that no header has is none, whatever follows.
        assert!(mistaken(&[&u64::MAX.to_le_bytes()[..], b"{"].concat(), "m.safetensors").is_some());
    }
}
