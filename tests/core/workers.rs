//! Worker processes that end well, badly, late or not at all.

use crate::support::{script, wait_for};
use delta_guard::jobs::{Failure, Local, Runner};
use delta_guard::stop;
use delta_guard_contract::job::StoryConfig;
use delta_guard_contract::method::attack::Attack;
use delta_guard_contract::method::attack::badnet::{Keys, Trigger};
use delta_guard_contract::{Device, Fault, FaultKind, Job, JobResult, Message, PROTOCOL, Task, WorkerSetup};
use std::path::Path;
use std::time::Duration;

/// What the scripts here find, and how they say it. Every job's folder holds the file.
const RESULT: &str = r#"{"result":"graph","file":"g.json"}"#;
pub const DONE: &str =
    r#"{"type":"outcome","outcome":"done","file":"outcome.json","digest":"0448b46326d99d0dcdf939946c039f6f60a9b1ed4f3173f0252aece782bb0b5b"}"#;

fn job(folder: &Path, note: &str) -> Job {
    std::fs::write(folder.join("outcome.json"), RESULT).unwrap();
    let setup = WorkerSetup {
        cache_dir: "/c".into(),
        factors_dir: "/f".into(),
        device: Device::Cpu,
        threads: 1,
        memory_budget: 1,
        query_budget: 6 << 30,
        memory_limit: 0,
    };
    let attack = Attack::Badnet(Keys {
        victim_class: Some(note.into()),
        target_class: "1".into(),
        poisons: 1,
        trigger: Trigger::Checkerboard { size: 4, margin: 1 },
        ..Keys::default()
    });
    let story = StoryConfig {
        data: None,
        train_examples: 1,
        validation_examples: 1,
        attack,
        seed: 1,
    };
    Job {
        v: PROTOCOL,
        setup,
        out_dir: folder.into(),
        task: Task::Prepare { story, victim: None },
    }
}

/// Run a script as a worker. Returns how it ended and what it said.
fn run(lines: &str, limit: Duration) -> (Result<JobResult, Failure>, Vec<Message>) {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), lines);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (_stopper, stop) = stop::channel();
    let local = Local {
        program,
        grace: Duration::from_millis(200),
        nice: None,
    };
    let mut said = Vec::new();
    let ended = runtime.block_on(local.run(&job(dir.path(), "x"), limit, stop, &mut |message| said.push(message)));
    (ended, said)
}

/// How a script fails as a worker.
pub fn fault(lines: &str) -> Fault {
    match run(lines, Duration::from_secs(60)).0 {
        Err(Failure::Fault(fault)) => fault,
        other => panic!("{lines}: {other:?}"),
    }
}

#[test]
fn progress_then_the_outcome() {
    let (ended, said) = run(
        &format!(
            "cat > /dev/null\necho '{{\"type\":\"progress\",\"step\":\"a\",\"done\":1,\"total\":2}}'\necho '{{\"type\":\"log\",\"message\":\"hello\"}}'\necho '{DONE}'"
        ),
        Duration::from_secs(60),
    );
    assert_eq!(ended, Ok(JobResult::Graph { file: "g.json".into() }));
    assert!(
        matches!(&said[..], [Message::Progress(progress), Message::Log { message }] if progress.step == "a" && message == "hello"),
        "{said:?}"
    );
}

#[test]
fn a_worker_that_does_not_read_its_job_may_still_answer() {
    assert!(run(&format!("echo '{DONE}'"), Duration::from_secs(60)).0.is_ok());
}

#[test]
fn each_bad_end_is_a_fault_that_says_what_happened() {
    for (lines, kind, word) in [
        ("exit 0", FaultKind::Internal, "without an outcome"),
        ("echo oops >&2; exit 3", FaultKind::Internal, "oops"),
        ("kill -SEGV $$", FaultKind::Internal, "signal 11"),
        ("kill -KILL $$", FaultKind::Resource, "signal 9"),
        ("kill -BUS $$", FaultKind::Resource, "while it read a file"),
        (
            "echo \"$0: symbol lookup error: $0: undefined symbol: _ZN3c10\" >&2; exit 127",
            FaultKind::Configuration,
            "needs libtorch 2.11",
        ),
        (
            "echo 'memory allocation of 34359738368 bytes failed' >&2; kill -ABRT $$",
            FaultKind::Resource,
            "more memory than it may use",
        ),
        ("echo hello", FaultKind::Internal, "no message"),
        ("printf '{'", FaultKind::Internal, "not finished"),
        (&format!("echo '{DONE}'; exit 1"), FaultKind::Internal, "said that it is done"),
        (&format!("echo '{DONE}'; echo '{DONE}'"), FaultKind::Internal, "went on after its outcome"),
        (&format!("echo '{DONE}'; kill -SEGV $$"), FaultKind::Internal, "signal 11"),
        (
            r#"echo '{"type":"outcome","outcome":"failed","fault":{"kind":"configuration","code":"configuration","message":"no such layer","help":""}}'; exit 4"#,
            FaultKind::Configuration,
            "no such layer",
        ),
        ("head -c 40000000 /dev/zero | tr '\\0' x", FaultKind::Internal, "more than"),
        ("printf '\\377\\001\\033[31m\\n'", FaultKind::Internal, "\\u{1b}[31m"),
    ] {
        let Fault { kind: found, message, .. } = fault(lines);
        assert_eq!(found, kind, "{lines}: {message}");
        assert!(message.contains(word), "{lines}: {message}");
    }
}

