//! What no schema can say: how keys depend on each other, and on the files that they name.

mod command;
mod mail;
mod paths;
mod pictures;

pub(super) use paths::{as_in_a_shell, make_absolute};
pub(super) use pictures::{image_from_file, image_keys};

use super::Look;
use super::check::{Complaint, nearest};
use super::file::ConfigFile;
use super::tree::{KeyStep, Mark};
use crate::policy::Mode;
use delta_guard_contract::method::{Method, Mistake};
use delta_guard_contract::{ClassNames, in_braces, mistaken};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Architectures that are known by name; anything else is the path of a graph file or an exported model.
const ARCHITECTURES: [&str; 3] = ["resnet18", "small-cnn", "fixture"];

/// Is the network described by a file?
pub(super) fn is_file(architecture: &str) -> bool {
    [".json", ".pt2"].iter().any(|end| architecture.ends_with(end))
}

/// Collects findings under dotted paths.
#[derive(Default)]
struct Findings(Vec<Complaint>);

impl Findings {
    fn add(&mut self, path: &str, what: impl Into<String>, help: impl Into<String>) {
        let path = path
            .split('.')
            .map(|key| key.parse().map_or_else(|_| KeyStep::Key(key.into()), KeyStep::Index))
            .collect();
        self.0.push(Complaint {
            path,
            mark: Mark::Value,
            what: what.into(),
            help: help.into(),
        });
    }
    fn unless(&mut self, holds: bool, path: &str, what: impl Into<String>, help: impl Into<String>) {
        if !holds {
            self.add(path, what, help);
        }
    }
    /// Rules that are the contract's: the worker holds its job against them, too.
    fn take(&mut self, section: &str, broken: Vec<Mistake>) {
        for mistake in broken {
            let mistake = mistake.below(section);
            self.add(&mistake.key, mistake.what, mistake.help);
        }
    }
}

/// Every broken rule.
pub(super) fn check(file: &ConfigFile, look: Look) -> Vec<Complaint> {
    let mut found = Findings::default();
    places(file, &mut found);
    numbers(file, &mut found);
    found.take("recipe", file.recipe.check());
    found.take("unlearn", file.unlearn.check());
    command::times(file, &mut found);
    found.take("detect", file.detect.check());
    if let Some(url) = &file.http.public_url
        && host_of(url).is_none()
    {
        found.add(
            "http.public_url",
            format!("{url:?} is not an address of the web"),
            "write https:// or http://, a name, and a path if there is one, such as https://guard.example.org/models",
        );
    }
    if let Some(mail) = &file.mail {
        mail::check(mail, look, &mut found);
    }
    if look == Look::AtFiles {
        files(file, &mut found);
    }
    found.0
}

/// Names and folders.
fn places(file: &ConfigFile, found: &mut Findings) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    found.unless(
        !file.instance.is_empty() && file.instance.len() <= 64 && file.instance.chars().all(plain),
        "instance",
        "not a plain name",
        "1 to 64 letters, digits, dots, dashes and underscores: it becomes part of mail and metric names",
    );
    let mut folders = vec![
        ("paths.inbox", &file.paths.inbox),
        ("paths.state", &file.paths.state),
        ("paths.candidates", &file.paths.candidates),
    ];
    folders.extend(file.paths.refused.as_ref().map(|refused| ("paths.refused", refused)));
    for (i, (key, path)) in folders.iter().enumerate() {
        for (other_key, other) in &folders[..i] {
            if path == other {
                found.add(
                    key,
                    format!("is the same folder as {other_key}"),
                    "give each its own folder: others write to the inbox, only the guard writes to the rest",
                );
            } else if path.starts_with(other) || other.starts_with(path) {
                found.add(
                    key,
                    format!("lies inside or around {other_key} ({})", other.display()),
                    "put the two side by side: who may write to one must not reach the other",
                );
            }
        }
        if let Some(parent) = file.model.checkpoint.parent().filter(|parent| parent.starts_with(path)) {
            found.add(
                "model.checkpoint",
                format!("lies inside {key} ({})", parent.display()),
                "keep the production checkpoint outside the guard's folders: it is only ever read",
            );
        }
    }
    let (train, validation) = (&file.data.train, &file.data.validation);
    found.unless(
        train.path != validation.path || train.split != validation.split,
        "data.validation.path",
        "is the training set itself",
        "name pictures that the model was not trained on, or set data.train.split and data.validation.split to train and test",
    );
    let architecture = &file.model.architecture;
    if !ARCHITECTURES.contains(&architecture.as_str()) && !is_file(architecture) {
        let meant = nearest(architecture, ARCHITECTURES)
            .map(|name| format!("did you mean {name:?}? "))
            .unwrap_or_default();
        found.add(
            "model.architecture",
            format!("{architecture:?} is not known"),
            format!(
                "{meant}allowed: {}, or the path of an exported model (*.pt2, docs/guard-your-model.md) or a graph file (*.json)",
                ARCHITECTURES.join(", ")
            ),
        );
    }
}

