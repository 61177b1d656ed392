//! The records of a zip file: end of directory, directory entries, local headers; also their 64-bit forms. Pure: bytes in, claims out.

use super::{broken, shown, unread};
use crate::error::Result;
use std::ops::Range;

const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
/// Bytes of the end record, of the locator before it, and of the 64-bit end record.
const END_LENGTH: usize = 22;
const LOCATOR_LENGTH: usize = 20;
const END_64_LENGTH: usize = 56;
/// Stands in a 32-bit field whose value is in its 64-bit form.
const ELSEWHERE: u64 = u32::MAX as u64;
/// Tag of the extra field that holds 64-bit forms.
const EXTRA_64: u16 = 1;
/// Flags: encrypted; sizes come after the data.
const ENCRYPTED: u16 = 1;
const SIZES_AFTER: u16 = 8;

/// Little-endian fields, one after the other; `None` past the end.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn at(bytes: &'a [u8], place: u64) -> Option<Self> {
        bytes.get(usize::try_from(place).ok()?..).map(Self)
    }

    fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.bytes(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn size(&mut self) -> Option<u64> {
        self.u32().map(u64::from)
    }
}

/// Where the directory lies, and how many entries it has.
pub(super) struct Directory {
    pub(super) place: Range<usize>,
    pub(super) entries: u64,
}

/// The directory that the file's last bytes name. A file with something after that (a comment, another archive) is none of torch's.
pub(super) fn directory(bytes: &[u8]) -> Result<Directory> {
    let cut = || broken("it does not end as a zip file does: it is cut short, or goes on after its end");
    let end = bytes.len().checked_sub(END_LENGTH).ok_or_else(cut)?;
    let (disks, entries, size, offset) = end_record(&bytes[end..]).ok_or_else(cut)?;
    // torch writes the 64-bit record always, others where a number needs it: where it is, both must agree.
    let long = end
        .checked_sub(LOCATOR_LENGTH)
        .is_some_and(|at| bytes[at..].starts_with(&LOCATOR_64.to_le_bytes()));
    let (end, entries, size, offset) = if long {
        let (place, found) = end_record_64(bytes, end).ok_or_else(cut)?;
        let agree = |short: u64, elsewhere: u64, long: u64| short == long || short == elsewhere;
        if !agree(entries, u16::MAX.into(), found.0) || !agree(size, ELSEWHERE, found.1) || !agree(offset, ELSEWHERE, found.2) {
            return Err(broken("its two end records differ"));
        }
        (place, found.0, found.1, found.2)
    } else {
        (end, entries, size, offset)
    };
    let range = offset
        .checked_add(size)
        .and_then(|to| Some(usize::try_from(offset).ok()?..usize::try_from(to).ok()?));
    match range {
        Some(place) if disks == 0 && place.end == end => Ok(Directory { place, entries }),
        _ => Err(broken("its directory does not lie where its end says")),
    }
}

/// Disks, entries, size and offset of the directory; `None` when there is no end record, or one with a comment.
fn end_record(bytes: &[u8]) -> Option<(u32, u64, u64, u64)> {
    let mut fields = Fields(bytes);
    let signature = fields.u32()?;
    let disks = fields.u32()?;
    let (here, all) = (fields.u16()?, fields.u16()?);
    let (size, offset, comment) = (fields.size()?, fields.size()?, fields.u16()?);
    (signature == END && here == all && comment == 0).then_some((disks, u64::from(all), size, offset))
}

/// Where the 64-bit end record begins, and entries, size and offset of the directory.
fn end_record_64(bytes: &[u8], end: usize) -> Option<(usize, (u64, u64, u64))> {
    let mut locator = Fields(bytes.get(end.checked_sub(LOCATOR_LENGTH)?..end)?);
    if (locator.u32()?, locator.u32()?) != (LOCATOR_64, 0) {
        return None;
    }
    let place = usize::try_from(locator.u64()?).ok()?;
    if place.checked_add(END_64_LENGTH + LOCATOR_LENGTH)? != end || locator.u32()? != 1 {
        return None;
    }
    let mut fields = Fields(bytes.get(place..end)?);
    let (signature, _length, _versions, disks) = (fields.u32()?, fields.u64()?, fields.u32()?, fields.u64()?);
    let (here, all, size, offset) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
    (signature == END_64 && disks == 0 && here == all).then_some((place, (all, size, offset)))
}

/// An entry as the directory has it.
pub(super) struct Listed {
    pub(super) name: String,
    flags: u16,
    pub(super) crc: u32,
    size: u64,
    /// Where its local header is.
    header: u64,
}

/// The entries of a directory's bytes, one after the other.
pub(super) struct Listing<'a>(Fields<'a>);

