//! The worker's ceiling on the CPU: jobs set it, what hits it says so, and mapped data do not count against it.
//!
//! One test only: the ceiling is the whole process's.

#![allow(clippy::unwrap_used, reason = "a test")]

use delta_guard_contract::{DataSource, Device, FaultKind, ImageConfig, Job, ModelConfig, PROTOCOL, Task, WorkerSetup};
use delta_influence::data::{DataSet, encode_png};
use delta_influence::error::Error;
use delta_influence::memory;
use delta_influence::progress::Silent;
use rustix::process::{Resource, getrlimit};
use tch::{Kind, Tensor};

#[test]
fn a_job_on_the_cpu_has_a_ceiling() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        getrlimit(Resource::As).current,
        None,
        "this test needs a process without a limit on its address space (ulimit -v)"
    );
    let job = Job {
        v: PROTOCOL,
        out_dir: dir.path().join("out"),
        setup: WorkerSetup {
            cache_dir: dir.path().join("cache"),
            factors_dir: dir.path().join("factors"),
            device: Device::Cpu,
            threads: 1,
            memory_budget: 64 << 20,
            query_budget: 6 << 30,
            memory_limit: 1 << 30,
        },
        task: Task::Graph {
            model: ModelConfig {
                architecture: "small-cnn".into(),
                width: 2,
                stem: Default::default(),
                checkpoint: "none".into(),
                prefix: None,
                min_tracked_share: 0.0,
            },
            input: [3, 8, 8],
            classes: 2,
        },
    };
    delta_influence::jobs::run(&job, &mut Silent).unwrap();
    let ceiling = getrlimit(Resource::As).current.unwrap();
    assert!(ceiling > 1 << 30);

    // Within it there is room for what was asked for; beyond it an allocation fails, and is told as a want of memory.
    let bytes = |n: u64| Tensor::f_empty([n as i64], (Kind::Uint8, tch::Device::Cpu)).map(drop);
    bytes(1 << 30).unwrap();
    let fault = Error::from(bytes(ceiling).unwrap_err()).fault().clone();
    assert_eq!(fault.kind, FaultKind::Resource);
    assert!(
        fault.message.contains("not enough memory") && fault.help.contains("worker.memory_limit"),
        "{fault:?}"
    );

    // tch's short forms panic instead; that is told the same way, without the back trace that libtorch adds.
    let panic = std::panic::catch_unwind(|| Tensor::empty([ceiling as i64], (Kind::Uint8, tch::Device::Cpu))).unwrap_err();
    let told = Error::of_panic(panic.as_ref()).fault().clone();
    assert_eq!(told.kind, FaultKind::Resource, "{told:?}");
    assert!(
        told.message.contains("not enough memory") && told.message.len() < 400 && !told.message.contains("frame #"),
        "{told:?}"
    );
    let other = std::panic::catch_unwind(|| panic!("index out of bounds")).unwrap_err();
    let told = Error::of_panic(other.as_ref()).fault().clone();
    assert!(
        told.kind == FaultKind::Internal && told.message.contains("index out of bounds"),
        "{told:?}"
    );

    // A higher limit does not lift what stands; a mapped file does, by its size.
    assert_eq!(memory::limit(8 << 30, 1), None);
    for class in ["a", "b"] {
        std::fs::create_dir_all(dir.path().join("set").join(class)).unwrap();
        std::fs::write(
            dir.path().join("set").join(class).join("1.png"),
            encode_png(&[9; 3 * 1024 * 1024], 1024, 1024, 1).unwrap(),
        )
        .unwrap();
    }
    let source = DataSource {
        path: dir.path().join("set"),
        format: Default::default(),
        split: Default::default(),
        source: None,
    };
    let image = ImageConfig {
        height: 1024,
        width: 1024,
        ..ImageConfig::default()
    };
    let set = DataSet::open(&source, &image, 0.0, &dir.path().join("cache"), None, &mut Silent).unwrap();
    assert_eq!(set.len(), 2);
    let raised = getrlimit(Resource::As).current.unwrap() - ceiling;
    assert!((6 << 20..13 << 20).contains(&raised), "{raised}");
}
