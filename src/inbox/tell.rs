//! Who hears by mail of a file that did not become a case: whoever asked for it, and its submitter, where the sidecar says how and the configuration allows it.

use super::intake::{self, Hitch, of_all};
use super::scan::Inbox;
use super::take::{NamedFile, of_record};
use super::{again, names, sidecar};
use crate::case::{CaseId, FileIdentity};
use crate::cli::advice;
use crate::engine::{Notice, Refusal, RefusedFile};
use delta_guard_contract::Digest;
use std::os::fd::BorrowedFd;

impl Inbox {
    /// The file is refused; must come before the record that says so.
    pub(super) fn tell_refused(&self, inbox: BorrowedFd, entries: &[NamedFile], file: &RefusedFile) -> Result<(), Hitch> {
        // Even a sidecar that is wrong may say whom to tell.
        let sidecars = entries.iter().filter(|(name, _)| names::is_sidecar(name));
        let mail = sidecars
            .filter_map(|(name, _)| intake::read_small(inbox, name, sidecar::MAX_BYTES).ok())
            .find_map(|bytes| sidecar::mail(&bytes));
        let which = file.files.first().map(occasion).unwrap_or_default();
        let about = format!("{} {} {which}", file.name_base64, file.reason.as_str());
        self.tell(Notice {
            about: Digest(blake3::hash(about.as_bytes()).to_hex().to_string()),
            occasion: String::new(),
            reason: file.reason,
            name: file.name.clone(),
            sentence: file.sentence.clone(),
            help: String::new(),
            mail,
            ..self.notice()
        })
    }

    /// The picture is this case already; must come before the record that says so.
    pub(super) fn tell_again(&self, id: &CaseId, name: &str, file: &FileIdentity, mail: Option<String>) -> Result<(), Hitch> {
        let Some(case) = self.ledger.case(id).map_err(of_all)? else {
            return Ok(());
        };
        let (sentence, help) = again::words(&case);
        let help = advice::complete(&help, self.settings.config.as_deref());
        self.tell(Notice {
            about: id.clone(),
            occasion: format!("again {}", occasion(file)),
            reason: Refusal::Duplicate,
            name: name.into(),
            sentence,
            help,
            mail,
            ..self.notice()
        })
    }

    /// What all notices have.
    fn notice(&self) -> Notice {
        Notice {
            instance: self.settings.instance.clone(),
            owner: self.settings.owner.clone(),
            at: self.clock.now(),
            about: Digest(String::new()),
            occasion: String::new(),
            reason: Refusal::Duplicate,
            name: String::new(),
            sentence: String::new(),
            help: String::new(),
            mail: None,
        }
    }

    fn tell(&self, notice: Notice) -> Result<(), Hitch> {
        let messages = self.hooks.notices(&notice);
        self.ledger.queue_notices(&notice.about, messages).map_err(of_record)
    }
}

/// Tells one file from another of the same name, and is the same for the same one after a crash.
fn occasion(file: &FileIdentity) -> String {
    format!("{}-{}-{}-{}", file.dev, file.ino, file.size, file.mtime_ns)
}
