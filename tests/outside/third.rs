//! A candidate that reads the picture as a third class: no text calls it a repair where it is known what the picture shows.

use super::daemon::{Place, text};
use super::smtp::Server;

/// Everything that is told of the only case: state, and report, mail, `show`, one after the other.
fn told(more: &str, words: &str, sidecar: Option<&str>) -> (String, [String; 3]) {
    let server = Server::start(&[]);
    let place = Place::new(&format!(
        "{more}\nmail: {{host: 127.0.0.1, port: {}, tls: none, from: guard@example.org, to: [oncall@example.org], timeout: 5s}}",
        server.port
    ));
    let daemon = place.start();
    if let Some(sidecar) = sidecar {
        std::fs::write(place.at("inbox/.odd"), sidecar).unwrap();
        std::fs::rename(place.at("inbox/.odd"), place.at("inbox/odd.json")).unwrap();
    }
    place.drop_in(b"odd.png", words);
    daemon.wait_for_metric("delta_guard_mail_sent_total 1");
    assert_eq!(daemon.stop(), Some(0));
    let cases = place.json(&["cases"]);
    let case = cases[0]["case"].as_str().unwrap();
    let report = place.json(&["show", case])["paths"]["report"].as_str().unwrap().to_owned();
    let mail = server.taken.lock().unwrap()[0].raw.clone();
    // Quoted-printable, as far as these texts need it.
    let mail = mail.replace("=\r\n", "").replace("=E2=80=9C", "“").replace("=E2=80=9D", "”");
    let texts = [std::fs::read_to_string(report).unwrap(), mail, text(&place.ask(&["show", case]).stdout)];
    (cases[0]["state"].as_str().unwrap().to_owned(), texts)
}

fn says(told: &[String; 3], wanted: &[&str], never: &[&str]) {
    for text in told {
        for word in wanted {
            assert!(text.contains(word), "{word:?} is not in:\n{text}");
        }
        for word in never {
            assert!(!text.contains(word), "{word:?} is in:\n{text}");
        }
    }
}

const SHIP: Option<&str> = Some(r#"{"true_label": "ship"}"#);

#[test]
fn the_true_label_is_a_repair() {
    let (state, texts) = told("", "label=dog\nafter=ship\n", SHIP);
    assert_eq!(state, "proposed");
    says(
        &texts,
        &["repaired model is ready", "“ship”, which is right"],
        &["wrong too", "no longer"],
    );
}

/// The fake worker flags 1 % of the set and more, which the guard would not take out by itself.
const LIFTED: &str = "caps: {max_case_share: 0.1, max_day_share: 0.1, max_total_share: 0.1, max_class_share: 0.1}";

#[test]
fn a_third_class_is_rejected_with_its_reason() {
    let (state, texts) = told("", "label=dog\nafter=cat\n", SHIP);
    assert_eq!(state, "rejected");
    says(
        &texts,
        &["did not pass the gate", "wrong too", "gate.true_label"],
        &["Repaired", "repaired model is ready"],
    );
}

#[test]
fn where_the_owner_lets_a_third_class_pass_it_is_still_no_repair() {
    for mode in ["propose", "enforce"] {
        let (state, texts) = told(
            &format!("mode: {mode}\n{LIFTED}\ngate: {{true_label: false}}"),
            "label=dog\nafter=cat\n",
            SHIP,
        );
        assert_eq!(state, if mode == "propose" { "proposed" } else { "promoted" });
        says(
            &texts,
            &["“cat”, which is wrong too", "it shows “ship”"],
            &["Repaired", "repaired model is"],
        );
    }
}

#[test]
fn where_nobody_said_what_it_shows_it_is_no_longer_the_wrong_label() {
    let (state, texts) = told("", "label=dog\nafter=cat\n", None);
    assert_eq!(state, "proposed");
    says(
        &texts,
        &["repaired model is ready", "no longer", "Nobody said what the picture shows"],
        &["which is right.", "wrong too"],
    );
}

#[test]
fn a_picture_that_is_still_misread_is_rejected() {
    let (state, texts) = told("gate: {true_label: false}", "label=dog\nafter=dog\n", None);
    assert_eq!(state, "rejected");
    says(&texts, &["still reads"], &["Repaired", "repaired model is ready"]);
}

#[test]
fn certify_by_hand_judges_the_same() {
    let place = Place::new("");
    std::fs::write(place.at("picture.png"), "label=dog\nafter=cat\n").unwrap();
    let picture = place.at("picture.png");
    // Any file will do for a worker that computes nothing.
    let candidate = place.at("model.safetensors");
    let certify = |more: &[&str]| {
        let arguments = [&["certify", candidate.to_str().unwrap(), "--image", picture.to_str().unwrap()][..], more].concat();
        let output = place.ask(&arguments);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, said) = certify(&[]);
    assert!(
        code == Some(0) && said.contains("no longer reads") && said.contains("nobody said"),
        "{said}"
    );
    let (code, said) = certify(&["--true-label", "ship"]);
    assert!(
        code == Some(3) && said.contains("wrong too") && said.contains("gate.true_label"),
        "{said}"
    );
    let (code, said) = certify(&["--true-label", "cat"]);
    assert!(code == Some(0) && !said.contains("note"), "{said}");
    let (code, said) = certify(&["--true-label", "owl"]);
    assert!(code == Some(2) && said.contains("owl") && said.contains("cat, dog, ship"), "{said}");
}

/// The paper's rule never abstains: what it flags is only told, unless the owner says so.
#[test]
fn the_papers_modes_only_observe() {
    for (more, state) in [
        ("detect: {method: paper-code}", "observed"),
        ("detect: {method: paper-text, allow_unlearn: false}", "observed"),
        ("detect: {method: paper-code, allow_unlearn: true}", "proposed"),
        (
            &format!("detect: {{method: paper-code, allow_unlearn: true}}\nmode: enforce\n{LIFTED}"),
            "promoted",
        ),
    ] {
        let (found, texts) = told(more, "label=dog\nafter=ship\n", None);
        assert_eq!(found, state, "{more}");
        if state == "observed" {
            says(&texts, &["count rule", "flags clean examples"], &["caused this error", "Repaired"]);
        }
    }
    let place = Place::new("detect: {method: paper-code}");
    let said = text(&place.ask(&["check-config"]).stdout);
    assert!(said.contains("only observed") && said.contains("detect.allow_unlearn"), "{said}");
    std::fs::write(place.at("picture.png"), "label=dog\n").unwrap();
    let traced = text(&place.ask(&["trace", place.at("picture.png").to_str().unwrap()]).stdout);
    assert!(traced.contains("paper-code") && traced.contains("never abstains"), "{traced}");
    let place = Place::new("detect: {method: paper-text}\nmode: enforce");
    let refused = place.ask(&["check-config"]);
    let said = text(&refused.stderr);
    assert!(
        refused.status.code() == Some(78) && said.contains("detect.allow_unlearn") && said.contains("enforce"),
        "{said}"
    );
}
