//! What counts as an example is what torchvision's `ImageFolder` takes; the rest is counted and told.

use super::*;
use crate::data::PassedOver;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;

/// What people have beside their pictures.
const BESIDE: [&str; 9] = [
    "cat/a.png~",
    "cat/a.png_original",
    "cat/a.png.bak",
    "cat/Thumbs.db",
    "cat/.DS_Store",
    "cat/._a.png",
    "ant/desktop.ini",
    "ant/notes.txt",
    "ant/1.xcf",
];

fn told(data: &DataSet) -> (usize, String) {
    let over: &PassedOver = data.passed_over();
    (over.count, over.to_string())
}

#[test]
fn backup_copies_and_notes_are_no_examples() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    folder(root.path());
    fs_err::remove_file(root.path().join("cat/.hidden.png")).unwrap();
    let clean = open(&source(root.path(), Split::All), cache.path()).unwrap();
    assert_eq!(clean.passed_over().count, 0);
    for (n, name) in BESIDE.iter().enumerate() {
        put(root.path(), name, &png(n));
    }
    let data = open(&source(root.path(), Split::All), cache.path()).unwrap();
    check(&data, &wanted());
    assert!(data.skipped().is_empty());
    let (count, text) = told(&data);
    assert_eq!(count, BESIDE.len());
    assert!(
        text.contains("passed over 9 files") && text.contains("ant/1.xcf") && text.ends_with(", …"),
        "{text}"
    );
    assert_eq!(data.manifest_digest(), clean.manifest_digest(), "what is no example changes nothing");

    // The same in a tar.
    let members: Vec<(String, Vec<u8>)> = wanted()
        .iter()
        .map(|(name, _, n)| ((*name).to_string(), png(*n)))
        .chain(BESIDE.iter().map(|name| ((*name).to_string(), png(0))))
        .collect();
    put(root.path(), "set.tar", &tar_of(&members));
    let tarred = open(&source(&root.path().join("set.tar"), Split::All), cache.path()).unwrap();
    check(&tarred, &wanted());
    assert_eq!(told(&tarred).0, BESIDE.len());
}

/// Capital letters count as well; a damaged picture of `ImageFolder`'s formats is told as unreadable, not passed over.
#[test]
fn the_list_of_names_is_image_folders() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for (n, name) in ["a/1.PNG", "a/2.Jpeg", "a/3.webp", "b/4.JPG", "b/5.bmp"].iter().enumerate() {
        put(root.path(), name, &png(n));
    }
    put(root.path(), "b/6.tiff", b"II*\0\x08\0\0\0\0\0");
    put(root.path(), "b/7.ppm", b"P6 1 1 255\n\x01\x02\x03");
    put(root.path(), "b/8.gif", b"GIF89a");
    let data = DataSet::open(&source(root.path(), Split::All), &image(), 0.5, cache.path(), None, &mut Said::default()).unwrap();
    assert_eq!(data.len(), 5);
    assert_eq!(
        data.skipped().iter().map(|u| u.id.0.as_str()).collect::<Vec<_>>(),
        ["b/6.tiff", "b/7.ppm"]
    );
    assert!(data.skipped()[1].reason.contains("1 × 1"), "{:?}", data.skipped());
    assert_eq!(told(&data), (1, "passed over 1 file that is no example by its name: b/8.gif".into()));
}

#[test]
fn a_class_of_nothing_but_other_files_is_told() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    put(root.path(), "a/1.png", &png(1));
    put(root.path(), "b/2.gif", b"GIF89a");
    let text = message(open(&source(root.path(), Split::All), cache.path()), FaultKind::Configuration);
    assert!(text.contains("without pictures: b") && text.contains("b/2.gif"), "{text}");
    put(root.path(), "set.tar", &tar_of(&[("a/1.png".into(), png(1)), ("b/2.gif".into(), png(2))]));
    let text = message(
        open(&source(&root.path().join("set.tar"), Split::All), cache.path()),
        FaultKind::Configuration,
    );
    assert!(text.contains("without pictures: b") && text.contains("b/2.gif"), "{text}");
}

