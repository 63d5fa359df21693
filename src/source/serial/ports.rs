//! Which serial ports there are, and how an entry would name each.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::port_name::usb_device;

/// A serial port of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Port {
    /// The best name for an entry: the one below `/dev/serial/by-id`, which stays when other ports come and go.
    pub path: PathBuf,
    /// Where it is now, as `/dev/ttyUSB0`.
    pub now: PathBuf,
    /// What the USB device says of itself; `None` for a port of the board.
    pub usb: Option<Usb>,
}

/// What a USB device says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usb {
    /// Four lower-case hexadecimal digits.
    pub vendor: String,
    /// Four lower-case hexadecimal digits.
    pub product: String,
    /// Its serial number, where it has one.
    pub serial: Option<String>,
    /// Maker and model in its own words.
    pub title: String,
}

/// All ports that have hardware behind them, by their paths. `sys` and `dev` are `/sys` and `/dev`, or a test's own.
pub fn list(sys: &Path, dev: &Path) -> io::Result<Vec<Port>> {
    let lasting = lasting_names(&dev.join("serial/by-id"));
    let entries = match std::fs::read_dir(sys.join("class/tty")) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut ports = Vec::new();
    for entry in entries {
        let (name, folder) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        let device = folder.join("device");
        let usb = usb_device(&device).map(|folder| Usb::read(&folder));
        // The kernel makes /dev/ttyS0 to S3 whether or not there is a chip; those without one have type 0.
        let has_a_chip = || says(&folder, "type").is_some_and(|kind| kind != "0");
        if usb.is_none() && !(device.exists() && has_a_chip()) {
            continue;
        }
        let now = dev.join(&name);
        ports.push(Port { path: lasting.get(&name).cloned().unwrap_or_else(|| now.clone()), now, usb });
    }
    ports.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(ports)
}

impl Usb {
    fn read(folder: &Path) -> Self {
        let words: Vec<String> = ["manufacturer", "product"].iter().filter_map(|file| says(folder, file)).collect();
        Usb {
            vendor: says(folder, "idVendor").unwrap_or_default(),
            product: says(folder, "idProduct").unwrap_or_default(),
            serial: says(folder, "serial"),
            // A device may write anything here, and it ends on a terminal.
            title: words.join(" ").chars().filter(|c| !c.is_control()).take(64).collect(),
        }
    }
}

/// By the port's own name: the link that udev made from what the device says of itself.
fn lasting_names(folder: &Path) -> BTreeMap<OsString, PathBuf> {
    let links = std::fs::read_dir(folder).into_iter().flatten().filter_map(|link| Some(link.ok()?.path()));
    links.filter_map(|link| Some((std::fs::read_link(&link).ok()?.file_name()?.to_owned(), link))).collect()
}

fn says(folder: &Path, file: &str) -> Option<String> {
    let text = std::fs::read_to_string(folder.join(file)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn ports_are_listed_by_their_lasting_names_and_phantoms_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (sys, dev) = (folder.path().join("sys"), folder.path().join("dev"));
        let usb = sys.join("devices/usb1/1-1");
        let write = |path: PathBuf, text: &str| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for (file, text) in
            [("idVendor", "10c4\n"), ("idProduct", "ea60\n"), ("serial", "0001\n"), ("product", "CP2102\n")]
        {
            write(usb.join(file), text);
        }
        std::fs::create_dir_all(usb.join("1-1:1.0/ttyUSB0")).unwrap();
        std::fs::create_dir_all(sys.join("devices/platform/serial8250")).unwrap();
        for (name, kind, device) in [
            ("ttyUSB0", None, Some("../../../devices/usb1/1-1/1-1:1.0/ttyUSB0")),
            ("ttyS0", Some("0\n"), Some("../../../devices/platform/serial8250")),
            ("ttyAMA0", Some("32\n"), Some("../../../devices/platform/serial8250")),
            ("tty1", None, None),
        ] {
            let tty = sys.join("class/tty").join(name);
            std::fs::create_dir_all(&tty).unwrap();
            kind.into_iter().for_each(|kind| write(tty.join("type"), kind));
            device.into_iter().for_each(|device| symlink(device, tty.join("device")).unwrap());
        }
        let by_id = dev.join("serial/by-id/usb-CP2102-if00");
        std::fs::create_dir_all(by_id.parent().unwrap()).unwrap();
        symlink("../../ttyUSB0", &by_id).unwrap();

        let ports = list(&sys, &dev).unwrap();
        assert_eq!(ports.len(), 2, "{ports:?}");
        assert_eq!((&ports[1].path, &ports[1].usb), (&dev.join("ttyAMA0"), &None));
        assert_eq!((&ports[0].path, &ports[0].now), (&by_id, &dev.join("ttyUSB0")));
        let usb = ports[0].usb.as_ref().unwrap();
        assert_eq!((&*usb.vendor, &*usb.product, &*usb.title), ("10c4", "ea60", "CP2102"));
        assert_eq!(list(&folder.path().join("none"), &dev).unwrap(), []);
    }
}
