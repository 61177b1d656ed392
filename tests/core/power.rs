//! Power loss and full disks, on a model disk: what was acknowledged is there, what is there is whole.

use crate::chain::{DIR, open, read, segment};
use crate::disk::MemVfs;
use delta_guard::journal::{JournalError, renew_last_segment};
use serde_json::json;
use std::path::Path;

/// A small generator (xorshift64*), so that a failing seed can be tried again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }
}

/// Append records of random sizes; stop at the first failure. Returns the numbers that were acknowledged.
fn fill(disk: &MemVfs, dice: &mut Dice, count: usize) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    let Ok((mut journal, ..)) = open(disk, 2000) else { return acknowledged };
    for n in 0..count {
        let text = "y".repeat(dice.roll(900));
        match journal.append("thing", true, None, json!({ "n": n, "text": text })) {
            Ok(appended) => acknowledged.push(appended.head.seq),
            Err(_) => break,
        }
    }
    acknowledged
}

/// The power goes at a random operation (every later one fails), and the disk keeps a random part of what was not synced. Three times in a row.
#[test]
fn no_power_loss_takes_what_was_acknowledged() {
    for seed in 1..=3000u64 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let mut disk = MemVfs::new();
        let mut acknowledged: Vec<u64> = Vec::new();
        for _ in 0..3 {
            disk.fail_at(dice.roll(60) as u64, 5, true);
            acknowledged.extend(fill(&disk, &mut dice, 12));
            disk = disk.crash(&mut |sides| dice.roll(sides));
            let (records, _) = read(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            for seq in &acknowledged {
                assert!(
                    records.get(*seq as usize - 1).is_some_and(|record| record.kind == "thing"),
                    "seed {seed}: record {seq} is gone"
                );
            }
        }
        open(&disk, 2000).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// Each single operation fails once, with each error: the journal goes on or says that it cannot, and never acknowledges what it does not hold.
#[test]
fn each_operation_may_fail() {
    let mut dice = Dice(7);
    let total = {
        let disk = MemVfs::new();
        fill(&disk, &mut dice, 12);
        disk.operations()
    };
    for errno in [28, 5, 122, 30] {
        for operation in 0..total {
            let disk = MemVfs::new();
            disk.fail_at(operation, errno, false);
            let Ok((mut journal, ..)) = open(&disk, 2000) else { continue };
            let mut acknowledged = Vec::new();
            for n in 0..12 {
                match journal.append("thing", true, None, json!({ "n": n, "text": "z".repeat(400) })) {
                    Ok(appended) => acknowledged.push((appended.head.seq, n)),
                    Err(_) if journal.poisoned().is_some() => {
                        let again = journal.append("thing", true, None, json!({}));
                        assert!(matches!(again, Err(JournalError::Poisoned { .. })));
                        break;
                    }
                    Err(_) => {}
                }
            }
            drop(journal);
            let (_, _, records) = open(&disk, 2000).unwrap_or_else(|error| panic!("operation {operation}, errno {errno}: {error}"));
            for (seq, n) in acknowledged {
                assert_eq!(records[seq as usize - 1].data["n"], n, "operation {operation}, errno {errno}");
            }
        }
    }
}

/// The disk runs full at every byte in turn; space comes back; everything goes on.
#[test]
fn a_full_disk_is_a_state() {
    for space in 0..1200 {
        let disk = MemVfs::new();
        let (mut journal, ..) = open(&disk, 1 << 20).unwrap();
        disk.limit_space(space);
        let mut kept = Vec::new();
        for n in 0..4 {
            match journal.append("thing", true, None, json!({ "n": n, "text": "w".repeat(100) })) {
                Ok(appended) => kept.push((appended.head.seq, n)),
                Err(error) => {
                    assert!(error.is_full(), "{error}");
                    break;
                }
            }
        }
        assert!(kept.len() < 4, "the disk was to run full");
        assert_eq!(journal.poisoned(), None);
        disk.heal();
        kept.push((journal.append("thing", true, None, json!({ "n": 99 })).unwrap().head.seq, 99));
        let (records, tail) = read(&disk).unwrap();
        assert_eq!(tail.torn.len(), 0);
        for (seq, n) in kept {
            assert_eq!(records[seq as usize - 1].data["n"], n);
        }
    }
    assert!(MemVfs::new().content(&segment(1)).is_none());
}

/// A process that goes on after its own fsync failed: what it reads back was never on the disk, and no later fsync of the same file brings it there.
#[test]
fn after_a_failed_sync_the_last_segment_is_written_anew_before_anybody_goes_on() {
    for renewed in [true, false] {
        let disk = MemVfs::new();
        let (mut journal, ..) = open(&disk, 1 << 20).unwrap();
        journal.append("thing", true, None, json!({ "n": 1 })).unwrap();
        // The write goes well, the sync does not.
        disk.fail_at(disk.operations() + 1, 5, false);
        journal.append("thing", true, None, json!({ "n": 2 })).unwrap_err();
        assert!(journal.poisoned().is_some());
        drop(journal);
        disk.heal();
        let seen = read(&disk).unwrap().0.len();
        if renewed {
            renew_last_segment(&disk, Path::new(DIR)).unwrap();
        }
        // The power fails; of what was never synced nothing arrives.
        let after = read(&disk.crash(&mut |_| 0)).unwrap().0.len();
        assert_eq!(after, if renewed { seen } else { seen - 1 }, "renewed: {renewed}");
    }
}
