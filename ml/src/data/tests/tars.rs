//! Sets in tar files.

use super::*;

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
    for (kind, why) in [
        (tar::EntryType::Symlink, "leads out of the archive"),
        (tar::EntryType::Link, "leads out of the archive"),
        (tar::EntryType::Fifo, "not a regular file"),
        (tar::EntryType::Block, "not a regular file"),
    ] {
        let data = opened(&raw_tar("a/x.png", kind)).unwrap();
        assert_eq!(data.ids(), [TrainId("a/ok.png".into())]);
        assert!(data.skipped()[0].reason.contains(why), "{kind:?}: {:?}", data.skipped());
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
