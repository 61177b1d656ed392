//! What the inbox records beside the cases that it takes in.

use crate::case::{Accepted, CaseId, FileIdentity, RefusedFile, bounds};
use delta_guard_contract::Digest;
use serde::{Deserialize, Serialize};

/// A file that did not become a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k", content = "d", rename_all = "kebab-case")]
pub enum Note {
    /// It was refused.
    FileRefused(RefusedFile),
    /// A picture was dropped again.
    Duplicate {
        /// The case that it already is.
        of: CaseId,
        /// The file's name, escaped.
        name: String,
        /// The picture and its sidecar.
        files: Vec<FileIdentity>,
        /// BLAKE3 of each file's content; empty in journals of older versions.
        #[serde(default)]
        contents: Vec<Digest>,
    },
}

impl Note {
    /// Every kind.
    pub const KINDS: [&str; 2] = ["file-refused", "duplicate"];

    /// The record's kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Note::FileRefused(_) => "file-refused",
            Note::Duplicate { .. } => "duplicate",
        }
    }

    pub(super) fn bounded(self) -> Self {
        let cut = |text: String| bounds::cut(&text, bounds::NOTE);
        match self {
            Note::FileRefused(refused) => Note::FileRefused(RefusedFile {
                sentence: cut(refused.sentence),
                name: cut(refused.name),
                name_base64: cut(refused.name_base64),
                ..refused
            }),
            Note::Duplicate { of, name, files, contents } => Note::Duplicate {
                of,
                name: cut(name),
                files,
                contents,
            },
        }
    }
}

/// What became of the file that the inbox dealt with last. Its removal may have been cut off by a crash.
#[derive(Clone, Debug, PartialEq)]
pub enum LastFile {
    /// Taken in, or a duplicate: to be removed, if it still has the content of this digest.
    Taken(Vec<(FileIdentity, Option<Digest>)>),
    /// Refused: to be moved away.
    Refused(RefusedFile),
}

impl LastFile {
    /// It became a case.
    pub(in crate::engine) fn accepted(accepted: &Accepted) -> Self {
        let picture = (accepted.file, Some(accepted.content.clone()));
        let sidecar = accepted.sidecar.map(|file| (file, accepted.sidecar_content.clone()));
        LastFile::Taken(std::iter::once(picture).chain(sidecar).collect())
    }

    /// It did not.
    pub(in crate::engine) fn of(note: Note) -> Self {
        match note {
            Note::FileRefused(refused) => LastFile::Refused(refused),
            Note::Duplicate { files, contents, .. } => {
                let contents = contents.into_iter().map(Some).chain(std::iter::repeat(None));
                LastFile::Taken(files.into_iter().zip(contents).collect())
            }
        }
    }
}
