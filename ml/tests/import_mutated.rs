//! Ten thousand random changes to a small real program: each is read, or is an error; none ends the process, none takes more memory than a small file may.
//!
//! `MUTATIONS` and `MUTATIONS_SEED` make more of them, and others: `make fuzz`.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "import/pack.rs"]
#[allow(dead_code, reason = "shared with import.rs")]
mod pack;

use delta_guard_contract::FaultKind;
use delta_influence::import::{Archive, Program};
use pack::{Packed, find, fixture, pack, unpacked};
use peak_alloc::PeakAlloc;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Reading the unchanged file of 57 KB takes less than one.
const MEBIBYTES: f32 = 8.0;
const TEXTS: [&str; 3] = [
    "models/model.json",
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Some bytes changed, cut out, put in, or put elsewhere.
fn bytes(data: &mut Vec<u8>, rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..4) {
        if data.is_empty() {
            return;
        }
        let at = rng.random_range(0..data.len());
        let many = rng.random_range(1..=16).min(data.len() - at);
        match rng.random_range(0..7) {
            0 => data[at] ^= 1 << rng.random_range(0..8),
            1 => data[at..at + many].fill(if rng.random() { 0xff } else { 0 }),
            2 => drop(data.drain(at..at + many)),
            3 => drop(data.splice(at..at, std::iter::repeat_n(rng.random(), many)).count()),
            4 => data.truncate(at),
            5 => {
                let piece = data[at..at + many].to_vec();
                let to = rng.random_range(0..=data.len() - many);
                data[to..to + many].copy_from_slice(&piece);
            }
            _ => data[at] = *b"0123456789{}[],:\"-.eE".get(rng.random_range(0..21)).unwrap(),
        }
    }
}

/// A value somewhere inside replaced by one that a liar would choose.
fn value(root: &mut Value, rng: &mut StdRng) {
    let mut here = root;
    loop {
        let inside = match &*here {
            Value::Array(all) => all.len(),
            Value::Object(all) => all.len(),
            _ => 0,
        };
        if inside == 0 || rng.random_range(0..12) == 0 {
            break;
        }
        let n = rng.random_range(0..inside);
        here = match here {
            Value::Array(all) => &mut all[n],
            Value::Object(all) => all.values_mut().nth(n).unwrap(),
            _ => unreachable!(),
        };
    }
    let liars = [
        json!(-1),
        json!(0),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(1_000_000_000_000u64),
        json!(1e300),
        json!(null),
        json!([]),
        json!({}),
        json!(true),
        json!("x"),
        json!("../../etc/passwd"),
        json!({"as_int": -5}),
        json!({"as_tensor": {"name": "linear_2"}}),
        json!({"as_expr": {"expr_str": "s0"}}),
        json!({"as_graph": {"name": "g", "graph": {"inputs": [], "outputs": [], "nodes": []}}}),
    ];
    *here = liars[rng.random_range(0..liars.len())].clone();
}

/// A lie in an entry's headers.
fn header(entries: &mut [Packed], rng: &mut StdRng) {
    let n = rng.random_range(0..entries.len());
    let entry = &mut entries[n];
    match rng.random_range(0..8) {
        0 => entry.method = rng.random(),
        1 => entry.flags = rng.random(),
        2 => entry.crc = Some(rng.random()),
        3 => entry.size = Some(rng.random()),
        4 => entry.size = Some(entry.data.len() as u32 + rng.random_range(0..100)),
        5 => entry.offset = Some(rng.random()),
        6 => entry.later = Some(if rng.random() { 4 } else { 8 }),
        _ => bytes(&mut entry.name, rng),
    }
}

fn mutated(whole: &[u8], entries: &[Packed], rng: &mut StdRng) -> Vec<u8> {
    let mut entries = entries.to_vec();
    match rng.random_range(0..10) {
        0 | 1 => {
            let mut whole = whole.to_vec();
            bytes(&mut whole, rng);
            return whole;
        }
        2 => {
            let mut whole = pack(&entries);
            let from = whole.len() - 2300;
            let mut end = whole.split_off(from);
            bytes(&mut end, rng);
            return [whole, end].concat();
        }
        3 => header(&mut entries, rng),
        4 => {
            let n = rng.random_range(0..entries.len());
            bytes(&mut entries[n].data, rng);
        }
        5 | 6 => bytes(&mut find(&mut entries, TEXTS[rng.random_range(0..3)]).data, rng),
        _ => {
            let text = find(&mut entries, TEXTS[rng.random_range(0..3)]);
            let mut root = serde_json::from_slice(&text.data).unwrap();
            (0..rng.random_range(1..3)).for_each(|_| value(&mut root, rng));
            text.data = serde_json::to_vec(&root).unwrap();
        }
    }
    pack(&entries)
}

#[test]
fn ten_thousand_changed_programs_are_read_or_refused() {
    let (number, seed) = (setting("MUTATIONS", 10_000), setting("MUTATIONS_SEED", 14));
    let whole = std::fs::read(fixture("import/odd.pt2")).unwrap();
    let entries = unpacked();
    let (mut read, mut refused) = (0, 0);
    for turn in 0..number {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1 << 32).wrapping_add(turn));
        let bytes = mutated(&whole, &entries, &mut rng);
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage_as_mb();
        match Archive::of(bytes, "m.pt2").and_then(|archive| Program::of(&archive)) {
            Ok(program) => {
                read += 1;
                for stored in program.tensors.values() {
                    let tensor = stored.tensor().unwrap();
                    assert!(tensor.numel() == stored.numel() && tensor.numel() < 100_000, "seed {seed}, turn {turn}");
                }
                assert!(program.calls.len() < 1000);
            }
            Err(error) => {
                refused += 1;
                let fault = error.fault();
                assert_eq!(fault.kind, FaultKind::Configuration, "seed {seed}, turn {turn}: {fault:?}");
                assert!(
                    !fault.message.is_empty() && fault.message.len() < 2000,
                    "seed {seed}, turn {turn}: {fault:?}"
                );
            }
        }
        let taken = MEMORY.peak_usage_as_mb() - before;
        assert!(taken < MEBIBYTES, "seed {seed}, turn {turn}: {taken} MiB");
    }
    println!("{read} read, {refused} refused");
    // Changes that do not matter (an unread text, a name) and those that do: the test sees both.
    assert!(read > number / 100 && refused > number / 2, "{read} read, {refused} refused");
}
