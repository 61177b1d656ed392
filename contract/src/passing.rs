//! Which errors of the system pass by themselves: a network file system whose server is busy, restarts or cannot be reached for a moment, a disk that did not
//! answer once, a system that has no more descriptors just now. The guard tries again after such an error. After all others (a file that is not there, that may
//! not be read, a folder in its place, a file system that is read-only) a person must act.

use rustix::io::Errno;
use std::error::Error;
use std::io;

/// What to do when it does not pass.
pub const HELP: &str = "look at the mount, at the server or disk behind it, and at the kernel's log (`journalctl -k`); it may pass by itself";

/// Error numbers that pass.
const PASSING: [Errno; 32] = [
    // The server, the disk, or what lies between.
    Errno::IO,
    Errno::STALE,
    Errno::REMOTEIO,
    Errno::TIMEDOUT,
    Errno::TIME,
    Errno::HOSTDOWN,
    Errno::HOSTUNREACH,
    Errno::NETDOWN,
    Errno::NETUNREACH,
    Errno::NETRESET,
    Errno::NONET,
    Errno::NOLINK,
    Errno::COMM,
    Errno::PROTO,
    Errno::CONNRESET,
    Errno::CONNABORTED,
    Errno::CONNREFUSED,
    Errno::NOTCONN,
    Errno::SHUTDOWN,
    Errno::PIPE,
    // Somebody else is at it.
    Errno::AGAIN,
    Errno::INTR,
    Errno::BUSY,
    Errno::TXTBSY,
    Errno::ALREADY,
    Errno::INPROGRESS,
    Errno::CANCELED,
    // The system has not enough of something just now. A full disk and want of memory have words of their own.
    Errno::NFILE,
    Errno::MFILE,
    Errno::NOBUFS,
    Errno::NOLCK,
    Errno::NOSR,
];

/// Is one of these errors, `error` itself or one of its causes, a system's error that passes by itself?
pub fn is_passing(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.downcast_ref::<io::Error>().is_some_and(passes) {
            return true;
        }
        next = cause.source();
    }
    false
}

/// The system's number decides. What wraps an error may keep its kind and its words only (`fs_err` does).
fn passes(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    match error.raw_os_error().or_else(|| told_number(error)) {
        Some(number) => PASSING.iter().any(|errno| errno.raw_os_error() == number),
        None => matches!(
            error.kind(),
            K::TimedOut
                | K::StaleNetworkFileHandle
                | K::HostUnreachable
                | K::NetworkUnreachable
                | K::NetworkDown
                | K::ConnectionReset
                | K::ConnectionAborted
                | K::ConnectionRefused
                | K::NotConnected
                | K::BrokenPipe
                | K::WouldBlock
                | K::Interrupted
                | K::ResourceBusy
                | K::ExecutableFileBusy
        ),
    }
}

/// The number at the end of the words: the standard library ends those of each error of the system so.
fn told_number(error: &io::Error) -> Option<i32> {
    let words = error.to_string();
    let (_, number) = words.rsplit_once("(os error ")?;
    number.strip_suffix(')')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As libraries wrap an error: kind and words stay, the number is in the cause.
    #[derive(Debug)]
    struct Wrapped(io::Error);

    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("reading a file")
        }
    }

    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn what_a_network_file_system_says_passes_and_what_a_person_must_mend_does_not() {
        let system = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        let wrapped = |errno: Errno| {
            let error = system(errno);
            io::Error::new(error.kind(), Wrapped(error))
        };
        let in_words = |errno: Errno| io::Error::new(system(errno).kind(), format!("reading `(os error 5).png`: {}", system(errno)));
        for errno in [
            Errno::IO,
            Errno::STALE,
            Errno::TIMEDOUT,
            Errno::HOSTDOWN,
            Errno::HOSTUNREACH,
            Errno::NETDOWN,
            Errno::NETUNREACH,
            Errno::CONNRESET,
            Errno::AGAIN,
            Errno::INTR,
            Errno::REMOTEIO,
            Errno::NOTCONN,
            Errno::BUSY,
        ] {
            assert!(is_passing(&system(errno)), "{errno}");
            assert!(is_passing(&wrapped(errno)), "{errno}, wrapped");
            assert!(is_passing(&Wrapped(wrapped(errno))), "{errno}, wrapped twice");
            assert!(is_passing(&in_words(errno)), "{errno}, in words only");
        }
        for errno in [
            Errno::NOENT,
            Errno::ACCESS,
            Errno::PERM,
            Errno::NOTDIR,
            Errno::LOOP,
            Errno::ISDIR,
            Errno::ROFS,
            Errno::NAMETOOLONG,
            Errno::INVAL,
            Errno::NOSPC,
            Errno::DQUOT,
            Errno::NOMEM,
        ] {
            assert!(
                !is_passing(&system(errno)) && !is_passing(&wrapped(errno)) && !is_passing(&in_words(errno)),
                "{errno}"
            );
        }
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::InvalidData, io::ErrorKind::Other] {
            assert!(!is_passing(&io::Error::from(kind)), "{kind}");
        }
        assert!(is_passing(&io::Error::from(io::ErrorKind::TimedOut)));
        assert!(!is_passing(&Wrapped(io::Error::other("no number"))));
    }
}
