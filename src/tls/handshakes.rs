//! What is counted of handshakes with clients.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tidegate_tls::rustls::{AlertDescription, Error};

/// The front ends, by the word for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Http,
    Grpc,
    Redis,
}

impl Port {
    pub(crate) const ALL: [Self; 3] = [Self::Http, Self::Grpc, Self::Redis];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Redis => "redis",
        }
    }
}

/// How a handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Result {
    /// Both ends know each other.
    Full,
    /// They go on with an earlier session.
    Resumed,
    /// The client did not speak TLS.
    PlainText,
    /// It had to show a certificate, and has none.
    NoCertificate,
    /// It has shown one that does not count.
    BadCertificate,
    /// It does not believe the certificate of this node, or wants another one.
    RefusedByClient,
    /// No version, cipher or protocol that both ends have.
    Incompatible,
    /// It is no handshake, or not as one has to be.
    Malformed,
    /// It took too long.
    Timeout,
    /// Too many later callers were in the middle of one, too.
    TooMany,
    /// The client has gone, or this node stops.
    Closed,
}

impl Result {
    pub(crate) const ALL: [Self; 11] = [
        Self::Full,
        Self::Resumed,
        Self::PlainText,
        Self::NoCertificate,
        Self::BadCertificate,
        Self::RefusedByClient,
        Self::Incompatible,
        Self::Malformed,
        Self::Timeout,
        Self::TooMany,
        Self::Closed,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::PlainText => "plain_text",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::RefusedByClient => "refused_by_client",
            Self::Incompatible => "incompatible",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::TooMany => "too_many",
            Self::Closed => "closed",
        }
    }

    /// What somebody may have to mend, for the log; none: such things happen.
    pub(crate) fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::PlainText => {
                "the client speaks no TLS, and this port does: https://, rediss://, or TLS in its settings"
            }
            Self::NoCertificate => {
                "the client has shown no certificate (--tls-client-auth required): `tidegate cert client` makes one"
            }
            Self::BadCertificate => {
                "the client's certificate is expired, not for clients, or of none of the authorities in --tls-client-ca"
            }
            Self::RefusedByClient => {
                "the client does not take this node's certificate: it does not know the authority, or asks under a name that is not in it"
            }
            Self::Incompatible => {
                "the client has no version (1.2, 1.3), cipher or protocol (ALPN) in common with this port"
            }
            _ => return None,
        })
    }

    /// What a handshake has failed of.
    pub(crate) fn of(error: Option<&Error>) -> Self {
        match error {
            None => Self::Closed,
            Some(Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(Error::InvalidCertificate(_)) => Self::BadCertificate,
            Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => Self::Incompatible,
            Some(Error::AlertReceived(alert)) => match alert {
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::DecryptError
                | AlertDescription::UnrecognisedName => Self::RefusedByClient,
                AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => Self::Incompatible,
                _ => Self::Closed,
            },
            Some(_) => Self::Malformed,
        }
    }
}

/// How often handshakes ended which way.
#[derive(Debug, Default)]
pub(crate) struct Handshakes([AtomicU64; Result::ALL.len()]);

impl Handshakes {
    pub(crate) fn count(&self, result: Result) {
        self.0[result as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (Result, u64)> + '_ {
        Result::ALL.into_iter().zip(self.0.iter().map(|count| count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_has_a_place_of_its_own() {
        let handshakes = Handshakes::default();
        for result in Result::ALL {
            handshakes.count(result);
        }
        assert!(handshakes.all().all(|(_, count)| count == 1));
    }
}