impl<'a> Listing<'a> {
    pub(super) fn new(directory: &'a [u8]) -> Self {
        Self(Fields(directory))
    }
}

impl Iterator for Listing<'_> {
    type Item = Result<Listed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.0.is_empty() {
            return None;
        }
        let listed = listed(&mut self.0).unwrap_or_else(|| Err(broken("its directory is damaged")));
        if listed.is_err() {
            self.0 = Fields(&[]);
        }
        Some(listed)
    }
}

fn listed(fields: &mut Fields<'_>) -> Option<Result<Listed>> {
    let (signature, _versions, flags, method) = (fields.u32()?, fields.u32()?, fields.u16()?, fields.u16()?);
    let (_time, crc, packed, size) = (fields.u32()?, fields.u32()?, fields.size()?, fields.size()?);
    let [name, extra, comment] = [fields.u16()?, fields.u16()?, fields.u16()?].map(usize::from);
    let (disk, _attributes, header) = (fields.u16()?, fields.bytes(6)?, fields.size()?);
    let (name, extra, _) = (fields.bytes(name)?, fields.bytes(extra)?, fields.bytes(comment)?);
    if signature != CENTRAL || disk != 0 {
        return None;
    }
    let Ok(name) = std::str::from_utf8(name) else {
        return Some(Err(broken("the name of an entry is not UTF-8")));
    };
    let [size, packed, header] = forms_64(extra, [size, packed, header])?;
    if method != 0 || packed != size || flags & ENCRYPTED != 0 {
        let how = if flags & ENCRYPTED != 0 { "encrypted" } else { "compressed" };
        return Some(Err(unread(
            format!("entry {} is {how}", shown(name)),
            "torch.export.save stores its entries as they are: name the file that it wrote, not one that was packed again",
        )));
    }
    Some(Ok(Listed {
        name: name.into(),
        flags,
        crc,
        size,
        header,
    }))
}

/// Sizes and offset, with what stands in their 64-bit forms.
fn forms_64(extra: &[u8], mut values: [u64; 3]) -> Option<[u64; 3]> {
    if values.iter().all(|v| *v != ELSEWHERE) {
        return Some(values);
    }
    let mut extra = Fields(extra);
    loop {
        let (tag, length) = (extra.u16()?, extra.u16()?);
        let mut field = Fields(extra.bytes(length.into())?);
        if tag == EXTRA_64 {
            for value in values.iter_mut().filter(|v| **v == ELSEWHERE) {
                *value = field.u64()?;
            }
            return Some(values);
        }
    }
}

impl Listed {
    /// Where the entry's bytes are and where everything of it is, when local header, directory and what follows the data agree.
    pub(super) fn place(&self, bytes: &[u8]) -> Result<(Range<usize>, Range<usize>)> {
        self.placed(bytes)
            .ok_or_else(|| broken(format!("entry {}: its own header and the directory differ", shown(&self.name))))
    }

    fn placed(&self, bytes: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
        let mut fields = Fields::at(bytes, self.header)?;
        let (signature, _version, flags, method) = (fields.u32()?, fields.u16()?, fields.u16()?, fields.u16()?);
        let (_time, crc, packed, size) = (fields.u32()?, fields.u32()?, fields.size()?, fields.size()?);
        let (name, extra) = (fields.u16()?, fields.u16()?);
        let name = fields.bytes(name.into())?;
        fields.bytes(extra.into())?;
        if signature != LOCAL || flags != self.flags || method != 0 || name != self.name.as_bytes() {
            return None;
        }
        // Where sizes come after the data the header holds zeros.
        let later = flags & SIZES_AFTER != 0;
        let said = |value: u64, wanted: u64| value == wanted || (later && value == 0) || (value == ELSEWHERE && wanted >= ELSEWHERE);
        if !said(crc.into(), self.crc.into()) || !said(packed, self.size) || !said(size, self.size) {
            return None;
        }
        let data = bytes.len() - fields.0.len();
        fields.bytes(usize::try_from(self.size).ok()?)?;
        let end = bytes.len() - fields.0.len();
        if later {
            self.descriptor(&mut fields)?;
        }
        Some((data..end, usize::try_from(self.header).ok()?..bytes.len() - fields.0.len()))
    }

    /// Checksum and sizes after the data, the sizes in 4 or 8 bytes.
    fn descriptor(&self, fields: &mut Fields<'_>) -> Option<()> {
        if (fields.u32()?, fields.u32()?) != (DESCRIPTOR, self.crc) {
            return None;
        }
        let mut long = Fields(fields.0);
        if (fields.size()?, fields.size()?) == (self.size, self.size) {
            return Some(());
        }
        let same = (long.u64()?, long.u64()?) == (self.size, self.size);
        *fields = long;
        same.then_some(())
    }
}
