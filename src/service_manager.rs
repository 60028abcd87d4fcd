//! Tells a service manager how far this node is (sd_notify(3)): what waits for a node goes on when it is ready, people see what it
//! waits for, and a node whose workers do not answer any more is ended and started again.
//!
//! Our own, because it is a datagram: `NOTIFY_SOCKET` names a socket, and each message has some lines `NAME=VALUE`.

use std::{
    env,
    ffi::OsStr,
    io,
    os::unix::{
        ffi::OsStrExt as _,
        net::{SocketAddr, UnixDatagram},
    },
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use rustix::time::{ClockId, clock_gettime};
use tidegate_cluster::Readiness;
use tokio::{
    runtime::Handle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tracing::{info, warn};

/// How often a node looks whether it is ready, until it is.
const FIRST_POLL: Duration = Duration::from_millis(100);
/// How often it looks what has become of it.
const POLL: Duration = Duration::from_secs(1);
/// How often a node that waits for its cluster asks for more time.
const EXTEND_EVERY: Duration = Duration::from_secs(5);
/// How much it asks for: several of its messages may get lost.
const EXTEND_BY: Duration = Duration::from_secs(30);
/// Bytes of a reason that are told.
const MAX_STATUS_BYTES: usize = 1024;

/// The service manager, if there is one that wants to be told.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceManager(Option<Arc<Told>>);

#[derive(Debug)]
struct Told {
    socket: UnixDatagram,
    address: SocketAddr,
    /// Without a sign of life for so long a node is ended.
    watchdog: Option<Duration>,
    is_ready: AtomicBool,
}

impl ServiceManager {
    /// As the environment says.
    pub(crate) fn of_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self(None);
        };
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog =
            number("WATCHDOG_USEC").filter(|usec| is_meant && *usec > 0).map(Duration::from_micros);
        match Told::new(&name, watchdog) {
            Ok(told) => Self(Some(Arc::new(told))),
            Err(reason) => {
                warn!(
                    socket = %name.display(),
                    %reason,
                    "the service manager is told nothing: NOTIFY_SOCKET names no socket that can be used"
                );
                Self(None)
            }
        }
    }

    /// Tells what becomes of the node. A node that waits for its cluster asks for more time, however long that takes: it would wait as
    /// long after a restart. Does not end.
    pub(crate) async fn follow(&self, readiness: impl Fn() -> Readiness) {
        let Some(told) = &self.0 else { return std::future::pending().await };
        let (mut status, mut extended) = (String::new(), None::<Instant>);
        loop {
            let is_ready = told.is_ready.load(Relaxed);
            let now = Instant::now();
            let mut lines = Vec::new();
            let said = match readiness() {
                Readiness::Ready => {
                    lines.extend((!is_ready).then(|| "READY=1".to_owned()));
                    "ready".to_owned()
                }
                Readiness::NotReady(reason) => format!("not ready: {}", one_line(&reason)),
            };
            let becomes_ready = !lines.is_empty();
            let extends = !is_ready && !becomes_ready;
            if extends && extended.is_none_or(|last| now.duration_since(last) >= EXTEND_EVERY) {
                lines.push(format!("EXTEND_TIMEOUT_USEC={}", EXTEND_BY.as_micros()));
                extended = Some(now);
            }
            if status != said {
                lines.push(format!("STATUS={said}"));
            }
            // What could not be told is told the next time.
            if !lines.is_empty() && told.tell(&lines.join("\n")) {
                told.is_ready.store(is_ready || becomes_ready, Relaxed);
                status = said;
            }
            sleep(if is_ready { POLL } else { FIRST_POLL }).await;
        }
    }

    /// Gives signs of life, as long as each worker answers in time. Ends at once if nobody waits for them.
    pub(crate) async fn watch(self, workers: Vec<Handle>) {
        let Some(told) = self.0 else { return };
        let Some(limit) = told.watchdog else { return };
        let every = limit / 2;
        info!(?every, "the service manager ends this node if its workers do not answer");
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // On each of the threads that answer checks, between what else there is to do.
            let mut turns: Vec<_> = workers.iter().map(|worker| worker.spawn(async {})).collect();
            // From one sign to the next that is less than the limit.
            if timeout(every * 3 / 4, join_all(&mut turns)).await.is_ok() {
                told.tell("WATCHDOG=1");
                continue;
            }
            let silent = turns.iter().filter(|turn| !turn.is_finished()).count();
            warn!(
                silent,
                ?limit,
                "workers of this node do not answer: if that lasts the service manager ends it"
            );
        }
    }

    /// Calls `reload`, and tells when it begins and when it is done.
    pub(crate) async fn reload(&self, reload: impl FnOnce() + Send + 'static) {
        // Who has not said yet that it is ready must not say so here.
        let told = self.0.as_ref().filter(|told| told.is_ready.load(Relaxed));
        if let Some(told) = told {
            let now = clock_gettime(ClockId::Monotonic);
            let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
            told.tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
        }
        // It reads a file, and the disk may hang. That it could panic is said by the panic.
        let _ = tokio::task::spawn_blocking(reload).await;
        if let Some(told) = told {
            told.tell("READY=1");
        }
    }

    /// The node stops, and takes `within` for it at most.
    pub(crate) fn stops(&self, within: Duration) {
        if let Some(told) = &self.0 {
            let usec = within.as_micros();
            told.tell(&format!(
                "STOPPING=1\nSTATUS=stopping: its slots go to others\nEXTEND_TIMEOUT_USEC={usec}"
            ));
        }
    }
}

