//! The journal against truncation, flipped bits, lost, doubled and swapped records.

use crate::clock::ManualClock;
use crate::disk::MemVfs;
use delta_guard::clock::SystemClock;
use delta_guard::journal::{Head, Journal, JournalError, JournalTail, Opened, Options, Reader, Record, segment_name};
use delta_guard::vfs::Vfs;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const DIR: &str = "/journal";

pub fn options(disk: &MemVfs, segment_bytes: u64) -> Options {
    let mut options = Options::new(Arc::new(disk.clone()), Path::new(DIR), Arc::new(SystemClock));
    options.segment_bytes = segment_bytes;
    options
}

pub fn open(disk: &MemVfs, segment_bytes: u64) -> Result<(Journal, Opened, Vec<Record>), JournalError> {
    let mut records = Vec::new();
    let (journal, opened) = Journal::open(options(disk, segment_bytes), &mut |record, _| {
        records.push(record.clone());
        Ok(())
    })?;
    Ok((journal, opened, records))
}

pub fn read(disk: &MemVfs) -> Result<(Vec<Record>, JournalTail), JournalError> {
    let mut records = Vec::new();
    let tail = Reader::new(Arc::new(disk.clone()) as Arc<dyn Vfs>, Path::new(DIR)).read(&mut |record, _| {
        records.push(record);
        Ok(())
    })?;
    Ok((records, tail))
}

pub fn segment(number: u32) -> PathBuf {
    Path::new(DIR).join(segment_name(number))
}

/// A journal of `count` records of two kinds beside the first.
fn journal(count: u64, segment_bytes: u64) -> MemVfs {
    let disk = MemVfs::new();
    let (mut journal, ..) = open(&disk, segment_bytes).unwrap();
    for n in 0..count {
        journal
            .append("thing", n % 2 == 0, Some("case"), json!({ "n": n, "text": "ünïcode \" \\ \n" }))
            .unwrap();
    }
    disk
}

/// Where each record of a segment begins, and where the last one ends.
fn borders(bytes: &[u8]) -> Vec<usize> {
    std::iter::once(0)
        .chain(bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1))
        .collect()
}

#[test]
fn what_was_appended_is_read_and_chained() {
    let disk = journal(20, 1 << 20);
    let (records, tail) = read(&disk).unwrap();
    assert_eq!(records.len(), 21);
    for (n, record) in records.iter().enumerate() {
        assert_eq!((record.seq, record.epoch), (n as u64 + 1, 1));
    }
    assert_eq!(records[20].data["n"], 19);
    assert_eq!((tail.head.seq, tail.torn.len()), (21, 0));
    // The chain as reliability.md writes it, by another hand.
    let bytes = disk.content(&segment(1)).unwrap();
    let mut prev = [0u8; 32];
    for (n, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let json = &line[74..line.len() - 1];
        let mut input = prev.to_vec();
        input.extend((n as u64 + 1).to_le_bytes());
        input.extend((json.len() as u32).to_le_bytes());
        input.extend(json);
        prev = blake3::derive_key("delta-guard journal v1", &input);
        assert_eq!(
            std::str::from_utf8(&line[..74]).unwrap(),
            format!("{:08x} {} ", json.len(), hex::encode(prev))
        );
    }
    assert_eq!(tail.head.hash, prev);
}

#[test]
fn a_second_writer_is_turned_away_and_readers_are_not() {
    let disk = journal(3, 1 << 20);
    let first = open(&disk, 1 << 20).unwrap();
    assert!(matches!(open(&disk, 1 << 20), Err(JournalError::Locked { .. })));
    assert_eq!(read(&disk).unwrap().0.len(), 4);
    drop(first);
    assert!(open(&disk, 1 << 20).is_ok());
}

