//! One guard for an inbox: two would take each other's files away. The lock is on the folder itself, so that nothing of ours lies in it, and it is given
//! back with the process, however that ends.

use crate::vfs::{LOCK_PAUSE, LOCK_TRIES};
use anyhow::{Result, bail};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The lock, on the folder that had the inbox's name when it was last looked at.
#[derive(Default)]
pub(super) struct InboxLock(Option<(u64, u64, OwnedFd)>);

impl InboxLock {
    /// Take it, unless we have it. An error when another process has it.
    pub fn hold(&mut self, inbox: &OwnedFd, dir: &Path) -> Result<()> {
        let stat = rustix::fs::fstat(inbox)?;
        #[allow(
            clippy::useless_conversion,
            clippy::unnecessary_cast,
            reason = "the fields' types differ between platforms"
        )]
        let identity = (stat.st_dev as u64, stat.st_ino as u64);
        if self.0.as_ref().is_some_and(|(dev, ino, _)| (*dev, *ino) == identity) {
            return Ok(());
        }
        self.0 = None;
        let own = rustix::fs::openat(inbox, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for _ in 0..LOCK_TRIES {
            match rustix::fs::flock(&own, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
                Err(error) => {
                    // Some network file systems lock no folders: then nobody can tell.
                    tracing::info!(message = "The inbox cannot be locked on its file system; make sure that no other guard watches it.", %error);
                    self.0 = Some((identity.0, identity.1, own));
                    return Ok(());
                }
            }
        }
        if rustix::fs::flock(&own, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "another guard watches the inbox {}: stop it, or give each its own folder (paths.inbox)",
                dir.display()
            );
        }
        self.0 = Some((identity.0, identity.1, own));
        Ok(())
    }
}
