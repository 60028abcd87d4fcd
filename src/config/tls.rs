//! The options for TLS, looked at together.

use tidegate_cluster::PeerEncryption;

use super::{
    choices::{Demand, TlsPort},
    options::Options,
};
use crate::tls::{PeerTlsFiles, Port, TlsFiles};

/// Why options for TLS do not go together.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TlsSettingsError {
    #[error(
        "a certificate and its private key belong together: give both or neither (--tls-cert, --tls-key)"
    )]
    Half,
    #[error("{0} means nothing without a certificate of this node (--tls-cert, --tls-key)")]
    WithoutCertificate(&'static str),
    #[error(
        "clients cannot show a certificate where no authority vouches for them (--tls-client-auth without --tls-client-ca)"
    )]
    NobodyVouches,
    #[error("TLS between nodes takes all three of --peer-tls-cert, --peer-tls-key and --peer-tls-ca")]
    PeersHalf,
    #[error("--peer-tls means nothing without --peer-tls-cert, --peer-tls-key and --peer-tls-ca")]
    PeersWithoutCertificate,
    #[error("no front end is named (--tls-ports http,grpc,redis)")]
    NoPorts,
}

/// For clients.
pub(super) fn for_clients(options: &Options) -> Result<Option<TlsFiles>, TlsSettingsError> {
    let (certificate, key) = match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
        (None, None) => {
            let given = [
                ("--tls-client-ca", options.tls_client_ca.is_some()),
                ("--tls-client-auth", options.tls_client_auth.is_some()),
                ("--tls-ports", options.tls_ports.is_some()),
            ];
            return match given.into_iter().find(|(_, is_given)| *is_given) {
                Some((option, _)) => Err(TlsSettingsError::WithoutCertificate(option)),
                None => Ok(None),
            };
        }
        _ => return Err(TlsSettingsError::Half),
    };
    if options.tls_client_auth.is_some() && options.tls_client_ca.is_none() {
        return Err(TlsSettingsError::NobodyVouches);
    }
    let ports = match &options.tls_ports {
        None => Port::ALL.to_vec(),
        Some(named) if named.is_empty() => return Err(TlsSettingsError::NoPorts),
        Some(named) => Port::ALL.into_iter().filter(|port| named.iter().any(|one| is(*one, *port))).collect(),
    };
    Ok(Some(TlsFiles {
        certificate,
        key,
        client_authorities: options.tls_client_ca.clone(),
        is_required: options.tls_client_auth != Some(Demand::Optional),
        ports,
    }))
}

fn is(named: TlsPort, port: Port) -> bool {
    matches!(
        (named, port),
        (TlsPort::Http, Port::Http) | (TlsPort::Grpc, Port::Grpc) | (TlsPort::Redis, Port::Redis)
    )
}

/// For peers, and whether all of them must have it.
pub(super) fn for_peers(
    options: &Options,
) -> Result<Option<(PeerTlsFiles, PeerEncryption)>, TlsSettingsError> {
    let files = match (&options.peer_tls_cert, &options.peer_tls_key, &options.peer_tls_ca) {
        (Some(certificate), Some(key), Some(authorities)) => PeerTlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            authorities: authorities.clone(),
        },
        (None, None, None) if options.peer_tls.is_some() => {
            return Err(TlsSettingsError::PeersWithoutCertificate);
        }
        (None, None, None) => return Ok(None),
        _ => return Err(TlsSettingsError::PeersHalf),
    };
    let encryption = match options.peer_tls {
        Some(Demand::Optional) => PeerEncryption::Optional,
        Some(Demand::Required) | None => PeerEncryption::Required,
    };
    Ok(Some((files, encryption)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some<T>(path: &str) -> Option<T>
    where
        T: From<String>,
    {
        Some(path.to_owned().into())
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        let none = Options::default;
        let fault = |options: Options| {
            let clients = for_clients(&options).err();
            clients.or_else(|| for_peers(&options).err()).expect("a fault").to_string()
        };
        assert!(for_clients(&none()).unwrap().is_none() && for_peers(&none()).unwrap().is_none());
        assert!(fault(Options { tls_cert: some("c"), ..none() }).contains("--tls-key"));
        assert!(fault(Options { tls_key: some("k"), ..none() }).contains("--tls-cert"));
        assert!(fault(Options { tls_client_ca: some("a"), ..none() }).contains("--tls-client-ca"));
        assert!(fault(Options { tls_ports: Some(vec![TlsPort::Http]), ..none() }).contains("--tls-ports"));
        let both = || Options { tls_cert: some("c"), tls_key: some("k"), ..none() };
        let unvouched = Options { tls_client_auth: Some(Demand::Optional), ..both() };
        assert!(fault(unvouched).contains("--tls-client-ca"));
        assert!(fault(Options { tls_ports: Some(Vec::new()), ..both() }).contains("--tls-ports"));
        assert!(fault(Options { peer_tls_cert: some("c"), ..none() }).contains("--peer-tls-ca"));
        assert!(fault(Options { peer_tls: Some(Demand::Required), ..none() }).contains("--peer-tls-cert"));
    }

    #[test]
    fn clients_must_show_a_certificate_where_an_authority_is_named_unless_said_otherwise() {
        let options = |demand| Options {
            tls_cert: some("c"),
            tls_key: some("k"),
            tls_client_ca: some("a"),
            tls_client_auth: demand,
            ..Options::default()
        };
        let is_required = |demand| for_clients(&options(demand)).unwrap().unwrap().is_required;
        assert!(is_required(None) && is_required(Some(Demand::Required)));
        assert!(!is_required(Some(Demand::Optional)));
        assert_eq!(for_clients(&options(None)).unwrap().unwrap().ports, Port::ALL);
        let some_ports = Options { tls_ports: Some(vec![TlsPort::Redis, TlsPort::Http]), ..options(None) };
        assert_eq!(for_clients(&some_ports).unwrap().unwrap().ports, [Port::Http, Port::Redis]);
    }
}
