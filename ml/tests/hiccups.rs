//! A file system that does not answer for a moment: the worker says so, as something that is worth another try, and the next try finds the same as ever. What a
//! person must mend stays a person's business.
//!
//! The system's calls are made to fail by a library that is loaded before the worker (`tests/support/hiccup.c`).

#![allow(clippy::unwrap_used, reason = "a test")]

use delta_guard_contract::job::ImageLimits;
use delta_guard_contract::{
    DataConfig, DataSource, Device, Fault, FaultKind, ImageConfig, Job, JobResult, Message, ModelConfig, Outcome, PROTOCOL, Task, WorkerSetup,
};
use delta_influence::data::encode_png;
use delta_influence::model::{Weights, zoo};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const EIO: i32 = 5;

/// The library, compiled into `dir`.
fn library(dir: &Path) -> PathBuf {
    let out = dir.join("hiccup.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/support/hiccup.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&out)
        .arg(&source)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    out
}

/// Data in three forms, a checkpoint, a submission.
struct Place {
    root: tempfile::TempDir,
    library: PathBuf,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let library = library(root.path());
        let mut tar = tar::Builder::new(std::fs::File::create(root.path().join("set.tar")).unwrap());
        let mut zipped = tar::Builder::new(flate2::write::GzEncoder::new(
            std::fs::File::create(root.path().join("set.tar.gz")).unwrap(),
            flate2::Compression::fast(),
        ));
        for n in 0..4u8 {
            for (class, base) in [("dark", 10), ("light", 180)] {
                let folder = root.path().join("set").join(class);
                std::fs::create_dir_all(&folder).unwrap();
                let png = encode_png(&[base + 5 * n; 192], 8, 8, 1).unwrap();
                std::fs::write(folder.join(format!("{n}.png")), &png).unwrap();
                let mut header = tar::Header::new_gnu();
                header.set_size(png.len() as u64);
                header.set_mode(0o644);
                tar.append_data(&mut header.clone(), format!("{class}/{n}.png"), &png[..]).unwrap();
                zipped.append_data(&mut header, format!("{class}/{n}.png"), &png[..]).unwrap();
            }
        }
        tar.into_inner().unwrap();
        zipped.into_inner().unwrap().finish().unwrap();
        let batches = root.path().join("cifar");
        std::fs::create_dir(&batches).unwrap();
        for name in ["data_batch_1.bin", "test_batch.bin"] {
            let records: Vec<u8> = (0..4u8).flat_map(|n| std::iter::once(n % 2).chain(vec![n * 40; 3072])).collect();
            std::fs::write(batches.join(name), records).unwrap();
        }
        std::fs::write(batches.join("batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n").unwrap();
        std::fs::write(root.path().join("wrong.png"), encode_png(&[99; 192], 8, 8, 1).unwrap()).unwrap();
        for (name, classes, side) in [("two", 2, 8), ("ten", 10, 32)] {
            let graph = zoo::small_cnn([3, side, side], 2, classes).unwrap();
            Weights::init(&graph, 3)
                .unwrap()
                .save(&root.path().join(format!("{name}.safetensors")), &[])
                .unwrap();
        }
        Self { root, library }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A prediction with `set` as the training set, with a cache folder of that name.
    fn job(&self, set: &str, cache: &str) -> Job {
        let source = DataSource {
            path: self.at(set),
            format: Default::default(),
            split: if set == "cifar" {
                delta_guard_contract::Split::Train
            } else {
                Default::default()
            },
            source: None,
        };
        let (side, checkpoint) = if set == "cifar" {
            (32, "ten.safetensors")
        } else {
            (8, "two.safetensors")
        };
        Job {
            v: PROTOCOL,
            out_dir: self.at("out"),
            setup: WorkerSetup {
                cache_dir: self.at(cache),
                factors_dir: self.at("factors"),
                device: Device::Auto,
                threads: 1,
                memory_budget: 64 << 20,
                query_budget: 6 << 30,
                memory_limit: 0,
            },
            task: Task::Measure {
                data: DataConfig {
                    train: source.clone(),
                    validation: source.clone(),
                    image: ImageConfig {
                        height: side,
                        width: side,
                        ..ImageConfig::default()
                    },
                    classes: None,
                    max_unreadable_share: 0.5,
                },
                model: ModelConfig {
                    architecture: "small-cnn".into(),
                    width: 2,
                    stem: Default::default(),
                    checkpoint: self.at(checkpoint),
                    prefix: None,
                    min_tracked_share: 0.0,
                },
                source,
                list: true,
            },
        }
    }

    fn predict(&self) -> Job {
        let mut job = self.job("set", "cache-predict");
        let Task::Measure { data, model, .. } = job.task else { unreachable!() };
        job.task = Task::Predict {
            data,
            model,
            image: self.at("wrong.png"),
            limits: ImageLimits {
                max_bytes: 1 << 20,
                max_pixels: 1 << 20,
            },
        };
        job
    }

    /// Run a job; the first `times` calls of the kind on paths with this end fail.
    fn run(&self, job: &Job, call: &str, path: &str, errno: i32, times: usize) -> Result<JobResult, Fault> {
        std::fs::create_dir_all(&job.out_dir).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_delta-guard-worker"))
            .env("LD_PRELOAD", &self.library)
            .env("HICCUP_CALL", call)
            .env("HICCUP_PATH", path)
            .env("HICCUP_ERRNO", errno.to_string())
            .env("HICCUP_TIMES", times.to_string())
            .env("HICCUP_COUNT", self.at("count"))
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&serde_json::to_vec(job).unwrap()).unwrap();
        let told = child.wait_with_output().unwrap();
        let last = told.stdout.split(|b| *b == b'\n').rfind(|line| !line.is_empty()).unwrap();
        match serde_json::from_slice(last).unwrap() {
            Message::Outcome(Outcome::Done { file, .. }) => {
                let result = std::fs::read(job.out_dir.join(file)).unwrap();
                Ok(serde_json::from_slice(&result).unwrap())
            }
            Message::Outcome(Outcome::Failed { fault }) => Err(fault),
            other => panic!("{other:?}"),
        }
    }

    fn strikes(&self) -> usize {
        std::fs::read(self.at("count")).map_or(0, |bytes| bytes.len())
    }

    fn forget(&self) {
        let _ = std::fs::remove_file(self.at("count"));
    }
}

/// Each reader, at each of its calls: twice it is worth another try, then all is as if nothing had been.
#[test]
fn a_job_that_meets_an_input_output_error_twice_is_done_at_the_third_try() {
    let place = Place::new();
    let mut wanted = BTreeMap::new();
    for (set, call, path) in [
        ("set", "stat", "/set"),
        ("set", "list", "/set/light"),
        ("set", "stat", "/set/light"),
        ("set", "stat", "/set/light/2.png"),
        ("set", "open", "/set/light/2.png"),
        ("set", "read", "/set/light/2.png"),
        ("set.tar", "open", "/set.tar"),
        ("set.tar", "read", "/set.tar"),
        ("set.tar.gz", "read", "/set.tar.gz"),
        ("cifar", "list", "/cifar"),
        ("cifar", "open", "/data_batch_1.bin"),
        ("cifar", "read", "/data_batch_1.bin"),
        ("cifar", "stat", "/batches.meta.txt"),
        ("cifar", "read", "/batches.meta.txt"),
        ("set", "open", "/two.safetensors"),
        ("set", "read", "/two.safetensors"),
    ] {
        let what = format!("{set}, {call} of {path}");
        let wanted = wanted
            .entry(set)
            .or_insert_with(|| place.run(&place.job(set, &format!("cache-{set}")), "none", "", EIO, 0).unwrap());
        let cache = format!("cache {what}").replace('/', "_");
        let job = place.job(set, &cache);
        for n in 1..=2 {
            let fault = place.run(&job, call, path, EIO, 2).unwrap_err();
            assert_eq!(place.strikes(), n, "{what}: {fault:?}");
            assert_eq!(fault.kind, FaultKind::Resource, "{what}: {fault:?}");
            assert!(fault.message.contains("os error 5"), "{what}: {fault:?}");
            assert!(fault.help.contains("look at the mount"), "{what}: {fault:?}");
        }
        assert_eq!(&place.run(&job, call, path, EIO, 2).unwrap(), wanted, "{what}");
        place.forget();
    }
}

/// The submitter is not to blame for the disk, and what was computed before is not computed again.
#[test]
fn a_hiccup_neither_refuses_a_submission_nor_throws_a_cache_away() {
    let place = Place::new();
    let job = place.predict();
    for call in ["stat", "open", "read"] {
        let fault = place.run(&job, call, "/wrong.png", EIO, 1).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Resource, "{call}: {fault:?}");
        place.run(&job, call, "/wrong.png", EIO, 1).unwrap();
        place.forget();
    }
    let cache = std::fs::read_dir(place.at("cache-predict")).unwrap();
    let pixels: Vec<PathBuf> = cache
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "u8"))
        .collect();
    let [pixels] = &pixels[..] else { panic!("{pixels:?}") };
    let stamp = || {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(pixels).unwrap().ino()
    };
    let before = stamp();
    for call in ["open", "read"] {
        let fault = place.run(&job, call, pixels.file_name().unwrap().to_str().unwrap(), EIO, 1).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Resource, "{call}: {fault:?}");
        place.forget();
    }
    place.run(&job, "none", "", EIO, 0).unwrap();
    assert_eq!(stamp(), before, "the cache was built again");
}

