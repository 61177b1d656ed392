//! Dashboard and alert rules hold what the daemon exports, and a real Prometheus can use both.

use super::daemon::{Place, text, wait_for};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A file of the repository.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Every metric of a page, with each label's values.
fn exported(page: &str) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let mut metrics: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = match line.split_once('{') {
            Some((name, rest)) => (name, rest.rsplit_once('}').unwrap().0),
            None => (line.split(' ').next().unwrap(), ""),
        };
        let known = metrics.entry(name.to_owned()).or_default();
        for (label, value) in matchers(labels) {
            known.entry(label).or_default().insert(value);
        }
    }
    metrics
}

/// `a="b",c!="d"` as pairs; a pattern (`=~`) as the label alone, with an empty value.
fn matchers(text: &str) -> Vec<(String, String)> {
    text.split("\",")
        .filter(|part| !part.trim().is_empty())
        .map(|part| {
            let (label, value) = part.split_once('=').unwrap();
            let pattern = value.starts_with('~');
            let value = value.trim_start_matches('~').trim_matches('"');
            let label = label.trim().trim_end_matches('!').to_owned();
            (label, if pattern { String::new() } else { value.to_owned() })
        })
        .collect()
}

/// Metrics that a query names, with what it asks of their labels.
fn named(query: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found = Vec::new();
    let mut rest = query;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    while let Some(start) = ["delta_guard_", "process_"].iter().filter_map(|prefix| rest.find(prefix)).min() {
        rest = &rest[start..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let labels = after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
            .map_or("", |(inner, _)| inner);
        found.push((name.to_owned(), matchers(labels)));
        rest = after;
    }
    found
}

/// Every `expr` of the dashboard.
fn dashboard_queries() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_slice(&std::fs::read(file("config/grafana/dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// Every rule: name, expression, runbook.
fn rules() -> Vec<(String, String, String)> {
    let rules: serde_yaml::Value = serde_yaml::from_slice(&std::fs::read(file("config/prometheus/alerts.yml")).unwrap()).unwrap();
    let groups = rules["groups"].as_sequence().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_sequence().unwrap());
    let word = |value: &serde_yaml::Value| value.as_str().unwrap().to_owned();
    rules
        .map(|rule| (word(&rule["alert"]), word(&rule["expr"]), word(&rule["annotations"]["runbook"])))
        .collect()
}

/// A tool that may be missing: then a test of it says so and goes on.
fn tool(name: &str) -> Option<Command> {
    let found = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        eprintln!("SKIPPED: {name} is not installed (Debian's package prometheus has it)");
        return None;
    }
    Some(Command::new(name))
}

#[test]
fn every_query_names_what_is_exported() {
    let place = Place::new("");
    let daemon = place.start();
    let (_, page) = daemon.get("/metrics").unwrap();
    let exported = exported(&page);
    let queries = dashboard_queries();
    assert!(queries.len() >= 20, "{} queries", queries.len());
    let mut shown = BTreeSet::new();
    for query in queries.iter().chain(rules().iter().map(|(_, expr, _)| expr)) {
        let names = named(query);
        assert!(!names.is_empty() || query.contains("up{job"), "no metric in {query}");
        for (name, labels) in names {
            let known = exported.get(&name).unwrap_or_else(|| panic!("{name} is not exported: {query}"));
            for (label, value) in labels.iter().filter(|(label, _)| !["job", "instance"].contains(&label.as_str())) {
                let values = known.get(label).unwrap_or_else(|| panic!("{name} has no label {label}: {query}"));
                assert!(value.is_empty() || values.contains(value), "{name} has no {label}=\"{value}\": {query}");
            }
            shown.insert(name);
        }
    }
    // The other way round: what is exported is shown somewhere.
    let bare = |name: &str| {
        name.trim_end_matches("_bucket")
            .trim_end_matches("_sum")
            .trim_end_matches("_count")
            .to_owned()
    };
    let shown: BTreeSet<String> = shown.iter().map(|name| bare(name)).collect();
    for name in exported.keys().filter(|name| name.starts_with("delta_guard_")) {
        assert!(shown.contains(&bare(name)), "neither dashboard nor alerts use {name}");
    }
}

#[test]
fn a_query_of_what_is_not_there_is_noticed() {
    let exported = exported("delta_guard_a_total{why=\"x\"} 1\ndelta_guard_b 0\n");
    assert_eq!(
        named("rate(delta_guard_a_total{job=\"j\",why!=\"x\"}[1h]) > delta_guard_b"),
        [
            (
                "delta_guard_a_total".to_owned(),
                vec![("job".to_owned(), "j".to_owned()), ("why".to_owned(), "x".to_owned())]
            ),
            ("delta_guard_b".to_owned(), vec![]),
        ]
    );
    assert!(exported["delta_guard_a_total"]["why"].contains("x") && exported["delta_guard_b"].is_empty());
    assert!(!exported.contains_key("delta_guard_a"));
}

#[test]
fn each_alert_has_a_runbook_and_two_cases() {
    let runbooks = std::fs::read_to_string(file("docs/runbooks.md")).unwrap();
    let cases = std::fs::read_to_string(file("config/prometheus/alerts_test.yml")).unwrap();
    let rules = rules();
    assert!(rules.len() >= 10);
    for (name, _, runbook) in &rules {
        assert_eq!(runbook, &format!("docs/runbooks.md#{}", name.to_lowercase()));
        assert!(runbooks.lines().any(|line| line == format!("## {name}")), "no runbook for {name}");
        let of_it: Vec<&str> = cases
            .split("  - name: ")
            .filter(|case| case.contains(&format!("alertname=\"{name}\"")))
            .collect();
        for value in ["value: 1 }", "value: 0 }"] {
            assert!(of_it.iter().any(|case| case.contains(value)), "{name} has no case with {value}");
        }
    }
    let documented = runbooks.lines().filter_map(|line| line.strip_prefix("## "));
    for name in documented {
        assert!(rules.iter().any(|(alert, _, _)| alert == name), "the runbook of {name} has no alert");
    }
}

#[test]
fn promtool_agrees_with_the_rules_and_their_cases() {
    for arguments in [
        ["check", "rules", "config/prometheus/alerts.yml"],
        ["test", "rules", "config/prometheus/alerts_test.yml"],
    ] {
        let Some(mut promtool) = tool("promtool") else { return };
        let output = promtool.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    }
}

/// Ended with the test.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_prometheus_reads_the_daemon_and_evaluates_the_rules() {
    let Some(mut program) = tool("prometheus") else { return };
    let place = Place::new("");
    let daemon = place.start();
    place.drop_in(b"wrong.png", "label=dog\nverdict=undecided\n");
    daemon.wait_for_metric("delta_guard_cases_ended_total{end=\"undecided\"} 1");
    assert_eq!(place.json(&["cases"])[0]["abstained"], "no-group");
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n- job_name: delta-guard\n  static_configs: [{{targets: ['{}']}}]\n",
        file("config/prometheus/alerts.yml").display(),
        daemon.address
    );
    std::fs::write(place.at("prometheus.yml"), config).unwrap();
    let log = std::fs::File::create(place.at("prometheus.log")).unwrap();
    let child = program
        .arg(format!("--config.file={}", place.at("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", place.at("prometheus").display()))
        .arg(format!("--web.listen-address={free}"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let _prometheus = Prometheus(child);
    let ask = |path: &str| -> Option<serde_json::Value> {
        let (code, body) = super::daemon::get(&free.to_string(), path, "HTTP/1.0")?;
        (code == 200).then(|| serde_json::from_str(&body).ok()).flatten()
    };
    let value = |query: &str| -> Option<String> {
        let answer = ask(&format!("/api/v1/query?query={query}"))?;
        Some(answer["data"]["result"][0]["value"][1].as_str()?.to_owned())
    };
    let end = wait_for("the case in Prometheus", || {
        value("delta_guard_cases_ended_total%7Bend=%22undecided%22%7D")
    });
    assert_eq!(end, "1");
    assert_eq!(value("up").as_deref(), Some("1"));
    let rules = wait_for("evaluated rules", || {
        let answer = ask("/api/v1/rules")?;
        let rules = answer["data"]["groups"][0]["rules"].as_array()?.clone();
        rules.iter().all(|rule| rule["health"] == "ok").then_some(rules)
    });
    assert!(rules.len() >= 10);
    let firing: Vec<&serde_json::Value> = rules.iter().filter(|rule| rule["state"] == "firing").map(|rule| &rule["name"]).collect();
    assert!(firing.is_empty(), "a guard that is well: {firing:?}");
}
