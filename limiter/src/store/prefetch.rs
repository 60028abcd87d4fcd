//! Asking for a bucket's cache line ahead of its charge.
//!
//! A line that is read first and charged then comes twice from a processor that has charged it last: once to be read, once
//! to be written. And it comes late: the table that knows where it is stands behind a pointer, which may only be followed
//! once the epoch is announced, by an operation that waits for all before it. So where each shard's lines are is noted
//! beside the pointer, as numbers that nobody follows. They may be wrong, or not belong together; then nothing but a little
//! time is lost.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::table::Table;

/// One instruction that only warms a cache.
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
macro_rules! hint {
    ($instruction:literal, $address:expr) => {{
        let address: usize = $address;
        // SAFETY: a prefetch is a hint. It raises no exception and makes no fault that a program can see, for any address,
        // mapped or not, and changes nothing that a program can see (Intel SDM volume 2, PREFETCHh and PREFETCHW; Arm ARM
        // C6.2, PRFM). A processor of the first ones without PREFETCHW takes it for a NOP.
        #[allow(unsafe_code, reason = "what it wins is measured: docs/decisions/006")]
        unsafe {
            std::arch::asm!($instruction, in(reg) address, options(nostack, preserves_flags, readonly));
        }
    }};
}

/// Where the lines of a shard's table are, or were a moment ago.
#[derive(Debug, Default)]
pub(super) struct Hint {
    first: AtomicUsize,
    lines: AtomicUsize,
}

impl Hint {
    pub(super) fn set(&self, table: &Table) {
        let (first, lines) = table.place();
        self.first.store(first, Relaxed);
        self.lines.store(lines, Relaxed);
    }

    /// Asks for the line of a key, to be written.
    #[inline]
    pub(super) fn ask_for(&self, key: u64) {
        let lines = self.lines.load(Relaxed);
        ask_to_write(self.first.load(Relaxed).wrapping_add(Table::home_of(key, lines) * Table::LINE_BYTES));
    }
}

/// Asks for the cache line at an address, to be written. Nothing is read or changed, and nothing fails, whatever the
/// address is; nobody waits.
#[inline]
fn ask_to_write(address: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    hint!("prefetchw [{0}]", address);
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    hint!("prfm pstl1keep, [{0}]", address);
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = address;
}
