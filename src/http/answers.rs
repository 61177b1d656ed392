//! What is answered. Everything that reads the journal's index does so on a thread of its own: a long list must not hold up the metrics.

use super::Api;
use crate::case::{Case, CaseId, State as CaseState};
use crate::engine::{CaseView, Ledger};
use crate::policy::Mode;
use anyhow::Context;
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// Most cases in one answer, unless `limit` says otherwise.
const DEFAULT_LIMIT: usize = 1000;

/// Answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ready {
    /// Are pictures taken in and worked on?
    pub ready: bool,
    /// Why not; empty when ready.
    pub reasons: Vec<String>,
}

/// Answer of `/api/v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Version of the guard.
    pub version: &'static str,
    /// Name of the installation.
    pub instance: String,
    /// Who is responsible; may be empty.
    pub owner: String,
    /// How far it may act by itself.
    pub mode: Mode,
    /// When this process started.
    pub started_at: Timestamp,
    /// See [`Ready`].
    #[serde(flatten)]
    pub ready: Ready,
    /// Cases that are worked on or wait to be.
    pub open: usize,
    /// Cases that wait for a person.
    pub held: usize,
    /// Messages that wait to be sent.
    pub outbox: usize,
    /// Number of the last journal record.
    pub journal_seq: Option<u64>,
    /// Its hash, hex: who notes it down can later show that nothing before it was changed.
    pub journal_hash: Option<String>,
    /// Is the index in use? Without it answers are slower.
    pub index: bool,
}

/// One case in `/api/v1/cases`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseLine {
    /// Its id.
    pub case: CaseId,
    /// Where it stands.
    pub state: CaseState,
    /// The file's name, escaped.
    pub file: String,
    /// When it was taken in.
    pub accepted_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How the production model reads the picture.
    pub predicted: Option<String>,
    /// Number of flagged training examples.
    pub flagged: Option<u64>,
    /// Why it is held or how it ended.
    pub reason: String,
}

impl From<Case> for CaseLine {
    fn from(case: Case) -> Self {
        Self {
            flagged: case.trace.as_ref().map(|trace| trace.found.count()),
            case: case.id,
            state: case.state,
            file: case.accepted.name,
            accepted_at: case.accepted_at,
            ended_at: case.ended_at,
            predicted: case.prediction.map(|prediction| prediction.label),
            reason: case.reason,
        }
    }
}

/// `?state=held&limit=10` of `/api/v1/cases`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    state: Option<CaseState>,
    limit: Option<usize>,
}

/// An answer that is none.
pub(super) fn refuse(status: StatusCode, why: impl Into<String>) -> Response {
    (status, Json(json!({ "error": why.into() }))).into_response()
}

pub(super) async fn not_found() -> Response {
    refuse(
        StatusCode::NOT_FOUND,
        "there are /metrics, /livez, /readyz, /api/v1/status, /api/v1/cases and /api/v1/cases/ID",
    )
}

pub(super) async fn read_only() -> Response {
    refuse(StatusCode::METHOD_NOT_ALLOWED, "this interface is read-only: GET and HEAD")
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    match api.metrics.page() {
        Ok(page) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Whoever reads this answer knows that the runtime turns; a thread that hangs is systemd's watchdog's business.
pub(super) async fn livez() -> Response {
    Json(json!({ "alive": true })).into_response()
}

fn ready(api: &Api) -> Ready {
    let now = api.readiness();
    let mut reasons = Vec::new();
    if !now.journal {
        reasons.push("the journal is being verified".to_owned());
    }
    if !now.scanned {
        reasons.push("the inbox was not read yet".to_owned());
    }
    reasons.extend(now.trouble.clone());
    Ready {
        ready: now.is_ready(),
        reasons,
    }
}

pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Response {
    let ready = ready(&api);
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ready)).into_response()
}

pub(super) async fn status(State(api): State<Arc<Api>>) -> Response {
    let asked = Arc::clone(&api);
    let answer = tokio::task::spawn_blocking(move || {
        let ledger = asked.ledger();
        let head = ledger.as_ref().map(|ledger| ledger.head());
        let (open, held) = ledger.as_ref().map_or((0, 0), |ledger| ledger.queue());
        Status {
            version: env!("CARGO_PKG_VERSION"),
            instance: asked.settings.instance.clone(),
            owner: asked.settings.owner.clone(),
            mode: asked.settings.mode,
            started_at: asked.started_at,
            ready: ready(&asked),
            open,
            held,
            outbox: ledger.as_ref().map_or(0, |ledger| ledger.pending_messages().len()),
            journal_seq: head.as_ref().map(|head| head.seq),
            journal_hash: head.as_ref().map(|head| hex::encode(head.hash)),
            index: ledger.as_ref().is_some_and(|ledger| ledger.has_index()),
        }
    });
    match answer.await {
        Ok(status) => Json(status).into_response(),
        Err(error) => failed(&error.into()),
    }
}

fn failed(error: &anyhow::Error) -> Response {
    tracing::error!(message = "A question over HTTP could not be answered.", error = format!("{error:#}"));
    refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

/// Ask the ledger, where there is one already.
async fn ask<T: Send + 'static>(api: &Api, question: impl FnOnce(&Ledger) -> anyhow::Result<T> + Send + 'static) -> Result<T, Response> {
    let Some(ledger) = api.ledger() else {
        return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the journal is being verified; ask again"));
    };
    let answer = tokio::task::spawn_blocking(move || question(&ledger)).await;
    answer
        .context("the question panicked")
        .and_then(|answer| answer)
        .map_err(|error| failed(&error))
}

pub(super) async fn cases(State(api): State<Arc<Api>>, wanted: Result<Query<Wanted>, QueryRejection>) -> Response {
    let Query(wanted) = match wanted {
        Ok(wanted) => wanted,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error.body_text()),
    };
    let list = ask(&api, move |ledger| {
        let newest_first = ledger
            .cases()?
            .into_iter()
            .rev()
            .filter(|case| wanted.state.is_none_or(|state| case.state == state));
        Ok(newest_first
            .take(wanted.limit.unwrap_or(DEFAULT_LIMIT))
            .map(CaseLine::from)
            .collect::<Vec<_>>())
    });
    list.await.map_or_else(|refused| refused, |list| Json(list).into_response())
}

pub(super) async fn case(State(api): State<Arc<Api>>, id: Result<Path<String>, PathRejection>) -> Response {
    let Ok(Path(id)) = id else {
        return refuse(StatusCode::BAD_REQUEST, "the case's id is not UTF-8");
    };
    let settings = Arc::clone(&api.settings);
    let found = ask(&api, move |ledger| {
        let id = id.to_ascii_lowercase();
        let found = match ledger.case(&delta_guard_contract::Digest(id.clone()))? {
            Some(case) => vec![case],
            // As on the command line, the first digits are enough.
            None if !id.is_empty() && id.len() < 64 => ledger.cases()?.into_iter().filter(|case| case.id.0.starts_with(&id)).collect(),
            None => Vec::new(),
        };
        Ok(found.into_iter().map(|case| CaseView::new(&case, &settings)).collect::<Vec<_>>())
    });
    match found.await {
        Err(refused) => refused,
        Ok(found) => match found.as_slice() {
            [view] => Json(view).into_response(),
            [] => refuse(StatusCode::NOT_FOUND, "there is no such case"),
            several => refuse(
                StatusCode::CONFLICT,
                format!("{} cases begin like this: write more digits", several.len()),
            ),
        },
    }
}