/// Cut the journal at every byte of its last three records: every whole record stays, the rest is cut, kept and reported.
#[test]
fn every_truncation_of_the_last_records_is_a_torn_tail() {
    let whole = journal(6, 1 << 20).content(&segment(1)).unwrap();
    let borders = borders(&whole);
    for cut in borders[4]..whole.len() {
        let disk = MemVfs::new();
        disk.set_content(&segment(1), whole[..cut].to_vec());
        let kept = borders.iter().filter(|border| **border <= cut).count() - 1;
        let (records, tail) = read(&disk).unwrap();
        assert_eq!((records.len(), tail.torn.len()), (kept, cut - borders[kept]), "cut at {cut}");
        let (mut journal, opened, records) = open(&disk, 1 << 20).unwrap();
        assert_eq!(opened.cut, (cut > borders[kept]).then(|| cut - borders[kept]), "cut at {cut}");
        assert_eq!(records.len(), kept + usize::from(opened.cut.is_some()));
        if opened.cut.is_some() {
            let told = records.last().unwrap();
            assert_eq!(told.kind, "journal.tail_cut");
            let file = Path::new(DIR).join("quarantine").join(told.data["file"].as_str().unwrap());
            assert_eq!(disk.content(&file).unwrap(), whole[borders[kept]..cut]);
        }
        journal.append("after", false, None, json!({})).unwrap();
        drop(journal);
        let (again, opened, _) = open(&disk, 1 << 20).unwrap();
        assert_eq!((again.head().seq as usize, opened.cut), (records.len() + 1, None), "it is told once");
    }
}

/// The whole of a young journal, down to nothing: what is there when the first start ever is cut off.
#[test]
fn every_truncation_of_a_young_journal_is_one_too() {
    let whole = journal(2, 1 << 20).content(&segment(1)).unwrap();
    let borders = borders(&whole);
    for cut in 0..whole.len() {
        let disk = MemVfs::new();
        disk.set_content(&segment(1), whole[..cut].to_vec());
        let kept = borders.iter().filter(|border| **border <= cut).count() - 1;
        assert_eq!(read(&disk).unwrap().0.len(), kept, "cut at {cut}");
        let (mut journal, _, records) = open(&disk, 1 << 20).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert_eq!(
            records.iter().filter(|record| record.kind == "thing").count(),
            kept.saturating_sub(1),
            "cut at {cut}"
        );
        journal.append("after", false, None, json!({})).unwrap();
        let seen = read(&disk).unwrap().0;
        assert_eq!(
            (seen[0].kind.as_str(), seen.last().unwrap().kind.as_str()),
            ("segment", "after"),
            "cut at {cut}"
        );
        assert!(seen.iter().enumerate().all(|(n, record)| record.seq == n as u64 + 1), "cut at {cut}");
    }
}

/// Every single bit of a journal of 20 records: always an error that names the place, never a cut, and no byte is changed.
#[test]
fn every_flipped_bit_is_damage() {
    let whole = journal(20, 1 << 20).content(&segment(1)).unwrap();
    let borders = borders(&whole);
    let disk = MemVfs::new();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        disk.set_content(&segment(1), bytes.clone());
        let record = borders.iter().rposition(|border| *border <= bit / 8).unwrap();
        match open(&disk, 1 << 20).map(|(_, opened, _)| opened) {
            Err(JournalError::Damage { segment, offset, seq, .. }) => {
                assert_eq!(
                    (segment.as_str(), offset, seq),
                    ("00000001.dgj", borders[record] as u64, record as u64 + 1),
                    "bit {bit}"
                );
            }
            other => panic!("bit {bit} of record {} was taken for {other:?}", record + 1),
        }
        if bit % 97 == 0 {
            assert_eq!(disk.content(&segment(1)).unwrap(), bytes);
            assert_eq!(disk.paths(), [segment(1)]);
        }
    }
}

#[test]
fn lost_doubled_and_swapped_records_are_damage() {
    let whole = journal(8, 1 << 20).content(&segment(1)).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let mut broken: Vec<Vec<&[u8]>> = Vec::new();
    for n in 0..lines.len() {
        // Losing the last record cannot be seen from inside: that is what the witness is for.
        if n + 1 < lines.len() {
            broken.push(lines.iter().enumerate().filter(|(at, _)| *at != n).map(|(_, line)| *line).collect());
            let mut swapped = lines.clone();
            swapped.swap(n, n + 1);
            broken.push(swapped);
        }
        broken.push(
            lines
                .iter()
                .enumerate()
                .flat_map(|(at, line)| std::iter::repeat_n(*line, 1 + usize::from(at == n)))
                .collect(),
        );
    }
    for lines in broken {
        let disk = MemVfs::new();
        disk.set_content(&segment(1), lines.concat());
        assert!(matches!(read(&disk), Err(JournalError::Damage { .. })));
        assert!(matches!(open(&disk, 1 << 20), Err(JournalError::Damage { .. })));
    }
}

