//! A job's result: a file of its folder, which the worker names with its digest.

use super::broken;
use delta_guard_contract::{Digest, Fault, JobResult, is_passing};
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// Most bytes of a result. A trace of a million flagged examples has some 200 MiB.
pub const MAX_RESULT: u64 = 256 << 20;

/// Read the result `file` of the job in `folder`.
///
/// # Errors
/// `Internal`: the worker names no file of its folder, one that is too long, not the one that it wrote, or no result. `Resource`: it cannot be read just now.
pub(super) async fn read(folder: &Path, file: String, digest: Digest) -> Result<JobResult, Fault> {
    let folder = folder.to_path_buf();
    let read = tokio::task::spawn_blocking(move || read_now(&folder, &file, &digest, MAX_RESULT));
    read.await.map_err(|error| broken(format!("the result could not be read: {error}")))?
}

fn read_now(folder: &Path, file: &str, digest: &Digest, most: u64) -> Result<JobResult, Fault> {
    let path = inside(folder, file)?;
    let mut bytes = Vec::new();
    open(&path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            let message = format!("the worker's result {} cannot be read: {error}", path.display());
            if is_passing(&error) { Fault::passing(message) } else { broken(message) }
        })?;
    if bytes.len() as u64 > most {
        return Err(broken(format!("the worker's result {} has more than {most} bytes", path.display())));
    }
    if blake3::hash(&bytes).to_hex().as_str() != digest.0 {
        return Err(broken(format!("the worker's result {} is not the one that it wrote", path.display())));
    }
    serde_json::from_slice(&bytes).map_err(|error| broken(format!("the worker's result {} is none: {error}", path.display())))
}

/// A regular file, no link: a pipe in its place would be waited for without end.
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

/// A plain name only: nothing that a worker says leads out of its folder.
fn inside(folder: &Path, file: &str) -> Result<PathBuf, Fault> {
    let mut parts = Path::new(file).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) if name == OsStr::new(file) => Ok(folder.join(name)),
        _ => {
            let shown = crate::text::escape(file.as_bytes());
            Err(broken(format!("the worker's result is said to be {shown}, which is no file name")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta_guard_contract::FaultKind;

    fn digest(text: &[u8]) -> Digest {
        Digest(blake3::hash(text).to_hex().to_string())
    }

    #[test]
    fn the_very_file_that_was_written_is_read_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let text = br#"{"result":"graph","file":"g.json"}"#;
        std::fs::write(folder.path().join("outcome.json"), text).unwrap();
        let read = |file: &str, digest: &Digest, most| read_now(folder.path(), file, digest, most);
        let whole = text.len() as u64;
        assert_eq!(read("outcome.json", &digest(text), whole), Ok(JobResult::Graph { file: "g.json".into() }));
        let refused = |file: &str, digest: &Digest, most, word: &str| {
            let fault = read(file, digest, most).unwrap_err();
            assert!(fault.kind == FaultKind::Internal && fault.message.contains(word), "{fault}");
        };
        refused("outcome.json", &digest(b"another"), whole, "not the one");
        refused("outcome.json", &digest(text), whole - 1, "more than");
        refused("nowhere.json", &digest(text), whole, "cannot be read");
        std::os::unix::fs::symlink("outcome.json", folder.path().join("link.json")).unwrap();
        refused("link.json", &digest(text), whole, "cannot be read");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("pipe.json"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        refused("pipe.json", &digest(text), whole, "not a regular file");
        std::fs::write(folder.path().join("none.json"), b"{}").unwrap();
        refused("none.json", &digest(b"{}"), whole, "is none");
        for name in ["", ".", "..", "/etc/passwd", "a/b", "../outcome.json", "./outcome.json", "outcome.json/"] {
            refused(name, &digest(text), whole, "no file name");
        }
    }
}
