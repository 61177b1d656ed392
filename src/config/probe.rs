//! What `check-config` tries out on this machine: may the guard write where it has to, and listen where it is to? It leaves nothing behind.

use super::check::Complaint;
use super::file::ConfigFile;
use super::tree::{KeyStep, Mark};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// What was tried.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    /// What would keep the guard from its work.
    pub mistakes: Vec<Complaint>,
    /// What it can live with, and its owner should know: one sentence each.
    pub warnings: Vec<String>,
    /// Key and what was found there, for the summary.
    pub found: Vec<(&'static str, String)>,
    /// As whom.
    pub user: String,
}

impl Tried {
    /// Note a mistake.
    pub fn mistake(&mut self, key: &str, what: impl Into<String>, help: impl Into<String>) {
        self.mistakes.push(Complaint {
            path: key.split('.').map(|part| KeyStep::Key(part.into())).collect(),
            mark: Mark::Value,
            what: what.into(),
            help: help.into(),
        });
    }
}

/// Try folders and port of a configuration, whose paths are absolute.
pub fn probe(file: &ConfigFile) -> Tried {
    let mut tried = Tried {
        user: user(rustix::process::geteuid().as_raw()),
        ..Tried::default()
    };
    let refused = file.refused_dir();
    for (key, path) in [
        ("paths.inbox", &file.paths.inbox),
        ("paths.refused", &refused),
        ("paths.state", &file.paths.state),
        ("paths.candidates", &file.paths.candidates),
    ] {
        folder(key, path, &mut tried);
    }
    listen(file, &mut tried);
    tried.found.push(("writers", writers()));
    tried
}

/// Is it seen that another user's file is still open for writing?
fn writers() -> String {
    let lease = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::LEASE));
    if lease {
        "a file that its writer still holds open waits, whoever owns it (CAP_LEASE)".into()
    } else {
        "without CAP_LEASE (the systemd unit gives it) only the guard's own files are known to be held open; others are taken when they settled and end as their format says".into()
    }
}

/// The name of a user, as far as this machine knows it.
fn user(id: u32) -> String {
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = known.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("user {id}"))
}

/// Can files be made in the folder, or the folder itself?
fn folder(key: &'static str, path: &Path, tried: &mut Tried) {
    let (place, is_there) = match std::fs::metadata(path) {
        Ok(_) => (path.to_path_buf(), true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (nearest(path), false),
        Err(error) => {
            let what = format!("{} cannot be looked at by {}: {error}", path.display(), tried.user);
            return tried.mistake(key, what, rights(&error, &tried.user));
        }
    };
    // A hidden name: a running guard leaves it alone.
    match tempfile::Builder::new().prefix(".check-config-").tempfile_in(&place) {
        Ok(_) if is_there => tried.found.push((key, path.display().to_string())),
        Ok(_) => tried.found.push((key, format!("{} (to be made)", path.display()))),
        Err(error) => {
            let what = if is_there {
                format!("{} cannot be written by {}: {}", path.display(), tried.user, plain(&error))
            } else {
                format!(
                    "{} is not there, and cannot be made in {} by {}: {}",
                    path.display(),
                    place.display(),
                    tried.user,
                    plain(&error)
                )
            };
            tried.mistake(key, what, rights(&error, &tried.user));
        }
    }
}

/// The nearest folder above that is there.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors()
        .skip(1)
        .find(|above| above.is_dir())
        .unwrap_or(Path::new("/"))
        .to_path_buf()
}

/// What the system says, without the name of our own temporary file.
fn plain(error: &io::Error) -> String {
    let code = error
        .raw_os_error()
        .or_else(|| error.get_ref()?.downcast_ref::<io::Error>()?.raw_os_error());
    // tempfile wraps the error with its path; the kind is kept.
    code.map_or_else(|| error.kind().to_string(), |code| io::Error::from_raw_os_error(code).to_string())
}

fn rights(error: &io::Error, user: &str) -> String {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is read-only here: under systemd name the folder in ReadWritePaths= (systemctl edit delta-guard), or take one below /var/lib/delta-guard".into()
        }
        io::ErrorKind::PermissionDenied => {
            format!("give {user} the right to write there, or check as the user that the guard runs as: `sudo -u delta-guard delta-guard check-config`")
        }
        io::ErrorKind::StorageFull => "make room".into(),
        _ => "name a folder that the guard can write".into(),
    }
}

