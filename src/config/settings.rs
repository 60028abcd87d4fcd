//! The settings of a node: every option with its default, looked at together.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    thread::available_parallelism,
    time::Duration,
};

use tidegate_cluster::{
    ClusterKey, KeyError, NoWeight, PeerEncryption, SERVICE_PREFIX, Weight, is_valid_name,
    state::{AdminSecret, BadAdminToken},
};
use tidegate_limiter::cluster::IpPrefix;

use super::{
    advertise::Advertise,
    choices::{EnvoyHeaders, LegacyHeaders, RequireToken},
    options::Options,
    tls::{self, TlsSettingsError},
};
use crate::{
    advertised::can_be_told,
    allowed_hosts::AllowedHosts,
    client_address::{ForwardedHeader, Network, Trust},
    connections::Caps,
    secret_file::{self, SecretFileError},
    tls::{PeerTlsFiles, TlsFiles},
};

const DEFAULT_BASE_PORT: u16 = 7800;
/// How far the port for gRPC is from that for HTTP.
const GRPC_PORT_OFFSET: u16 = 1;
/// How far the port for the Redis protocol is from that for HTTP.
const RESP_PORT_OFFSET: u16 = 2;
/// How far the port for peers is from that for HTTP.
const PEER_PORT_OFFSET: u16 = 3;
const MAX_STOP_DELAY: Duration = Duration::from_secs(60);
const CHECK_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);
const DEFAULT_MAX_MEMORY: u64 = 256 << 20;
const MIN_MAX_MEMORY: u64 = 1 << 20;
const DEFAULT_MAX_CONNECTIONS: u64 = 8192;
const MAX_WORKERS: usize = 1024;

/// The settings of a node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// None: the one kept in the data directory, else one made of host and port.
    pub name: Option<String>,
    /// Where HTTP listens.
    pub http: SocketAddr,
    /// Where gRPC is listened for.
    pub grpc: SocketAddr,
    /// Where the Redis protocol is listened for.
    pub resp: SocketAddr,
    /// Where peers are listened for.
    pub peers: SocketAddr,
    /// The address that the others are told, or what stands for it.
    pub advertise: Option<Advertise>,
    /// Whom to join.
    pub join: Vec<String>,
    /// How many nodes form a new cluster.
    pub bootstrap_expect: Option<u32>,
    /// Where the name is kept.
    pub data_dir: Option<PathBuf>,
    /// Where the node stands.
    pub zone: Option<String>,
    /// How many slots it should own beside the others.
    pub weight: Weight,
    /// The file with the rules.
    pub rules: Option<PathBuf>,
    /// The cluster's name.
    pub cluster_name: String,
    /// The cluster's secrets, the one that seals first.
    pub cluster_keys: Vec<ClusterKey>,
    /// The file that they are from, which may change.
    pub cluster_key_file: Option<PathBuf>,
    /// What it shows clients.
    pub(crate) tls: Option<TlsFiles>,
    /// What it shows peers, and whether all of them must have TLS.
    pub(crate) peer_tls: Option<(PeerTlsFiles, PeerEncryption)>,
    /// Whether it may listen beyond loopback without one.
    pub insecure_no_cluster_key: bool,
    /// What opens administration at this node.
    pub admin_token: Option<AdminSecret>,
    /// What needs a token, whatever tokens there are.
    pub require_token: Option<RequireToken>,
    /// Where administration is answered, if that is elsewhere.
    pub admin_listen: Option<SocketAddr>,
    /// Whether it may listen beyond loopback without either.
    pub insecure: bool,
    /// A check is answered within this time.
    pub check_timeout: Duration,
    /// How long a node that was asked to stop goes on before it hands over.
    pub stop_delay: Duration,
    /// Bytes for buckets.
    pub max_memory: u64,
    /// HTTP connections at a time; none: as many as the open file limit allows, up to the default.
    pub max_connections: Option<u64>,
    /// Of one client.
    pub max_connections_per_client: Option<u64>,
    /// Threads that answer checks.
    pub workers: NonZeroUsize,
    /// Proxies whose word counts.
    pub trusted_proxies: Vec<Network>,
    /// Where they say whom they ask for.
    pub forwarded_header: ForwardedHeader,
    /// Whether they begin connections with it.
    pub proxy_protocol: bool,
    /// How many bits of an address stand for one client.
    pub ip_prefix: IpPrefix,
    /// Names by which people may ask for it, beside its own.
    pub allowed_hosts: Vec<String>,
    /// The `X-RateLimit-*` headers.
    pub legacy_headers: LegacyHeaders,
    /// What Envoy is told to add to answers.
    pub envoy_headers: EnvoyHeaders,
}

