//! All randomness of a thread from one seed.
//!
//! What wants randomness, in the standard library, tokio, chitchat, redb or Tidegate, gets it from the C library's
//! `getrandom` or `getentropy`. This program has functions of these names itself, and those go first. On a thread with dice
//! they are thrown; on any other the system is asked, as ever.

#![allow(unsafe_code, reason = "two functions of the C library are stood in for")]

use std::cell::Cell;

thread_local! {
    static DICE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread throws dice. What a thread has taken permanently before, as the standard library does for its maps,
/// stays: a run needs a fresh thread.
pub fn seed(seed: Option<u64>) {
    DICE.set(seed);
}

/// As in Steele, Lea and Flood's SplitMix.
fn throw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Fills the bytes by dice; false on a thread that has none.
fn fill(bytes: &mut [u8]) -> bool {
    // A thread that ends has none either.
    let Ok(Some(mut state)) = DICE.try_with(Cell::get) else { return false };
    for piece in bytes.chunks_mut(8) {
        piece.copy_from_slice(&throw(&mut state).to_le_bytes()[..piece.len()]);
    }
    DICE.set(Some(state));
    true
}

/// `getrandom(2)`.
///
/// # Safety
/// As in the manual: `buffer` has room for `length` bytes.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    if !buffer.is_null() && length > 0 {
        // SAFETY: the caller promises so many bytes, and nobody else has them during the call.
        let bytes = unsafe {
            std::ptr::write_bytes(buffer.cast::<u8>(), 0, length);
            std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length)
        };
        if fill(bytes) {
            return length as libc::ssize_t;
        }
    }
    // SAFETY: the same arguments as those that the caller gave.
    unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as libc::ssize_t }
}

/// `getentropy(3)`.
///
/// # Safety
/// As in the manual: `buffer` has room for `length` bytes.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getentropy(buffer: *mut libc::c_void, length: libc::size_t) -> libc::c_int {
    // SAFETY: the caller promises so many bytes.
    let filled = unsafe { getrandom(buffer, length, 0) };
    if filled == length as libc::ssize_t { 0 } else { -1 }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        hash::{BuildHasher as _, RandomState},
        thread,
    };

    use super::*;

    #[test]
    fn what_a_thread_takes_for_random_follows_from_its_seed_and_other_threads_notice_nothing() {
        let take = |dice: Option<u64>| {
            thread::spawn(move || {
                seed(dice);
                let map: HashMap<u8, u8> = (0..20).map(|n| (n, n)).collect();
                let order: Vec<u8> = map.into_keys().collect();
                let name = tidegate_cluster::rules::NewRules::new("d", "rules: []").key;
                (RandomState::new().hash_one(1), order, name)
            })
            .join()
            .unwrap()
        };
        assert_eq!(take(Some(7)), take(Some(7)));
        assert_ne!(take(Some(7)).2, take(Some(8)).2);
        assert_ne!(take(None).0, take(None).0);
    }
}
