//! When the first of the configured certificates ends.

use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::x509::X509;
use tracing::debug;

/// Unix milliseconds of the earliest end of all certificates in these PEM files. `None`: there is none that can be read.
pub(super) fn first_end_ms(files: &[PathBuf]) -> Option<i64> {
    files.iter().flat_map(|path| ends(path)).min()
}

fn ends(path: &Path) -> Vec<i64> {
    let read = std::fs::read(path).map_err(|why| why.to_string());
    let parsed = read.and_then(|pem| X509::stack_from_pem(&pem).map_err(|why| why.to_string()));
    match parsed {
        Ok(certificates) => certificates.iter().filter_map(end_ms).collect(),
        Err(why) => {
            // Said in full by whoever connects with it.
            debug!(path = %path.display(), why, "a certificate cannot be read");
            Vec::new()
        }
    }
}

fn end_ms(certificate: &X509) -> Option<i64> {
    let since = Asn1Time::from_unix(0).ok()?.diff(certificate.not_after()).ok()?;
    Some((i64::from(since.days) * 86_400 + i64::from(since.secs)) * 1_000)
}

#[cfg(test)]
mod tests {
    use openssl::pkey::PKey;
    use openssl::rsa::Rsa;

    use super::*;

    #[test]
    fn the_first_end_of_all_files_counts() {
        let dir = tempfile::tempdir().unwrap();
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let mut files = vec![dir.path().join("missing.pem")];
        for end in [1_900_000_000, 1_800_000_000] {
            let mut made = X509::builder().unwrap();
            made.set_not_after(&Asn1Time::from_unix(end).unwrap()).unwrap();
            made.set_not_before(&Asn1Time::from_unix(0).unwrap()).unwrap();
            made.set_pubkey(&key).unwrap();
            made.sign(&key, openssl::hash::MessageDigest::sha256()).unwrap();
            let path = dir.path().join(format!("{end}.pem"));
            std::fs::write(&path, made.build().to_pem().unwrap()).unwrap();
            files.push(path);
        }
        assert_eq!(first_end_ms(&files), Some(1_800_000_000_000));
        assert_eq!(first_end_ms(&files[..1]), None);
    }
}
