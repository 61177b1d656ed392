//! The seam for the file operations that the journal relies on. [`Disk`] is the real thing. Tests put a model of a disk in its place (`tests/core/disk.rs`)
//! that forgets what was not synced, tears what was being written and runs full: a kill of the process proves nothing about fsync, because the page cache
//! survives it.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A folder's worth of file operations.
pub trait Vfs: Send + Sync + Debug {
    /// Make a folder and what is above it; nothing if it is there.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Names in a folder, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;
    /// Make a new file for appending; an error if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;
    /// Open an existing file for appending.
    fn append(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;
    /// Read an existing file from `offset` on.
    fn read_from(&self, path: &Path, offset: u64) -> io::Result<Box<dyn Read + Send>>;
    /// Is there a file of this name?
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Give a file another name, replacing what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Remove a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Make the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Take the exclusive lock of a file (made if missing); None when somebody else has it. It is given back on drop.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>>;
}

/// A file that is open for appending.
pub trait VfsFile: Send {
    /// Append; may write less than asked.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Make the content durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cut it to `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
}

/// A lock belongs to the open file, and a process that was just forked shares its parent's open files until it becomes another program: for a moment
/// the lock of somebody who is gone may still be held. So one try is not enough to say that another process is at work.
pub const LOCK_TRIES: u32 = 40;
/// See [`LOCK_TRIES`].
pub const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(25);

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Vfs for Disk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs_err::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        fs_err::read_dir(dir)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(fs_err::OpenOptions::new().append(true).create_new(true).open(path)?))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(fs_err::OpenOptions::new().append(true).open(path)?))
    }

    fn read_from(&self, path: &Path, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = fs_err::File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(io::BufReader::with_capacity(64 * 1024, file)))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs_err::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs_err::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs_err::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>> {
        let mut options = fs_err::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        // Whoever may open it may lock it.
        options.options_mut().mode(0o600);
        let file = options.open(path)?.into_parts().0;
        for _ in 0..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Box::new(file))),
                Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(std::fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl VfsFile for fs_err::File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Write all of `bytes`. An error after a part was written says so by leaving the file longer than before: the caller cuts it back.
pub fn write_all(file: &mut dyn VfsFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Put a whole file in place, durably: temporary file in the same folder, sync, rename (replacing), sync of the folder.
pub fn put(vfs: &dyn Vfs, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.tmp"));
    let attempt = || {
        if vfs.exists(&temporary)? {
            vfs.remove(&temporary)?;
        }
        let mut file = vfs.create(&temporary)?;
        write_all(file.as_mut(), bytes)?;
        file.sync()?;
        vfs.rename(&temporary, &dir.join(name))?;
        vfs.sync_dir(dir)
    };
    attempt().inspect_err(|_| {
        // Best effort: the first error is the one to tell.
        let _ = vfs.remove(&temporary);
    })
}
