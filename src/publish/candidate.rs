//! Candidate folders: `candidates/<digest>/` with the checkpoint, what was removed, how it was judged, and a manifest of it all.

use super::{copy_synced, make_dir, rename_new, sync_dir, write_synced};
use crate::case::{CaseId, StandingUse};
use crate::policy::GateVerdict;
use anyhow::{Context, Result, ensure};
use delta_guard_contract::{Digest, TrainId};
use serde::{Deserialize, Serialize};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Name of the manifest in a candidate's folder. A folder without one does not exist.
pub const MANIFEST: &str = "MANIFEST.json";
const REMOVED: &str = "removed.json";
const STANDING: &str = "standing.json";
const GATE: &str = "gate.json";

/// What is to be published.
#[derive(Debug)]
pub struct NewCandidate<'a> {
    /// The case that it repairs.
    pub case: &'a CaseId,
    /// Digest of the production checkpoint.
    pub base: &'a Digest,
    /// The candidate checkpoint, wherever it lies now.
    pub checkpoint: &'a Path,
    /// Its BLAKE3.
    pub digest: &'a Digest,
    /// Training examples that it was trained without.
    pub removed: &'a [TrainId],
    /// BLAKE3 of their ids, one a line, sorted.
    pub ids: &'a Digest,
    /// The standing exclusion list that it was made under, and its ids: they were left out, too.
    pub standing: Option<(&'a StandingUse, &'a [TrainId])>,
    /// Is it the owner's own? Then nobody says what it was trained without.
    pub given: bool,
    /// New attempts at the case so far; 0 for the first candidate.
    pub attempt: u32,
    /// The gate's verdict.
    pub gate: &'a GateVerdict,
    /// Journal number of the record that holds the verdict.
    pub seq: u64,
}

/// What lies in a candidate's folder, and what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateManifest {
    /// The case that it repairs.
    pub case: CaseId,
    /// Digest of the production checkpoint that it was made from.
    pub base_checkpoint: Digest,
    /// BLAKE3 of the removed ids, one a line, sorted.
    pub ids: Digest,
    /// BLAKE3 of the ids of the standing exclusion list, one a line, sorted (`standing.json`): earlier repairs' examples, left out of this one, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Digest>,
    /// `guard`, or `owner`: then what it was trained without is not known.
    #[serde(default = "by_guard")]
    pub made_by: String,
    /// `passed` or `rejected`.
    pub gate: String,
    /// Journal number of the record of the verdict.
    pub journal_seq: u64,
    /// Every other file of the folder.
    pub files: Vec<ManifestFile>,
}

/// A file of a candidate's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// BLAKE3.
    pub blake3: Digest,
}

fn by_guard() -> String {
    "guard".into()
}

impl NewCandidate<'_> {
    /// Name of its folder: case, attempt and checkpoint together, because two of them may end with the same checkpoint and different verdicts.
    pub fn folder(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("delta-guard candidate v1");
        hasher.update(self.case.0.as_bytes()).update(b"\0").update(self.digest.0.as_bytes());
        if self.attempt > 0 {
            hasher.update(&self.attempt.to_le_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Publish a candidate's folder. Where it stands already, whole, nothing is written. Returns its name and the manifest's digest.
pub fn publish_candidate(candidates: &Path, candidate: &NewCandidate) -> Result<(String, Digest)> {
    let name = candidate.folder();
    let folder = candidates.join(&name);
    if folder.exists() {
        let (_, digest) = read_manifest(&folder)?;
        // A crash between rename and sync leaves a name that may not be durable.
        sync_dir(candidates)?;
        return Ok((name, digest));
    }
    make_dir(candidates)?;
    let temporary = candidates.join(format!(".{name}.tmp"));
    let attempt = || -> Result<Digest> {
        if temporary.exists() {
            fs_err::remove_dir_all(&temporary)?;
        }
        fs_err::create_dir(&temporary)?;
        fs_err::set_permissions(&temporary, Permissions::from_mode(super::FOLDER_MODE))?;
        let manifest = fill(&temporary, candidate)?;
        sync_dir(&temporary)?;
        fail::fail_point!("publish::before_candidate");
        rename_new(&temporary, &folder).with_context(|| folder.display().to_string())?;
        fail::fail_point!("publish::after_candidate");
        sync_dir(candidates)?;
        Ok(digest_of(&manifest))
    };
    let digest = attempt().inspect_err(|_| {
        // Best effort: the first error is the one to tell.
        let _ = fs_err::remove_dir_all(&temporary);
    })?;
    Ok((name, digest))
}

/// Write a candidate's files into its folder, the manifest last. Returns the manifest's bytes.
fn fill(folder: &Path, candidate: &NewCandidate) -> Result<Vec<u8>> {
    let (size, digest) = copy_synced(candidate.checkpoint, &folder.join(super::CHECKPOINT_FILE))?;
    ensure!(
        digest == *candidate.digest,
        "{} was changed since it was trained: its BLAKE3 is {digest}, not {}",
        candidate.checkpoint.display(),
        candidate.digest
    );
    let mut files = vec![ManifestFile {
        name: super::CHECKPOINT_FILE.into(),
        size,
        blake3: digest,
    }];
    let mut lists = vec![(REMOVED, pretty(&candidate.removed)?), (GATE, pretty(candidate.gate)?)];
    if let Some((_, ids)) = candidate.standing {
        lists.push((STANDING, pretty(&ids)?));
    }
    for (name, bytes) in lists {
        write_synced(&folder.join(name), &bytes)?;
        files.push(ManifestFile {
            name: name.into(),
            size: bytes.len() as u64,
            blake3: digest_of(&bytes),
        });
    }
    let manifest = pretty(&CandidateManifest {
        case: candidate.case.clone(),
        base_checkpoint: candidate.base.clone(),
        ids: candidate.ids.clone(),
        standing: candidate.standing.map(|(named, _)| named.digest.clone()),
        made_by: if candidate.given { "owner".into() } else { by_guard() },
        gate: if candidate.gate.pass { "passed" } else { "rejected" }.into(),
        journal_seq: candidate.seq,
        files,
    })?;
    write_synced(&folder.join(MANIFEST), &manifest)?;
    Ok(manifest)
}

/// Read a candidate's manifest and hold every file against it. Returns it with its digest.
pub fn read_manifest(folder: &Path) -> Result<(CandidateManifest, Digest)> {
    let bytes = fs_err::read(folder.join(MANIFEST))?;
    let manifest: CandidateManifest = serde_json::from_slice(&bytes).with_context(|| folder.join(MANIFEST).display().to_string())?;
    for file in &manifest.files {
        let path = folder.join(&file.name);
        let found = super::digest_file(&path)?;
        ensure!(
            found == file.blake3,
            "{} was changed since it was published: its BLAKE3 is {found}, not {}",
            path.display(),
            file.blake3
        );
    }
    Ok((manifest, digest_of(&bytes)))
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest(blake3::hash(bytes).to_hex().to_string())
}

fn pretty<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}
