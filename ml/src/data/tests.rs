//! Data sets from end to end: files made by hand, opened, compared with what was put into them.

mod cifar_sets;
mod forms;
mod image_folder;
mod links;
mod parquet;
mod tars;

use super::*;
use crate::error::{Error, Result};
use crate::progress::Report;
use delta_guard_contract::{DataFormat, DataSource, FaultKind, ImageConfig, Orientation, Resize, Split, TrainId};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Remembers what was said.
#[derive(Default)]
struct Said {
    steps: Vec<String>,
    log: Vec<String>,
}

impl Report for Said {
    fn progress(&mut self, step: &str, done: u64, total: u64, _note: &str) {
        assert!(total == 0 || done <= total, "{step}: {done} of {total}");
        self.steps.push(step.into());
    }
    fn log(&mut self, message: &str) {
        self.log.push(message.into());
    }
}

fn image() -> ImageConfig {
    ImageConfig {
        height: 8,
        width: 8,
        ..ImageConfig::default()
    }
}

fn source(path: &Path, split: Split) -> DataSource {
    DataSource {
        path: path.to_path_buf(),
        format: DataFormat::Auto,
        split,
        source: None,
    }
}

/// 8 × 8 pixels that tell which picture it is.
fn pixels(n: usize) -> Vec<u8> {
    (0..192).map(|i| (i * 7 + n * 31) as u8).collect()
}

fn png(n: usize) -> Vec<u8> {
    encode_png(&pixels(n), 8, 8, 1).unwrap()
}

fn put(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, bytes).unwrap();
}

/// A folder of two classes with five pictures, and things that do not count.
fn folder(root: &Path) {
    for (n, name) in ["cat/b.png", "cat/a.png", "cat/more/x.png", "ant/1.png", "ant/2.png"].iter().enumerate() {
        put(root, name, &png(n));
    }
    put(root, "README.txt", b"loose");
    put(root, "cat/.hidden.png", b"hidden");
    put(root, ".git/x.png", b"hidden");
}

/// What a folder written by [`folder`] must read as.
fn wanted() -> Vec<(&'static str, u32, usize)> {
    vec![
        ("ant/1.png", 0, 3),
        ("ant/2.png", 0, 4),
        ("cat/a.png", 1, 1),
        ("cat/b.png", 1, 0),
        ("cat/more/x.png", 1, 2),
    ]
}

fn open(source: &DataSource, cache: &Path) -> Result<DataSet> {
    DataSet::open(source, &image(), 0.0, cache, None, &mut Said::default())
}

fn message(result: Result<DataSet>, kind: FaultKind) -> String {
    let error: Error = result.map(|d| d.len()).unwrap_err();
    assert_eq!(error.fault().kind, kind, "{error}");
    error.to_string()
}

fn tar_of(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn check(data: &DataSet, wanted: &[(&str, u32, usize)]) {
    assert_eq!(data.len(), wanted.len());
    let got: Vec<(&str, u32)> = data.ids().iter().map(|i| i.0.as_str()).zip(data.labels().iter().copied()).collect();
    assert_eq!(got, wanted.iter().map(|w| (w.0, w.1)).collect::<Vec<_>>());
    for (i, (id, _, n)) in wanted.iter().enumerate() {
        assert_eq!(data.pixels(i), pixels(*n), "{id}");
        assert_eq!(data.position(&TrainId((*id).into())), Some(i));
    }
}

#[test]
fn reads_a_folder_and_hands_out_tensors() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    folder(root.path());
    let data = open(&source(root.path(), Split::All), cache.path()).unwrap();
    check(&data, &wanted());
    assert_eq!(data.classes(), ["ant", "cat"]);
    assert_eq!(data.by_label(1), [2, 3, 4]);
    assert_eq!(data.position(&TrainId("cat/c.png".into())), None);
    assert!(data.skipped().is_empty());
    let batch = data.batch(&[4, 0]).unwrap();
    assert_eq!((batch.size(), batch.kind()), (vec![2, 3, 8, 8], tch::Kind::Uint8));
    let bytes = Vec::<u8>::try_from(batch.view([-1])).unwrap();
    assert_eq!(bytes, [pixels(2), pixels(3)].concat());
    assert_eq!(data.rows(1..4).unwrap(), data.batch(&[1, 2, 3]).unwrap());
    assert_eq!(Vec::<i64>::try_from(data.labels_tensor(&[0, 4, 1]).unwrap()).unwrap(), [0, 1, 0]);
    assert!(data.batch(&[5]).is_err() && data.rows(3..6).is_err() && data.labels_tensor(&[9]).is_err());
    assert_eq!(data.batch(&[]).unwrap().size(), [0, 3, 8, 8]);
}

