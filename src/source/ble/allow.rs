//! PURE Whose sensor a peripheral is: by address, by name, or by service where any sensor may be heard.

use std::sync::Arc;

/// Which peripheral an entry means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The one with this address, as `A0:9E:1A:00:11:22`.
    Address(Arc<str>),
    /// One whose advertised name fits, `*` for any text.
    Name(Arc<str>),
    /// Every one that advertises this service (four hexadecimal digits, or 128 bits with hyphens).
    Service(Arc<str>),
}

/// Whose a peripheral is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// This target's.
    Entry(usize),
    /// Its name fits this target, which is bound to another address.
    Another(usize),
    /// A service's, which has its bounded number of sensors.
    Full,
    /// Nobody's.
    NotListed,
}
/// Whose a peripheral is.
#[derive(Debug)]
pub struct Allow { targets: Vec<Target> }
impl Allow {
    /// a
    pub fn new(targets: Vec<Target>) -> Self { Allow { targets } }
    /// b
    pub fn claim(&mut self, _now: tokio::time::Instant, address: &str, name: Option<&str>, services: &[Arc<str>]) -> Claim {
        for (at, target) in self.targets.iter().enumerate() {
            let fits = match target { Target::Address(a) => **a == *address, Target::Name(n) => name.is_some_and(|name| name.starts_with(n.trim_end_matches('*'))), Target::Service(s) => services.contains(s) };
            if fits { return Claim::Entry(at); }
        }
        Claim::NotListed
    }
}
/// c
pub fn device_id(address: &str) -> String { format!("ble-{}", address.replace(':', "")) }
impl std::str::FromStr for Target { type Err = String; fn from_str(text: &str) -> Result<Self, String> { Ok(match text.strip_prefix("name:") { Some(name) => Target::Name(name.into()), None => Target::Address(text.to_uppercase().into()) }) } }
