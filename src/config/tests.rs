#![allow(clippy::unwrap_used, reason = "tests")]

mod pictures;

use super::*;
use delta_guard_contract::method::METHOD;
use serde_json::Value;
use std::collections::BTreeMap;

const BASE: &str = "paths: {inbox: in, state: state, candidates: out}\ndata: {train: {path: train}, validation: {path: val}}\nmodel: {architecture: resnet18, checkpoint: m.safetensors}\n";

fn problems(text: &str) -> Vec<Problem> {
    match parse(text, Path::new("t.yaml"), Path::new("/base"), Look::AtTextOnly) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems,
    }
}

/// Every line of the example that is a commented-out key, with the comment sign taken away.
fn uncommented() -> String {
    let key = |line: &str| {
        line.trim_start()
            .strip_prefix('#')
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(' '))
    };
    let mut text = String::new();
    for line in EXAMPLE.lines() {
        if key(line) {
            let indent = line.len() - line.trim_start().len();
            text.push_str(&" ".repeat(indent));
            text.push_str(&line[indent + 1..]);
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_smallest_configuration_is_the_defaults() {
    let config = parse(BASE, Path::new("t.yaml"), Path::new("/base"), Look::AtTextOnly).unwrap();
    assert_eq!(config.file.paths.inbox, Path::new("/base/in"));
    assert_eq!(config.file.recipe, delta_guard_contract::Recipe::default());
    assert_eq!(config.file.mode, crate::policy::Mode::Propose);
    assert!(config.file.mail.is_none());
}

#[test]
fn the_example_parses_with_and_without_its_comment_signs() {
    let plain = parse(EXAMPLE, Path::new("e.yaml"), Path::new("/"), Look::AtTextOnly).unwrap_or_else(|error| panic!("{error}"));
    let full = parse(&uncommented(), Path::new("e.yaml"), Path::new("/"), Look::AtTextOnly).unwrap_or_else(|error| panic!("{error}"));
    assert!(plain.file.mail.is_none() && full.file.mail.is_some());
}

#[test]
fn the_documentation_shows_a_configuration_that_is_right() {
    let page = include_str!("../../docs/configuration.md");
    let yaml = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    parse(yaml, Path::new("d.yaml"), Path::new("/"), Look::AtTextOnly).unwrap_or_else(|error| panic!("{error}"));
}

/// The default schedule is the paper's in shares, so that it falls whatever the epochs; writing milestones that never come is a mistake.
#[test]
fn a_schedule_fits_its_epochs_or_is_a_mistake() {
    let with = |recipe: &str| {
        let text = format!("{EXAMPLE}\n{recipe}\n");
        parse(&text, Path::new("e.yaml"), Path::new("/"), Look::AtTextOnly).map(|c| c.file.recipe.epochs)
    };
    assert_eq!(with("recipe: {epochs: 12}").expect("is right"), 12);
    assert!(with("recipe: {epochs: 12, schedule: {kind: step, milestones: [6, 13], gamma: 0.1}}").is_err());
    assert!(with("recipe: {epochs: 14, schedule: {kind: step, milestones: [14, 24, 35], gamma: 0.1}}").is_err());
    assert!(with("recipe: {epochs: 12, schedule: {kind: step, milestones: [0.25, 6, 0.75], gamma: 0.1}}").is_ok());
}

/// Every key of the schema stands in the example, and what is shown there is what the code takes when the key is left out.
#[test]
fn the_example_names_every_key_and_shows_true_defaults() {
    let schema = schema();
    let shown = tree::parse(&uncommented()).unwrap().value;
    let mut keys = BTreeMap::new();
    collect(&schema, &schema, String::new(), &mut keys);
    assert!(keys.len() > 80, "only {} keys found in the schema", keys.len());
    for key in keys.keys() {
        let pointer = format!("/{}", key.replace('.', "/"));
        // Keys of unions: one option at most is shown; the comment above names the others.
        let named = shown.pointer(&pointer).is_some()
            || ["recipe.schedule.", "recipe.optimizer.", "detect.damping."]
                .iter()
                .any(|union| key.starts_with(union));
        assert!(named, "config/delta-guard.yaml does not explain {key}");
    }
    // Examples, not defaults: they have none.
    let examples = [
        "detect.seed",
        "worker.memory_limit",
        "worker.command",
        "mail",
        "owner",
        "paths.refused",
        "paths.group",
        "http.public_url",
        "unlearn.also",
        "data.train.source",
        "data.validation.source",
        "data.classes",
        "model.prefix",
        "recipe.clip_norm",
        "recipe.mixup",
        "recipe.cutmix",
        "recipe.ema",
        "recipe.init",
        "recipe.augment.crop",
    ];
    let config = parse(EXAMPLE, Path::new("e.yaml"), Path::new("/"), Look::AtTextOnly).unwrap().file;
    let mut defaults = serde_json::to_value(&config).unwrap();
    let resolved = serde_json::to_value(config.detect.clone().resolved()).unwrap();
    defaults["detect"] = resolved;
    let full = parse(&uncommented(), Path::new("e.yaml"), Path::new("/"), Look::AtTextOnly).unwrap().file;
    let full = serde_json::to_value(&full).unwrap();
    let mut compared = 0;
    let leaf = |key: &str| !keys.keys().any(|other| other.starts_with(&format!("{key}.")));
    for key in keys
        .keys()
        .filter(|key| leaf(key) && !examples.iter().any(|example| key.starts_with(example)))
    {
        let pointer = format!("/{}", key.replace('.', "/"));
        if let Some(shown) = full.pointer(&pointer) {
            assert_eq!(Some(shown), defaults.pointer(&pointer), "{key}: the example does not show the default");
            compared += 1;
        }
    }
    assert!(compared > 70, "only {compared} defaults compared");
    let mail = full["mail"].as_object().unwrap();
    assert_eq!(
        (mail["port"].as_u64(), mail["tls"].as_str(), mail["timeout"].as_str()),
        (Some(587), Some("starttls"), Some("1m"))
    );
    assert_eq!((mail["retry_after"].as_str(), mail["give_up_after"].as_str()), (Some("30s"), Some("5d")));
}

/// A list of the documentation names every method of a kind, with all of its keys that the example does not explain.
#[test]
fn every_method_stands_in_the_documentation_with_its_keys() {
    let page = include_str!("../../docs/configuration.md");
    let schema = schema();
    let shown = tree::parse(&uncommented()).unwrap().value;
    for section in ["unlearn", "detect"] {
        for option in check::resolve(&schema, &schema["properties"][section])["oneOf"].as_array().unwrap() {
            let name = option["properties"][METHOD]["const"].as_str().unwrap();
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("docs/configuration.md has no row for {section}.method {name}"));
            for key in option["properties"].as_object().unwrap().keys() {
                let explained = shown[section].get(key).is_some() || row.contains(&format!("`{key}`"));
                assert!(explained, "the row of {name} does not explain {key}: {row}");
            }
        }
    }
}

fn collect(root: &Value, schema: &Value, at: String, keys: &mut BTreeMap<String, ()>) {
    let schema = check::resolve(root, schema);
    for union in ["oneOf", "anyOf"] {
        for option in schema.get(union).and_then(Value::as_array).into_iter().flatten() {
            // Keys of a method that is not the usual one: see `every_method_stands_in_the_documentation_with_its_keys`.
            if option["required"].as_array().is_some_and(|keys| keys.contains(&METHOD.into())) {
                continue;
            }
            collect(root, option, at.clone(), keys);
        }
    }
    for (key, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        assert!(
            !check::description(root, inner).starts_with("see config") || ["kind"].contains(&key.as_str()),
            "{path} has no documentation"
        );
        keys.insert(path.clone(), ());
        collect(root, inner, path, keys);
    }
}

#[test]
fn three_mistakes_are_three_problems_with_lines() {
    let text = format!("{BASE}inbox:\n  setle: 2s\n  max_bytes: 64 megabytes\ndetect:\n  queries: 10\n  n_tol: 12\n");
    let found = problems(&text);
    let seen: Vec<_> = found.iter().map(|p| (p.line, p.column, p.key.as_str())).collect();
    assert_eq!(
        seen,
        [(5, 3, "inbox.setle"), (6, 14, "inbox.max_bytes"), (9, 10, "detect.n_tol")],
        "{found:#?}"
    );
    assert!(found[0].help.contains("did you mean \"settle\"?"), "{}", found[0].help);
    assert!(found[1].help.contains("64MiB"), "{}", found[1].help);
    let error = parse(&text, Path::new("t.yaml"), Path::new("/base"), Look::AtTextOnly)
        .unwrap_err()
        .to_string();
    for part in [
        "3 mistakes",
        "t.yaml:5:3: inbox.setle: unknown key",
        "t.yaml:6:14:",
        "t.yaml:9:10:",
        "     9 |   n_tol: 12",
    ] {
        assert!(error.contains(part), "{part} not in:\n{error}");
    }
}

#[test]
fn a_broken_required_key_does_not_hide_the_rules() {
    let text = "paths: {inbox: 5, state: state, candidates: state}\ndata: {train: {path: train}}\nmodel: {architecture: resnet81, checkpoint: m.safetensors}\nrecipe:\n  schedule: {kind: stepp}\n  epochs: 0\nhttp: {listen: here}\n";
    let keys: Vec<_> = problems(text).into_iter().map(|p| p.key).collect();
    for key in [
        "paths.inbox",
        "paths.candidates",
        "data",
        "model.architecture",
        "recipe.schedule.kind",
        "recipe.epochs",
        "http.listen",
    ] {
        assert!(keys.iter().any(|k| k == key), "{key} not in {keys:?}");
    }
}

/// Each line of text is one mistake in an otherwise good file; the answer must name the key and the remedy.
#[test]
fn single_mistakes() {
    for (text, key, says) in [
        ("mode: enforced", "mode", "did you mean \"enforce\""),
        ("instance: \"a b\"", "instance", "letters"),
        ("inbox: {check_prediction: yes please}", "inbox.check_prediction", "true or false"),
        (
            "data: {train: {path: a}, validation: {path: a}}",
            "data.validation.path",
            "training set itself",
        ),
        (
            "data: {train: {path: a}, validation: {path: b}, image: {std: [0.2, 0, 0.2]}}",
            "data.image.std[1]",
            "not above 0",
        ),
        (
            "data: {train: {path: a}, validation: {path: b}, image: {mean: [0.2, 0.1]}}",
            "data.image.mean",
            "3 (R, G, B)",
        ),
        (
            "data: {train: {path: a}, validation: {path: b}, image: {height: 2}}",
            "data.image.height",
            "4 to 1024",
        ),
        (
            "recipe: {epochs: 10, schedule: {kind: step, milestones: [5, 10], gamma: 0.1}}",
            "recipe.schedule.milestones[1]",
            "never comes",
        ),
        (
            "recipe: {schedule: {kind: step, milestones: [9, 5], gamma: 0.1}}",
            "recipe.schedule.milestones",
            "rising",
        ),
        (
            "recipe: {epochs: 10, schedule: {kind: step, milestones: [0.2, 2.5], gamma: 0.1}}",
            "recipe.schedule.milestones[1]",
            "neither a whole number",
        ),
        (
            "recipe: {epochs: 10, schedule: {kind: step, milestones: [0.5, 4], gamma: 0.1}}",
            "recipe.schedule.milestones",
            "rising",
        ),
        (
            "recipe: {schedule: {kind: one-cycle, warmup: 2}}",
            "recipe.schedule.warmup",
            "between 0 and 1",
        ),
        ("recipe: {schedule: {milestones: [1]}}", "recipe.schedule", "\"kind\" is missing"),
        ("recipe: {lr: 0}", "recipe.lr", "not above 0"),
        ("recipe: {epochs: 1.5}", "recipe.epochs", "whole number"),
        ("recipe: {epochs: 1, epochs: 2, schedule: {kind: cosine}}", "recipe.epochs", "twice"),
        (
            "unlearn: {method: cf, schedule: {kind: step, milestones: [8], gamma: 0.1}}",
            "unlearn.schedule.milestones[0]",
            "`epochs` is 8",
        ),
        ("unlearn: {also: [{method: cf, lr: 0}]}", "unlearn.also[0].lr", "leave it out for twice"),
        ("unlearn: {method: eu, also: [{method: eu}]}", "unlearn.also[0]", "written twice"),
        ("unlearn: {method: fc, epochs: 3}", "unlearn.method", "allowed: eu, cf"),
        (
            "unlearn: {also: [{method: cf, epochs: 3, layers: 2}]}",
            "unlearn.also[0].layers",
            "epochs",
        ),
        ("unlearn: {epochs: 3}", "unlearn.epochs", "keys allowed here: also, method"),
        // What was right in the first version.
        ("unlearn: {cf: {epochs: 40}}", "unlearn.cf", "method: cf"),
        ("unlearn: {method: cf, cf: {epochs: 40}}", "unlearn.cf", "beside the method's name"),
        ("gate: {max_accuracy_drop: 2}", "gate.max_accuracy_drop", "0 to 1"),
        ("worker: {threads: -1}", "worker.threads", "out of range"),
        ("worker: {nice: 20}", "worker.nice", "0 to 19"),
        ("worker: {time_limits: {fit: 6}}", "worker.time_limits.fit", "unit"),
        ("http: {listen: 127.0.0.1:99999}", "http.listen", "127.0.0.1:9464"),
        ("mail: {host: m, from: a@b.c, to: []}", "mail.to", "at least 1"),
        ("mail: {host: m, from: a@b.c}", "mail", "\"to\" is missing"),
        (
            "mail: {host: m, from: 'a@b.c\\r\\nBcc: x', to: [a@b.c]}",
            "mail.from",
            "not a mail address",
        ),
        ("mail: {host: m, from: a@b.c, to: [a@b.c, nobody]}", "mail.to[1]", "not a mail address"),
        ("mail: {host: m, port: 70000, from: a@b.c, to: [a@b.c]}", "mail.port", "1 to 65535"),
        ("mail: {host: m, from: a@b.c, to: [a@b.c], username: u}", "mail.username", "password_file"),
        (
            "mail: {host: m, from: a@b.c, to: [a@b.c], username: u, password_file: p, tls: none}",
            "mail.tls",
            "in clear",
        ),
        ("detect: {damping: {kind: absolute, value: 0}}", "detect.damping.value", "not above 0"),
        ("detect: {method: frequency}", "detect.weights", "is not set"),
        ("detect: {queries: 0}", "detect.queries", "1 to 1000"),
        ("detect: {method: guardian}", "detect.method", "allowed: guard, paper-code"),
        ("detect: {method: paper-code, n_tol: 50}", "detect.n_tol", "1 or 2 of 50"),
        ("detect: {method: paper-code, placebos: 3}", "detect.placebos", "keys allowed here"),
        // What was right in the first version.
        ("detect: {mode: paper-code}", "detect.mode", "it is called `method`"),
        ("[1, 2]", "", ""),
        ("x: [", "", "YAML"),
        ("inbox:\n\tsettle: 2s", "", "YAML"),
    ] {
        let top = text.split(':').next().unwrap_or_default();
        let rest: String = BASE
            .lines()
            .filter(|line| !line.starts_with(&format!("{top}:")))
            .map(|line| format!("{line}\n"))
            .collect();
        let found = problems(&format!("{rest}{text}\n"));
        let hit = found.iter().find(|p| p.key == key && format!("{} {}", p.what, p.help).contains(says));
        assert!(hit.is_some(), "{text}: no problem at {key:?} that says {says:?} in {found:#?}");
        if !key.is_empty() {
            assert_eq!(found.len(), 1, "{text}: {found:#?}");
            assert!(hit.unwrap().line >= rest.lines().count(), "{text}: wrong line in {found:#?}");
        }
    }
}

/// YAML 1.2 §5.2: a byte order mark is read as if it were not there. Places count from behind it.
#[test]
fn a_byte_order_mark_is_no_part_of_the_text() {
    let marked = |text: &str| format!("\u{feff}{text}");
    let with = parse(&marked(BASE), Path::new("t.yaml"), Path::new("/base"), Look::AtTextOnly).unwrap();
    let without = parse(BASE, Path::new("t.yaml"), Path::new("/base"), Look::AtTextOnly).unwrap();
    assert_eq!((with.file, with.digest), (without.file, without.digest));
    let found = problems(&marked(&format!("mode: enforced\n{BASE}")));
    assert_eq!(
        found.iter().map(|p| (p.line, p.column, p.key.as_str())).collect::<Vec<_>>(),
        [(1, 7, "mode")]
    );
    let folder = tempfile::tempdir().unwrap();
    for (bytes, says) in [
        (&b"\xff\xfem\0o\0"[..], "is UTF-16"),
        (b"mode: propose\nowner: M\xfcller\n", "line 2 holds the byte 0xfc"),
    ] {
        let path = folder.path().join("guard.yaml");
        std::fs::write(&path, bytes).unwrap();
        let said = load(&path, Look::AtFiles).unwrap_err().to_string();
        assert!(said.contains(says) && said.contains("save it again as UTF-8"), "{said}");
    }
}

/// What only a shell understands would become a folder of that name.
#[test]
fn a_home_or_a_variable_in_a_path_is_a_mistake_with_its_line() {
    for path in ["~/x", "~root/x", "~", "$HOME/x", "${HOME}/x", "/srv/$USER/x", "/srv/a-${B}"] {
        let text = format!(
            "paths:\n  inbox: \"{path}\"\n  state: s\n  candidates: c\ndata: {{train: {{path: t}}, validation: {{path: \"{path}\"}}}}\nmodel: {{architecture: \"{path}.json\", checkpoint: m}}\nmail: {{host: m, from: a@b.c, to: [a@b.c], username: u, password_file: \"{path}\"}}\nworker: {{command: \"{path}\"}}\n"
        );
        for look in [Look::AtTextOnly, Look::AtFiles] {
            let found = parse(&text, Path::new("t.yaml"), Path::new("/base"), look).unwrap_err().problems;
            let said: Vec<_> = found
                .iter()
                .filter(|p| p.what.contains("as a shell would"))
                .map(|p| (p.line, p.key.as_str()))
                .collect();
            let wanted = [
                (2, "paths.inbox"),
                (5, "data.validation.path"),
                (6, "model.architecture"),
                (7, "mail.password_file"),
                (8, "worker.command"),
            ];
            assert_eq!(said, wanted, "{path}: {found:#?}");
            assert!(
                wanted.iter().all(|(_, key)| found.iter().filter(|p| p.key == *key).count() == 1),
                "{path}: {found:#?}"
            );
        }
    }
    for path in ["./~x", "a~b", "/srv/x~", "100$", "/srv/a$1"] {
        assert_eq!(problems(&BASE.replace("inbox: in", &format!("inbox: '{path}'"))), [], "{path}");
    }
}

#[test]
fn a_password_in_clear_is_allowed_to_this_machine_only() {
    for host in ["localhost", "127.0.0.1", "::1"] {
        let text = format!("{BASE}mail: {{host: '{host}', from: a@b.c, to: [a@b.c], username: u, password_file: p, tls: none}}\n");
        assert_eq!(problems(&text), [], "{host}");
    }
}

#[test]
fn files_that_are_missing_are_reported_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guard.yaml");
    std::fs::write(&path, format!("{BASE}worker: {{command: no-such-worker}}\n")).unwrap();
    let keys: Vec<_> = load(&path, Look::AtFiles).unwrap_err().problems.into_iter().map(|p| p.key).collect();
    assert_eq!(keys, ["data.train.path", "data.validation.path", "model.checkpoint", "worker.command"]);
    for name in ["train", "val"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("m.safetensors"), b"x").unwrap();
    std::fs::write(&path, BASE).unwrap();
    let config = load(&path, Look::AtFiles).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.file.model.checkpoint.is_absolute() && config.digest.len() == 64);
    for (bytes, what, help) in [
        (
            b"version https://git-lfs.github.com/spec/v1\noid".as_slice(),
            "Git LFS pointer",
            "git lfs pull",
        ),
        (b"<!DOCTYPE html>", "HTML page", "download"),
        (b"PK\x03\x04....production/data.pkl", "PyTorch pickle", "torch.load(\"m.safetensors\""),
    ] {
        std::fs::write(folder.path().join("m.safetensors"), bytes).unwrap();
        let problems = load(&path, Look::AtFiles).unwrap_err().problems;
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].key, "model.checkpoint");
        let told = format!("{} {}", problems[0].what, problems[0].help);
        assert!(told.contains(what) && told.contains(help), "{told}");
    }
    std::fs::write(folder.path().join("m.safetensors"), b"x").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o646)).unwrap();
    assert!(load(&path, Look::AtFiles).unwrap_err().to_string().contains("everyone may write it"));
}

proptest::proptest! {
    /// No text makes the reader panic, and whatever it accepts it accepts again after writing it out.
    #[test]
    fn no_text_panics(text in "\\PC{0,200}", cut in 0usize..6000) {
        let _ = problems(&text);
        let cut = (0..=cut.min(EXAMPLE.len())).rev().find(|&at| EXAMPLE.is_char_boundary(at)).unwrap_or(0);
        let _ = problems(&EXAMPLE[..cut]);
        let _ = problems(&format!("{}{text}", &EXAMPLE[..cut]));
    }
}
