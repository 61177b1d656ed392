//! The crate's error: a [`Fault`] (whose fault, what, where, what to do) with its causes.
//!
//! Rules: a public function that can fail returns [`Result`]. The place that knows the object (file, row, layer, key) makes the message; callers
//! that know more wrap it with [`ResultExt::context`], which keeps kind and help. `Internal` is for broken invariants only.

use delta_guard_contract::{Fault, FaultKind, is_passing, passing};
use std::fmt::Display;

/// What to do for want of memory.
const WANT_OF_MEMORY: &str = "lower worker.memory_budget, raise worker.memory_limit where one is set, or use a machine or device with more";

/// What to do for want of space.
const WANT_OF_SPACE: &str = "free some space on that file system";

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure that a person can act on.
#[derive(Debug)]
pub struct Error(Box<Fault>);

impl Error {
    /// An error of a kind; `help` may be empty.
    pub fn new(kind: FaultKind, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self(Box::new(Fault {
            kind,
            message: message.into(),
            help: help.into(),
        }))
    }

    /// The submission is at fault.
    pub fn submission(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Submission, message, "")
    }

    /// Configuration, checkpoint or training data are at fault.
    pub fn configuration(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(FaultKind::Configuration, message, help)
    }

    /// Arithmetic: values that cannot be.
    pub fn numeric(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(FaultKind::Numeric, message, help)
    }

    /// Memory, disk or device.
    pub fn resource(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(FaultKind::Resource, message, help)
    }

    /// The system's error that passes by itself ([`is_passing`]), for places that cannot hand it on as it is.
    pub fn passing(message: impl Into<String>) -> Self {
        Self::resource(message, passing::HELP)
    }

    /// A defect.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(
            FaultKind::Internal,
            message,
            "this is a defect of delta-guard: please report it with the log",
        )
    }

    /// Of a panic's payload. tch's short forms panic where an allocation fails: that is a want of memory, everything else a defect.
    pub fn of_panic(panic: &(dyn std::any::Any + Send)) -> Self {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        // The text is another error's debug form: its line ends are written out, and a back trace of C++ follows.
        let line = text.unwrap_or_default().split("\\n").next().unwrap_or_default();
        let line: String = line.lines().next().unwrap_or_default().chars().take(300).collect();
        if is_want_of_memory(&line) {
            return Self::resource(format!("not enough memory: {line}"), WANT_OF_MEMORY);
        }
        Self::internal(format!("the worker panicked: {line}"))
    }

    /// Is it a full disk, or a quota that is used up?
    pub fn is_want_of_space(&self) -> bool {
        self.0.kind == FaultKind::Resource && self.0.help == WANT_OF_SPACE
    }

    /// What the guard is told.
    pub fn fault(&self) -> &Fault {
        &self.0
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    /// Full disks, quotas and what passes by itself ([`is_passing`]) are `Resource`, the rest is `Configuration` (a file that is missing or may not be read).
    /// Use `fs_err`, so that the path is in the message.
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        match error.kind() {
            K::StorageFull | K::QuotaExceeded => Self::resource(error.to_string(), WANT_OF_SPACE),
            K::OutOfMemory => Self::resource(error.to_string(), WANT_OF_MEMORY),
            _ if is_passing(&error) => Self::passing(error.to_string()),
            _ => Self::configuration(error.to_string(), ""),
        }
    }
}

impl From<tch::TchError> for Error {
    /// libtorch's first line only; out of memory is `Resource`.
    fn from(error: tch::TchError) -> Self {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default().to_string();
        if is_want_of_memory(&text) {
            return Self::resource(format!("not enough memory: {line}"), WANT_OF_MEMORY);
        }
        Self::internal(format!("libtorch: {line}"))
    }
}

/// Do libtorch's, C++'s or Rust's words tell of memory, or of threads, that could not be had?
fn is_want_of_memory(text: &str) -> bool {
    let words = [
        "out of memory",
        "can't allocate memory",
        "annot allocate memory",
        "bad_alloc",
        "failed to spawn thread",
    ];
    words.iter().any(|words| text.contains(words))
}

/// Adds what the caller knows.
pub trait ResultExt<T> {
    /// Prefix the message with `what: `.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| {
            let mut error: Error = e.into();
            error.0.message = format!("{}: {}", what(), error.0.message);
            error
        })
    }
}
