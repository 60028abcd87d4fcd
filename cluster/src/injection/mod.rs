//! What a test does to the machine under a node, while the node runs: to its clock and to its disk.
//!
//! It is compiled in with the feature `fault-injection` only. A process that finds the environment variable
//! `TIDEGATE_FAULTS` follows the file which that names, and tells in a file beside it (`.told`) what became of it: who
//! injects faults cannot do without seeing that they hit. The file holds what is to be, a line each; what is not in it is
//! as it should be:
//!
//! ```text
//! wall-ahead-ms -1800000    the wall clock, which is read when a process starts, is so far ahead
//! rate-ppm 500              the boot clock runs so many millionths too fast
//! fail-syncs 7 3            the next three syncs of the disk fail; 7 is a number that no order before had
//! hang-syncs                no sync of the disk ends while this line is there
//! power-cut 8 4711          the power goes at the next sync: 4711 is what the dice begin with
//! hold-clock                the boot clock stands still while the process is stopped (SIGSTOP), as a virtual machine's does
//! ```

mod clock;
pub(crate) mod disk;
mod orders;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::process::{Signal, getpid, kill_process};
use tracing::{error, warn};

use self::orders::Orders;
#[cfg(feature = "fault-injection")]
pub(crate) use crate::injection::clock::paced;

const VARIABLE: &str = "TIDEGATE_FAULTS";
/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Every so many looks it is told what became of it.
const TELL_EVERY: u32 = 5;

/// The orders of the process's environment.
static HERE: LazyLock<Arc<Switches>> = LazyLock::new(Arc::default);

/// What becomes of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Works,
    /// It fails, and what was written since the one before survives or not, as dice say that begin with this.
    Fails(u64),
    /// The power goes.
    PowerCut(u64),
}

/// Orders as they are carried out.
#[derive(Debug, Default)]
pub(crate) struct Switches(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    orders: Orders,
    /// Of the last order about syncs that was taken.
    failing: u64,
    left_to_fail: u32,
    failed: u64,
    /// Syncs that have hung, or do.
    hung: u64,
    /// Of the last order to cut the power that was taken.
    cutting: u64,
    cut: Option<u64>,
}

impl State {
    /// The power can still go.
    fn hangs(&self) -> bool {
        self.orders.hang_syncs && self.cut.is_none()
    }
}

impl Switches {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows these from now on. An order to fail or to cut is followed once.
    pub(crate) fn obey(&self, orders: Orders) {
        let mut state = self.state();
        match orders.fail_syncs {
            Some((number, count)) if number != state.failing => {
                (state.failing, state.left_to_fail) = (number, count);
            }
            Some(_) => {}
            None => state.left_to_fail = 0,
        }
        match orders.power_cut {
            Some((number, seed)) if number != state.cutting => {
                (state.cutting, state.cut) = (number, Some(seed));
            }
            Some(_) => {}
            None => state.cut = None,
        }
        state.orders = orders;
    }

    /// Decides about a sync that is to be done now.
    pub(crate) fn sync(&self) -> Sync {
        let mut state = self.state();
        if state.hangs() {
            state.hung += 1;
            while state.hangs() {
                drop(state);
                thread::sleep(LOOK_EVERY);
                state = self.state();
            }
        }
        if let Some(seed) = state.cut.take() {
            return Sync::PowerCut(seed);
        }
        if state.left_to_fail == 0 {
            return Sync::Works;
        }
        state.left_to_fail -= 1;
        state.failed += 1;
        Sync::Fails(state.failing.wrapping_mul(1_000_003).wrapping_add(state.failed))
    }
}

/// What a failed sync is told as: what a disk with a broken sector says.
fn broken() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

/// Before a file that is no database is synced.
///
/// # Errors
/// When that is to fail.
pub(crate) fn before_sync() -> io::Result<()> {
    match HERE.sync() {
        Sync::Works => Ok(()),
        Sync::Fails(_) => Err(broken()),
        Sync::PowerCut(_) => power_off("between two files"),
    }
}

/// Ends the process as a machine ends that loses its power: nothing is done any more.
pub(crate) fn power_off(what: &str) -> ! {
    warn!(when = what, "fault injection: the power goes");
    // Nobody says anything after this.
    let _guard = file().map(|path| report(&path, &format!("power-cut {what}\n")));
    loop {
        // Nobody can refuse that; it may take a moment until this thread notices.
        let _ = kill_process(getpid(), Signal::KILL);
        thread::sleep(LOOK_EVERY);
    }
}

