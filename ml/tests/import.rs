//! Exported programs (`.pt2`): what is read, against torch's own words; and what a stranger's file may try.
//!
//! To accept a change of a text: `UPDATE_EXPECT=1 cargo test --release -p delta-influence --test import`, then read the difference.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "import/hostile.rs"]
mod hostile;
#[path = "import/pack.rs"]
mod pack;

use delta_influence::files::tensors::read_tensors;
use delta_influence::import::{Archive, Argument, Call, Dim, Output, Program, StateKind};
use expect_test::expect_file;
use pack::{fixture, pack, unpacked};
use std::collections::BTreeSet;
use std::fmt::Write;
use tch::Kind;

fn argument(argument: &Argument) -> String {
    match argument {
        Argument::Tensor(name) | Argument::SymInt(name) => name.clone(),
        Argument::Tensors(names) => format!("[{}]", names.join(", ")),
        Argument::SymInts(sizes) => {
            let size = |size: &Dim| match size {
                Dim::Known(n) => n.to_string(),
                Dim::Value(name) => name.clone(),
            };
            format!("[{}]", sizes.iter().map(size).collect::<Vec<_>>().join(", "))
        }
        other => format!("{other:?}"),
    }
}

/// A program as a person reads it.
fn told(program: &Program) -> String {
    let mut text = format!("input {} {:?}\n", program.input, program.input_shape);
    for (value, state) in &program.state {
        let stored = &program.tensors[&state.name];
        let persistent = if state.persistent { "" } else { ", not in the state dict" };
        writeln!(
            text,
            "{value} = {:?} {} {:?} {:?}{persistent}",
            state.kind, state.name, stored.kind, stored.shape
        )
        .unwrap();
    }
    for call in &program.calls {
        let inputs: Vec<String> = call.inputs.iter().map(|(name, a)| format!("{name}={}", argument(a))).collect();
        let outputs: Vec<String> = call
            .outputs
            .iter()
            .map(|output| match output {
                Output::Tensor(name) | Output::SymInt(name) | Output::SymBool(name) => {
                    format!(
                        "{name}{}",
                        program.values.get(name).map(|v| format!(" {:?}", v.shape)).unwrap_or_default()
                    )
                }
                Output::Tensors(names) => format!("[{}]", names.join(", ")),
                Output::None => "nothing".into(),
            })
            .collect();
        let module = call.module.as_ref().map(|m| format!("  # {m}")).unwrap_or_default();
        writeln!(text, "{} = {}({}){module}", outputs.join(", "), call.target, inputs.join(", ")).unwrap();
    }
    let extra: Vec<&str> = program.extra.keys().map(String::as_str).collect();
    writeln!(text, "output {}\nextra {extra:?}", program.output).unwrap();
    text
}

/// The whole of a program with a part without gradients, autocast switched off, constants, symbolic sizes: read as torch wrote it.
#[test]
fn a_program_is_read_as_torch_wrote_it() {
    let program = Program::read(&fixture("import/odd.pt2")).unwrap();
    expect_file!["snapshots/program.txt"].assert_eq(&told(&program));
    assert_eq!(program.extra["delta-guard/classes.json"].bytes(), br#"["a", "b", "c", "d"]"#);
    assert!(program.torch_version.starts_with("2."));
}

/// Tied weights, views of one storage with an offset, channels-last order, five kinds of numbers: the same values as in torch.
#[test]
fn stored_tensors_are_torchs() {
    let program = Program::read(&fixture("import/odd.pt2")).unwrap();
    let torchs = read_tensors(&std::fs::read(fixture("import/odd.safetensors")).unwrap()).unwrap();
    assert_eq!(program.tensors.keys().collect::<Vec<_>>(), torchs.keys().collect::<Vec<_>>());
    let mut kinds = BTreeSet::new();
    for (name, stored) in &program.tensors {
        let tensor = stored.tensor().unwrap();
        assert_eq!((tensor.kind(), tensor.size()), (torchs[name].kind(), torchs[name].size()), "{name}");
        assert!(tensor.is_contiguous() && tensor == torchs[name], "{name}");
        kinds.insert(format!("{:?}", stored.kind));
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["BFloat16", "Bool", "Float", "Half", "Int64"]);
    // An auxiliary head is state that no call reads.
    let reads = |c: &Call| c.inputs.iter().any(|(_, a)| *a == Argument::Tensor("p_aux_weight".into()));
    assert!(program.state["p_aux_weight"].name == "aux.weight" && !program.calls.iter().any(reads));
    let of = |name: &str| program.state.values().find(|s| s.name == name).unwrap();
    assert_eq!((of("mix.weight").kind, of("mix.weight").persistent), (StateKind::Parameter, true));
    assert_eq!((of("order").kind, of("order").persistent), (StateKind::Buffer, true));
    assert_eq!((of("scale").kind, of("scale").persistent), (StateKind::Buffer, false));
    assert_eq!(
        (of("lifted_tensor_0").kind, of("lifted_tensor_0").persistent),
        (StateKind::Constant, false)
    );
}

/// Every family of classifiers that torch exported for the tests is read, its input's batch free, all state with shapes.
#[test]
fn the_families_of_classifiers_are_read() {
    let mut read = 0;
    for file in std::fs::read_dir(fixture("models")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|e| e != "pt2") {
            continue;
        }
        let program = Program::read(&path).unwrap();
        assert_eq!(program.input_shape.len(), 4, "{path:?}");
        assert!(program.input_shape[0].is_none() && program.input_shape[1..].iter().all(Option::is_some));
        assert!(program.calls.len() > 5 && program.values[&program.output].shape.len() == 2);
        assert!(program.tensors.values().all(|t| t.tensor().unwrap().numel() == t.numel()));
        read += 1;
    }
    assert!(read >= 15, "{read}");
}

/// What other zip writers do: plain headers, sizes after the data in 4 or 8 bytes, 64-bit directories (files over 4 GiB).
#[test]
fn other_forms_of_the_same_archive_are_the_same_program() {
    let wanted = told(&Program::read(&fixture("import/odd.pt2")).unwrap());
    for (later, long) in [(None, false), (Some(4), false), (Some(8), false), (None, true), (Some(8), true)] {
        let mut entries = unpacked();
        entries.iter_mut().for_each(|e| (e.later, e.long) = (later, long));
        let archive = Archive::of(pack(&entries), "m.pt2").unwrap();
        assert_eq!(told(&Program::of(&archive).unwrap()), wanted, "{later:?} {long}");
    }
    // The folder's name is anybody's.
    let mut entries = unpacked();
    entries.iter_mut().for_each(|e| drop(e.name.splice(0..3, *b"archive")));
    assert_eq!(told(&Program::of(&Archive::of(pack(&entries), "m.pt2").unwrap()).unwrap()), wanted);
    assert_eq!(Program::read(&fixture("import/odd.pt2")).unwrap().tensors["f16"].kind, Kind::Half);
}
