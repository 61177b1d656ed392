//! What a person asks of the guard: go on with a held case, try an ended one again, take a repair as approved. The command line lays a request into
//! `state/asked/`, which only the guard's user and root can write to; the guard carries it out, records who asked and what came of it, and removes the file. A
//! guard that does not run carries it out when it starts.

use super::Ledger;
use super::entry::approval::Note;
use crate::case::{Approval, By, Case, CaseId, Event, HoldCause, Retried, State};
use crate::journal::JournalError;
use crate::publish;
use crate::settings::Settings;
use crate::stop::Stop;
use anyhow::{Context, Result, bail, ensure};
use delta_guard_contract::method::Name;
use delta_guard_contract::method::unlearn::Unlearner;
use delta_guard_contract::{Digest, TraceVerdict};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a request.
const MAX_BYTES: u64 = 16 << 10;
/// Between two looks into the folder.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest text that a person may give as a reason, in characters.
const MAX_REASON: usize = 500;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Ask {
    /// Go on with a held case.
    Resume {
        /// The case.
        case: CaseId,
    },
    /// A new attempt at an ended or held case.
    Retry {
        /// The case.
        case: CaseId,
        /// Begin with the prediction again, whatever is known already.
        #[serde(default)]
        whole: bool,
        /// Unlearn by this method; None: as configured.
        #[serde(default)]
        method: Option<Name<Unlearner>>,
        /// Certify this checkpoint, which lies in the folder under its digest, instead of making one.
        #[serde(default)]
        candidate: Option<Digest>,
    },
    /// A proposed repair may be promoted, or is in use already.
    Approve {
        /// The case.
        case: CaseId,
        /// Its owner has put the candidate in use by hand: `current` is left alone.
        #[serde(default)]
        by_hand: bool,
    },
    /// A proposed repair is not wanted.
    Decline {
        /// The case.
        case: CaseId,
    },
    /// It is not: what was promoted or approved was taken back.
    Withdraw {
        /// The case.
        case: CaseId,
    },
}

impl Ask {
    /// The case that it is about.
    pub fn case(&self) -> &CaseId {
        match self {
            Ask::Resume { case } | Ask::Retry { case, .. } | Ask::Approve { case, .. } | Ask::Decline { case } | Ask::Withdraw { case } => case,
        }
    }
}

/// A new attempt, as it is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retry {
    /// Begin with the prediction again.
    pub whole: bool,
    /// Unlearn by this method; None: as configured.
    pub method: Option<Name<Unlearner>>,
    /// The owner's own candidate.
    pub candidate: Option<Digest>,
}

impl Retry {
    /// The state that `case` goes on from; otherwise why it cannot be tried again.
    pub fn target(&self, case: &Case) -> std::result::Result<State, String> {
        let short = case.id.short();
        let flagged = case
            .trace()
            .is_some_and(|trace| trace.found.verdict == TraceVerdict::Flagged && trace.found.count() > 0);
        let to = match case.state {
            State::Promoted => return Err("it was promoted, and its candidate is in use: hand in further pictures instead".into()),
            state if !state.rests() => return Err(format!("it is worked on (state {state})")),
            _ if self.whole => State::Accepted,
            State::Held if case.held_cause() == Some(HoldCause::Base) => State::Accepted,
            _ if flagged => State::Traced,
            State::Undecided => State::Predicted,
            _ => State::Accepted,
        };
        if to != State::Traced && (self.method.is_some() || self.candidate.is_some()) {
            return Err(format!(
                "there is nothing to unlearn yet, so neither a method nor a candidate can be given; `delta-guard retry {short}` tries it again"
            ));
        }
        Ok(to)
    }
}

/// A request, as it lies in the folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// What.
    #[serde(flatten)]
    pub ask: Ask,
    /// Why, in the person's words; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// The folder.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("asked")
}

/// Lay a request down, durably. Returns its id, under which the journal will say what came of it.
///
/// # Errors
/// When the folder cannot be written.
pub fn put(state_dir: &Path, request: &Request) -> Result<String> {
    let folder = folder(state_dir);
    publish::make_dir(&folder)?;
    let now = jiff::Timestamp::now().as_nanosecond();
    let json = serde_json::to_vec(request)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&now.to_le_bytes()).update(&std::process::id().to_le_bytes()).update(&json);
    let id = hasher.finalize().to_hex()[..16].to_string();
    let name = format!("{id}.json");
    publish::publish_file(&folder, &name, &json)?;
    // The guard's user must be able to read what root asks; nobody else comes into the state folder.
    fs_err::set_permissions(folder.join(&name), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    Ok(id)
}

/// Copy a checkpoint into the folder under its digest, durably.
///
/// # Errors
/// When it cannot be read, or the folder cannot be written.
pub fn put_candidate(state_dir: &Path, file: &Path) -> Result<Digest> {
    let folder = folder(state_dir);
    publish::make_dir(&folder)?;
    publish::put_digest_named(file, &folder, ".safetensors")
}

