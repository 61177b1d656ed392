//! Does a network of the owner's come with pictures and its own answers to them? Whether the answers agree is the worker's to say.

use delta_guard_contract::verify::STORED;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// A zip file's directory of names stands at its end, and is shorter than this.
const DIRECTORY: u64 = 8 << 20;

/// Is it a network of the owner's without proof? A file that cannot be read is told elsewhere.
pub(super) fn is_unproved(architecture: &str) -> bool {
    if architecture.ends_with(".pt2") {
        return names_stored(Path::new(architecture)).is_ok_and(|stored| !stored);
    }
    architecture.ends_with(".json")
}

fn names_stored(path: &Path) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(DIRECTORY)))?;
    let mut end = Vec::new();
    file.take(DIRECTORY).read_to_end(&mut end)?;
    let name = format!("extra/{STORED}");
    Ok(end.windows(name.len()).any(|part| part == name.as_bytes()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_exported_model_says_whether_its_owner_stored_pictures() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("ml/tests/fixtures/models");
        let unproved = |name: &str| is_unproved(models.join(name).to_str().unwrap());
        assert!(!unproved("guarded.pt2") && unproved("densenet.pt2"));
        assert!(!unproved("not-there.pt2") && unproved("graph.json") && !unproved("resnet18"));
    }
}