/// Why options cannot be settings. Each names the flag; the key of the file and the variable have the same name.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SettingsError {
    #[error("{0:?} cannot name a node: 1 to 64 letters, digits, '.', '_' and '-' (--name)")]
    Name(String),
    #[error("{0:?} cannot name a cluster: 1 to 64 letters, digits, '.', '_' and '-' (--cluster-name)")]
    ClusterName(String),
    #[error("{0:?} cannot name a zone: 1 to 64 letters, digits, '.', '_' and '-' (--zone)")]
    Zone(String),
    #[error("{0} (--weight)")]
    Weight(#[from] NoWeight),
    #[error("port {0} leaves no room for the port for peers, which is 3 above, or is 0 (--base-port)")]
    BasePort(u16),
    #[error("an entry of --join is empty; write HOST:PORT,HOST:PORT")]
    EmptyJoin,
    #[error(
        "{0:?} is neither HOST[:PORT] nor a service; a service, whose SRV records name nodes with their ports, is written dnssrv+_tidegate._udp.example.com (--join)"
    )]
    Join(String),
    #[error("a cluster cannot be formed by 0 nodes (--bootstrap-expect)")]
    ExpectsNobody,
    #[error(
        "this node listens on {0}, where {1} cannot reach it; give an address of this machine (--listen 0.0.0.0)"
    )]
    Unreachable(IpAddr, String),
    #[error(
        "{0} {1} and is no address at which other nodes could reach this one: name one of this machine (--advertise)"
    )]
    AdvertisesNowhere(IpAddr, &'static str),
    #[error(
        "this node tells the others to reach it at {0}, where {1} cannot: name an address of this machine (--advertise)"
    )]
    AdvertisesLoopback(IpAddr, String),
    #[error("a check cannot take {0:?}: from 10ms to 60s (--check-timeout)")]
    CheckTimeout(Duration),
    #[error("a node cannot go on for {0:?} after it was asked to stop: at most 60s (--stop-delay)")]
    StopDelay(Duration),
    #[error("{0} bytes are too few for buckets: at least 1MiB (--max-memory)")]
    MaxMemory(u64),
    #[error("a node takes at least one connection (--max-connections, --max-connections-per-client)")]
    MaxConnections,
    #[error("{0} threads cannot answer checks: from 1 to 1024 (--workers)")]
    Workers(usize),
    #[error("{0} bits of an IPv6 address cannot stand for a client: from 1 to 128 (--ipv6-prefix)")]
    Ipv6Prefix(u8),
    #[error(
        "{0:?} is no name of a host: write limits.example.com, *.example.com, or * for any (--allowed-hosts)"
    )]
    AllowedHost(String),
    #[error("the PROXY protocol is taken from trusted proxies only, and there are none (--trusted-proxies)")]
    ProxyProtocolOfNobody,
    #[error("{0} (--cluster-key, TIDEGATE_CLUSTER_KEY or --cluster-key-file)")]
    ClusterKey(KeyError),
    #[error(transparent)]
    Tls(#[from] TlsSettingsError),
    #[error(
        "{0} is not a loopback address, and there is no cluster key: whoever reaches the peer port {1} could change the rules, \
         take keys over, and end the cluster. Make a key with `openssl rand -hex 32` and give it to all nodes (--cluster-key-file \
         or TIDEGATE_CLUSTER_KEY); or listen on 127.0.0.1; or, where nobody else reaches that port, say so \
         (--insecure-no-cluster-key)"
    )]
    NoClusterKey(IpAddr, SocketAddr),
    #[error("the cluster key (--cluster-key-file): {0}")]
    ClusterKeyFile(SecretFileError),
    #[error("{0} (TIDEGATE_ADMIN_TOKEN or --admin-token-file)")]
    AdminToken(BadAdminToken),
    #[error("the admin token (--admin-token-file): {0}")]
    AdminTokenFile(SecretFileError),
    #[error(
        "{0} is not a loopback address, and administration needs no token: whoever reaches {0} could change the rules, drain nodes \
         and reset buckets. Make an admin token with `openssl rand -hex 32` and give it to the node (--admin-token-file or \
         TIDEGATE_ADMIN_TOKEN; for a node of a cluster that has tokens --require-token admin will do); or have administration \
         answered on this machine only (--admin-listen 127.0.0.1:7804); or, where nobody else reaches that address, say so (--insecure)"
    )]
    OpenAdministration(SocketAddr),
}

