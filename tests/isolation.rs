//! The daemon knows no tensor library, and the configuration that is installed is one that it takes.

use delta_guard::config::{self, Look};
use std::path::Path;
use std::process::Command;

#[test]
fn the_daemon_is_not_linked_to_the_tensor_library() {
    let listed = match Command::new("ldd").arg(env!("CARGO_BIN_EXE_delta-guard")).output() {
        Ok(listed) => listed,
        Err(error) => {
            eprintln!("SKIPPED: ldd cannot be run: {error}");
            return;
        }
    };
    let libraries = String::from_utf8_lossy(&listed.stdout);
    assert!(
        listed.status.success() && libraries.contains("libc.so"),
        "ldd says nothing useful: {listed:?}"
    );
    for forbidden in ["libtorch", "libc10", "libcudart", "libstdc++", "libgomp"] {
        assert!(!libraries.contains(forbidden), "the daemon is linked to {forbidden}:\n{libraries}");
    }
}

#[test]
fn the_installed_configuration_has_no_mistake() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/delta-guard.yaml");
    let text = std::fs::read_to_string(&path).expect("the example is there");
    let config = config::parse(&text, &path, Path::new("/etc/delta-guard"), Look::AtTextOnly).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.file.http.listen, Some(([127, 0, 0, 1], 9464).into()));
    assert_eq!(config.file.paths.state, Path::new("/var/lib/delta-guard/state"));
    assert!(config.file.mail.is_none());
}
