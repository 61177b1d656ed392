//! Does a picture end where its format says? Read from the file itself, without decoding anything: a PNG ends with its IEND chunk, a JPEG with its EOI
//! marker, WebP and BMP say their length at the beginning. What has none of these beginnings has no end either: the worker will say what it is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG: &[u8] = b"\xff\xd8\xff";
const RIFF: &[u8] = b"RIFF";
const BMP: &[u8] = b"BM";

/// Bytes read at once.
const BLOCK: usize = 64 << 10;

/// Is the file, of `size` bytes, either whole or of no format that is known here?
pub(super) fn has_ended(file: &File, size: u64) -> io::Result<bool> {
    let mut head = [0; 12];
    let read = read_at(file, &mut head, 0)?;
    let head = &head[..read];
    // The first bytes alone may be the beginning of any of them.
    if head.len() > 1
        && [PNG, JPEG, RIFF, BMP]
            .iter()
            .any(|magic| head.len() < magic.len() && magic.starts_with(head))
    {
        return Ok(false);
    }
    if head.starts_with(PNG) {
        return png(file, size);
    }
    if head.starts_with(JPEG) {
        return jpeg(file);
    }
    if head.starts_with(RIFF) && (head.len() < 12 || &head[8..12] == b"WEBP") {
        return Ok(word(head, 4).is_some_and(|length| size >= u64::from(length) + 8));
    }
    if head.starts_with(BMP) {
        // Some writers leave the length out.
        return Ok(word(head, 2).is_some_and(|length| size >= u64::from(length)));
    }
    Ok(true)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// As much as there is, up to the buffer's length.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], at + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// From chunk to chunk: length, name, content, checksum.
fn png(file: &File, size: u64) -> io::Result<bool> {
    let mut at = PNG.len() as u64;
    loop {
        let mut head = [0; 8];
        if read_at(file, &mut head, at)? < head.len() {
            return Ok(false);
        }
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let name = &head[4..];
        // Room that was reserved and not written yet is full of zeros.
        if !name.iter().all(u8::is_ascii_alphabetic) {
            return Ok(false);
        }
        at += 12 + u64::from(length);
        if at > size {
            return Ok(false);
        }
        if name == b"IEND" {
            return Ok(true);
        }
    }
}

/// From marker to marker. Segments say their length (so that the EOI of a thumbnail inside one is passed over); the picture's data between them do not,
/// and in them a marker is an FF that neither 00 nor a restart number follows.
fn jpeg(file: &File) -> io::Result<bool> {
    let mut bytes = Bytes::new(file, 2);
    let mut in_data = false;
    loop {
        // To the next marker.
        let code = loop {
            let Some(byte) = bytes.next()? else { return Ok(false) };
            if byte != 0xff {
                if in_data {
                    continue;
                }
                return Ok(false);
            }
            let mut code = 0xff;
            while code == 0xff {
                match bytes.next()? {
                    Some(byte) => code = byte,
                    None => return Ok(false),
                }
            }
            if !(in_data && (code == 0 || (0xd0..=0xd7).contains(&code))) {
                break code;
            }
        };
        match code {
            0xd9 => return Ok(true),
            // Markers without content.
            0x01 | 0xd0..=0xd8 => {}
            _ => {
                let (Some(high), Some(low)) = (bytes.next()?, bytes.next()?) else {
                    return Ok(false);
                };
                let length = u64::from(u16::from_be_bytes([high, low]));
                bytes.skip(length.saturating_sub(2));
                in_data = code == 0xda;
            }
        }
    }
}

/// A file's bytes, block by block.
struct Bytes<'a> {
    file: &'a File,
    block: Vec<u8>,
    /// Where the block begins in the file, and how far it was read.
    start: u64,
    at: usize,
}

impl<'a> Bytes<'a> {
    fn new(file: &'a File, start: u64) -> Self {
        Self {
            file,
            block: Vec::new(),
            start,
            at: 0,
        }
    }

