//! The part of starting a process that needs `unsafe`: code between fork and exec.
#![allow(unsafe_code, reason = "pre_exec; see the safety comment")]

use rustix::process::{Pid, Signal, getpid, getppid, getpriority_process, kill_process_group, set_parent_process_death_signal, setpriority_process};
use rustix::thread::clear_ambient_capability_set;
use std::os::unix::process::CommandExt;
use std::process::Command;
use tokio::process::Child;

/// Let the command run in a process group of its own, get `last` when the thread that starts it ends (however it ends), be at least as nice as `nice`, and
/// have none of the capabilities that systemd gave us (`AmbientCapabilities=`): they are for looking at the inbox, not for what decodes its files.
pub(crate) fn prepare(command: &mut Command, nice: Option<i32>, last: Signal) {
    command.process_group(0);
    let guard = getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. The closure makes plain system calls through rustix, allocates nothing,
    // takes no lock and touches no memory but the copied `guard`, `nice` and `last`.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(last))?;
            // Without the ambient set a program that is no root's starts with none. A kernel that does not have that set has given us nothing.
            let _ = clear_ambient_capability_set();
            // Here and not from outside: every thread that the worker starts inherits it. No reason to fail: `is_nice` tells whether it worked.
            if let Some(nice) = nice
                && getpriority_process(None).is_ok_and(|now| now < nice)
            {
                let _ = setpriority_process(None, nice);
            }
            // We may have ended between fork and that call.
            if getppid() == Some(guard) {
                Ok(())
            } else {
                Err(std::io::ErrorKind::NotFound.into())
            }
        });
    }
}

/// Is the child as nice as it was meant to be? Yes as well when it has ended or cannot be asked.
pub(super) fn is_nice(child: &Child, nice: i32) -> bool {
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    id.is_none_or(|id| getpriority_process(Some(id)).map_or(true, |now| now >= nice))
}

/// A worker's process group. Dropping it kills whatever is left of it.
pub(super) struct Group(Option<Pid>);

impl Group {
    /// The group that a just started child leads.
    pub fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(id.cast_signed())))
    }

    /// Ask every member to end.
    pub fn terminate(&self) {
        self.send(Signal::TERM);
    }

    /// End every member.
    pub fn kill(&self) {
        self.send(Signal::KILL);
    }

    fn send(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // A group without members is what we want.
            let _ = kill_process_group(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