#[test]
fn a_copy_elsewhere_has_the_same_manifest_and_any_change_another() {
    let (a, b, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    folder(a.path());
    folder(b.path());
    let first = open(&source(a.path(), Split::All), cache.path()).unwrap();
    assert_eq!(
        first.manifest_digest(),
        open(&source(b.path(), Split::All), cache.path()).unwrap().manifest_digest()
    );
    put(b.path(), "cat/a.png", &png(77));
    let other = open(&source(b.path(), Split::All), cache.path()).unwrap();
    assert_ne!(first.manifest_digest(), other.manifest_digest());
    assert_eq!(other.pixels(2), pixels(77));
    assert_eq!(first.pixels(2), pixels(1), "an open set keeps its pixels");
    fs_err::rename(a.path().join("cat/a.png"), a.path().join("ant/a.png")).unwrap();
    assert_ne!(
        first.manifest_digest(),
        open(&source(a.path(), Split::All), cache.path()).unwrap().manifest_digest()
    );
}

/// Makes files old enough for the index to trust them.
fn age(root: &Path) {
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let file = fs_err::File::options().write(true).open(entry.path()).unwrap();
            file.file()
                .set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(100))
                .unwrap();
        }
    }
}

#[test]
fn a_changed_file_is_noticed_even_with_its_old_size_and_time() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let bmp = |n: u8| {
        let mut out = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_pixel(8, 8, image::Rgb([n; 3]))
            .write_to(&mut out, image::ImageFormat::Bmp)
            .unwrap();
        out.into_inner()
    };
    put(root.path(), "a/1.bmp", &bmp(1));
    age(root.path());
    let first = open(&source(root.path(), Split::All), cache.path()).unwrap();
    put(root.path(), "a/1.bmp", &bmp(2));
    age(root.path());
    let second = open(&source(root.path(), Split::All), cache.path()).unwrap();
    assert_ne!(first.manifest_digest(), second.manifest_digest());
    assert_eq!(second.pixels(0), vec![2; 192]);
}

fn cache_file(cache: &Path) -> PathBuf {
    let files: Vec<PathBuf> = fs_err::read_dir(cache)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "u8"))
        .collect();
    assert_eq!(files.len(), 1);
    files[0].clone()
}

#[test]
fn a_cache_is_used_again_and_a_damaged_one_is_rebuilt() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    folder(root.path());
    put(root.path(), "cat/broken.png", b"no picture");
    let open = |said: &mut Said| DataSet::open(&source(root.path(), Split::All), &image(), 0.5, cache.path(), None, said).unwrap();
    let mut said = Said::default();
    let first = open(&mut said);
    assert!(said.steps.contains(&"decode".to_string()) && said.log.is_empty());
    let mut said = Said::default();
    let again = open(&mut said);
    assert!(!said.steps.contains(&"decode".to_string()), "decoded twice");
    assert_eq!(again.skipped(), first.skipped());
    assert_eq!(again.skipped().len(), 1);
    check(&again, &wanted());
    let path = cache_file(cache.path());
    let good = fs_err::read(&path).unwrap();
    type Damage = fn(&mut Vec<u8>);
    let damage: [(&str, Damage); 7] = [
        ("cut in the pixels", |b| b.truncate(4096 + 100)),
        ("cut in the header", |b| b.truncate(100)),
        ("empty", |b| b.clear()),
        ("longer", |b| b.push(0)),
        ("other key", |b| b[20] ^= 1),
        ("a pixel", |b| b[4096 + 17] ^= 1),
        ("the list", |b| *b.last_mut().unwrap() ^= 1),
    ];
    for (what, change) in damage {
        let mut bad = good.clone();
        change(&mut bad);
        // A new file, not the old one shortened: `first` still has that mapped.
        fs_err::remove_file(&path).unwrap();
        fs_err::write(&path, &bad).unwrap();
        let mut said = Said::default();
        check(&open(&mut said), &wanted());
        assert!(said.log.iter().any(|l| l.contains("built again")), "{what}: {:?}", said.log);
        assert_eq!(fs_err::read(&path).unwrap(), good, "{what}");
    }
    check(&first, &wanted());
    assert!(
        !fs_err::read_dir(cache.path())
            .unwrap()
            .any(|e| e.unwrap().path().extension().is_some_and(|e| e == "building"))
    );
}

/// The disk is full for whatever is written to this name.
#[test]
fn a_full_disk_is_said_so_and_leaves_nothing_behind() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    folder(root.path());
    open(&source(root.path(), Split::All), cache.path()).unwrap();
    let path = cache_file(cache.path());
    fs_err::remove_file(&path).unwrap();
    let unfinished = path.with_extension("building");
    std::os::unix::fs::symlink("/dev/full", &unfinished).unwrap();
    let text = message(open(&source(root.path(), Split::All), cache.path()), FaultKind::Resource);
    assert!(text.contains("worker.cache_dir") && text.contains("space"), "{text}");
    assert!(unfinished.symlink_metadata().is_err() && !path.exists());
    check(&open(&source(root.path(), Split::All), cache.path()).unwrap(), &wanted());
}

