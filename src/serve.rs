//! Runs a node: opens its ports, takes its place in the cluster, answers until it is told to stop, and leaves.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use miette::Diagnostic;
use tidegate_cluster::{Clock, Cluster, ClusterConfig, ClusterKey, StartError, Timing};
use tidegate_limiter::{
    cluster::{Rules, Store, StoreConfig},
    rules::HashSecret,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    accept::ServerStats,
    access::{self, Access, Door},
    advertised::{self, NotFound},
    config::{Advertise, Settings, SettingsError},
    connections::{Caps, Connections},
    data_dir::{DataDir, DataDirError},
    desk::{BodyRooms, Desk},
    ending::Ending,
    grpc,
    http::{self, Front, Limits},
    lasting,
    metrics::WorkerMetrics,
    node::Node,
    process, resp,
    rules_file::{self, RulesFileError},
    seats::{SEATS, Seats},
    service_manager::ServiceManager,
    sweeper::Sweeper,
    tls::{Certificates, CertificatesError, Port},
    turns,
    workers::{BLOCKING_IDLE, Workers},
};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// How long clients are told at least to ask elsewhere before they are not let in any more.
const CLOSES_FOR: Duration = Duration::from_millis(500);
/// How long handing all slots over may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(8);
/// How long saving the buckets may take.
const SAVE_WITHIN: Duration = Duration::from_secs(5);
/// For requests that are under way when a node stops, and for what else its end takes beside that and the above.
const REST_WITHIN: Duration = Duration::from_secs(6);
/// How long what is being written when the node has stopped is waited for.
const DISK_WITHIN: Duration = Duration::from_secs(1);
/// The part of the memory that is for shares, which are only used when an owner is lost.
const SHARES_PART: u64 = 8;

/// Connections of administration at a time, where it has an address of its own: twice as many as there are seats, because those
/// that have lost theirs are about to end.
const ADMIN_CONNECTIONS: u64 = 2 * SEATS as u64;
/// How long one of them may be idle: its place is for operators.
const ADMIN_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Notes that wait to be written into the audit trail at a time.
const NOTES: usize = 64;
/// Fewer connections than that are hardly what an operator wants.
const FEW_CONNECTIONS: u64 = 256;
/// What a node of several takes besides its buckets, without connections (docs/http.md, "Memory").
const BESIDES_BUCKETS: u64 = 160 << 20;

/// Why a node could not run.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ServeError {
    /// The rules cannot be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Rules(#[from] RulesFileError),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Certificates or cluster keys cannot be used.
    #[error(transparent)]
    #[diagnostic(help("`tidegate cert --help` says how to make certificates"))]
    Certificates(#[from] CertificatesError),
    /// The name of `--advertise` stands for no address.
    #[error(transparent)]
    Advertise(#[from] NotFound),
    /// The name stands for an address that others must not be told.
    #[error(transparent)]
    Advertised(#[from] SettingsError),
    /// A port of a front end could not be opened.
    #[error("cannot listen for {what} on {address}: {reason}")]
    #[diagnostic(help("another --base-port or --listen, or end what uses the port"))]
    Bind {
        /// For what.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        reason: io::Error,
    },
    /// The peer port could not be opened.
    #[error("{0}")]
    #[diagnostic(help(
        "HTTP listens on --base-port, gRPC on + 1, the Redis protocol on + 2, peers on + 3 (TCP and UDP), all at --listen"
    ))]
    PeerPort(StartError),
    /// The node could not take its place in the cluster.
    #[error("{0}")]
    Cluster(StartError),
    /// Nobody accepts connections any more.
    #[error("the accept loop ended by itself, which it never should; the log says more")]
    AcceptLoop,
    /// The system gives no threads or signals.
    #[error("the system does not give what a node needs: {0}")]
    System(io::Error),
}

/// Runs a node until a signal or `stop` ends it, and calls `reload` at each SIGHUP.
///
/// # Errors
/// When it cannot start.
pub fn run(
    settings: Settings,
    stop: CancellationToken,
    reload: impl Fn() + Clone + Send + 'static,
) -> Result<(), ServeError> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().thread_keep_alive(BLOCKING_IDLE);
    let runtime = runtime.build().map_err(ServeError::System)?;
    let served = runtime.block_on(serve(settings, stop, reload));
    // A write that hangs in the disk keeps no process alive.
    runtime.shutdown_timeout(DISK_WITHIN);
    served
}

