//! Files that lie: each is an error with the place, and nothing is allocated on their word.

use crate::pack::{Packed, edit, find, named, pack, unpacked};
use delta_guard_contract::Code;
use delta_influence::import::{Archive, Program};
use expect_test::expect_file;
use serde_json::{Value, json};

const MODEL: &str = "models/model.json";
const WEIGHTS: &str = "data/weights/model_weights_config.json";

/// Reads, and must be told of what is wrong in words that hold all of `words`.
struct Told {
    text: String,
}

impl Told {
    fn bytes(&mut self, what: &str, bytes: Vec<u8>, words: &[&str]) {
        let read = Archive::of(bytes, "m.pt2").and_then(|archive| Program::of(&archive));
        let fault = match read {
            Ok(_) => panic!("{what}: read"),
            Err(error) => error.fault().clone(),
        };
        assert_eq!(fault.code, Code::ProgramUnusable, "{what}: {fault:?}");
        assert!(
            words.iter().all(|w| fault.message.contains(w)) && !fault.help.is_empty(),
            "{what}: {fault:?}"
        );
        self.text += &format!("{what}\n  {}\n  help: {}\n", fault.message, fault.help);
    }

    fn entries(&mut self, what: &str, change: impl FnOnce(&mut Vec<Packed>), words: &[&str]) {
        let mut entries = unpacked();
        change(&mut entries);
        self.bytes(what, pack(&entries), words);
    }

    fn graph(&mut self, what: &str, change: impl FnOnce(&mut Value), words: &[&str]) {
        self.entries(what, |e| edit(e, MODEL, |v| change(&mut v["graph_module"])), words);
    }

    fn weight(&mut self, what: &str, name: &str, change: impl FnOnce(&mut Value), words: &[&str]) {
        self.entries(what, |e| edit(e, WEIGHTS, |v| change(&mut v["config"][name])), words);
    }
}

/// The text is kept in a file, so that somebody reads it.
#[test]
fn hostile_archives_are_refused_by_name() {
    let mut told = Told { text: String::new() };
    told.entries(
        "a bomb: an entry that is compressed",
        |e| find(e, MODEL).method = 8,
        &["models/model.json", "compressed"],
    );
    told.entries(
        "an entry that is encrypted",
        |e| find(e, MODEL).flags = 1,
        &["models/model.json", "encrypted"],
    );
    told.entries(
        "an entry of 4 GB in a small file",
        |e| find(e, "weight_3").size = Some(4_000_000_000),
        &["weight_3", "differ"],
    );
    told.entries(
        "an entry of 2^32 - 1 bytes",
        |e| find(e, "weight_3").size = Some(u32::MAX),
        &["directory is damaged"],
    );
    told.entries(
        "an entry over the next",
        |e| find(e, "weight_3").size = Some(200),
        &["weight_3", "lies over"],
    );
    told.entries(
        "two entries at one place",
        |e| {
            let twin = Packed {
                offset: Some(0),
                local_name: Some(e[0].name.clone()),
                ..e[0].clone()
            };
            e.push(Packed {
                name: b"odd/other".to_vec(),
                ..twin
            });
        },
        &["odd/other", "differ"],
    );
    told.entries("an entry twice", |e| e.push(e[0].clone()), &["twice"]);
    for name in [
        "odd/../../etc/passwd",
        "/etc/passwd",
        "odd//x",
        "odd/./x",
        "odd/a\\b",
        "odd/a\u{1b}[2J",
        "C:/x",
        "",
    ] {
        told.entries(&format!("a name {name:?}"), |e| e.push(named(name, "x")), &["no plain path"]);
    }
    told.entries(
        "a name that is no text",
        |e| {
            e.push(Packed {
                name: vec![0xff, 0xfe],
                ..Packed::default()
            });
        },
        &["not UTF-8"],
    );
    told.entries("two folders", |e| e.push(named("even/x", "x")), &["even/x", "one folder"]);
    told.entries(
        "a local header with another name",
        |e| find(e, "weight_3").local_name = Some(b"odd/data/weights/weight_4".to_vec()),
        &["weight_3", "differ"],
    );
    told.entries("a flipped bit", |e| find(e, "weight_3").crc = Some(1), &["weight_3", "checksum"]);
    let whole = pack(&unpacked());
    told.bytes("bytes after the end", [&whole[..], b"x"].concat(), &["end"]);
    let mut more = whole.clone();
    let count = more.len() - 22 + 8;
    more[count..count + 4].copy_from_slice(&[0xfe, 0xff, 0xfe, 0xff]);
    told.bytes("65,534 entries said", more, &["number of entries"]);
    let mut other = whole.clone();
    let offset = other.len() - 6;
    other[offset] ^= 1;
    told.bytes("a directory elsewhere", other, &["directory"]);
    told.entries("nothing in it", Vec::clear, &["not an exported program"]);
    told.entries(
        "torch.save",
        |e| {
            e.clear();
            e.push(named("archive/data.pkl", "x"));
        },
        &["torch.save", "pickle"],
    );
    told.entries(
        "an older torch",
        |e| {
            e.clear();
            e.push(named("serialized_exported_program.json", "{}"));
            e.push(named("serialized_state_dict.pt", "x"));
        },
        &["older than 2.8"],
    );
    told.bytes("a pickle", b"\x80\x02\x8a\x0a".to_vec(), &["Python pickle"]);
    told.bytes("a web page", b"<!doctype html>".to_vec(), &["HTML"]);
    told.bytes(
        "a safetensors file",
        [&9u64.to_le_bytes()[..], b"{}       "].concat(),
        &["safetensors file"],
    );
    expect_file!["../snapshots/import-archive.txt"].assert_eq(&told.text);
}

