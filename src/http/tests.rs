//! Real requests over loopback, written by hand: a client library would hide what is tested here.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::case::{Accepted, case_id};
use crate::clock::SystemClock;
use crate::engine::Hooks;
use crate::hooks::Outward;
use crate::stop::{self, Stopper};
use crate::vfs::Disk;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Served {
    address: SocketAddr,
    api: Arc<Api>,
    stopper: Stopper,
    server: tokio::task::JoinHandle<Result<()>>,
}

fn settings() -> Settings {
    let base = std::path::Path::new("/etc/delta-guard");
    crate::config::parse(crate::config::EXAMPLE, base, base, crate::config::Look::AtTextOnly)
        .unwrap()
        .file
        .settings()
        .unwrap()
}

async fn served() -> Served {
    let api = Arc::new(Api::new(Arc::new(Metrics::new("animals", "propose")), Arc::new(settings())));
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stopper, stop) = stop::channel();
    let asked = Arc::clone(&api);
    let server = tokio::spawn(async move { serve(listener, asked, &["guard.example.org".into()], stop).await });
    Served {
        address,
        api,
        stopper,
        server,
    }
}

/// Status, head and body of the answer to `request`, which must ask for the connection's end.
async fn say(address: SocketAddr, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
}

async fn get(address: SocketAddr, path: &str) -> (u16, serde_json::Value) {
    let (status, _, body) = say(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
    (status, serde_json::from_str(&body).unwrap_or(serde_json::Value::String(body)))
}

#[tokio::test]
async fn web_pages_and_foreign_names_are_turned_away() {
    let served = served().await;
    let port = served.address.port();
    for (lines, status) in [
        ("Host: localhost", 200),
        (&*format!("Host: LOCALHOST:{port}"), 200),
        (&*format!("Host: 127.0.0.1:{port}"), 200),
        ("Host: guard.example.org", 200),
        ("Host: evil.example", 421),
        ("Host: localhost.evil.example", 421),
        ("Host: localhost@evil.example", 421),
        // An address cannot be pointed elsewhere by a page: probes and scrapers call by it.
        ("Host: 10.1.2.3:9464", 200),
        ("Host: [2001:db8::1]:9464", 200),
        ("Host: 10.1.2.3.evil.example", 421),
        ("Host: 010.1.2.3", 421),
        ("Host:", 421),
        ("X-Nothing: 1", 421),
        ("Host: localhost\r\nHost: evil.example", 421),
        ("Host: localhost\r\nOrigin: http://localhost", 403),
        ("Host: localhost\r\nOrigin: null", 403),
        ("Host: localhost\r\nContent-Length: 5000", 413),
        ("Host: localhost\r\nTransfer-Encoding: chunked", 413),
    ] {
        let (got, head, body) = say(served.address, &format!("GET /livez HTTP/1.1\r\n{lines}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(got, status, "{lines}: {head}\n{body}");
        assert!(
            !head.contains("access-control") && head.contains("x-content-type-options: nosniff"),
            "{head}"
        );
    }
    let (got, ..) = say(
        served.address,
        "GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(got, 421, "the request line's own host is looked at too");
}

#[tokio::test]
async fn nothing_can_be_changed_from_here() {
    let served = served().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let (got, ..) = say(
            served.address,
            &format!("{method} /api/v1/cases HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        )
        .await;
        assert_eq!(got, 405, "{method}");
    }
    assert_eq!(get(served.address, "/etc/passwd").await.0, 404);
}

#[tokio::test]
async fn it_answers_before_during_and_after_trouble() {
    let served = served().await;
    let at = served.address;
    let (status, page) = get(at, "/metrics").await;
    assert!(status == 200 && page.as_str().unwrap().contains("delta_guard_ready 0"), "{page}");
    assert_eq!(get(at, "/livez").await.0, 200);
    let (status, ready) = get(at, "/readyz").await;
    assert!(
        status == 503 && ready["ready"] == false && ready["reasons"].as_array().unwrap().len() == 2,
        "{ready}"
    );
    assert_eq!(get(at, "/api/v1/cases").await.0, 503);
    assert_eq!(get(at, "/api/v1/status").await.1["journal_seq"], serde_json::Value::Null);

    let folder = tempfile::tempdir().unwrap();
    let hooks: Arc<dyn Hooks> = Arc::new(Outward::new(Arc::new(Metrics::new("x", "propose")), None));
    let (journal, index) = (folder.path().join("journal"), folder.path().join("index"));
    crate::publish::make_dir(&journal).unwrap();
    let ledger = Arc::new(Ledger::open(Arc::new(Disk), &journal, &index, Arc::new(SystemClock), hooks).unwrap());
    let digest = |letter: &str| delta_guard_contract::Digest(letter.repeat(64));
    let accepted: Accepted = serde_json::from_value(accepted(&digest("a"), &digest("b"))).unwrap();
    let id = case_id(&accepted.content, &accepted.claim, &accepted.checkpoint);
    ledger.accept(&id, accepted).unwrap();
    let (ready, readiness) = watch::channel(Readiness {
        journal: true,
        scanned: true,
        ..Readiness::default()
    });
    served.api.started(Arc::clone(&ledger), readiness);

    assert_eq!(get(at, "/readyz").await, (200, serde_json::json!({"ready": true, "reasons": []})));
    let (_, status) = get(at, "/api/v1/status").await;
    assert!(
        status["open"] == 1 && status["held"] == 0 && status["journal_seq"] == ledger.head().seq,
        "{status}"
    );
    let (_, list) = get(at, "/api/v1/cases").await;
    assert!(
        list.as_array().unwrap().len() == 1 && list[0]["case"] == id.0 && list[0]["state"] == "accepted",
        "{list}"
    );
    assert_eq!(get(at, "/api/v1/cases?state=held").await.1, serde_json::json!([]));
    assert_eq!(get(at, "/api/v1/cases?limit=0").await.1, serde_json::json!([]));
    assert_eq!(get(at, "/api/v1/cases?state=nonsense").await.0, 400);
    for name in [id.0.as_str(), id.short()] {
        let (status, view) = get(at, &format!("/api/v1/cases/{name}")).await;
        assert!(status == 200 && view["case"] == id.0 && view["submission"]["name"] == "cat.png", "{view}");
    }
    for missing in ["0".repeat(64), "zz".into(), "..%2f..".into()] {
        assert_eq!(get(at, &format!("/api/v1/cases/{missing}")).await.0, 404, "{missing}");
    }
    assert_eq!(get(at, "/api/v1/cases/%ff").await.0, 400);

    // A file that waits for long is told, and no reason not to be ready; a scan that hangs is one.
    ready.send_modify(|now| now.notes = vec!["x.png waits".into()]);
    assert_eq!(
        get(at, "/readyz").await,
        (200, serde_json::json!({"ready": true, "reasons": [], "notes": ["x.png waits"]}))
    );
    ready.send_modify(|now| (now.notes, now.stalled) = (Vec::new(), Some("the inbox hangs".into())));
    assert_eq!(
        get(at, "/readyz").await,
        (503, serde_json::json!({"ready": false, "reasons": ["the inbox hangs"]}))
    );
    ready.send_modify(|now| now.stalled = None);
    ready.send_modify(|now| now.trouble = Some("the disk is full".into()));
    assert_eq!(
        get(at, "/readyz").await,
        (503, serde_json::json!({"ready": false, "reasons": ["the disk is full"]}))
    );
}

/// An accepted case, as the journal holds it.
fn accepted(content: &delta_guard_contract::Digest, checkpoint: &delta_guard_contract::Digest) -> serde_json::Value {
    serde_json::json!({
        "name": "cat.png", "name_base64": "Y2F0LnBuZw==", "content": content, "bytes": 3, "checkpoint": checkpoint, "claim": {},
        "file": {"dev": 1, "ino": 2, "size": 3, "mtime_ns": 4}, "sidecar": null, "uid": 6,
    })
}

#[tokio::test]
async fn stopping_lets_idle_connections_go() {
    let served = served().await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    served.stopper.stop();
    tokio::time::timeout(Duration::from_secs(60), served.server)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(served.address).await.is_err(), "it still listens");
}

/// A server with few places and endless patience, or many and none.
async fn hello(most: usize, patience: Duration) -> (SocketAddr, tokio::task::JoinHandle<std::io::Result<()>>) {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes: Router = Router::new().route("/", axum::routing::get(|| async { "hello" }));
    let bounded = listener::Bounded::with_bounds(listener, most, patience, patience);
    (address, tokio::spawn(axum::serve(bounded, routes).into_future()))
}

#[tokio::test]
async fn who_says_nothing_makes_room_for_others() {
    // All places are taken by connections that say nothing, or half a thing, for ever.
    let (address, server) = hello(64, Duration::from_secs(86_400)).await;
    let mut silent = Vec::new();
    for i in 0..200 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if i % 2 == 0 {
            stream.write_all(b"GET / HT").await.unwrap();
        }
        silent.push(stream);
    }
    for _ in 0..3 {
        let asked = say(address, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = tokio::time::timeout(Duration::from_secs(60), asked).await.expect("shut out");
        assert_eq!((answer.0, answer.2.as_str()), (200, "hello"));
    }
    // The first ones had to go; the last ones have their places still.
    let end = tokio::time::timeout(Duration::from_secs(60), silent[0].read(&mut [0])).await;
    assert_eq!(end.expect("the first one keeps its place").unwrap_or(0), 0);
    let mut last = silent.pop().unwrap();
    last.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    server.abort();
}

#[tokio::test]
async fn who_says_nothing_is_left_after_a_while() {
    let (address, server) = hello(64, Duration::from_millis(50)).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"GET / HT").await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(60), silent.read(&mut [0])).await.unwrap();
    assert_eq!(end.unwrap_or(0), 0);
    server.abort();
}

#[tokio::test]
async fn answers_do_not_wait_for_the_ledger_and_gauges_are_of_now() {
    let served = served().await;
    let at = served.address;
    let folder = tempfile::tempdir().unwrap();
    let hooks: Arc<dyn Hooks> = Arc::new(Outward::new(Arc::new(Metrics::new("x", "propose")), None));
    let (journal, index) = (folder.path().join("journal"), folder.path().join("index"));
    crate::publish::make_dir(&journal).unwrap();
    let ledger = Arc::new(Ledger::open(Arc::new(Disk), &journal, &index, Arc::new(SystemClock), hooks).unwrap());
    let (_ready, readiness) = watch::channel(Readiness::default());
    served.api.started(Arc::clone(&ledger), readiness);
    // No engine runs, so nobody but the ledger itself can say how many wait.
    let mut ids = Vec::new();
    for i in 0..600 {
        let digest = delta_guard_contract::Digest(blake3::hash(format!("{i}").as_bytes()).to_hex().to_string());
        let accepted: Accepted = serde_json::from_value(accepted(&digest, &digest)).unwrap();
        let id = case_id(&accepted.content, &accepted.claim, &accepted.checkpoint);
        ledger.accept(&id, accepted).unwrap();
        ids.push(id);
    }
    let (_, page) = get(at, "/metrics").await;
    assert!(page.as_str().unwrap().contains("delta_guard_queue_length 600\n"), "{page}");
    assert_eq!(get(at, "/api/v1/status").await.1["open"], 600);
    // Newest first, no more than asked for, over more than one step.
    let (_, list) = get(at, "/api/v1/cases?limit=300").await;
    let listed: Vec<&str> = list.as_array().unwrap().iter().map(|line| line["case"].as_str().unwrap()).collect();
    let expected: Vec<&str> = ids.iter().rev().take(300).map(|id| id.0.as_str()).collect();
    assert_eq!(listed, expected);
    assert_eq!(get(at, "/api/v1/cases?state=held").await.1, serde_json::json!([]));
    assert_eq!(get(at, &format!("/api/v1/cases/{}", ids[7].0)).await.0, 200);
    assert_eq!(get(at, &format!("/cases/{}", ids[7].0)).await.0, 404, "there is no report yet");

    // While a record is being written, whoever asks for health, metrics or status is answered.
    let writing = ledger.hold();
    for path in ["/livez", "/metrics", "/api/v1/status", "/readyz"] {
        let asked = tokio::time::timeout(Duration::from_secs(60), get(at, path)).await;
        assert!(asked.is_ok(), "{path} waits for the ledger");
    }
    drop(writing);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_out_of_use_is_said_and_answers_come_from_the_journal() {
    let served = served().await;
    let at = served.address;
    let folder = tempfile::tempdir().unwrap();
    let hooks: Arc<dyn Hooks> = Arc::new(Outward::new(Arc::new(Metrics::new("x", "propose")), None));
    let (journal, index) = (folder.path().join("journal"), folder.path().join("index"));
    crate::publish::make_dir(&journal).unwrap();
    // No index can be made where files are.
    std::fs::write(&index, "in the way").unwrap();
    std::fs::write(index.with_extension("damaged"), "in the way too").unwrap();
    let ledger = Arc::new(Ledger::open(Arc::new(Disk), &journal, &index, Arc::new(SystemClock), hooks).unwrap());
    let digest = |letter: &str| delta_guard_contract::Digest(letter.repeat(64));
    let accepted: Accepted = serde_json::from_value(accepted(&digest("a"), &digest("b"))).unwrap();
    ledger.accept(&digest("c"), accepted).unwrap();
    let (_ready, readiness) = watch::channel(Readiness {
        journal: true,
        scanned: true,
        ..Readiness::default()
    });
    served.api.started(Arc::clone(&ledger), readiness);
    let (status, ready) = get(at, "/readyz").await;
    assert_eq!((status, &ready["ready"]), (200, &true.into()), "{ready}");
    assert!(ready["notes"][0].as_str().unwrap().contains("answers come from the journal"), "{ready}");
    assert_eq!(get(at, "/api/v1/status").await.1["index"], false);
    assert_eq!(get(at, "/api/v1/cases").await.1.as_array().unwrap().len(), 1);
}
