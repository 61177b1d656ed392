//! A place to run in, and things to wait for.

use delta_guard::case::Case;
use delta_guard::config::file::Mail;
use delta_guard::daemon::{self, Started};
use delta_guard::engine::asked::{self, Ask, Request};
use delta_guard::engine::{CaseView, Happening, Hooks, Message, Notice, query};
use delta_guard::journal::Reader;
use delta_guard::policy::{Caps, GateLimits, Mode};
use delta_guard::settings::{InboxSettings, Settings, StageLimits, WorkerSettings};
use delta_guard::stop;
use delta_guard::vfs::Disk;
use delta_guard_contract::job::ImageLimits;
use delta_guard_contract::method::unlearn::Unlearning;
use delta_guard_contract::{DataConfig, DataSource, DetectConfig, Device, ModelConfig, Recipe, Stem, WorkerSetup};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Settings for everything below `root`, with the fake worker. Makes what must exist.
pub fn settings(root: &Path, mode: Mode) -> Settings {
    let source = |name: &str| DataSource {
        path: root.join(name),
        format: Default::default(),
        split: Default::default(),
        source: None,
    };
    let cache_dir = root.join("cache");
    std::fs::create_dir_all(&cache_dir).unwrap();
    let checkpoint = root.join("production.safetensors");
    if !checkpoint.exists() {
        std::fs::write(&checkpoint, b"production weights").unwrap();
    }
    Settings {
        unproved: false,
        instance: "test".into(),
        group: None,
        public_url: None,
        owner: String::new(),
        mode,
        inbox: InboxSettings {
            dir: root.join("inbox"),
            refused_dir: root.join("refused"),
            settle: Duration::from_millis(20),
            scan_interval: Duration::from_millis(200),
            sidecar_wait: Duration::from_secs(600),
            stall: Duration::from_secs(30),
            limits: ImageLimits {
                max_bytes: 10_000,
                max_pixels: 1_000_000,
            },
        },
        config: None,
        state_dir: root.join("state"),
        candidates_dir: root.join("candidates"),
        check_prediction: true,
        data: DataConfig {
            train: source("train"),
            validation: source("validation"),
            image: Default::default(),
            classes: None,
            max_unreadable_share: 0.0,
        },
        model: ModelConfig {
            architecture: "small-cnn".into(),
            width: 16,
            stem: Stem::Cifar,
            checkpoint,
            prefix: None,
            min_tracked_share: 0.0,
        },
        recipe: Recipe::default(),
        detect: DetectConfig::default(),
        unlearn: Unlearning::default(),
        gate: GateLimits::default(),
        // The pictures of these tests flag 1 % of the set, ten times what the guard does by itself as it comes.
        caps: Caps {
            max_case_share: 0.01,
            max_day_share: 0.02,
            max_total_share: 0.05,
            max_class_share: 0.2,
            ..Caps::default()
        },
        worker: WorkerSettings {
            path: fake_worker(),
            setup: WorkerSetup {
                factors_dir: cache_dir.clone(),
                cache_dir,
                device: Device::Cpu,
                threads: 1,
                memory_budget: 1 << 20,
                query_budget: 6 << 30,
                memory_limit: 0,
            },
            nice: 0,
            limits: StageLimits::default(),
            attempts: 3,
            retry_delay: Duration::from_millis(10),
            stop_grace: Duration::from_secs(5),
        },
    }
}

pub fn fake_worker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fake_worker.py")
}

/// A program made of a few lines of shell. Another process writes it: what this one has open for writing, a process that another test starts at this moment
/// has open for a while, too, and such a file cannot be run ("Text file busy").
pub fn script(dir: &Path, lines: &str) -> PathBuf {
    let path = dir.join("worker.sh");
    let mut writer = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writer
        .stdin
        .take()
        .unwrap()
        .write_all(format!("#!/bin/sh\n{lines}\n").as_bytes())
        .unwrap();
    assert!(writer.wait().unwrap().success());
    path
}

/// Poll until `found` finds something; fail after a minute.
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "nobody saw: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The only case of a state folder, as its journal tells.
pub fn only_case(settings: &Settings) -> Option<Case> {
    let (book, _) = query::read(&settings.state_dir).ok()?;
    assert!(book.cases.len() <= 1, "{:?}", book.cases);
    book.cases.into_values().next()
}

/// Put a complete picture into the inbox, with an optional sidecar.
pub fn drop_picture(settings: &Settings, name: &str, words: &str, sidecar: Option<&str>) {
    let dir = &settings.inbox.dir;
    std::fs::create_dir_all(dir).unwrap();
    if let Some(sidecar) = sidecar {
        let stem = Path::new(name).file_stem().unwrap().to_str().unwrap();
        std::fs::write(dir.join(format!("{stem}.json")), sidecar).unwrap();
    }
    std::fs::write(dir.join(".new"), words).unwrap();
    std::fs::rename(dir.join(".new"), dir.join(name)).unwrap();
}

