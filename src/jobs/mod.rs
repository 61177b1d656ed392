//! Jobs: where they run ([`Runner`]), and what is read of a worker. Workers are processes: start one, feed it, watch it, limit it, end it. One process per job; what it
//! breaks, it breaks alone.

mod child;
mod last_words;
mod lines;
mod local;
mod result;

pub(crate) use child::prepare as apart;
use delta_guard_contract::{Code, Fault, Job, JobResult, Message};
pub use local::{Local, MAX_LINE, NOT_STARTED, STDERR_TAIL};
pub use result::MAX_RESULT;

use crate::stop::Stop;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// How a job did not come to its result.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// It failed.
    Fault(Fault),
    /// It was stopped because the guard stops. Its folder holds what it had done; a repeated job goes on from there.
    Stopped,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Failure::Fault(fault)
    }
}

/// A job on its way.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<JobResult, Failure>> + Send + 'a>>;

/// Hears a worker's progress and log lines as they come; it must not block.
pub type Hear<'a> = &'a mut (dyn FnMut(Message) + Send);

/// Where jobs run.
pub trait Runner: std::fmt::Debug + Send + Sync {
    /// Run a job within `limit` ([`Duration::MAX`]: none).
    ///
    /// Must be awaited on a thread that lives as long as the process (a worker thread or `block_on` of the runtime): Linux ends a worker when the *thread*
    /// that started it ends.
    fn run<'a>(&'a self, job: &'a Job, limit: Duration, stop: Stop, hear: Hear<'a>) -> Running<'a>;
}

/// The worker crashed, or said what no worker says.
fn broken(message: impl Into<String>) -> Fault {
    Fault::new(Code::WorkerBroken, message, "")
}