#[test]
fn a_class_folder_that_is_not_utf8_is_an_error_and_never_dropped() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    folder(root.path());
    let latin = root.path().join(std::ffi::OsString::from_vec(b"caf\xe9".to_vec()));
    fs_err::create_dir(&latin).unwrap();
    fs_err::write(latin.join("1.png"), png(1)).unwrap();
    let text = message(open(&source(root.path(), Split::All), cache.path()), FaultKind::Configuration);
    assert!(text.contains("not UTF-8") && text.contains("caf\\xE9"), "{text}");
    // A loose file of such a name is nobody's, unless it would hold examples.
    fs_err::remove_dir_all(&latin).unwrap();
    fs_err::write(&latin, b"loose").unwrap();
    check(&open(&source(root.path(), Split::All), cache.path()).unwrap(), &wanted());
    let odd = |name: &[u8]| std::ffi::OsString::from_vec(name.to_vec());
    for (place, escaped) in [
        (root.path().join(odd(b"\xff.tar")), "\\xFF.tar"),
        (root.path().join("cat").join(odd(b"\xff.png")), "\\xFF.png"),
        (root.path().join("cat").join(odd(b"deep\xfe")).join("x.png"), "deep\\xFE"),
    ] {
        fs_err::create_dir_all(place.parent().unwrap()).unwrap();
        fs_err::write(&place, png(1)).unwrap();
        let text = message(
            DataSet::open(&source(root.path(), Split::All), &image(), 0.5, cache.path(), None, &mut Said::default()),
            FaultKind::Configuration,
        );
        let folder = root.path().display().to_string();
        assert!(text.contains("not UTF-8") && text.contains(escaped) && text.contains(&folder), "{text}");
        fs_err::remove_file(&place).unwrap();
        if escaped.starts_with("deep") {
            fs_err::remove_dir(place.parent().unwrap()).unwrap();
        }
    }
    // What is no picture by its name is passed over, and counted.
    fs_err::write(root.path().join("cat").join(odd(b"\xff.txt")), b"note").unwrap();
    let data = open(&source(root.path(), Split::All), cache.path()).unwrap();
    check(&data, &wanted());
    assert!(data.passed_over().count > 0);
}

#[test]
fn a_link_that_goes_in_a_circle_is_named() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    folder(root.path());
    symlink("..", root.path().join("cat/round")).unwrap();
    let text = message(open(&source(root.path(), Split::All), cache.path()), FaultKind::Configuration);
    assert!(text.contains("cat/round") && text.contains("remove the link"), "{text}");
}

#[test]
fn pictures_of_another_size_name_the_key_and_the_value() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let sized = |name: &str, width: u32, height: u32| {
        put(
            root.path(),
            name,
            &encode_png(&vec![0; (3 * width * height) as usize], height, width, 1).unwrap(),
        )
    };
    let refused = || message(open(&source(root.path(), Split::All), cache.path()), FaultKind::Configuration);
    for n in 0..4 {
        sized(&format!("a/{n}.png"), 10, 12);
        sized(&format!("b/{n}.png"), 10, 12);
    }
    let text = refused();
    for part in [
        "8 of 8",
        "data.image.resize: stretch",
        "center-crop",
        "data.image.width: 10",
        "data.image.height: 12",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    sized("b/9.png", 11, 12);
    let text = refused();
    assert!(
        text.contains("data.image.resize: stretch") && !text.contains("data.image.width"),
        "{text}"
    );
    // One class of the right size, one of another: the same advice.
    for n in 0..2000 {
        put(root.path(), &format!("a/{n}.png"), &png(n));
    }
    let text = refused();
    assert!(text.contains("no readable picture is left of b") || text.contains("unreadable"), "{text}");
    assert!(text.contains("data.image.resize: stretch"), "{text}");
    // Damage is not a matter of size.
    let other = TempDir::new().unwrap();
    put(other.path(), "a/1.png", b"no picture");
    put(other.path(), "b/1.png", &png(1));
    let text = message(open(&source(other.path(), Split::All), cache.path()), FaultKind::Configuration);
    assert!(!text.contains("data.image.resize") && text.contains("repair"), "{text}");
}

/// The stored pixels, as PIL's `convert("RGB")` gives them; turned only where the key says so. The cache keeps both apart.
#[test]
fn an_exif_orientation_is_followed_only_when_asked_for() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/exif");
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for name in ["exif6.jpg", "exif6.png", "exif6.webp", "exif_none_same_pixels.jpg"] {
        put(root.path(), &format!("a/{name}"), &fs_err::read(fixtures.join(name)).unwrap());
    }
    put(root.path(), "b/x.jpg", &fs_err::read(fixtures.join("exif_none_same_pixels.jpg")).unwrap());
    let sizes = peek_sizes(&source(root.path(), Split::All), 10, cache.path(), &mut Said::default()).unwrap();
    let (width, height) = sizes[3];
    assert_eq!(sizes, [(width, height); 5]);
    let with = |orientation| {
        let image = ImageConfig {
            height,
            width,
            resize: Resize::Stretch,
            orientation,
            ..ImageConfig::default()
        };
        DataSet::open(&source(root.path(), Split::All), &image, 0.0, cache.path(), None, &mut Said::default()).unwrap()
    };
    let far = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64;
    let stored = with(Orientation::Ignore);
    assert_eq!(stored.pixels(0), stored.pixels(3), "exif6.jpg");
    assert!(far(stored.pixels(1), stored.pixels(3)) < 3.0 && far(stored.pixels(2), stored.pixels(3)) < 3.0);
    let turned = with(Orientation::Apply);
    assert_eq!(turned.pixels(3), stored.pixels(3));
    for i in 0..3 {
        assert!(far(turned.pixels(i), stored.pixels(i)) > 10.0, "picture {i}");
    }
    assert_eq!(with(Orientation::Ignore).pixels(0), stored.pixels(0));
}
