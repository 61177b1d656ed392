//! Parquet files as `datasets` and pyarrow write them (`ml/tests/fixtures/parquet/make.py`), and as nobody should.

use super::forms::{as_folder, from, seen};
use super::*;
use crate::data::manifest::KnownClasses;
use delta_guard_contract::Origin;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parquet")
}

/// The set of two files, in a folder of its own.
fn set(root: &Path, folder: &str) {
    for part in 0..2 {
        let name = format!("train-{part:05}-of-00002.parquet");
        put(root, &format!("{folder}/{name}"), &fs_err::read(fixtures().join(name)).unwrap());
    }
}

#[test]
fn files_of_datasets_are_read_with_their_names_and_sources() {
    let root = TempDir::new().unwrap();
    let wanted = seen(&as_folder(root.path()));
    set(root.path(), "hf/data");
    put(root.path(), "hf/README.md", b"a card");
    for name in ["hf", "hf/data", "hf/data/train-{00000..00001}-of-00002.parquet"] {
        let data = from(root.path(), name, DataFormat::Auto, None).unwrap();
        assert_eq!(data.classes(), ["cat", "ant"], "the schema's order");
        assert_eq!(seen(&data), wanted, "{name}");
        assert_eq!(data.ids()[13].0, "train-00001-of-00002.parquet#3");
        assert_eq!((data.source(0), data.source(13)), (None, Some("crawl-1")));
    }
    let by_file = from(root.path(), "hf", DataFormat::Parquet, Some(Origin::Shard)).unwrap();
    assert_eq!(by_file.source(0), Some("train-00000-of-00002.parquet"));
    // Read again from the index; counted without a picture.
    age(&root.path().join("hf"));
    let first = from(root.path(), "hf", DataFormat::Auto, None).unwrap();
    let again = from(root.path(), "hf", DataFormat::Auto, None).unwrap();
    assert_eq!((first.manifest_digest(), first.source(7)), (again.manifest_digest(), again.source(7)));
    let here = source(&root.path().join("hf"), Split::Train);
    assert_eq!(glance(&here, None).unwrap(), Glance::Classes(vec![("cat".into(), 7), ("ant".into(), 13)]));
    let names = ["ant".to_owned(), "bee".to_owned(), "cat".to_owned()];
    assert_eq!(
        glance(&here, Some(KnownClasses::Training(&names))).unwrap(),
        Glance::Classes(vec![("ant".into(), 13), ("bee".into(), 0), ("cat".into(), 7)])
    );
    assert!(!has_test_part(&root.path().join("hf"), DataFormat::Auto).unwrap());
    assert!(
        message(
            open(&source(&root.path().join("hf"), Split::Test), &root.path().join("cache")),
            FaultKind::Configuration
        )
        .contains("no test part")
    );
}

#[test]
fn plain_columns_of_bytes_and_text_are_read() {
    let root = TempDir::new().unwrap();
    let wanted = seen(&as_folder(root.path()));
    put(root.path(), "plain.parquet", &fs_err::read(fixtures().join("plain.parquet")).unwrap());
    let here = source(&root.path().join("plain.parquet"), Split::All);
    let data = DataSet::open(&here, &image(), 0.1, &root.path().join("cache"), None, &mut Said::default()).unwrap();
    assert_eq!((data.classes(), seen(&data)), (&["ant".to_owned(), "cat".to_owned()][..], wanted));
    assert_eq!(data.skipped()[0].id.0, "plain.parquet#20");
    assert!(data.skipped()[0].reason.contains("no bytes"));
    let text = message(
        from(root.path(), "plain.parquet", DataFormat::Auto, Some(Origin::Column)),
        FaultKind::Configuration,
    );
    assert!(text.contains("`source: column`"), "{text}");
}

#[test]
fn a_set_of_files_must_be_whole_and_of_one_kind() {
    let root = TempDir::new().unwrap();
    set(root.path(), "hf");
    fs_err::remove_file(root.path().join("hf/train-00000-of-00002.parquet")).unwrap();
    let told = |name: &str| message(from(root.path(), name, DataFormat::Auto, None), FaultKind::Configuration);
    assert!(told("hf").contains("train-00000-of-00002.parquet is missing"), "{}", told("hf"));
    put(root.path(), "zstd.parquet", &fs_err::read(fixtures().join("zstd.parquet")).unwrap());
    let text = told("zstd.parquet").to_lowercase();
    assert!(text.contains("zstd") && text.contains("snappy"), "{text}");
    put(root.path(), "text.parquet", b"this is no parquet file at all");
    assert!(told("text.parquet").contains("not PAR1"));
    let whole = fs_err::read(fixtures().join("plain.parquet")).unwrap();
    put(root.path(), "cut.parquet", &whole[..whole.len() / 2]);
    assert!(told("cut.parquet").contains("cut short"));
}

/// Whatever is written into a file: an error, or a set; never a panic, and never more memory than a page may have.
#[test]
fn mutations_never_end_the_process() {
    let root = TempDir::new().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let hook = std::panic::take_hook();
    // The library's panics are caught, and would fill the test's output.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut errors, mut sets) = (0, 0);
    for name in ["plain.parquet", "train-00000-of-00002.parquet"] {
        let good = fs_err::read(fixtures().join(name)).unwrap();
        for _ in 0..400 {
            let mut bad = good.clone();
            for _ in 0..random.random_range(1..4) {
                // The footer is where most structure is.
                let from = if random.random_bool(0.7) { bad.len() * 2 / 3 } else { 0 };
                let at = random.random_range(from..bad.len());
                match random.random_range(0..3) {
                    0 => bad[at] ^= 1 << random.random_range(0..8),
                    1 => bad[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
                    _ => drop(bad.remove(at)),
                }
            }
            put(root.path(), "bad.parquet", &bad);
            let here = source(&root.path().join("bad.parquet"), Split::All);
            match DataSet::open(&here, &image(), 1.0, &root.path().join("cache"), None, &mut Said::default()) {
                Ok(_) => sets += 1,
                Err(error) => {
                    assert_eq!(error.fault().kind, FaultKind::Configuration, "{error}");
                    errors += 1;
                }
            }
            let _ = fs_err::remove_dir_all(root.path().join("cache"));
        }
    }
    std::panic::set_hook(hook);
    assert!(errors > 200 && sets > 40, "{errors} errors, {sets} sets");
}
