//! What a deterministic simulation puts in the place of network, time and disk.
//!
//! A thread that simulates says so ([`enter`]); on it, sockets are those of `turmoil`, data directories lie in memory
//! ([`disk`]), clocks run as they are told ([`clock`]), and nothing is done on another thread. All of it belongs to the
//! thread, and is gone when the guard is dropped. Other threads of the process, and all threads of a program that never
//! calls [`enter`], notice nothing.
//!
//! Randomness is not replaced here: all of it comes from `getrandom`, which a simulating program puts itself in the place
//! of.

pub mod clock;
pub mod disk;
pub mod network;
mod probe;

use std::cell::Cell;

pub use crate::simulation::probe::Probe;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread simulates.
#[inline]
pub(crate) fn is_on() -> bool {
    ON.get()
}

/// As long as it lives, this thread simulates.
#[derive(Debug)]
pub struct Simulating {
    _thread: std::marker::PhantomData<*const ()>,
}

/// Begins to simulate on this thread: with no disks, and all clocks at the beginning.
///
/// # Panics
/// If this thread simulates already.
pub fn enter() -> Simulating {
    assert!(!ON.replace(true), "a thread simulates one world at a time");
    clock::forget();
    disk::forget();
    network::forget();
    Simulating { _thread: std::marker::PhantomData }
}

impl Drop for Simulating {
    fn drop(&mut self) {
        ON.set(false);
        clock::forget();
        disk::forget();
        network::forget();
    }
}
