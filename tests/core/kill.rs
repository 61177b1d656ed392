//! SIGKILL at every border of a case's course: the daemon, started again, ends with the same verdict and the same published bytes.

use crate::support::{Recorder, Running, drop_picture, only_case, run_to_end, settings, tree, wait_for};
use delta_guard::case::{Case, State};
use delta_guard::daemon;
use delta_guard::engine::Hooks;
use delta_guard::journal::Reader;
use delta_guard::policy::Mode;
use delta_guard::settings::Settings;
use delta_guard::stop;
use delta_guard::vfs::{Disk, Vfs};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// Names the folder that the process of [`daemon_process`] runs in.
const ROOT: &str = "DELTA_GUARD_TEST_ROOT";
const PICTURE: &str = "label=dog\n";
/// Of which six more stand out on the first candidate.
const GROWS: &str = "label=dog\nregrow=6\n";
/// Rounds of the regrowth check for [`daemon_process`].
const REGROWTH: &str = "DELTA_GUARD_TEST_REGROWTH";

/// Without the variable: a daemon starts, is ready, and stops. With it, this test *is* the daemon that the tests below kill.
#[test]
fn daemon_process() {
    let Some(root) = std::env::var_os(ROOT) else {
        let root = tempfile::tempdir().unwrap();
        let mut running = Running::start(&settings(root.path(), Mode::Propose));
        wait_for("readiness", || running.started.readiness.borrow_and_update().is_ready().then_some(()));
        running.stop().1.unwrap();
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (_stopper, stop) = stop::channel();
    let (sender, _receiver) = tokio::sync::oneshot::channel();
    let hooks: Arc<dyn Hooks> = Arc::new(Recorder::default());
    let regrowth = std::env::var(REGROWTH).unwrap().parse().unwrap();
    let daemon = runtime.spawn(daemon::run(grows(Path::new(&root), regrowth), hooks, stop, sender));
    runtime.block_on(daemon).unwrap().unwrap();
}

fn grows(root: &Path, regrowth: u32) -> Settings {
    let mut settings = settings(root, Mode::Enforce);
    settings.gate.regrowth = regrowth;
    // 36 of 3,000 are more than what the guard does by itself in these tests.
    settings.caps.max_case_share = 0.02;
    settings
}

struct Killed(Child);

impl Killed {
    fn start(root: &Path, epoch_seconds: f64) -> Self {
        Self::start_with(root, epoch_seconds, 0)
    }

    fn start_with(root: &Path, epoch_seconds: f64, regrowth: u32) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "kill::daemon_process", "--nocapture"])
            .env(ROOT, root)
            .env("FAKE_EPOCH_SECONDS", epoch_seconds.to_string())
            .env(REGROWTH, regrowth.to_string());
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Records of the journal so far, each as `kind` or `kind:stage`; read without a lock, while it grows.
fn kinds(settings: &Settings) -> Vec<String> {
    let mut kinds = Vec::new();
    let vfs: Arc<dyn Vfs> = Arc::new(Disk);
    Reader::new(vfs, &settings.journal_dir())
        .read(&mut |record, _| {
            kinds.push(match record.data["stage"].as_str() {
                Some(stage) => format!("{}:{stage}", record.kind),
                None => record.kind,
            });
            Ok(())
        })
        .unwrap();
    kinds
}

/// What must not depend on interruptions: the end, and every published byte except the journal number in the manifest.
fn outcome(case: &Case, settings: &Settings) -> (State, String, BTreeMap<String, Vec<u8>>) {
    let mut published = tree(&settings.candidates_dir);
    for (name, bytes) in &mut published {
        if name.ends_with("MANIFEST.json") {
            let mut manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            manifest.as_object_mut().unwrap().remove("journal_seq").unwrap();
            *bytes = serde_json::to_vec(&manifest).unwrap();
        }
    }
    published.extend(tree(&settings.inbox.refused_dir));
    published.insert("report".into(), std::fs::read(settings.case_dir(&case.id).join("report.html")).unwrap());
    (case.state, case.reason.clone(), published)
}

fn undisturbed() -> (State, String, BTreeMap<String, Vec<u8>>) {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Enforce);
    drop_picture(&settings, "x.png", PICTURE, None);
    let case = run_to_end(&settings);
    let outcome = outcome(&case, &settings);
    assert_eq!(outcome.0, State::Promoted);
    // model, removed ids, gate, manifest, link, report
    assert_eq!(outcome.2.len(), 6, "{:?}", outcome.2.keys());
    outcome
}