    fn next(&mut self) -> io::Result<Option<u8>> {
        if self.at >= self.block.len() {
            self.start += self.at as u64;
            self.at = 0;
            self.block.resize(BLOCK, 0);
            let count = read_at(self.file, &mut self.block, self.start)?;
            self.block.truncate(count);
        }
        let byte = self.block.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        Ok(byte)
    }

    fn skip(&mut self, count: u64) {
        let target = self.start + self.at as u64 + count;
        if target < self.start + self.block.len() as u64 {
            self.at = (target - self.start) as usize;
        } else {
            (self.start, self.at) = (target, 0);
            self.block.clear();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::io::Write;

    fn ended(bytes: &[u8]) -> bool {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        has_ended(&file, bytes.len() as u64).unwrap()
    }

    fn png_chunk(name: &[u8], content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32).to_be_bytes()[..], name, content, &[0; 4]].concat()
    }

    fn pictures() -> Vec<(&'static str, Vec<u8>)> {
        let idat = [&[7; 90_000][..], b"IEND"].concat();
        let png = [
            PNG.to_vec(),
            png_chunk(b"IHDR", &[1; 13]),
            png_chunk(b"IDAT", &idat),
            png_chunk(b"IEND", b""),
        ]
        .concat();
        let segment = |code: u8, content: &[u8]| [&[0xff, code], &(content.len() as u16 + 2).to_be_bytes()[..], content].concat();
        let thumbnail = [&b"Exif\xff\xd8\xff\xdb"[..], &[3; 500], b"\xff\xd9"].concat();
        let scan = |fill: u8| [&[fill; 70_000][..], b"\xff\x00\xff\xd3", &[fill; 5]].concat();
        let jpeg = [
            b"\xff\xd8".to_vec(),
            segment(0xe1, &thumbnail),
            segment(0xc2, &[1; 15]),
            segment(0xda, &[1; 8]),
            scan(9),
            b"\xff".to_vec(),
            segment(0xc4, &[2; 30]),
            segment(0xda, &[1; 8]),
            scan(8),
            b"\xff\xd9".to_vec(),
        ]
        .concat();
        let webp = [b"RIFF", &1004u32.to_le_bytes()[..], b"WEBPVP8 ", &[5; 996]].concat();
        let bmp = [b"BM", &500u32.to_le_bytes()[..], &[5; 494]].concat();
        vec![("png", png), ("jpeg", jpeg), ("webp", webp), ("bmp", bmp)]
    }

    #[test]
    fn a_picture_ends_at_its_last_byte_and_not_before() {
        for (name, whole) in pictures() {
            assert!(ended(&whole), "{name}");
            let cuts = (2..200.min(whole.len()))
                .chain((200..whole.len()).step_by(977))
                .chain(whole.len().saturating_sub(40)..whole.len());
            for cut in cuts {
                assert!(!ended(&whole[..cut]), "{name} cut at {cut} of {}", whole.len());
            }
            // Programs hang all sorts of things at the end.
            assert!(ended(&[&whole[..], b"\0\0trailer"].concat()), "{name}");
            // Room that was reserved for what is still to come.
            let mut reserved = whole[..whole.len() / 2].to_vec();
            reserved.resize(whole.len() + 10, 0);
            assert!(name == "webp" || name == "bmp" || !ended(&reserved), "{name}");
        }
    }

    #[test]
    fn what_is_no_picture_has_no_end_to_wait_for() {
        for bytes in [
            &b"label=dog\n"[..],
            b"x",
            b"{}",
            b"<html>",
            b"RIFF\0\0\0\x01WAVEdata",
            b"\x89PIG-not-a-png",
            b"GIF89a",
        ] {
            assert!(ended(bytes), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    /// Real encoders' files.
    #[test]
    fn pictures_of_the_encoders_end() {
        let png = std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pixel.png")).unwrap();
        assert!(ended(&png) && !ended(&png[..png.len() - 1]));
    }
}
