//! An exported model: `verify-model`, `init`, and what is said of one without proof. The worker answers what the file says.

use super::daemon::{Daemon, Place, text, wait_for};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The programs in a folder of their own, with two sets: `init` takes the worker that lies beside it.
struct Desk {
    root: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self {
            root: tempfile::tempdir().unwrap(),
        };
        std::fs::copy(env!("CARGO_BIN_EXE_delta-guard"), desk.at("delta-guard")).unwrap();
        let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fake_worker.py");
        std::fs::copy(fake, desk.at("delta-guard-worker")).unwrap();
        std::fs::set_permissions(desk.at("delta-guard-worker"), std::fs::Permissions::from_mode(0o755)).unwrap();
        for set in ["train", "validation"] {
            std::fs::create_dir(desk.at(set)).unwrap();
        }
        desk
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// An exported model that the worker answers for with `other` in the place of its usual words.
    fn model(&self, other: &Value) {
        std::fs::write(self.at("products.pt2"), program(other)).unwrap();
    }

    /// What a shell would run in this folder.
    fn ask(&self, line: &str) -> Output {
        let words = shlex::split(line).unwrap();
        let (program, arguments) = words.split_first().unwrap();
        assert_eq!(program, "delta-guard");
        Command::new(self.at("delta-guard"))
            .args(arguments)
            .current_dir(self.root.path())
            .env_remove("DELTA_GUARD_CONFIG")
            .output()
            .unwrap()
    }

    fn init(&self, more: &str) -> Output {
        self.ask(&format!("delta-guard init products.pt2 --train train --validation validation {more}"))
    }
}

/// A file as the fake worker reads it. Where nothing is stored, the name of the stored file does not stand in it.
fn program(other: &Value) -> Vec<u8> {
    let stored = if other.get("stored") == Some(&Value::Null) {
        ""
    } else {
        "extra/delta_guard.json"
    };
    format!("PK\u{3}\u{4}\n{other}\n{stored}").into_bytes()
}

fn unproved() -> Value {
    json!({"stored": null, "proof": null})
}

fn wrong() -> Value {
    json!({"proof": {"pictures": 8, "difference": 2.31, "same_class": 3, "likely": ["channels are in the order B, G, R: then the answers agree"]}})
}

const NOBODY: &str = "nobody has proved that this is the owner's network";

#[test]
fn a_model_is_verified_without_a_configuration() {
    let desk = Desk::new();
    for (model, code, out, err) in [
        (
            json!({}),
            0,
            "8 of 8 pictures are answered as their owner stored (largest difference of a logit 3e-6)",
            "",
        ),
        (
            wrong(),
            1,
            "3 of 8 pictures are read as the same class",
            "most likely: channels are in the order B, G, R",
        ),
        (unproved(), 3, NOBODY, ""),
    ] {
        desk.model(&model);
        let told = desk.ask("delta-guard verify-model products.pt2 --quiet");
        assert_eq!(told.status.code(), Some(code), "{}", text(&told.stderr));
        assert!(
            text(&told.stdout).contains(out) && text(&told.stderr).contains(err),
            "{}{}",
            text(&told.stdout),
            text(&told.stderr)
        );
        for part in [
            "3 × 32 × 32",
            "11,181,642",
            "21 layers with 99.9 %",
            "bn1.weight (batch norm)",
            "300.0 MiB",
            "2 min",
        ] {
            assert!(text(&told.stdout).contains(part), "{part}\n{}", text(&told.stdout));
        }
        // One line, the worker's own words.
        let json = desk.ask("delta-guard verify-model products.pt2 --json --quiet");
        assert_eq!((json.status.code(), text(&json.stdout).lines().count()), (Some(code), 1));
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!((&json["tracked_share"], json["proof"].is_null()), (&json!(0.9991), code == 3));
    }
    let missing = desk.ask("delta-guard verify-model nowhere.pt2");
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("nowhere.pt2 cannot be read"), "{}", text(&missing.stderr));
}

