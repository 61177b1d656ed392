//! Links inside tars give the examples that they name.

use super::*;
use tar::EntryType;

enum What<'a> {
    File(usize),
    Hard(&'a str),
    Soft(&'a str),
}
use What::{File, Hard, Soft};

fn tar_with(members: &[(&str, What)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, what) in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        match what {
            File(n) => {
                let bytes = png(*n);
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, name, &bytes[..]).unwrap();
            }
            Hard(target) => {
                header.set_entry_type(EntryType::Link);
                tar.append_link(&mut header, name, target).unwrap();
            }
            Soft(target) => {
                header.set_entry_type(EntryType::Symlink);
                tar.append_link(&mut header, name, target).unwrap();
            }
        }
    }
    tar.into_inner().unwrap()
}

fn sorted(data: &DataSet) -> Vec<(String, u32, usize)> {
    let mut all: Vec<(String, u32, usize)> = (0..data.len())
        .map(|i| {
            let n = (0..20).find(|n| data.pixels(i) == pixels(*n)).unwrap();
            (data.ids()[i].0.clone(), data.labels()[i], n)
        })
        .collect();
    all.sort();
    all
}

fn open_tar(bytes: &[u8]) -> (DataSet, TempDir) {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    put(root.path(), "set.tar", bytes);
    age(root.path());
    let path = source(&root.path().join("set.tar"), Split::All);
    let data = DataSet::open(&path, &image(), 0.9, cache.path(), None, &mut Said::default()).unwrap();
    // Once more from the index.
    let again = DataSet::open(&path, &image(), 0.9, cache.path(), None, &mut Said::default()).unwrap();
    assert_eq!(sorted(&data), sorted(&again));
    assert_eq!(data.skipped(), again.skipped());
    (data, cache)
}

#[test]
fn links_give_what_they_name_and_nothing_from_outside() {
    let long = format!("cat/{}.png", "x".repeat(200));
    let (data, _cache) = open_tar(&tar_with(&[
        ("dog/before.png", Soft("../cat/b.png")),
        ("cat/a.png", File(1)),
        (&long, File(2)),
        ("cat/b.png", File(3)),
        ("dog/hard.png", Hard("cat/a.png")),
        ("dog/long.png", Hard(&long)),
        ("dog/twice.png", Hard("dog/hard.png")),
        ("dog/soft.png", Soft("../cat/../cat/./b.png")),
        ("dog/own.png", File(4)),
        (".store/k.png", File(5)),
        ("dog/annex.png", Soft("../.store/k.png")),
        ("dog/out.png", Soft("/etc/passwd")),
        ("dog/up.png", Soft("../../x.png")),
        ("dog/gone.png", Hard("cat/gone.png")),
        ("dog/round.png", Soft("round.png")),
        ("dog/note.txt", Soft("own.png")),
    ]));
    let want: Vec<(String, u32, usize)> = [
        ("cat/a.png", 0, 1),
        ("cat/b.png", 0, 3),
        (long.as_str(), 0, 2),
        ("dog/annex.png", 1, 5),
        ("dog/before.png", 1, 3),
        ("dog/hard.png", 1, 1),
        ("dog/long.png", 1, 2),
        ("dog/own.png", 1, 4),
        ("dog/soft.png", 1, 3),
        ("dog/twice.png", 1, 1),
    ]
    .map(|(name, label, n)| (name.to_string(), label, n))
    .to_vec();
    assert_eq!(sorted(&data), want);
    let reasons: BTreeMap<&str, &str> = data.skipped().iter().map(|u| (u.id.0.as_str(), u.reason.as_str())).collect();
    assert_eq!(reasons.len(), 4);
    for (name, why) in [
        ("dog/out.png", "out of the archive"),
        ("dog/up.png", "out of the archive"),
        ("dog/gone.png", "nowhere"),
        ("dog/round.png", "circle"),
    ] {
        assert!(reasons[name].contains(why), "{name}: {reasons:?}");
    }
    assert_eq!(data.passed_over().count, 1);
}

#[test]
fn a_class_may_be_a_link_to_a_folder() {
    let (data, _cache) = open_tar(&tar_with(&[
        ("cat", Soft(".pool/felis")),
        ("dog/1.png", File(3)),
        (".pool/felis/a.png", File(1)),
        (".pool/felis/deep/b.png", File(2)),
        (".pool/felis/c.png", Hard("dog/1.png")),
        (".pool/felis/up", Soft("..")),
    ]));
    let want = [("cat/a.png", 0, 1), ("cat/c.png", 0, 3), ("cat/deep/b.png", 0, 2), ("dog/1.png", 1, 3)];
    assert_eq!(sorted(&data), want.map(|(name, label, n)| (name.to_string(), label, n)));
}

/// Each of two tars has its own links.
#[test]
fn links_stay_within_their_own_tar() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    put(root.path(), "s1.tar", &tar_with(&[("a/1.png", File(1)), ("b/2.png", Hard("a/1.png"))]));
    put(
        root.path(),
        "s2.tar",
        &tar_with(&[("a/3.png", File(2)), ("b/2.png", Soft("../a/3.png")), ("b/4.png", Soft("../a/1.png"))]),
    );
    let data = DataSet::open(&source(root.path(), Split::All), &image(), 0.5, cache.path(), None, &mut Said::default()).unwrap();
    let want = [
        ("s1.tar/a/1.png", 0, 1),
        ("s1.tar/b/2.png", 1, 1),
        ("s2.tar/a/3.png", 0, 2),
        ("s2.tar/b/2.png", 1, 2),
    ];
    assert_eq!(sorted(&data), want.map(|(name, label, n)| (name.to_string(), label, n)));
    assert_eq!(data.skipped()[0].id, TrainId("s2.tar/b/4.png".into()));
}
