//! `check-config`.

use super::{Exit, Global, say};
use crate::config::file::ConfigFile;
use crate::config::{self, Config, ConfigError, EXAMPLE, Look, Tried};
use crate::jobs;
use crate::policy::{self, GateLimits, Mode};
use crate::report::words;
use clap::Args;
use delta_guard_contract::job::CheckResult;
use delta_guard_contract::method::Method;
use delta_guard_contract::verify::UNPROVED;
use delta_guard_contract::{Code, Fault, ImageConfig, JobResult, Resize, Task};
use serde::Serialize;

/// Check the configuration and report every mistake at once, each with its line, what is allowed and what was probably meant
#[derive(Debug, Default, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard check-config --config guard.yaml
  delta-guard check-config --example > guard.yaml        a configuration with every key explained
  delta-guard check-config --schema > guard.schema.json  for editors (YAML language server)
  delta-guard check-config --no-paths --config other-host.yaml

It tries, as the user who runs it, whether each folder can be written and the port can be had, and asks the worker whether checkpoint, network and class folders go
together. Nothing is left behind. It ends with what it understood.

Exit codes: 0 no mistake, 78 mistakes")]
pub struct CheckConfig {
    /// Print the JSON schema of the configuration and check nothing
    #[arg(long, conflicts_with = "example")]
    schema: bool,
    /// Print an example with every key explained and check nothing
    #[arg(long)]
    example: bool,
    /// Do not look at the files and folders that it names: the configuration is for another machine
    #[arg(long)]
    no_paths: bool,
}

