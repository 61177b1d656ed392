//! What is answered. Everything that reads the journal's index does so on a thread of its own: a long list must not hold up the metrics.

use super::Api;
use crate::case::{Case, CaseId, State as CaseState};
use crate::engine::{CaseView, Ledger};
use crate::policy::Mode;
use crate::progress::UnderWay;
use anyhow::Context;
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use delta_guard_contract::verify::UNPROVED;
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
    /// What somebody should know although it is ready: files that have been waiting in the inbox for more than ten minutes, an index that is made again, a network
    /// without proof.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
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
    /// Cases that are held until a person acts.
    pub held: usize,
    /// Cases whose candidate waits for a person's word.
    pub proposed: usize,
    /// Messages that wait to be sent.
    pub outbox: usize,
    /// Number of the last journal record.
    pub journal_seq: Option<u64>,
    /// Its hash, hex: who notes it down can later show that nothing before it was changed.
    pub journal_hash: Option<String>,
    /// Is the index in use? Without it answers are slower.
    pub index: bool,
    /// The stage under way; nothing between stages.
    pub stage: Option<Working>,
}

/// The stage under way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Working {
    /// Of this case.
    pub case: CaseId,
    /// How far it is.
    #[serde(flatten)]
    pub now: UnderWay,
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
    /// Code of the reason for which the detector abstained.
    pub abstained: Option<String>,
    /// Why it is held or how it ended.
    pub reason: String,
}

impl From<Case> for CaseLine {
    fn from(case: Case) -> Self {
        Self {
            predicted: case.prediction().map(|prediction| prediction.label.clone()),
            flagged: case.trace().map(|trace| trace.found.count()),
            abstained: case.trace().and_then(|trace| trace.found.abstained()).map(str::to_owned),
            case: case.id,
            state: case.state,
            file: case.accepted.name,
            accepted_at: case.accepted_at,
            ended_at: case.ended_at,
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
        "there are /metrics, /livez, /readyz, /api/v1/status, /api/v1/cases, /api/v1/cases/ID and /cases/ID",
    )
}

pub(super) async fn read_only() -> Response {
    refuse(StatusCode::METHOD_NOT_ALLOWED, "this interface is read-only: GET and HEAD")
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    // Gauges are of now, not of when the engine last looked.
    if let Some(ledger) = api.ledger() {
        api.metrics.ledger(&ledger.snapshot());
    }
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
    let degraded = !now.journal && now.trouble.is_some();
    if !now.journal && !degraded {
        reasons.push("the journal is being verified".to_owned());
    }
    if !now.scanned && !degraded {
        reasons.push("the inbox was not read yet".to_owned());
    }
    reasons.extend(now.trouble.clone());
    reasons.extend(now.stalled.clone());
    let mut notes = now.notes.clone();
    if api.ledger().is_some_and(|ledger| !ledger.snapshot().has_index) {
        notes.push("the index is out of use and is made again; until then answers come from the journal, which takes longer".to_owned());
    }
    if api.settings.unproved {
        notes.push(UNPROVED.to_owned());
    }
    Ready {
        ready: now.is_ready(),
        reasons,
        notes,
    }
}

pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Response {
    let ready = ready(&api);
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ready)).into_response()
}

pub(super) async fn status(State(api): State<Arc<Api>>) -> Response {
    let now = api.ledger().map(|ledger| ledger.snapshot());
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        instance: api.settings.instance.clone(),
        owner: api.settings.owner.clone(),
        mode: api.settings.mode,
        started_at: api.started_at,
        ready: ready(&api),
        open: now.as_ref().map_or(0, |now| now.open),
        held: now.as_ref().map_or(0, |now| now.held),
        proposed: now.as_ref().map_or(0, |now| now.proposed),
        outbox: now.as_ref().map_or(0, |now| now.outbox),
        journal_seq: now.as_ref().map(|now| now.head.seq),
        journal_hash: now.as_ref().map(|now| hex::encode(now.head.hash)),
        index: now.as_ref().is_some_and(|now| now.has_index),
        stage: api.metrics.under_way().map(|(case, now)| Working { case, now }),
    };
    Json(status).into_response()
}

fn failed(error: &anyhow::Error) -> Response {
    tracing::error!(message = "A question over HTTP could not be answered.", error = format!("{error:#}"));
    refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

/// Ask the ledger, where there is one already.
async fn ask<T: Send + 'static>(api: &Api, question: impl FnOnce(&Ledger) -> anyhow::Result<T> + Send + 'static) -> Result<T, Response> {
    let Some(ledger) = api.ledger() else {
        let reasons = ready(api).reasons.join("; ");
        return Err(refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the guard has no journal to answer from: {reasons}. `delta-guard cases` answers from what can be read"),
        ));
    };
    let _turn = api.turns.acquire().await;
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
        let fits = |case: &Case| wanted.state.is_none_or(|state| case.state == state);
        let newest_first = ledger.newest(wanted.limit.unwrap_or(DEFAULT_LIMIT), fits)?;
        Ok(newest_first.into_iter().map(CaseLine::from).collect::<Vec<_>>())
    });
    list.await.map_or_else(|refused| refused, |list| Json(list).into_response())
}

pub(super) async fn case(State(api): State<Arc<Api>>, id: Result<Path<String>, PathRejection>) -> Response {
    one(&api, id).await.map_or_else(|refused| refused, |view| Json(view).into_response())
}

/// The case's page, as it was written when the case ended: what the link in a mail leads to.
pub(super) async fn report(State(api): State<Arc<Api>>, id: Result<Path<String>, PathRejection>) -> Response {
    let view = match one(&api, id).await {
        Ok(view) => view,
        Err(refused) => return refused,
    };
    match tokio::fs::read(&view.paths.report).await {
        Ok(page) => {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CONTENT_SECURITY_POLICY, crate::report::SERVED_POLICY),
                (header::REFERRER_POLICY, "no-referrer"),
            ];
            (headers, page).into_response()
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => refuse(
            StatusCode::NOT_FOUND,
            format!("the case is in state `{}`; it has a report when it has ended", view.state),
        ),
        Err(error) => failed(&anyhow::Error::from(error).context("the report cannot be read")),
    }
}

/// The one case whose id begins like this.
async fn one(api: &Api, id: Result<Path<String>, PathRejection>) -> Result<CaseView, Response> {
    let Ok(Path(id)) = id else {
        return Err(refuse(StatusCode::BAD_REQUEST, "the case's id is not UTF-8"));
    };
    let settings = Arc::clone(&api.settings);
    let mut found = ask(api, move |ledger| {
        let found = ledger.begin_with(&id.to_ascii_lowercase(), 2)?;
        Ok(found.into_iter().map(|case| CaseView::new(&case, &settings)).collect::<Vec<_>>())
    })
    .await?;
    match (found.pop(), found.len()) {
        (Some(view), 0) => Ok(view),
        (None, _) => Err(refuse(StatusCode::NOT_FOUND, "there is no such case")),
        (Some(_), _) => Err(refuse(StatusCode::CONFLICT, "several cases begin like this: write more digits")),
    }
}
