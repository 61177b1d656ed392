//! Why a step cannot go on, and who has to do something about it.

use crate::case::HoldCause;
use anyhow::Context;
use delta_guard_contract::{Code, Fault, is_passing};

/// Why the present step cannot go on.
pub(super) enum Interrupt {
    /// The guard stops.
    Stopped,
    /// Nothing of this case can be recorded for the time being; the others go on.
    Aside,
    /// Nothing can be recorded.
    Failed(anyhow::Error),
}

/// Why a stage did not succeed.
pub(super) enum Trouble {
    /// Something failed; whose fault it is decides what follows.
    Fault(Fault),
    /// Nothing failed, but a person must have a say.
    Hold(Hold),
    /// It could not even be tried.
    Interrupt(Interrupt),
}

/// What a person must have a say in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hold {
    /// What kind of hold.
    pub cause: HoldCause,
    /// Why, in a sentence.
    pub reason: String,
    /// How to go on.
    pub help: String,
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Trouble::Fault(fault)
    }
}

impl From<Hold> for Trouble {
    fn from(hold: Hold) -> Self {
        Trouble::Hold(hold)
    }
}

impl From<Interrupt> for Trouble {
    fn from(interrupt: Interrupt) -> Self {
        Trouble::Interrupt(interrupt)
    }
}

/// A person must mend what the guard was told to work with; `help` says how. What passes by itself ([`is_passing`]) is worth another try instead.
pub(super) fn mend(error: &anyhow::Error, help: impl Into<String>) -> Fault {
    passing(error).unwrap_or_else(|| Fault::new(Code::Configuration, format!("{error:#}"), help))
}

/// The fault of an error that passes by itself; None of another one.
pub(super) fn passing(error: &anyhow::Error) -> Option<Fault> {
    is_passing(error.as_ref()).then(|| Fault::passing(format!("{error:#}")))
}

/// Work that blocks, off the runtime's own threads.
pub(super) async fn blocking<T: Send + 'static, E: Into<Trouble> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Trouble> {
    blocking_plain(work).await?.map_err(Into::into)
}

/// As [`blocking`], for work that cannot fail in a stage's way.
pub(super) async fn blocking_plain<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Interrupt> {
    tokio::task::spawn_blocking(work)
        .await
        .context("a part of the guard panicked")
        .map_err(Interrupt::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta_guard_contract::{FaultKind, passing};

    #[test]
    fn what_passes_by_itself_is_tried_again_whatever_it_stopped() {
        let kind = |number: i32| {
            let error = anyhow::Error::from(std::io::Error::from_raw_os_error(number)).context("the link `current` cannot be read");
            mend(&error, "mend it")
        };
        for number in [5, 116, 110, 112] {
            let fault = kind(number);
            assert_eq!(fault.kind, FaultKind::Resource, "{number}");
            assert!(
                fault.message.starts_with("the link `current` cannot be read: ") && fault.help == passing::HELP,
                "{fault:?}"
            );
        }
        for number in [2, 13, 20, 40] {
            let fault = kind(number);
            assert_eq!((fault.kind, fault.help.as_str()), (FaultKind::Configuration, "mend it"), "{number}");
        }
        assert_eq!(mend(&anyhow::anyhow!("there is no candidate"), "").kind, FaultKind::Configuration);
    }
}