/// What is written works, holds what the model says, and is not written twice; the commands at its end can be typed.
#[test]
fn init_writes_a_configuration_that_works() {
    let desk = Desk::new();
    desk.model(&json!({}));
    let told = desk.init("--owner ml@example.org --mode observe");
    let said = text(&told.stdout);
    assert_eq!(told.status.code(), Some(0), "{said}{}", text(&told.stderr));
    assert!(
        said.contains("pass over 300 pictures") && said.contains("delta-guard.yaml: no mistake"),
        "{said}"
    );
    let written = std::fs::read_to_string(desk.at("delta-guard.yaml")).unwrap();
    let read: Value = serde_yaml::from_str(&written).unwrap();
    assert_eq!(
        (&read["instance"], &read["owner"], &read["mode"]),
        (&json!("products"), &json!("ml@example.org"), &json!("observe"))
    );
    assert_eq!(read["model"], json!({"architecture": "products.pt2", "checkpoint": "products.pt2"}));
    assert_eq!(
        read["data"]["classes"],
        json!(["ship", "cat", "dog"]),
        "in the model's order, not the folders'"
    );
    assert_eq!(read["data"]["image"]["transforms"][1]["normalize"]["std"], json!([0.25, 0.25, 0.25]));
    assert_eq!(read["unlearn"]["method"], "cf", "never a recipe that is a guess");
    assert!(!desk.at("delta-guard-files").exists(), "nothing but the configuration");
    assert!(said.contains("8 of 8 pictures") && !said.contains(NOBODY), "{said}");
    let commands: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| line.starts_with("delta-guard "))
        .collect();
    assert_eq!(
        commands,
        [
            "delta-guard measure --config delta-guard.yaml",
            "delta-guard run --config delta-guard.yaml"
        ]
    );
    let measured = desk.ask(commands[0]);
    assert_eq!(measured.status.code(), Some(0), "{}", text(&measured.stderr));
    let again = desk.init("");
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text(&again.stderr).contains("is not overwritten") && text(&again.stderr).contains("--out"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(std::fs::read_to_string(desk.at("delta-guard.yaml")).unwrap(), written);
}

#[test]
fn a_model_that_differs_or_has_other_classes_gets_no_configuration() {
    let desk = Desk::new();
    let many: Vec<String> = (0..50).map(|n| format!("class {n}")).collect();
    let stored = |classes: &[String]| json!({"classes": classes.len(), "stored": {"classes": classes, "preprocess": [{"resize": {"size": [32, 32]}}], "pictures": []}});
    for (model, code, parts) in [
        (wrong(), 1, &["a logit differs by 2.31", "B, G, R"][..]),
        (
            stored(&["cat", "dog", "boat"].map(String::from)),
            78,
            &[
                "the model answers 3: cat, dog, boat",
                "the training set has 3: cat, dog, ship",
                "only in the model: boat",
                "only in the training set: ship",
                "export again",
            ],
        ),
        (stored(&many), 78, &["the model answers 50: class 0, ", "class 19 and 30 more"]),
        (
            json!({"classes": 4, "stored": null, "proof": null}),
            78,
            &["the model answers 4\n", "the training set has 3: cat, dog, ship"],
        ),
    ] {
        desk.model(&model);
        let told = desk.init("");
        let said = text(&told.stderr);
        assert_eq!(told.status.code(), Some(code), "{said}");
        for part in parts {
            assert!(said.contains(part), "{part} not in\n{said}");
        }
        assert!(!said.contains("class 20,") && !desk.at("delta-guard.yaml").exists(), "{said}");
    }
}

/// Nothing stored: a configuration all the same, whose guesses are called so.
#[test]
fn a_model_without_pictures_is_guarded_with_a_warning() {
    let desk = Desk::new();
    desk.model(&unproved());
    let told = desk.init("--out 'my guard.yaml'");
    let said = text(&told.stdout);
    assert_eq!(told.status.code(), Some(0), "{said}{}", text(&told.stderr));
    assert!(said.contains(&format!("warning: model.architecture: {NOBODY}")), "{said}");
    assert!(text(&told.stderr).contains("data.image is a guess"), "{}", text(&told.stderr));
    assert!(said.contains("delta-guard run --config 'my guard.yaml'"), "{said}");
    assert!(std::fs::read_to_string(desk.at("my guard.yaml")).unwrap().contains("A GUESS"));
}

