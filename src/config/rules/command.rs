//! The owner's own trainer (`unlearn.command`): is it there, can it be started, and do its times fit into the guard's?

use super::{ConfigFile, Findings};
use delta_guard_contract::method::unlearn::Outside;
use delta_guard_contract::method::unlearn::command::Keys;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What a script is known by.
const SCRIPTS: [&str; 2] = ["py", "sh"];

/// Every method that runs a program of the owner's, with the key that it stands under.
fn outside(file: &ConfigFile) -> impl Iterator<Item = (String, Outside<'_>)> {
    file.unlearn.all().enumerate().filter_map(|(n, method)| {
        let place = if n == 0 { "unlearn".into() } else { format!("unlearn.also.{}", n - 1) };
        method.own().outside().map(|outside| (place, outside))
    })
}

/// Its times against those of the worker that starts it.
pub(super) fn times(file: &ConfigFile, found: &mut Findings) {
    let (stage, grace) = (file.worker.time_limits.unlearn, file.worker.stop_grace);
    for (place, outside) in outside(file) {
        if let Some(deadline) = outside.deadline {
            found.unless(
                deadline <= stage.0,
                &format!("{place}.deadline"),
                format!("is longer than worker.time_limits.unlearn ({stage})"),
                "the guard ends the stage when that is over: raise it, or leave the deadline out",
            );
        }
        found.unless(
            outside.grace < grace.0,
            &format!("{place}.grace"),
            format!("is not shorter than worker.stop_grace ({grace})"),
            "the worker needs some seconds of that for itself: raise worker.stop_grace, or write a shorter one here",
        );
    }
}

/// The program, its folder, and scripts among its arguments.
pub(super) fn is_there(file: &ConfigFile, found: &mut Findings) {
    for (place, outside) in outside(file) {
        let Some((program, arguments)) = outside.command.split_first() else {
            continue;
        };
        if let Err(why) = program_of(program) {
            found.add(
                &format!("{place}.command.0"),
                why,
                "name a program that the guard's user may run, in full from / or from the configuration's folder on",
            );
        }
        if let Some(cwd) = outside.cwd.filter(|cwd| !cwd.is_dir()) {
            found.add(
                &format!("{place}.cwd"),
                format!("{} is not a folder", cwd.display()),
                "name the folder that the program is to work in",
            );
        }
        for (n, script) in arguments.iter().enumerate().filter(|(_, argument)| is_script(argument)) {
            let looked = outside.cwd.map_or_else(|| script.to_path_buf(), |cwd| cwd.join(script));
            let missed = looked.is_relative() || !looked.exists();
            let (what, help) = match outside.cwd {
                None if script.is_relative() => (
                    format!(
                        "{} would be looked for in the job's folder, where only the guard's own files are",
                        script.display()
                    ),
                    "write it in full, from /, or say with `cwd` in which folder it lies",
                ),
                _ => (format!("there is no {}", looked.display()), "write it in full, from /"),
            };
            if missed {
                found.add(&format!("{place}.command.{}", n + 1), what, help);
            }
        }
    }
}

/// A script by its name, and not the value of an option.
fn is_script(argument: &Path) -> bool {
    let extension = argument.extension().and_then(|end| end.to_str());
    let plain = !argument.as_os_str().as_encoded_bytes().iter().any(|byte| b"=-*:,".contains(byte));
    extension.is_some_and(|end| SCRIPTS.contains(&end)) && (plain || argument.is_absolute())
}

/// May it be started? Why not, in words.
fn program_of(program: &Path) -> Result<(), String> {
    if !Keys::is_path(program) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places: Vec<PathBuf> = std::env::split_paths(&path).map(|folder| folder.join(program)).collect();
        return match places.iter().any(|place| runs(place)) {
            true => Ok(()),
            false => Err(format!(
                "there is no program `{}` in PATH ({})",
                program.display(),
                path.to_string_lossy()
            )),
        };
    }
    match std::fs::metadata(program) {
        Err(error) => Err(format!("{} cannot be started: {error}", program.display())),
        Ok(meta) if !meta.is_file() => Err(format!("{} is not a file", program.display())),
        Ok(_) if !runs(program) => Err(format!("{0} is not executable: `chmod +x {0}` makes it so", program.display())),
        Ok(_) => Ok(()),
    }
}