impl Settings {
    /// Fills in the defaults and looks whether the options go together.
    ///
    /// # Errors
    /// When they do not.
    pub fn resolve(options: &Options) -> Result<Self, SettingsError> {
        let listen = options.listen.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let base_port = options.base_port.unwrap_or(DEFAULT_BASE_PORT);
        let peer_port = base_port
            .checked_add(PEER_PORT_OFFSET)
            .filter(|_| base_port != 0)
            .ok_or(SettingsError::BasePort(base_port))?;
        let settings = Self {
            name: options.name.clone(),
            http: SocketAddr::new(listen, base_port),
            grpc: SocketAddr::new(listen, peer_port - PEER_PORT_OFFSET + GRPC_PORT_OFFSET),
            resp: SocketAddr::new(listen, peer_port - PEER_PORT_OFFSET + RESP_PORT_OFFSET),
            peers: SocketAddr::new(listen, peer_port),
            advertise: options.advertise.clone(),
            join: options.join.iter().flatten().map(|entry| entry.trim().to_owned()).collect(),
            bootstrap_expect: options.bootstrap_expect,
            data_dir: options.data_dir.clone(),
            zone: options.zone.clone(),
            weight: options.weight.map(Weight::try_from).transpose()?.unwrap_or_default(),
            rules: options.rules.clone(),
            cluster_name: options.cluster_name.clone().unwrap_or_else(|| "tidegate".to_owned()),
            cluster_keys: cluster_keys(options)?,
            cluster_key_file: options.cluster_key_file.clone().filter(|_| options.cluster_key.is_none()),
            tls: tls::for_clients(options)?,
            peer_tls: tls::for_peers(options)?,
            insecure_no_cluster_key: options.insecure_no_cluster_key.unwrap_or(false),
            admin_token: admin_token(options)?,
            require_token: options.require_token,
            admin_listen: options.admin_listen,
            insecure: options.insecure.unwrap_or(false),
            check_timeout: options.check_timeout.map_or(Duration::from_millis(100), |span| span.0),
            stop_delay: options.stop_delay.map_or(Duration::ZERO, |span| span.0),
            max_memory: options.max_memory.map_or(DEFAULT_MAX_MEMORY, |size| size.0),
            max_connections: options.max_connections,
            max_connections_per_client: options.max_connections_per_client,
            workers: workers(options.workers)?,
            trusted_proxies: options.trusted_proxies.clone().unwrap_or_default(),
            forwarded_header: options.forwarded_header.unwrap_or_default(),
            proxy_protocol: options.proxy_protocol.unwrap_or(false),
            ip_prefix: ip_prefix(options.ipv6_prefix)?,
            allowed_hosts: options.allowed_hosts.clone().unwrap_or_default(),
            legacy_headers: options.legacy_headers.unwrap_or_default(),
            envoy_headers: options.envoy_headers.unwrap_or_default(),
        };
        settings.validate()?;
        Ok(settings)
    }

