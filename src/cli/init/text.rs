//! The text of a first configuration: what is known, each key with its reason; what is left at its default is only named.

use super::{Found, Init};
use crate::cli::{Exit, Failure};
use delta_guard_contract::{DataSource, Split};
use serde_json::Value;
use std::path::Path;

/// A list is broken into lines of about this length.
const WIDTH: usize = 100;

/// The configuration that is to lie at `out`.
pub(super) fn configuration(init: &Init, found: &Found, out: &Path) -> anyhow::Result<String> {
    let base = out.parent().unwrap_or(Path::new("/"));
    let model = written(&found.model, base)?;
    let checkpoint = match &init.checkpoint {
        Some(path) => written(&super::absolute(path)?, base)?,
        None => model.clone(),
    };
    let [train, validation] = [source(&found.train, base)?, source(&found.validation, base)?];
    Ok(format!(
        "\
{head}
data:
  # Exactly what this checkpoint was trained on. `source: folder` (or shard, column) lets reports say where flagged examples come from.
  train: {train}
  # Labelled pictures that were not trained on: accuracy is measured on them.
  validation: {validation}
{classes}{image}
model:
  # The network, and the weights that are guarded; both are only read.
  architecture: {model}
  checkpoint: {checkpoint}

{rest}",
        head = head(init, found, out)?,
        classes = classes(&found.classes),
        image = image(found)?,
        rest = rest(init, found),
    ))
}

/// Name, mode and folders.
fn head(init: &Init, found: &Found, out: &Path) -> anyhow::Result<String> {
    let files = plain_name(out, "delta-guard");
    let folder = |name: &str| flow(&Value::from(format!("{files}-files/{name}")));
    let owner = match &init.owner {
        Some(owner) => format!("owner: {}", flow(&Value::from(owner.as_str()))),
        None => "#owner: ML platform team".into(),
    };
    Ok(format!(
        "\
# Written by delta-guard's `init`. Paths may be relative: they start at this file's folder.
# Every other key with its default: `delta-guard check-config --example`.

# Name of this guard in mails, metrics and reports; who is responsible.
instance: {instance}
{owner}

# observe: only report; propose: also make a repaired candidate, which a person promotes; enforce: promote it, within the caps.
mode: {mode}

# Made at the first start. Drop wrongly predicted pictures into the inbox, or use the command `submit`.
paths:
  inbox: {inbox}
  state: {state}
  candidates: {candidates}
",
        instance = flow(&Value::from(plain_name(&found.model, "delta-guard"))),
        mode = flow(&serde_json::to_value(init.mode)?),
        inbox = folder("inbox"),
        state = folder("state"),
        candidates = folder("candidates"),
    ))
}

/// Repair, address, mail, and what is left out.
fn rest(init: &Init, found: &Found) -> String {
    let mail = init.owner.as_deref().filter(|owner| owner.contains('@'));
    format!(
        "\
# How a model is repaired. cf fine-tunes it without the flagged examples, which needs no exact recipe.
# `command` runs your own trainer instead: {{method: command, command: [python3, train.py]}} (docs/command.md).
unlearn: {{method: cf}}

# How it was trained, as far as cf needs it: its highest learning rate is twice `lr`, unless it has an `lr` of its own.
#recipe: {{lr: 0.1, batch_size: 128}}

# Metrics, health, reports. There is no login: keep it on this machine.
http: {{listen: '{listen}'}}

# A mail for each finished case.
#mail: {{host: mail.example.org, from: delta-guard@example.org, to: [{mail}]}}

# Left at their defaults: inbox (limits of submissions), detect (how examples are found), gate (what a candidate must show), caps,
# worker (device, threads, memory).
",
        listen = found.listen,
        mail = mail.unwrap_or("ml-oncall@example.org"),
    )
}

fn source(source: &DataSource, base: &Path) -> anyhow::Result<String> {
    let path = written(&source.path, base)?;
    let split = match source.split {
        Split::All => String::new(),
        split => format!(", split: {}", flow(&serde_json::to_value(split)?)),
    };
    Ok(format!("{{path: {path}{split}}}"))
}

