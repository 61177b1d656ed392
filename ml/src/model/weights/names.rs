//! The names in a checkpoint and those of a network: what stands before them (`module.` of data parallelism, `_orig_mod.` of torch.compile, …), and what lies beside.

use crate::error::{Error, Result};
use delta_guard_contract::Code;
use std::collections::{BTreeMap, BTreeSet};

/// What PyTorch, Lightning and people put before a network's names; any number of them, in any order.
const WRAPPERS: [&str; 4] = ["module.", "_orig_mod.", "model.", "net."];
/// What lies beside a network whose own names have nothing before them: averaged copies, the optimiser's state.
const BESIDE: [&str; 9] = [
    "ema.",
    "ema_model.",
    "model_ema.",
    "state_dict_ema.",
    "optimizer.",
    "optimizer_states.",
    "optimizer_state_dict.",
    "scheduler.",
    "lr_schedulers.",
];

/// How a checkpoint's names stand for a network's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// Stands before each of the network's names.
    pub(super) prefix: String,
    /// Names that lie outside: they are nobody's here.
    pub(super) beside: Vec<String>,
}

/// What an owner says stands before the names, with or without its dot.
pub(super) fn with_dot(asked: &str) -> String {
    if asked.is_empty() || asked.ends_with('.') {
        asked.to_string()
    } else {
        format!("{asked}.")
    }
}

/// A name that a network needs; PyTorch lets batch norm's counter be missing.
fn needed(name: &str) -> bool {
    !name.ends_with("num_batches_tracked")
}

impl Names {
    /// Find a network's names among a file's. `asked`: what the owner says stands before them.
    ///
    /// # Errors
    /// `CheckpointUnusable`: some are missing, others too many, or the network is there several times.
    pub(super) fn find(file: &BTreeSet<&str>, network: &BTreeSet<&str>, asked: Option<&str>) -> Result<Self> {
        let asked = asked.map(with_dot);
        let allowed = |prefix: &str| match &asked {
            Some(asked) => prefix.strip_prefix(asked.as_str()).is_some_and(is_wrapping),
            None => is_wrapping(prefix),
        };
        let counts = prefixes(file, network);
        let all = network.iter().filter(|name| needed(name)).count();
        let (mut whole, mut elsewhere): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
        for (prefix, _) in counts.iter().filter(|(_, count)| **count == all) {
            if allowed(prefix) { &mut whole } else { &mut elsewhere }.push(prefix);
        }
        // Exactly what was asked for, or the plain names, before anything with more in front.
        let exact = asked.clone().unwrap_or_default();
        let prefix = match whole[..] {
            [one] => one.to_string(),
            [] => return Err(not_there(&counts, &elsewhere, network, file, asked.as_deref())),
            _ if asked.is_some() && whole.contains(&exact.as_str()) => exact,
            _ => return Err(several(&whole)),
        };
        Self::within(prefix, file, network)
    }

    /// What else the file holds: beside the network, or among its names, where nothing may be.
    fn within(prefix: String, file: &BTreeSet<&str>, network: &BTreeSet<&str>) -> Result<Self> {
        let outside = |name: &&&str| {
            if prefix.is_empty() {
                BESIDE.iter().any(|start| name.starts_with(start))
            } else {
                !name.starts_with(&prefix)
            }
        };
        let own = |name: &&&str| name.strip_prefix(&prefix).is_some_and(|rest| network.contains(rest));
        let (beside, odd): (Vec<&str>, Vec<&str>) = file.iter().filter(|name| !own(name)).partition(|name| outside(name));
        if !odd.is_empty() {
            return Err(Error::new(
                Code::CheckpointUnusable,
                format!("{} too many: {}", plural(odd.len(), "tensor"), list(&odd)),
                HELP,
            ));
        }
        let beside = beside.into_iter().map(String::from).collect();
        Ok(Self { prefix, beside })
    }

    /// What a person should know of them: one sentence each.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.prefix.is_empty() {
            notes.push(format!(
                "the network's tensors are those under `{}`; candidates have the same names",
                self.prefix
            ));
        }
        if !self.beside.is_empty() {
            let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
            for name in &self.beside {
                *groups.entry(name.split_inclusive('.').next().unwrap_or(name)).or_default() += 1;
            }
            let groups: Vec<String> = groups.iter().take(5).map(|(start, n)| format!("{n} under `{start}`")).collect();
            notes.push(format!(
                "{} beside the network: {}. They are kept in candidates as they are, and are not repaired",
                plural(self.beside.len(), "tensor"),
                groups.join(", ")
            ));
        }
        notes
    }
}

/// What to do where names do not fit.
pub(super) const HELP: &str = "model.checkpoint must be the state dict of model.architecture with model.width and model.stem, saved as safetensors; \
                               model.prefix says what stands before the network's names";

/// How many of the needed names a file has behind each prefix that any name has there.
fn prefixes(file: &BTreeSet<&str>, network: &BTreeSet<&str>) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in file {
        let starts = [0].into_iter().chain(name.match_indices('.').map(|(at, _)| at + 1));
        for start in starts.filter(|start| network.contains(&name[*start..]) && needed(&name[*start..])) {
            *counts.entry(name[..start].into()).or_default() += 1;
        }
    }
    counts
}

/// Is a prefix made of known ones only?
fn is_wrapping(prefix: &str) -> bool {
    prefix.is_empty() || WRAPPERS.iter().any(|start| prefix.strip_prefix(start).is_some_and(is_wrapping))
}

fn several(prefixes: &[&str]) -> Error {
    let quoted: Vec<String> = prefixes.iter().map(|p| format!("'{p}'")).collect();
    Error::new(
        Code::CheckpointUnusable,
        format!("it holds the network {} times, under the prefixes {}", quoted.len(), quoted.join(" and ")),
        format!("say which is in use: model.prefix: {}", quoted[0]),
    )
}

