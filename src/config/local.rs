//! `[local]`: where the gateway answers over TCP, by which names, and to whom.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use ctutils::CtEq;

use super::{checks, raw};

/// A shorter token could be guessed.
const SHORTEST_TOKEN: usize = 16;

/// A longer one is not a token but some other file.
const LONGEST_TOKEN: usize = 1_024;

/// The `[local]` section with `listen`; without it the gateway answers on its control socket only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The names that a client may call this hub by, beside `localhost` and the loopback addresses; lower case.
    pub hosts: Vec<String>,
    /// Whom it answers; everybody who reaches a loopback address where there is none.
    pub token: Option<Token>,
}

/// What a client has to show. It never appears in `Debug`, logs or errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<[u8]>);

impl Token {
    /// Whether this is the token. How much of it is right does not show in the time that it takes.
    pub fn is(&self, shown: &[u8]) -> bool {
        self.0.as_ref().ct_eq(shown).to_bool()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

pub(super) fn local(raw: raw::Local) -> Result<Option<Local>, String> {
    let Some(listen) = raw.listen else {
        return match raw.token_file.is_some() || raw.hosts.is_some() {
            true => Err("local: found hosts or token_file without listen; write listen = \"127.0.0.1:8787\"".into()),
            false => Ok(None),
        };
    };
    let address = address(&listen)?;
    let token = raw.token_file.as_deref().map(token).transpose()?;
    if !address.ip().is_loopback() && token.is_none() {
        return Err(format!(
            "local.listen: found \"{listen}\", which other machines reach, without a token; write token_file = \"FILE\" (at least {SHORTEST_TOKEN} characters), or listen = \"127.0.0.1:{}\"",
            address.port()
        ));
    }
    let mut hosts = Vec::new();
    for host in raw.hosts.unwrap_or_default() {
        let host = host.to_ascii_lowercase();
        if host.is_empty() || host.len() > 253 || !host.bytes().all(is_of_a_host) {
            return Err(format!("local.hosts: found \"{host}\"; write a name or an address without a port"));
        }
        hosts.push(host);
    }
    Ok(Some(Local { listen: address, hosts, token }))
}

fn address(listen: &str) -> Result<SocketAddr, String> {
    let of_localhost = listen.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    let of_localhost = of_localhost.map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    of_localhost.or_else(|| listen.parse().ok()).ok_or_else(|| {
        format!(
            "local.listen: found \"{listen}\"; write an address and a port such as \"127.0.0.1:8787\" or \"[::1]:8787\""
        )
    })
}

fn is_of_a_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte)
}

/// What the file holds, without white space around it; it is never said.
fn token(file: &Path) -> Result<Token, String> {
    checks::readable("local.token_file", file)?;
    let wrong = |why: String| format!("local.token_file: found \"{}\" with {why}", file.display());
    let content = std::fs::read(file).map_err(|why| wrong(why.to_string()))?;
    let token = content.trim_ascii();
    match token.len() {
        SHORTEST_TOKEN..=LONGEST_TOKEN if token.iter().all(u8::is_ascii_graphic) => Ok(Token(token.into())),
        found => Err(wrong(format!(
            "{found} bytes; write {SHORTEST_TOKEN} to {LONGEST_TOKEN} printable characters without spaces, as `openssl rand -hex 32` makes them"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(listen: &str) -> raw::Local {
        raw::Local { listen: Some(listen.to_owned()), ..raw::Local::default() }
    }

    #[test]
    fn only_loopback_may_be_listened_at_without_a_token() {
        for fine in ["127.0.0.1:8787", "localhost:8787", "[::1]:8787", "127.8.0.1:0"] {
            assert!(local(raw(fine)).unwrap().is_some(), "{fine}");
        }
        for other in ["0.0.0.0:8787", "[::]:8787", "192.168.1.7:8787"] {
            let why = local(raw(other)).unwrap_err();
            assert!(why.contains("token_file") && why.contains("127.0.0.1:8787"), "{why}");
        }
        assert!(local(raw("hub.local:8787")).unwrap_err().contains("127.0.0.1:8787"));
        assert_eq!(local(raw::Local::default()), Ok(None));
    }

    #[test]
    fn a_token_is_not_short_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let with = || local(raw::Local { token_file: Some(file.clone()), ..raw("0.0.0.0:8787") });
        assert!(with().unwrap_err().contains("cannot be read"));
        std::fs::write(&file, "short-secret\n").unwrap();
        let why = with().unwrap_err();
        assert!(why.contains("12 bytes") && !why.contains("short-secret"), "{why}");
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        let found = with().unwrap().unwrap();
        assert!(!format!("{found:?}").contains("0123"));
        let token = found.token.unwrap();
        assert!(token.is(b"0123456789abcdef"));
        assert!(!token.is(b"0123456789abcdeF") && !token.is(b"0123456789abcde") && !token.is(b""));
    }
}
