#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::alert::messages;
use crate::report::tests::repaired;
use std::sync::Mutex;

#[path = "../../../tests/outside/smtp.rs"]
mod smtp;
use smtp::{AtDot, Server};

/// What waits, in memory.
#[derive(Default)]
struct Box {
    waiting: Mutex<Vec<Message>>,
    settled: Mutex<Vec<(String, Option<String>)>>,
}

impl Pending for Box {
    fn waiting(&self) -> Vec<Message> {
        self.waiting.lock().unwrap().clone()
    }
    fn settle(&self, id: &str, gave_up: Option<&str>) -> anyhow::Result<()> {
        self.waiting.lock().unwrap().retain(|message| message.id != id);
        self.settled.lock().unwrap().push((id.into(), gave_up.map(String::from)));
        Ok(())
    }
}

fn mail(port: u16, to: &[&str]) -> Mail {
    serde_json::from_value(serde_json::json!({
        "host": "127.0.0.1", "port": port, "tls": "none", "from": "Guard <guard@example.org>", "to": to,
        "timeout": "2s", "retry_after": "10ms", "give_up_after": "3650000d",
    }))
    .unwrap()
}

fn page(metrics: &Metrics) -> String {
    String::from_utf8(metrics.page().unwrap()).unwrap()
}

/// Runs the mailer until nothing waits (or `enough` says so), at most half a minute.
async fn deliver(mail: &Mail, pending: &Arc<Box>, metrics: &Arc<Metrics>, enough: impl Fn() -> bool) {
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(run(mail.clone(), pending.clone(), metrics.clone(), Arc::default(), stopped));
    let deadline = Instant::now() + Duration::from_secs(30);
    while !enough() {
        assert!(Instant::now() < deadline, "{}", page(metrics));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.send(true).unwrap();
    task.await.unwrap();
}

fn filled(mail: &Mail) -> Arc<Box> {
    let folder = tempfile::tempdir().unwrap();
    let pending = Arc::new(Box::default());
    *pending.waiting.lock().unwrap() = messages(mail, &repaired(folder.path()));
    pending
}

#[tokio::test]
async fn a_mail_arrives_as_it_was_written_through_every_trouble() {
    // Deferred, then taken without an answer (so it must come again), then taken.
    let server = Server::start(&[AtDot::Defer, AtDot::Hang, AtDot::Take]);
    let mail = mail(server.port, &["Oncall <oncall@example.org>"]);
    let pending = filled(&mail);
    let written = serde_json::from_value::<Content>(pending.waiting()[0].content.clone()).unwrap().raw;
    let metrics = Arc::new(Metrics::new("animals", "propose"));
    deliver(&mail, &pending, &metrics, || pending.waiting().is_empty()).await;
    let taken = server.taken.lock().unwrap().clone();
    assert_eq!(taken.len(), 2, "one from before the lost answer, one after");
    assert_eq!(taken[0], taken[1], "a repetition is the same byte for byte");
    assert_eq!(
        (taken[0].from.as_str(), &taken[0].to[..]),
        ("guard@example.org", &["oncall@example.org".to_owned()][..])
    );
    assert_eq!(taken[0].raw.trim_end(), written.trim_end());
    assert_eq!(pending.settled.lock().unwrap().len(), 1);
    let page = page(&metrics);
    for line in [
        "delta_guard_mail_sent_total 1",
        "delta_guard_mail_retried_total{why=\"deferred\"} 1",
        "delta_guard_outbox_length 0",
    ] {
        assert!(page.contains(line), "{line} not in\n{page}");
    }
}

#[tokio::test]
async fn one_refused_recipient_does_not_keep_the_others_from_theirs() {
    let server = Server::start(&[]);
    server.unknown.lock().unwrap().push("gone@example.org".into());
    let mail = mail(server.port, &["gone@example.org", "here@example.org"]);
    let pending = filled(&mail);
    let metrics = Arc::new(Metrics::new("animals", "propose"));
    deliver(&mail, &pending, &metrics, || pending.waiting().is_empty()).await;
    assert_eq!(
        server.taken.lock().unwrap().iter().map(|taken| taken.to.clone()).collect::<Vec<_>>(),
        [["here@example.org"]]
    );
    let settled = pending.settled.lock().unwrap().clone();
    assert!(
        settled.iter().any(|(_, gave_up)| gave_up.as_ref().is_some_and(|why| why.contains("550"))),
        "{settled:?}"
    );
    assert!(page(&metrics).contains("delta_guard_mail_refused_total 1"));
}

#[tokio::test]
async fn a_refusal_at_the_final_dot_is_final() {
    let server = Server::start(&[AtDot::Refuse]);
    let mail = mail(server.port, &["a@example.org"]);
    let pending = filled(&mail);
    let metrics = Arc::new(Metrics::new("animals", "propose"));
    deliver(&mail, &pending, &metrics, || pending.waiting().is_empty()).await;
    assert!(server.taken.lock().unwrap().is_empty());
    assert!(pending.settled.lock().unwrap()[0].1.as_ref().unwrap().contains("554"));
}

#[tokio::test]
async fn without_a_server_the_mail_waits_and_that_is_said() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mail = mail(port, &["a@example.org"]);
    let pending = filled(&mail);
    let metrics = Arc::new(Metrics::new("animals", "propose"));
    let retried = || page(&metrics).contains("delta_guard_mail_retried_total{why=\"connection\"} 2");
    deliver(&mail, &pending, &metrics, retried).await;
    assert_eq!(pending.waiting().len(), 1);
    let page = page(&metrics);
    assert!(
        page.contains("delta_guard_outbox_length 1") && !page.contains("delta_guard_outbox_oldest_timestamp_seconds 0\n"),
        "{page}"
    );
    // The server comes back on the same port: the mail goes out without anyone's doing.
    let mut impatient = mail.clone();
    impatient.give_up_after = crate::config::units::Span(Duration::from_secs(1));
    deliver(&impatient, &pending, &metrics, || pending.waiting().is_empty()).await;
    assert!(
        pending.settled.lock().unwrap()[0].1.as_ref().unwrap().contains("given up"),
        "its date is in the past, so it is too old by now"
    );
}

