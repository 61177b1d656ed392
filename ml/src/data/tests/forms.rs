//! The same twenty pictures in every form give the same pixels and labels as the folder.

use super::*;
use crate::data::manifest::KnownClasses;
use delta_guard_contract::{ClassNames, Origin};

/// Twenty pictures of two classes: (class, number).
pub(super) fn twenty() -> Vec<(&'static str, usize)> {
    (0..20).map(|n| (if n % 3 == 0 { "cat" } else { "ant" }, n)).collect()
}

/// BLAKE3 over labels and pixels, whatever the order and the ids.
pub(super) fn seen(data: &DataSet) -> Vec<(String, [u8; 32])> {
    let mut all: Vec<(String, [u8; 32])> = (0..data.len())
        .map(|i| {
            let class = data.classes()[data.labels()[i] as usize].clone();
            (class, *blake3::hash(data.pixels(i)).as_bytes())
        })
        .collect();
    all.sort();
    all
}

pub(super) fn as_folder(root: &Path) -> DataSet {
    for (class, n) in twenty() {
        put(root, &format!("folder/{class}/{n:02}.png"), &png(n));
    }
    open(&source(&root.join("folder"), Split::All), &root.join("cache")).unwrap()
}

pub(super) fn from(root: &Path, name: &str, format: DataFormat, origin: Option<Origin>) -> Result<DataSet> {
    let source = DataSource {
        format,
        source: origin,
        ..source(&root.join(name), Split::All)
    };
    open(&source, &root.join("cache"))
}

fn sources(data: &DataSet) -> Vec<Option<&str>> {
    (0..data.len()).map(|i| data.source(i)).collect()
}

