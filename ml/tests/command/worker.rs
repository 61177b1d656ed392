//! The same in the worker's process, which is told to stop, and killed.

use super::bench::Bench;
use delta_guard_contract::{Message, Outcome, PROTOCOL};
use delta_influence::model::Weights;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Wait for something that must come.
fn until<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within a minute");
        std::thread::yield_now();
    }
}

/// No such process is left, or only its number until somebody asks for its end.
pub fn gone(pid: &str) {
    until(&format!("the end of process {pid}"), || {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = state.rsplit(") ").next().and_then(|rest| rest.chars().next());
        (state.is_none() || state == Some('Z')).then_some(())
    });
}

/// A job that is done by the worker's own program.
pub struct Stage {
    pub bench: Bench,
    job: String,
    resume: PathBuf,
}

impl Stage {
    /// A script of the shell as the owner's trainer; its first argument is a checkpoint that will do.
    fn new(script: &str) -> Self {
        Self::of(|root| {
            let mut command = ["/bin/sh", "-euc", script, "x"].map(PathBuf::from).to_vec();
            command.push(root.join("good.safetensors"));
            command
        })
    }

    /// Any command, which may lay out a folder for itself before.
    pub fn of(command: impl FnOnce(&Path) -> Vec<PathBuf>) -> Self {
        let bench = Bench::new();
        let root = bench.folder.path().to_path_buf();
        for (name, seed) in [("production", 1), ("good", 9)] {
            Weights::init(&bench.graph(), seed)
                .unwrap()
                .save(&root.join(format!("{name}.safetensors")), &[])
                .unwrap();
        }
        let out = bench.out("job");
        let job = json!({
            "v": PROTOCOL, "out_dir": out,
            "setup": {"cache_dir": root.join("cache"), "factors_dir": root, "device": "cpu", "threads": 1, "memory_budget": 1 << 24},
            "task": {
                "task": "unlearn", "data": {"train": bench.source, "validation": bench.source, "image": bench.image}, "recipe": {},
                "model": {"architecture": "small-cnn", "width": 2, "checkpoint": root.join("production.safetensors")},
                "method": {"method": "command", "command": command(&root), "grace": "30s"},
                "flagged": [bench.data.ids()[7]],
            },
        });
        Self {
            job: job.to_string(),
            resume: out.join("command/resume"),
            bench,
        }
    }

    pub fn start(&self) -> Child {
        let mut worker = Command::new(env!("CARGO_BIN_EXE_delta-guard-worker"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        worker.stdin.take().unwrap().write_all(self.job.as_bytes()).unwrap();
        worker
    }

    pub fn has(&self, name: &str) -> String {
        let path = self.resume.join(name);
        until(name, || fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n')))
    }

    pub fn outcome(worker: Child) -> Outcome {
        let lines = BufReader::new(worker.stdout.unwrap()).lines();
        match serde_json::from_str(&lines.last().unwrap().unwrap()).unwrap() {
            Message::Outcome(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_stop_lets_it_save_its_work_and_the_next_attempt_goes_on() {
    let stage = Stage::new(
        "echo $DELTA_GUARD_ATTEMPT > \"$DELTA_GUARD_RESUME/attempt\"
         if [ -e \"$DELTA_GUARD_RESUME/state\" ]; then cp \"$1\" \"$DELTA_GUARD_OUTPUT\"; exit 0; fi
         trap 'seq 1 20000; echo saved > \"$DELTA_GUARD_RESUME/state\"; exit 0' TERM
         sleep 1000 & echo $! > \"$DELTA_GUARD_RESUME/child\"; wait",
    );
    let worker = stage.start();
    let child = stage.has("child");
    kill_process_group(Pid::from_child(&worker), Signal::TERM).unwrap();
    assert!(matches!(Stage::outcome(worker), Outcome::Failed { fault } if fault.message.contains("stopped")));
    assert_eq!((stage.has("state").as_str(), stage.has("attempt").as_str()), ("saved\n", "1\n"));
    gone(child.trim());
    let outcome = Stage::outcome(stage.start());
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert_eq!(stage.has("attempt"), "2\n");
    let made = Weights::load(
        &stage.bench.folder.path().join("job/model.safetensors"),
        &stage.bench.graph(),
        tch::Kind::Float,
    )
    .unwrap();
    let good = Weights::init(&stage.bench.graph(), 9).unwrap();
    assert!(made.0["fc.weight"].f_equal(&good.0["fc.weight"]).unwrap());
}

#[test]
fn nothing_of_it_survives_a_killed_worker() {
    // The trainer, a child of it that hears no SIGTERM, and a grandchild whose parent has ended.
    let stage = Stage::new(
        "echo $$ > \"$DELTA_GUARD_RESUME/own\"; trap '' TERM
         sh -c 'sleep 1000 & echo $! > \"$DELTA_GUARD_RESUME/grandchild\"'
         sleep 1000 & echo $! > \"$DELTA_GUARD_RESUME/child\"; wait",
    );
    let mut worker = stage.start();
    let all = ["own", "grandchild", "child"].map(|name| stage.has(name));
    assert!(all.iter().all(|pid| Path::new(&format!("/proc/{}", pid.trim())).exists()));
    kill_process(Pid::from_child(&worker), Signal::KILL).unwrap();
    worker.wait().unwrap();
    for pid in all {
        gone(pid.trim());
    }
}