async fn serve(
    settings: Settings,
    stop: CancellationToken,
    reload: impl Fn() + Clone + Send + 'static,
) -> Result<(), ServeError> {
    let mut signals = Signals::listen().map_err(ServeError::System)?;
    let mut others = OtherSignals::listen().map_err(ServeError::System)?;
    let manager = ServiceManager::of_environment();
    let open_files = process::raise_open_file_limit();
    let connection_cap = settings.connection_cap(open_files);
    let to_begin_with = settings.rules.as_deref().map(rules_file::read).transpose()?.unwrap_or_default();
    let data_dir = settings.data_dir.as_deref().map(DataDir::open).transpose()?;
    let name = name_of(&settings, data_dir.as_ref())?;
    let certificates = Arc::new(Certificates::read(
        &name,
        settings.tls.as_ref(),
        settings.peer_tls.as_ref().map(|(files, _)| files),
        settings.cluster_key_file.clone(),
        settings.cluster_keys.clone(),
    )?);
    let bound = |what: &'static str, address: SocketAddr| {
        listen(address).map_err(|reason| ServeError::Bind { what, address, reason })
    };
    let listener = bound("HTTP", settings.http)?;
    let grpc_listener = bound("gRPC", settings.grpc)?;
    let resp_listener = bound("the Redis protocol", settings.resp)?;
    let admin_listener = settings.admin_listen.map(|address| bound("administration", address)).transpose()?;
    let advertise = tokio::select! {
        advertise = advertised_by(&settings) => advertise?,
        why = signals.recv() => {
            info!(why, "stopped before the address of --advertise was known");
            return Ok(());
        }
    };

    let clock = Clock::start();
    let workers = Workers::start(settings.workers.get()).map_err(ServeError::System)?;
    // Until this process ends, also while it stops.
    tokio::spawn(manager.clone().watch(workers.handles()));
    let for_shares = settings.max_memory / SHARES_PART;
    let shares = new_store(for_shares, clock);
    let store = Arc::new(new_store(settings.max_memory - for_shares, clock));
    // Until the cluster's are there, none; and no check is decided until then.
    let rules = Arc::new(ArcSwap::from_pointee(
        Rules::empty(&HashSecret::new([0; 16])).with_ip_prefix(settings.ip_prefix),
    ));
    let cluster = Cluster::start(
        ClusterConfig {
            rules: to_begin_with.into_iter().map(|domain| (domain.name, domain.text)).collect(),
            keys: Arc::clone(certificates.keys()),
            tls: settings.peer_tls.as_ref().and_then(|(_, encryption)| certificates.peer_tls(*encryption)),
            ..cluster_config(&settings, name.clone(), advertise)
        },
        Arc::clone(&store),
        shares,
        Arc::clone(&rules),
        clock,
        workers.handles(),
    )
    .await
    .map_err(|error| match error {
        StartError::Bind { .. } => ServeError::PeerPort(error),
        error => ServeError::Cluster(error),
    })?;
    let _sweeper = Sweeper::start(Arc::clone(cluster.router()), Arc::clone(&rules), clock)
        .map_err(ServeError::System)?;

    // Everything is open now: only from here on is it said that the node is up.
    info!(%name, http = %settings.http, grpc = %settings.grpc, resp = %settings.resp, peers = %settings.peers, advertise = %cluster.advertised(), workers = settings.workers, "listening");
    if let Some(address) = settings.admin_listen {
        info!(%address, "administration is answered at an address of its own");
    }
    warn_of(&settings);
    warn_of_limits(&settings, open_files, process::memory_limit());
    let places = Arc::new(Connections::new(settings.connection_caps(connection_cap)));
    let allowed_hosts =
        settings.allowed_hosts(&name, rustix::system::uname().nodename().to_string_lossy().into_owned());
    let has_admin_door = settings.admin_listen.is_some();
    let access = Access::new(settings.require_token, settings.admin_token.clone(), has_admin_door, clock);
    let access = Arc::new(access);
    access::follow(&access, cluster.ledger());
    turns::follow(places.turns(workers.handles().len()), cluster.ledger());
    let node = Arc::new(Node {
        name,
        access,
        notes: Arc::new(Semaphore::new(NOTES)),
        rules,
        router: Arc::clone(cluster.router()),
        cluster,
        store,
        clock,
        trust: settings.trust(),
        allowed_hosts,
        legacy_headers: settings.legacy_headers,
        metrics: workers.handles().iter().map(|_| WorkerMetrics::default()).collect(),
        http: Arc::new(ServerStats::of(&places)),
        grpc: Arc::new(ServerStats::of(&places)),
        resp: Arc::new(ServerStats::of(&places)),
        grpc_address: settings.grpc,
        envoy_headers: settings.envoy_headers,
        body_rooms: BodyRooms::default(),
        desk: Desk::default(),
        ending: Ending::default(),
        certificates: Arc::clone(&certificates),
    });
    let limits = Limits::default();
    let ending = node.ending.clone();
    let front = |door| {
        let node = Arc::clone(&node);
        move |worker| Front::new(Arc::clone(&node), worker, door)
    };
    let [http_tls, grpc_tls, resp_tls] = Port::ALL.map(|port| certificates.acceptor(port));
    let (http_stats, handles) = (Arc::clone(&node.http), || workers.handles());
    let public = front(Door::Public);
    // Handshakes at the public port have no part in whether operators come through theirs.
    let admin_tls = certificates.acceptor(Port::Http);
    let over_http = http::serve(listener, handles(), public, limits, http_stats, http_tls, ending.clone());
    let administration = {
        let (front, handles) = (front(Door::Administration), handles());
        // Neither a flood of checks keeps operators out, nor clients that connect and ask nothing.
        let seats = Arc::new(Seats::default());
        let front = move |worker| front(worker).with_seats(Arc::clone(&seats));
        let caps = Caps { all: ADMIN_CONNECTIONS, ..Caps::default() };
        let limits = Limits { idle_timeout: ADMIN_IDLE_TIMEOUT, ..limits };
        let stats = Arc::new(ServerStats::of(&Arc::new(Connections::of_administration(caps, &places))));
        let ending = ending.clone();
        async move {
            if let Some(listener) = admin_listener {
                http::serve(listener, handles, front, limits, stats, admin_tls, ending).await;
            }
        }
    };
    let over_grpc = grpc::serve(grpc_listener, handles(), Arc::clone(&node), grpc_tls, ending.clone());
    let over_resp = resp::serve(resp_listener, handles(), Arc::clone(&node), resp_tls, ending.clone());
    let mut serving = tokio::spawn(async {
        tokio::join!(over_http, over_grpc, over_resp, administration);
    });

    let reload = {
        let certificates = Arc::clone(&certificates);
        move || {
            reload();
            certificates.renew();
        }
    };
    let why = tokio::select! {
        why = signals.recv() => why,
        () = stop.cancelled() => "standard input ended",
        () = others.take_in(&reload, &manager) => "",
        () = certificates.watch(clock) => "",
        () = lasting::say(&node) => "",
        () = manager.follow(|| node.readiness()) => "",
        _ = &mut serving => return Err(ServeError::AcceptLoop),
    };
    info!(why, "stopping");
    manager.stops(settings.stop_delay + LEAVE_WITHIN + SAVE_WITHIN + REST_WITHIN);
    tokio::select! {
        () = leave(&node, settings.stop_delay, serving) => info!("stopped"),
        why = signals.recv() => warn!(why, "stopping at once: asked again"),
    }
    Ok(())
}

