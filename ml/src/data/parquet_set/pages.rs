//! The sizes of a column's pages, held against a bound before the library makes room for them: a page's header says how large the page becomes, and the library
//! believes it.
//!
//! A page header is a Thrift struct in compact form (parquet-format, "Page header"): field 1 the kind, 2 the size without compression, 3 the size in the file.

use std::io::{BufReader, Error, ErrorKind, Read, Result, Seek, SeekFrom};

/// Bytes of the largest page that is taken. Writers look at a page's size only after a thousand rows, so pages of pictures become large.
const MOST: i64 = 1 << 30;
/// Structs within structs that a header may have; parquet's have three.
const DEEPEST: u8 = 16;

/// Is every page of the chunk small enough, and do the pages fill the chunk?
pub(super) fn check<R: Read + Seek>(file: &mut BufReader<R>, start: u64, length: u64) -> Result<()> {
    let end = start.checked_add(length).ok_or_else(|| wrong("a column's place in the file cannot be"))?;
    if file.seek(SeekFrom::End(0))? < end {
        return Err(wrong("a column lies beyond the file's end"));
    }
    file.seek(SeekFrom::Start(start))?;
    let mut at = start;
    while at < end {
        let mut header = Header { file, read: 0 };
        let (whole, stored) = header.sizes()?;
        let read = header.read;
        if !(0..=MOST).contains(&whole) {
            return Err(wrong("a page says that it has more than 1 GiB: write the file with smaller row groups"));
        }
        let stored = u64::try_from(stored).map_err(|_| wrong("a page has a negative size"))?;
        at = at.saturating_add(read).saturating_add(stored);
        file.seek_relative(i64::try_from(stored).map_err(|_| wrong("a page is too large"))?)?;
    }
    match at == end {
        true => Ok(()),
        false => Err(wrong("a column's pages do not end where the column ends")),
    }
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

struct Header<'a, R> {
    file: &'a mut BufReader<R>,
    /// Bytes read so far.
    read: u64,
}

impl<R: Read + Seek> Header<'_, R> {
    /// Sizes without compression and in the file.
    fn sizes(&mut self) -> Result<(i64, i64)> {
        let (mut field, mut whole, mut stored) = (0, None, None);
        while let Some(kind) = self.field(&mut field)? {
            match (field, kind) {
                (2, 5) => whole = Some(self.zigzag()?),
                (3, 5) => stored = Some(self.zigzag()?),
                (_, kind) => self.skip(kind, 0)?,
            }
        }
        whole.zip(stored).ok_or_else(|| wrong("a page's header says no sizes"))
    }

    /// The kind of the next field, whose number `field` becomes; none at the struct's end.
    fn field(&mut self, field: &mut i64) -> Result<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        *field = match byte >> 4 {
            0 => self.zigzag()?,
            delta => field.saturating_add(i64::from(delta)),
        };
        Ok(Some(byte & 15))
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.file.read_exact(&mut byte)?;
        self.read += 1;
        Ok(byte[0])
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(value);
            }
        }
        Err(wrong("a number of a page's header is too long"))
    }

    fn zigzag(&mut self) -> Result<i64> {
        self.varint().map(|n| (n >> 1) as i64 ^ -((n & 1) as i64))
    }

    fn over(&mut self, bytes: u64) -> Result<()> {
        self.read = self.read.saturating_add(bytes);
        self.file
            .seek_relative(i64::try_from(bytes).map_err(|_| wrong("a text of a page's header is too long"))?)
    }

    /// A value that is not asked for.
    fn skip(&mut self, kind: u8, depth: u8) -> Result<()> {
        match kind {
            // Truth values are in the kind.
            1 | 2 => Ok(()),
            3 => self.over(1),
            4..=6 => self.varint().map(drop),
            7 => self.over(8),
            8 => {
                let bytes = self.varint()?;
                self.over(bytes)
            }
            12 if depth < DEEPEST => {
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            _ => Err(wrong("a page's header is none")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A data page's header: kind 0, sizes, a struct with numbers and a text, then the page.
    fn page(whole: &[u8], stored: u8) -> Vec<u8> {
        let mut bytes = [
            &[0x15, 0, 0x15],
            whole,
            &[0x15, stored * 2, 0x2c, 0x15, 8, 0x15, 0, 0x1c, 0x18, 2, b'h', b'i', 0, 0, 0],
        ]
        .concat();
        bytes.extend(vec![7; usize::from(stored)]);
        bytes
    }

    fn checked(bytes: Vec<u8>, length: usize) -> Result<()> {
        check(
            &mut BufReader::with_capacity(16, Cursor::new([vec![9; 5], bytes].concat())),
            5,
            length as u64,
        )
    }

    #[test]
    fn pages_must_be_small_and_fill_their_column() {
        let two = [page(&[20], 30), page(&[0x80, 0x80, 0x80, 0x80, 8], 1)].concat();
        checked(two.clone(), two.len()).unwrap();
        let large = page(&[0x82, 0x80, 0x80, 0x80, 8], 1);
        assert!(checked(large.clone(), large.len()).unwrap_err().to_string().contains("1 GiB"));
        let negative = page(&[1], 1);
        assert!(checked(negative.clone(), negative.len()).is_err());
        assert!(checked(two.clone(), two.len() - 1).unwrap_err().to_string().contains("do not end"));
        assert!(checked(two.clone(), two.len() + 1).unwrap_err().to_string().contains("beyond"));
        for n in 1..two.len() {
            assert!(checked(two[..n].to_vec(), two.len()).is_err(), "cut at {n}");
        }
        let deep = vec![0x1c; 40];
        assert!(checked(deep, 40).unwrap_err().to_string().contains("is none"));
    }
}
