//! CIFAR's binary files.

use super::*;

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
