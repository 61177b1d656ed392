//! Archives for tests: a real one taken apart, and put together again with whatever is to be wrong with it.

use delta_influence::import::Archive;
use serde_json::Value;
use std::path::{Path, PathBuf};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// An entry, and the lies about it: what is `None` is said truly.
#[derive(Clone, Default)]
pub struct Packed {
    pub name: Vec<u8>,
    pub data: Vec<u8>,
    pub method: u16,
    pub flags: u16,
    pub crc: Option<u32>,
    /// Size in both headers.
    pub size: Option<u32>,
    /// Name in the local header.
    pub local_name: Option<Vec<u8>>,
    /// Offset of the local header, as the directory says it.
    pub offset: Option<u32>,
    /// Sizes after the data, in so many bytes each (4 or 8).
    pub later: Option<usize>,
    /// The directory says sizes and offset in 64 bits.
    pub long: bool,
}

pub fn named(name: &str, data: impl Into<Vec<u8>>) -> Packed {
    Packed {
        name: name.into(),
        data: data.into(),
        ..Packed::default()
    }
}

/// The entries of the small real program, under the folder `odd`.
pub fn unpacked() -> Vec<Packed> {
    let archive = Archive::open(&fixture("import/odd.pt2")).unwrap();
    archive
        .names("")
        .map(|name| named(&format!("odd/{name}"), archive.entry(name).unwrap().bytes()))
        .collect()
}

pub fn find<'a>(entries: &'a mut [Packed], name: &str) -> &'a mut Packed {
    entries.iter_mut().find(|e| e.name.ends_with(name.as_bytes())).unwrap()
}

/// Change the JSON of an entry.
pub fn edit(entries: &mut [Packed], name: &str, change: impl FnOnce(&mut Value)) {
    let entry = find(entries, name);
    let mut value = serde_json::from_slice(&entry.data).unwrap();
    change(&mut value);
    entry.data = serde_json::to_vec(&value).unwrap();
}

fn crc(data: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum()
}

fn put(out: &mut Vec<u8>, shorts: &[u16]) {
    shorts.iter().for_each(|n| out.extend(n.to_le_bytes()));
}

fn put_all(out: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|n| out.extend(n.to_le_bytes()));
}

pub fn pack(entries: &[Packed]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let at = out.len() as u32;
        let sum = entry.crc.unwrap_or_else(|| crc(&entry.data));
        let size = entry.size.unwrap_or(entry.data.len() as u32);
        let flags = entry.flags | if entry.later.is_some() { 8 } else { 0 };
        let local = entry.local_name.as_ref().unwrap_or(&entry.name);
        put_all(&mut out, &[0x0403_4b50]);
        put(&mut out, &[0, flags, entry.method, 0, 0]);
        let now = if entry.later.is_some() { [0; 3] } else { [sum, size, size] };
        put_all(&mut out, &now);
        put(&mut out, &[local.len() as u16, 0]);
        out.extend(local);
        out.extend(&entry.data);
        if let Some(bytes) = entry.later {
            put_all(&mut out, &[0x0807_4b50, sum]);
            (0..2).for_each(|_| out.extend(&u64::from(size).to_le_bytes()[..bytes]));
        }
        let offset = entry.offset.unwrap_or(at);
        put_all(&mut directory, &[0x0201_4b50, 0]);
        put(&mut directory, &[flags, entry.method, 0, 0]);
        let (said, place) = if entry.long { (u32::MAX, u32::MAX) } else { (size, offset) };
        put_all(&mut directory, &[sum, said, said]);
        put(&mut directory, &[entry.name.len() as u16, if entry.long { 32 } else { 0 }, 0, 0, 0, 0, 0]);
        put_all(&mut directory, &[place]);
        directory.extend(&entry.name);
        if entry.long {
            // A field of another kind first, as others write them.
            put(&mut directory, &[0x7875, 0, 1, 24]);
            [size, size, offset].iter().for_each(|n| directory.extend(u64::from(*n).to_le_bytes()));
        }
    }
    let (at, long) = (out.len(), entries.iter().any(|e| e.long));
    out.extend(&directory);
    if long {
        let place = out.len() as u64;
        put_all(&mut out, &[0x0606_4b50]);
        out.extend(44u64.to_le_bytes());
        put_all(&mut out, &[0, 0, 0]);
        for n in [entries.len(), entries.len(), directory.len(), at] {
            out.extend((n as u64).to_le_bytes());
        }
        put_all(&mut out, &[0x0706_4b50, 0]);
        out.extend(place.to_le_bytes());
        put_all(&mut out, &[1]);
    }
    put_all(&mut out, &[0x0605_4b50, 0]);
    let count = if long { u16::MAX } else { entries.len() as u16 };
    put(&mut out, &[count, count]);
    let whole = if long { [u32::MAX; 2] } else { [directory.len() as u32, at as u32] };
    put_all(&mut out, &whole);
    put(&mut out, &[0]);
    out
}
