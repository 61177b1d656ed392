//! The unit holds before systemd's own judgement: no mistake in it, and a tight sandbox.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SERVICE: &str = include_str!("../systemd/delta-guard.service");

/// The unit, with the program that was built here and a user that every machine has.
fn unit(folder: &Path, change: impl Fn(String) -> String) -> PathBuf {
    let text = SERVICE.replace("/usr/bin/delta-guard", env!("CARGO_BIN_EXE_delta-guard"));
    let text = text
        .replace("User=delta-guard", "User=root")
        .replace("Group=delta-guard", "Group=root")
        .replace("Documentation=man:delta-guard(1)\n", "");
    let path = folder.join("delta-guard.service");
    std::fs::write(&path, change(text)).expect("the unit can be written");
    path
}

/// None, out loud, where systemd is not installed.
fn analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).arg(unit).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("SKIPPED: systemd-analyze cannot be run: {error}");
            None
        }
    }
}

#[test]
fn the_unit_has_no_mistake_and_a_mistake_would_be_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(good) = analyze(&["verify", "--man=no", "--recursive-errors=no"], &unit(folder.path(), |text| text)) else {
        return;
    };
    let said = String::from_utf8_lossy(&good.stderr);
    assert!(good.status.success() && !said.contains("delta-guard.service"), "{said}");
    let broken = unit(folder.path(), |text| text.replace("ProtectSystem=strict", "ProtectSystem=very"));
    let Some(bad) = analyze(&["verify", "--man=no", "--recursive-errors=no"], &broken) else {
        return;
    };
    assert!(
        String::from_utf8_lossy(&bad.stderr).contains("protect system"),
        "a broken unit was taken: {bad:?}"
    );
}

/// The drill's unit and its timer, side by side.
#[test]
fn the_units_of_the_drill_have_no_mistake() {
    let folder = tempfile::tempdir().expect("a folder");
    let service = include_str!("../systemd/delta-guard-drill.service")
        .replace("/usr/bin/delta-guard", env!("CARGO_BIN_EXE_delta-guard"))
        .replace("=delta-guard\n", "=root\n")
        .replace("StateDirectory=root", "StateDirectory=delta-guard")
        .replace("Documentation=man:delta-guard(1)\n", "");
    let timer = folder.path().join("delta-guard-drill.timer");
    std::fs::write(folder.path().join("delta-guard-drill.service"), service).expect("the unit can be written");
    std::fs::write(&timer, include_str!("../systemd/delta-guard-drill.timer")).expect("the timer can be written");
    let Some(good) = analyze(&["verify", "--man=no", "--recursive-errors=yes"], &timer) else {
        return;
    };
    let said = String::from_utf8_lossy(&good.stderr);
    assert!(good.status.success() && !said.contains("delta-guard-drill"), "{said}");
}

/// The value of a key, wherever it stands in the unit.
fn values(key: &str) -> Vec<&'static str> {
    SERVICE
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .flat_map(str::split_whitespace)
        .collect()
}

