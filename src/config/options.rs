//! The options of a node, each of them a flag, an environment variable and a key of the configuration file: all three
//! are read off one struct, so that they cannot differ. A flag goes before the environment, that before the file.

#![allow(rustdoc::broken_intra_doc_links, reason = "the texts are for --help first")]

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::Args;
use serde::{Deserialize, Deserializer};

use super::{
    advertise::Advertise,
    choices::{Demand, EnvoyHeaders, LegacyHeaders, LogFormat, RequireToken, TlsPort},
    units::{ByteCount, Span},
};
use crate::client_address::{ForwardedHeader, Network};

/// The options as they were given; what was not is `None`.
#[derive(Debug, Default, Clone, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Options {
    /// Name of the node, unique in the cluster [default: the one in --data-dir, else HOST-PORT]
    #[arg(long, env = "TIDEGATE_NAME", value_name = "NAME")]
    pub name: Option<String>,

    /// Address to listen on; 0.0.0.0 for all [default: 127.0.0.1]
    #[arg(long, env = "TIDEGATE_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<IpAddr>,

    /// Address at which other nodes reach this one, or the name of a network interface or of a host that has it [default: --listen, or
    /// the address from which packets to them leave]
    #[arg(long, env = "TIDEGATE_ADVERTISE", value_name = "ADDRESS|INTERFACE|HOST")]
    pub advertise: Option<Advertise>,

    /// HTTP listens on this port, gRPC on + 1, the Redis protocol on + 2, peers on + 3 (TCP and UDP) [default: 7800]
    #[arg(long, env = "TIDEGATE_BASE_PORT", value_name = "PORT")]
    pub base_port: Option<u16>,

    /// Peer addresses of nodes of the cluster to join, HOST[:PORT] or dnssrv+SERVICE (SRV records), separated by commas
    #[arg(long, env = "TIDEGATE_JOIN", value_name = "HOST:PORT", value_delimiter = ',')]
    pub join: Option<Vec<String>>,

    /// Found a new cluster as soon as this number of nodes see each other. Nodes that join later need only --join [default: 1 without
    /// --join]
    #[arg(long, env = "TIDEGATE_BOOTSTRAP_EXPECT", value_name = "N")]
    pub bootstrap_expect: Option<u32>,

    /// Directory for identity, Raft log, rules and saved buckets. Without it the node rejoins as a new member after a restart
    #[arg(long, env = "TIDEGATE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Failure zone of the node. Successors and voters are chosen in other zones first
    #[arg(long, env = "TIDEGATE_ZONE", value_name = "ZONE")]
    pub zone: Option<String>,

    /// Share of the key space relative to the other nodes, 1 to 10000: 200 owns twice as much as 100 [default: 100]
    #[arg(long, env = "TIDEGATE_WEIGHT", value_name = "N")]
    pub weight: Option<u16>,

    /// Initial rules (YAML), used only for domains that have none yet. Change them later with `tidegate rules apply`
    #[arg(long, env = "TIDEGATE_RULES", value_name = "FILE")]
    pub rules: Option<PathBuf>,

    /// Name of the cluster; nodes of other clusters are refused [default: tidegate]
    #[arg(long, env = "TIDEGATE_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: Option<String>,

    /// Secret that all nodes of the cluster share, at least 16 characters; make it with `openssl rand -hex 32`. Only in the
    /// environment or the configuration file: as a flag it is refused, because other users of the machine would see it
    #[arg(long, env = "TIDEGATE_CLUSTER_KEY", value_name = "SECRET", hide_env_values = true)]
    pub cluster_key: Option<Secret>,

    /// File that holds the secret of the cluster, one a line: the first seals, a second one is accepted too. It is read again when it
    /// changes (`tidegate key rotate`). Nobody but its owner may be able to read it
    #[arg(long, env = "TIDEGATE_CLUSTER_KEY_FILE", value_name = "FILE", conflicts_with = "cluster_key")]
    pub cluster_key_file: Option<PathBuf>,

    /// Listen beyond loopback without a cluster key: anyone who reaches the peer port can then change rules, take over keys and end
    /// the cluster [default: false]
    #[arg(long, env = "TIDEGATE_INSECURE_NO_CLUSTER_KEY", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure_no_cluster_key: Option<bool>,

    /// Secret of this node's operator, which may do everything at this node whatever tokens there are: to make the first one, and
    /// when all are lost; at least 32 characters. Only in the environment or the configuration file
    #[arg(long, env = "TIDEGATE_ADMIN_TOKEN", value_name = "SECRET", hide_env_values = true)]
    pub admin_token: Option<Secret>,

    /// File that holds it; nobody but its owner may be able to read it
    #[arg(long, env = "TIDEGATE_ADMIN_TOKEN_FILE", value_name = "FILE", conflicts_with = "admin_token")]
    pub admin_token_file: Option<PathBuf>,

    /// What needs a token: admin, all but checks; or all [default: admin as soon as the node has an admin token or the cluster has
    /// tokens, else nothing]
    #[arg(long, env = "TIDEGATE_REQUIRE_TOKEN", value_name = "WHAT")]
    pub require_token: Option<RequireToken>,

    /// Address for administration over HTTP, which is then answered there only [default: where checks are answered]
    #[arg(long, env = "TIDEGATE_ADMIN_LISTEN", value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<SocketAddr>,

    /// Listen beyond loopback without tokens and without a cluster key: anyone who reaches the ports can then change rules and end the
    /// cluster [default: false]
    #[arg(long, env = "TIDEGATE_INSECURE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure: Option<bool>,

    /// Certificate that this node shows clients (PEM, with the chain): HTTP, gRPC and the Redis protocol then speak TLS. It is read again
    /// when it changes [default: none, plain]
    #[arg(long, env = "TIDEGATE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert (PEM), which nobody but the owner and a group may read
    #[arg(long, env = "TIDEGATE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Authorities that vouch for clients (PEM): clients show a certificate of one of these, which can stand for a token (`tidegate token
    /// create --for-certificate`) [default: clients show none]
    #[arg(long, env = "TIDEGATE_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Whether clients must show a certificate. With `optional`, one that shows a wrong one is refused, too [default: required, where there is
    /// --tls-client-ca]
    #[arg(long, env = "TIDEGATE_TLS_CLIENT_AUTH", value_name = "WHETHER")]
    pub tls_client_auth: Option<Demand>,

    /// Front ends that speak TLS, separated by commas; the others stay plain [default: http,grpc,redis]
    #[arg(long, env = "TIDEGATE_TLS_PORTS", value_name = "PORT", value_delimiter = ',')]
    pub tls_ports: Option<Vec<TlsPort>>,

    /// Certificate that this node shows its peers (PEM): one for servers, with the node's name in it (`tidegate cert node`). Streams
    /// between nodes then are TLS, with certificates at both ends [default: none, sealed and not encrypted]
    #[arg(long, env = "TIDEGATE_PEER_TLS_CERT", value_name = "FILE")]
    pub peer_tls_cert: Option<PathBuf>,

    /// Private key of --peer-tls-cert (PEM), which nobody but the owner and a group may read
    #[arg(long, env = "TIDEGATE_PEER_TLS_KEY", value_name = "FILE")]
    pub peer_tls_key: Option<PathBuf>,

    /// Authorities that vouch for nodes (PEM)
    #[arg(long, env = "TIDEGATE_PEER_TLS_CA", value_name = "FILE")]
    pub peer_tls_ca: Option<PathBuf>,

    /// Whether all peers must have TLS. `optional` is for the time in which nodes get it one after the other: streams to those that have
    /// none stay plain [default: required, where there is --peer-tls-cert]
    #[arg(long, env = "TIDEGATE_PEER_TLS", value_name = "WHETHER")]
    pub peer_tls: Option<Demand>,

    /// Time within which a check is answered, whatever happens to other nodes [default: 100ms]
    #[arg(long, env = "TIDEGATE_CHECK_TIMEOUT", value_name = "TIME")]
    pub check_timeout: Option<Span>,

    /// How long a node that was asked to stop goes on as before, not ready and telling its clients to ask elsewhere: what load
    /// balancers need to take it out; up to 60s [default: 0s]
    #[arg(long, env = "TIDEGATE_STOP_DELAY", value_name = "TIME")]
    pub stop_delay: Option<Span>,

    /// Memory for buckets [default: 256MiB]
    #[arg(long, env = "TIDEGATE_MAX_MEMORY", value_name = "SIZE")]
    pub max_memory: Option<ByteCount>,

    /// Client connections at a time, all protocols together; over HTTP one more is answered 503 [default: 8192, or what the open file
    /// limit leaves]
    #[arg(long, env = "TIDEGATE_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<u64>,

    /// Connections of one client at a time (an IPv4 address, or 64 bits of an IPv6 address), but of trusted proxies
    /// [default: 4096, or half of what the open file limit leaves; with --max-connections: as many]
    #[arg(long, env = "TIDEGATE_MAX_CONNECTIONS_PER_CLIENT", value_name = "N")]
    pub max_connections_per_client: Option<u64>,

    /// Threads that answer checks [default: one for each processor]
    #[arg(long, env = "TIDEGATE_WORKERS", value_name = "N")]
    pub workers: Option<usize>,

    /// Proxies whose client-address headers are trusted: addresses and networks, separated by commas [default: none]
    #[arg(long, env = "TIDEGATE_TRUSTED_PROXIES", value_name = "NETWORK", value_delimiter = ',')]
    pub trusted_proxies: Option<Vec<Network>>,

    /// Header in which trusted proxies name the client [default: x-forwarded-for]
    #[arg(long, env = "TIDEGATE_FORWARDED_HEADER", value_name = "HEADER")]
    pub forwarded_header: Option<ForwardedHeader>,

    /// Trusted proxies begin HTTP connections with the PROXY protocol, version 1 or 2 [default: false]
    #[arg(long, env = "TIDEGATE_PROXY_PROTOCOL", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub proxy_protocol: Option<bool>,

    /// Bits of an IPv6 address in `ip` that identify one client, 1 to 128, where a rule says no `ip_prefix`; the same on all nodes [default: 64]
    #[arg(long, env = "TIDEGATE_IPV6_PREFIX", value_name = "BITS")]
    pub ipv6_prefix: Option<u8>,

    /// Names by which people may ask for the node, beside addresses, localhost, its own and those that are not public: as in
    /// limits.example.com, *.example.com, * for any. Calls that are no checks are refused under other names, which may be a web
    /// page's; separated by commas [default: none]
    #[arg(long, env = "TIDEGATE_ALLOWED_HOSTS", value_name = "HOST", value_delimiter = ',')]
    pub allowed_hosts: Option<Vec<String>>,

    /// X-RateLimit-* headers: reset as seconds from now, as Unix time, or no such headers [default: seconds]
    #[arg(long, env = "TIDEGATE_LEGACY_HEADERS", value_name = "FORM")]
    pub legacy_headers: Option<LegacyHeaders>,

    /// Rate-limit headers that Envoy adds to its responses [default: none]
    #[arg(long, env = "TIDEGATE_ENVOY_HEADERS", value_name = "WHICH")]
    pub envoy_headers: Option<EnvoyHeaders>,

    /// Format of the log [default: text]
    #[arg(long, env = "TIDEGATE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Level of the log: error, warn, info, debug, trace, or by module as in warn,tidegate_cluster=debug [default: info]
    #[arg(long, env = "TIDEGATE_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl Options {
    /// These options, and where there is none, the other ones.
    pub fn or(self, file: Self) -> Self {
        // A key and a key file are one setting in two forms.
        let has_key = self.cluster_key.is_some() || self.cluster_key_file.is_some();
        let key_source = if has_key { Self::default() } else { file.clone() };
        let has_admin = self.admin_token.is_some() || self.admin_token_file.is_some();
        let admin_source = if has_admin { Self::default() } else { file.clone() };
        Self {
            name: self.name.or(file.name),
            listen: self.listen.or(file.listen),
            advertise: self.advertise.or(file.advertise),
            base_port: self.base_port.or(file.base_port),
            join: self.join.or(file.join),
            bootstrap_expect: self.bootstrap_expect.or(file.bootstrap_expect),
            data_dir: self.data_dir.or(file.data_dir),
            zone: self.zone.or(file.zone),
            weight: self.weight.or(file.weight),
            rules: self.rules.or(file.rules),
            cluster_name: self.cluster_name.or(file.cluster_name),
            cluster_key: self.cluster_key.or(key_source.cluster_key),
            cluster_key_file: self.cluster_key_file.or(key_source.cluster_key_file),
            insecure_no_cluster_key: self.insecure_no_cluster_key.or(file.insecure_no_cluster_key),
            admin_token: self.admin_token.or(admin_source.admin_token),
            admin_token_file: self.admin_token_file.or(admin_source.admin_token_file),
            require_token: self.require_token.or(file.require_token),
            admin_listen: self.admin_listen.or(file.admin_listen),
            insecure: self.insecure.or(file.insecure),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            tls_client_ca: self.tls_client_ca.or(file.tls_client_ca),
            tls_client_auth: self.tls_client_auth.or(file.tls_client_auth),
            tls_ports: self.tls_ports.or(file.tls_ports),
            peer_tls_cert: self.peer_tls_cert.or(file.peer_tls_cert),
            peer_tls_key: self.peer_tls_key.or(file.peer_tls_key),
            peer_tls_ca: self.peer_tls_ca.or(file.peer_tls_ca),
            peer_tls: self.peer_tls.or(file.peer_tls),
            check_timeout: self.check_timeout.or(file.check_timeout),
            stop_delay: self.stop_delay.or(file.stop_delay),
            max_memory: self.max_memory.or(file.max_memory),
            max_connections: self.max_connections.or(file.max_connections),
            max_connections_per_client: self.max_connections_per_client.or(file.max_connections_per_client),
            workers: self.workers.or(file.workers),
            trusted_proxies: self.trusted_proxies.or(file.trusted_proxies),
            forwarded_header: self.forwarded_header.or(file.forwarded_header),
            proxy_protocol: self.proxy_protocol.or(file.proxy_protocol),
            ipv6_prefix: self.ipv6_prefix.or(file.ipv6_prefix),
            allowed_hosts: self.allowed_hosts.or(file.allowed_hosts),
            legacy_headers: self.legacy_headers.or(file.legacy_headers),
            envoy_headers: self.envoy_headers.or(file.envoy_headers),
            log_format: self.log_format.or(file.log_format),
            log_level: self.log_level.or(file.log_level),
        }
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_nothing() {
        let flags = Options { name: Some("flag".to_owned()), ..Options::default() };
        let file: Options =
            toml::from_str("name = \"file\"\nbase-port = 9000\njoin = [\"a\", \"b:1\"]").unwrap();
        let both = flags.or(file);
        assert_eq!(both.name.as_deref(), Some("flag"));
        assert_eq!(both.base_port, Some(9000));
        assert_eq!(both.join, Some(vec!["a".to_owned(), "b:1".to_owned()]));
        assert_eq!(both.zone, None);
    }

    #[test]
    fn a_key_given_by_flag_hides_the_key_file_of_the_file() {
        let flags = Options { cluster_key: Some("secret".into()), ..Options::default() };
        let file = Options { cluster_key_file: Some("key".into()), ..Options::default() };
        assert_eq!(flags.or(file).cluster_key_file, None);
    }

    #[test]
    fn a_secret_is_not_printed() {
        let options = Options { cluster_key: Some("open sesame".into()), ..Options::default() };
        assert!(!format!("{options:?}").contains("sesame"));
    }
}
