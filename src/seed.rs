//! The installation's secret seed: what the guard draws at random (transformed queries, random labels, the fit subset, placebos) follows from it, so that
//! nobody who prepares poisons knows the draw beforehand, and whoever holds the secret can repeat every result.
//!
//! It is made at the first start, lies in the state folder for its user alone, and stays there: it is never logged, reported, mailed, measured or
//! journalled. What leaves this module are seeds derived from it, one for each case and one for the factors that cases share.

use crate::case::CaseId;
use crate::publish::Draft;
use anyhow::{Context, Result, anyhow, bail};
use delta_guard_contract::Seed;
use std::fmt;
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Name of the file in the state folder.
pub const FILE: &str = "seed";

/// Bytes of a secret; the file holds them as hex digits and a newline.
const BYTES: usize = 32;

/// The secret. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// The secret of a state folder, which must be there; drawn and made durable where there is none yet.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or the file holds something else: nothing is drawn anew silently.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join(FILE);
        if let Some(secret) = read(&path)? {
            return Ok(secret);
        }
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system gives no random numbers for the secret seed {}: {error}", path.display()))?;
        make(state_dir, &path, &bytes)?;
        // What lies there counts: another process may have been faster.
        read(&path)?.with_context(|| format!("{} is gone again", path.display()))
    }

    /// Seed of a case: another for each, the same at each repetition.
    pub fn case(&self, id: &CaseId) -> Seed {
        self.derive(&format!("case {}", id.0))
    }

    /// Seed of the factors' fit subset and Fisher labels: one for all cases, which share the factors.
    pub fn factors(&self) -> Seed {
        self.derive("factors")
    }

    fn derive(&self, what: &str) -> Seed {
        let digest = blake3::keyed_hash(&self.0, what.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_bytes()[..8]);
        Seed(u64::from_le_bytes(first))
    }
}

/// Read it; None when there is no file. Too wide rights are taken back.
fn read(path: &Path) -> Result<Option<Secret>> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("the secret seed {} cannot be opened", path.display()))?,
    };
    let about = || format!("the secret seed {} cannot be read", path.display());
    let mode = file.metadata().with_context(about)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(
            message = "Others could read the secret seed. The rights are taken back; to have a new seed, stop the guard, delete the file and start again.",
            file = %path.display(),
            mode = format!("{:o}", mode & 0o777),
        );
        file.set_permissions(Permissions::from_mode(0o600)).with_context(about)?;
    }
    let mut text = String::new();
    file.take(1024).read_to_string(&mut text).with_context(about)?;
    let mut bytes = [0; BYTES];
    if hex::decode_to_slice(text.trim_end(), &mut bytes).is_err() {
        bail!(
            "the secret seed {} is not {} hex digits\n  help: put it back from a copy of the state folder, or delete it: a new one is then drawn, and what was found with the old one cannot be repeated exactly",
            path.display(),
            2 * BYTES
        );
    }
    Ok(Some(Secret(bytes)))
}

/// Make the file, for its user alone from its first moment, durably, and never over another one.
fn make(state_dir: &Path, path: &Path, bytes: &[u8; BYTES]) -> Result<()> {
    let about = || format!("the secret seed {} cannot be written", path.display());
    let attempt = || {
        let mut draft = Draft::new(state_dir, "seed", 0o600)?;
        writeln!(draft, "{}", hex::encode(bytes))?;
        draft.put_new(path)
    };
    attempt().with_context(about).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn is_made_once_for_its_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Secret::open(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim_end().len(), 64);
        assert_eq!(Secret::open(dir.path()).unwrap(), first);
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [FILE], "temporary files are left");
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Secret::open(other.path()).unwrap(), first, "two installations have the same secret");
    }

    #[test]
    fn wide_rights_are_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = Secret::open(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Secret::open(dir.path()).unwrap(), first);
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn what_is_no_secret_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        for content in ["", "7\n", &"g".repeat(64), &"a".repeat(66), &"0".repeat(5000)] {
            std::fs::write(&path, content).unwrap();
            let error = format!("{:#}", Secret::open(dir.path()).unwrap_err());
            assert!(error.contains("64 hex digits") && error.contains("help:"), "{error}");
            assert!(content.is_empty() || !error.contains(content), "the error shows what the file holds");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(Secret::open(dir.path()).is_err(), "a link is followed");
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn seeds_differ_and_are_repeated() {
        let (one, two) = (Secret([1; BYTES]), Secret([2; BYTES]));
        let id = |name: &str| delta_guard_contract::Digest(name.into());
        assert_eq!(one.case(&id("a")).0, one.case(&id("a")).0);
        let all = [one.case(&id("a")), one.case(&id("b")), one.factors(), two.case(&id("a")), two.factors()];
        let different: std::collections::BTreeSet<u64> = all.iter().map(|seed| seed.0).collect();
        assert_eq!(different.len(), all.len(), "{different:?}");
        // Held against an independent computation: `b3sum --keyed` of the same words.
        assert_eq!(
            one.factors().0,
            u64::from_le_bytes(
                blake3::Hasher::new_keyed(&[1; BYTES]).update(b"factors").finalize().as_bytes()[..8]
                    .try_into()
                    .unwrap()
            )
        );
    }

    #[test]
    fn nothing_shows_it() {
        let secret = Secret([0xab; BYTES]);
        let shown = format!("{secret:?} {:?}", secret.factors());
        assert!(
            !shown.contains("171") && !shown.contains("ab") && !shown.contains(&secret.factors().0.to_string()),
            "{shown}"
        );
    }
}
