//! Files that did not become a case, and why.

use super::FileIdentity;
use serde::{Deserialize, Serialize};

/// Why the inbox refused a file: a closed set, so that it can label a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Refusal {
    /// Not a regular file (link, pipe, socket, device).
    NotRegular,
    /// The file has further names (hard links).
    HardLinks,
    /// No bytes.
    Empty,
    /// More bytes than allowed.
    TooLarge,
    /// The sidecar is not JSON, or not an object of the four known keys.
    BadSidecar,
    /// A sidecar without its picture.
    LoneSidecar,
    /// Two pictures share one sidecar.
    AmbiguousSidecar,
    /// The file may not be read.
    Unreadable,
    /// The worker could not read the picture, or the sidecar names an unknown label.
    Submission,
    /// The model reads it correctly, or not as the sidecar says.
    NoAnomaly,
    /// It is a case already; only the note lies there, for nothing is wrong with the picture.
    Duplicate,
}

impl Refusal {
    /// Every reason.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Its name, as in journal and reason file.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A file that the inbox refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedFile {
    /// Why.
    pub reason: Refusal,
    /// In a sentence.
    pub sentence: String,
    /// The file's name, escaped.
    pub name: String,
    /// The same, byte for byte.
    pub name_base64: String,
    /// The file, and its sidecar.
    pub files: Vec<FileIdentity>,
}
