//! Ends of a worker that no code of its own can report: the loader's, before its first line runs, and the allocators', which abort it. Their words on standard
//! error are known, and become a fault that says what to do.

use delta_guard_contract::{Code, Fault, TORCH};
use std::ffi::OsStr;
use std::path::Path;

/// What the loader or an allocator said last, as a fault; None for anything else. `search` is the loader's `LD_LIBRARY_PATH`.
pub(super) fn fault(said: &str, search: Option<&OsStr>) -> Option<Fault> {
    said.lines().rev().find_map(|line| loader(line, search).or_else(|| allocator(line)))
}

fn loader(line: &str, search: Option<&OsStr>) -> Option<Fault> {
    let other = ["symbol lookup error:", "undefined symbol:", "version `"]
        .iter()
        .any(|words| line.contains(words));
    let absent = line.contains("error while loading shared libraries:") && line.contains("cannot open shared object file");
    if !other && !absent {
        return None;
    }
    let found = search.and_then(torch_in);
    let message = match (&found, absent) {
        (_, true) => format!("the worker could not be loaded: a library that it needs (libtorch {TORCH} or what belongs to it) is not found"),
        (Some((version, lib)), _) => {
            format!("the worker could not be loaded: it needs libtorch {TORCH}, and LD_LIBRARY_PATH names libtorch {version} in {lib}")
        }
        (None, _) => format!("the worker could not be loaded: it needs libtorch {TORCH}, and finds another version"),
    };
    Some(Fault::new(
        Code::VersionMismatch,
        format!("{message} ({})", line.trim()),
        format!(
            "set LD_LIBRARY_PATH to the folder torch/lib of an installed torch {TORCH} (`pip install \"torch=={TORCH}.*\"`), or unset it: then the libtorch that was \
             installed with delta-guard is used"
        ),
    ))
}

/// Version and folder of the first libtorch that the loader would find there.
fn torch_in(search: &OsStr) -> Option<(String, String)> {
    let folder = std::env::split_paths(search).find(|folder| folder.join("libtorch.so").exists() || folder.join("libtorch_cpu.so").exists())?;
    let version = folder.parent().and_then(version_in)?;
    Some((version, folder.display().to_string()))
}

/// torch as pip installs it has `version.py`, libtorch as PyTorch packs it `build-version`.
fn version_in(folder: &Path) -> Option<String> {
    let python = std::fs::read_to_string(folder.join("version.py")).unwrap_or_default();
    let of_python = python
        .lines()
        .find_map(|line| line.strip_prefix("__version__ = "))
        .map(|v| v.trim_matches(['\'', '"']));
    let packed = std::fs::read_to_string(folder.join("build-version")).unwrap_or_default();
    let version = of_python.unwrap_or(packed.trim());
    (!version.is_empty() && version.len() < 40).then(|| crate::text::escape(version.as_bytes()))
}

fn allocator(line: &str) -> Option<Fault> {
    let words = [
        "memory allocation of ",
        "std::bad_alloc",
        "Cannot allocate memory",
        "DefaultCPUAllocator: can't allocate memory",
    ];
    words.iter().any(|words| line.contains(words)).then(|| {
        Fault::new(
            Code::OutOfMemory,
            format!("the worker needed more memory than it may use ({})", line.trim()),
            "lower worker.memory_budget or worker.query_budget, raise worker.memory_limit where one is set, or give the machine more memory",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta_guard_contract::FaultKind;

    #[test]
    fn the_loaders_words_name_both_versions() {
        let line = "guard/delta-guard-worker: symbol lookup error: guard/delta-guard-worker: undefined symbol: _ZN3c104impl3cowE";
        let torch = tempfile::tempdir().unwrap();
        let lib = torch.path().join("lib");
        std::fs::create_dir(&lib).unwrap();
        let told = |search: Option<&Path>| fault(&format!("warning: x\n{line}\n"), search.map(Path::as_os_str)).unwrap();
        let plain = told(None);
        assert_eq!(plain.kind, FaultKind::Configuration);
        assert!(plain.message.contains(TORCH) && plain.message.contains("_ZN3c104impl3cowE") && plain.help.contains("LD_LIBRARY_PATH"));
        // Nothing there that is a libtorch.
        assert_eq!(told(Some(&lib)), plain);
        std::fs::write(lib.join("libtorch.so"), "").unwrap();
        std::fs::write(
            torch.path().join("version.py"),
            "from typing import Optional\n__version__ = '2.15.0+cu132'\ndebug = False\n",
        )
        .unwrap();
        assert!(told(Some(&lib)).message.contains("libtorch 2.15.0+cu132 in "), "{:?}", told(Some(&lib)));
        std::fs::remove_file(torch.path().join("version.py")).unwrap();
        std::fs::write(torch.path().join("build-version"), "2.9.1+cpu\n").unwrap();
        assert!(told(Some(&lib)).message.contains("libtorch 2.9.1+cpu in "));
        let absent = fault(
            "w: error while loading shared libraries: libtorch_cpu.so: cannot open shared object file: No such file or directory",
            None,
        )
        .unwrap();
        assert!(absent.message.contains("not found") && absent.message.contains("libtorch_cpu.so"));
    }

    #[test]
    fn what_the_allocators_say_is_a_want_of_memory() {
        for line in [
            "memory allocation of 34359738368 bytes failed",
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "RuntimeError: [enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
        ] {
            let told = fault(&format!("{line}\n  what():  std\n"), None).unwrap();
            assert!(told.kind == FaultKind::Resource && told.help.contains("worker.memory_limit"), "{told:?}");
        }
        assert_eq!(fault("thread 'main' panicked at x.rs:1\nsegmentation fault", None), None);
        assert_eq!(fault("", None), None);
    }

    /// One number: what `scripts/libtorch.py` sets up is what the worker needs.
    #[test]
    fn the_version_told_is_the_one_that_is_set_up() {
        let script = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/libtorch.py")).unwrap();
        assert!(script.contains(&format!("TORCH = \"{TORCH}.")));
    }
}
