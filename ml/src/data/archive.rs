//! Tar files, plain or gzipped, read as a stream. Nothing is ever unpacked to disk; a name that leads out of the archive is refused.

use crate::error::{Error, Result, ResultExt};
use delta_guard_contract::{Code, FaultKind, is_passing};
use flate2::bufread::MultiGzDecoder;
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;

/// Longest member name that is taken.
const MAX_NAME: usize = 4096;

/// What a link names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// A place inside the archive, whether or not there is something.
    To(String),
    /// A place outside, or none that has a name here. It is never looked at.
    Outside,
}

/// A member of a tar file that is not a folder.
pub(crate) struct Member<'a> {
    /// Path inside the tar, `/` between parts, without a leading `./`.
    pub(crate) name: String,
    /// Bytes.
    pub(crate) size: u64,
    /// False for links, devices, pipes and sparse files: their bytes are not read.
    pub(crate) regular: bool,
    /// What a hard or symbolic link names.
    pub(crate) link: Option<Link>,
    data: &'a mut dyn Read,
}

impl Member<'_> {
    /// All bytes; `None` when there are more than `max`.
    pub(crate) fn bytes(&mut self, max: u64) -> Result<Option<Vec<u8>>> {
        if self.size > max {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(self.size as usize);
        self.data.read_to_end(&mut bytes).context(|| self.name.clone())?;
        if bytes.len() as u64 != self.size {
            return Err(cut_short(&self.name));
        }
        Ok(Some(bytes))
    }

    /// BLAKE3 of the bytes, streamed.
    pub(crate) fn digest(&mut self) -> Result<[u8; 32]> {
        let mut hash = blake3::Hasher::new();
        let mut reader = (&mut *self.data).take(self.size.saturating_add(1));
        hash.update_reader(&mut reader).context(|| self.name.clone())?;
        if hash.count() != self.size {
            return Err(cut_short(&self.name));
        }
        Ok(*hash.finalize().as_bytes())
    }

    /// The bytes as a stream.
    pub(crate) fn stream(&mut self) -> &mut dyn Read {
        self.data
    }
}

fn cut_short(name: &str) -> Error {
    Error::new(
        Code::DataUnusable,
        format!("the archive ends within {name}"),
        "copy the archive again: it is cut short",
    )
}

/// Call `take` with each member in the archive's order, until it breaks. Folders and hidden members (a part of the name starts with a dot) are passed over.
pub(crate) fn members(path: &Path, take: &mut dyn FnMut(Member) -> Result<ControlFlow<()>>) -> Result<()> {
    all_members(path, &mut |member| match member.name.split('/').any(|part| part.starts_with('.')) {
        true => Ok(ControlFlow::Continue(())),
        false => take(member),
    })
}

/// [`members`] with the hidden ones: links may name them.
pub(crate) fn all_members(path: &Path, take: &mut dyn FnMut(Member) -> Result<ControlFlow<()>>) -> Result<()> {
    let damaged = |e: std::io::Error| {
        let known = Error::from(e).within(|| format!("reading the archive {}", path.display()));
        match known.fault().kind {
            FaultKind::Resource => known,
            _ => known.coded(Code::DataUnusable).helped("copy or pack the archive again"),
        }
    };
    let mut archive = tar::Archive::new(open(path)?);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_pax_global_extensions() {
            continue;
        }
        let Some(name) = clean(&entry.path_bytes(), path)? else { continue };
        let link = if kind.is_hard_link() || kind.is_symlink() {
            // A symbolic link starts from its own folder, a hard link from the archive's root.
            let base = if kind.is_symlink() {
                name.rsplit_once('/').map_or("", |(folder, _)| folder)
            } else {
                ""
            };
            Some(entry.link_name_bytes().map_or(Link::Outside, |target| link(base, &target)))
        } else {
            None
        };
        let member = Member {
            name,
            size: entry.size(),
            regular: kind.is_file() || kind.is_contiguous(),
            link,
            data: &mut entry,
        };
        if take(member).context(|| path.display().to_string())?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Names of all members.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    members(path, &mut |member| {
        names.push(member.name);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(names)
}

/// Is the file a tar, plain or gzipped? Decided by its bytes.
pub(crate) fn is_tar(path: &Path) -> Result<bool> {
    let mut head = [0u8; 512];
    let mut got = 0;
    let mut reader = open(path)?;
    while got < head.len() {
        match reader.read(&mut head[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if is_passing(&error) => return Err(error).context(|| path.display().to_string()),
            // Not even the first block of a gzip stream: not a tar.
            Err(_) => return Ok(false),
        }
    }
    // The oldest tars have no magic; their header checksum tells.
    let header = tar::Header::from_byte_slice(&head);
    let sum: u32 = head
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
        .sum();
    Ok(got == 512 && header.cksum().is_ok_and(|c| c == sum))
}

fn open(path: &Path) -> Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(1 << 20, fs_err::File::open(path)?);
    let zipped = file.fill_buf().context(|| path.display().to_string())?.starts_with(&[0x1f, 0x8b]);
    Ok(if zipped {
        Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(file)))
    } else {
        Box::new(file)
    })
}

/// Where a link leads, from the folder `base`.
fn link(base: &str, target: &[u8]) -> Link {
    let Some(target) = std::str::from_utf8(target).ok().filter(|t| !t.starts_with('/') && !t.contains('\0')) else {
        return Link::Outside;
    };
    let mut parts: Vec<&str> = base.split('/').filter(|p| !p.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Link::Outside;
                }
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() { Link::Outside } else { Link::To(parts.join("/")) }
}

/// The member's name as an id; `None` for the archive's root.
fn clean(raw: &[u8], tar: &Path) -> Result<Option<String>> {
    let shown = || String::from_utf8_lossy(&raw[..raw.len().min(200)]).into_owned();
    let refuse = |why: &str| {
        let help = "pack the archive anew, with relative UTF-8 names that stay inside it";
        Err(Error::new(
            Code::DataUnusable,
            format!("{} has a member whose name {why}: {}", tar.display(), shown()),
            help,
        ))
    };
    if raw.len() > MAX_NAME {
        return refuse("is longer than 4,096 bytes");
    }
    let Ok(name) = std::str::from_utf8(raw) else {
        return refuse("is not UTF-8");
    };
    if name.contains('\0') {
        return refuse("holds a NUL");
    }
    if name.starts_with('/') {
        return refuse("is absolute");
    }
    let parts: Vec<&str> = name.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") {
        return refuse("leads out of it");
    }
    if parts.is_empty() {
        return Ok(None);
    }
    Ok(Some(parts.join("/")))
}