/// ENOENT, EACCES, ENOTDIR, ELOOP, EISDIR, EROFS: waiting mends none of them.
#[test]
fn what_a_person_must_mend_is_no_hiccup() {
    let place = Place::new();
    for errno in [2, 13, 20, 40, 21, 30] {
        for path in ["/two.safetensors", "/set.tar"] {
            let fault = place.run(&place.job("set.tar", "cache"), "open", path, errno, 1).unwrap_err();
            assert_eq!(fault.kind, FaultKind::Configuration, "{errno}: {fault:?}");
            place.forget();
        }
    }
    for errno in [116, 110, 112, 113, 100, 101, 104, 11, 16, 121, 107] {
        let fault = place
            .run(&place.job("set.tar", "cache"), "open", "/two.safetensors", errno, 1)
            .unwrap_err();
        assert_eq!(fault.kind, FaultKind::Resource, "{errno}: {fault:?}");
        place.forget();
    }
    // A file that is cut short stays so.
    let checkpoint = place.at("two.safetensors");
    let whole = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &whole[..whole.len() / 2]).unwrap();
    let fault = place.run(&place.job("set.tar", "cache"), "none", "", EIO, 0).unwrap_err();
    assert!(fault.kind == FaultKind::Configuration && fault.message.contains("cut short"), "{fault:?}");
}
