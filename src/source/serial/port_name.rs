//! How an entry names a serial port: by path, or by what the USB device says of itself.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How an entry names a serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortName {
    /// A path, such as `/dev/serial/by-id/usb-CMS50-if00` or `/dev/ttyS1`.
    Path(PathBuf),
    /// The first port of a USB device.
    Usb {
        /// Vendor, as sysfs writes it: four lower-case hex digits.
        vendor: String,
        /// Product, likewise.
        product: String,
        /// Serial number, where several of a kind are plugged in.
        serial: Option<String>,
    },
}

/// Why a text names no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` names no serial port; write a path, \"usb:10C4:EA60\" or \"usb:10C4:EA60:SERIAL\"")]
pub struct BadPortName {
    found: String,
}

/// Why a named port is not there.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// No such USB device has a port.
    #[error("no port of {0} is plugged in")]
    Absent(PortName),
    /// Several do.
    #[error("several ports fit {name} ({}); add the serial number", ports.join(", "))]
    Several {
        /// What was looked for.
        name: PortName,
        /// The ports found.
        ports: Vec<String>,
    },
    /// The system's list of ports cannot be read.
    #[error("cannot list the serial ports: {0}")]
    List(#[from] io::Error),
}

impl FromStr for PortName {
    type Err = BadPortName;

    fn from_str(text: &str) -> Result<Self, BadPortName> {
        let bad = || BadPortName { found: text.to_owned() };
        let Some(usb) = text.strip_prefix("usb:") else {
            return if text.starts_with('/') { Ok(PortName::Path(text.into())) } else { Err(bad()) };
        };
        let is_id = |id: &&str| id.len() == 4 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut parts = usb.splitn(3, ':');
        let (vendor, product) = (parts.next().filter(is_id), parts.next().filter(is_id));
        let serial = parts.next().map(str::to_owned);
        match (vendor, product) {
            (Some(vendor), Some(product)) if serial.as_deref() != Some("") => {
                Ok(PortName::Usb { vendor: vendor.to_ascii_lowercase(), product: product.to_ascii_lowercase(), serial })
            }
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortName::Path(path) => path.display().fmt(f),
            PortName::Usb { vendor, product, serial: None } => write!(f, "usb:{vendor}:{product}"),
            PortName::Usb { vendor, product, serial: Some(serial) } => write!(f, "usb:{vendor}:{product}:{serial}"),
        }
    }
}

impl PortName {
    /// The path to open now. `sys` and `dev` are `/sys` and `/dev`, or a test's own.
    pub fn resolve(&self, sys: &Path, dev: &Path) -> Result<PathBuf, NotFound> {
        let (vendor, product, serial) = match self {
            PortName::Path(path) => return Ok(path.clone()),
            PortName::Usb { vendor, product, serial } => (vendor, product, serial),
        };
        let mut ports = Vec::new();
        for port in std::fs::read_dir(sys.join("class/tty"))? {
            let port = port?;
            let Some(usb) = usb_device(&port.path().join("device")) else { continue };
            let says = |file: &str| std::fs::read_to_string(usb.join(file)).unwrap_or_default().trim().to_owned();
            let same_serial = serial.as_ref().is_none_or(|serial| *serial == says("serial"));
            if says("idVendor") == *vendor && says("idProduct") == *product && same_serial {
                ports.push(port.file_name().to_string_lossy().into_owned());
            }
        }
        ports.sort();
        match ports.as_slice() {
            [] => Err(NotFound::Absent(self.clone())),
            [port] => Ok(dev.join(port)),
            _ => Err(NotFound::Several { name: self.clone(), ports }),
        }
    }
}

/// The folder of the USB device that a port belongs to: the nearest one above it that has a vendor.
pub(super) fn usb_device(port: &Path) -> Option<PathBuf> {
    let real = port.canonicalize().ok()?;
    real.ancestors().take(8).find(|folder| folder.join("idVendor").is_file()).map(Path::to_owned)
}
