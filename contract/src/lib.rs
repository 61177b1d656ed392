//! What the guard and its worker say to each other.
//!
//! The guard (`delta-guard`) runs for years and never touches a tensor; the worker (`delta-guard-worker`) is a function: one [`Job`] in, as JSON on
//! standard input; [`Message`] lines out, the last of them the outcome. Both know this crate and nothing of each other. It holds
//! plain data and serde, no I/O.

pub mod audit;
mod braces;
pub mod checkpoint;
pub mod config;
pub mod fault;
pub mod finding;
pub mod fold;
pub mod id;
pub mod job;
pub mod message;
pub mod method;
pub mod mistaken;
pub mod passing;
pub mod picture;
pub mod recipe;
pub mod story;
pub mod units;
pub mod verify;

pub use braces::in_braces;
pub use config::{ClassNames, DataConfig, DataFormat, DataSource, Device, ModelConfig, Origin, Split, Stem, WorkerSetup};
pub use fault::{Code, Fault, FaultKind};
pub use finding::{Flagged, TraceReport, TraceVerdict};
pub use id::{Digest, Seed, TrainId};
pub use job::{Job, JobResult, Task};
pub use message::{Message, Outcome, Progress};
pub use method::detect;
pub use method::detect::DetectConfig;
pub use passing::is_passing;
pub use picture::{ImageConfig, Orientation, Resize};
pub use recipe::{Augment, Mixing, Optimizer, RandomCrop, Recipe, Schedule};

/// The libtorch that the worker is built against, and runs with.
pub const TORCH: &str = "2.11";

/// Version of the job and message format. A worker refuses a job of another version.
pub const PROTOCOL: u32 = 2;
