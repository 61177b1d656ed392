//! A picture that is a case already: whoever handed it in finds a note in `refused/` that says which case, how it stands, and how to ask again.

use super::refused::{self, Reason};
use crate::case::{Case, CaseId, State};
use crate::engine::{Ledger, Refusal};
use crate::settings::Settings;
use crate::text::escape;
use anyhow::Result;
use base64::Engine as _;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Lay the note down. Doing it again replaces it by the same.
pub(super) fn leave_note(ledger: &Ledger, settings: &Settings, id: &CaseId, name: &OsStr) -> Result<()> {
    let Some(case) = ledger.case(id)? else { return Ok(()) };
    let (sentence, help) = words(&case);
    let reason = Reason {
        file: escape(name.as_bytes()),
        name_base64: base64::engine::general_purpose::STANDARD.encode(name.as_bytes()),
        reason: Refusal::Duplicate,
        sentence,
        help,
        case: Some(id.0.clone()),
    };
    refused::leave_note(&settings.inbox.refused_dir, name, &reason)
}

/// What is known of the picture already, and how to ask again.
pub fn words(case: &Case) -> (String, String) {
    let (short, state) = (case.id.short(), case.state);
    let sentence = match state {
        State::Held => format!("this picture is case {short} already, which is held: {}", case.reason),
        State::Proposed => format!(
            "this picture is case {short} already, whose candidate waits for approval: {}",
            case.reason
        ),
        _ if state.is_end() => format!("this picture is case {short} already, which ended as {state}: {}", case.reason),
        _ => format!("this picture is case {short} already, which is worked on (state {state})"),
    };
    let help = match state {
        State::Promoted => format!("`delta-guard show {short}` says what was done"),
        State::Held => format!("`delta-guard resume {short}` goes on when its cause is mended, `delta-guard show {short}` says which"),
        State::Proposed => format!(
            "`delta-guard approve {short}` promotes it, `delta-guard decline {short}` does not, `delta-guard show {short}` says what is proposed"
        ),
        _ if state.is_end() => format!("`delta-guard retry {short}` asks again, with the configuration of now"),
        _ => format!("`delta-guard show {short}` says how far it is"),
    };
    (sentence, help)
}
