//! The owner's trainer as a process: in a group of its own, heard, ended with all that it started.
#![allow(unsafe_code, reason = "pre_exec; see the safety comment")]

use super::PATIENCE;
use super::output::{Said, follow};
use crate::error::Result;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getpid, getppid, getrlimit, kill_process_group, set_parent_process_death_signal, setrlimit,
    test_kill_process_group,
};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that wait to be heard. A trainer that says more than can be written waits.
const WAITING: usize = 256;
/// After its end, how long what it said is waited for: who holds its pipes open in a group of its own is out of reach.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How it ended.
pub(super) enum Ended {
    /// By itself.
    Itself(ExitStatus),
    /// The worker was asked to end.
    Stopped,
    /// Its deadline was over.
    Late,
}

/// A running trainer. Dropping it kills whatever is left of its group.
pub(super) struct Trainer {
    child: Child,
    group: Pid,
    /// Kills the group when this process ends in any way in which it cannot do it itself. None where it could not be started.
    watch: Option<Child>,
    said: Receiver<Said>,
}

impl Trainer {
    /// Start it, in a process group that it leads.
    ///
    /// # Errors
    /// The system's, where it cannot be started.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        // First of all: from its first instruction on, the trainer is watched.
        let watch = watch().ok();
        apart(command, watch.as_ref().and_then(|watch| watch.stdin.as_ref()));
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let _ = watch.map(release);
                return Err(error);
            }
        };
        let group = Pid::from_child(&child);
        let (to, said) = sync_channel(WAITING);
        let streams = (child.stdout.take(), child.stderr.take());
        listen(streams.0, true, to.clone());
        listen(streams.1, false, to);
        Ok(Self { child, group, watch, said })
    }

    /// The next thing that it says, if that comes soon.
    pub fn hear(&self) -> Option<Said> {
        match self.said.recv_timeout(PATIENCE) {
            Ok(said) => Some(said),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(PATIENCE); // it closed its streams and works on
                None
            }
        }
    }

    /// Its end, if it has come.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ask the group to end, and wait until all of it has, or the grace is over. What it says meanwhile is heard: a full pipe would keep it from saving its work.
    pub fn stop(&mut self, grace: Duration, hear: &mut dyn FnMut(Said)) {
        let _ = kill_process_group(self.group, Signal::TERM); // a group without members is what we want
        let until = Instant::now() + grace;
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) && test_kill_process_group(self.group).is_err() {
                break;
            }
            self.hear().map(&mut *hear);
        }
    }

    /// End all of it, and hear what it still had to say.
    pub fn end(&mut self, hear: &mut dyn FnMut(Said)) {
        self.kill();
        let until = Instant::now() + LAST_WORDS;
        while let Ok(said) = self.said.recv_timeout(until.saturating_duration_since(Instant::now())) {
            hear(said);
        }
    }

    fn kill(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        self.kill();
        if let Some(watch) = self.watch.take() {
            release(watch);
        }
    }
}

fn listen(stream: Option<impl Read + Send + 'static>, speaks: bool, to: SyncSender<Said>) {
    if let Some(stream) = stream {
        thread::spawn(move || follow(stream, speaks, &to));
    }
}

/// A process that waits for our end: its standard input is a pipe that only we hold, so its end is ours. Then it kills the group that the pipe's first line names.
fn watch() -> io::Result<Child> {
    Command::new("/bin/sh")
        .args([
            "-c",
            "read -r group || exit 0; read -r line || kill -s KILL -- \"-$group\"",
            "delta-guard-watch",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

/// End the watch without a kill: it gets lines instead of an end. There is nothing to kill any more, and the group's number may be another's soon.
fn release(mut watch: Child) {
    let _ = watch.stdin.take().map(|mut stdin| stdin.write_all(b"\n\n"));
    let _ = watch.wait();
}

/// A group of its own, whose number the watch is told before anything of the trainer runs; the end of this thread its end; and the machine's ceiling on address
/// space instead of the worker's own: CUDA reserves it by the terabyte.
fn apart(command: &mut Command, watch: Option<&ChildStdin>) {
    command.process_group(0);
    let worker = getpid();
    let watch = watch.map(AsRawFd::as_raw_fd);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. The closure makes plain system calls through rustix, allocates nothing, takes no lock
    // and touches no memory but the copied `worker` and `watch`. That descriptor is open: the caller holds the watch until the trainer is started.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if let Some(watch) = watch {
                let mut line = [0; 12];
                rustix::io::write(BorrowedFd::borrow_raw(watch), number(getpid().as_raw_nonzero().get(), &mut line))?;
            }
            let most = getrlimit(Resource::As).maximum;
            let _ = setrlimit(
                Resource::As,
                Rlimit {
                    current: most,
                    maximum: most,
                },
            );
            // We may have ended between fork and that call.
            match getppid() == Some(worker) {
                true => Ok(()),
                false => Err(io::ErrorKind::NotFound.into()),
            }
        });
    }
}

/// A positive number and a line end, without allocating.
fn number(mut number: i32, line: &mut [u8; 12]) -> &[u8] {
    let mut first = line.len() - 1;
    line[first] = b'\n';
    while number > 0 && first > 0 {
        first -= 1;
        line[first] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    &line[first..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_number_is_a_line_of_digits() {
        for (n, wanted) in [(1, "1\n"), (4_194_304, "4194304\n"), (i32::MAX, "2147483647\n")] {
            assert_eq!(number(n, &mut [0; 12]), wanted.as_bytes());
        }
    }
}