/// Stops so that nobody notices: clients are told to ask elsewhere, and load balancers have `delay` for it; the others take the
/// slots over while this node still answers, then connections end as their requests do.
async fn leave(node: &Node, delay: Duration, serving: tokio::task::JoinHandle<()>) {
    let since = Instant::now();
    node.ending.close();
    sleep(delay).await;
    let owned = node.cluster.leave(Instant::now() + LEAVE_WITHIN).await;
    if owned > 0 {
        info!(slots = owned, "nobody was there to take the last slots over");
    }
    // Each client that asks now and then has been told.
    sleep_until(since + CLOSES_FOR.max(delay)).await;
    node.ending.stop();
    // It ends by itself after its drain timeout; that it could panic on the way is no reason to stay.
    let _ = serving.await;
    if owned > 0 && timeout(SAVE_WITHIN, node.cluster.keep_debts()).await.is_err() {
        warn!(within = ?SAVE_WITHIN, "the disk did not take the buckets: they start exhausted after the next start");
    }
}

fn warn_of(settings: &Settings) {
    if settings.data_dir.is_none() {
        warn!(
            "there is no data directory (--data-dir): this node forgets the rules when it ends, and is a new member when it starts again"
        );
    }
    if settings.cluster_keys.iter().any(ClusterKey::looks_guessable) {
        warn!(
            "the cluster key looks guessable (--cluster-key-file): who is on the path between two nodes can try keys out; `openssl rand -hex 32` makes a good one"
        );
    }
    if settings.insecure && settings.admin_token.is_none() && settings.require_token.is_none() {
        warn!(
            http = %settings.admin_listen.unwrap_or(settings.http),
            "INSECURE: administration needs no token (--insecure): whoever reaches this port can change rules, drain nodes and reset buckets"
        );
    }
    if (settings.insecure_no_cluster_key || settings.insecure) && settings.cluster_keys.is_empty() {
        warn!(
            peers = %settings.peers,
            "INSECURE: there is no cluster key (--insecure-no-cluster-key or --insecure): whoever reaches the peer port can change rules, take keys over, and end the cluster"
        );
    }
}