/// Is it a program?
pub(super) fn runs(program: &Path) -> bool {
    std::fs::metadata(program).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use crate::config::{Look, Problem, parse};
    use delta_guard_contract::method::unlearn::Unlearner;
    use std::path::Path;

    /// Mistakes below `unlearn` of a configuration in this folder, and the methods that were read.
    fn read(folder: &Path, unlearn: &str, look: Look) -> (Vec<Problem>, Vec<Unlearner>) {
        let text = format!(
            "paths: {{inbox: in, state: state, candidates: out}}\ndata: {{train: {{path: train}}, validation: {{path: val}}}}\nmodel: {{architecture: resnet18, checkpoint: m.safetensors}}\nunlearn: {unlearn}\n"
        );
        match parse(&text, Path::new("t.yaml"), folder, look) {
            Ok(config) => (Vec::new(), config.file.unlearn.all().cloned().collect()),
            Err(error) => (
                error.problems.into_iter().filter(|problem| problem.key.starts_with("unlearn")).collect(),
                Vec::new(),
            ),
        }
    }

    #[test]
    fn times_fit_into_the_workers_and_paths_start_at_the_file() {
        let folder = Path::new("/base");
        let keys = |unlearn: &str| -> Vec<String> { read(folder, unlearn, Look::AtTextOnly).0.into_iter().map(|problem| problem.key).collect() };
        assert_eq!(keys("{method: command}"), ["unlearn.command"]);
        assert_eq!(keys("{method: command, command: [./a], deadline: 8d}"), ["unlearn.deadline"]);
        assert_eq!(keys("{method: command, command: [./a], grace: 20s}"), ["unlearn.grace"]);
        assert_eq!(
            keys("{also: [{method: command, command: [a], grace: 20s, deadline: 7d}]}"),
            ["unlearn.also[0].grace"]
        );
        assert_eq!(keys("{method: command, command: [~/a.sh]}"), ["unlearn"]);
        assert_eq!(keys("{method: command, command: [./a], deadline: 7d, grace: 19s}"), [""; 0]);
        let (_, methods) = read(
            folder,
            "{method: command, command: [tools/../a.sh, b/c], also: [{method: cf}]}",
            Look::AtTextOnly,
        );
        assert_eq!(methods[0].own().outside().unwrap().command, [Path::new("/base/a.sh"), Path::new("b/c")]);
        let (_, methods) = read(
            folder,
            "{also: [{method: command, command: [python3, b/c], cwd: work}]}",
            Look::AtTextOnly,
        );
        let outside = methods[1].own().outside().unwrap();
        assert_eq!(
            (outside.command[0].to_str(), outside.cwd),
            (Some("python3"), Some(Path::new("/base/work")))
        );
    }

    #[test]
    fn the_program_is_there_and_can_be_started() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            std::fs::write(folder.path().join(name), "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(folder.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        file("good.sh", 0o755);
        file("plain.sh", 0o644);
        let said = |unlearn: &str| -> Vec<(String, String)> {
            let problems = read(folder.path(), unlearn, Look::AtFiles).0;
            problems
                .into_iter()
                .map(|problem| (problem.key, format!("{}; {}", problem.what, problem.help)))
                .collect()
        };
        let one = |unlearn: &str, key: &str, word: &str| {
            let said = said(unlearn);
            assert!(said.len() == 1 && said[0].0 == key && said[0].1.contains(word), "{unlearn}: {said:?}");
        };
        assert_eq!(said("{method: command, command: [./good.sh, --epochs, '3', --out=x.py]}"), []);
        assert_eq!(said("{method: command, command: [sh, -c, 'exit 0'], cwd: .}"), []);
        one("{method: command, command: [./plain.sh]}", "unlearn.command[0]", "chmod +x");
        one("{method: command, command: [./absent.sh]}", "unlearn.command[0]", "cannot be started");
        one("{method: command, command: [./]}", "unlearn.command[0]", "not a file");
        one("{method: command, command: [no-such-program-here]}", "unlearn.command[0]", "in PATH");
        one("{method: command, command: [./good.sh], cwd: absent}", "unlearn.cwd", "not a folder");
        one(
            "{also: [{method: command, command: [./plain.sh]}]}",
            "unlearn.also[0].command[0]",
            "chmod +x",
        );
        // A script among the arguments is looked for where the program works.
        one("{method: command, command: [sh, good.sh]}", "unlearn.command[1]", "`cwd`");
        one("{method: command, command: [sh, absent.sh], cwd: .}", "unlearn.command[1]", "there is no");
        one(
            "{method: command, command: [sh, /nowhere/train.py]}",
            "unlearn.command[1]",
            "there is no /nowhere/train.py",
        );
        assert_eq!(said("{method: command, command: [sh, good.sh], cwd: .}"), []);
    }
}