    /// The names that it answers people to: its own, its machine's, those by which nodes know each other, and what was given.
    pub(crate) fn allowed_hosts(&self, name: &str, machine: String) -> AllowedHosts {
        // Nobody asks for a service by its name.
        let hosts = self.join.iter().filter(|entry| !entry.starts_with(SERVICE_PREFIX));
        let join = hosts.map(|entry| host_of(entry).to_owned());
        AllowedHosts::new(join.chain([name.to_owned(), machine]).chain(self.allowed_hosts.iter().cloned()))
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::new(self.trusted_proxies.clone(), self.forwarded_header, self.proxy_protocol)
    }

    /// How many connections are taken, when so many files may be open.
    pub fn connection_cap(&self, open_file_limit: Option<u64>) -> u64 {
        /// Kept for peers, logs, listeners and the like.
        const RESERVED: u64 = 128;
        let possible = open_file_limit.map_or(u64::MAX, |limit| limit.saturating_sub(RESERVED).max(1));
        self.max_connections.unwrap_or(DEFAULT_MAX_CONNECTIONS).min(possible)
    }

    /// Who can have how many of so many connections.
    pub(crate) fn connection_caps(&self, all: u64) -> Caps {
        // Who says how many there can be knows who connects.
        let default = if self.max_connections.is_some() { all } else { all.div_ceil(2) };
        let each_client = self.max_connections_per_client.unwrap_or(default);
        Caps { all, each_client, proxies: self.trusted_proxies.clone() }
    }

    fn validate(&self) -> Result<(), SettingsError> {
        if let Some(name) = self.name.as_ref().filter(|name| !is_valid_name(name)) {
            return Err(SettingsError::Name(name.clone()));
        }
        if !is_valid_name(&self.cluster_name) {
            return Err(SettingsError::ClusterName(self.cluster_name.clone()));
        }
        if let Some(zone) = self.zone.as_ref().filter(|zone| !is_valid_name(zone)) {
            return Err(SettingsError::Zone(zone.clone()));
        }
        if self.join.iter().any(String::is_empty) {
            return Err(SettingsError::EmptyJoin);
        }
        if let Some(neither) = self.join.iter().find(|entry| !can_be_joined(entry)) {
            return Err(SettingsError::Join(neither.clone()));
        }
        if self.bootstrap_expect == Some(0) {
            return Err(SettingsError::ExpectsNobody);
        }
        match &self.advertise {
            Some(Advertise::Address(address)) => self.may_advertise(*address)?,
            // Its address is not known yet.
            Some(Advertise::Name(_)) => {}
            None => {
                let far = self.join.iter().find(|entry| !is_this_machine(entry));
                if let Some(far) = far.filter(|_| self.http.ip().is_loopback()) {
                    return Err(SettingsError::Unreachable(self.http.ip(), far.clone()));
                }
            }
        }
        self.may_be_open(self.peers.ip())?;
        let administration = self.admin_listen.unwrap_or(self.http);
        if self.admin_token.is_none()
            && self.require_token.is_none()
            && !self.insecure
            && !administration.ip().is_loopback()
        {
            return Err(SettingsError::OpenAdministration(administration));
        }
        if !CHECK_TIMEOUTS.contains(&self.check_timeout) {
            return Err(SettingsError::CheckTimeout(self.check_timeout));
        }
        if self.stop_delay > MAX_STOP_DELAY {
            return Err(SettingsError::StopDelay(self.stop_delay));
        }
        if self.max_memory < MIN_MAX_MEMORY {
            return Err(SettingsError::MaxMemory(self.max_memory));
        }
        if self.max_connections == Some(0) || self.max_connections_per_client == Some(0) {
            return Err(SettingsError::MaxConnections);
        }
        if let Some(name) = self.allowed_hosts.iter().find(|name| !AllowedHosts::can_have(name)) {
            return Err(SettingsError::AllowedHost(name.clone()));
        }
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            return Err(SettingsError::ProxyProtocolOfNobody);
        }
        Ok(())
    }
}

