//! What the science says when something is wrong, held word by word in `snapshots/`, one file a room.
//!
//! To accept a change: `UPDATE_EXPECT=1 cargo test --release -p delta-influence --test errors`, then read the difference as a person who meets the error would.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use delta_guard_contract::job::ImageLimits;
use delta_guard_contract::{ClassNames, DataFormat, DataSource, Digest, ImageConfig, ModelConfig, Origin, Split};
use delta_influence::data::{DataSet, KnownClasses, class_names, decode_submission, encode_png};
use delta_influence::ekfac::{CovarianceFold, Eigenbasis, Factors, Workspace};
use delta_influence::error::{Error, Result};
use delta_influence::files::tensors::write_tensors;
use delta_influence::fold::Fold;
use delta_influence::model::layer::{Conv, Layer, LayerKind, Linear, Pair};
use delta_influence::model::{Graph, Weights, zoo};
use delta_influence::passes::parts::PartsPlan;
use delta_influence::progress::Report;
use expect_test::expect_file;
use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use tch::{Device, Kind, Tensor};

struct Silent;

impl Report for Silent {
    fn progress(&mut self, _: &str, _: u64, _: u64, _: &str) {}
    fn log(&mut self, _: &str) {}
}

/// The errors of a room, as they are told, with the test's folder called DIR.
struct Told {
    dir: tempfile::TempDir,
    text: String,
}

impl Told {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            text: String::new(),
        }
    }

    fn error(&mut self, when: &str, error: &Error) {
        let told = error.to_string().replace(&self.dir.path().display().to_string(), "DIR");
        writeln!(self.text, "# {when}\n[{}] {told}\n", error.fault().code.as_str()).unwrap();
    }

    fn fails<T>(&mut self, when: &str, result: Result<T>) {
        match result {
            Ok(_) => panic!("{when}: no error"),
            Err(error) => self.error(when, &error),
        }
    }
}

fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn picture(n: u8) -> Vec<u8> {
    let pixels: Vec<u8> = (0..192u32).map(|i| (i * 7) as u8 ^ n).collect();
    encode_png(&pixels, 8, 8, 1).unwrap()
}

#[test]
fn data() {
    let mut told = Told::new();
    let dir = told.dir.path().to_path_buf();
    let image = ImageConfig {
        height: 8,
        width: 8,
        ..ImageConfig::default()
    };
    let open = |name: &str, format, image: &ImageConfig, classes: Option<&[String]>| {
        let source = DataSource {
            path: dir.join(name),
            format,
            split: Split::All,
            source: None,
        };
        DataSet::open(&source, image, 0.1, &dir.join("cache"), classes, &mut Silent)
    };
    let auto = DataFormat::Auto;
    told.fails("the path is wrong", open("nowhere", auto, &image, None));
    std::fs::create_dir(dir.join("empty")).unwrap();
    told.fails("an empty folder", open("empty", auto, &image, None));
    put(&dir.join("notes.txt"), b"no data");
    told.fails("a file that is no data set", open("notes.txt", auto, &image, None));
    told.fails("a file where a folder was promised", open("notes.txt", DataFormat::Folder, &image, None));
    for (n, class) in ["ant", "bee"].into_iter().enumerate() {
        put(&dir.join("good").join(class).join("1.png"), &picture(n as u8));
        put(&dir.join("parts/train").join(class).join("1.png"), &picture(n as u8));
        put(&dir.join("parts/test").join(class).join("1.png"), &picture(n as u8));
    }
    told.fails("a folder of parts, not of classes", open("parts", auto, &image, None));
    told.fails(
        "a class that the training set has not",
        open("good", auto, &image, Some(&["ant".into(), "cat".into()])),
    );
    put(&dir.join("bad/ant/1.png"), b"no picture");
    put(&dir.join("bad/bee/1.png"), &picture(1));
    told.fails("too many unreadable pictures", open("bad", auto, &image, None));
    let other = ImageConfig { width: 16, ..image.clone() };
    told.fails("pictures of another size", open("good", auto, &other, None));
    let none = ImageConfig { height: 0, ..image.clone() };
    told.fails("a size of nothing", open("good", auto, &none, None));

    let limits = ImageLimits {
        max_bytes: 1000,
        max_pixels: 100,
    };
    put(&dir.join("long.png"), &[1; 1001]);
    put(&dir.join("none.png"), b"");
    put(&dir.join("text.png"), b"hello");
    put(&dir.join("wide.png"), &encode_png(&vec![0; 3 * 20 * 20], 20, 20, 1).unwrap());
    for (when, name) in [
        ("a submission that is gone", "gone.png"),
        ("a submission that is a folder", "good"),
        ("a submission that is too long", "long.png"),
        ("an empty submission", "none.png"),
        ("a submission that is no picture", "text.png"),
        ("a submission with too many pixels", "wide.png"),
    ] {
        told.fails(when, decode_submission(&dir.join(name), &limits, &image));
    }
    expect_file!["snapshots/data.txt"].assert_eq(&told.text);
}

