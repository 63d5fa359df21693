//! A serial line without hardware: the master side of a pty, and a stable name for its slave, as udev gives one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// A plugged-in device. Dropping it unplugs it.
pub(crate) struct Pty {
    master: File,
    name: PathBuf,
}

impl Pty {
    /// Plugs a device in under `name`, which is replaced if it is there.
    pub(crate) fn plug(name: &Path) -> Pty {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let mut settings = tcgetattr(&master).unwrap();
        settings.make_raw();
        tcsetattr(&master, OptionalActions::Now, &settings).unwrap();
        let slave = ptsname(&master, Vec::new()).unwrap();
        let fresh = name.with_extension("new");
        symlink(slave.to_str().unwrap(), &fresh).unwrap();
        std::fs::rename(&fresh, name).unwrap();
        Pty { master: master.into(), name: name.to_owned() }
    }

    /// Sends bytes as the device would.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).unwrap();
    }

    /// Reads exactly so many bytes that the hub wrote.
    pub(crate) fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.master.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Another handle of the master, for a thread that floods it.
    pub(crate) fn master(&self) -> File {
        self.master.try_clone().unwrap()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        std::fs::remove_file(&self.name).ok();
    }
}
