//! `evaluate` of a grid: victims that fail or do not take, rows that are there, tables. The worker computes nothing.

use super::daemon::text;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const GRID: &str = "\
grid:
  name: a <small> grid
  data: { drawn: { train_examples: 1000, validation_examples: 90 } }
  networks: { net: { model: { architecture: small-cnn, width: 8 }, recipe: { epochs: 2 } } }
  attacks: { board: { method: badnet, victim_class: ship, target_class: dog, poisons: 40, trigger: { kind: checkerboard, size: 4, margin: 1 } } }
  detectors: { guard: { method: guard }, published: { method: paper-code } }
  unlearners: { again: { method: eu }, tuned: { method: cf } }
  runs:
    - data: [drawn]
      networks: [net]
      attacks: [board]
      doses: [0.04]
      seeds: [11, 13, SEED]
      detectors: [guard, published]
      anomalies: [1, 5]
      repairs: [{ unlearners: [again, tuned], flagged_by: [guard], missed_by: [guard, published], known: [0.1] }]
      clean: true
      controls: { detectors: [guard], natural_errors: 12 }
";

struct Bench {
    root: tempfile::TempDir,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::copy(env!("CARGO_BIN_EXE_delta-guard"), at("delta-guard")).unwrap();
        let worker = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fake_worker.py");
        std::fs::copy(worker, at("delta-guard-worker")).unwrap();
        std::fs::set_permissions(at("delta-guard-worker"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(at("grid.yaml"), GRID.replace("SEED", &seed.to_string())).unwrap();
        Self { root }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn evaluate(&self, more: &[&str]) -> Output {
        let mut command = Command::new(self.at("delta-guard"));
        command
            .current_dir(self.root.path())
            .args(["evaluate", "grid.yaml", "--out", "out", "--rows", "kept/rows.jsonl", "--quiet"])
            .args(more);
        loop {
            match command.output() {
                // A child of another test, not yet at its own program, still holds the copy open for writing.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::sleep(std::time::Duration::from_millis(20)),
                done => return done.unwrap(),
            }
        }
    }

    fn rows(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.at("kept/rows.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn victims(&self) -> Vec<PathBuf> {
        let Ok(folder) = std::fs::read_dir(self.at("out/victims")) else {
            return Vec::new();
        };
        folder.map(|entry| entry.unwrap().path()).collect()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }
}

fn of<'a>(rows: &'a [Value], kind: &'a str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row["row"] == kind).collect()
}

#[test]
fn rows_are_made_once_and_a_victim_that_did_not_take_is_one() {
    let bench = Bench::new(12);
    let output = bench.evaluate(&[]);
    let (told, noted) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "{told}{noted}");
    let rows = bench.rows();
    // Three seeds; of the two victims that took: 2 detectors × 2 numbers, 2 unlearners × 4 sets, 1 control, 1 network that was never attacked.
    assert_eq!(
        [
            of(&rows, "victim").len(),
            of(&rows, "detection").len(),
            of(&rows, "repair").len(),
            of(&rows, "control").len()
        ],
        [3, 8, 18, 2]
    );
    assert!(of(&rows, "victim").iter().all(|row| (row["took"] == true) == (row["seed"] != 13)));
    assert!(rows.iter().all(|row| row["row"] == "victim" || row["seed"] != 13));
    for row in of(&rows, "detection") {
        // The guard flags 20 of the 40 poisons, the published rule 80 with all 40. There are three pictures to hand in.
        let expected = if row["detector"] == "guard" { [20, 20] } else { [80, 40] };
        assert_eq!([&row["flagged"], &row["hits"]], expected);
        let three = std::cmp::min(row["asked"].as_u64().unwrap(), 3);
        assert_eq!(row["anomalies"], three);
        assert_eq!((&row["poisons"], &row["clean"]), (&Value::from(40), &Value::from(2960)));
    }
    let (clean, repairs): (Vec<&Value>, Vec<&Value>) = of(&rows, "repair").into_iter().partition(|row| row["forgotten"] == "never attacked");
    // Trained by a job of its own, and measured on this attack.
    assert!(
        clean
            .iter()
            .all(|row| row["removed"] == 0 && row["seconds"] == 1.0 && row["device"] == "cpu" && row["success"] == 0.9)
    );
    for row in repairs {
        let expected = match row["forgotten"].as_str().unwrap() {
            "flagged by guard" => [20, 20],
            "missed by guard" => [20, 20],
            "missed by published" => [0, 0],
            "10 % of the poisons" => [4, 4],
            other => panic!("{other}"),
        };
        assert_eq!([&row["removed"], &row["hits"]], expected, "{row}");
        // A third of what was made of ships is read as ship; where nothing was forgotten, nothing was computed.
        assert!((row["robust"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(row["seconds"].as_f64().unwrap() == 0.0, expected == [0, 0]);
        // Each candidate is measured, and production where nothing was forgotten.
        let tuned = row["unlearner"] == "tuned" && expected != [0, 0];
        assert_eq!(row["accuracy"], if tuned { 0.8 } else { 0.9 }, "{row}");
    }
    assert_eq!(bench.victims(), Vec::<PathBuf>::new(), "what is finished is not kept");
    let tables = bench.file("out/tables.md");
    assert!(tables.contains("| drawn | net | board | 4 % | 2 of 3 |"), "{tables}");
    assert!(
        told.contains("Detectors") && told.contains("False verdicts") && !told.contains("Seed by seed"),
        "{told}"
    );
    let page = bench.file("out/page.html");
    assert!(page.contains("a &lt;small&gt; grid") && !page.contains("<small> grid") && !page.contains("<script"));
    let csv = bench.file("out/rows.csv");
    assert_eq!(csv.lines().count(), 1 + rows.len());

    // Nothing is made again, wherever it was made; the tables are the same.
    let before = bench.file("kept/rows.jsonl");
    std::fs::remove_dir_all(bench.at("out")).unwrap();
    let again = bench.evaluate(&[]);
    assert_eq!(text(&again.stdout), told);
    assert_eq!((bench.file("kept/rows.jsonl"), bench.file("out/tables.md")), (before, tables));
    assert!(bench.victims().is_empty(), "no victim was begun");
    // A line that is lost is made again, and only that: of its victim nothing else is asked.
    let lost: Vec<String> = bench
        .file("kept/rows.jsonl")
        .lines()
        .filter(|line| !line.contains("\"control\"") || !line.contains("\"seed\":11"))
        .map(String::from)
        .collect();
    std::fs::write(bench.at("kept/rows.jsonl"), lost.join("\n") + "\n").unwrap();
    bench.evaluate(&[]);
    assert_eq!(bench.rows().len(), rows.len());
    let last: Vec<Value> = bench.rows().split_off(rows.len() - 1);
    assert!(last.iter().all(|row| row["row"] == "control" && row["seed"] == 11), "{last:?}");
}

#[test]
fn a_victim_that_fails_is_tried_again_and_the_rest_goes_on() {
    let bench = Bench::new(66);
    let output = bench.evaluate(&["--keep"]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("seed 66 failed and is tried again when the command is repeated: there is no memory left"),
        "{told}"
    );
    assert!(bench.rows().iter().all(|row| row["seed"] != 66) && of(&bench.rows(), "victim").len() == 2);
    assert_eq!(bench.victims().len(), 3, "--keep keeps");
    // Of the two that were trained one took: beside it lies what was never attacked.
    let attack =
        |file: PathBuf| -> Option<Value> { Some(serde_json::from_slice::<Value>(&std::fs::read(file).ok()?).unwrap()["attack"]["method"].clone()) };
    let clean: Vec<Value> = bench
        .victims()
        .iter()
        .filter_map(|victim| attack(victim.join("clean/data/story.json")))
        .collect();
    assert_eq!(clean, ["none"]);
    for victim in bench.victims() {
        std::fs::write(victim.join("mended"), "").unwrap();
    }
    assert_eq!(bench.evaluate(&[]).status.code(), Some(3));
    assert_eq!(of(&bench.rows(), "victim").len(), 3);
}

#[test]
fn only_the_tables_of_what_is_there() {
    let bench = Bench::new(12);
    let output = bench.evaluate(&["--seeds", "11"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let rows = bench.rows();
    assert!(of(&rows, "victim").len() == 1 && rows.iter().all(|row| row["seed"] == 11));
    let output = bench.evaluate(&["--tables"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(bench.rows(), rows, "nothing was made");
    assert!(bench.file("out/tables.md").contains("| 1 of 1 |"));
    // A file that is written to by one evaluation is not written to by another.
    let held = std::fs::File::open(bench.at("kept/rows.jsonl")).unwrap();
    held.lock().unwrap();
    let refused = bench.evaluate(&[]);
    assert!(refused.status.code() == Some(1) && text(&refused.stderr).contains("another evaluation"));
}

/// What the worker may use is the grid's to say; its rows are the same rows.
#[test]
fn a_grid_names_its_worker() {
    let bench = Bench::new(12);
    assert_eq!(bench.evaluate(&["--seeds", "11"]).status.code(), Some(0));
    let (rows, other) = (bench.rows(), bench.at("another-worker"));
    std::fs::rename(bench.at("delta-guard-worker"), &other).unwrap();
    std::fs::remove_dir_all(bench.at("out")).unwrap();
    std::fs::remove_file(bench.at("kept/rows.jsonl")).unwrap();
    assert_eq!(bench.evaluate(&["--seeds", "11"]).status.code(), Some(1), "there is no worker");
    let worker = format!("  worker: {{ command: {}, memory_budget: 2 GiB }}\n", other.display());
    std::fs::write(bench.at("grid.yaml"), GRID.replace("SEED", "12") + &worker).unwrap();
    let output = bench.evaluate(&["--seeds", "11"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let keys = |rows: &[Value]| rows.iter().map(|row| row["key"].clone()).collect::<Vec<_>>();
    assert_eq!(keys(&bench.rows()), keys(&rows));
    let trained = of(&rows, "victim");
    assert!(trained.len() == 1 && trained[0]["device"] == "cpu", "{trained:?}");
}

#[test]
fn what_a_grid_does_not_take_is_said() {
    let bench = Bench::new(12);
    for (more, says) in [
        (&["--seeds", "5"][..], "has no run with these seeds"),
        (&["--poisons", "5"], "only --data and --seeds can be changed here"),
    ] {
        let refused = bench.evaluate(more);
        let said = text(&refused.stderr);
        assert!(refused.status.code() == Some(2) && said.contains(says), "{said}");
    }
    std::fs::write(bench.at("grid.yaml"), GRID.replace("SEED", "12").replace("[board]", "[bored]")).unwrap();
    let said = text(&bench.evaluate(&[]).stderr);
    assert!(
        said.contains("grid.yaml") && said.contains("grid.runs.0.attacks: there is no `bored`"),
        "{said}"
    );
    std::fs::write(bench.at("grid.yaml"), "story: {train_examples: 1}").unwrap();
    let said = text(&bench.evaluate(&[]).stderr);
    assert!(said.contains("--rows, --tables and --keep are for grids"), "{said}");
}