impl Settings {
    /// Whether the others may be told of this address.
    ///
    /// # Errors
    /// When they could not reach it, or when it needs a cluster key and there is none.
    pub(crate) fn may_advertise(&self, address: IpAddr) -> Result<(), SettingsError> {
        can_be_told(address).map_err(|what| SettingsError::AdvertisesNowhere(address, what))?;
        if let Some(far) = self.join.iter().find(|entry| address.is_loopback() && !is_this_machine(entry)) {
            return Err(SettingsError::AdvertisesLoopback(address, far.clone()));
        }
        self.may_be_open(address)
    }

    fn may_be_open(&self, address: IpAddr) -> Result<(), SettingsError> {
        if address.is_loopback()
            || !self.cluster_keys.is_empty()
            || self.insecure_no_cluster_key
            || self.insecure
        {
            return Ok(());
        }
        Err(SettingsError::NoClusterKey(address, self.peers))
    }
}

fn ip_prefix(v6: Option<u8>) -> Result<IpPrefix, SettingsError> {
    /// An IPv4 address is one client's.
    const V4: u8 = 32;
    v6.map_or(Ok(IpPrefix::default()), |bits| IpPrefix::new(V4, bits).ok_or(SettingsError::Ipv6Prefix(bits)))
}

fn workers(wanted: Option<usize>) -> Result<NonZeroUsize, SettingsError> {
    match wanted {
        None => Ok(available_parallelism().unwrap_or(NonZeroUsize::MIN)),
        Some(count) => {
            NonZeroUsize::new(count).filter(|n| n.get() <= MAX_WORKERS).ok_or(SettingsError::Workers(count))
        }
    }
}

fn cluster_keys(options: &Options) -> Result<Vec<ClusterKey>, SettingsError> {
    let text = match (&options.cluster_key, &options.cluster_key_file) {
        (Some(secret), _) => secret.0.clone(),
        (None, Some(path)) => secret_file::read(path).map_err(SettingsError::ClusterKeyFile)?,
        (None, None) => return Ok(Vec::new()),
    };
    ClusterKey::parse_all(&text).map_err(SettingsError::ClusterKey)
}

fn admin_token(options: &Options) -> Result<Option<AdminSecret>, SettingsError> {
    let text = match (&options.admin_token, &options.admin_token_file) {
        (Some(secret), _) => secret.0.clone(),
        (None, Some(path)) => secret_file::read(path).map_err(SettingsError::AdminTokenFile)?,
        (None, None) => return Ok(None),
    };
    AdminSecret::parse(&text).map(Some).map_err(SettingsError::AdminToken)
}

/// The host of an entry of `--join`.
fn host_of(entry: &str) -> &str {
    match entry.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None if entry.matches(':').count() > 1 => entry,
        None => entry.split(':').next().unwrap_or_default(),
    }
}

/// Whether an entry of `--join` is something that can be looked up.
fn can_be_joined(entry: &str) -> bool {
    match entry.strip_prefix(SERVICE_PREFIX) {
        Some(service) => {
            let labels: Vec<&str> = service.trim_end_matches('.').split('.').collect();
            let is_label = |label: &&str| {
                let may_have = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
                (1..=63).contains(&label.len()) && label.bytes().all(may_have)
            };
            service.len() <= 253 && labels.len() >= 2 && labels.iter().all(is_label)
        }
        // As other programs write services, and as only they are called.
        None => !entry.contains(['/', '+']) && !entry.starts_with('_') && !entry.starts_with("srv:"),
    }
}

/// Whether an entry of `--join` is on this machine's loopback for sure.
fn is_this_machine(entry: &str) -> bool {
    let host = host_of(entry.strip_prefix(SERVICE_PREFIX).unwrap_or(entry)).trim_end_matches('.');
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
