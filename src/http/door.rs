//! Who may ask. A browser that visits a hostile page can be made to send requests to this machine, either from that page (then it names the page in
//! `Origin`) or after the page's own name was pointed to this machine (then it calls us by that name in `Host`). Both are turned away.

use super::answers::refuse;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use std::net::IpAddr;
use std::sync::Arc;

/// Longest body of a request, in bytes. No request needs one.
const MAX_BODY: u64 = 4096;

/// The names by which we may be called.
#[derive(Clone, Debug)]
pub struct Door {
    names: Vec<String>,
}

impl Door {
    /// `localhost` and `allowed`, besides every address: a page can point its own name to this machine, but not a number. Ports are not compared:
    /// something in front of us may have another one.
    pub fn new(allowed: &[String]) -> Self {
        let names = std::iter::once("localhost".to_owned()).chain(allowed.iter().filter_map(|name| name_of(name)));
        Self { names: names.collect() }
    }

    /// May this request in? Otherwise why not.
    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        if headers.contains_key(header::ORIGIN) {
            return Err((StatusCode::FORBIDDEN, "requests from web pages are not answered"));
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        // A request line may name a host too; it must not be a way around the header.
        let names = [host, uri.authority().map(|authority| authority.as_str())];
        let allowed = |name: &str| name_of(name).is_some_and(|name| name.parse::<IpAddr>().is_ok() || self.names.contains(&name));
        if host.is_none() || hosts.next().is_some() || !names.into_iter().flatten().all(allowed) {
            return Err((
                StatusCode::MISDIRECTED_REQUEST,
                "the guard is not called by this name; add it to http.allowed_hosts if it should be",
            ));
        }
        let length = headers
            .get(header::CONTENT_LENGTH)
            .map(|length| length.to_str().ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(u64::MAX));
        if length.unwrap_or(0) > MAX_BODY || headers.contains_key(header::TRANSFER_ENCODING) {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "requests have no body here"));
        }
        Ok(())
    }
}

/// The name in `name`, `name:port`, `address:port`, `[v6]` or `[v6]:port`, in the form in which it is compared.
fn name_of(host: &str) -> Option<String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        // An address of version 6 without brackets has no port.
        None if host.parse::<IpAddr>().is_ok() => (host, ""),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    if name.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    Some(name.parse::<IpAddr>().map_or(name, |ip| ip.to_string()))
}

/// Middleware: check, then answer; every answer is for the asker alone.
pub(super) async fn pass(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let mut response = match door.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, why)) => refuse(status, why),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // A page of ours brings its own.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn a_host_is_compared_by_its_name() {
        for (host, name) in [
            ("LocalHost", Some("localhost")),
            ("localhost.:9464", Some("localhost")),
            ("127.0.0.1:1", Some("127.0.0.1")),
            ("[::1]:9464", Some("::1")),
            ("[0:0:0:0:0:0:0:1]", Some("::1")),
            ("::1", Some("::1")),
            ("", None),
            (":80", None),
            ("localhost:80@evil.example", None),
            ("[::1", None),
            ("localhost:evil", None),
        ] {
            assert_eq!(name_of(host).as_deref(), name, "{host}");
        }
    }
}
