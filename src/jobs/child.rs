//! The part of starting a process that needs `unsafe`: code between fork and exec.
#![allow(unsafe_code, reason = "pre_exec; see the safety comment")]

use rustix::process::{Pid, Signal, getpid, getppid, kill_process_group, set_parent_process_death_signal};
use tokio::process::{Child, Command};

/// Let the command run in a process group of its own, and end with us however we end.
pub(super) fn in_own_group(command: &mut Command) {
    command.process_group(0);
    let guard = getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. The closure makes two plain system calls through rustix, allocates
    // nothing, takes no lock and touches no memory but the copied `guard`.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // We may have ended between fork and that call.
            if getppid() == Some(guard) {
                Ok(())
            } else {
                Err(std::io::ErrorKind::NotFound.into())
            }
        });
    }
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