/// Carry out requests until `stop`.
pub(crate) async fn serve(ledger: Arc<Ledger>, settings: Arc<Settings>, mut stop: Stop) {
    let mut warned = false;
    loop {
        let (now_ledger, now_settings) = (Arc::clone(&ledger), Arc::clone(&settings));
        match tokio::task::spawn_blocking(move || look(&now_ledger, &now_settings)).await {
            Ok(Ok(())) => warned = false,
            Ok(Err(error)) if !warned => {
                warned = true;
                tracing::warn!(error = format!("{error:#}"), "requests of the command line cannot be carried out");
            }
            _ => {}
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.stopped() => return,
        }
    }
}

/// One look into the folder, the oldest request first.
fn look(ledger: &Ledger, settings: &Settings) -> Result<()> {
    let folder = folder(&settings.state_dir);
    let entries = match fs_err::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            let id = name.strip_suffix(".json").filter(|_| !name.starts_with('.'))?.to_owned();
            let modified = std::fs::symlink_metadata(&path).ok()?.modified().ok()?;
            Some((modified, id, path))
        })
        .collect();
    files.sort();
    for (_, id, path) in files {
        let Some((request, by)) = read(&path) else {
            tracing::warn!(file = %path.display(), "this is no request of the command line; it is removed");
            fs_err::remove_file(&path)?;
            continue;
        };
        let answer = carry_out(ledger, settings, &request, by).or_else(|error| match too_large(&error) {
            true => no(format!("{error:#}")),
            false => Err(error),
        })?;
        match answer {
            Answer::Later => continue,
            Answer::Given { done, answer } => {
                let reason = why(&request);
                tracing::info!(case = request.ask.case().short(), by, done, answer, "a request was answered");
                let noted = ledger.note(Note::Asked {
                    id: id.chars().take(64).collect(),
                    by,
                    request: Request { ask: request.ask, reason },
                    done,
                    answer,
                });
                match noted {
                    Err(JournalError::TooLarge { .. }) => tracing::error!(message = "The record of a request is too large.", id),
                    other => other?,
                }
            }
        }
        fs_err::remove_file(&path)?;
    }
    Ok(())
}

/// A request and the owner of its file.
fn read(path: &Path) -> Option<(Request, u32)> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options
        .read(true)
        .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32);
    let file = options.open(path).ok()?;
    let meta = file.metadata().ok()?;
    if !meta.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= MAX_BYTES).then_some(())?;
    Some((serde_json::from_slice(&bytes).ok()?, meta.uid()))
}

/// Had a record no room? Then trying again would not help, and the next request is not to wait for it.
fn too_large(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(JournalError::TooLarge { .. }))
}

/// Its reason, harmless and short.
fn why(request: &Request) -> String {
    crate::text::escape(request.reason.as_bytes()).chars().take(MAX_REASON).collect()
}

/// What came of a request.
enum Answer {
    /// It cannot be said yet: the case's hold or end is just being told.
    Later,
    /// Done, or refused.
    Given { done: bool, answer: String },
}

fn no(answer: impl Into<String>) -> Result<Answer> {
    Ok(Answer::Given {
        done: false,
        answer: answer.into(),
    })
}

fn yes(answer: impl Into<String>) -> Result<Answer> {
    Ok(Answer::Given {
        done: true,
        answer: answer.into(),
    })
}

/// An error means that the journal or the disk failed: the request stays, and is tried again.
fn carry_out(ledger: &Ledger, settings: &Settings, request: &Request, by: u32) -> Result<Answer> {
    let id = request.ask.case();
    let Some(case) = ledger.case(id)? else {
        return no(format!("there is no case {}", id.short()));
    };
    match &request.ask {
        Ask::Resume { .. } => resume(ledger, &case, by),
        Ask::Retry {
            whole, method, candidate, ..
        } => {
            let retry = Retry {
                whole: *whole,
                method: *method,
                candidate: candidate.clone(),
            };
            again(ledger, settings, &case, &retry, by)
        }
        Ask::Approve { by_hand, .. } => approve(ledger, &case, by, &why(request), *by_hand),
        Ask::Decline { .. } => decline(ledger, &case, by, &why(request)),
        Ask::Withdraw { .. } => withdraw(ledger, &case, by),
    }
}

fn resume(ledger: &Ledger, case: &Case, by: u32) -> Result<Answer> {
    let short = case.id.short();
    match case.state {
        State::Held if !case.told => Ok(Answer::Later),
        State::Held => {
            let stage = case.phase.state().stage();
            let at = stage.map_or_else(String::new, |stage| format!(" at stage {stage}"));
            let allowed = match case.held_cause() {
                Some(HoldCause::Cap) => "; this promotion may pass the caps, and counts as your approval",
                _ => "",
            };
            let event = Event::Resumed {
                why: "somebody asked for it".into(),
                by: Some(by),
            };
            ledger.record(&case.id, event)?;
            yes(format!("it goes on{at}{allowed}"))
        }
        State::Promoted => no("it is not held: it has ended, and its candidate is in use".to_string()),
        State::Proposed => no(format!(
            "it is not held: its candidate waits for your word; `delta-guard approve {short}` promotes it, `delta-guard decline {short}` ends the case"
        )),
        state if state.is_end() => no(format!(
            "it is not held: it has ended as {state}; `delta-guard retry {short}` tries it again"
        )),
        state => no(format!("it is not held: it is worked on (state {state})")),
    }
}

