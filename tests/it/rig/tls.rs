//! A TLS relay in front of a plain server, with a certificate of its own making.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use super::missing;

/// Runs as long as the test's runtime.
pub(crate) struct TlsRelay {
    pub(crate) address: SocketAddr,
    files: TempDir,
}

impl TlsRelay {
    /// A relay to this address; its certificate is for `localhost`.
    pub(crate) async fn to(server: String) -> Option<TlsRelay> {
        let files = tempfile::tempdir().unwrap();
        let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .output();
        if !made.is_ok_and(|output| output.status.success()) {
            missing("openssl");
            return None;
        }
        let identity =
            native_tls::Identity::from_pkcs8(&std::fs::read(cert).unwrap(), &std::fs::read(key).unwrap()).unwrap();
        let acceptor = tokio_native_tls::TlsAcceptor::from(native_tls::TlsAcceptor::new(identity).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                tokio::spawn(async move {
                    // A client that does not trust the certificate goes away here.
                    let Ok(mut secured) = acceptor.accept(stream).await else { return };
                    let mut plain = TcpStream::connect(server).await.unwrap();
                    tokio::io::copy_bidirectional(&mut secured, &mut plain).await.ok();
                });
            }
        });
        Some(TlsRelay { address, files })
    }

    /// The certificate to trust.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.files.path().join("cert.pem")
    }
}
