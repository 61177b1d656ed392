//! A daemon of one's own for a while: start it, drop a picture in, watch the case, stop it.

use super::say;
use crate::config::{self, Look};
use crate::engine::{CaseView, query};
use crate::settings::Settings;
use anyhow::{Context, bail};
use std::io::{IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The daemon must answer after so long at most.
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

/// A running daemon.
pub(super) struct Watch {
    daemon: Child,
    settings: Settings,
    log: PathBuf,
    out: PathBuf,
    address: SocketAddr,
}

impl Watch {
    /// Start `delta-guard run` with a configuration and wait until it is ready. Its log goes to `daemon.log` in `out`.
    pub fn start(config: &Path, out: &Path) -> anyhow::Result<Self> {
        let settings = config::load(config, Look::AtFiles)?.file.settings()?;
        let log = out.join("daemon.log");
        let file = fs_err::File::create(&log)?;
        let program = std::env::current_exe().context("cannot tell where this program lies")?;
        let daemon = Command::new(program)
            .arg("run")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file.into_parts().0)
            .spawn()
            .context("the daemon cannot be started")?;
        let mut watch = Self {
            daemon,
            settings,
            log,
            out: out.to_path_buf(),
            address: ([127, 0, 0, 1], 0).into(),
        };
        let begun = Instant::now();
        loop {
            watch.alive()?;
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
    pub fn until_ended(&self, quiet: bool) -> anyhow::Result<CaseView> {
        let mut shown = String::new();
        loop {
            let (book, _) = query::read(&self.settings.state_dir)?;
            if let Some(case) = book.cases.values().next() {
                if case.state.is_end() || case.state == crate::case::State::Held {
                    if std::io::stderr().is_terminal() && !quiet {
                        let _ = writeln!(std::io::stderr());
                    }
                    if case.state == crate::case::State::Held {
                        bail!(
                            "the case is held: {}{}",
                            case.reason,
                            if case.help.is_empty() {
                                String::new()
                            } else {
                                format!("\n  help: {}", case.help)
                            }
                        );
                    }
                    // The report is written after the end is recorded: it is part of what is promised.
                    let view = CaseView::new(case, &self.settings);
                    if view.paths.report.exists() {
                        return Ok(view);
                    }
                }
                let now = self.progress().unwrap_or_else(|| format!("{}", case.state));
                if !quiet && now != shown {
                    show(&shown, &now);
                    shown = now;
                }
            }
            self.alive_ref()?;
            std::thread::sleep(POLL);
        }
    }

    /// `trace 40 %`, from the metrics page.
    fn progress(&self) -> Option<String> {
        let page = self.get("/metrics").ok()?.1;
        page.lines().find_map(|line| {
            let (stage, ratio) = line.strip_prefix("delta_guard_stage_progress_ratio{stage=\"")?.split_once("\"} ")?;
            let ratio: f64 = ratio.parse().ok()?;
            (ratio > 0.0).then(|| format!("{stage} {:.0} %", 100.0 * ratio))
        })
    }

    /// Keep the metrics page as a file.
    pub fn save_metrics(&self) -> anyhow::Result<PathBuf> {
        let path = self.out.join("metrics.txt");
        fs_err::write(&path, self.get("/metrics")?.1)?;
        Ok(path)
    }

    /// Stop the daemon and wait for it.
    pub fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id() as i32) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let status = self.daemon.wait()?;
        if !status.success() {
            bail!("the daemon ended with {status}; its log is {}", self.log.display());
        }
        Ok(())
    }

    fn alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.daemon.try_wait()? {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(12).collect();
            bail!(
                "the daemon ended with {status}:\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        Ok(())
    }

    fn alive_ref(&self) -> anyhow::Result<()> {
        if !Path::new(&format!("/proc/{}", self.daemon.id())).exists() {
            bail!("the daemon has ended; its log is {}", self.log.display());
        }
        Ok(())
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
        if self.daemon.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.daemon.kill();
            let _ = self.daemon.wait();
        }
    }
}

/// One line that is rewritten on a terminal; elsewhere a line whenever the stage changes or a quarter is done.
fn show(before: &str, now: &str) {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K   {now}");
        return;
    }
    let parts = |text: &str| {
        let mut words = text.split(' ');
        let stage = words.next().unwrap_or_default().to_string();
        (stage, words.next().and_then(|p| p.parse::<u32>().ok()).unwrap_or(0) / 25)
    };
    if parts(before) != parts(now) {
        say::note(&format!("   {now}"));
    }
}