fn again(ledger: &Ledger, settings: &Settings, case: &Case, retry: &Retry, by: u32) -> Result<Answer> {
    let to = match retry.target(case) {
        Ok(to) => to,
        Err(why) => return no(why),
    };
    if !case.told {
        return Ok(Answer::Later);
    }
    if ledger.excluded().iter().any(|excluded| excluded.case == case.id) {
        return no(format!(
            "it is approved, and its flagged examples are excluded: `delta-guard approve {} --undo` takes that back first",
            case.id.short()
        ));
    }
    if !settings.spool_dir().join(&case.accepted.content.0).is_file() {
        return no("its picture is no longer in the spool: submit it again");
    }
    let given = match &retry.candidate {
        None => None,
        Some(digest) => match take_candidate(settings, case, digest) {
            Ok(file) => Some((file, digest.clone())),
            Err(error) => return no(format!("the candidate cannot be taken: {error:#}")),
        },
    };
    let what = match (to, &given) {
        (_, Some(_)) => "the given candidate is measured and judged".to_string(),
        (State::Accepted, _) => "it begins anew, with the prediction".into(),
        (State::Predicted, _) => "it is traced again, with the settings of now".into(),
        _ => {
            let method = retry.method.unwrap_or_else(|| settings.unlearn.name());
            format!("a new candidate is made by {method}, with the settings of now")
        }
    };
    ledger.record(&case.id, Event::Retried(Box::new(Retried::of(case, to, retry.method, given, by))))?;
    yes(what)
}

/// Move a candidate that was laid down into the case's folder. Doing it again finds it there.
fn take_candidate(settings: &Settings, case: &Case, digest: &Digest) -> Result<String> {
    ensure!(
        digest.0.len() == 64 && digest.0.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "its digest is none"
    );
    let file = format!("work/given-{}/{}", digest.short(), super::CHECKPOINT_FILE);
    let target = settings.case_dir(&case.id).join(&file);
    let laid = folder(&settings.state_dir).join(format!("{digest}.safetensors"));
    if laid.is_file() {
        let dir = target.parent().context("the case has no folder")?;
        publish::make_dir(dir)?;
        fs_err::rename(&laid, &target)?;
        publish::sync_dir(dir)?;
    }
    let found = publish::digest_file(&target)?;
    if found != *digest {
        bail!("its BLAKE3 is {found}, not {digest}");
    }
    Ok(file)
}

fn approve(ledger: &Ledger, case: &Case, by: u32, why: &str, by_hand: bool) -> Result<Answer> {
    let count = case.trace().map_or(0, |trace| trace.found.count());
    let then = format!("its {count} flagged examples stay out of every later repair");
    match (case.state, case.trace()) {
        (State::Proposed | State::Promoted, Some(_)) if !case.told => Ok(Answer::Later),
        (State::Proposed, Some(_)) => {
            let approval = Approval {
                by: By::User(by),
                why: why.into(),
                by_hand,
            };
            ledger.record(&case.id, Event::Approved(approval))?;
            yes(match by_hand {
                true => format!("it counts as promoted by your own hand, and `current` is left alone; {then}"),
                false => format!("it is approved: `current` is moved to its candidate now, and {then}"),
            })
        }
        // Taken back, and in use again after all.
        (State::Promoted, Some(trace)) => {
            if ledger.excluded().iter().any(|excluded| excluded.case == case.id) {
                return no("its flagged examples stay out of every later repair already");
            }
            ledger.note(Note::Approved {
                case: case.id.clone(),
                ids: trace.ids.clone(),
                count,
                by,
            })?;
            yes(then)
        }
        _ => no(only_proposed(case, "approved")),
    }
}

fn decline(ledger: &Ledger, case: &Case, by: u32, why: &str) -> Result<Answer> {
    match case.state {
        State::Proposed if !case.told => Ok(Answer::Later),
        State::Proposed => {
            ledger.record(&case.id, Event::Declined { by, why: why.into() })?;
            yes(format!(
                "it is declined, and nothing of it is used; `delta-guard retry {}` makes another candidate",
                case.id.short()
            ))
        }
        _ => no(only_proposed(case, "declined")),
    }
}

fn only_proposed(case: &Case, what: &str) -> String {
    let short = case.id.short();
    match case.state {
        state if state.is_end() => format!("only a proposed case can be {what}; it has ended as {state}: `delta-guard show {short}` says why"),
        state => format!("only a proposed case can be {what}; it is in state {state}"),
    }
}

fn withdraw(ledger: &Ledger, case: &Case, by: u32) -> Result<Answer> {
    if !ledger.excluded().iter().any(|excluded| excluded.case == case.id) {
        return no("none of its examples is on the exclusion list: it was neither promoted nor approved");
    }
    ledger.note(Note::Withdrawn { case: case.id.clone(), by })?;
    yes(
        "its flagged examples take part in later repairs again, as far as no other case excludes them; a link `current` that points to its candidate is left alone",
    )
}