/// Ranges that depend on another key, or that a schema cannot write.
fn numbers(file: &ConfigFile, found: &mut Findings) {
    found.unless(
        file.mode != Mode::Enforce || file.detect.may_unlearn(),
        "detect.method",
        format!("`{}` only reports, but mode is `enforce`", file.detect.method.name()),
        "take detect.method guard, or mode observe; to let it repair all the same, set detect.allow_unlearn to true: such a method flags clean examples, too",
    );
    found.unless(
        file.inbox.max_bytes.0 > 0,
        "inbox.max_bytes",
        "is zero",
        "no picture fits into that; the default is 64MiB",
    );
    worker(file, found);
}

fn worker(file: &ConfigFile, found: &mut Findings) {
    found.unless(
        file.worker.memory_budget.0 >= 16 << 20,
        "worker.memory_budget",
        "is less than 16MiB",
        "one example of one layer must fit; the default is 1GiB",
    );
    found.unless(
        file.worker
            .memory_limit
            .is_none_or(|limit| limit.0 >= file.worker.memory_budget.0.saturating_mul(2).max(1 << 30)),
        "worker.memory_limit",
        "is less than 1GiB, or less than twice worker.memory_budget",
        "the model, the data and the results need room beside the working tensors; without the key it is nine tenths of the machine's memory",
    );
    let limits = &file.worker.time_limits;
    for (name, span) in [
        ("inbox.scan_interval", file.inbox.scan_interval),
        ("worker.stop_grace", file.worker.stop_grace),
        ("worker.time_limits.predict", limits.predict),
        ("worker.time_limits.fit", limits.fit),
        ("worker.time_limits.trace", limits.trace),
        ("worker.time_limits.unlearn", limits.unlearn),
        ("worker.time_limits.certify", limits.certify),
    ] {
        found.unless(!span.0.is_zero(), name, "is zero", "write a length of time above zero, such as 10m");
    }
}

/// The name and port in an address of the web; None where it is none that a link could be made of.
pub(crate) fn host_of(url: &str) -> Option<String> {
    let uri: axum::http::Uri = url.parse().ok()?;
    let plain = |c: char| c.is_ascii_graphic() && !"<>\"\\^`{|}?#".contains(c);
    (matches!(uri.scheme_str(), Some("https" | "http")) && url.chars().all(plain)).then_some(())?;
    Some(uri.authority().filter(|authority| !authority.as_str().contains('@'))?.to_string())
}

/// What people have in the place of a checkpoint (a pickle, a Git LFS pointer, a web page) is told by its first bytes; tensors are the worker's.
fn not_a_checkpoint(key: &str, path: &Path, found: &mut Findings) {
    let mut head = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, mistaken::HEAD as u64), &mut head));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // What cannot be read is told by the caller.
    if read.is_ok()
        && let Some(other) = mistaken::mistaken(&head, &name).filter(|other| other.known)
    {
        found.add(
            key,
            format!("{} is not a safetensors file: the file is {}", path.display(), other.what),
            other.help,
        );
    }
}

