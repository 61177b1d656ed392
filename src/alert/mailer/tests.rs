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
    /// What the journal says that they have been waiting.
    waited: Mutex<Duration>,
}

impl Pending for Box {
    fn waiting(&self) -> Vec<WaitingMail> {
        let waited = *self.waited.lock().unwrap();
        let messages = self.waiting.lock().unwrap().clone();
        messages.into_iter().map(|message| WaitingMail { message, waited }).collect()
    }
    fn waited(&self, more: Duration) -> anyhow::Result<()> {
        *self.waited.lock().unwrap() += more;
        Ok(())
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
        "timeout": "2s", "retry_after": "10ms",
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
    let written = serde_json::from_value::<Content>(pending.waiting()[0].message.content.clone())
        .unwrap()
        .raw;
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
    let shown = page(&metrics);
    assert!(
        shown.contains("delta_guard_outbox_length 1") && !shown.contains("delta_guard_outbox_oldest_timestamp_seconds 0\n"),
        "{shown}"
    );
    // Its date is long past (as after a step of the clock), and yet it is young: only the time that the guard waited counts.
    assert!(pending.settled.lock().unwrap().is_empty());
    // As much as it may wait was waited for by earlier runs.
    *pending.waited.lock().unwrap() = mail.give_up_after.0;
    deliver(&mail, &pending, &metrics, || pending.waiting().is_empty()).await;
    assert!(pending.settled.lock().unwrap()[0].1.as_ref().unwrap().contains("given up after 5d"));
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

/// A server that answers each line by a script: (first word of the command, answer). An empty word is the greeting; what is not named gets 250.
struct Liar {
    port: u16,
    connections: Arc<Mutex<usize>>,
}

impl Liar {
    fn start(script: &'static [(&'static str, &'static str)]) -> Self {
        use std::io::{BufRead, BufReader, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let liar = Self {
            port: listener.local_addr().unwrap().port(),
            connections: Arc::default(),
        };
        let connections = liar.connections.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                *connections.lock().unwrap() += 1;
                let answer = |word: &str| script.iter().find(|(known, _)| *known == word).map(|(_, answer)| *answer);
                let _ = write!(stream, "{}\r\n", answer("").unwrap_or("220 liar.test"));
                let mut text = false;
                for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
                    let word = line.split([' ', ':']).next().unwrap_or_default().to_uppercase();
                    let said = match (text, word.as_str()) {
                        (true, ".") => answer(".").unwrap_or("250 taken"),
                        (true, _) => continue,
                        (false, "DATA") => answer("DATA").unwrap_or("354 go on"),
                        (false, word) => answer(word).unwrap_or("250 ok"),
                    };
                    text = said.starts_with("354");
                    if write!(stream, "{said}\r\n").is_err() {
                        break;
                    }
                }
            }
        });
        liar
    }
}

#[tokio::test]
async fn only_what_is_about_the_recipient_or_the_mail_loses_it() {
    for (script, last) in [
        (&[("", "554 no service here")][..], false),
        (&[("EHLO", "502 not implemented")], false),
        (&[("MAIL", "550 5.7.1 sender rejected")], false),
        (&[("RCPT", "550 relaying denied")], false),
        (&[("RCPT", "554 5.7.1 <a@example.org>: Relay access denied")], false),
        (&[("DATA", "554 5.5.1 no valid recipients")], false),
        (&[(".", "554 5.3.0 the filter is out of order")], false),
        (&[("RCPT", "550 5.1.1 no such user")], true),
        (&[("RCPT", "550 User unknown")], true),
        (&[(".", "554 5.6.0 not with this content")], true),
    ] {
        let liar = Liar::start(script);
        let mail = mail(liar.port, &["a@example.org"]);
        let pending = filled(&mail);
        let metrics = Arc::new(Metrics::new("animals", "propose"));
        deliver(&mail, &pending, &metrics, || {
            *liar.connections.lock().unwrap() >= 3 || pending.waiting().is_empty()
        })
        .await;
        assert_eq!(pending.waiting().is_empty(), last, "{script:?}\n{}", page(&metrics));
        assert_eq!(page(&metrics).contains("delta_guard_mail_refused_total 1"), last, "{script:?}");
    }
}