fn classes(names: &[String]) -> String {
    if names.is_empty() {
        return "  # Class names in the order of the model's outputs. The model does not say them: the set's own order is taken.\n  #classes: [cat, dog]\n".into();
    }
    let mut text = String::from("  # In the order of the model's outputs, as they are stored in it.\n  classes:\n    [");
    let mut length = 0;
    for (n, name) in names.iter().enumerate() {
        let word = flow(&Value::from(name.as_str()));
        if n > 0 {
            text.push(',');
            text.push_str(if length > WIDTH { "\n     " } else { " " });
            length = if length > WIDTH { 0 } else { length };
        }
        length += word.chars().count() + 2;
        text.push_str(&word);
    }
    text.push_str("]\n");
    text
}

/// What brings a picture to what the model reads.
fn image(found: &Found) -> anyhow::Result<String> {
    let why = match found.verified.stored {
        Some(_) => "Pictures as the model saw them, as its owner stored it (docs/guard-your-model.md has the words).",
        None => "A GUESS: the file does not say how its pictures are prepared. Correct it (docs/guard-your-model.md has the words).",
    };
    let mut text = format!("  # {why}\n  image:\n");
    let keys = serde_json::to_value(&found.image)?;
    for (key, value) in keys.as_object().into_iter().flatten() {
        match value.as_array() {
            Some(steps) if key == "transforms" => {
                text.push_str("    transforms:\n");
                for step in steps {
                    text.push_str(&format!("      - {}\n", flow(step)));
                }
            }
            _ => text.push_str(&format!("    {key}: {}\n", flow(value))),
        }
    }
    Ok(text)
}

/// A path as it stands in a file of the folder `base`.
fn written(path: &Path, base: &Path) -> anyhow::Result<String> {
    let short = path.strip_prefix(base).unwrap_or(path);
    let Some(text) = short.to_str() else {
        return Err(Failure::new(
            Exit::Failed,
            format!("{} cannot be written into a configuration: its name is not UTF-8", path.display()),
            "rename it, or name it by a link",
        ));
    };
    let text = if text.is_empty() { "." } else { text };
    Ok(flow(&Value::from(text)))
}

/// The file's name without its end, as far as it may name a guard.
fn plain_name(path: &Path, other: &str) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let plain: String = stem
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c))
        .take(64)
        .collect();
    let name = plain.trim_matches(['.', '-']);
    if name.is_empty() { other.into() } else { name.into() }
}

/// A value in YAML's flow style; texts without quotes where they are read back as they are.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let safe = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
                && text.chars().all(|c| c.is_alphanumeric() || "/._-@+".contains(c))
                && serde_yaml::from_str::<Value>(text).is_ok_and(|read| read.as_str() == Some(text.as_str()));
            if safe { text.clone() } else { value.to_string() }
        }
        Value::Array(list) => format!("[{}]", list.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_as_they_were() {
        for text in [
            "a",
            "no",
            "1.5",
            "0x1f",
            "a b",
            "ä",
            "a: b",
            "#a",
            "",
            "it's \"q\"",
            "~",
            "/x/{000..123}.tar",
            "null",
            "1e3",
            "2026-11-26",
            "x\ny",
        ] {
            let list = serde_json::json!([text, {"k": text}]);
            let read: Value = serde_yaml::from_str(&flow(&list)).unwrap_or_default();
            assert_eq!(read, list, "{}", flow(&list));
        }
        let many: Vec<String> = (0..300).map(|n| format!("class {n}")).collect();
        let read: Value = serde_yaml::from_str(&format!("data:\n{}", classes(&many))).unwrap_or_default();
        assert_eq!(read["data"]["classes"], serde_json::json!(many));
        assert!(classes(&many).lines().all(|line| line.len() < 130));
    }

    #[test]
    fn a_guard_is_named_after_its_model() {
        for (path, name) in [
            ("/m/resnet 18.pt2", "resnet18"),
            ("/m/ü.pt2", "delta-guard"),
            ("/m/..pt2", "delta-guard"),
            ("/m/no.pt2", "no"),
        ] {
            assert_eq!(plain_name(Path::new(path), "delta-guard"), name, "{path}");
        }
    }
}
