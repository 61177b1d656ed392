//! Data sets from end to end: files made by hand, opened, compared with what was put into them.

use super::*;
use crate::error::{Error, Result};
use crate::progress::Report;
use delta_guard_contract::{DataFormat, DataSource, FaultKind, ImageConfig, Resize, Split, TrainId};
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
    put(root.path(), "ant/note.txt", b"not a picture");
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
    assert!(skipped["ant/note.txt"].contains("text"));
    assert!(skipped["cat/large.png"].contains("10 × 10"));
    assert!(skipped["cat/link.png"].contains("leads nowhere"));
    let text = message(open(0.37), FaultKind::Configuration);
    for part in ["3 of 8", "data.max_unreadable_share", "ant/note.txt", "cat/large.png"] {
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

fn members(names: &[&str]) -> Vec<(String, Vec<u8>)> {
    names.iter().enumerate().map(|(n, name)| (name.to_string(), png(n))).collect()
}

#[test]
fn reads_tars_plain_zipped_wrapped_and_split() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let here = root.path();
    let names = ["./cat/b.png", "cat/a.png", "ant/1.png", "cat/.x.png", "README"];
    put(here, "set.tar", &tar_of(&members(&names)));
    put(here, "set.tar.gz", &gzip(&tar_of(&members(&names))));
    let want = [("cat/b.png", 1, 0), ("cat/a.png", 1, 1), ("ant/1.png", 0, 2)];
    let plain = open(&source(&here.join("set.tar"), Split::All), cache.path()).unwrap();
    check(&plain, &want);
    let zipped = open(&source(&here.join("set.tar.gz"), Split::All), cache.path()).unwrap();
    check(&zipped, &want);
    assert_eq!(plain.manifest_digest(), zipped.manifest_digest());
    assert!(!has_test_part(&here.join("set.tar"), DataFormat::Auto).unwrap());

    let wrapped = members(&["net/train/cat/0.png", "net/train/ant/deep/1.png", "net/val/ant/2.png", "net/LICENSE"]);
    put(here, "wrapped.tgz", &gzip(&tar_of(&wrapped)));
    let path = here.join("wrapped.tgz");
    assert!(has_test_part(&path, DataFormat::Auto).unwrap());
    check(
        &open(&source(&path, Split::Train), cache.path()).unwrap(),
        &[("net/train/cat/0.png", 1, 0), ("net/train/ant/deep/1.png", 0, 1)],
    );
    check(&open(&source(&path, Split::Test), cache.path()).unwrap(), &[("net/val/ant/2.png", 0, 2)]);
    assert!(message(open(&source(&path, Split::All), cache.path()), FaultKind::Configuration).contains("set split"));

    let shards = TempDir::new().unwrap();
    put(shards.path(), "s2.tar", &tar_of(&members(&["b/x.png"])));
    put(shards.path(), "s1.tar", &tar_of(&members(&["a/x.png", "b/x.png"])));
    check(
        &open(&source(shards.path(), Split::All), cache.path()).unwrap(),
        &[("s1.tar/a/x.png", 0, 0), ("s1.tar/b/x.png", 1, 1), ("s2.tar/b/x.png", 1, 0)],
    );
}

#[test]
fn a_tar_is_read_again_only_when_it_changed() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    put(root.path(), "set.tar", &tar_of(&members(&["a/1.png", "b/2.png"])));
    let source = source(&root.path().join("set.tar"), Split::All);
    let first = open(&source, cache.path()).unwrap();
    put(root.path(), "set.tar", &tar_of(&members(&["b/2.png", "a/1.png"])));
    let second = open(&source, cache.path()).unwrap();
    assert_ne!(first.manifest_digest(), second.manifest_digest());
    check(&second, &[("b/2.png", 1, 0), ("a/1.png", 0, 1)]);
}