#[tokio::test]
async fn a_server_without_starttls_gets_nothing() {
    let server = Server::start(&[]);
    let mut mail = mail(server.port, &["a@example.org"]);
    mail.tls = crate::config::file::Tls::Starttls;
    let pending = filled(&mail);
    let metrics = Arc::new(Metrics::new("animals", "propose"));
    let tried = || {
        page(&metrics)
            .lines()
            .any(|line| line.starts_with("delta_guard_mail_retried_total") && !line.ends_with(" 0"))
    };
    deliver(&mail, &pending, &metrics, tried).await;
    assert!(server.taken.lock().unwrap().is_empty());
    assert_eq!(pending.waiting().len(), 1);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left_after_the_timeout() {
    // Accepts (by the backlog) and never speaks.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut mail = mail(silent.local_addr().unwrap().port(), &["a@example.org", "b@example.org"]);
    mail.timeout = crate::config::units::Span(Duration::from_millis(200));
    let pending = filled(&mail);
    let metrics = Arc::new(Metrics::new("animals", "propose"));
    // Both mails count, although only the first opened a connection.
    deliver(&mail, &pending, &metrics, || {
        page(&metrics).contains("delta_guard_mail_retried_total{why=\"timeout\"} 2")
    })
    .await;
    assert_eq!(pending.waiting().len(), 2);
}

#[test]
fn waits_double_up_to_an_hour_and_are_spread() {
    let first = Duration::from_secs(30);
    for (tries, least) in [(1, 30), (2, 60), (3, 120), (8, 3600), (200, 3600)] {
        let waited = wait(first, tries, "x").as_secs_f64();
        assert!(
            waited >= f64::from(least) && waited <= f64::from(least) * 1.2 + 0.001,
            "{tries}: {waited}"
        );
    }
    assert_ne!(wait(first, 1, "x"), wait(first, 1, "y"));
}