/// `members` with a label file each, in shards of seven keys.
fn shards(root: &Path, label: impl Fn(&str, usize) -> (&'static str, String)) {
    for (shard, keys) in twenty().chunks(7).enumerate() {
        let members: Vec<(String, Vec<u8>)> = keys
            .iter()
            .flat_map(|(class, n)| {
                let (kind, text) = label(class, *n);
                let picture = (format!("{n:05}.png"), png(*n));
                let label = (format!("{n:05}.{kind}"), text.into_bytes());
                // Neither member must come first.
                let both = if n % 2 == 0 { [picture, label] } else { [label, picture] };
                both.into_iter().chain([(format!("{n:05}.txt"), b"a caption".to_vec())])
            })
            .collect();
        let tar = tar_of(&members);
        put(root, &format!("shards/s-{shard:03}.tar"), &tar);
        put(root, &format!("zipped/s-{shard:03}.tar.gz"), &gzip(&tar));
    }
}

#[test]
fn webdataset_is_read_from_a_folder_a_range_and_gzip() {
    let root = TempDir::new().unwrap();
    let wanted = seen(&as_folder(root.path()));
    for round in 0..3 {
        shards(root.path(), |class, n| match round {
            0 => ("cls", format!("{class}\n")),
            1 => ("cls", if class == "cat" { "1" } else { "0" }.into()),
            _ => (
                "json",
                format!(r#"{{"label": "{class}", "source": "crawl-{}", "id": "picture {n}", "width": 8}}"#, n % 2),
            ),
        });
        for (name, format) in [
            ("shards", DataFormat::Auto),
            ("shards/s-{000..002}.tar", DataFormat::Auto),
            ("shards/s-{000..002}.tar", DataFormat::WebDataset),
            ("zipped/s-{000..002}.tar.gz", DataFormat::Auto),
        ] {
            let data = from(root.path(), name, format, None).unwrap();
            let first = &data.ids()[0].0;
            let numbered: Vec<(String, [u8; 32])> = wanted
                .iter()
                .map(|(class, pixels)| (if class == "cat" { "1" } else { "0" }.to_owned(), *pixels))
                .collect();
            match round {
                1 => {
                    assert_eq!(data.classes(), ["0", "1"]);
                    let mut numbered = numbered;
                    numbered.sort();
                    assert_eq!(seen(&data), numbered);
                }
                _ => assert_eq!(seen(&data), wanted, "{name}"),
            }
            match round {
                2 => {
                    assert_eq!(first, "picture 0");
                    assert_eq!(data.source(7), Some("crawl-1"));
                }
                _ => {
                    assert!(first.ends_with("/00000.png") && first.starts_with("s-000.tar"), "{first}");
                    assert!(!data.has_sources());
                }
            }
            let by_shard = from(root.path(), name, format, Some(Origin::Shard)).unwrap();
            assert!(by_shard.source(19).unwrap().starts_with("s-002.tar"));
            assert_eq!(
                by_shard.manifest_digest(),
                data.manifest_digest(),
                "sources are no part of what is learned"
            );
        }
    }
    // One shard: the member's name is the id. What was learned of a tar before is known again.
    let one = from(root.path(), "shards/s-000.tar", DataFormat::Auto, Some(Origin::None)).unwrap();
    assert_eq!((one.len(), one.has_sources()), (7, false));
    age(&root.path().join("shards"));
    let first = from(root.path(), "shards", DataFormat::Auto, None).unwrap();
    let again = from(root.path(), "shards", DataFormat::Auto, None).unwrap();
    assert_eq!((first.ids(), sources(&first)), (again.ids(), sources(&again)));
    assert_eq!(first.manifest_digest(), again.manifest_digest());
}

#[test]
fn a_tar_of_class_folders_with_notes_stays_one() {
    let root = TempDir::new().unwrap();
    let members: Vec<(String, Vec<u8>)> = twenty()
        .iter()
        .flat_map(|(class, n)| {
            [
                (format!("{class}/{n}.png"), png(*n)),
                (format!("{class}/{n}.json"), br#"{"label": "else"}"#.to_vec()),
            ]
        })
        .collect();
    put(root.path(), "set.tar", &tar_of(&members));
    let data = from(root.path(), "set.tar", DataFormat::Auto, None).unwrap();
    assert_eq!(data.classes(), ["ant", "cat"]);
    let named = from(root.path(), "set.tar", DataFormat::WebDataset, None).unwrap();
    assert_eq!(named.classes(), ["else"]);
}

/// A list of the folder's pictures, and what its rows say besides.
fn csv_of(root: &Path, head: &str, row: impl Fn(&str, usize) -> String) {
    let rows: Vec<String> = twenty().iter().map(|(class, n)| row(class, *n)).collect();
    put(root, "train.csv", format!("{head}\n{}\n", rows.join("\n")).as_bytes());
}

#[test]
fn lists_are_read_as_csv_and_as_json_lines() {
    let root = TempDir::new().unwrap();
    let folder = as_folder(root.path());
    let wanted = seen(&folder);
    csv_of(root.path(), "\u{feff}label,path", |class, n| format!("{class},folder/{class}/{n:02}.png"));
    let data = from(root.path(), "train.csv", DataFormat::Auto, None).unwrap();
    assert_eq!(seen(&data), wanted);
    assert_eq!(data.ids()[0].0, "folder/cat/00.png");
    assert!(!data.has_sources());
    // Quotes, line ends of another system, columns that nobody asked for, absolute paths, `.` and `..` inside.
    let inside = root.path().display().to_string();
    csv_of(root.path(), "note,path,label,source,id\r", |class, n| {
        let path = match n % 3 {
            0 => format!("{inside}/folder/{class}/{n:02}.png"),
            1 => format!("./folder//{class}/{n:02}.png"),
            _ => format!("folder/other/../{class}/{n:02}.png"),
        };
        format!(
            "\"a \"\"quoted\"\", note\nof two lines\",\"{path}\",{class},{},n{n}\r",
            if n < 5 { "shop, old" } else { "" }.replace("shop, old", "\"shop, old\"")
        )
    });
    let data = from(root.path(), "train.csv", DataFormat::Auto, None).unwrap();
    assert_eq!(seen(&data), wanted);
    assert_eq!(data.ids()[7].0, "n7");
    assert_eq!(
        (data.source(0), data.source(4), data.source(5)),
        (Some("shop, old"), Some("shop, old"), None)
    );
    assert!(
        !from(root.path(), "train.csv", DataFormat::Auto, Some(Origin::None))
            .unwrap()
            .has_sources()
    );
    // JSON lines.
    let rows: Vec<String> = twenty()
        .iter()
        .map(|(class, n)| {
            format!(
                r#"{{"path": "folder/{class}/{n:02}.png", "label": {}, "id": {n}, "source": null}}"#,
                u8::from(*class == "cat")
            )
        })
        .collect();
    put(
        root.path(),
        "train.jsonl",
        format!("{}\n\n{}", rows[..9].join("\n"), rows[9..].join("\r\n")).as_bytes(),
    );
    let data = from(root.path(), "train.jsonl", DataFormat::Auto, None).unwrap();
    assert_eq!((data.classes(), data.ids()[3].0.as_str()), (&["0".to_owned(), "1".to_owned()][..], "3"));
    let names = ["ant".to_owned(), "cat".to_owned()];
    let named = DataSet::open_known(
        &source(&root.path().join("train.jsonl"), Split::All),
        &image(),
        0.0,
        &root.path().join("cache"),
        Some(KnownClasses::Training(&names)),
        &mut Said::default(),
    )
    .unwrap();
    assert_eq!(seen(&named), wanted);
    let counted = glance(
        &source(&root.path().join("train.jsonl"), Split::All),
        Some(KnownClasses::Training(&names)),
    )
    .unwrap();
    assert_eq!(counted, Glance::Classes(vec![("ant".into(), 13), ("cat".into(), 7)]));
}

#[test]
fn a_lists_split_takes_its_rows() {
    let root = TempDir::new().unwrap();
    as_folder(root.path());
    csv_of(root.path(), "path,label,split", |class, n| {
        // What is not asked for needs no label.
        let label = if n == 19 { "" } else { class };
        format!("folder/{class}/{n:02}.png,{label},{}", ["train", "val", "holdout"][n / 15 + n / 19])
    });
    let part = |split| open(&source(&root.path().join("train.csv"), split), &root.path().join("cache"));
    assert_eq!((part(Split::Train).unwrap().len(), part(Split::Test).unwrap().len()), (15, 4));
    assert!(message(part(Split::All), FaultKind::Configuration).contains("set split to train or test"));
    assert!(has_test_part(&root.path().join("train.csv"), DataFormat::Auto).unwrap());
    csv_of(root.path(), "path,label", |class, n| format!("folder/{class}/{n:02}.png,{class}"));
    assert_eq!(part(Split::Train).unwrap().len(), 20);
    // A folder of lists, when the format is named.
    fs_err::copy(root.path().join("train.csv"), root.path().join("test.csv")).unwrap();
    let of_folder = |split| {
        let source = DataSource {
            format: DataFormat::Manifest,
            ..source(root.path(), split)
        };
        open(&source, &root.path().join("cache"))
    };
    assert_eq!(of_folder(Split::Test).unwrap().len(), 20);
    assert!(of_folder(Split::All).is_err());
}

#[test]
fn a_missing_picture_of_a_list_is_an_unreadable_one() {
    let root = TempDir::new().unwrap();
    as_folder(root.path());
    std::os::unix::fs::symlink(root.path().join("folder"), root.path().join("link")).unwrap();
    csv_of(root.path(), "path,label", |class, n| match n {
        4 => format!("folder/{class}/gone.png,{class}"),
        5 => format!("folder/{class},{class}"),
        _ => format!("link/{class}/{n:02}.png,{class}"),
    });
    assert!(message(from(root.path(), "train.csv", DataFormat::Auto, None), FaultKind::Configuration).contains("there is no file"));
    let source = source(&root.path().join("train.csv"), Split::All);
    let data = DataSet::open(&source, &image(), 0.2, &root.path().join("cache"), None, &mut Said::default()).unwrap();
    assert_eq!((data.len(), data.skipped().len()), (18, 2));
    assert!(data.skipped()[1].reason.contains("not a regular file"));
}

#[test]
fn ppm_pgm_and_tiff_are_read_as_the_same_pixels() {
    let root = TempDir::new().unwrap();
    let wanted = seen(&as_folder(root.path()));
    for (name, format) in [
        ("ppm", image::ImageFormat::Pnm),
        ("tif", image::ImageFormat::Tiff),
        ("TIFF", image::ImageFormat::Tiff),
    ] {
        for (class, n) in twenty() {
            let mut out = std::io::Cursor::new(Vec::new());
            image::load_from_memory(&png(n)).unwrap().write_to(&mut out, format).unwrap();
            put(root.path(), &format!("as-{name}/{class}/{n}.{name}"), &out.into_inner());
        }
        assert_eq!(
            seen(&from(root.path(), &format!("as-{name}"), DataFormat::Auto, None).unwrap()),
            wanted,
            "{name}"
        );
    }
    let grey: Vec<u8> = (0..64).map(|i| i * 3).collect();
    for class in ["a", "b"] {
        put(
            root.path(),
            &format!("grey/{class}/1.pgm"),
            &[b"P5 # a remark\n8 8\n255\n".to_vec(), grey.clone()].concat(),
        );
        let text: String = grey.iter().map(|n| format!("{n} ")).collect();
        put(root.path(), &format!("grey/{class}/2.pgm"), format!("P2\n8 8 255\n{text}").as_bytes());
    }
    let data = from(root.path(), "grey", DataFormat::Auto, None).unwrap();
    assert_eq!(data.len(), 4);
    for i in 0..4 {
        assert_eq!(data.pixels(i), grey.repeat(3), "picture {i}");
    }
    // Headers that promise much, and files that end early, cost their own picture only.
    put(root.path(), "grey/a/huge.ppm", b"P6 60000 60000 255\nx");
    put(root.path(), "grey/a/cut.pgm", b"P5 8 8 255\nxyz");
    put(root.path(), "grey/a/cut.tif", b"II*\0\x08\0\0\0\xff\xff\0\0");
    let source = source(&root.path().join("grey"), Split::All);
    let data = DataSet::open(&source, &image(), 0.5, &root.path().join("cache"), None, &mut Said::default()).unwrap();
    assert_eq!((data.len(), data.skipped().len()), (4, 3), "{:?}", data.skipped());
}

#[test]
fn sources_are_folders_below_the_class_tars_or_batches() {
    let root = TempDir::new().unwrap();
    for (class, n) in twenty() {
        let below = ["", "crawl/", "shop/new/"][n % 3];
        put(root.path(), &format!("folder/{class}/{below}{n:02}.png"), &png(n));
    }
    let by_folder = from(root.path(), "folder", DataFormat::Auto, Some(Origin::Folder)).unwrap();
    let at = |id: &str| by_folder.source(by_folder.position(&TrainId(id.into())).unwrap());
    assert_eq!(
        (at("cat/03.png"), at("ant/crawl/04.png"), at("ant/shop/new/02.png")),
        (None, Some("crawl"), Some("shop"))
    );
    let plain = from(root.path(), "folder", DataFormat::Auto, None).unwrap();
    assert!(!plain.has_sources());
    assert_eq!(plain.manifest_digest(), by_folder.manifest_digest());
    let members: Vec<(String, Vec<u8>)> = plain.ids().iter().enumerate().map(|(n, id)| (format!("top/{}", id.0), png(n))).collect();
    put(root.path(), "tars/x.tar", &tar_of(&members[..10]));
    put(root.path(), "tars/y.tar", &tar_of(&members[10..]));
    let by_folder = from(root.path(), "tars", DataFormat::Auto, Some(Origin::Folder)).unwrap();
    let of: BTreeMap<&str, Option<&str>> = (0..20).map(|i| (by_folder.ids()[i].0.as_str(), by_folder.source(i))).collect();
    assert!(
        of.iter()
            .all(|(id, source)| *source == ["crawl", "shop"].into_iter().find(|name| id.contains(&format!("/{name}/")))),
        "{of:?}"
    );
    let by_tar = from(root.path(), "tars", DataFormat::Auto, Some(Origin::Shard)).unwrap();
    assert_eq!((by_tar.source(0), by_tar.source(19)), (Some("x.tar"), Some("y.tar")));
    for (name, origin) in [("folder", Origin::Shard), ("folder", Origin::Column), ("tars", Origin::Column)] {
        let text = message(from(root.path(), name, DataFormat::Auto, Some(origin)), FaultKind::Configuration);
        assert!(text.contains("cannot tell sources") && text.contains("set source to `folder`"), "{text}");
    }
}

/// `data.classes` gives the order, and must name just the classes that are there.
#[test]
fn listed_classes_give_the_order_and_must_fit() {
    let root = TempDir::new().unwrap();
    let plain = as_folder(root.path());
    let opened = |name: &str, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        DataSet::open_known(
            &source(&root.path().join(name), Split::All),
            &image(),
            0.0,
            &root.path().join("cache"),
            Some(KnownClasses::Listed(&names)),
            &mut Said::default(),
        )
    };
    let turned = opened("folder", &["cat", "ant"]).unwrap();
    assert_eq!(turned.classes(), ["cat", "ant"]);
    assert_eq!(seen(&turned), seen(&plain));
    let label = |data: &DataSet, id: &str| data.labels()[data.position(&TrainId(id.into())).unwrap()];
    assert_eq!((label(&turned, "cat/00.png"), label(&plain, "cat/00.png")), (0, 1));
    assert_ne!(turned.manifest_digest(), plain.manifest_digest());
    assert_eq!(opened("folder", &["ant", "cat"]).unwrap().manifest_digest(), plain.manifest_digest());
    let text = message(opened("folder", &["ant", "cow", "dog"]), FaultKind::Configuration);
    assert!(text.contains("does not name: cat") && text.contains("does not have: cow, dog"), "{text}");
    // Numbers are places in the list.
    csv_of(root.path(), "path,label", |class, n| {
        format!("folder/{class}/{n:02}.png,{}", u8::from(class == "ant"))
    });
    assert_eq!(seen(&opened("train.csv", &["cat", "ant"]).unwrap()), seen(&plain));
    assert!(message(opened("train.csv", &["cat", "ant", "dog"]), FaultKind::Configuration).contains("does not have: dog"));
    assert!(message(opened("train.csv", &["cat"]), FaultKind::Configuration).contains("the label 1"));
    let names = class_names(&ClassNames::Listed(vec!["cat".into(), "ant".into()])).unwrap();
    assert_eq!(names, ["cat", "ant"]);
}