/// A tar with one member of any name and kind, as no well-behaved builder would write it.
fn raw_tar(name: &str, kind: tar::EntryType) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    let bytes = if kind.is_file() { png(1) } else { Vec::new() };
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    if kind.is_symlink() {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, &bytes[..]).unwrap();
    let ok = png(0);
    let mut header = tar::Header::new_ustar();
    header.set_size(ok.len() as u64);
    tar.append_data(&mut header, "a/ok.png", &ok[..]).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn hostile_tars_are_refused() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = root.path().join("x.tar");
    let opened = |bytes: &[u8]| {
        fs_err::write(&path, bytes).unwrap();
        DataSet::open(&source(&path, Split::All), &image(), 0.9, cache.path(), None, &mut Said::default())
    };
    for (name, says) in [("a/../../etc/x.png", "leads out"), ("/a/x.png", "absolute"), ("..", "leads out")] {
        assert!(
            message(opened(&raw_tar(name, tar::EntryType::Regular)), FaultKind::Configuration).contains(says),
            "{name}"
        );
    }
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Fifo, tar::EntryType::Block] {
        let data = opened(&raw_tar("a/x.png", kind)).unwrap();
        assert_eq!(data.ids(), [TrainId("a/ok.png".into())]);
        assert!(data.skipped()[0].reason.contains("not a regular file of"), "{kind:?}");
    }
    let good = tar_of(&members(&["a/1.png", "b/2.png"]));
    let twice = tar_of(&members(&["a/1.png", "a/1.png"]));
    assert!(message(opened(&twice), FaultKind::Configuration).contains("a/1.png twice"));
    let cut = good.len() - 1024 - 400;
    message(opened(&good[..cut]), FaultKind::Configuration);
    let zipped = gzip(&good);
    message(opened(&zipped[..zipped.len() - 60]), FaultKind::Configuration);
    assert!(message(opened(b"no tar at all"), FaultKind::Configuration).contains("no data set that is known"));
    // A header that claims more bytes than there are.
    let mut claims = good.clone();
    claims[124..136].copy_from_slice(b"77777777777\0");
    let sum: u32 = claims[..512]
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
        .sum();
    claims[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    message(opened(&claims), FaultKind::Configuration);
}

/// A CIFAR record whose pixels tell which it is.
fn record(label: &[u8], n: usize) -> Vec<u8> {
    let mut out = label.to_vec();
    out.extend((0..cifar::PIXELS).map(|i| (i * 3 + n * 17) as u8));
    out
}

fn cifar_ten() -> Vec<(String, Vec<u8>)> {
    let batch = |from: usize, count: usize| (from..from + count).flat_map(|n| record(&[(n % 10) as u8], n)).collect::<Vec<u8>>();
    let names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"].join("\n") + "\n\n";
    [
        ("data_batch_10.bin", batch(20, 3)),
        ("batches.meta.txt", names.into_bytes()),
        ("data_batch_2.bin", batch(10, 4)),
        ("test_batch.bin", batch(90, 2)),
        ("readme.html", b"x".to_vec()),
    ]
    .map(|(n, b)| (n.to_string(), b))
    .to_vec()
}

fn cifar_image() -> ImageConfig {
    ImageConfig::default()
}

fn open_cifar(source: &DataSource, cache: &Path) -> Result<DataSet> {
    DataSet::open(source, &cifar_image(), 0.0, cache, None, &mut Said::default())
}

#[test]
fn reads_cifar_ten_loose_and_in_the_official_archive() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let loose = root.path().join("loose");
    cifar_ten().iter().for_each(|(name, bytes)| put(&loose, name, bytes));
    let official: Vec<(String, Vec<u8>)> = cifar_ten().into_iter().map(|(n, b)| (format!("cifar-10-batches-bin/{n}"), b)).collect();
    put(root.path(), "tar/cifar-10-binary.tar.gz", &gzip(&tar_of(&official)));
    let unpacked = root.path().join("unpacked");
    official.iter().for_each(|(name, bytes)| put(&unpacked, name, bytes));
    let mut digests = Vec::new();
    for path in [
        loose.clone(),
        root.path().join("tar/cifar-10-binary.tar.gz"),
        root.path().join("tar"),
        unpacked,
    ] {
        let train = open_cifar(&source(&path, Split::Train), cache.path()).unwrap();
        let ids: Vec<&str> = train.ids().iter().map(|i| i.0.as_str()).collect();
        let (two, ten): (Vec<String>, Vec<String>) = (
            (0..4).map(|n| format!("data_batch_2.bin#{n}")).collect(),
            (0..3).map(|n| format!("data_batch_10.bin#{n}")).collect(),
        );
        assert_eq!(ids, [two, ten].concat(), "{}", path.display());
        assert_eq!(train.labels(), [0, 1, 2, 3, 0, 1, 2]);
        assert_eq!((train.classes().len(), train.classes()[3].as_str()), (10, "cat"));
        for (i, n) in [10, 11, 12, 13, 20, 21, 22].into_iter().enumerate() {
            assert_eq!(train.pixels(i), &record(&[], n)[..]);
        }
        let test = DataSet::open(
            &source(&path, Split::Test),
            &cifar_image(),
            0.0,
            cache.path(),
            Some(train.classes()),
            &mut Said::default(),
        )
        .unwrap();
        assert_eq!((test.len(), test.pixels(1).to_vec()), (2, record(&[], 91)));
        assert_eq!(open_cifar(&source(&path, Split::All), cache.path()).unwrap().len(), 9);
        assert!(has_test_part(&path, DataFormat::Auto).unwrap());
        // Once more, from the index.
        assert_eq!(
            open_cifar(&source(&path, Split::Train), cache.path()).unwrap().manifest_digest(),
            train.manifest_digest()
        );
        digests.push(train.manifest_digest().clone());
    }
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
    assert_eq!(cifar_kind(&source(&loose, Split::All)).unwrap(), Some(cifar::CifarKind::Ten));
}

