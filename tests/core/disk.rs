//! A disk in memory that crashes the way disks do. Content becomes durable by `sync`, names by `sync_dir`; [`MemVfs::crash`] gives one of the states
//! that a power loss may leave. Errors can be injected by operation number, and space can run out.

use delta_guard::vfs::{Vfs, VfsFile};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// The model disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemVfs {
    state: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    files: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names since the last sync of their folder, in order.
    unsynced_names: Vec<(PathBuf, Option<usize>)>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    fault: Option<Fault>,
    space: Option<u64>,
}

/// An error to be injected.
#[derive(Clone, Copy, Debug)]
struct Fault {
    at: u64,
    errno: i32,
    lasting: bool,
}

#[derive(Clone, Debug, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl MemVfs {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Number of operations that changed something or synced so far.
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// Let the operation with this number (counted from 0, see [`MemVfs::operations`]) fail with `errno`, and all later ones too if `lasting`.
    pub fn fail_at(&self, operation: u64, errno: i32, lasting: bool) {
        self.disk().fault = Some(Fault {
            at: operation,
            errno,
            lasting,
        });
    }

    /// No more injected errors.
    pub fn heal(&self) {
        let mut disk = self.disk();
        disk.fault = None;
        disk.space = None;
    }

    /// Bytes that may still be written; beyond them writes are short, then fail with ENOSPC.
    pub fn limit_space(&self, bytes: u64) {
        self.disk().space = Some(bytes);
    }

    /// The content of a file as a running process sees it.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.names.get(path).map(|inode| disk.files[*inode].live.clone())
    }

    /// Replace or make a file, durably: a hand from outside.
    pub fn set_content(&self, path: &Path, bytes: Vec<u8>) {
        let mut disk = self.disk();
        disk.files.push(Content {
            live: bytes.clone(),
            durable: bytes,
            unsynced: Vec::new(),
        });
        let inode = disk.files.len() - 1;
        disk.names.insert(path.to_path_buf(), inode);
        disk.durable_names.insert(path.to_path_buf(), inode);
    }

    /// Take a file away, durably: a hand from outside.
    pub fn take(&self, path: &Path) -> Option<Vec<u8>> {
        let content = self.content(path);
        let mut disk = self.disk();
        disk.names.remove(path);
        disk.durable_names.remove(path);
        content
    }

    /// Names of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.disk().names.keys().cloned().collect()
    }

    /// What a power loss may leave. `choose(n)` picks one of `n` ways (0 to n − 1) at each point: how many changes of names took place, which un-synced
    /// writes reached the disk, where the last one was torn, which of its sectors read as zeros.
    pub fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) -> MemVfs {
        let old = self.disk();
        let mut names = old.durable_names.clone();
        // File systems keep the order of changes of names: a prefix took place.
        for (path, inode) in old.unsynced_names.iter().take(choose(old.unsynced_names.len() + 1)) {
            match inode {
                Some(inode) => names.insert(path.clone(), *inode),
                None => names.remove(path),
            };
        }
        let files = old.files.iter().map(|file| file.crash(choose)).collect();
        let new = Disk {
            files,
            names: names.clone(),
            durable_names: names,
            ..Disk::default()
        };
        MemVfs {
            state: Arc::new(Mutex::new(new)),
        }
    }
}

impl Content {
    fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) -> Content {
        let mut bytes = self.durable.clone();
        let last = self.unsynced.len().wrapping_sub(1);
        for (index, change) in self.unsynced.iter().enumerate() {
            if choose(2) == 0 {
                continue;
            }
            match change {
                Change::Truncate(len) => bytes.truncate(*len),
                Change::Write { offset, bytes: written } => {
                    let mut written = written.clone();
                    if index == last {
                        match choose(3) {
                            0 => {}
                            1 => written.truncate(choose(written.len() + 1)),
                            _ => zero_some_sectors(*offset, &mut written, choose),
                        }
                    }
                    if bytes.len() < offset + written.len() {
                        bytes.resize(offset + written.len(), 0);
                    }
                    bytes[*offset..offset + written.len()].copy_from_slice(&written);
                }
            }
        }
        Content {
            live: bytes.clone(),
            durable: bytes,
            unsynced: Vec::new(),
        }
    }
}