#[test]
fn unreadable_pictures_are_listed_up_to_the_share() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    folder(root.path());
    put(root.path(), "ant/note.png", b"not a picture");
    put(root.path(), "cat/large.png", &encode_png(&vec![0; 300], 10, 10, 1).unwrap());
    std::os::unix::fs::symlink("nowhere", root.path().join("cat/link.png")).unwrap();
    let open = |share| {
        DataSet::open(
            &source(root.path(), Split::All),
            &image(),
            share,
            cache.path(),
            None,
            &mut Said::default(),
        )
    };
    let data = open(0.375).unwrap();
    check(&data, &wanted());
    let skipped: BTreeMap<&str, &str> = data.skipped().iter().map(|u| (u.id.0.as_str(), u.reason.as_str())).collect();
    assert!(skipped["ant/note.png"].contains("text"));
    assert!(skipped["cat/large.png"].contains("10 × 10"));
    assert!(skipped["cat/link.png"].contains("leads nowhere"));
    let text = message(open(0.37), FaultKind::Configuration);
    for part in ["3 of 8", "data.max_unreadable_share", "ant/note.png", "cat/large.png"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for name in ["ant/1.png", "ant/2.png"] {
        put(root.path(), name, b"gone");
    }
    assert!(message(open(1.0), FaultKind::Configuration).contains("no readable picture is left of ant"));
}

#[test]
fn what_is_missing_is_named() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let here = root.path();
    let fails = |path: &Path, split| message(open(&source(path, split), cache.path()), FaultKind::Configuration);
    assert!(fails(&here.join("gone"), Split::All).contains("does not exist"));
    assert!(fails(here, Split::All).contains("no class folders"));
    put(here, "a/x.png", &png(1));
    fs_err::create_dir(here.join("b")).unwrap();
    assert!(fails(here, Split::All).contains("without pictures: b"));
    put(here, "file.bin", &[1; 100]);
    assert!(fails(&here.join("file.bin"), Split::All).contains("no data set that is known"));
    let other = TempDir::new().unwrap();
    put(other.path(), "train/a/x.png", &png(1));
    assert!(fails(other.path(), Split::All).contains("set split"));
    assert!(fails(other.path(), Split::Test).contains("no test part"));
    let bad = ImageConfig { height: 0, ..image() };
    let opened = DataSet::open(&source(other.path(), Split::Train), &bad, 0.0, cache.path(), None, &mut Said::default());
    assert!(message(opened, FaultKind::Configuration).contains("data.image.height"));
}

#[test]
fn a_set_that_vanishes_between_openings_is_missed() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let inside = root.path().join("set");
    folder(&inside);
    open(&source(&inside, Split::All), cache.path()).unwrap();
    fs_err::remove_dir_all(&inside).unwrap();
    assert!(message(open(&source(&inside, Split::All), cache.path()), FaultKind::Configuration).contains("does not exist"));
}

#[test]
fn validation_uses_the_training_classes() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    put(root.path(), "train/b/1.png", &png(1));
    put(root.path(), "train/c/2.png", &png(2));
    put(root.path(), "train/a/3.png", &png(3));
    put(root.path(), "val/c/4.png", &png(4));
    let train = open(&source(root.path(), Split::Train), cache.path()).unwrap();
    check(&train, &[("a/3.png", 0, 3), ("b/1.png", 1, 1), ("c/2.png", 2, 2)]);
    let open = || {
        DataSet::open(
            &source(root.path(), Split::Test),
            &image(),
            0.0,
            cache.path(),
            Some(train.classes()),
            &mut Said::default(),
        )
    };
    let val = open().unwrap();
    check(&val, &[("c/4.png", 2, 4)]);
    assert_eq!(val.classes(), train.classes());
    put(root.path(), "val/zebra/5.png", &png(5));
    let text = message(open(), FaultKind::Configuration);
    assert!(text.contains("zebra") && text.contains("a, b, c"), "{text}");
}

#[test]
fn a_class_may_be_called_train() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    put(root.path(), "train/1.png", &png(1));
    put(root.path(), "bus/2.png", &png(2));
    let data = open(&source(root.path(), Split::All), cache.path()).unwrap();
    check(&data, &[("bus/2.png", 0, 2), ("train/1.png", 1, 1)]);
    assert!(!has_test_part(root.path(), DataFormat::Auto).unwrap());
}

#[test]
fn sizes_are_peeked_without_decoding() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    folder(root.path());
    put(root.path(), "ant/0.png", &encode_png(&[0; 300], 10, 10, 1).unwrap());
    let sizes = peek_sizes(&source(root.path(), Split::All), 2, cache.path(), &mut Said::default()).unwrap();
    assert_eq!(sizes, [(10, 10), (8, 8)]);
}