#[test]
fn killed_after_each_record_it_ends_the_same() {
    let golden = undisturbed();
    let borders = [
        "accepted",
        "stage-started:predict",
        "predicted",
        "stage-started:fit",
        "fitted",
        "stage-started:trace",
        "traced",
        "decided",
        "stage-started:unlearn",
        "unlearned",
        "stage-started:certify",
        "certified",
        "published",
        "approved",
        "promote-intent",
        "ended",
        "told",
    ];
    for border in borders {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(root.path(), Mode::Enforce);
        let daemon = Killed::start(root.path(), 0.0);
        drop_picture(&settings, "x.png", PICTURE, None);
        wait_for(border, || {
            settings
                .journal_dir()
                .exists()
                .then(|| kinds(&settings))
                .filter(|kinds| kinds.iter().any(|kind| kind == border))
        });
        daemon.kill();
        let case = run_to_end(&settings);
        assert_eq!(outcome(&case, &settings), golden, "killed after `{border}`");
        assert_eq!(
            kinds(&settings).iter().filter(|kind| *kind == "accepted" || *kind == "duplicate").count(),
            1,
            "killed after `{border}`"
        );
        assert!(tree(&settings.inbox.dir).is_empty(), "killed after `{border}`");
        let told = kinds(&settings).iter().filter(|kind| *kind == "told").count();
        assert_eq!(told, 1, "killed after `{border}`");
    }
}

/// Each life ends as soon as it has done something for the case, until one of them finds it finished.
fn killed_again_and_again(root: &Path, picture: &str, regrowth: u32) -> (Case, Settings, u32) {
    let settings = grows(root, regrowth);
    drop_picture(&settings, "x.png", picture, None);
    let mut kills = 0;
    while !only_case(&settings).is_some_and(|case| case.told) {
        let progress = |settings: &Settings| {
            kinds(settings)
                .into_iter()
                .filter(|kind| !["daemon-started", "segment"].contains(&kind.as_str()))
                .count()
        };
        let before = if settings.journal_dir().exists() { progress(&settings) } else { 0 };
        let daemon = Killed::start_with(root, 0.0, regrowth);
        wait_for("progress", || {
            settings
                .journal_dir()
                .exists()
                .then(|| progress(&settings))
                .filter(|now| *now >= before + 2 || only_case(&settings).is_some_and(|case| case.told))
        });
        daemon.kill();
        kills += 1;
    }
    (run_to_end(&settings), settings, kills)
}

#[test]
fn killed_again_and_again_it_still_ends_the_same() {
    let golden = undisturbed();
    let root = tempfile::tempdir().unwrap();
    let (case, settings, kills) = killed_again_and_again(root.path(), PICTURE, 0);
    assert!(kills >= 5, "only {kills} kills");
    assert_eq!(outcome(&case, &settings), golden);
}

/// Through two rounds: what grew back is removed, another candidate is made and traced.
#[test]
fn killed_while_it_grows_back_it_still_ends_the_same() {
    let quiet = tempfile::tempdir().unwrap();
    let settings = grows(quiet.path(), 1);
    drop_picture(&settings, "x.png", GROWS, None);
    let golden = outcome(&run_to_end(&settings), &settings);
    assert_eq!((golden.0, golden.2.len()), (State::Promoted, 6));
    let root = tempfile::tempdir().unwrap();
    let (case, settings, kills) = killed_again_and_again(root.path(), GROWS, 1);
    assert!(kills >= 8, "only {kills} kills");
    assert_eq!(outcome(&case, &settings), golden);
    assert_eq!(case.regrown.len(), 2);
}

/// Killed in the middle of a training, the worker goes with the daemon, and the next one goes on after the epochs that were done.
#[test]
fn a_killed_training_goes_on_from_its_last_epoch() {
    let golden = undisturbed();
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Enforce);
    drop_picture(&settings, "x.png", PICTURE, None);
    let daemon = Killed::start(root.path(), 1.5);
    let epoch = |n: u32| tree(&settings.cases_dir()).into_keys().any(|name| name.ends_with(&format!("epoch-{n}")));
    wait_for("the first epoch", || epoch(0).then_some(()));
    daemon.kill();
    let case = run_to_end(&settings);
    assert_eq!(outcome(&case, &settings), golden);
    assert!(case.unlearn().unwrap().resumed_epochs >= 1);
}