impl Told {
    fn new(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // The control runtime waits for nobody who does not read.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address: address_of(name)?, watchdog, is_ready: AtomicBool::new(false) })
    }

    /// Whether it has arrived.
    fn tell(&self, message: &str) -> bool {
        self.socket.send_to_addr(message.as_bytes(), &self.address).is_ok()
    }
}

/// The address that `NOTIFY_SOCKET` names: a path, or behind an `@` a name without a file.
fn address_of(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name),
        #[cfg(target_os = "linux")]
        [b'@', abstract_name @ ..] => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(abstract_name)
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it begins with neither / nor @")),
    }
}

/// What can be shown in a line.
fn one_line(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_STATUS_BYTES);
    text[..end].chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::UnixDatagram,
        path::Path,
        sync::{Mutex, mpsc},
        thread,
    };

    use super::*;

    fn manager(path: &Path, watchdog: Option<Duration>) -> (ServiceManager, UnixDatagram) {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (ServiceManager(Some(Arc::new(Told::new(path.as_os_str(), watchdog).unwrap()))), socket)
    }

    fn message(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn only_paths_and_abstract_names_are_addresses() {
        assert!(address_of(OsStr::new("/run/systemd/notify")).unwrap().as_pathname().is_some());
        assert_eq!(address_of(OsStr::new("@tidegate")).is_ok(), cfg!(target_os = "linux"));
        for wrong in ["notify", "vsock:2:1", "./notify"] {
            assert!(address_of(OsStr::new(wrong)).is_err(), "{wrong}");
        }
        assert!(address_of(OsStr::new(&format!("/{}", "x".repeat(200)))).is_err());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_asks_for_time_until_it_is_ready_and_says_once_that_it_is() {
        let place = tempfile::tempdir().unwrap();
        let (manager, socket) = manager(&place.path().join("notify"), None);
        let readiness = Arc::new(Mutex::new(Readiness::NotReady("waiting for\n2 nodes".to_owned())));
        let seen = Arc::clone(&readiness);
        // Nothing is reloaded yet as far as the manager is concerned.
        manager.reload(|| ()).await;
        let follows = manager.clone();
        let following = tokio::spawn(async move { follows.follow(|| seen.lock().unwrap().clone()).await });
        assert_eq!(message(&socket), "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=not ready: waiting for 2 nodes");
        *readiness.lock().unwrap() = Readiness::Ready;
        assert_eq!(message(&socket), "READY=1\nSTATUS=ready");
        *readiness.lock().unwrap() = Readiness::NotReady("no disk".to_owned());
        assert_eq!(message(&socket), "STATUS=not ready: no disk");
        following.abort();
        let _ = following.await;
        manager.reload(|| ()).await;
        let reloading = message(&socket);
        let usec = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(usec.parse::<u64>().unwrap() > 0);
        assert_eq!(message(&socket), "READY=1");
        manager.stops(Duration::from_secs(20));
        assert!(message(&socket).starts_with("STOPPING=1\n"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_worker_that_does_not_answer_ends_the_signs_of_life() {
        let place = tempfile::tempdir().unwrap();
        let (manager, socket) = manager(&place.path().join("notify"), Some(Duration::from_millis(100)));
        let (block, blocked) = mpsc::channel::<()>();
        let (give, worker) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            give.send(runtime.handle().clone()).unwrap();
            let blocks = runtime.spawn_blocking(move || blocked.recv());
            let _ = runtime.block_on(blocks);
            // It is busy with something else from now on.
            thread::sleep(Duration::from_millis(600));
        });
        let watching = tokio::spawn(manager.watch(vec![worker.recv().unwrap(), Handle::current()]));
        for _ in 0..3 {
            assert_eq!(message(&socket), "WATCHDOG=1");
        }
        block.send(()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let silent = (0..10).any(|_| socket.recv(&mut [0; 64]).is_err());
        assert!(silent, "a worker is busy, and signs of life go on");
        watching.abort();
        thread.join().unwrap();
    }
}
