//! A daemon in a folder of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything: only a hang lasts so long.
const PATIENCE: Duration = Duration::from_secs(300);

/// Ask `ready` until it answers.
pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "no {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The program with these arguments.
pub fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_delta-guard"))
        .args(arguments)
        .env_remove("DELTA_GUARD_CONFIG")
        .output()
        .unwrap()
}

/// Text of a stream.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// GET a path of an address: status and body. A server may send a body in pieces to `HTTP/1.1`, but not to `HTTP/1.0`.
pub fn get(address: &str, path: &str, version: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} {version}\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = text(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// A folder with everything that a guard needs.
pub struct Place {
    root: tempfile::TempDir,
}

impl Place {
    /// Make it; `more` is added to the configuration.
    pub fn new(more: &str) -> Self {
        let place = Self {
            root: tempfile::tempdir().unwrap(),
        };
        for name in ["train", "validation"] {
            std::fs::create_dir(place.at(name)).unwrap();
        }
        std::fs::write(place.at("model.safetensors"), b"production weights").unwrap();
        let worker = place.at("fake_worker");
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fake_worker.py"), &worker).unwrap();
        std::fs::set_permissions(&worker, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir_all(place.at("state/cache")).unwrap();
        let config = "\
instance: harbour
owner: ML platform
paths: {inbox: inbox, state: state, candidates: candidates}
inbox: {settle: 20ms, scan_interval: 200ms}
data: {train: {path: train}, validation: {path: validation}}
model: {architecture: small-cnn, checkpoint: model.safetensors}
worker: {command: fake_worker, nice: 0}
http: {listen: '127.0.0.1:0'}
";
        std::fs::write(place.config(), format!("{config}{more}\n")).unwrap();
        place
    }

    /// A path below the folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.at("guard.yaml")
    }

    /// Drop a picture for the fake worker: its words, one a line.
    pub fn drop_in(&self, name: &[u8], words: &str) {
        use std::os::unix::ffi::OsStrExt;
        let hidden = self.at("inbox/.being-written");
        std::fs::write(&hidden, words).unwrap();
        std::fs::rename(hidden, self.at("inbox").join(std::ffi::OsStr::from_bytes(name))).unwrap();
    }

    /// The program, with this place's configuration.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        let config = self.config();
        program(&[arguments, &["--config", config.to_str().unwrap()]].concat())
    }

    /// What the program answers as JSON.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.ask(&[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{}{}", text(&output.stdout), text(&output.stderr)))
    }

    /// Start the daemon and wait until it is ready.
    pub fn start(&self) -> Daemon {
        self.start_by(Command::new(env!("CARGO_BIN_EXE_delta-guard")))
    }

    /// The same, by a command that becomes the program.
    pub fn start_by(&self, program: Command) -> Daemon {
        let mut daemon = self.spawn(program);
        let address = wait_for("address", || {
            std::fs::read_to_string(self.at("state/http.address"))
                .ok()
                .filter(|address| !address.trim().is_empty())
        });
        daemon.address = address.trim().to_owned();
        wait_for("readiness", || daemon.get("/readyz").filter(|(code, _)| *code == 200));
        daemon
    }

    /// Start the daemon and wait until it answers; its address is in its log, for a state folder that cannot be written.
    #[allow(dead_code, reason = "each test binary uses its part")]
    pub fn start_unready(&self) -> Daemon {
        let mut daemon = self.spawn(Command::new(env!("CARGO_BIN_EXE_delta-guard")));
        let address = wait_for("address", || {
            let log = daemon.log();
            let (_, rest) = log.split_once("listening=http://")?;
            Some(rest.split_whitespace().next()?.to_owned())
        });
        daemon.address = address;
        wait_for("answer", || daemon.get("/livez").filter(|(code, _)| *code == 200));
        daemon
    }

    fn spawn(&self, mut program: Command) -> Daemon {
        let _ = std::fs::remove_file(self.at("state/http.address"));
        let log = std::fs::File::create(self.at("log")).unwrap();
        let child = program
            .args(["run", "--config"])
            .arg(self.config())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Daemon {
            child,
            address: String::new(),
            log: self.at("log"),
        }
    }
}

/// A running daemon; killed when the test is over.
pub struct Daemon {
    child: Child,
    /// Host and port that it listens at.
    pub address: String,
    log: PathBuf,
}

impl Daemon {
    /// GET a path: status and body.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        get(&self.address, path, "HTTP/1.1")
    }

    /// Wait until a line stands on the metrics page.
    pub fn wait_for_metric(&self, line: &str) {
        wait_for(line, || self.get("/metrics").filter(|(_, page)| page.lines().any(|found| found == line)));
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Ask it to stop and wait for its end; its exit code.
    pub fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait_for("end", || self.child.try_wait().unwrap()).code()
    }

    /// Kill it without asking.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
