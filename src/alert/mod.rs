//! One mail per finished case and recipient, at least once.
//!
//! What is to be sent is fixed when the case ends, recorded in the journal with it, and sent by a task of its own ([`mailer`]): a dead or malicious
//! mail server delays mails and nothing else. Every repetition is the same byte for byte and carries the same Message-ID.

mod compose;
mod limited;
pub mod mailer;
mod notice;
mod transport;
pub mod trouble;

pub use crate::mail::Why;
pub use compose::{Content, messages, submitter};
pub use notice::notices;
pub use transport::{SendError, SmtpStep, send};