/// The configurations that are shown to people run under the unit as it is: what they write lies where it may be written, and what they read can be seen.
#[test]
fn the_configurations_that_are_shown_run_under_the_unit() {
    let block = |page: &'static str| {
        page.split("```yaml\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next())
            .expect("a block of yaml")
    };
    // A block inside a list is indented.
    let flush = |text: &str| {
        let indent = text
            .lines()
            .find(|line| !line.trim().is_empty())
            .map_or(0, |line| line.len() - line.trim_start().len());
        text.lines()
            .map(|line| line.get(indent..).unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n")
    };
    let writable: Vec<PathBuf> = values("StateDirectory")
        .iter()
        .map(|name| Path::new("/var/lib").join(name))
        .chain(values("ReadWritePaths").iter().map(PathBuf::from))
        .collect();
    assert!(!writable.is_empty());
    for (page, text) in [
        ("README.md", flush(block(include_str!("../README.md")))),
        ("docs/configuration.md", flush(block(include_str!("../docs/configuration.md")))),
        ("config/delta-guard.yaml", include_str!("../config/delta-guard.yaml").to_owned()),
    ] {
        let config = delta_guard::config::parse(
            &text,
            Path::new(page),
            Path::new("/etc/delta-guard"),
            delta_guard::config::Look::AtTextOnly,
        )
        .unwrap_or_else(|error| panic!("{page}: {error}"));
        let settings = config.settings().expect("settings");
        for folder in [
            &settings.inbox.dir,
            &settings.inbox.refused_dir,
            &settings.state_dir,
            &settings.candidates_dir,
        ] {
            assert!(
                writable.iter().any(|root| folder.starts_with(root)),
                "{page}: {} is read-only under the unit",
                folder.display()
            );
            let rule = include_str!("../systemd/delta-guard.tmpfiles");
            assert!(
                rule.lines().any(|line| line.split_whitespace().nth(1).map(Path::new) == Some(folder)),
                "{page}: nobody makes {}",
                folder.display()
            );
        }
        for read in [&settings.data.train.path, &settings.data.validation.path, &settings.model.checkpoint] {
            // ProtectHome= and PrivateTmp= hide these.
            let hidden = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"]
                .iter()
                .any(|root| read.starts_with(root));
            assert!(!hidden, "{page}: {} cannot be seen under the unit", read.display());
        }
    }
}

#[test]
fn the_sandbox_is_tight() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = unit(folder.path(), |text| text.replace("User=root", "User=delta-guard"));
    // Tenths: 1.6 of 10. A daemon that sends mail and computes on a GPU keeps network and devices; the one capability is the last tenth.
    let arguments = ["security", "--offline=yes", "--no-pager", "--threshold=16"];
    let Some(judged) = analyze(&arguments, &path) else { return };
    let said = |judged: &Output| format!("{}{}", String::from_utf8_lossy(&judged.stdout), String::from_utf8_lossy(&judged.stderr));
    assert!(judged.status.success(), "{}", said(&judged));
    // Everything else stays within 1.5, and so does the unit with the drop-in for machines without a GPU.
    let bound = ["security", "--offline=yes", "--no-pager", "--threshold=15"];
    let drop_ins: [fn(String) -> String; 2] = [
        |text| text.replace("=CAP_LEASE\n", "=\n"),
        |text| text.replace("[Install]", "PrivateDevices=yes\n[Install]"),
    ];
    for drop_in in drop_ins {
        let path = unit(folder.path(), |text| drop_in(text.replace("User=root", "User=delta-guard")));
        let judged = analyze(&bound, &path).expect("it ran before");
        assert!(judged.status.success(), "{}", said(&judged));
    }
    // The measure tells one from the other.
    let open = unit(folder.path(), |text| {
        text.replace("CapabilityBoundingSet=CAP_LEASE\n", "")
            .replace("User=root", "User=delta-guard")
    });
    assert!(analyze(&arguments, &open).is_some_and(|judged| !judged.status.success()));
}

#[test]
fn the_unit_keeps_its_promises() {
    for line in [
        "Type=notify",
        "RestartPreventExitStatus=78",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=CAP_LEASE",
        "AmbientCapabilities=CAP_LEASE",
        "ProtectSystem=strict",
        "ExecStartPre=/usr/bin/delta-guard check-config",
        "ExecReload=/usr/bin/delta-guard check-config",
        "StateDirectory=delta-guard",
        "UMask=0077",
        "MemoryMax=90%",
        "OOMPolicy=continue",
    ] {
        assert!(SERVICE.lines().any(|written| written == line), "{line} is missing");
    }
    assert!(
        !SERVICE
            .lines()
            .any(|line| line.starts_with("PrivateUsers=") || line.starts_with("MemoryDenyWriteExecute="))
    );
}