/// What the system allows this process is looked at once: when it is not enough, that shows hours later, and elsewhere.
fn warn_of_limits(settings: &Settings, open_files: Option<u64>, memory: Option<u64>) {
    let connections = settings.connection_cap(open_files);
    if let Some(open_files) =
        open_files.filter(|_| connections < settings.connection_cap(None).min(FEW_CONNECTIONS))
    {
        warn!(
            open_files,
            connections,
            "few files may be open, so few connections are taken at a time: raise the limit (ulimit -n, or LimitNOFILE of systemd)"
        );
    }
    let needed = settings.max_memory.saturating_add(BESIDES_BUCKETS);
    if let Some(memory) = memory.filter(|memory| *memory < needed) {
        warn!(
            memory,
            needed,
            max_memory = settings.max_memory,
            "the memory limit of this control group (container) is less than this node may need: it would be killed; lower --max-memory or raise the limit"
        );
    }
}

/// The address that the others are told, if one was given.
async fn advertised_by(settings: &Settings) -> Result<Option<IpAddr>, ServeError> {
    Ok(match &settings.advertise {
        None => None,
        Some(Advertise::Address(address)) => Some(*address),
        Some(Advertise::Name(name)) => {
            let address = advertised::address_of(name, settings.peers.ip()).await?;
            settings.may_advertise(address)?;
            Some(address)
        }
    })
}

fn cluster_config(settings: &Settings, name: String, advertise: Option<IpAddr>) -> ClusterConfig {
    ClusterConfig {
        name,
        cluster: settings.cluster_name.clone(),
        zone: settings.zone.clone(),
        weight: settings.weight,
        listen: settings.peers.ip(),
        advertise,
        peer_port: settings.peers.port(),
        http: settings.http,
        grpc: settings.grpc,
        join: settings.join.clone(),
        bootstrap_expect: settings.bootstrap_expect,
        keys: Arc::default(),
        tls: None,
        data_dir: settings.data_dir.clone(),
        rules: Vec::new(),
        timing: Timing { check_timeout: settings.check_timeout, ..Timing::default() },
    }
}

fn new_store(max_memory: u64, clock: Clock) -> Store {
    let max_memory = usize::try_from(max_memory).unwrap_or(usize::MAX);
    Store::new(StoreConfig::of_memory(max_memory), clock.now())
}

fn name_of(settings: &Settings, data_dir: Option<&DataDir>) -> Result<String, DataDirError> {
    let default = || default_name(rustix::system::uname().nodename().to_bytes(), settings.http.port());
    match data_dir {
        Some(dir) => dir.name(settings.name.clone(), default),
        None => Ok(settings.name.clone().unwrap_or_else(default)),
    }
}

/// HOST-PORT, of what a name may have.
pub(crate) fn default_name(host: &[u8], port: u16) -> String {
    const MAX_HOST: usize = 50;
    let host: String = host
        .iter()
        .take(MAX_HOST)
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() || b"._-".contains(byte) { char::from(*byte) } else { '-' }
            },
        )
        .collect();
    if host.is_empty() { format!("node-{port}") } else { format!("{host}-{port}") }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted node gets its port back while connections of the one before are still closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The signals that end a node.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Signals that would end a process without a word, and that managers of processes, terminals and log rotation send.
struct OtherSignals {
    hang_up: tokio::signal::unix::Signal,
    user: [tokio::signal::unix::Signal; 2],
}

impl OtherSignals {
    fn listen() -> io::Result<Self> {
        let user = [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?];
        Ok(Self { hang_up: signal(SignalKind::hangup())?, user })
    }

    /// Does not end.
    async fn take_in(&mut self, reload: &(impl Fn() + Clone + Send + 'static), manager: &ServiceManager) {
        let [one, two] = &mut self.user;
        loop {
            tokio::select! {
                _ = self.hang_up.recv() => manager.reload(reload.clone()).await,
                _ = one.recv() => info!("SIGUSR1: it means nothing here"),
                _ = two.recv() => info!("SIGUSR2: it means nothing here"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_cluster::is_valid_name;

    use super::*;

    #[test]
    fn a_host_name_makes_a_node_name_whatever_it_is() {
        assert_eq!(default_name(b"web-1", 7800), "web-1-7800");
        assert_eq!(default_name(b"", 7800), "node-7800");
        for host in [&b"a b\xff"[..], &[b'x'; 200]] {
            assert!(is_valid_name(&default_name(host, 65_535)));
        }
    }
}