/// What a test does at a moment of its choice, in the midst of the guard's work.
pub type Meddle = Box<dyn FnMut(&Happening) + Send>;

/// Remembers what was said, and meddles where it is asked to.
#[derive(Default)]
pub struct Recorder(pub Mutex<Vec<Happening>>, pub Mutex<Option<Meddle>>, pub Option<Mail>);

impl Recorder {
    pub fn count(&self, wanted: impl Fn(&Happening) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| wanted(event)).count()
    }
}

impl Hooks for Recorder {
    fn on(&self, event: Happening) {
        if let Some(meddle) = self.1.lock().unwrap().as_mut() {
            meddle(&event);
        }
        self.0.lock().unwrap().push(event);
    }

    fn report(&self, view: &CaseView) -> anyhow::Result<String> {
        Ok(format!("<html>{} {}</html>", view.case, view.state))
    }

    fn notices(&self, notice: &Notice) -> Vec<Message> {
        self.2.as_ref().map(|mail| delta_guard::alert::notices(mail, notice)).unwrap_or_default()
    }

    fn messages(&self, view: &CaseView) -> Vec<Message> {
        if let Some(mail) = &self.2 {
            return delta_guard::alert::messages(mail, view);
        }
        let id = delta_guard::engine::message_id(&view.instance, &view.case, &view.occasion, "mail", "a@b");
        vec![Message {
            id,
            channel: "mail".into(),
            to: "a@b".into(),
            content: serde_json::json!({ "state": view.state }),
            kept: None,
            written: 0,
        }]
    }
}

/// A daemon inside the test.
pub struct Running {
    pub hooks: Arc<Recorder>,
    pub started: Started,
    stopper: stop::Stopper,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
    runtime: tokio::runtime::Runtime,
}

impl Running {
    pub fn start(settings: &Settings) -> Self {
        Self::start_with(settings, Recorder::default())
    }

    pub fn start_with(settings: &Settings, recorder: Recorder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (stopper, stop) = stop::channel();
        let hooks = Arc::new(recorder);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let task = runtime.spawn(daemon::run(settings.clone(), Arc::clone(&hooks) as Arc<dyn Hooks>, stop, sender));
        let Ok(started) = runtime.block_on(receiver) else {
            panic!("the daemon did not start: {:?}", runtime.block_on(task));
        };
        Self {
            hooks,
            started,
            stopper,
            task,
            runtime,
        }
    }

    pub fn stop(self) -> (Arc<Recorder>, anyhow::Result<()>) {
        self.stopper.stop();
        let outcome = self.runtime.block_on(self.task).expect("no panic");
        (self.hooks, outcome)
    }
}

/// Run a daemon until its only case is told or held, then stop it.
pub fn run_to_end(settings: &Settings) -> Case {
    let running = Running::start(settings);
    let case = wait_for("the end of the case", || only_case(settings).filter(|case| case.told));
    running.stop().1.expect("a clean stop");
    case
}

/// Every file below a folder with its content, by relative path. Links are shown as their targets. What a running worker puts in place meanwhile may be missing.
pub fn tree(dir: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
            let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
            if meta.is_symlink() {
                found.insert(name, std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes());
            } else if meta.is_dir() {
                folders.push(path);
            } else if meta.is_file() && meta.len() < 1 << 24 {
                match std::fs::read(&path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    content => found.insert(name, content.unwrap()),
                };
            } else {
                // A pipe, a socket, a giant: not to be read.
                found.insert(name, Vec::new());
            }
        }
    }
    found
}

/// Ask a running daemon for something, and wait for what it says: whether it was done, and its sentence.
pub fn ask(settings: &Settings, ask: Ask) -> (bool, String) {
    let request = Request {
        ask,
        reason: "a test".into(),
    };
    let id = asked::put(&settings.state_dir, &request).unwrap();
    wait_for("an answer", || answer(settings, &id))
}

/// What the journal says came of a request.
pub fn answer(settings: &Settings, wanted: &str) -> Option<(bool, String)> {
    let mut found = None;
    let mut reader = Reader::new(Arc::new(Disk), &settings.journal_dir());
    reader
        .read(&mut |record, _| {
            if record.kind == "asked" && record.data["id"] == wanted {
                let answer = record.data["answer"].as_str().unwrap().to_string();
                found = Some((record.data["done"].as_bool().unwrap(), answer));
            }
            Ok(())
        })
        .unwrap();
    found
}

/// The case of a picture's file name.
pub fn case_named(settings: &Settings, name: &str) -> Option<Case> {
    let (book, _) = query::read(&settings.state_dir).ok()?;
    book.cases.into_values().find(|case| case.accepted.name == name)
}

/// Wait until the case of this file has come to an end or a hold, and that was told.
pub fn told(settings: &Settings, name: &str) -> Case {
    wait_for("the case told", || case_named(settings, name).filter(|case| case.told))
}