/// What is known of the network stands where people look: check-config, the page, the report.
#[test]
fn what_is_not_proved_is_said_and_what_differs_is_not_guarded() {
    let place = Place::new("");
    let config = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.config(), config.replace("small-cnn", "products.pt2")).unwrap();
    let model = |other: &Value| std::fs::write(place.at("products.pt2"), program(other)).unwrap();

    model(&json!({"proof": {"pictures": 8, "difference": 3e-6, "same_class": 8, "likely": []}}));
    let checked = place.ask(&["check-config"]);
    assert!(
        text(&checked.stdout).contains("8 of 8 pictures") && !text(&checked.stdout).contains(NOBODY),
        "{}",
        text(&checked.stdout)
    );
    let daemon = place.start();
    assert!(!daemon.get("/readyz").unwrap().1.contains(NOBODY));
    place.drop_in(b"proved.png", "label=dog\n");
    assert!(!report(&daemon, 1).contains("nobody has proved"));
    assert_eq!(daemon.stop(), Some(0));

    model(&unproved());
    let checked = place.ask(&["check-config"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert!(
        text(&checked.stdout).contains(&format!("warning: model.architecture: {NOBODY}")),
        "{}",
        text(&checked.stdout)
    );
    let daemon = place.start();
    let ready: Value = serde_json::from_str(&daemon.get("/readyz").unwrap().1).unwrap();
    assert!(ready["ready"] == true && ready["notes"][0].as_str().unwrap().contains(NOBODY), "{ready}");
    place.drop_in(b"unproved.png", "label=ship\n");
    assert!(report(&daemon, 2).contains("nobody has proved that this is the owner"));
    assert_eq!(daemon.stop(), Some(0));

    model(&wrong());
    let checked = place.ask(&["check-config"]);
    let said = text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(78), "{said}");
    for part in ["guard.yaml:6:", "model.architecture: the stored pictures are not answered", "B, G, R"] {
        assert!(said.contains(part), "{part} not in\n{said}");
    }
    let started = place.ask(&["run"]);
    assert_eq!(started.status.code(), Some(78), "{}", text(&started.stderr));
    assert!(text(&started.stderr).contains("is not guarded"), "{}", text(&started.stderr));
}

/// How much of the network influence sees stands where people look, and too little is refused, until the owner says that it is enough.
#[test]
fn a_network_that_influence_hardly_sees_is_not_guarded_unless_its_owner_says_so() {
    let place = Place::new("");
    let plain = std::fs::read_to_string(place.config()).unwrap().replace("small-cnn", "products.pt2");
    let configure = |text: &str| std::fs::write(place.config(), text).unwrap();
    let model = |other: &Value| std::fs::write(place.at("products.pt2"), program(other)).unwrap();
    configure(&plain);

    model(&json!({}));
    let checked = place.ask(&["check-config"]);
    let said = text(&checked.stdout);
    assert!(
        said.contains("21 layers with 99.9 %") && said.contains("bn1.weight (batch norm)"),
        "{said}"
    );

    model(&json!({"tracked_share": 0.5579}));
    for command in ["check-config", "run"] {
        let told = place.ask(&[command]);
        let said = text(&told.stderr);
        assert_eq!(told.status.code(), Some(78), "{command}: {said}");
        for part in ["55.8 %", "asks for 80.0 %", "bn1.weight (batch norm)", "model.min_tracked_share to 0.55"] {
            assert!(said.contains(part), "{command}: {part} not in\n{said}");
        }
    }
    // What is advised, typed. It is said all the same.
    configure(&plain.replace("products.pt2", "products.pt2, min_tracked_share: 0.55"));
    let checked = place.ask(&["check-config"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    let daemon = place.start();
    place.drop_in(b"half.png", "label=dog\n");
    let page = report(&daemon, 1);
    assert!(
        page.contains("influence is computed on") && page.contains("21 layers with 55.8 %"),
        "{page}"
    );
    assert_eq!(daemon.stop(), Some(0));

    // Who asks for no influence needs none.
    configure(&format!("{plain}detect: {{method: spectral-signatures}}\n"));
    assert_eq!(place.ask(&["check-config"]).status.code(), Some(0));
}

/// The page of the newest case, when there is one of this many.
fn report(daemon: &Daemon, cases: usize) -> String {
    wait_for("report", || {
        let listed: Value = serde_json::from_str(&daemon.get("/api/v1/cases")?.1).ok()?;
        let newest = listed.as_array().filter(|listed| listed.len() == cases)?.first()?["case"]
            .as_str()?
            .to_owned();
        daemon
            .get(&format!("/cases/{newest}"))
            .filter(|(code, _)| *code == 200)
            .map(|(_, page)| page)
    })
}
