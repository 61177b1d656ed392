//! The demo when it is interrupted, and when what it started is killed. The worker computes nothing; processes and signals are real.

use super::daemon::{text, wait_for};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The programs in a folder of their own: the demo takes the worker that lies beside it.
struct Stage {
    root: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_delta-guard"), root.path().join("delta-guard")).unwrap();
        let stage = Self { root };
        stage.bring_worker();
        stage
    }

    fn bring_worker(&self) {
        let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fake_worker.py");
        std::fs::copy(fake, self.root.path().join("delta-guard-worker")).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(self.root.path().join("delta-guard-worker"), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn out(&self) -> PathBuf {
        self.root.path().join("out")
    }

    /// A shell line, in a process group of its own as a shell's foreground job is.
    fn begin(&self, line: &str, anomaly: &str, train: &str) -> Child {
        let path = format!("{}:{}", self.root.path().display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("exec {line}")])
            .env("PATH", path)
            .env("FAKE_ANOMALY", anomaly)
            .env_remove("DELTA_GUARD_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if !train.is_empty() {
            command.env("FAKE_TRAIN", train);
        }
        command.spawn().unwrap()
    }

    fn demo(&self, more: &str) -> String {
        format!("delta-guard demo --out {} {more}", self.out().display())
    }

    /// How often a job was run.
    fn runs(&self, job: &str) -> usize {
        let runs = std::fs::read_to_string(self.out().join("state/cache/runs")).unwrap_or_default();
        runs.lines().filter(|line| *line == job).count()
    }

    fn wait_for_run(&self, job: &str) {
        wait_for(job, || (self.runs(job) > 0).then_some(()));
    }

    fn let_go_on(&self) {
        std::fs::write(self.out().join("state/cache/go-on"), "").unwrap();
    }

    /// Ids of the running processes that belong to this demo. What has ended has no command line any more.
    fn processes(&self) -> Vec<i32> {
        let mark = self.root.path().to_str().unwrap().as_bytes().to_vec();
        let all = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let ours = |id: &i32| {
            let at = |file: &str| std::fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
            at("cmdline").windows(mark.len()).any(|part| part == mark)
        };
        all.filter(ours).collect()
    }

    fn daemon(&self) -> Pid {
        let is_daemon = |id: &i32| {
            let words = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).nth(1) == Some(b"run")
        };
        let id = wait_for("the daemon", || self.processes().into_iter().find(is_daemon));
        Pid::from_raw(id).unwrap()
    }

    fn nothing_runs(&self) {
        wait_for("the end of all that it started", || self.processes().is_empty().then_some(()));
    }
}

/// What is left of it when it has ended; only a hang lasts longer than `wait_for` does.
fn end_of(mut child: Child) -> Output {
    wait_for("the demo's end", || child.try_wait().unwrap());
    child.wait_with_output().unwrap()
}

fn interrupt(child: &Child) {
    kill_process_group(Pid::from_child(child), Signal::INT).unwrap();
}

/// The command that the demo says goes on.
fn advised(said: &str) -> String {
    let line = said
        .lines()
        .rfind(|line| line.contains("goes on from what is done"))
        .unwrap_or_else(|| panic!("{said}"));
    line.split('`').nth(1).unwrap().to_owned()
}

const PLAIN: &str = "label=dog\nflag=3\nafter=ship\n";
const HANGS: &str = "label=dog\nflag=3\nafter=ship\nhang=trace\n";