#[test]
fn every_cut_is_an_error() {
    let whole = pack(&unpacked());
    for cut in (0..whole.len()).step_by(97).chain(whole.len() - 30..whole.len()) {
        let read = Archive::of(whole[..cut].to_vec(), "m.pt2");
        assert_eq!(read.unwrap_err().fault().code, Code::ProgramUnusable, "cut at {cut}");
    }
}

#[test]
fn programs_that_are_not_read_say_why() {
    let mut told = Told { text: String::new() };
    told.entries(
        "schema 9",
        |e| edit(e, MODEL, |v| v["schema_version"]["major"] = 9.into()),
        &["schema version 9.17", "torch 2.11"],
    );
    told.entries(
        "no JSON",
        |e| find(e, MODEL).data = b"{\"schema".to_vec(),
        &["models/model.json", "line 1"],
    );
    told.entries(
        "a million brackets",
        |e| find(e, MODEL).data = [&b"{\"graph_module\":"[..], &[b'['; 1_000_000]].concat(),
        &["models/model.json"],
    );
    told.entries(
        "another byte order",
        |e| find(e, "byteorder").data = b"big".to_vec(),
        &["byteorder", "big"],
    );
    told.entries("two models", |e| e.push(named("odd/models/b.json", "{}")), &["2 models", "b, model"]);
    told.entries(
        "compiled code",
        |e| {
            e.retain(|e| !e.name.starts_with(b"odd/models"));
            e.push(named("odd/data/aotinductor/model/x.so", "x"));
        },
        &["compiled code"],
    );
    let node = |g: &Value, target: &str| {
        let nodes = g["graph"]["nodes"].as_array().unwrap();
        nodes.iter().position(|n| n["target"].as_str().unwrap().contains(target)).unwrap()
    };
    let change = |told: &mut Told, what: &str, target: &str, change: &dyn Fn(&mut Value), words: &[&str]| {
        told.graph(
            what,
            |g| {
                let number = node(g, target);
                change(&mut g["graph"]["nodes"][number]);
            },
            words,
        );
    };
    let tensor = |name: &str| json!({"as_tensor": {"name": name}});
    change(
        &mut told,
        "a cycle",
        "conv2d",
        &|n| n["inputs"][0]["arg"] = tensor("linear_2"),
        &["node 1 (torch.ops.aten.conv2d.padding)", "argument `input`", "`linear_2`"],
    );
    change(
        &mut told,
        "itself",
        "conv2d",
        &|n| n["inputs"][0]["arg"] = tensor("conv2d"),
        &["node 1", "nothing before"],
    );
    change(
        &mut told,
        "a name twice",
        "batch_norm",
        &|n| n["outputs"][0] = tensor("conv2d"),
        &["batch_norm", "`conv2d`", "already"],
    );
    change(
        &mut told,
        "a name of the state again",
        "batch_norm",
        &|n| n["outputs"][0] = tensor("p_fc_weight"),
        &["already"],
    );
    change(
        &mut told,
        "a number for a tensor",
        "conv2d",
        &|n| n["inputs"][0]["arg"] = tensor("sym_size_int_2"),
        &["as Tensor"],
    );
    change(
        &mut told,
        "an unknown kind",
        "conv2d",
        &|n| n["inputs"][0]["arg"] = json!({"as_elephant": 1}),
        &["node 1", "`input`", "as_elephant"],
    );
    change(
        &mut told,
        "an object",
        "conv2d",
        &|n| n["inputs"][0]["arg"] = json!({"as_custom_obj": {"name": "a", "class_fqn": "b"}}),
        &["as_custom_obj"],
    );
    change(
        &mut told,
        "a target with a line break",
        "conv2d",
        &|n| n["target"] = "torch.ops.aten\n.x".into(),
        &["target"],
    );
    change(
        &mut told,
        "a branch",
        "wrap_with_set_grad",
        &|n| n["target"] = "torch.ops.higher_order.cond".into(),
        &["higher_order.cond", "chosen"],
    );
    change(
        &mut told,
        "autocast",
        "wrap_with_autocast",
        &|n| n["inputs"][2]["arg"]["as_bool"] = true.into(),
        &["autocast"],
    );
    change(
        &mut told,
        "an inner graph that reads outside",
        "wrap_with_autocast",
        &|n| {
            let inner = &mut n["inputs"][4]["arg"]["as_graph"]["graph"]["nodes"][0];
            inner["inputs"][0]["arg"] = json!({"as_tensor": {"name": "conv2d"}});
        },
        &["wrap_with_autocast", "node 0", "`conv2d`"],
    );
    change(
        &mut told,
        "too few arguments for the inner graph",
        "wrap_with_autocast",
        &|n| drop(n["inputs"].as_array_mut().unwrap().pop()),
        &["wrap_with_autocast"],
    );
    change(
        &mut told,
        "8-bit floats",
        "aten.to.dtype",
        &|n| n["inputs"][1]["arg"] = json!({"as_scalar_type": 29}),
        &["8-bit floats"],
    );
    told.graph(
        "two inputs",
        |g| {
            let second = g["signature"]["input_specs"][0].take()["parameter"]["arg"].take();
            g["signature"]["input_specs"][0] = json!({"user_input": {"arg": {"as_tensor": second}}});
        },
        &["2 inputs", "`x`"],
    );
    told.graph(
        "no input",
        |g| {
            g["signature"]["input_specs"]
                .as_array_mut()
                .unwrap()
                .retain(|s| s["user_input"].is_null())
        },
        &["no input"],
    );
    told.graph(
        "two outputs",
        |g| {
            let specs = g["signature"]["output_specs"].as_array_mut().unwrap();
            specs.push(json!({"user_output": {"arg": {"as_tensor": {"name": "relu"}}}}));
        },
        &["2 values", "`linear_2`", "`relu`"],
    );
    told.graph(
        "training mode",
        |g| {
            let specs = g["signature"]["output_specs"].as_array_mut().unwrap();
            specs.insert(
                0,
                json!({"buffer_mutation": {"arg": {"name": "add"}, "buffer_name": "norm.num_batches_tracked"}}),
            );
        },
        &["norm.num_batches_tracked", "training mode"],
    );
    told.graph(
        "an output that nobody computes",
        |g| {
            let odd = json!({"as_tensor": {"name": "nothing"}});
            g["graph"]["outputs"][0] = odd.clone();
            g["signature"]["output_specs"][0]["user_output"]["arg"] = odd;
        },
        &["output", "`nothing`"],
    );
    told.graph(
        "an input that the signature does not know",
        |g| g["graph"]["inputs"].as_array_mut().unwrap().push(json!({"as_tensor": {"name": "y"}})),
        &["`y`", "signature"],
    );
    expect_file!["../snapshots/import-program.txt"].assert_eq(&told.text);
}

