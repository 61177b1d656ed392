//! Which values of a program share memory, and which the pictures reach: what must be known to leave out changes in place.

use super::super::aten;
use super::unusable;
use crate::error::Result;
use crate::import::{Argument, Call, Dim, Output, Program};
use std::collections::{HashMap, HashSet};

const HELP: &str = "write that step without changing a part of a tensor in place (a new tensor with torch.cat or torch.where)";

/// What is known of the values of a program, call by call.
pub(super) struct Memory {
    /// The last call that reads a value; the output is read after all.
    last_read: HashMap<String, usize>,
    /// Values that the pictures reach.
    depends: HashSet<String>,
    /// The value whose memory a value may share; itself where there is none.
    root: HashMap<String, String>,
    /// Values that a later one took the place of.
    replaced: HashMap<String, String>,
    /// Values that are part of the state.
    state: HashSet<String>,
}

impl Memory {
    pub(super) fn new(program: &Program) -> Self {
        let mut last_read = HashMap::new();
        for (place, call) in program.calls.iter().enumerate() {
            for name in call.inputs.iter().flat_map(|(_, argument)| read(argument)) {
                last_read.insert(name.to_string(), place);
            }
        }
        last_read.insert(program.output.clone(), program.calls.len());
        let state: HashSet<String> = program.state.keys().cloned().collect();
        let root = state.iter().chain([&program.input]).map(|name| (name.clone(), name.clone())).collect();
        Self {
            last_read,
            depends: HashSet::from([program.input.clone()]),
            root,
            replaced: HashMap::new(),
            state,
        }
    }

    /// What stands in a value's place now.
    pub(super) fn now(&self, name: &str) -> String {
        let mut name = name;
        while let Some(later) = self.replaced.get(name) {
            name = later;
        }
        name.into()
    }

    pub(super) fn was_changed(&self, name: &str) -> bool {
        self.replaced.contains_key(name)
    }

    fn root(&self, name: &str) -> String {
        self.root.get(name).cloned().unwrap_or_else(|| name.into())
    }

    /// Call `place` changes its first argument: may that be left out (`false`), or must it be done (`true`)?
    ///
    /// # Errors
    /// Another value shares the memory and is read later; a part of the state would be changed.
    pub(super) fn change(&self, place: usize, call: &Call) -> Result<bool> {
        let Some((_, Argument::Tensor(changed))) = call.inputs.first() else {
            return Err(unusable("it changes something that is no tensor".into(), HELP));
        };
        let root = self.root(changed);
        let reached = self.depends.contains(changed) || call.inputs.iter().flat_map(|(_, a)| read(a)).any(|name| self.depends.contains(name));
        if !reached {
            if self.state.contains(&root) {
                return Err(unusable(format!("it changes `{root}`, a part of the model's state"), HELP));
            }
            return Ok(true);
        }
        let current = self.now(changed);
        let later = |name: &str| self.last_read.get(name).is_some_and(|&last| last > place);
        let other = self
            .root
            .iter()
            .find(|(name, of)| **of == root && self.now(name) != current && later(name));
        match other {
            Some((other, _)) => Err(unusable(
                format!("it changes `{changed}` in place, and `{other}`, which shares its memory, is read later"),
                HELP,
            )),
            None => Ok(false),
        }
    }

    /// Take note of what a call yields. `changes`: its outcome takes the place of its first argument.
    pub(super) fn yields(&mut self, call: &Call, twin: &str, changes: bool) {
        let first = call
            .inputs
            .first()
            .and_then(|(_, argument)| read(argument).first().map(|name| (*name).to_string()));
        let skip = usize::from(aten::ignores_numbers(twin));
        let reached = call
            .inputs
            .iter()
            .skip(skip)
            .flat_map(|(_, a)| read(a))
            .any(|name| self.depends.contains(name));
        let shares = changes || aten::may_share(twin);
        for output in call.outputs.iter().flat_map(outputs) {
            if reached {
                self.depends.insert(output.to_string());
            }
            let root = match &first {
                Some(first) if shares => self.root(first),
                _ => output.to_string(),
            };
            self.root.insert(output.to_string(), root);
            if let (true, Some(first)) = (changes, &first) {
                let current = self.now(first);
                if current != output {
                    self.replaced.insert(current, output.to_string());
                }
            }
        }
    }
}

fn outputs(output: &Output) -> Vec<&str> {
    match output {
        Output::Tensor(name) | Output::SymInt(name) | Output::SymBool(name) => vec![name],
        Output::Tensors(names) => names.iter().map(String::as_str).collect(),
        Output::None => Vec::new(),
    }
}

fn read(argument: &Argument) -> Vec<&str> {
    match argument {
        Argument::Tensor(name) | Argument::SymInt(name) | Argument::SymBool(name) => vec![name],
        Argument::Tensors(names) => names.iter().map(String::as_str).collect(),
        Argument::OptionalTensors(names) => names.iter().flatten().map(String::as_str).collect(),
        Argument::SymInts(dims) => dims
            .iter()
            .filter_map(|dim| match dim {
                Dim::Value(name) => Some(name.as_str()),
                Dim::Known(_) => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}
