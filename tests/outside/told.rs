//! One mail per finished case, whatever happens to server and daemon; and what the command line says about the case.

use super::daemon::{Place, text, wait_for};
use super::smtp::{AtDot, Server, Taken};

fn mail(port: u16) -> String {
    format!("mail: {{host: 127.0.0.1, port: {port}, tls: none, from: guard@example.org, to: [oncall@example.org], timeout: 5s, retry_after: 50ms}}")
}

/// Body lines joined again as they were before quoted-printable cut them.
fn readable(taken: &Taken) -> String {
    taken.raw.replace("=\r\n", "").replace("=E2=86=92", "→")
}

fn message_id(taken: &Taken) -> String {
    taken.raw.lines().find_map(|line| line.strip_prefix("Message-ID: ")).unwrap().to_owned()
}

#[test]
fn a_case_ends_with_one_mail_a_report_and_answers() {
    let server = Server::start(&[]);
    let place = Place::new(&mail(server.port));
    let daemon = place.start();
    place.drop_in(b"wrong.png", "label=dog\nflag=30\nafter=ship\n");
    daemon.wait_for_metric("delta_guard_mail_sent_total 1");
    daemon.wait_for_metric("delta_guard_proposals_total 1");
    daemon.wait_for_metric("delta_guard_outbox_length 0");

    let taken = server.taken.lock().unwrap().clone();
    assert_eq!(taken.len(), 1);
    let cases = place.json(&["cases"]);
    let case = cases[0]["case"].as_str().unwrap().to_owned();
    let view = place.json(&["show", &case[..8]]);
    let report = view["paths"]["report"].as_str().unwrap();
    let candidate = view["paths"]["checkpoint"].as_str().unwrap();
    let mail = readable(&taken[0]);
    for part in [
        "Subject: [harbour] Repaired: 30 training examples",
        "wrong.png",
        report,
        candidate,
        "90.0 % → 90.0 %",
        "delta-guard flagged",
    ] {
        assert!(mail.contains(part) || mail.contains(&part.replace(" ", "=20")), "{part} not in:\n{mail}");
    }
    // The picture as the worker wrote it, and the report itself.
    for part in ["Content-Type: image/png", "iVBORw0KGgo", "cid:anomaly@delta-guard", "filename=\"report-"] {
        assert!(mail.contains(part), "{part} not in:\n{mail}");
    }
    let page = std::fs::read_to_string(report).unwrap();
    assert!(
        page.contains("30 training examples caused this error") && page.contains("default-src &#39;none&#39;") | page.contains("default-src 'none'")
    );
    assert!(std::path::Path::new(candidate).is_file());

    // The same answers with and without the daemon.
    let flagged = |place: &Place| text(&place.ask(&["flagged", &case[..8], "--csv"]).stdout);
    let with = (place.json(&["cases"]), place.json(&["show", &case]), flagged(&place));
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(with, (place.json(&["cases"]), place.json(&["show", &case]), flagged(&place)));
    assert_eq!(with.2.lines().count(), 31);
    assert_eq!(place.ask(&["show", "ffffffff"]).status.code(), Some(3));
}

#[test]
fn without_a_server_the_case_ends_and_the_mail_goes_out_later_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let place = Place::new(&mail(port));
    let daemon = place.start();
    place.drop_in(b"wrong.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_proposals_total 1");
    daemon.wait_for_metric("delta_guard_outbox_length 1");
    wait_for("line in the log", || daemon.log().contains("Mail not sent").then_some(()));
    // A second case is not kept waiting by the first one's mail.
    place.drop_in(b"other.png", "label=cat\n");
    daemon.wait_for_metric("delta_guard_proposals_total 2");
    daemon.kill();

    // Another port is another server: the mails were written before it was known.
    let server = Server::start(&[AtDot::Hang]);
    let text = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.config(), text.replace(&format!("port: {port}"), &format!("port: {}", server.port))).unwrap();
    let daemon = place.start();
    daemon.wait_for_metric("delta_guard_mail_sent_total 2");
    daemon.wait_for_metric("delta_guard_outbox_length 0");
    assert_eq!(daemon.stop(), Some(0));
    let taken = server.taken.lock().unwrap().clone();
    let mut ids: Vec<_> = taken.iter().map(message_id).collect();
    assert_eq!(ids.len(), 3, "the first was taken without an answer, so it came twice");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2, "with the same Message-ID");

    // Started again, nothing is sent again.
    let daemon = place.start();
    daemon.wait_for_metric("delta_guard_outbox_length 0");
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(server.taken.lock().unwrap().len(), 3);
}

