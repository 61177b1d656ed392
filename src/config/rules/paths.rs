//! Paths of a configuration: absolute, tidy, and not a shell's.

use super::{Complaint, Findings};
use crate::config::file::ConfigFile;
use delta_guard_contract::ClassNames;
use delta_guard_contract::method::Method;
use std::path::{Component, Path, PathBuf};

/// Every path of the file, with its key.
fn paths(file: &mut ConfigFile) -> Vec<(&'static str, &mut PathBuf)> {
    let mut paths = vec![
        ("paths.inbox", &mut file.paths.inbox),
        ("paths.state", &mut file.paths.state),
        ("paths.candidates", &mut file.paths.candidates),
        ("data.train.path", &mut file.data.train.path),
        ("data.validation.path", &mut file.data.validation.path),
        ("model.checkpoint", &mut file.model.checkpoint),
    ];
    if let Some(ClassNames::File(path)) = &mut file.data.classes {
        paths.push(("data.classes", path));
    }
    paths.extend(file.data.image.from.as_mut().map(|path| ("data.image.from", path)));
    paths.extend(file.paths.refused.as_mut().map(|path| ("paths.refused", path)));
    paths.extend(file.worker.command.as_mut().map(|path| ("worker.command", path)));
    let password = file.mail.as_mut().and_then(|mail| mail.password_file.as_mut());
    paths.extend(password.map(|path| ("mail.password_file", path)));
    paths.extend(file.recipe.init.as_mut().map(|path| ("recipe.init", path)));
    paths.extend(file.detect.method.files().into_iter().map(|path| ("detect", path)));
    paths.extend(file.unlearn.files().map(|path| ("unlearn", path)));
    paths
}

/// Makes every path of the file absolute and free of `.` and `..`.
pub(in crate::config) fn make_absolute(file: &mut ConfigFile, base: &Path) {
    for (_, path) in paths(file) {
        *path = tidy(&base.join(&*path));
    }
    if super::is_file(&file.model.architecture) {
        file.model.architecture = tidy(&base.join(&file.model.architecture)).to_string_lossy().into_owned();
    }
}

/// Paths that only a shell would understand. They are not expanded: the daemon runs as another user, whose home is another one, and the same file would
/// name different folders to the two.
pub(in crate::config) fn as_in_a_shell(file: &ConfigFile) -> Vec<Complaint> {
    let mut found = Findings::default();
    let mut copy = file.clone();
    let mut written: Vec<(&str, PathBuf)> = paths(&mut copy).into_iter().map(|(key, path)| (key, path.clone())).collect();
    written.push(("model.architecture", PathBuf::from(&file.model.architecture)));
    for (key, path) in written {
        if let Some(part) = shell_part(&path) {
            found.add(
                key,
                format!("{part:?} is not replaced here as a shell would replace it"),
                "write the path in full, from /: the guard may run as another user, with another home",
            );
        }
    }
    found.0
}

/// The part of a path that a shell would replace: `~` or `~name` in front, `$NAME` or `${NAME}` anywhere.
fn shell_part(path: &Path) -> Option<String> {
    path.components().enumerate().find_map(|(place, part)| {
        let Component::Normal(name) = part else { return None };
        let name = name.to_string_lossy();
        let variable = name
            .split_once('$')
            .is_some_and(|(_, rest)| rest.starts_with(|c: char| c == '{' || c == '_' || c.is_ascii_alphabetic()));
        (variable || place == 0 && name.starts_with('~')).then(|| name.into_owned())
    })
}

/// Takes `.` and `..` out of a path by name only, so that `a/../inbox` and `inbox` compare as equal.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                tidy.pop();
            }
            part => tidy.push(part),
        }
    }
    tidy
}
