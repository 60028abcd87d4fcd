//! What a simulated cluster tells while it runs: panics, which count, and a trace, for who looks at one seed.

use std::{cell::RefCell, panic, sync::Once};

use tidegate_cluster::simulation::clock;

thread_local! {
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// A panic of a task is kept by its runtime and by nobody seen; here it is a fault.
pub(super) fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let noted = PANICS.try_with(|panics| match &mut *panics.borrow_mut() {
                Some(panics) => {
                    panics.push(panic.to_string());
                    true
                }
                None => false,
            });
            if noted != Ok(true) {
                before(panic);
            }
        }));
    });
    PANICS.set(Some(Vec::new()));
}

/// The panics since [`note_panics`].
pub(super) fn panics() -> Vec<String> {
    PANICS.take().unwrap_or_default()
}

struct SimTime;

impl tracing_subscriber::fmt::time::FormatTime for SimTime {
    fn format_time(&self, to: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(to, "{:10.6}", clock::elapsed() as f64 / 1e9)
    }
}

/// Tells all that is logged from now on, by whichever thread. Not to be called by the one that simulates: what is made there
/// takes from its randomness, and it would have another history than without a trace.
pub(super) fn trace() {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| {
        "info,jepsen_sim=debug,tidegate_jepsen=debug,turmoil=warn,openraft=warn,chitchat=warn".to_owned()
    });
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_timer(SimTime)
        .with_ansi(false)
        .finish();
    // The first one stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
