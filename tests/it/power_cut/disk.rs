//! A disk with a volatile cache that tells what reached it: one file in a FUSE file system, to lie under a loop device.
//!
//! The kernel's loop device turns each block request into a write of that file and each cache flush into an fsync, so
//! the log is what a real disk would have been sent, in its order.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

/// Attributes never change, so the kernel may keep them.
const TTL: Duration = Duration::from_secs(3_600);

const DISK: INodeNo = INodeNo(2);

/// One thing that reached the disk.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    /// Bytes of acknowledgements that the writer had given before this arrived: what a cut here owes.
    pub(crate) acknowledged: u64,
    pub(crate) entry: Entry,
}

#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Write {
        offset: usize,
        data: Vec<u8>,
    },
    /// All that was written before is on the platters once this is answered.
    Flush,
}

/// The mounted disk; unmounted when dropped.
pub(crate) struct Disk {
    /// The file to put a loop device on.
    pub(crate) path: PathBuf,
    inner: Arc<Mutex<Inner>>,
    _session: BackgroundSession,
}

struct Inner {
    image: Vec<u8>,
    log: Vec<Logged>,
    acknowledgements: File,
}

impl Disk {
    /// Mounts a disk that holds `image` below `folder`; the writer appends its acknowledgements to the file given.
    pub(crate) fn mount(folder: &Path, image: Vec<u8>, acknowledgements: &Path) -> Disk {
        let acknowledgements = File::open(acknowledgements).unwrap();
        let inner = Arc::new(Mutex::new(Inner { image, log: Vec::new(), acknowledgements }));
        let session = fuser::spawn_mount(Served(inner.clone()), folder, &Config::default()).unwrap();
        Disk { path: folder.join("disk"), inner, _session: session }
    }

    /// What reached the disk up to now.
    pub(crate) fn log(&self) -> Vec<Logged> {
        lock(&self.inner).log.clone()
    }

    /// How many things reached it up to now.
    pub(crate) fn reached(&self) -> usize {
        lock(&self.inner).log.len()
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// The count is taken when the entry arrives: whatever was acknowledged before rests on earlier entries alone.
    fn arrived(&mut self, entry: Entry) {
        let acknowledged = self.acknowledgements.metadata().map_or(0, |file| file.len());
        self.log.push(Logged { acknowledged, entry });
    }
}

struct Served(Arc<Mutex<Inner>>);

impl Served {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, perm, size) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0o700, 0),
            DISK => (FileType::RegularFile, 0o600, lock(&self.0).image.len() as u64),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4_096,
            flags: 0,
        })
    }

    fn reply_attributes(&self, inode: INodeNo, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(DISK) {
            Some(attributes) if parent == INodeNo::ROOT && name == "disk" => {
                reply.entry(&TTL, &attributes, Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.reply_attributes(inode, reply);
    }

    /// Times and modes are taken and forgotten.
    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.reply_attributes(inode, reply);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let inner = lock(&self.0);
        let from = (offset as usize).min(inner.image.len());
        let to = (from + size as usize).min(inner.image.len());
        reply.data(&inner.image[from..to]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut inner = lock(&self.0);
        let offset = offset as usize;
        let Some(place) = inner.image.get_mut(offset..offset + data.len()) else { return reply.error(Errno::ENOSPC) };
        place.copy_from_slice(data);
        inner.arrived(Entry::Write { offset, data: data.to_vec() });
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        lock(&self.0).arrived(Entry::Flush);
        reply.ok();
    }

    /// A close; no promise about the cache.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
