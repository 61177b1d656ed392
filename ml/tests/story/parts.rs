//! Sums in parts by separate worker processes: however many parts, in whatever order, the factors and scores are those of one process.

use super::scene::{LIMITS, SCENE, Scene, anomaly, detect, with};
use delta_guard_contract::detect::{DetectConfig, Shared};
use delta_guard_contract::finding::Cell;
use delta_guard_contract::job::{FoldSum, FoldTask, PartResult};
use delta_guard_contract::{Device, Fault, Job, JobResult, Message, Outcome, PROTOCOL, Seed, Task, TraceReport, WorkerSetup};
use delta_influence::files::tensors::read_tensors;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tch::Kind;

/// A place of its own for factors and jobs.
struct Bench<'a> {
    scene: &'a Scene,
    folder: PathBuf,
    /// Batches of eight examples: enough of them for seven parts.
    memory_budget: u64,
    detect: DetectConfig,
}

impl<'a> Bench<'a> {
    fn new(name: &str) -> Self {
        let scene: &'a Scene = &SCENE;
        Self {
            scene,
            folder: scene.folder.join("parts").join(name),
            memory_budget: 16 * 4 * 8 * scene.graph().activation_size() as u64,
            detect: detect(),
        }
    }

    fn start(&self, name: &str, task: Task) -> Child {
        let job = Job {
            v: PROTOCOL,
            setup: WorkerSetup {
                cache_dir: self.scene.folder.join("cache"),
                factors_dir: self.folder.join("factors"),
                device: Device::Auto,
                threads: 1,
                memory_budget: self.memory_budget,
                query_budget: 6 << 30,
                memory_limit: 0,
            },
            out_dir: self.folder.join(name),
            task,
        };
        let mut worker = Command::new(env!("CARGO_BIN_EXE_delta-guard-worker"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        worker.stdin.take().unwrap().write_all(&serde_json::to_vec(&job).unwrap()).unwrap();
        worker
    }

    fn ended(&self, name: &str, worker: Child) -> Result<JobResult, Fault> {
        let said = worker.wait_with_output().unwrap().stdout;
        let last = said.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap();
        match serde_json::from_slice(last).unwrap() {
            Message::Outcome(Outcome::Done { file, digest }) => {
                let result = bytes(&self.folder.join(name).join(file));
                assert_eq!(digest.0, blake3::hash(&result).to_hex().as_str());
                Ok(serde_json::from_slice(&result).unwrap())
            }
            Message::Outcome(Outcome::Failed { fault }) => Err(fault),
            other => panic!("{other:?} is no end"),
        }
    }

    fn run(&self, name: &str, task: Task) -> Result<JobResult, Fault> {
        self.ended(name, self.start(name, task))
    }

    fn part(&self, fold: &FoldTask, part: u32, parts: u32) -> Task {
        Task::FoldPart {
            sum: self.sum_of(fold),
            part,
            parts,
        }
    }

    fn sum_of(&self, fold: &FoldTask) -> FoldSum {
        FoldSum {
            data: self.scene.data(),
            model: self.scene.model(),
            detect: self.detect.clone(),
            factors_seed: Seed(78),
            fold: fold.clone(),
        }
    }

    /// Computes the parts in the given order, two processes at a time, and returns their files in the parts' order.
    fn parts(&self, fold: &FoldTask, order: &[u32]) -> Vec<PathBuf> {
        let mut files = vec![PathBuf::new(); order.len()];
        for pair in order.chunks(2) {
            let started = pair.iter().map(|&part| {
                let name = format!("{}-{part}", kind(fold));
                let worker = self.start(&name, self.part(fold, part, order.len() as u32));
                (part, name, worker)
            });
            for (part, name, worker) in started.collect::<Vec<_>>() {
                files[part as usize] = file(self.ended(&name, worker)).file;
            }
        }
        files
    }

    fn merge(&self, fold: &FoldTask, files: Vec<PathBuf>) -> Result<JobResult, Fault> {
        let task = Task::FoldMerge {
            sum: self.sum_of(fold),
            parts: files,
        };
        self.run(&format!("{}-merge", kind(fold)), task)
    }

    /// Parts and their merge.
    fn sum(&self, fold: &FoldTask, order: &[u32]) -> PartResult {
        file(self.merge(fold, self.parts(fold, order)))
    }

    fn trace(&self, name: &str, scores: Option<PathBuf>) -> Result<TraceReport, Fault> {
        let task = Task::Trace {
            data: self.scene.data(),
            model: self.scene.model(),
            detect: self.detect.clone(),
            anomalies: vec![anomaly(self.scene.anomaly(0), None)],
            limits: LIMITS,
            case_seed: Seed(77),
            factors_seed: Seed(78),
            scores,
        };
        match self.run(name, task)? {
            JobResult::Trace(report) => Ok(*report),
            other => panic!("{other:?}"),
        }
    }

    fn scores(&self) -> FoldTask {
        FoldTask::Scores {
            anomalies: vec![anomaly(self.scene.anomaly(0), None)],
            limits: LIMITS,
            case_seed: Seed(77),
        }
    }
}

fn kind(fold: &FoldTask) -> &'static str {
    match fold {
        FoldTask::Covariance => "covariance",
        FoldTask::Lambda => "lambda",
        FoldTask::Scores { .. } => "scores",
    }
}

fn file(ended: Result<JobResult, Fault>) -> PartResult {
    match ended.unwrap() {
        JobResult::Part(result) => result,
        other => panic!("{other:?}"),
    }
}

/// What does not depend on the run itself.
fn figures(report: &TraceReport) -> TraceReport {
    let mut report = report.clone();
    (report.seconds, report.peak_memory) = (Default::default(), 0);
    report.factors.as_mut().unwrap().reused = true;
    report
}

/// Figures to rounding: ids and verdict exactly.
fn close(found: &TraceReport, expected: &TraceReport) {
    assert_eq!(found.verdict, expected.verdict);
    let ids = |report: &TraceReport| report.flagged.iter().map(|f| f.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(found), ids(expected));
    for (f, e) in found.flagged.iter().zip(&expected.flagged) {
        assert!((f.score - e.score).abs() < 1e-8, "{}: {} {}", f.id, f.score, e.score);
    }
    let rows = |report: &TraceReport| report.table().map_or_else(Vec::new, |table| table.rows.clone());
    for (f, e) in rows(found).iter().zip(&rows(expected)) {
        for (f, e) in f.iter().zip(e) {
            match (f, e) {
                (Cell::Number(f), Cell::Number(e)) => assert!((f - e).abs() < 1e-8 * e.abs().max(1.0), "{f} {e}"),
                _ => assert_eq!(f, e),
            }
        }
    }
    assert_eq!(rows(found).len(), rows(expected).len());
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn factors_and_scores_in_parts_are_those_of_one_process() {
    let whole = Bench::new("whole");
    let expected = whole.trace("trace", None).unwrap();
    assert!(expected.flagged.len() > 5, "the story must be one in which something is found");
    let factors = whole
        .folder
        .join("factors")
        .join(format!("{}.safetensors", expected.factors.as_ref().unwrap().key.0));
    let mut merged_scores: Option<Vec<u8>> = None;
    for (name, order) in [
        ("one", vec![0]),
        ("three", vec![2, 0, 1]),
        ("three-again", vec![1, 2, 0]),
        ("seven", vec![6, 5, 0, 3, 1, 4, 2]),
    ] {
        let bench = Bench::new(name);
        let covariance = bench.sum(&FoldTask::Covariance, &order);
        assert_eq!(covariance.examples, 150);
        let lambda = bench.sum(&FoldTask::Lambda, &order);
        assert!(!covariance.file.exists(), "{name}: the eigenbasis is in the factor file now");
        let made = bytes(&lambda.file);
        if order.len() == 1 {
            assert!(made == bytes(&factors), "one part is the whole, to the bit");
        }
        if name == "three-again" {
            let before = Bench::new("three").folder.join("factors").join(lambda.file.file_name().unwrap());
            assert!(made == bytes(&before), "the order in which parts are computed changes no bit");
        }
        let report = bench.trace("trace", None).unwrap();
        assert!(report.factors.as_ref().unwrap().reused, "{name}: the merged factors are found");
        close(&report, &expected);

        // Scores under the whole's factors: each batch is the same, so that no bit differs, however many parts there are.
        let scores = whole.sum(&whole.scores(), &order);
        let content = bytes(&scores.file);
        let rows = read_tensors(&content).unwrap();
        assert_eq!(
            (rows["scores"].kind(), rows["scores"].size()[1]),
            (Kind::Double, rows["self_influence"].size()[0])
        );
        assert!(merged_scores.get_or_insert_with(|| content.clone()) == &content, "{name}: other scores");
        let report = whole.trace("trace-of-parts", Some(scores.file)).unwrap();
        assert!(!report.seconds.contains_key("score"), "{name}: nothing is scored again");
        assert_eq!(figures(&report), figures(&expected), "{name}");
    }
}

#[test]
fn a_killed_part_is_run_again() {
    let bench = Bench::new("killed");
    let order = [0, 1, 2];
    let expected = file(bench.run("apart", bench.part(&FoldTask::Covariance, 1, 3)));
    let mut killed = bench.start("covariance-1", bench.part(&FoldTask::Covariance, 1, 3));
    killed.kill().unwrap();
    killed.wait().unwrap();
    let files = bench.parts(&FoldTask::Covariance, &order);
    assert!(bytes(&files[1]) == bytes(&expected.file));
    assert!(bench.merge(&FoldTask::Covariance, files).is_ok());
}

#[test]
fn parts_of_another_plan_are_refused() {
    let bench = Bench::new("refused");
    let refused = |ended: Result<JobResult, Fault>, words: &[&str]| {
        let fault = ended.unwrap_err();
        for word in words {
            assert!(fault.to_string().contains(word), "{word}: {fault}");
        }
    };
    let files = bench.parts(&FoldTask::Covariance, &[0, 1, 2]);
    let swapped = vec![files[1].clone(), files[0].clone(), files[2].clone()];
    refused(bench.merge(&FoldTask::Covariance, swapped), &["part 0 of 3", "1 of 3"]);
    refused(bench.merge(&FoldTask::Covariance, files[..2].to_vec()), &["part 0 of 2", "plan"]);
    let mut missing = files.clone();
    missing[2] = bench.folder.join("nowhere.safetensors");
    refused(bench.merge(&FoldTask::Covariance, missing), &["part 2 of 3", "nowhere.safetensors"]);
    refused(bench.merge(&FoldTask::Covariance, Vec::new()), &["0 parts"]);
    refused(bench.run("none", bench.part(&FoldTask::Covariance, 3, 3)), &["part 3 of 3 parts"]);
    // Another seed, another precision, another memory for batches.
    let seed = Bench {
        detect: DetectConfig {
            common: Shared {
                seed: Some(12),
                ..Shared::default()
            },
            ..detect()
        },
        ..Bench::new("seed")
    };
    let memory = Bench {
        memory_budget: bench.memory_budget * 2,
        ..Bench::new("memory")
    };
    for other in [seed, memory] {
        let foreign = other.parts(&FoldTask::Covariance, &[0, 1, 2]);
        refused(
            bench.merge(&FoldTask::Covariance, vec![files[0].clone(), foreign[1].clone(), files[2].clone()]),
            &["part 1 of 3", "plan"],
        );
    }
    // A damaged file.
    let mut damaged = bytes(&files[1]);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    std::fs::write(&files[1], damaged).unwrap();
    refused(bench.merge(&FoldTask::Covariance, files.clone()), &["part 1 of 3", "damaged"]);
    // Λ without an eigenbasis, scores without factors.
    refused(
        bench.run("early", bench.part(&FoldTask::Lambda, 0, 3)),
        &["eigenbasis", "put the parts of the covariance together first"],
    );
    refused(bench.run("early", bench.part(&bench.scores(), 0, 3)), &["no factors", "fit them first"]);
    // Scores of another case.
    let whole = Bench::new("whole-of-refused");
    whole.trace("trace", None).unwrap();
    let scores = whole.sum(&whole.scores(), &[0]);
    let other = Bench {
        detect: with(detect(), "queries", 9.into()),
        ..Bench::new("whole-of-refused")
    };
    let fault = other.trace("foreign", Some(scores.file)).unwrap_err();
    assert!(
        fault.to_string().contains("scores of parts") && fault.to_string().contains("plan"),
        "{fault}"
    );
}