impl CheckConfig {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        if self.schema {
            say::json(&config::schema())?;
            return Ok(Exit::Done);
        }
        if self.example {
            say::out(EXAMPLE)?;
            return Ok(Exit::Done);
        }
        let look = if self.no_paths { Look::AtTextOnly } else { Look::AtFiles };
        let checked = match config::load(&global.config, look) {
            Ok(config) if self.no_paths => Ok((config, Tried::default(), None)),
            Ok(config) => try_out(global, config)?,
            Err(error) => Err(error),
        };
        match checked {
            Ok((config, tried, seen)) if global.json => {
                say::json(&serde_json::json!({
                    "ok": true, "path": config.path, "digest": config.digest, "problems": [], "settings": config.settings()?, "warnings": tried.warnings,
                    "tried_as": tried.user, "data_and_model": seen,
                }))?;
                Ok(Exit::Done)
            }
            Ok((config, tried, seen)) => {
                say::out(&understood(&config, &tried, seen.as_ref()))?;
                Ok(Exit::Done)
            }
            Err(error) if global.json => {
                say::json(&serde_json::json!({"ok": false, "path": error.path, "problems": error.problems}))?;
                Ok(Exit::Config)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What was tried, and what the worker saw; or every mistake.
type Checked = Result<(Config, Tried, Option<CheckResult>), ConfigError>;

/// Folders, port, and the worker's look at data and checkpoint.
fn try_out(global: &Global, config: Config) -> anyhow::Result<Checked> {
    let mut tried = config::probe(&config.file);
    let detect = &config.file.detect;
    if !detect.may_unlearn() {
        tried.warnings.push(format!(
            "detect.method is {} without detect.allow_unlearn: cases are only observed, whatever `mode` says",
            detect.method.name()
        ));
    }
    tried.warnings.extend(foreign_recipe(&config.file));
    let folder = tempfile::tempdir()?;
    let task = Task::Check {
        data: config.file.data.clone(),
        model: Some(config.file.model.clone()),
    };
    // Its caches are the guard's: nothing may be put there as another user.
    let mut setup = config.file.worker_setup();
    (setup.cache_dir, setup.factors_dir) = (folder.path().join("cache"), folder.path().join("factors"));
    let seen = match jobs_say(global, &config, setup, folder.path(), task) {
        Ok(JobResult::Check(seen)) => Some(seen),
        Ok(other) => return Err(super::work::unexpected(&other)),
        Err(error) => match error.downcast::<Fault>() {
            Ok(fault) => {
                let key = if fault.code == Code::ModelDiffers {
                    "model.architecture"
                } else if fault.message.contains("data.classes") {
                    "data.classes"
                } else if fault.message.contains("data.validation") {
                    "data.validation"
                } else if fault.message.contains("data.train") {
                    "data.train"
                } else if fault.message.contains(jobs::NOT_STARTED) {
                    "worker"
                } else {
                    "model"
                };
                tried.mistake(key, fault.message, fault.help);
                None
            }
            Err(other) => return Err(other),
        },
    };
    if let Some(seen) = &seen {
        tried.found.extend(seen.device.clone().map(|device| ("computing on", device)));
        tried.warnings.extend(thin_classes(&config, seen));
        proof(&config, seen, &mut tried)?;
        coverage(&config.file, seen, &mut tried);
    }
    Ok(match config.mistakes(&tried.mistakes) {
        Some(error) => Err(error),
        None => Ok((config, tried, seen)),
    })
}

/// A network that answers its owner's pictures otherwise is not guarded; one without such pictures is, with a warning.
fn proof(config: &Config, seen: &CheckResult, tried: &mut Tried) -> anyhow::Result<()> {
    match &seen.proof {
        Some(proof) if proof.agrees() => tried.found.push(("proof", proof.sentence())),
        Some(proof) => tried.mistake("model.architecture", proof.sentence(), proof.help()),
        None if config.settings()?.unproved => tried.warnings.push(format!("model.architecture: {UNPROVED}")),
        None => {}
    }
    Ok(())
}

/// A network of which influence would see too little is not guarded by it.
fn coverage(file: &ConfigFile, seen: &CheckResult, tried: &mut Tried) {
    let Some(tracked) = seen.tracked.as_ref().filter(|_| file.detect.needs().influence().is_some()) else {
        return;
    };
    match tracked.lacking(file.model.min_tracked_share) {
        Some((message, help)) => tried.mistake("model.architecture", message, help),
        None => tried.found.push(("influence on", tracked.sentence())),
    }
}

/// A network of the owner's was hardly trained by our recipe.
fn foreign_recipe(file: &ConfigFile) -> Option<String> {
    let method = &file.unlearn.method;
    let foreign = std::path::Path::new(&file.model.architecture).extension().is_some();
    (foreign && method.own().rests_on_recipe()).then(|| {
        format!(
            "unlearn.method is {}, which trains again by `recipe`: if that is only nearly how this model was trained, the candidate will be worse and is rejected. Take `cf`, or `command` (your own trainer), unless the recipe is exact",
            method.name()
        )
    })
}

fn jobs_say(
    global: &Global,
    config: &Config,
    setup: delta_guard_contract::WorkerSetup,
    folder: &std::path::Path,
    task: Task,
) -> anyhow::Result<JobResult> {
    let quiet = Global {
        quiet: true,
        ..global.clone()
    };
    quiet.work_with(&config.file.worker_path()?, setup, folder, task)
}

/// Classes of which nothing can be decided for want of validation pictures.
fn thin_classes(config: &Config, seen: &CheckResult) -> Option<String> {
    let clean = config.file.detect.needs().validation?;
    let least = u64::from(clean.placebos.min(5));
    let thin: Vec<&str> = seen
        .validation
        .iter()
        .filter(|(_, files)| *files < least)
        .map(|(name, _)| name.as_str())
        .collect();
    let more = if thin.len() > 5 {
        format!(" and {} more", thin.len() - 5)
    } else {
        String::new()
    };
    (!thin.is_empty()).then(|| {
        format!(
            "data.validation: fewer than {least} pictures of {}{more}. Cases that are read as such a class stay undecided: there is nothing to compare with",
            thin[..thin.len().min(5)].join(", ")
        )
    })
}

/// What the configuration means, in a few lines.
fn understood(config: &Config, tried: &Tried, seen: Option<&CheckResult>) -> String {
    let file = &config.file;
    let mut facts: Vec<(&str, String)> = vec![(
        "guard",
        format!(
            "{}, mode {}{}",
            file.instance,
            word(&file.mode),
            if file.owner.is_empty() {
                String::new()
            } else {
                format!(", owner {}", file.owner)
            }
        ),
    )];
    facts.extend(tried.found.iter().map(|(key, said)| (*key, said.clone())));
    facts.extend(data_and_model(file, tried, seen));
    let effort = file.unlearn.method.own().effort(&file.recipe);
    facts.push(("repair", format!("{}: {effort}", file.unlearn.name())));
    facts.extend(gate(&file.gate, seen));
    if file.mode == Mode::Enforce {
        let (caps, percent) = (&file.caps, |share: f64| format!("{:.2} %", 100.0 * share));
        facts.push((
            "by itself",
            format!(
                "takes out at most {} of the examples a case, {} a day, {} since a person agreed, {} of a class; {} promotions a day and submitter",
                percent(caps.max_case_share),
                percent(caps.max_day_share),
                percent(caps.max_total_share),
                percent(caps.max_class_share),
                caps.max_submitter_cases
            ),
        ));
    }
    facts.push((
        "mail",
        file.mail.as_ref().map_or_else(
            || "none: nobody is told of a case".into(),
            |mail| format!("to {} through {}:{}", mail.to.join(", "), mail.host, mail.port),
        ),
    ));
    if !tried.user.is_empty() {
        facts.push(("tried as", tried.user.clone()));
    }
    let mut text = format!("{}: no mistake\n\n{}", say::plain(&config.path.display().to_string()), say::facts(&facts));
    for warning in &tried.warnings {
        text.push_str(&format!("\nwarning: {}\n", say::plain(warning)));
    }
    text
}

/// What a candidate may cost, and of which classes a fall cannot be told from chance.
fn gate(limits: &GateLimits, seen: Option<&CheckResult>) -> Vec<(&'static str, String)> {
    let mut said = format!(
        "accuracy may fall by {:.1} points, that of a class by {:.1}",
        100.0 * limits.max_accuracy_drop,
        100.0 * limits.max_class_drop
    );
    if limits.alpha < 1.0 {
        said.push_str(&format!("; by more only where it may be chance (gate.alpha {})", limits.alpha));
    }
    let mut facts = vec![("gate", said)];
    let sizes: Vec<u64> = seen
        .iter()
        .flat_map(|seen| &seen.validation)
        .map(|(_, files)| *files)
        .filter(|files| *files > 0)
        .collect();
    let few = |least: &u64| sizes.iter().filter(|files| *files < least).count();
    if let Some(least) = policy::needed(limits.max_class_drop, limits.alpha, sizes.len())
        && few(&least) > 0
    {
        facts.push((
            "note",
            format!(
                "{} of {} classes have fewer than {least} validation pictures: that a fall of just over {:.1} points is no chance cannot be said of these",
                few(&least),
                sizes.len(),
                100.0 * limits.max_class_drop
            ),
        ));
    }
    facts
}

fn data_and_model(file: &ConfigFile, tried: &Tried, seen: Option<&CheckResult>) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let set = |listed: &[(String, u64)], path: &std::path::Path| {
        let files: u64 = listed.iter().map(|(_, files)| files).sum();
        let classes = listed.iter().filter(|(_, files)| *files > 0).count();
        if listed.is_empty() {
            path.display().to_string()
        } else {
            format!("{}: {classes} classes, {} files", path.display(), words::thousands(files))
        }
    };
    let none = Vec::new();
    facts.push(("training set", set(seen.map_or(&none, |seen| &seen.train), &file.data.train.path)));
    facts.push((
        "validation set",
        set(seen.map_or(&none, |seen| &seen.validation), &file.data.validation.path),
    ));
    facts.push(("pictures", pictures(&file.data.image)));
    let width = match std::path::Path::new(&file.model.architecture).extension() {
        None => format!(", width {}", file.model.width),
        Some(_) => String::new(),
    };
    facts.push(("network", format!("{}{width}", file.model.architecture)));
    facts.push((
        "checkpoint",
        match seen.and_then(|seen| seen.parameters) {
            Some(numbers) => format!("{}: fits, {} numbers", file.model.checkpoint.display(), words::thousands(numbers)),
            None if tried.user.is_empty() => format!("{} (not looked at)", file.model.checkpoint.display()),
            None => format!(
                "{} (looked at with the first case: the archive must be read for it)",
                file.model.checkpoint.display()
            ),
        },
    ));
    facts.extend(seen.iter().flat_map(|seen| &seen.notes).map(|note| ("note", note.clone())));
    facts
}

/// What the model reads, and how pictures become so.
fn pictures(image: &ImageConfig) -> String {
    if let Some(path) = &image.from {
        return format!("as {} says (not looked at)", path.display());
    }
    let size = match image.channels() {
        1 => format!("{} × {}, grey", image.height, image.width),
        _ => format!("{} × {}", image.height, image.width),
    };
    match &image.steps {
        None => format!("{size}, others: {}", word(&image.resize)),
        Some(steps) if steps.is_empty() => format!("{size}, others: {}", word(&Resize::Refuse)),
        Some(steps) => {
            let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
            format!("{size}, by {}", steps.join(", "))
        }
    }
}

/// A setting's word, as it is written in the file.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(String::from))
        .unwrap_or_default()
}