#[test]
fn a_flood_on_standard_error_is_kept_to_its_end() {
    let Fault { message, .. } = fault("i=0; while [ $i -lt 3000 ]; do echo line-$i-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa >&2; i=$((i+1)); done; exit 1");
    assert!(message.contains("line-2999-") && !message.contains("line-100-"));
    assert!(message.len() < 80_000, "{}", message.len());
}

#[test]
fn a_worker_that_cannot_be_started() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_stopper, stop) = stop::channel();
    let local = Local {
        program: "/nonexistent/worker".into(),
        grace: Duration::ZERO,
        nice: None,
    };
    let dir = tempfile::tempdir().unwrap();
    match runtime.block_on(local.run(&job(dir.path(), "x"), Duration::from_secs(1), stop, &mut |_| {})) {
        Err(Failure::Fault(fault)) => assert!(fault.kind == FaultKind::Configuration && fault.help.contains("worker.command"), "{fault}"),
        other => panic!("{other:?}"),
    }
}

fn alive(pid: &str) -> bool {
    // A zombie that its new parent has not collected yet is not alive.
    std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

/// Late, stopped or done: nothing that the worker started is left.
#[test]
fn the_whole_group_ends() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let spawn = format!("trap '' TERM; sleep 300 & echo $! > {0}; echo $$ >> {0}", pids.display());
    let gone = || {
        let pids = std::fs::read_to_string(&pids).unwrap();
        assert_eq!(pids.lines().count(), 2);
        wait_for("the group gone", || (!pids.lines().any(alive)).then_some(()));
    };
    let (ended, _) = run(&format!("{spawn}; wait"), Duration::from_millis(500));
    assert!(
        matches!(&ended, Err(Failure::Fault(fault)) if fault.kind == FaultKind::Resource && fault.message.contains("time limit")),
        "{ended:?}"
    );
    gone();
    // Done, with a child that holds the pipes open.
    let (ended, _) = run(&format!("{spawn}; echo '{DONE}'"), Duration::from_secs(60));
    assert!(ended.is_ok(), "{ended:?}");
    gone();
    // Stopped.
    std::fs::remove_file(&pids).unwrap();
    let program = script(dir.path(), &format!("{spawn}; wait"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (stopper, stop) = stop::channel();
    let local = Local {
        program,
        grace: Duration::from_millis(100),
        nice: None,
    };
    let job = job(dir.path(), "x");
    let task = runtime.spawn(async move { local.run(&job, Duration::from_secs(60), stop, &mut |_| {}).await });
    wait_for("the worker", || {
        std::fs::read_to_string(&pids).ok().filter(|pids| pids.lines().count() == 2)
    });
    stopper.stop();
    assert_eq!(runtime.block_on(task).unwrap(), Err(Failure::Stopped));
    gone();
}

/// A job larger than a pipe's buffer, against a worker that talks before it listens.
#[test]
fn large_jobs_do_not_block() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(
        dir.path(),
        &format!(
            "i=0; while [ $i -lt 3000 ]; do echo '{{\"type\":\"progress\",\"step\":\"s\",\"done\":1,\"total\":2}}'; i=$((i+1)); done; n=$(wc -c); [ $n -gt 1000000 ] && echo '{DONE}'"
        ),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (_stopper, stop) = stop::channel();
    let local = Local {
        program,
        grace: Duration::from_millis(200),
        nice: None,
    };
    let ended = runtime.block_on(local.run(&job(dir.path(), &"n".repeat(1_100_000)), Duration::from_secs(60), stop, &mut |_| {}));
    assert!(ended.is_ok(), "{ended:?}");
}

/// Run a worker that writes down its niceness, from a thread of this niceness (on Linux it is each thread's own).
fn niceness(own: i32, nice: Option<i32>) -> i32 {
    let dir = tempfile::tempdir().unwrap();
    let written = dir.path().join("nice");
    let program = script(dir.path(), &format!("nice > {}; echo '{DONE}'", written.display()));
    let local = Local {
        program,
        grace: Duration::from_millis(200),
        nice,
    };
    let job = job(dir.path(), "x");
    let runner = std::thread::spawn(move || {
        rustix::process::setpriority_process(None, own).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_stopper, stop) = stop::channel();
        runtime.block_on(local.run(&job, Duration::from_secs(60), stop, &mut |_| {}))
    });
    assert!(runner.join().unwrap().is_ok());
    std::fs::read_to_string(written).unwrap().trim().parse().unwrap()
}

#[test]
fn a_worker_is_at_least_as_nice_as_configured() {
    let own = rustix::process::getpriority_process(None).unwrap();
    assert!(own <= 13, "these tests run at niceness {own}: there is no room above it");
    assert_eq!(niceness(own, Some(own + 5)), own + 5);
    assert_eq!(niceness(own, None), own, "not asked for");
    assert_eq!(niceness(own + 6, Some(own + 2)), own + 6, "already nicer: left alone");
    assert_eq!(niceness(own, Some(19)), 19);
}
