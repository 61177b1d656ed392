//! The daemon knows no tensor library, the configuration that is installed is one that it takes, and pages that comments point to exist.

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

/// Comments and schema texts say "algorithm §3": that section must be in docs/algorithm.md. No other page is cited by section.
#[test]
fn every_section_that_the_code_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/algorithm.md")).expect("the page is there");
    let sections: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## ")?.split_once(". ").map(|(number, _)| number))
        .collect();
    let mut named = 0;
    let mut folders = vec![
        root.join("src"),
        root.join("ml"),
        root.join("contract"),
        root.join("config"),
        root.join("docs"),
    ];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the repository").flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            for (number, line) in text.lines().enumerate() {
                let place = format!("{}:{}", path.display(), number + 1);
                for page in ["authors", "evaluation", "reliability", "architecture", "second-storey"] {
                    assert!(
                        !line.contains(&format!("{page} §")),
                        "{place} points to a page that is not in the repository"
                    );
                }
                for (at, _) in line.match_indices("algorithm §") {
                    let rest = &line[at + "algorithm §".len()..];
                    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
                    let first = digits(rest);
                    let last = rest.strip_prefix(&format!("{first}–")).map(digits);
                    for section in [Some(first), last].into_iter().flatten().filter(|s| !s.is_empty()) {
                        assert!(
                            sections.contains(&section.as_str()),
                            "{place} names §{section} of docs/algorithm.md, which has {sections:?}"
                        );
                        named += 1;
                    }
                }
            }
        }
    }
    assert!(named > 10, "only {named} places name a section: has the wording changed?");
}