/// The network is not whole under any prefix that is allowed: where else it is, or what is missing.
fn not_there(counts: &BTreeMap<String, usize>, elsewhere: &[&str], network: &BTreeSet<&str>, file: &BTreeSet<&str>, asked: Option<&str>) -> Error {
    if let Some(other) = elsewhere.first() {
        let instead = asked.map(|asked| format!(", not under '{asked}'")).unwrap_or_default();
        return Error::new(
            Code::CheckpointUnusable,
            format!("the network's tensors are there under '{other}'{instead}"),
            format!("if that is the network that is in use, say so: model.prefix: '{other}'"),
        );
    }
    // The prefix under which most are there, those that may stand there first; of equals the shortest.
    let best = counts.iter().filter(|(prefix, _)| asked.is_none_or(|asked| prefix.starts_with(asked)));
    let best = best.max_by_key(|(prefix, count)| (is_wrapping(prefix), **count, usize::MAX - prefix.len()));
    let prefix = best.map_or(asked.unwrap_or_default(), |(prefix, _)| prefix);
    let names: Vec<String> = network.iter().filter(|name| needed(name)).map(|name| format!("{prefix}{name}")).collect();
    let missing: Vec<&str> = names.iter().map(String::as_str).filter(|name| !file.contains(name)).collect();
    Error::new(
        Code::CheckpointUnusable,
        format!("{} missing: {}", plural(missing.len(), "tensor"), list(&missing)),
        HELP,
    )
}

pub(super) fn plural(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

fn list(names: &[&str]) -> String {
    let shown = names[..names.len().min(5)].join(", ");
    if names.len() > 5 { format!("{shown}, …") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: [&str; 3] = ["bn.num_batches_tracked", "fc.bias", "model.fc.weight"];

    fn find(file: &[&str], asked: Option<&str>) -> std::result::Result<Names, String> {
        let found = Names::find(&file.iter().copied().collect(), &NETWORK.into_iter().collect(), asked);
        found.map_err(|error| error.to_string())
    }

    fn names(prefix: &str) -> Vec<String> {
        NETWORK.iter().map(|name| format!("{prefix}{name}")).collect()
    }

    fn with(all: &[Vec<String>]) -> Vec<&str> {
        all.iter().flatten().map(String::as_str).collect()
    }

    #[test]
    fn wrappers_are_seen_through_in_any_number() {
        for prefix in [
            "",
            "module.",
            "_orig_mod.",
            "model.",
            "net.",
            "module._orig_mod.",
            "model.net.module.",
            "module.module.",
        ] {
            let found = find(&with(&[names(prefix)]), None).unwrap();
            assert_eq!((found.prefix.as_str(), found.beside.len()), (prefix, 0));
            assert_eq!(found.notes().len(), usize::from(!prefix.is_empty()));
        }
        let without_counter = ["module.fc.bias", "module.model.fc.weight"];
        assert_eq!(find(&without_counter, None).unwrap().prefix, "module.");
        let told = find(&with(&[names("backbone.")]), None).unwrap_err();
        assert!(told.contains("under 'backbone.'") && told.contains("model.prefix: 'backbone.'"), "{told}");
    }

    #[test]
    fn what_is_asked_for_is_taken_and_the_rest_left() {
        let both = [names("model."), names("ema.module."), vec!["optimizer.step".into(), "loss.weight".into()]];
        let file = with(&both);
        let found = find(&file, None).unwrap();
        assert_eq!((found.prefix.as_str(), found.beside.len()), ("model.", 5));
        let note = found.notes()[1].clone();
        assert!(
            note.contains("5 tensors") && note.contains("3 under `ema.`") && note.contains("not repaired"),
            "{note}"
        );
        for asked in ["ema", "ema.", "ema.module."] {
            assert_eq!(find(&file, Some(asked)).unwrap().prefix, "ema.module.", "{asked}");
        }
        let told = find(&file, Some("teacher")).unwrap_err();
        assert!(told.contains("not under 'teacher.'"), "{told}");
        // Plain names: only known kinds of things lie beside.
        let plain = [names(""), names("ema."), vec!["optimizer.step".into()]];
        assert_eq!(find(&with(&plain), None).unwrap().beside.len(), 4);
        let told = find(&with(&[names(""), vec!["head.weight".into()]]), None).unwrap_err();
        assert!(told.contains("1 tensor too many: head.weight"), "{told}");
        let told = find(&with(&[names("net."), vec!["net.head".into()]]), None).unwrap_err();
        assert!(told.contains("too many: net.head"), "{told}");
    }

    #[test]
    fn what_is_incomplete_or_double_is_told() {
        let told = find(&["module.fc.bias", "ema.fc.bias", "module.x"], None).unwrap_err();
        assert!(told.contains("1 tensor missing: module.model.fc.weight"), "{told}");
        let told = find(&["fc.bias", "optimizer.step"], None).unwrap_err();
        assert!(told.contains("1 tensor missing: model.fc.weight"), "{told}");
        let twice = [names("module."), names("net.")];
        let told = find(&with(&twice), None).unwrap_err();
        assert!(
            told.contains("2 times") && told.contains("'module.' and 'net.'") && told.contains("model.prefix: 'module.'"),
            "{told}"
        );
        assert_eq!(find(&with(&twice), Some("net")).unwrap().prefix, "net.");
        let plain = [names(""), names("module.")];
        assert!(find(&with(&plain), None).unwrap_err().contains("2 times"));
        assert_eq!(find(&with(&[names(""), names("ema.")]), Some("")).unwrap().prefix, "");
        assert!(find(&[], None).unwrap_err().contains("2 tensors missing"));
    }
}