/// How old a mail is by the clock does not matter; how long a guard has been trying does.
#[tokio::test]
async fn a_mail_is_given_up_by_the_time_that_it_was_tried_and_by_no_clock() {
    let liar = Liar::start(&[("RCPT", "450 4.2.1 later")]);
    let mut mail = mail(liar.port, &["a@example.org"]);
    mail.give_up_after.0 = Duration::from_secs(3600);
    let pending = filled(&mail);
    // As after a step of the clock by half a century.
    pending.waiting.lock().unwrap().iter_mut().for_each(|message| message.written = 1);
    let metrics = Arc::new(Metrics::new("animals", "propose"));
    deliver(&mail, &pending, &metrics, || *liar.connections.lock().unwrap() >= 3).await;
    assert_eq!((pending.waiting().len(), pending.settled.lock().unwrap().len()), (1, 0));
    // The journal says that guards have been trying for two hours.
    *pending.waited.lock().unwrap() = Duration::from_secs(7200);
    deliver(&mail, &pending, &metrics, || pending.waiting().is_empty()).await;
    let settled = pending.settled.lock().unwrap().clone();
    assert!(settled[0].1.as_ref().is_some_and(|why| why.contains("given up after")), "{settled:?}");
    assert!(page(&metrics).contains("delta_guard_mail_expired_total 1"));
}

#[tokio::test]
async fn a_server_that_never_ends_its_line_gets_no_memory() {
    use std::io::Write;
    use std::sync::atomic::{AtomicU64, Ordering};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mail = mail(listener.local_addr().unwrap().port(), &["a@example.org"]);
    let (taken, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (counted, opened) = (taken.clone(), connections.clone());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            opened.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(b"220 ");
            let chunk = vec![b'x'; 1 << 20];
            // 2,000 MiB, as long as somebody reads them.
            for _ in 0..2000 {
                match stream.write_all(&chunk) {
                    Ok(()) => counted.fetch_add(1 << 20, Ordering::SeqCst),
                    Err(_) => break,
                };
            }
        }
    });
    let pending = filled(&mail);
    let metrics = Arc::new(Metrics::new("animals", "propose"));
    deliver(&mail, &pending, &metrics, || connections.load(Ordering::SeqCst) >= 3).await;
    // What the system's own buffers took in is not ours; 64 KiB a try are.
    let bytes = taken.load(Ordering::SeqCst);
    assert!(bytes < 100 << 20, "{bytes} bytes were taken from the server");
    assert!(
        page(&metrics).contains("delta_guard_mail_retried_total{why=\"connection\"}"),
        "{}",
        page(&metrics)
    );
    assert_eq!(pending.waiting().len(), 1);
}

#[tokio::test]
async fn past_twenty_in_an_hour_many_mails_are_one() {
    let server = Server::start(&[]);
    let mail = mail(server.port, &["a@example.org"]);
    let pending = Arc::new(Box::default());
    let folder = tempfile::tempdir().unwrap();
    let mut view = repaired(folder.path());
    for i in 0..120 {
        view.case = delta_guard_contract::Digest(blake3::hash(format!("{i}").as_bytes()).to_hex().to_string());
        view.submission.name = format!("picture-{i}.png");
        pending.waiting.lock().unwrap().extend(messages(&mail, &view));
    }
    let metrics = Arc::new(Metrics::new("animals", "propose"));
    deliver(&mail, &pending, &metrics, || pending.waiting().is_empty()).await;
    let taken = server.taken.lock().unwrap().clone();
    assert_eq!(taken.len(), 21, "twenty, and one for the hundred others");
    let last = taken.last().unwrap().raw.replace("=\r\n", "");
    for part in ["100 further messages", "picture-20.png", "and 50 more"] {
        assert!(last.contains(part), "{part} not in:\n{last}");
    }
    assert!(!last.contains("picture-19.png") && !last.contains("picture-70.png"), "{last}");
    assert!(pending.settled.lock().unwrap().iter().all(|(_, gave_up)| gave_up.is_none()));
    assert_eq!(pending.settled.lock().unwrap().len(), 120);
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