/// What the section `data` names.
fn data(file: &ConfigFile, found: &mut Findings) {
    for (key, path) in [
        ("data.train.path", &file.data.train.path),
        ("data.validation.path", &file.data.validation.path),
    ] {
        // A range in braces: the first file that it names; the worker looks at all.
        let first = match in_braces(path) {
            Some(Ok(files)) if !path.exists() => files.into_iter().next(),
            Some(Err(error)) if !path.exists() => {
                found.add(key, format!("{}: {error}", path.display()), "write the range as {000..123}");
                continue;
            }
            _ => None,
        };
        let path = first.as_deref().unwrap_or(path);
        if let Err(error) = std::fs::metadata(path) {
            found.add(
                key,
                format!("{} cannot be read: {error}", path.display()),
                "name a folder with one sub-folder per class, a tar file, a list of pictures, or a folder of CIFAR batches",
            );
        }
    }
    if let Some(ClassNames::File(path)) = &file.data.classes
        && let Err(error) = std::fs::File::open(path)
    {
        found.add(
            "data.classes",
            format!("{} cannot be read: {error}", path.display()),
            "name the classes in a list, or a file with one name a line",
        );
    }
}

/// Files and folders that must be there.
fn files(file: &ConfigFile, found: &mut Findings) {
    data(file, found);
    if let Some(group) = &file.paths.group
        && let Err(error) = crate::rights::group(group)
    {
        found.add(
            "paths.group",
            format!("{error:#}"),
            "name a group of this machine that the guard's user is a member of, or leave the key out",
        );
    }
    let help = "name the production model's weights as a safetensors file that the guard's user can read (the section 'On your own model' of the README tells how to write one)";
    checkpoint("model.checkpoint", &file.model.checkpoint, help, found);
    if let Some(init) = &file.recipe.init {
        let help = "name the weights that training began with as a safetensors file, or leave the key out where it began with random ones";
        checkpoint("recipe.init", init, help, found);
    }
    for path in file.detect.method.clone().files() {
        let help = "name a safetensors file that the guard's user can read (docs/configuration.md says how the detector's is made)";
        checkpoint("detect", path, help, found);
    }
    if is_file(&file.model.architecture)
        && let Err(error) = std::fs::File::open(&file.model.architecture)
    {
        let help = match file.model.architecture.ends_with(".pt2") {
            true => "`torch.export.save` writes such a file: docs/guard-your-model.md has the two lines",
            false => "`delta-guard graph --classes NUMBER --out FILE.json` writes such a file",
        };
        found.add("model.architecture", format!("{} cannot be read: {error}", file.model.architecture), help);
    }
    command::is_there(file, found);
    program_and_folders(file, found);
}

/// A checkpoint must be a file that can be read, and none of what people take for one.
fn checkpoint(key: &str, path: &Path, help: &str, found: &mut Findings) {
    let readable = std::fs::metadata(path).map_err(|error| error.to_string()).and_then(|meta| {
        if !meta.is_file() {
            return Err("not a file".into());
        }
        if meta.len() == 0 {
            return Err("the file is empty".into());
        }
        std::fs::File::open(path).map(drop).map_err(|error| error.to_string())
    });
    match readable {
        Ok(()) => not_a_checkpoint(key, path, found),
        Err(error) => found.add(key, format!("{} cannot be read: {error}", path.display()), help),
    }
}

fn program_and_folders(file: &ConfigFile, found: &mut Findings) {
    if let Some(command) = &file.worker.command {
        found.unless(
            command::runs(command),
            "worker.command",
            format!("{} is not a program", command.display()),
            "name delta-guard-worker, or remove the key to take the one beside delta-guard",
        );
    }
    for (key, path) in [
        ("paths.inbox", &file.paths.inbox),
        ("paths.state", &file.paths.state),
        ("paths.candidates", &file.paths.candidates),
    ] {
        if std::fs::metadata(path).is_ok_and(|meta| !meta.is_dir()) {
            found.add(
                key,
                format!("{} is not a folder", path.display()),
                "name a folder; it is made if it is missing",
            );
        }
    }
}

/// A configuration that anyone can write is one that anyone can use to train and promote.
pub(super) fn not_world_writable(path: &Path) -> Result<(), String> {
    let mode = std::fs::metadata(path)
        .map_err(|error| format!("cannot be read: {error}"))?
        .permissions()
        .mode();
    if mode & 0o002 == 0 {
        Ok(())
    } else {
        Err(format!("everyone may write it (mode {:o})", mode & 0o7777))
    }
}
