//! What a person is told when something fails: whose fault it is, a code to look up, what happened, and what to do.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A failure that a person can act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Whose it is: decides between refusal, hold and retry. That of [`Fault::code`].
    pub kind: FaultKind,
    /// Its name in docs/errors.md.
    pub code: Code,
    /// What happened, to what, where; with causes.
    pub message: String,
    /// What to do about it, naming the configuration key where there is one. May be empty.
    #[serde(default)]
    pub help: String,
}

impl Fault {
    /// The fault of a code, with its kind; `help` may be empty.
    pub fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            kind: code.kind(),
            code,
            message: message.into(),
            help: help.into(),
        }
    }

    /// A defect.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Defect, message, "")
    }

    /// An error of the system that passes by itself ([`crate::is_passing`]).
    pub fn passing(message: impl Into<String>) -> Self {
        Self::new(Code::NoAnswer, message, crate::passing::HELP)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.help.is_empty() {
            write!(f, "\n  help: {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The submitted image or sidecar: the case is refused with the reason.
    Submission,
    /// Configuration, checkpoint or training data: a person must act; the case is held at once.
    Configuration,
    /// Arithmetic: values that cannot be (a cosine above 1), so that no verdict may be built on them. A person must act (`detect.precision`); the case is held.
    Numeric,
    /// Memory, disk, device, a file system that did not answer ([`crate::is_passing`]): worth another try later.
    Resource,
    /// Everything else: a defect. Tried again a few times, then held.
    Internal,
}

/// The names of failures. A name is stable: scripts may look for it. Each has its row in docs/errors.md, which a test holds against this list.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::VariantArray, strum::IntoStaticStr, strum::EnumMessage,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Code {
    /// The submission cannot be used; the message says why.
    Submission,
    /// The submitted picture cannot be read as a picture, or breaks a limit.
    PictureUnusable,
    /// The sidecar names a class that the model does not have.
    LabelUnknown,

    /// A configuration key has a value that cannot work here.
    Configuration,
    /// A file or folder is missing, or may not be read or written.
    FileUnusable,
    /// A training or validation set cannot be read as one.
    DataUnusable,
    /// Pictures or a checkpoint changed while they were read.
    ChangedWhileRead,
    /// A checkpoint is damaged, or does not belong to the network.
    CheckpointUnusable,
    /// A graph file describes no network that can be run.
    GraphUnusable,
    /// An exported program (`.pt2`) is damaged, or holds what is not read.
    ProgramUnusable,
    /// An exported model answers its owner's pictures otherwise than the owner's does.
    ModelDiffers,
    /// A file that the guard keeps for itself (factors, a part of a sum, a point to go on from) is damaged.
    KeptFileUnusable,
    /// A kept file or a part of a sum was made for another model, data set or setting.
    KeptFileForeign,
    /// Weights, gradients or sums are not finite: the training diverged.
    NotFinite,
    /// An id is not in the training set.
    IdUnknown,
    /// No training example would be left.
    NothingLeft,
    /// The wanted device is not there.
    DeviceMissing,
    /// Guard, worker or libtorch are of versions that do not fit each other.
    VersionMismatch,
    /// The worker cannot be started.
    WorkerUnusable,
    /// The owner's trainer (`unlearn.command`) could not be started, or ended with an error.
    CommandFailed,
    /// The owner's trainer left no checkpoint, or none that can take production's place.
    CandidateUnusable,

    /// Computed values that cannot be, such as a cosine above 1.
    NumbersImpossible,

    /// Something that the work needs cannot be had just now.
    Resource,
    /// The disk is full, or a quota is used up.
    DiskFull,
    /// There is not enough memory.
    OutOfMemory,
    /// A file system, a disk or a server did not answer; it may pass by itself.
    NoAnswer,
    /// The worker did not finish within its time limit.
    TimeLimit,
    /// The worker was killed from outside.
    WorkerKilled,
    /// The owner's trainer (`unlearn.command`) was killed, or asks to be started again (exit code 75).
    CommandAgain,

    /// A defect of delta-guard.
    Defect,
    /// The worker crashed, or said what no worker says.
    WorkerBroken,
}

impl Code {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whose fault it is.
    pub const fn kind(self) -> FaultKind {
        match self {
            Self::Submission | Self::PictureUnusable | Self::LabelUnknown => FaultKind::Submission,
            Self::Configuration
            | Self::FileUnusable
            | Self::DataUnusable
            | Self::ChangedWhileRead
            | Self::CheckpointUnusable
            | Self::GraphUnusable
            | Self::ProgramUnusable
            | Self::ModelDiffers
            | Self::KeptFileUnusable
            | Self::KeptFileForeign
            | Self::NotFinite
            | Self::IdUnknown
            | Self::NothingLeft
            | Self::DeviceMissing
            | Self::VersionMismatch
            | Self::WorkerUnusable
            | Self::CommandFailed
            | Self::CandidateUnusable => FaultKind::Configuration,
            Self::NumbersImpossible => FaultKind::Numeric,
            Self::Resource | Self::DiskFull | Self::OutOfMemory | Self::NoAnswer | Self::TimeLimit | Self::WorkerKilled | Self::CommandAgain => {
                FaultKind::Resource
            }
            Self::Defect | Self::WorkerBroken => FaultKind::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::{EnumMessage, VariantArray};

    /// docs/errors.md has one row a code, under the heading of its kind, in the words of this file, with something to do.
    #[test]
    fn every_code_is_explained() {
        let page = include_str!("../../docs/errors.md");
        let mut kind = "";
        let mut rows = Vec::new();
        for line in page.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                kind = heading;
            }
            if let Some(row) = line.strip_prefix("| `") {
                let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
                assert!(cells.len() == 3 && cells[2].len() > 5, "{line}");
                rows.push((kind.to_string(), cells[0].trim_end_matches('`').to_string(), cells[1].to_string()));
            }
        }
        let wanted: Vec<_> = Code::VARIANTS
            .iter()
            .map(|code| {
                let kind = serde_json::to_string(&code.kind()).unwrap_or_default().trim_matches('"').to_string();
                let words = code.get_documentation().unwrap_or_default().to_string();
                (kind, code.as_str().to_string(), words)
            })
            .collect();
        assert_eq!(rows, wanted);
    }

    #[test]
    fn a_fault_has_the_kind_of_its_code() {
        let fault = Fault::new(Code::DiskFull, "full", "");
        let json = serde_json::to_value(&fault).unwrap_or_default();
        assert_eq!(json["kind"], "resource");
        assert_eq!(json["code"], "disk-full");
        assert_eq!(Fault::passing("x").kind, FaultKind::Resource);
        assert_eq!(Fault::internal("x").kind, FaultKind::Internal);
    }
}
