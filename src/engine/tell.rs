//! The last stage: the report, the messages, and for a refused submission the picture with its reason in `refused/`.

use super::hooks::{Happening, Hooks};
use super::{CaseView, REPORT_FILE, kept};
use crate::case::{Case, Event, List, Message, Refusal, State, bounds};
use crate::publish;
use crate::settings::Settings;
use anyhow::{Context, Result};
use delta_guard_contract::Digest;
use std::path::Path;

/// Puts a refused submission's picture with its reason where its submitter finds it: the inbox's business.
pub type GiveBack = fn(&Case, Refusal, &Settings) -> Result<()>;

/// Make report and messages of an ended case; returns the records of it. Doing it again gives the same. `last`: go on without a report where it cannot
/// be made.
pub(super) fn tell(case: &Case, settings: &Settings, hooks: &dyn Hooks, give_back: GiveBack, last: bool) -> Result<Vec<Event>> {
    let refusal = match case.state {
        State::Refused => Some(Refusal::Submission),
        State::NoAnomaly => Some(Refusal::NoAnomaly),
        _ => None,
    };
    if let Some(reason) = refusal {
        give_back(case, reason, settings)?;
        let sentence = case.reason.clone();
        hooks.on(Happening::Refused {
            reason,
            name: case.accepted.name.clone(),
            sentence,
        });
    }
    let view = CaseView::new(case, settings);
    let report = match write_report(&view, hooks) {
        Ok(digest) => Some(digest),
        Err(error) if last => {
            tracing::error!(case = %case.id, error = format!("{error:#}"), "no report could be made");
            None
        }
        Err(error) => return Err(error),
    };
    let messages = keep_messages(hooks.messages(&view), &view.paths.case_dir)?;
    let (messages, list) = listed(messages, &view.paths.case_dir)?;
    let told = Event::Told { report, messages, list };
    Ok(match case.queued {
        // Nothing of an earlier telling, which was cut off, may be left.
        true => vec![
            Event::Queued {
                after: 0,
                messages: Vec::new(),
            },
            told,
        ],
        false => vec![told],
    })
}

/// A few messages fit into the record; more of them go to a file of the case.
fn listed(messages: Vec<Message>, case_dir: &Path) -> Result<(Vec<Message>, Option<List>)> {
    if serde_json::to_vec(&messages)?.len() <= bounds::LIST {
        return Ok((messages, None));
    }
    let list = List {
        file: kept::keep(case_dir, &messages)?,
        count: messages.len() as u64,
    };
    Ok((Vec::new(), Some(list)))
}

/// Put the messages' contents into files of the case: what is recorded only names them.
pub(super) fn keep_messages(messages: Vec<Message>, case_dir: &Path) -> Result<Vec<Message>> {
    let mut kept = Vec::with_capacity(messages.len());
    for mut message in messages {
        message.kept = Some(kept::keep(case_dir, &message.content)?);
        message.content = serde_json::Value::Null;
        if bounds::message_fits(&message) {
            kept.push(message);
        } else {
            tracing::error!(
                message = "A recipient is too long to be recorded and gets no message.",
                to = bounds::cut(&message.to, bounds::LABEL)
            );
        }
    }
    Ok(kept)
}

fn write_report(view: &CaseView, hooks: &dyn Hooks) -> Result<Digest> {
    let html = hooks.report(view).context("the report could not be made")?;
    publish::make_dir(&view.paths.case_dir)?;
    publish::publish_file(&view.paths.case_dir, REPORT_FILE, html.as_bytes())?;
    Ok(Digest(blake3::hash(html.as_bytes()).to_hex().to_string()))
}

/// What the owner's trainer said, in its job's folder and, once the case has ended, in the case's.
const COMMAND_LOG: &str = "command.log";

/// Remove what only an unfinished case needs: epoch checkpoints and the unpublished copy of the candidate. Trace report and thumbnails stay, and what the owner's trainer said.
pub(super) fn clean_up(case: &Case, settings: &Settings) {
    let work = settings.case_dir(&case.id).join("work");
    let Ok(entries) = fs_err::read_dir(&work) else { return };
    for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Of several attempts the last one's; a case without any has no such file.
        let _ = std::fs::rename(path.join(COMMAND_LOG), settings.case_dir(&case.id).join(COMMAND_LOG));
        if ["predict-", "fit-", "unlearn-", "certify-", "retrace-", "given-"]
            .iter()
            .any(|stage| name.starts_with(stage))
            && let Err(error) = fs_err::remove_dir_all(&path)
        {
            tracing::warn!(%error, "a finished case's working folder could not be removed");
        }
    }
}
