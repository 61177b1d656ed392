//! Read-only HTTP: metrics, health, cases. Nothing can be changed through it.
//!
//! A web page in somebody's browser must not be able to read it: requests under an unknown `Host` (DNS rebinding) and requests with an `Origin`
//! are refused.

use delta_guard_contract::Digest;
use crate::daemon::Readiness;
use crate::engine::{CaseView, Ledger};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::stop::Stop;
use axum::Json;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What the answers are made of.
#[derive(Clone)]
pub struct Sources {
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// The journal's view of the cases.
    pub ledger: Arc<Ledger>,
    /// How far the daemon is.
    pub readiness: watch::Receiver<Readiness>,
    /// Settings of the daemon.
    pub settings: Arc<Settings>,
    /// Names by which it may be called, besides `localhost` and its own address.
    pub allowed_hosts: Arc<Vec<String>>,
}

/// Serve until `stop`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, sources: Sources, mut stop: Stop) -> std::io::Result<()> {
    let own = listener.local_addr()?;
    axum::serve(listener, router(sources, own)).with_graceful_shutdown(async move { stop.stopped().await }).await
}

fn router(sources: Sources, own: SocketAddr) -> Router {
    let hosts = Arc::clone(&sources.allowed_hosts);
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/api/v1/status", get(status))
        .route("/api/v1/cases", get(cases))
        .route("/api/v1/cases/{id}", get(case))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let hosts = Arc::clone(&hosts);
            async move { guard(&request, &hosts, own).unwrap_or(next.run(request).await) }
        }))
        .with_state(sources)
}

/// A refusal, where the request does not come from where it may.
fn guard(request: &Request, hosts: &[String], own: SocketAddr) -> Option<Response> {
    let headers = request.headers();
    if headers.contains_key(header::ORIGIN) {
        return Some((StatusCode::FORBIDDEN, "requests of web pages are not answered\n").into_response());
    }
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let loopback = own.ip().is_loopback() && matches!(name, "127.0.0.1" | "::1");
    if name.eq_ignore_ascii_case("localhost") || loopback || name == own.ip().to_string() || hosts.iter().any(|h| h.eq_ignore_ascii_case(name)) {
        return None;
    }
    Some((StatusCode::MISDIRECTED_REQUEST, "not known under this name: add it to http.allowed_hosts\n").into_response())
}

async fn metrics(State(sources): State<Sources>) -> Response {
    match sources.metrics.page() {
        Ok(page) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response(),
    }
}

/// Why it is not ready; empty when it is.
fn reasons(readiness: &Readiness) -> Vec<String> {
    let mut reasons = Vec::new();
    if !readiness.journal {
        reasons.push("the journal is being verified".to_string());
    }
    if !readiness.scanned {
        reasons.push("the inbox was not listed yet".to_string());
    }
    reasons.extend(readiness.trouble.clone());
    reasons
}

async fn readyz(State(sources): State<Sources>) -> Response {
    let readiness = sources.readiness.borrow().clone();
    let code = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({"ready": readiness.is_ready(), "reasons": reasons(&readiness)}))).into_response()
}

async fn status(State(sources): State<Sources>) -> Response {
    let readiness = sources.readiness.borrow().clone();
    let (open, held) = sources.ledger.queue();
    let body = json!({
        "instance": sources.settings.instance,
        "version": env!("CARGO_PKG_VERSION"),
        "mode": sources.settings.mode,
        "ready": readiness.is_ready(),
        "reasons": reasons(&readiness),
        "cases_open": open,
        "cases_held": held,
        "journal_broken": sources.metrics.journal_is_broken(),
        "index": sources.ledger.has_index(),
    });
    Json(body).into_response()
}

async fn cases(State(sources): State<Sources>) -> Response {
    let ledger = Arc::clone(&sources.ledger);
    match tokio::task::spawn_blocking(move || ledger.cases()).await {
        Ok(Ok(cases)) => Json(cases.iter().map(|c| json!({"case": c.id, "state": c.state, "accepted_at": c.accepted_at, "ended_at": c.ended_at, "reason": c.reason, "name": c.accepted.name})).collect::<Vec<_>>()).into_response(),
        Ok(Err(error)) => trouble(&error),
        Err(error) => trouble(&error.into()),
    }
}

async fn case(State(sources): State<Sources>, Path(id): Path<String>) -> Response {
    let (ledger, settings) = (Arc::clone(&sources.ledger), Arc::clone(&sources.settings));
    let found = tokio::task::spawn_blocking(move || Ok::<_, anyhow::Error>(ledger.case(&Digest(id))?.map(|c| CaseView::new(&c, &settings)))).await;
    match found {
        Ok(Ok(Some(view))) => Json(view).into_response(),
        Ok(Ok(None)) => (StatusCode::NOT_FOUND, Json(json!({"error": "there is no such case"}))).into_response(),
        Ok(Err(error)) => trouble(&error),
        Err(error) => trouble(&error.into()),
    }
}

fn trouble(error: &anyhow::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"error": format!("{error:#}")}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn only_known_names_and_no_web_pages() {
        let own: SocketAddr = "127.0.0.1:9464".parse().unwrap();
        let asked = |host: &str, origin: bool| {
            let mut request = Request::builder().uri("/metrics").header("host", host);
            if origin {
                request = request.header("origin", "https://evil.example");
            }
            guard(&request.body(Body::empty()).unwrap(), &["guard.example".into()], own).map(|r| r.status().as_u16())
        };
        for host in ["localhost", "localhost:9464", "127.0.0.1:9464", "[::1]:9464", "guard.example:80", "GUARD.example"] {
            assert_eq!(asked(host, false), None, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", ""] {
            assert_eq!(asked(host, false), Some(421), "{host}");
        }
        assert_eq!(asked("localhost", true), Some(403));
    }
}