/// Is the port free, or ours already? And who can reach it?
fn listen(file: &ConfigFile, tried: &mut Tried) {
    let Some(address) = file.http.listen else {
        return tried.found.push(("http.listen", "nowhere".into()));
    };
    let running = std::fs::read_to_string(file.paths.state.join("http.address")).is_ok_and(|told| told.trim() == address.to_string());
    match TcpListener::bind(address) {
        Ok(_) => tried.found.push(("http.listen", format!("http://{address}"))),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && running => {
            tried.found.push(("http.listen", format!("http://{address} (this guard is running)")));
        }
        Err(error) => {
            let help = match error.kind() {
                io::ErrorKind::AddrInUse => "another program listens there: take another port, 0 for a free one, or `off`",
                io::ErrorKind::AddrNotAvailable => "this machine has no such address: 127.0.0.1 always works",
                io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: take a higher one",
                _ => "take another address or port, or `off`",
            };
            tried.mistake("http.listen", format!("cannot listen on {address}: {error}"), help);
        }
    }
    if !address.ip().is_loopback() {
        tried.warnings.push(format!(
            "http.listen: other machines can reach {address}. There is no login: whoever can connect can read cases, labels and file names. Keep it on 127.0.0.1 unless something in front of it asks who is there"
        ));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::{Look, parse};

    fn file(root: &Path, more: &str) -> ConfigFile {
        let text = format!(
            "paths: {{inbox: in, state: state, candidates: out}}\ndata: {{train: {{path: train}}, validation: {{path: val}}}}\nmodel: {{architecture: resnet18, checkpoint: m.safetensors}}\n{more}\n"
        );
        parse(&text, Path::new("t.yaml"), root, Look::AtTextOnly).unwrap().file
    }

    fn keys(tried: &Tried) -> Vec<String> {
        tried
            .mistakes
            .iter()
            .map(|finding| super::super::tree::show_path(&finding.path))
            .collect()
    }

    #[test]
    fn folders_are_tried_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        let tried = probe(&file(folder.path(), "http: {listen: 'off'}"));
        assert_eq!(keys(&tried), [""; 0]);
        let found: Vec<_> = tried.found.iter().map(|(key, said)| (*key, said.ends_with("(to be made)"))).collect();
        assert_eq!(
            found,
            [
                ("paths.inbox", false),
                ("paths.refused", true),
                ("paths.state", true),
                ("paths.candidates", true),
                ("http.listen", false),
                ("writers", false)
            ]
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(folder.path().join("in")).unwrap().count(), 0);
        // A file where a folder should be made, and a file system on which nothing can be made: not even root may.
        std::fs::write(folder.path().join("state"), "x").unwrap();
        let text = "paths: {inbox: in, state: state/x, candidates: /proc/guard}\ndata: {train: {path: t}, validation: {path: v}}\nmodel: {architecture: resnet18, checkpoint: m}\nhttp: {listen: 'off'}\n";
        let tried = probe(&parse(text, Path::new("t.yaml"), folder.path(), Look::AtTextOnly).unwrap().file);
        assert_eq!(keys(&tried), ["paths.state", "paths.candidates"]);
        assert!(
            tried
                .mistakes
                .iter()
                .all(|finding| finding.what.contains(&tried.user) && !finding.what.contains(".check-config-")),
            "{tried:?}"
        );
    }

    #[test]
    fn the_port_is_tried_and_a_public_address_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let more = format!("http: {{listen: '{address}'}}");
        let tried = probe(&file(folder.path(), &more));
        assert_eq!((keys(&tried), tried.warnings.len()), (vec!["http.listen".to_owned()], 0));
        // By this very guard it may be taken.
        std::fs::create_dir(folder.path().join("state")).unwrap();
        std::fs::write(folder.path().join("state/http.address"), format!("{address}\n")).unwrap();
        assert_eq!(keys(&probe(&file(folder.path(), &more))), [""; 0]);
        drop(taken);
        for (listen, warned) in [("127.0.0.1:0", false), ("[::1]:0", false), ("0.0.0.0:0", true), ("off", false)] {
            let tried = probe(&file(folder.path(), &format!("http: {{listen: '{listen}'}}")));
            assert_eq!(tried.warnings.len(), usize::from(warned), "{listen}");
        }
        let nowhere = probe(&file(folder.path(), "http: {listen: '192.0.2.1:9464'}"));
        assert!(
            keys(&nowhere) == ["http.listen"] && nowhere.mistakes[0].help.contains("no such address"),
            "{nowhere:?}"
        );
    }
}