#[test]
fn cifar_hundred_takes_the_fine_label() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let train: Vec<u8> = [record(&[19, 99], 1), record(&[4, 7], 2)].concat();
    put(root.path(), "train.bin", &train);
    put(root.path(), "test.bin", &record(&[1, 50], 3));
    let data = open_cifar(&source(root.path(), Split::Train), cache.path()).unwrap();
    assert_eq!(
        (data.labels(), data.classes().len(), data.classes()[99].as_str()),
        (&[99, 7][..], 100, "99")
    );
    assert_eq!(data.ids()[1], TrainId("train.bin#1".into()));
    assert_eq!(data.pixels(1), &record(&[], 2)[..]);
    let names: Vec<String> = (0..100).map(|n| format!("class{n}")).collect();
    put(root.path(), "fine_label_names.txt", names.join("\n").as_bytes());
    let data = open_cifar(&source(root.path(), Split::All), cache.path()).unwrap();
    assert_eq!((data.len(), data.classes()[99].as_str()), (3, "class99"));
}

#[test]
fn wrong_cifar_files_are_named() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = source(root.path(), Split::Train);
    let fails = |bytes: &[u8]| {
        put(root.path(), "data_batch_1.bin", bytes);
        message(open_cifar(&path, cache.path()), FaultKind::Configuration)
    };
    assert!(fails(&record(&[1], 0)[..3000]).contains("3000 bytes"));
    assert!(fails(b"").contains("0 bytes"));
    let text = fails(&[record(&[1], 0), record(&[10], 1)].concat());
    assert!(text.contains("row 1 has the label 10") && text.contains("data_batch_1.bin"), "{text}");
    put(root.path(), "batches.meta.txt", b"a\nb\n");
    assert!(fails(&record(&[1], 0)).contains("has 2 names"));
    let only_test = TempDir::new().unwrap();
    put(only_test.path(), "test_batch.bin", &record(&[1], 0));
    assert!(
        message(
            open_cifar(&source(only_test.path(), Split::Train), cache.path()),
            FaultKind::Configuration
        )
        .contains("no training batches")
    );
    let small = DataSet::open(
        &source(only_test.path(), Split::Test),
        &image(),
        0.0,
        cache.path(),
        None,
        &mut Said::default(),
    );
    assert!(message(small, FaultKind::Configuration).contains("data.image.resize"));
    let stretched = ImageConfig {
        resize: Resize::Stretch,
        ..image()
    };
    let data = DataSet::open(
        &source(only_test.path(), Split::Test),
        &stretched,
        0.0,
        cache.path(),
        None,
        &mut Said::default(),
    )
    .unwrap();
    assert_eq!(data.pixels(0).len(), 192);
}

#[test]
fn cifar_validation_of_a_folder_is_matched_by_name() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    cifar_ten().iter().for_each(|(name, bytes)| put(root.path(), name, bytes));
    let classes: Vec<String> = ["automobile", "airplane", "other"].map(String::from).to_vec();
    let test = DataSet::open(
        &source(root.path(), Split::Test),
        &cifar_image(),
        0.0,
        cache.path(),
        Some(&classes),
        &mut Said::default(),
    )
    .unwrap();
    assert_eq!(test.labels(), [1, 0]);
    let fewer: Vec<String> = vec!["automobile".into()];
    let opened = DataSet::open(
        &source(root.path(), Split::Test),
        &cifar_image(),
        0.0,
        cache.path(),
        Some(&fewer),
        &mut Said::default(),
    );
    assert!(message(opened, FaultKind::Configuration).contains("the class airplane"));
}

#[test]
fn sizes_are_peeked_without_decoding() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    folder(root.path());
    put(root.path(), "ant/0.png", &encode_png(&[0; 300], 10, 10, 1).unwrap());
    let sizes = peek_sizes(&source(root.path(), Split::All), 2, cache.path(), &mut Said::default()).unwrap();
    assert_eq!(sizes, [(10, 10), (8, 8)]);
}
