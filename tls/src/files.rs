//! PEM files: certificates, private keys, authorities.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use crate::{Certificate, NotACertificate, private, provider};

/// Longest file: a bundle of all public authorities has 300 KiB.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum FileError {
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: io::Error },
    #[error("{} has more than {MAX_FILE_BYTES} bytes: it is no file of certificates", path.display())]
    TooLong { path: PathBuf },
    #[error("{} holds no certificate: it must be PEM, -----BEGIN CERTIFICATE-----", path.display())]
    NoCertificate { path: PathBuf },
    #[error("a certificate in {} cannot be read: {reason}", path.display())]
    BadCertificate { path: PathBuf, reason: String },
    #[error("{} holds no private key: it must be PEM, -----BEGIN PRIVATE KEY----- (PKCS #8, or RSA or EC as OpenSSL writes them)", path.display())]
    NoKey { path: PathBuf },
    #[error("the private key in {} is encrypted, and a node has nobody to ask for the passphrase: `openssl pkey -in {} -out KEY` writes it without one, readable only by its owner", path.display(), path.display())]
    EncryptedKey { path: PathBuf },
    #[error("others than its owner can use the private key in {} (mode {mode:04o}): `chmod 600 {}` {}", path.display(), path.display(), private::HOW_TO_MEND)]
    OpenKey { path: PathBuf, mode: u32 },
    #[error("the private key in {} is not the one of the certificate in {}", key.display(), certificate.display())]
    OtherKey { key: PathBuf, certificate: PathBuf },
    #[error("the private key in {} cannot be used: {reason} (ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits and more)", path.display())]
    BadKey { path: PathBuf, reason: String },
    #[error("{0}")]
    Config(String),
}

/// What proves who one is: a chain of certificates and the key of the first.
#[derive(Debug)]
pub struct Proof {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    certificate: Certificate,
}

impl Proof {
    /// Reads both files, and looks whether they belong together.
    ///
    /// # Errors
    /// When one cannot be used, or they do not.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, FileError> {
        let chain = certificates(certificate)?;
        let bad = |fault: NotACertificate| FileError::BadCertificate {
            path: certificate.to_owned(),
            reason: fault.to_string(),
        };
        let leaf = Certificate::of(&chain[0]).map_err(bad)?;
        let key_path = key.to_owned();
        let key = private_key(key)?;
        match CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider()) {
            Ok(_) => Ok(Self { chain, key, certificate: leaf }),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(FileError::OtherKey { key: key_path, certificate: certificate.to_owned() })
            }
            Err(rustls::Error::InvalidCertificate(reason)) => {
                Err(FileError::BadCertificate { path: certificate.to_owned(), reason: format!("{reason:?}") })
            }
            Err(error) => Err(FileError::BadKey { path: key_path, reason: error.to_string() }),
        }
    }

    /// What the certificate says.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

/// The certificates of a file, at least one, in their order.
///
/// # Errors
/// When there is none, or one cannot be read.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found
        .map_err(|error| FileError::BadCertificate { path: path.to_owned(), reason: error.to_string() })?;
    if found.is_empty() {
        return Err(FileError::NoCertificate { path: path.to_owned() });
    }
    Ok(found)
}

/// The authorities of a file: who is signed by one of them is believed.
///
/// # Errors
/// As [`certificates`].
pub fn authorities(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| FileError::BadCertificate {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let unreadable = |reason| FileError::Unreadable { path: path.to_owned(), reason };
    let file = File::open(path).map_err(unreadable)?;
    // Before a byte of it is read: who finds it open should make a new one.
    if let Some(mode) = private::fault(&file).map_err(unreadable)? {
        return Err(FileError::OpenKey { path: path.to_owned(), mode });
    }
    let text = read_open(file, path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let is_encrypted = text.windows(9).any(|word| word == b"ENCRYPTED");
        let path = path.to_owned();
        if is_encrypted { FileError::EncryptedKey { path } } else { FileError::NoKey { path } }
    })
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = File::open(path);
    read_open(file.map_err(|reason| FileError::Unreadable { path: path.to_owned(), reason })?, path)
}

fn read_open(file: File, path: &Path) -> Result<Vec<u8>, FileError> {
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|reason| FileError::Unreadable { path: path.to_owned(), reason })?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLong { path: path.to_owned() });
    }
    Ok(text)
}
