//! What the systemd unit gives the guard and what it does not: one capability, which its workers do not get, and files that are its own.

use super::daemon::{Place, text};
use super::submitters::{GUARD, installed};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// As the unit starts it: another user, with exactly what `CapabilityBoundingSet=` and `AmbientCapabilities=` name.
fn under_the_unit(program: &Path) -> Command {
    let unit = include_str!("../../systemd/delta-guard.service");
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).expect(key).to_owned();
    let set = |list: String| {
        list.split_whitespace()
            .fold("-all".to_owned(), |all, one| format!("{all},+{}", &one.to_lowercase()[4..]))
    };
    let (bounding, ambient) = (set(value("CapabilityBoundingSet=")), set(value("AmbientCapabilities=")));
    assert_eq!((bounding.as_str(), ambient.as_str()), ("-all,+lease", "-all,+lease"), "exactly this one");
    let mut command = Command::new("setpriv");
    command
        .args([
            format!("--reuid={GUARD}"),
            format!("--regid={GUARD}"),
            "--clear-groups".into(),
            "--no-new-privs".into(),
        ])
        .args([
            format!("--inh-caps={ambient}"),
            format!("--ambient-caps={ambient}"),
            format!("--bounding-set={bounding}"),
        ])
        .env("PATH", "/usr/bin:/bin")
        .arg(program);
    command
}

/// The same user without any capability.
fn without_capabilities(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            format!("--reuid={GUARD}"),
            format!("--regid={GUARD}"),
            "--clear-groups".into(),
            "--bounding-set=-all".into(),
        ])
        .env("PATH", "/usr/bin:/bin")
        .arg(program);
    command
}

#[test]
fn the_writer_of_another_users_file_is_seen_with_the_units_capability_and_no_worker_has_it() {
    let Some(place) = installed() else { return };
    let leases = "import fcntl, sys; fcntl.fcntl(open(sys.argv[1]), fcntl.F_SETLEASE, fcntl.F_RDLCK)";
    let able = under_the_unit(Path::new("/usr/bin/python3"))
        .args(["-c", leases])
        .arg(place.at("wrong.png"))
        .output()
        .is_ok_and(|output| output.status.success());
    if !able {
        eprintln!("SKIPPED: other users' writers: it takes root with CAP_LEASE, setpriv, /usr/bin/python3, and a file system with leases");
        return;
    }
    // The tester's file, whole and still open for writing.
    let held = std::fs::File::create(place.at("inbox/a.png")).unwrap();
    std::fs::write(place.at("inbox/a.png"), "label=dog\n").unwrap();
    std::fs::set_permissions(place.at("inbox/a.png"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let daemon = place.start_by(under_the_unit(&place.at("delta-guard")));
    place.drop_in(b"b.png", "label=dog\nflag=7\n");
    daemon.wait_for_metric("delta_guard_accepted_total 1");
    daemon.wait_for_metric("delta_guard_inbox_waiting_files 1");
    assert!(place.at("inbox/a.png").exists() && !place.at("inbox/b.png").exists());
    drop(held);
    daemon.wait_for_metric("delta_guard_accepted_total 2");
    daemon.wait_for_metric("delta_guard_proposals_total 2");

    // What decodes the pictures has none of it.
    let workers = std::fs::read_to_string(place.at("state/cache/capabilities")).unwrap();
    let sets: Vec<&str> = workers.lines().collect();
    assert!(sets.len() >= 10, "{workers}");
    for line in sets {
        let [kind, bits] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        if matches!(kind, "CapPrm:" | "CapEff:" | "CapAmb:") {
            assert_eq!(u64::from_str_radix(bits, 16), Ok(0), "{line}");
        }
    }
    let check = |mut command: Command| {
        let output = command.args(["check-config", "--config"]).arg(place.config()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(check(under_the_unit(&place.at("delta-guard"))).contains("whoever owns it (CAP_LEASE)"));
    assert_eq!(daemon.stop(), Some(0));

    // Without it such a file is taken when it has settled.
    let held = std::fs::File::create(place.at("inbox/c.png")).unwrap();
    std::fs::write(place.at("inbox/c.png"), "label=dog\nflag=8\n").unwrap();
    std::fs::set_permissions(place.at("inbox/c.png"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let daemon = place.start_by(without_capabilities(&place.at("delta-guard")));
    daemon.wait_for_metric("delta_guard_accepted_total 1");
    assert!(check(without_capabilities(&place.at("delta-guard"))).contains("without CAP_LEASE"));
    drop(held);
    assert_eq!(daemon.stop(), Some(0));
}

/// Every path below a folder, and the folder itself.
fn below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut all = vec![folder.to_path_buf()];
    let mut next = 0;
    while next < all.len() {
        if all[next].is_dir() && !all[next].is_symlink() {
            let inner: Vec<_> = std::fs::read_dir(&all[next]).unwrap().map(|entry| entry.unwrap().path()).collect();
            all.extend(inner);
        }
        next += 1;
    }
    all
}

#[test]
fn whatever_umask_it_is_started_with_its_files_are_its_own() {
    let place = Place::new("");
    // A folder that was there before keeps its mode: it is the owner's. What the guard and its workers make is what counts.
    std::fs::remove_dir_all(place.at("state")).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "umask 000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_delta-guard")]);
    let daemon = place.start_by(command);
    place.drop_in(b"wrong.png", "label=dog\nafter=ship\n");
    place.drop_in(b"empty.png", "");
    daemon.wait_for_metric("delta_guard_proposals_total 1");
    daemon.wait_for_metric("delta_guard_refused_total{reason=\"empty\"} 1");
    assert_eq!(daemon.stop(), Some(0));
    let mode = |path: &Path| path.symlink_metadata().unwrap().permissions().mode();
    let state = below(&place.at("state"));
    assert!(state.len() > 20, "{state:?}");
    for path in state {
        // Nobody comes into a folder; what lies in it may be meant for `paths.group`, which would be let in.
        let others = if path.is_dir() { 0o077 } else { 0o027 };
        assert_eq!(mode(&path) & others, 0, "{} has mode {:o}", path.display(), mode(&path));
    }
    // What others are meant to read, nobody else may change.
    for folder in ["candidates", "refused", "inbox"] {
        for path in below(&place.at(folder)).iter().filter(|path| !path.is_symlink()) {
            assert_eq!(mode(path) & 0o022, 0, "{} has mode {:o}", path.display(), mode(path));
        }
    }
    let reason = mode(&place.at("refused/empty.png.reason.json"));
    assert_eq!(reason & 0o040, 0o040, "submitters' group may read why: {reason:o}");
}