#[test]
fn a_file_that_is_no_case_and_a_picture_handed_in_again_are_mailed_where_somebody_asked() {
    let server = Server::start(&[]);
    let more = "submitters: [example.net], others: [{to: [desk@example.org], on: [refused, duplicate]}], timeout: 5s";
    let place = Place::new(&mail(server.port).replace("timeout: 5s", more));
    let daemon = place.start();
    place.drop_in(b"wrong.json", "{\"mail\": \"ann@example.net\", \"lable\": \"dog\"}");
    place.drop_in(b"wrong.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_refused_total{reason=\"bad-sidecar\"} 1");
    daemon.wait_for_metric("delta_guard_mail_sent_total 2");
    place.drop_in(b"good.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_proposals_total 1");
    daemon.wait_for_metric("delta_guard_mail_sent_total 3");
    place.drop_in(b"same.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_duplicate_total 1");
    daemon.wait_for_metric("delta_guard_mail_sent_total 4");
    daemon.wait_for_metric("delta_guard_outbox_length 0");
    let taken = server.taken.lock().unwrap().clone();
    let of = |to: &str| taken.iter().filter(|taken| taken.to == [to]).map(readable).collect::<Vec<_>>();
    let (owner, ann, desk) = (of("oncall@example.org"), of("ann@example.net"), of("desk@example.org"));
    assert_eq!((owner.len(), ann.len(), desk.len()), (1, 1, 2));
    assert!(owner[0].contains("good.png") && !owner[0].contains("same.png"), "{}", owner[0]);
    assert!(
        ann[0].contains("Your file wrong.png: not taken") && ann[0].contains("lable"),
        "{}",
        ann[0]
    );
    let case = place.json(&["cases"])[0]["case"].as_str().unwrap()[..12].to_owned();
    let again = desk.iter().find(|mail| mail.contains("same.png")).unwrap();
    let config = place.config();
    for part in ["handed in again", &case, "proposed", &format!("--config {}", config.display())] {
        assert!(again.contains(part), "{part} not in:\n{again}");
    }
    assert_eq!(daemon.stop(), Some(0));
    let daemon = place.start();
    daemon.wait_for_metric("delta_guard_outbox_length 0");
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(server.taken.lock().unwrap().len(), 4, "nothing is sent again");
}

#[test]
fn a_hostile_name_stays_a_name() {
    let server = Server::start(&[]);
    let place = Place::new(&mail(server.port));
    let daemon = place.start();
    place.drop_in(b"x\r\nBcc: thief@example.org\x1b[2J<script>.png", "label=dog\n");
    daemon.wait_for_metric("delta_guard_mail_sent_total 1");
    let taken = server.taken.lock().unwrap()[0].clone();
    assert_eq!(taken.to, ["oncall@example.org"]);
    let head = taken.raw.split("\r\n\r\n").next().unwrap();
    assert!(!head.lines().any(|line| line.starts_with("Bcc:")), "{head}");
    for arguments in [&["cases"][..], &["flagged"][..]] {
        let shown = text(&place.ask(arguments).stdout);
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    }
    let view = place.json(&["cases"]);
    let case = view[0]["case"].as_str().unwrap();
    let shown = text(&place.ask(&["show", case]).stdout);
    assert!(
        !shown.chars().any(|c| c.is_control() && c != '\n') && shown.contains("Bcc: thief"),
        "{shown:?}"
    );
    let report = place.json(&["show", case])["paths"]["report"].as_str().unwrap().to_owned();
    assert!(!std::fs::read_to_string(report).unwrap().contains("<script"));
}

#[test]
fn what_only_the_submitter_can_mend_is_told_to_the_submitter_only() {
    let server = Server::start(&[]);
    let place = Place::new(&mail(server.port).replace("timeout: 5s", "submitters: [example.net], timeout: 5s"));
    let daemon = place.start();
    std::fs::write(place.at("right.png"), "label=dog\n").unwrap();
    let right = place.at("right.png");
    let submit = |address: &str| place.ask(&["submit", right.to_str().unwrap(), "--true-label", "dog", "--mail", address]);
    let refused = submit("ann@elsewhere.example");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("example.net"), "{}", text(&refused.stderr));
    assert_eq!(submit("ann@example.net").status.code(), Some(0));
    daemon.wait_for_metric("delta_guard_cases_ended_total{end=\"no-anomaly\"} 1");
    daemon.wait_for_metric("delta_guard_mail_sent_total 1");
    daemon.wait_for_metric("delta_guard_outbox_length 0");
    let taken = server.taken.lock().unwrap().clone();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].to, ["ann@example.net"]);
    assert!(readable(&taken[0]).contains("Your picture right-"), "{}", taken[0].raw);
    // The address is for mails only.
    let shown = text(&place.ask(&["show", place.json(&["cases"])[0]["case"].as_str().unwrap(), "--json"]).stdout);
    assert!(!shown.contains("ann@example.net"), "{shown}");
    assert!(!daemon.get("/api/v1/cases").unwrap().1.contains("ann@example.net"));
    assert_eq!(daemon.stop(), Some(0));
}