/// Name and bytes.
type Member<'a> = (&'a str, &'a [u8]);

fn tar_of(members: &[Member]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Lists, shards and parquet files.
#[test]
fn sets() {
    let mut told = Told::new();
    let dir = told.dir.path().to_path_buf();
    let image = ImageConfig {
        height: 8,
        width: 8,
        ..ImageConfig::default()
    };
    let open = |name: &str, format, source, known: Option<KnownClasses>| {
        let source = DataSource {
            path: dir.join(name),
            format,
            split: Split::All,
            source,
        };
        DataSet::open_known(&source, &image, 0.1, &dir.join("cache"), known, &mut Silent)
    };
    let auto = DataFormat::Auto;
    put(&dir.join("set/ant/1.png"), &picture(1));
    put(&dir.join("set/bee/2.png"), &picture(2));
    put(&dir.join("outside.png"), &picture(3));
    for (when, name, text) in [
        ("a list without a head", "head.csv", "ant/1.png,ant\nbee/2.png,bee\n"),
        ("a list with a column twice", "twice.csv", "path,label,path\n"),
        (
            "a list with a comma too many",
            "comma.csv",
            "path,label\nant/1.png,ant\nbee/2,1.png,bee\n",
        ),
        ("a list that is not UTF-8", "latin.csv", "path,label\nant/1.png,ant\nLATIN.png,bee\n"),
        ("a list without a label", "blank.csv", "path,label\nant/1.png,\n"),
        (
            "a list that names a picture twice",
            "again.csv",
            "path,label\nant/1.png,ant\n./ant//1.png,ant\n",
        ),
        (
            "a list that leads out of its folder",
            "out.csv",
            "path,label\n\"ant/../../outside.png\",ant\n",
        ),
        ("a list with an absolute path", "root.csv", "path,label\n/etc/passwd,ant\n"),
        (
            "a list of pictures that are not there",
            "gone.csv",
            "path,label\nant/1.png,ant\nbee/9.png,bee\n",
        ),
        ("a list without pictures", "none.csv", "path,label\n"),
        ("a list with numbers from 1", "from1.csv", "path,label\nant/1.png,1\nbee/2.png,2\n"),
        (
            "a list with numbers that are none",
            "float.csv",
            "path,label\nant/1.png,0.0\nbee/2.png,1.0\n",
        ),
        (
            "a line that is no JSON",
            "text.jsonl",
            "{\"path\": \"ant/1.png\", \"label\": 0}\n\nant/2.png\n",
        ),
        ("a line without a key", "key.jsonl", "{\"file\": \"ant/1.png\", \"label\": 0}\n"),
        (
            "a line with a label of another kind",
            "kind.jsonl",
            "{\"path\": \"ant/1.png\", \"label\": [0]}\n",
        ),
    ] {
        let bytes: Vec<u8> = text.replace("LATIN", "\u{1}").bytes().map(|b| if b == 1 { 0xe9 } else { b }).collect();
        put(&dir.join("set").join(name), &bytes);
        told.fails(when, open(&format!("set/{name}"), auto, None, None));
    }
    put(&dir.join("set/open.csv"), &[b"path,label\n\"".to_vec(), vec![b'x'; 3 << 20]].concat());
    told.fails("a quote that is never closed", open("set/open.csv", auto, None, None));
    put(&dir.join("set/long.jsonl"), &vec![b' '; 3 << 20]);
    told.fails("a line that never ends", open("set/long.jsonl", auto, None, None));
    put(&dir.join("set/good.csv"), b"path,label\nset/ant/1.png,ant\n");
    let number = ["0", "1"].map(String::from);
    put(&dir.join("set/one.csv"), b"path,label\nant/1.png,1\nbee/2.png,2\n");
    let turned = ["2", "1", "0"].map(String::from);
    told.fails(
        "labels that mean two things",
        open("set/one.csv", auto, None, Some(KnownClasses::Training(&turned))),
    );
    told.fails(
        "a number that is no class",
        open("set/one.csv", auto, None, Some(KnownClasses::Listed(&number))),
    );
    let names = ["ant", "cow"].map(String::from);
    told.fails(
        "listed classes that do not fit",
        open("set/../set", DataFormat::Folder, None, Some(KnownClasses::Listed(&names))),
    );
    told.fails(
        "a source that a folder cannot tell",
        open("set", DataFormat::Folder, Some(Origin::Shard), None),
    );
    told.fails("a source that is not there", open("set/float.csv", auto, Some(Origin::Column), None));

    let png = picture(1);
    let shards: [(&str, &str, &[Member]); 9] = [
        ("a key without a label", "a.tar", &[("1.png", &png), ("2.png", &png), ("2.cls", b"0")]),
        ("a key without a picture", "b.tar", &[("1.cls", b"0"), ("2.png", &png), ("2.cls", b"0")]),
        ("a key with two pictures", "c.tar", &[("1.png", &png), ("1.jpg", &png), ("1.cls", b"0")]),
        (
            "a key in two places",
            "d.tar",
            &[("1.png", &png), ("1.cls", b"0"), ("2.png", &png), ("2.cls", b"0"), ("1.json", b"{}")],
        ),
        (
            "a label of two files",
            "e.tar",
            &[("1.png", &png), ("1.cls", b"0"), ("1.json", b"{\"label\": 1}")],
        ),
        ("a label of another kind", "f.tar", &[("1.png", &png), ("1.json", b"{\"label\": 1.5}")]),
        ("a JSON file that is none", "g.tar", &[("1.png", &png), ("1.json", b"[]")]),
        ("a label that is too long", "h.tar", &[("1.png", &png), ("1.cls", &[b'x'; 2000])]),
        ("an empty label", "i.tar", &[("1.png", &png), ("1.cls", b"\n")]),
    ];
    for (when, name, members) in shards {
        put(&dir.join(name), &tar_of(members));
        told.fails(when, open(name, DataFormat::WebDataset, None, None));
    }
    told.fails("a range with a hole", open("{a..c}.tar", auto, None, None));
    put(&dir.join("s-0.tar"), &tar_of(&[("1.png", &png), ("1.cls", b"0")]));
    told.fails("a range with a missing file", open("s-{0..3}.tar", auto, None, None));
    told.fails("a range that counts down", open("s-{3..0}.tar", auto, None, None));

    put(&dir.join("text.parquet"), b"this is no parquet file at all");
    told.fails("a parquet file that is none", open("text.parquet", auto, None, None));
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parquet");
    let plain = std::fs::read(fixtures.join("plain.parquet")).unwrap();
    put(&dir.join("cut.parquet"), &plain[..1000]);
    told.fails("a parquet file that is cut short", open("cut.parquet", auto, None, None));
    put(&dir.join("zstd.parquet"), &std::fs::read(fixtures.join("zstd.parquet")).unwrap());
    told.fails("a parquet file with another compression", open("zstd.parquet", auto, None, None));
    put(
        &dir.join("hf/train-00000-of-00002.parquet"),
        &std::fs::read(fixtures.join("train-00000-of-00002.parquet")).unwrap(),
    );
    told.fails("a parquet file too few", open("hf", auto, None, None));
    let one = "hf/train-00000-of-00002.parquet";
    told.fails(
        "names that the training set has not",
        open(one, auto, None, Some(KnownClasses::Training(&names))),
    );

    let listed = |names: &[&str]| class_names(&ClassNames::Listed(names.iter().map(|name| (*name).to_owned()).collect()));
    told.fails("a class listed twice", listed(&["ant", "bee", "ant"]));
    put(&dir.join("classes.json"), b"{\"0\": \"ant\", \"2\": \"bee\"}");
    told.fails("a list of classes with a hole", class_names(&ClassNames::File(dir.join("classes.json"))));
    told.fails(
        "a list of classes that is not there",
        class_names(&ClassNames::File(dir.join("nowhere.txt"))),
    );
    expect_file!["snapshots/sets.txt"].assert_eq(&told.text);
}

#[test]
fn model() {
    let mut told = Told::new();
    let dir = told.dir.path().to_path_buf();
    let config = |architecture: &str| ModelConfig {
        architecture: architecture.into(),
        width: 2,
        stem: Default::default(),
        checkpoint: "m.safetensors".into(),
        prefix: None,
        min_tracked_share: 0.0,
    };
    told.fails("an unknown network", zoo::graph(&config("resnet19"), [3, 8, 8], 3));
    put(&dir.join("graph.json"), b"{\"format\": 2, \"nodes\": [{\"op\": \"lstm\"}]}");
    told.fails("a graph with an unknown operator", Graph::load(&dir.join("graph.json")));
    let graph = zoo::small_cnn([3, 8, 8], 2, 3).unwrap();
    let mut of_another_format = serde_json::to_value(&graph).unwrap();
    of_another_format["format"] = 9.into();
    put(&dir.join("graph.json"), of_another_format.to_string().as_bytes());
    told.fails("a graph of another format", Graph::load(&dir.join("graph.json")));
    put(&dir.join("graph.json"), serde_json::to_string(&graph).unwrap().as_bytes());
    let path = dir.join("graph.json").display().to_string();
    told.fails("a graph for other pictures", zoo::graph(&config(&path), [3, 16, 8], 3));
    told.fails("a graph for another number of classes", zoo::graph(&config(&path), [3, 8, 8], 4));
    told.fails("pictures that are too small for the network", zoo::fixture([3, 1, 1], 2, 3));

    let checkpoint = dir.join("model.safetensors");
    let load = || Weights::load(&checkpoint, &graph, Kind::Float);
    told.fails("no checkpoint", load());
    put(&checkpoint, b"hello");
    told.fails("a checkpoint that is text", load());
    let mut tensors: Vec<(String, Tensor)> = Weights::init(&graph, 1).unwrap().0.into_iter().collect();
    let write = |tensors: &[(String, Tensor)]| {
        write_tensors(&checkpoint, tensors.iter().map(|(name, t)| (name.as_str(), t)), HashMap::new()).unwrap();
    };
    write(&tensors[1..]);
    told.fails("a checkpoint without one tensor", load());
    tensors.push(("extra.weight".into(), Tensor::zeros([1], (Kind::Float, Device::Cpu))));
    write(&tensors);
    told.fails("a checkpoint with one tensor more", load());
    tensors.pop();
    let place = tensors.iter().position(|(name, _)| name == "fc.weight").unwrap();
    let right = tensors[place].1.copy();
    tensors[place].1 = right.tr().contiguous();
    write(&tensors);
    told.fails("a checkpoint of another shape", load());
    tensors[place].1 = right.to_kind(Kind::Int64);
    write(&tensors);
    told.fails("a checkpoint of whole numbers", load());
    tensors[place].1 = &right / 0.0;
    write(&tensors);
    told.fails("a checkpoint that diverged", load());
    expect_file!["snapshots/model.txt"].assert_eq(&told.text);
}

#[test]
fn ekfac() {
    let mut told = Told::new();
    let dir = told.dir.path().to_path_buf();
    let workspace = Workspace {
        kind: Kind::Double,
        device: Device::Cpu,
        budget_bytes: 1 << 20,
    };
    let layer = |kind| {
        vec![Layer {
            name: "conv1".into(),
            kind,
            part: None,
        }]
    };
    let odd = Conv {
        groups: 2,
        ..Conv::new([3, 4], [3, 3])
    };
    told.fails(
        "groups that do not divide",
        CovarianceFold::new(&layer(LayerKind::Conv2d(odd)), workspace),
    );
    let still = Conv {
        stride: [0, 1],
        ..Conv::new([3, 4], [3, 3])
    };
    told.fails("a stride of 0", CovarianceFold::new(&layer(LayerKind::Conv2d(still)), workspace));
    let linear = layer(LayerKind::Linear(Linear {
        in_features: 2,
        out_features: 2,
        bias: false,
    }));
    let mut fold = CovarianceFold::new(&linear, workspace).unwrap();
    let pair = |value: f64| {
        vec![Pair {
            input: Tensor::from_slice(&[1.0, value]).view([1, 2]),
            output_grad: Tensor::from_slice(&[1.0, 2.0]).view([1, 2]),
        }]
    };
    told.fails("activations that are no numbers", fold.take(&pair(f64::NAN)));
    told.fails("a covariance of nothing", CovarianceFold::new(&linear, workspace).unwrap().finish());

    let mut fold = CovarianceFold::new(&linear, workspace).unwrap();
    fold.take(&pair(3.0)).unwrap();
    let plan = PartsPlan::new(&["covariance"], 4, 2, 2).unwrap();
    told.fails("a part that does not exist", plan.range(2));
    let part = dir.join("part");
    plan.save(0, fold, &part).unwrap();
    let empty = || CovarianceFold::new(&linear, workspace);
    told.fails("too few parts", plan.merge(std::slice::from_ref(&part), empty));
    let other = PartsPlan::new(&["another"], 4, 2, 2).unwrap();
    told.fails("a part of another plan", other.merge(&[part.clone(), part], empty));

    let (key, path) = (Digest("0".repeat(64)), dir.join("factors"));
    told.fails("no factors", Factors::load(&path, &linear, &key, &workspace));
    put(&path, b"hello");
    told.fails("factors that are text", Factors::load(&path, &linear, &key, &workspace));
    let mut fold = CovarianceFold::new(&linear, workspace).unwrap();
    fold.take(&pair(3.0)).unwrap();
    fold.finish().unwrap().eigenbasis(&workspace, |_| ()).unwrap().save(&path, &key).unwrap();
    told.fails("a basis where factors are expected", Factors::load(&path, &linear, &key, &workspace));
    let other = Digest("1".repeat(64));
    told.fails("a basis of another key", Eigenbasis::load(&path, &linear, &other, &workspace));
    expect_file!["snapshots/ekfac.txt"].assert_eq(&told.text);
}