/// A sector of zeros is what a power loss leaves of the record that was being written. Anywhere else it is damage, and where it might be either, the
/// index knows better: it has seen the record.
#[test]
fn every_zeroed_sector_but_the_last_records_is_damage() {
    let whole = journal(20, 1 << 20).content(&segment(1)).unwrap();
    let last = borders(&whole)[20];
    let mut torn = 0;
    for start in (0..whole.len()).step_by(512) {
        let end = whole.len().min(start + 512);
        let mut bytes = whole.clone();
        bytes[start..end].fill(0);
        let disk = MemVfs::new();
        disk.set_content(&segment(1), bytes.clone());
        let mut options = options(&disk, 1 << 20);
        options.witness = 21;
        assert!(
            matches!(Journal::open(options, &mut |_, _| Ok(())), Err(JournalError::Damage { .. })),
            "sector at {start}"
        );
        assert_eq!(disk.content(&segment(1)).unwrap(), bytes);
        match open(&disk, 1 << 20) {
            Err(JournalError::Damage { .. }) => assert!(start < last, "sector at {start}"),
            Ok((_, opened, _)) => {
                assert!(
                    end > last && opened.cut.is_some(),
                    "sector at {start} of {}, last record at {last}",
                    whole.len()
                );
                torn += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(torn > 0);
}

#[test]
fn a_missing_end_is_damage_when_somebody_has_seen_it() {
    let whole = journal(5, 1 << 20).content(&segment(1)).unwrap();
    let borders = borders(&whole);
    let disk = MemVfs::new();
    disk.set_content(&segment(1), whole[..borders[5]].to_vec());
    let mut options = options(&disk, 1 << 20);
    options.witness = 6;
    match Journal::open(options.clone(), &mut |_, _| Ok(())) {
        Err(JournalError::Damage { seq: 6, what, .. }) => assert!(what.contains("record 6")),
        other => panic!("{:?}", other.map(|(_, opened)| opened)),
    }
    options.witness = 5;
    assert!(Journal::open(options, &mut |_, _| Ok(())).is_ok());
}

#[test]
fn segments_rotate_and_belong_together() {
    let disk = journal(30, 1500);
    let count = (1..).take_while(|n| disk.content(&segment(*n)).is_some()).count() as u32;
    assert!(count > 3, "{count}");
    for n in 1..=count {
        assert!(
            disk.content(&segment(n)).unwrap().len() <= 1500 + 400,
            "a segment is only exceeded by its seal"
        );
    }
    let (records, _) = read(&disk).unwrap();
    assert_eq!(records.iter().filter(|record| record.kind == "thing").count(), 30);
    assert_eq!(records.iter().filter(|record| record.kind == "sealed").count() as u32, count - 1);
    for n in 1..count {
        // Any segment but the last gone, emptied, shortened or followed by the wrong one.
        for damage in 0..4 {
            let copy = journal_copy(&disk, count);
            let bytes = copy.content(&segment(n)).unwrap();
            match damage {
                0 => drop(copy.take(&segment(n))),
                1 => copy.set_content(&segment(n), Vec::new()),
                2 => copy.set_content(&segment(n), bytes[..bytes.len() - 30].to_vec()),
                _ => copy.set_content(&segment(n), disk.content(&segment(n + 1)).unwrap()),
            }
            assert!(matches!(read(&copy), Err(JournalError::Damage { .. })), "segment {n}, damage {damage}");
            assert!(matches!(open(&copy, 1500), Err(JournalError::Damage { .. })));
        }
    }
    // A crash between the seal and the next segment, or in the midst of its first record, where a file system lets that be seen.
    let last = disk.content(&segment(count)).unwrap();
    for cut in std::iter::once(None).chain((0..borders(&last)[1]).map(Some)) {
        let sealed = journal_copy(&disk, count);
        match cut {
            None => drop(sealed.take(&segment(count))),
            Some(cut) => sealed.set_content(&segment(count), last[..cut].to_vec()),
        }
        let (mut journal, ..) = open(&sealed, 1500).unwrap();
        journal.append("after", false, None, json!({})).unwrap();
        assert!(sealed.content(&segment(count)).is_some());
        assert_eq!(read(&sealed).unwrap().0.last().unwrap().kind, "after", "{cut:?}");
    }
}

/// Also where the journal was opened anew in the midst of a segment.
#[test]
fn a_seal_says_how_many_records_its_segment_has() {
    let disk = MemVfs::new();
    for n in 0..12 {
        let (mut journal, ..) = open(&disk, 1500).unwrap();
        for m in 0..3 {
            journal.append("thing", false, None, json!({ "n": n, "m": m })).unwrap();
        }
    }
    let (mut here, mut seals) = (0, 0);
    for record in read(&disk).unwrap().0 {
        here = if record.kind == "segment" { 1 } else { here + 1 };
        if record.kind == "sealed" {
            assert_eq!(record.data["count"], here, "record {}", record.seq);
            seals += 1;
        }
    }
    assert!(seals >= 3, "{seals}");
}

fn journal_copy(disk: &MemVfs, count: u32) -> MemVfs {
    let copy = MemVfs::new();
    for n in 1..=count {
        copy.set_content(&segment(n), disk.content(&segment(n)).unwrap());
    }
    copy
}

/// A reader beside a writer: each call shows what is new, an unfinished record is not shown and not an error.
#[test]
fn a_reader_follows_a_growing_journal() {
    let whole = journal(12, 900);
    let count = (1..).take_while(|n| whole.content(&segment(*n)).is_some()).count() as u32;
    let disk = MemVfs::new();
    let mut reader = Reader::new(Arc::new(disk.clone()) as Arc<dyn Vfs>, Path::new(DIR));
    let mut seen = Vec::new();
    for number in 1..=count {
        let bytes = whole.content(&segment(number)).unwrap();
        // A segment appears with its first record.
        let first = borders(&bytes)[1];
        for end in first..=bytes.len() {
            disk.set_content(&segment(number), bytes[..end].to_vec());
            reader
                .read(&mut |record, head: &Head| {
                    assert_eq!(record.seq, head.seq);
                    seen.push(record);
                    Ok(())
                })
                .unwrap();
        }
    }
    assert_eq!(seen, read(&whole).unwrap().0);
}

#[test]
fn a_newer_schema_and_unknown_segments_are_refused() {
    let disk = MemVfs::new();
    let data = json!({ "schema": 99, "segment": 1, "first_seq": 1, "prev_hash": "0".repeat(64), "version": "9" });
    let record = json!({ "s": 1, "t": "2026-11-23T00:00:00Z", "e": 1, "k": "segment", "crit": true, "d": data });
    let (bytes, _) = delta_guard::journal::frame::encode(&[0; 32], 1, &serde_json::to_vec(&record).unwrap());
    disk.set_content(&segment(1), bytes);
    assert!(matches!(read(&disk), Err(JournalError::Schema { found: 99, .. })));
}

#[test]
fn a_record_too_large_is_refused_and_harms_nothing() {
    let disk = MemVfs::new();
    let (mut journal, ..) = open(&disk, 1 << 30).unwrap();
    assert!(matches!(
        journal.append("big", true, None, json!("x".repeat(1 << 20))),
        Err(JournalError::TooLarge { .. })
    ));
    journal.append("small", true, None, json!({})).unwrap();
    assert_eq!(read(&disk).unwrap().0.len(), 2);
}

/// A clock that is set back does not give back a day: records keep the time of the one before, also over a restart.
#[test]
fn the_time_of_records_never_goes_back() {
    let disk = MemVfs::new();
    let clock = Arc::new(ManualClock::new("2026-11-23T12:00:00Z".parse().unwrap()));
    let mut options = options(&disk, 1 << 10);
    options.clock = clock.clone();
    let write = |journal: &mut Journal| journal.append("thing", true, None, json!({})).unwrap().time.to_string();
    let (mut journal, _) = Journal::open(options.clone(), &mut |_, _| Ok(())).unwrap();
    assert_eq!(write(&mut journal), "2026-11-23T12:00:00Z");
    clock.set("2026-11-20T00:00:00Z".parse().unwrap());
    assert_eq!(write(&mut journal), "2026-11-23T12:00:00Z");
    drop(journal);
    let (mut journal, _) = Journal::open(options, &mut |_, _| Ok(())).unwrap();
    assert_eq!(
        (write(&mut journal), journal.now().to_string()),
        ("2026-11-23T12:00:00Z".into(), "2026-11-23T12:00:00Z".into())
    );
    clock.set("2026-11-24T00:00:00Z".parse().unwrap());
    for _ in 0..20 {
        // Over the ends of segments, too.
        assert_eq!(write(&mut journal), "2026-11-24T00:00:00Z");
        clock.set("2026-11-22T00:00:00Z".parse().unwrap());
    }
    let times: Vec<_> = read(&disk).unwrap().0.into_iter().map(|record| record.time).collect();
    assert!(times.is_sorted(), "{times:?}");
}