#[test]
fn ctrl_c_while_the_guard_works_ends_everything_and_the_same_command_goes_on() {
    let stage = Stage::new();
    let demo = stage.begin(&stage.demo("--seed 5"), HANGS, "");
    stage.wait_for_run("trace");
    interrupt(&demo);
    let ended = end_of(demo);
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("stopping …") && said.contains("error: interrupted"), "{said}");
    stage.nothing_runs();

    let again = advised(&said);
    assert!(again.contains("--seed 5") && again.contains("--out"), "{again}");
    stage.let_go_on();
    let ended = end_of(stage.begin(&again, HANGS, ""));
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    assert!(text(&ended.stdout).contains("proposed"), "{}", text(&ended.stdout));
    // What was done was not done again, and the picture was handed in once.
    assert_eq!((stage.runs("prepare"), stage.runs("train"), stage.runs("trace")), (1, 1, 2));
    stage.nothing_runs();

    // Once it is done, it says the same again.
    let once_more = end_of(stage.begin(&again, HANGS, ""));
    assert_eq!(once_more.status.code(), Some(0), "{}", text(&once_more.stderr));
    assert_eq!((stage.runs("train"), stage.runs("trace"), stage.runs("unlearn")), (1, 2, 1));
    let other = end_of(stage.begin(&stage.demo("--seed 6"), PLAIN, ""));
    assert_eq!(other.status.code(), Some(1));
    assert!(
        text(&other.stderr).contains("holds another story: name a new folder"),
        "{}",
        text(&other.stderr)
    );
}

#[test]
fn ctrl_c_while_a_job_works_ends_everything_and_the_same_command_goes_on() {
    let stage = Stage::new();
    let demo = stage.begin(&stage.demo(""), PLAIN, "hang=train");
    stage.wait_for_run("train");
    interrupt(&demo);
    let ended = end_of(demo);
    assert_eq!(ended.status.code(), Some(130), "{}", text(&ended.stderr));
    stage.nothing_runs();
    let ended = end_of(stage.begin(&advised(&text(&ended.stderr)), PLAIN, ""));
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    assert_eq!((stage.runs("prepare"), stage.runs("train")), (1, 2));
}

/// As when memory runs out.
#[test]
fn a_killed_daemon_is_seen_and_the_same_command_goes_on() {
    let stage = Stage::new();
    let demo = stage.begin(&stage.demo(""), HANGS, "");
    stage.wait_for_run("trace");
    kill_process(stage.daemon(), Signal::KILL).unwrap();
    let ended = end_of(demo);
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("the daemon was killed (signal 9)") && said.contains("memory"), "{said}");
    stage.nothing_runs();
    stage.let_go_on();
    let ended = end_of(stage.begin(&advised(&said), HANGS, ""));
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    assert_eq!((stage.runs("train"), stage.runs("trace")), (1, 2));
}

#[test]
fn a_killed_demo_leaves_nothing_running_and_nothing_in_the_way() {
    let stage = Stage::new();
    let demo = stage.begin(&stage.demo(""), HANGS, "");
    stage.wait_for_run("trace");
    kill_process(Pid::from_child(&demo), Signal::KILL).unwrap();
    end_of(demo);
    stage.nothing_runs();
    stage.let_go_on();
    let ended = end_of(stage.begin(&stage.demo(""), HANGS, ""));
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    assert_eq!(stage.runs("train"), 1);
}

#[test]
fn a_failed_start_is_not_in_the_way_of_the_next() {
    let stage = Stage::new();
    std::fs::remove_file(stage.root.path().join("delta-guard-worker")).unwrap();
    let failed = end_of(stage.begin(&stage.demo("--poisons 7"), PLAIN, ""));
    assert_eq!(failed.status.code(), Some(78), "{}", text(&failed.stderr));
    assert!(text(&failed.stderr).contains("could not be started"), "{}", text(&failed.stderr));
    stage.bring_worker();
    // A failed first job, and then another wish in the same folder.
    let failed = end_of(stage.begin(&stage.demo("--poisons 8"), "fault=prepare:configuration\n", ""));
    assert_eq!(failed.status.code(), Some(78), "{}", text(&failed.stderr));
    let ended = end_of(stage.begin(&stage.demo("--poisons 9"), PLAIN, ""));
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    // Somebody else's folder stays as it is.
    let photos = stage.root.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    std::fs::write(photos.join("a.png"), "x").unwrap();
    let refused = end_of(stage.begin(&format!("delta-guard demo --out {}", photos.display()), PLAIN, ""));
    assert_eq!(
        (refused.status.code(), std::fs::read_dir(&photos).unwrap().count()),
        (Some(1), 1),
        "{}",
        text(&refused.stderr)
    );
}