/// Sectors of 512 bytes that did not reach the disk although the file was made longer read as zeros.
fn zero_some_sectors(offset: usize, bytes: &mut [u8], choose: &mut dyn FnMut(usize) -> usize) {
    let mut start = 0;
    while start < bytes.len() {
        let end = bytes.len().min(start + 512 - (offset + start) % 512);
        if choose(2) == 0 {
            bytes[start..end].fill(0);
        }
        start = end;
    }
}

impl Disk {
    /// Count an operation; fail it if so ordered.
    fn step(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        match self.fault {
            Some(fault) if number == fault.at || (fault.lasting && number > fault.at) => Err(io::Error::from_raw_os_error(fault.errno)),
            _ => Ok(()),
        }
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Vfs for MemVfs {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let disk = self.disk();
        Ok(disk
            .names
            .keys()
            .filter(|path| path.parent() == Some(dir))
            .filter_map(|path| path.file_name().map(OsString::from))
            .collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut disk = self.disk();
        disk.step()?;
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.files.push(Content::default());
        let inode = disk.files.len() - 1;
        disk.names.insert(path.to_path_buf(), inode);
        disk.unsynced_names.push((path.to_path_buf(), Some(inode)));
        Ok(Box::new(MemFile {
            state: Arc::clone(&self.state),
            inode,
        }))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let inode = self.disk().inode(path)?;
        Ok(Box::new(MemFile {
            state: Arc::clone(&self.state),
            inode,
        }))
    }

    fn read_from(&self, path: &Path, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let disk = self.disk();
        let live = &disk.files[disk.inode(path)?].live;
        Ok(Box::new(Cursor::new(live.get(offset as usize..).unwrap_or_default().to_vec())))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.disk().names.contains_key(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let inode = disk.inode(from)?;
        disk.names.remove(from);
        disk.names.insert(to.to_path_buf(), inode);
        disk.unsynced_names.push((to.to_path_buf(), Some(inode)));
        disk.unsynced_names.push((from.to_path_buf(), None));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        disk.inode(path)?;
        disk.names.remove(path);
        disk.unsynced_names.push((path.to_path_buf(), None));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let (synced, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut disk.unsynced_names)
            .into_iter()
            .partition(|(path, _)| path.parent() == Some(dir));
        disk.unsynced_names = kept;
        for (path, inode) in synced {
            match inode {
                Some(inode) => disk.durable_names.insert(path, inode),
                None => disk.durable_names.remove(&path),
            };
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>> {
        if !self.disk().locks.insert(path.to_path_buf()) {
            return Ok(None);
        }
        Ok(Some(Box::new(MemLock {
            state: Arc::clone(&self.state),
            path: path.to_path_buf(),
        })))
    }
}

struct MemLock {
    state: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .locks
            .remove(&self.path);
    }
}

struct MemFile {
    state: Arc<Mutex<Disk>>,
    inode: usize,
}

impl MemFile {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl VfsFile for MemFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.disk();
        disk.step()?;
        let room = disk.space.unwrap_or(u64::MAX);
        let taken = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if taken == 0 && !bytes.is_empty() {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()));
        }
        if let Some(space) = &mut disk.space {
            *space -= taken as u64;
        }
        let file = &mut disk.files[self.inode];
        file.unsynced.push(Change::Write {
            offset: file.live.len(),
            bytes: bytes[..taken].to_vec(),
        });
        file.live.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.disk();
        let outcome = disk.step();
        let file = &mut disk.files[self.inode];
        if outcome.is_ok() {
            file.durable = file.live.clone();
            file.unsynced.clear();
        }
        outcome
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let len = len as usize;
        let file = &mut disk.files[self.inode];
        let freed = file.live.len().saturating_sub(len) as u64;
        file.live.truncate(len);
        file.unsynced.push(Change::Truncate(len));
        if let Some(space) = &mut disk.space {
            *space += freed;
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk().files[self.inode].live.len() as u64)
    }
}