fn file() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// When the node's clock starts: reads the orders, and goes on to. Returns how far ahead the wall clock is, in
/// nanoseconds.
///
/// # Panics
/// When the orders cannot be read: a test would pass without its fault.
pub(crate) fn begin() -> i64 {
    let Some(path) = file() else { return 0 };
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{VARIABLE}: {}: {error}", path.display()));
    let orders: Orders =
        text.parse().unwrap_or_else(|fault| panic!("{VARIABLE}: {}: {fault}", path.display()));
    let ahead = orders.wall_ahead_ms;
    carry_out(orders);
    ahead.saturating_mul(1_000_000)
}

/// Goes on to follow the orders, in a thread of its own that ends with the process. `unix_ms` is the node's clock.
pub(crate) fn follow(unix_ms: impl Fn() -> u64 + Send + 'static) {
    let Some(path) = file() else { return };
    let follow = move || {
        warn!(file = %path.display(), "fault injection: this build follows a file; never run it in production");
        let mut last = String::new();
        for look in 0_u32.. {
            match fs::read_to_string(&path) {
                Ok(text) if text != last => {
                    match text.parse() {
                        Ok(orders) => carry_out(orders),
                        Err(fault) => {
                            error!(file = %path.display(), %fault, "fault injection: the orders cannot be read")
                        }
                    }
                    last = text;
                }
                // Whoever wrote the file takes it away when all is over.
                Ok(_) | Err(_) => {}
            }
            if look % TELL_EVERY == 0 {
                drop(report(&path, &seen(unix_ms())));
            }
            thread::sleep(LOOK_EVERY);
        }
    };
    // Without it no fault hits, and that is seen.
    let _ = thread::Builder::new().name("faults".to_owned()).spawn(follow);
}

fn carry_out(orders: Orders) {
    clock::set_rate(orders.rate_ppm);
    clock::set_holds(orders.hold_clock);
    HERE.obey(orders);
}

/// What became of the orders, a line each.
fn seen(now: u64) -> String {
    let gained = clock::gained();
    let state = HERE.state();
    format!(
        "clock-ms {now}\nwall-ahead-ms {}\nrate-ppm {}\ngained-ns {gained}\nheld-ns {}\nsyncs-failed {}\nsyncs-hung {}\n",
        state.orders.wall_ahead_ms,
        state.orders.rate_ppm,
        clock::held(),
        state.failed,
        state.hung
    )
}

/// The file is there whole or not at all. That it cannot be written is seen by whoever waits for it.
/// Others wait with what they have to report until the guard is dropped.
fn report(path: &Path, text: &str) -> MutexGuard<'static, ()> {
    static REPORTING: Mutex<()> = Mutex::new(());
    let guard = REPORTING.lock().unwrap_or_else(PoisonError::into_inner);
    let draft = path.with_extension("telling");
    let text = format!("pid {}\n{text}", std::process::id());
    let _ = fs::write(&draft, text).and_then(|()| fs::rename(&draft, path.with_extension("told")));
    guard
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_to_fail_is_followed_once_and_as_often_as_it_says() {
        let switches = Switches::default();
        let order = |text: &str| switches.obey(text.parse().unwrap());
        assert_eq!(switches.sync(), Sync::Works);
        order("fail-syncs 7 2");
        assert!(matches!(switches.sync(), Sync::Fails(_)));
        order("fail-syncs 7 2\nrate-ppm 5");
        assert!(matches!(switches.sync(), Sync::Fails(_)));
        assert_eq!(switches.sync(), Sync::Works);
        order("fail-syncs 8 9");
        assert!(matches!(switches.sync(), Sync::Fails(_)));
        order("");
        assert_eq!(switches.sync(), Sync::Works);
        order("hang-syncs");
        std::thread::scope(|scope| {
            let sync = scope.spawn(|| switches.sync());
            std::thread::sleep(LOOK_EVERY * 5);
            assert!(!sync.is_finished());
            order("");
            assert_eq!(sync.join().unwrap(), Sync::Works);
        });
        order("power-cut 9 4711");
        assert_eq!(switches.sync(), Sync::PowerCut(4711));
        assert_eq!(switches.sync(), Sync::Works);
    }
}
