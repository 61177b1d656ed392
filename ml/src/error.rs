//! The crate's error: a [`Fault`] (whose fault, code, what, where, what to do) with its source.
//!
//! Rules: a public function that can fail returns [`Result`]. The place that knows the object (file, row, layer, key) makes the message; callers
//! that know more wrap it with [`ResultExt::context`], which keeps code, help and source. `Internal` is for broken invariants only.

use delta_guard_contract::method::Mistake;
use delta_guard_contract::{Code, Fault, is_passing};
use std::fmt::Display;

/// What to do for want of memory.
const WANT_OF_MEMORY: &str =
    "lower worker.memory_budget or worker.query_budget, raise worker.memory_limit where one is set, or use a machine or device with more";

/// What to do for want of space.
const WANT_OF_SPACE: &str = "free some space on that file system";

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure that a person can act on. Its text is whole: message, causes and help. [`std::error::Error::source`] is the error that began it, for code that asks what it was.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    fault: Fault,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of a code, which has the kind; `help` may be empty.
    pub fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Self {
        Fault::new(code, message, help).into()
    }

    /// Of a source that the message tells already.
    fn of(source: impl std::error::Error + Send + Sync + 'static, fault: Fault) -> Self {
        Self(Box::new(Inner {
            fault,
            source: Some(Box::new(source)),
        }))
    }

    /// The same under a code that says more.
    pub fn coded(mut self, code: Code) -> Self {
        (self.0.fault.code, self.0.fault.kind) = (code, code.kind());
        self
    }

    /// The same with another help.
    pub fn helped(mut self, help: impl Into<String>) -> Self {
        self.0.fault.help = help.into();
        self
    }

    /// The same, its message prefixed with `what: `.
    pub fn within(mut self, what: impl FnOnce() -> String) -> Self {
        let message = &mut self.0.fault.message;
        *message = format!("{}: {message}", what());
        self
    }

    /// The submission is at fault.
    pub fn submission(message: impl Into<String>) -> Self {
        Self::new(Code::Submission, message, "")
    }

    /// The configuration is at fault.
    pub fn configuration(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Code::Configuration, message, help)
    }

    /// Settings that break their own rules; Ok where there are none.
    ///
    /// # Errors
    /// `Configuration`: the first mistake, with its whole key.
    pub fn mistakes(section: &str, found: Vec<Mistake>) -> Result<()> {
        match found.into_iter().next() {
            None => Ok(()),
            Some(mistake) => Err(Self::configuration(mistake.sentence(section), mistake.help)),
        }
    }

    /// Arithmetic: values that cannot be.
    pub fn numeric(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Code::NumbersImpossible, message, help)
    }

    /// Memory, disk or device.
    pub fn resource(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Code::Resource, message, help)
    }

    /// The system's error that passes by itself ([`is_passing`]), for places that cannot hand it on as it is.
    pub fn passing(message: impl Into<String>) -> Self {
        Fault::passing(message).into()
    }

    /// A defect.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Defect, message, "this is a defect of delta-guard: please report it with the log")
    }

    fn want_of_memory(line: &str) -> Fault {
        Fault::new(Code::OutOfMemory, format!("not enough memory: {line}"), WANT_OF_MEMORY)
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
            return Self::want_of_memory(&line).into();
        }
        Self::internal(format!("the worker panicked: {line}"))
    }

    /// Is it a full disk, or a quota that is used up?
    pub fn is_want_of_space(&self) -> bool {
        self.0.fault.code == Code::DiskFull
    }

    /// What the guard is told.
    pub fn fault(&self) -> &Fault {
        &self.0.fault
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fault.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self(Box::new(Inner { fault, source: None }))
    }
}

impl From<std::io::Error> for Error {
    /// Full disks, quotas and what passes by itself ([`is_passing`]) are `Resource`, the rest is `Configuration` (a file that is missing or may not be read).
    /// Use `fs_err`, so that the path is in the message.
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let message = error.to_string();
        let fault = match error.kind() {
            K::StorageFull | K::QuotaExceeded => Fault::new(Code::DiskFull, message, WANT_OF_SPACE),
            K::OutOfMemory => Fault::new(Code::OutOfMemory, message, WANT_OF_MEMORY),
            _ if is_passing(&error) => Fault::passing(message),
            _ => Fault::new(Code::FileUnusable, message, ""),
        };
        Self::of(error, fault)
    }
}

impl From<tch::TchError> for Error {
    /// libtorch's first line only; out of memory is `Resource`.
    fn from(error: tch::TchError) -> Self {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        let fault = match is_want_of_memory(&text) {
            true => Self::want_of_memory(line),
            false => Self::internal(format!("libtorch: {line}")).0.fault,
        };
        Self::of(error, fault)
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
        // rayon's, where no thread could be had.
        "thread pool has not been initialized",
    ];
    words.iter().any(|words| text.contains(words))
}

/// Adds what the caller knows.
pub trait ResultExt<T> {
    /// Prefix the message with `what: `. Code, help and source stay.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| e.into().within(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta_guard_contract::FaultKind;
    use std::error::Error as _;

    fn system(number: i32) -> Error {
        let failed: std::result::Result<(), std::io::Error> = Err(std::io::Error::from_raw_os_error(number));
        failed.context(|| "reading x".into()).context(|| "fitting".into()).unwrap_err()
    }

    #[test]
    fn code_help_and_source_stay_whatever_is_put_before_the_message() {
        let full = system(28);
        assert_eq!((full.fault().code, full.fault().kind), (Code::DiskFull, FaultKind::Resource));
        assert!(full.is_want_of_space() && full.to_string().starts_with("fitting: reading x: "), "{full}");
        assert!(full.to_string().ends_with(&format!("\n  help: {WANT_OF_SPACE}")), "{full}");
        let source = full.source().and_then(|s| s.downcast_ref::<std::io::Error>()).unwrap();
        assert_eq!(source.raw_os_error(), Some(28));
        // Whoever asks whether it passes asks the source.
        assert!(is_passing(&system(116)) && !is_passing(&system(2)));
        assert_eq!(system(116).fault().code, Code::NoAnswer);
        assert_eq!(system(2).fault().code, Code::FileUnusable);
        assert!(Error::internal("x").source().is_none());
    }

    #[test]
    fn another_code_brings_its_kind() {
        let error = system(2).coded(Code::PictureUnusable).helped("submit it again");
        assert_eq!(
            (error.fault().kind, error.fault().help.as_str()),
            (FaultKind::Submission, "submit it again")
        );
        assert!(error.source().is_some());
    }
}
