//! A daemon of one's own for a while: start it, drop a picture in, watch the case, stop it.

use super::{Exit, Failure, say};
use crate::case::State;
use crate::config::{self, Look};
use crate::engine::{Book, CaseView, query};
use crate::jobs;
use crate::progress::{Tenths, UnderWay};
use crate::settings::Settings;
use crate::stop::Stop;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The daemon must answer after so long at most.
const START: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);
/// What the daemon may take to stop beside what its worker may.
const STOP: Duration = Duration::from_secs(30);

/// A running daemon.
pub(super) struct Watch {
    daemon: Child,
    settings: Settings,
    log: PathBuf,
    out: PathBuf,
    address: SocketAddr,
    stop: Stop,
}

impl Watch {
    /// Start `delta-guard run` with a configuration and wait until it is ready. Its log goes to `daemon.log` in `out`. It ends when we end, however we end.
    pub fn start(config: &Path, out: &Path, stop: Stop) -> anyhow::Result<Self> {
        let settings = config::load(config, Look::AtFiles)?.settings()?;
        let log = out.join("daemon.log");
        let file = fs_err::OpenOptions::new().create(true).append(true).open(&log)?;
        let program = std::env::current_exe().context("cannot tell where this program lies")?;
        // A daemon that was killed left its address behind, which may be somebody else's by now.
        match std::fs::remove_file(settings.state_dir.join("http.address")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context("an old address cannot be removed"),
            _ => {}
        }
        let mut command = Command::new(program);
        command
            .arg("run")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file.into_parts().0);
        // A group of its own: Ctrl-C is for us, and we ask it to stop in order.
        jobs::apart(&mut command, None, Signal::TERM);
        let daemon = command.spawn().context("the daemon cannot be started")?;
        let mut watch = Self {
            daemon,
            settings,
            log,
            out: out.to_path_buf(),
            address: ([127, 0, 0, 1], 0).into(),
            stop,
        };
        let begun = Instant::now();
        loop {
            watch.must_go_on()?;
            let address = std::fs::read_to_string(watch.settings.state_dir.join("http.address"))
                .ok()
                .and_then(|t| t.trim().parse().ok());
            if let Some(address) = address {
                watch.address = address;
                if watch.get("/readyz").is_ok_and(|answer| answer.0 == 200) {
                    return Ok(watch);
                }
            }
            if begun.elapsed() > START {
                bail!("the daemon is not ready after {} s; its log is {}", START.as_secs(), watch.log.display());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Does the journal hold a case already?
    pub fn has_a_case(&self) -> anyhow::Result<bool> {
        Ok(!self.book()?.cases.is_empty())
    }

    fn book(&self) -> anyhow::Result<Book> {
        Ok(query::read(&self.settings.state_dir)?.0)
    }

    /// Put a picture into the inbox, whole.
    pub fn drop_in(&self, picture: &Path) -> anyhow::Result<()> {
        let name = picture.file_name().context("the picture has no name")?;
        let inbox = &self.settings.inbox.dir;
        let hidden = inbox.join(format!(".{}", name.to_string_lossy()));
        fs_err::copy(picture, &hidden)?;
        fs_err::rename(&hidden, inbox.join(name))?;
        Ok(())
    }

    /// Wait until the only case has ended or is held, showing how far it is.
    pub fn until_ended(&mut self, quiet: bool) -> anyhow::Result<CaseView> {
        let mut shown = Shown::default();
        loop {
            let book = self.book()?;
            if let Some(case) = book.cases.values().next() {
                // The report is made after the end is recorded, and is part of what is promised.
                let over = case.state == State::Held || case.state.rests() && case.told;
                if over {
                    shown.end();
                }
                if case.state == State::Held {
                    return Err(Failure::new(
                        Exit::Failed,
                        format!("the case is held: {}", case.reason),
                        case.help.clone(),
                    ));
                }
                if over {
                    return Ok(CaseView::new(case, &self.settings));
                }
                if !quiet && let Some(now) = self.progress() {
                    shown.show(&now);
                }
            }
            self.must_go_on()?;
            std::thread::sleep(POLL);
        }
    }

    /// How far the stage under way is.
    fn progress(&self) -> Option<UnderWay> {
        let status: serde_json::Value = serde_json::from_str(&self.get("/api/v1/status").ok()?.1).ok()?;
        serde_json::from_value(status.get("stage")?.clone()).ok()
    }

    /// Keep the metrics page as a file.
    pub fn save_metrics(&self) -> anyhow::Result<PathBuf> {
        let path = self.out.join("metrics.txt");
        fs_err::write(&path, self.get("/metrics")?.1)?;
        Ok(path)
    }

    /// Stop the daemon and wait for it.
    pub fn stop(mut self) -> anyhow::Result<()> {
        match self.end()? {
            status if status.success() => Ok(()),
            status => Err(self.lost(status)),
        }
    }

    /// Ask the daemon to end, and see to it. It lets its worker finish what it is at, as long as that may take.
    fn end(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.daemon.try_wait()? {
            return Ok(status);
        }
        kill_process(Pid::from_child(&self.daemon), Signal::TERM)?;
        let patience = self.settings.worker.stop_grace + STOP;
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Some(status) = self.daemon.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.daemon.kill()?;
        Ok(self.daemon.wait()?)
    }

    /// An error when the daemon has ended, or when we were asked to stop.
    fn must_go_on(&mut self) -> anyhow::Result<()> {
        if self.stop.is_stopped() {
            self.end()?;
            return Err(Failure::new(Exit::Interrupted, "interrupted", ""));
        }
        // Waited for, not looked up: a child that has ended stays in the process table until then.
        match self.daemon.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.lost(status)),
        }
    }

    /// The daemon has ended by itself.
    fn lost(&self, status: ExitStatus) -> anyhow::Error {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n");
        let (what, why) = match (status.signal(), status.code()) {
            (Some(9), _) => (
                "was killed (signal 9)".to_owned(),
                "most often the kernel ended it for want of memory: make room",
            ),
            (Some(signal), _) => (format!("crashed (signal {signal})"), ""),
            (None, code) => (format!("ended with exit code {}", code.unwrap_or_default()), ""),
        };
        Failure::new(
            Exit::Failed,
            format!("the daemon {what}; its log, {}, ends with\n{tail}", self.log.display()),
            why,
        )
    }

    /// Status and body of a GET.
    fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split_whitespace().nth(1).and_then(|s| s.parse().ok()).context("no HTTP answer")?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, body.to_string()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Only where the story failed: a stopped daemon is gone already.
        let _ = self.end();
    }
}

/// What was shown of the daemon's work: one line that is rewritten on a terminal; elsewhere a line for each new stage and each tenth of it.
#[derive(Default)]
struct Shown {
    stage: String,
    tenths: Tenths,
    begun: bool,
}

impl Shown {
    fn show(&mut self, now: &UnderWay) {
        let fresh = self.stage != now.stage;
        if fresh {
            self.end();
            (self.stage, self.tenths) = (now.stage.clone(), Tenths::default());
        }
        if std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr(), "\r\x1b[K   {now}");
            self.begun = true;
        } else if self.tenths.next(now) || fresh {
            say::note(&format!("   {now}"));
        }
    }

    /// The line stays as it is.
    fn end(&mut self) {
        if std::mem::take(&mut self.begun) {
            let _ = writeln!(std::io::stderr());
        }
    }
}
