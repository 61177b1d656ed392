//! The inbox as the packages install it: several people may put pictures in, none may list it, and the guard is somebody else again.
//!
//! Changing users takes root; elsewhere the test says that it did not run.

use super::daemon::{Place, text, wait_for};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

pub const GUARD: u32 = 64_901;
const ANN: u32 = 64_902;
const BEN: u32 = 64_903;
const STRANGER: u32 = 64_904;
/// The group of those who may submit.
const SUBMIT: u32 = 64_910;
/// The group of those who may read what became of it.
const READ: u32 = 64_911;

/// A command by another user; a group of the same number is theirs, `more` is another one.
fn by(user: u32, more: Option<u32>, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}"));
    match more {
        Some(group) => command.arg(format!("--groups={group}")),
        None => command.arg("--clear-groups"),
    };
    // Not the tester's own interpreters: others may not be allowed to run them.
    command.env("PATH", "/usr/bin:/bin").arg(program);
    command
}

fn own(path: &Path, user: u32, group: u32, mode: u32) {
    std::fs::create_dir_all(path).unwrap();
    chown(path, Some(user), Some(group)).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Folders with the owners and modes of systemd/delta-guard.tmpfiles. None, out loud, where users cannot be changed.
pub fn installed() -> Option<Place> {
    installed_with("")
}

fn installed_with(more: &str) -> Option<Place> {
    let place = Place::new(more);
    std::fs::set_permissions(place.at("."), std::fs::Permissions::from_mode(0o755)).unwrap();
    // Where it was built others may not come.
    std::fs::copy(env!("CARGO_BIN_EXE_delta-guard"), place.at("delta-guard")).unwrap();
    // From a shell: setpriv itself still has root's power over files when it starts a program.
    let able = by(ANN, None, Path::new("sh"))
        .args(["-c", "\"$0\" --version"])
        .arg(place.at("delta-guard"))
        .output()
        .is_ok_and(|o| o.status.success());
    if !able {
        eprintln!(
            "SKIPPED: submitters who may not list the inbox: it takes root, the program setpriv, and a folder for temporary files that all may enter"
        );
        return None;
    }
    for line in include_str!("../../systemd/delta-guard.tmpfiles")
        .lines()
        .filter(|line| line.starts_with("d /var/lib/delta-guard/"))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |name: &str| match name {
            "delta-guard" => GUARD,
            "delta-guard-submit" => SUBMIT,
            other => panic!("{other} in {line:?}"),
        };
        let folder = place.at(words[1].rsplit('/').next().unwrap());
        own(&folder, number(words[3]), number(words[4]), u32::from_str_radix(words[2], 8).unwrap());
    }
    own(&place.at("state/cache"), GUARD, GUARD, 0o750);
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/submit.py"), place.at("submit.py")).unwrap();
    for (name, words) in [
        ("wrong.png", "label=dog\nafter=ship\n"),
        ("other.png", "label=dog\nflag=7\n"),
        ("secret.png", "label=cat\n"),
    ] {
        std::fs::write(place.at(name), words).unwrap();
        std::fs::set_permissions(place.at(name), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    Some(place)
}

/// The program, by somebody.
fn ask(place: &Place, user: u32, more: Option<u32>, arguments: &[&str]) -> Output {
    by(user, more, &place.at("delta-guard"))
        .args(arguments)
        .arg("--config")
        .arg(place.config())
        .current_dir(place.at("."))
        .output()
        .unwrap()
}

#[test]
fn submitters_who_may_not_list_the_inbox_can_submit() {
    let Some(place) = installed() else { return };
    let listed = by(ANN, Some(SUBMIT), Path::new("ls")).arg(place.at("inbox")).output().unwrap();
    assert!(!listed.status.success(), "the inbox can be listed: this tests nothing");

    // Two people found the same picture. The folder's sticky bit lets neither replace the other's file, so the names must differ.
    let same = ["submit", "wrong.png", "--true-label", "ship"];
    for user in [ANN, BEN] {
        let handed_in = by(user, Some(SUBMIT), Path::new("sh"))
            .args(["-c", "umask 077; exec \"$@\"", "sh"])
            .arg(place.at("delta-guard"))
            .args(same)
            .arg("--config")
            .arg(place.config())
            .current_dir(place.at("."))
            .output()
            .unwrap();
        assert_eq!(handed_in.status.code(), Some(0), "{}", text(&handed_in.stderr));
    }
    let stranger = ask(&place, STRANGER, None, &same);
    assert_eq!(stranger.status.code(), Some(1));
    assert!(text(&stranger.stderr).contains("delta-guard-submit"), "{}", text(&stranger.stderr));

    // A serving process, by the example.
    let mut accepted = 1;
    let python = Path::new("/usr/bin/python3");
    if python.exists() {
        let mut command = by(ANN, Some(SUBMIT), python);
        let handed_in = command
            .arg(place.at("submit.py"))
            .arg(place.at("inbox"))
            .arg(place.at("other.png"))
            .arg("ship")
            .output()
            .unwrap();
        assert!(handed_in.status.success(), "{}", text(&handed_in.stderr));
        accepted += 1;
    } else {
        eprintln!("SKIPPED: examples/submit.py by another user: there is no /usr/bin/python3");
    }

    // One that the guard may not read.
    let copied = by(BEN, Some(SUBMIT), Path::new("install"))
        .args(["-m", "600"])
        .args([place.at("secret.png"), place.at("inbox/secret.png")])
        .status()
        .unwrap();
    assert!(copied.success());

    // The guard, by the unit's umask.
    let umask = include_str!("../../systemd/delta-guard.service")
        .lines()
        .find_map(|line| line.strip_prefix("UMask="))
        .unwrap();
    let mut command = by(GUARD, Some(SUBMIT), Path::new("sh"));
    command
        .args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"])
        .arg(place.at("delta-guard"));
    let daemon = place.start_by(command);
    daemon.wait_for_metric(&format!("delta_guard_accepted_total {accepted}"));
    daemon.wait_for_metric("delta_guard_duplicate_total 1");
    daemon.wait_for_metric("delta_guard_refused_total{reason=\"unreadable\"} 1");
    wait_for("an empty inbox", || {
        (std::fs::read_dir(place.at("inbox")).unwrap().count() == 0).then_some(())
    });

    // Whose picture was refused can read why.
    let reason = by(BEN, Some(SUBMIT), Path::new("cat"))
        .arg(place.at("refused/secret.png.reason.json"))
        .output()
        .unwrap();
    assert!(
        text(&reason.stdout).contains("chmod g+r"),
        "{}{}",
        text(&reason.stdout),
        text(&reason.stderr)
    );

    // What became of it is not for submitters, and that is said at once, not after a day of waiting.
    for arguments in [&["cases"][..], &["show", "ab"], &["flagged"], &["submit", "wrong.png", "--wait"]] {
        let asked = ask(&place, ANN, Some(SUBMIT), arguments);
        assert_eq!(asked.status.code(), Some(1), "{arguments:?}");
        let said = text(&asked.stderr);
        assert!(said.contains("journal") && said.contains("Permission denied"), "{arguments:?}: {said}");
    }
    let waited = ask(&place, GUARD, Some(SUBMIT), &["cases", "--json"]);
    let cases: serde_json::Value = serde_json::from_slice(&waited.stdout).unwrap();
    assert_eq!(cases.as_array().unwrap().len(), accepted);

    // A repaired checkpoint reaches the guard's group, which is how it gets to where it is used. Its worker is a program in Python.
    if python.exists() {
        daemon.wait_for_metric("delta_guard_proposals_total 2");
        let read = by(STRANGER, Some(GUARD), Path::new("sh"))
            .args(["-c", "cat */model.safetensors | wc -c"])
            .current_dir(place.at("candidates"))
            .output()
            .unwrap();
        assert!(text(&read.stdout).trim().parse::<u64>().unwrap() > 1000, "{}", text(&read.stderr));
    }
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn members_of_the_readers_group_are_answered_and_nobody_else() {
    let Some(place) = installed() else { return };
    let config = std::fs::read_to_string(place.config()).unwrap();
    let with_group = config.replace("paths: {", &format!("paths: {{group: '{READ}', "));
    assert_ne!(config, with_group);
    std::fs::write(place.config(), with_group).unwrap();
    let guard = || {
        let mut command = Command::new("setpriv");
        let groups = format!("--groups={SUBMIT},{READ}");
        command
            .args([&format!("--reuid={GUARD}"), &format!("--regid={GUARD}"), &groups])
            .env("PATH", "/usr/bin:/bin")
            .args(["sh", "-c", "umask 0077; exec \"$@\"", "sh"])
            .arg(place.at("delta-guard"));
        command
    };
    // A journal that was begun before the key was set is shared, too.
    let daemon = place.start_by(guard());
    let handed_in = ask(&place, ANN, Some(SUBMIT), &["submit", "wrong.png", "--true-label", "ship"]);
    assert_eq!(handed_in.status.code(), Some(0), "{}", text(&handed_in.stderr));
    daemon.wait_for_metric("delta_guard_accepted_total 1");
    wait_for("the end of the case", || {
        let asked = ask(&place, BEN, Some(READ), &["cases", "--json"]);
        assert_eq!(asked.status.code(), Some(0), "{}", text(&asked.stderr));
        let cases: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
        let ended = cases[0]["ended_at"].is_string();
        ended.then_some(())
    });
    let cases = ask(&place, BEN, Some(READ), &["cases", "--json"]);
    let case = serde_json::from_slice::<serde_json::Value>(&cases.stdout).unwrap()[0]["case"]
        .as_str()
        .unwrap()
        .to_owned();
    for arguments in [&["show", &case[..]][..], &["journal", "verify"]] {
        let asked = ask(&place, BEN, Some(READ), arguments);
        assert_eq!(asked.status.code(), Some(0), "{arguments:?}: {}", text(&asked.stderr));
    }
    let report = by(BEN, Some(READ), Path::new("cat"))
        .arg(place.at(&format!("state/cases/{case}/report.html")))
        .output()
        .unwrap();
    assert!(report.status.success(), "{}", text(&report.stderr));
    // Not the pictures, the seed, or the lock; and nobody else anything.
    for (program, path) in [
        ("ls", "state/spool"),
        ("ls", "state/index"),
        ("ls", "state/cache"),
        ("cat", "state/journal/LOCK"),
    ] {
        let read = by(BEN, Some(READ), Path::new(program)).arg(place.at(path)).output().unwrap();
        assert!(!read.status.success() && place.at(path).exists(), "{path} can be read");
    }
    assert_eq!(ask(&place, STRANGER, None, &["cases"]).status.code(), Some(1));
    assert_eq!(daemon.stop(), Some(0));
    // A group that there is none of is a mistake in the configuration.
    std::fs::write(place.config(), config.replace("paths: {", "paths: {group: no-such-group-here, ")).unwrap();
    let checked = place.ask(&["check-config"]);
    assert_eq!(checked.status.code(), Some(78));
    assert!(text(&checked.stderr).contains("paths.group"), "{}", text(&checked.stderr));
}
