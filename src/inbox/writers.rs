//! Does somebody hold a file open for writing? Linux tells it to who asks for a read lease: the lease is refused while there is a writer. It is given
//! back at once. A program that opens the file for writing in those microseconds waits for so long (one that opens it with `O_NONBLOCK` gets EWOULDBLOCK);
//! the signal that Linux then sends to us is one that everybody ignores.
//!
//! Only the file's owner, or who has `CAP_LEASE` (as the systemd unit gives it), gets an answer, and only on file systems of this machine: a network file
//! system does not know its other machines' writers, and refuses leases for reasons of its own.
#![allow(unsafe_code, reason = "fcntl commands that rustix does not have; see the safety comments")]

use std::fs::File;
use std::os::fd::AsRawFd;

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writers {
    /// Nobody.
    None,
    /// Somebody.
    Some,
    /// The system does not say.
    Unknown,
}

/// The command that names the signal of a broken lease; libc does not have it (`asm-generic/fcntl.h`).
const F_SETSIG: libc::c_int = 10;

/// `f_type` of file systems that other machines, or programs, serve.
const REMOTE: [u64; 12] = [
    0x6969,      // NFS
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x517b,      // SMB
    0x564c,      // NCP
    0x6573_5546, // FUSE
    0x0102_1997, // 9p
    0x5346_414f, // AFS
    0x7375_7245, // Coda
    0x00c3_6400, // Ceph
    0x0116_1970, // GFS2
    0x7461_636f, // OCFS2
];

/// Who holds this file, which was opened for reading only, open for writing?
pub(super) fn of(file: &File) -> Writers {
    match rustix::fs::fstatfs(file) {
        #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "the field's type differs between platforms")]
        Ok(stat) if !REMOTE.contains(&(stat.f_type as u64 & 0xffff_ffff)) => {}
        _ => return Writers::Unknown,
    }
    let fd = file.as_raw_fd();
    // SAFETY: `fd` is open as long as `file` is borrowed, and these commands take an integer and touch no memory of ours.
    let refused = unsafe {
        // Without this the signal of a broken lease would be SIGIO, which ends the process.
        if libc::fcntl(fd, F_SETSIG, libc::SIGURG) == -1 {
            return Writers::Unknown;
        }
        if libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == -1 {
            Some(std::io::Error::last_os_error())
        } else {
            libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK);
            None
        }
    };
    match refused.and_then(|error| error.raw_os_error()) {
        None => Writers::None,
        Some(libc::EAGAIN) => Writers::Some,
        Some(_) => Writers::Unknown,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_seen_and_not_disturbed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        if of(&reader) == Writers::Unknown {
            eprintln!("SKIPPED: seeing writers: the file system of {} gives no leases", dir.path().display());
            return;
        }
        assert_eq!(of(&reader), Writers::Some);
        drop(writer);
        assert_eq!(of(&reader), Writers::None);
        // The lease was given back: who writes now does not wait.
        let again = File::options().append(true).open(&path).unwrap();
        assert_eq!(of(&reader), Writers::Some);
        drop(again);
        assert_eq!(of(&reader), Writers::None);
    }
}