#[test]
fn weights_that_cannot_be_are_told() {
    let mut told = Told { text: String::new() };
    let sizes = |all: &[i64]| -> Value { all.iter().map(|n| json!({"as_int": n})).collect() };
    let many = 1_000_000;
    told.weight(
        "10^12 elements",
        "fc.weight",
        |w| w["tensor_meta"]["sizes"] = sizes(&[many, many]),
        &["fc.weight", "does not fit into its 96 bytes"],
    );
    told.weight(
        "10^12 elements that are one",
        "fc.weight",
        |w| {
            w["tensor_meta"]["sizes"] = sizes(&[many, many]);
            w["tensor_meta"]["strides"] = sizes(&[0, 0]);
        },
        &["fc.weight", "does not fit"],
    );
    told.weight(
        "more elements than numbers",
        "fc.weight",
        |w| w["tensor_meta"]["sizes"] = sizes(&[1 << 62, 1 << 62]),
        &["fc.weight", "does not fit"],
    );
    told.weight(
        "a negative size",
        "fc.weight",
        |w| w["tensor_meta"]["sizes"] = sizes(&[-4, -6]),
        &["fc.weight", "-4"],
    );
    told.weight(
        "a negative stride",
        "fc.weight",
        |w| w["tensor_meta"]["strides"] = sizes(&[6, -1]),
        &["fc.weight", "-1"],
    );
    told.weight(
        "a large stride",
        "fc.weight",
        |w| w["tensor_meta"]["strides"] = sizes(&[i64::MAX, 1]),
        &["fc.weight", "does not fit"],
    );
    told.weight(
        "a large offset",
        "fc.weight",
        |w| w["tensor_meta"]["storage_offset"] = json!({"as_int": 1}),
        &["fc.weight", "does not fit"],
    );
    told.weight(
        "a negative offset",
        "fc.weight",
        |w| w["tensor_meta"]["storage_offset"] = json!({"as_int": -1}),
        &["fc.weight", "-1"],
    );
    told.weight(
        "sizes without strides",
        "fc.weight",
        |w| w["tensor_meta"]["strides"] = sizes(&[1]),
        &["2 sizes and 1 strides"],
    );
    told.weight(
        "a size that is an expression",
        "fc.weight",
        |w| w["tensor_meta"]["sizes"][0] = json!({"as_expr": {"expr_str": "__import__('os')"}}),
        &["fc.weight", "not a number"],
    );
    told.weight("wider numbers", "fc.weight", |w| w["tensor_meta"]["dtype"] = 8.into(), &["does not fit"]);
    told.weight(
        "complex numbers",
        "fc.weight",
        |w| w["tensor_meta"]["dtype"] = 10.into(),
        &["fc.weight", "complex"],
    );
    told.weight("unknown numbers", "fc.weight", |w| w["tensor_meta"]["dtype"] = 99.into(), &["kind 99"]);
    told.weight("sparse", "fc.weight", |w| w["tensor_meta"]["layout"] = 1.into(), &["sparse"]);
    told.weight("a pickle", "fc.weight", |w| w["use_pickle"] = true.into(), &["fc.weight", "pickle"]);
    told.weight("no sizes", "fc.weight", |w| w["tensor_meta"] = Value::Null, &["fc.weight", "no sizes"]);
    told.weight(
        "another shape than the graph's",
        "fc.weight",
        |w| {
            w["tensor_meta"]["sizes"] = sizes(&[6, 4]);
            w["tensor_meta"]["strides"] = sizes(&[4, 1]);
        },
        &["fc.weight", "6", "4"],
    );
    told.weight(
        "a way out of the folder",
        "fc.weight",
        |w| w["path_name"] = "../../models/model.json".into(),
        &["fc.weight", "../../models/model.json is missing"],
    );
    told.entries(
        "a weight without its entry",
        |e| e.retain(|e| !e.name.ends_with(b"weight_3")),
        &["norm.bias", "weight_3 is missing"],
    );
    told.entries(
        "a weight without bytes",
        |e| find(e, "weight_3").data.clear(),
        &["norm.bias", "without its weights"],
    );
    told.entries(
        "a weight that is not listed",
        |e| edit(e, WEIGHTS, |v| drop(v["config"].as_object_mut().unwrap().remove("fc.weight"))),
        &["fc.weight", "not stored"],
    );
    told.entries(
        "a truth of 7",
        |e| {
            let path = serde_json::from_slice::<Value>(&find(e, WEIGHTS).data).unwrap()["config"]["mask"]["path_name"].clone();
            find(e, &format!("/{}", path.as_str().unwrap())).data[2] = 7;
        },
        &["mask", "truth"],
    );
    told.entries(
        "twenty names for the same megabyte",
        |e| {
            e.push(named("odd/data/weights/large", vec![0; 1 << 20]));
            edit(e, WEIGHTS, |v| {
                let mut one = v["config"]["fc.bias"].clone();
                (one["path_name"], one["tensor_meta"]["sizes"]) = ("large".into(), sizes(&[1 << 18]));
                let all = v["config"].as_object_mut().unwrap();
                (0..20).for_each(|n| drop(all.insert(format!("w{n}"), one.clone())));
            });
        },
        &["times as large as the file"],
    );
    expect_file!["../snapshots/import-weights.txt"].assert_eq(&told.text);
}
