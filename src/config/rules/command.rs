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
