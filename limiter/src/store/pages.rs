//! The memory of a table: pages of its own, where it is not small.
//!
//! A table is made anew each time that it has grown by a third, so an allocator is given back pieces of ever other sizes, each too
//! small for the next table, often by another thread than the one that took it. What it keeps of them was three times what the
//! tables needed. Pages that were asked of the system for one table alone go back to it with that table.

use std::{fmt, ops::Deref, ptr::NonNull};

use super::line::Line;

/// Tables from this size on have pages of their own: at most an eighth of them is not used.
#[cfg(all(unix, not(miri)))]
const LEAST_BYTES: usize = 16 << 10;
/// What memory is asked for in, about: some systems have larger pages.
const PAGE: usize = 4 << 10;

/// Lines of a table, all free at first.
///
/// It owns them as a `Box<[Line]>` would; `first` and `count` are those of one allocation, or mapping, for as long as it lives.
pub(super) struct Lines {
    first: NonNull<Line>,
    count: usize,
    is_mapped: bool,
}

// SAFETY: it owns its lines, which consist of atomics: they may be dropped, and read, by any thread.
#[allow(unsafe_code, reason = "as for a box of lines")]
unsafe impl Send for Lines {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "as for a box of lines")]
unsafe impl Sync for Lines {}

impl Lines {
    pub(super) fn new(count: usize) -> Self {
        if let Some(first) = map(count * size_of::<Line>()) {
            return Self { first, count, is_mapped: true };
        }
        let lines: Box<[Line]> = (0..count).map(|_| Line::default()).collect();
        let first = NonNull::from(Box::leak(lines)).cast();
        Self { first, count, is_mapped: false }
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let bytes = self.count * size_of::<Line>();
        if self.is_mapped { bytes.next_multiple_of(PAGE) } else { bytes }
    }
}

impl Deref for Lines {
    type Target = [Line];

    #[inline]
    fn deref(&self) -> &[Line] {
        // SAFETY: `first` is that of an allocation or mapping of `count` lines, which lives for as long as this does. All of them
        // are initialised: zeroes are lines (two atomic numbers a slot), and nobody has a reference to them that is not shared.
        #[allow(unsafe_code, reason = "the type is the one that owns them")]
        unsafe {
            std::slice::from_raw_parts(self.first.as_ptr(), self.count)
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if self.is_mapped {
            unmap(self.first, self.count * size_of::<Line>());
            return;
        }
        let lines = NonNull::slice_from_raw_parts(self.first, self.count);
        // SAFETY: it was leaked from a box of so many lines in `new`, and is given back once, here.
        #[allow(unsafe_code, reason = "what was leaked is given back")]
        drop(unsafe { Box::from_raw(lines.as_ptr()) });
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Pages for so many bytes, all zero; `None`: they are few, or the system has none, and an allocator may have.
#[cfg(all(unix, not(miri)))]
fn map(bytes: usize) -> Option<NonNull<Line>> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

    if bytes < LEAST_BYTES {
        return None;
    }
    // SAFETY: a new private mapping, where the system chooses, is memory that nobody else has. It is aligned to pages, which is
    // more than lines need, and zero.
    #[allow(unsafe_code, reason = "pages that go back to the system with their table")]
    let first = unsafe {
        mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    };
    NonNull::new(first.ok()?.cast())
}

#[cfg(all(unix, not(miri)))]
fn unmap(first: NonNull<Line>, bytes: usize) {
    // SAFETY: the whole of a mapping that `map` made for one `Lines`, whose drop this is: nobody can have a reference to it.
    #[allow(unsafe_code, reason = "as in `map`")]
    let unmapped = unsafe { rustix::mm::munmap(first.as_ptr().cast(), bytes) };
    debug_assert!(unmapped.is_ok());
}

#[cfg(any(not(unix), miri))]
fn map(_: usize) -> Option<NonNull<Line>> {
    None
}

#[cfg(any(not(unix), miri))]
fn unmap(_: NonNull<Line>, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_free_at_first_and_their_memory_is_counted_in_pages() {
        for count in [0, 1, 255, 256, 257, 4_000] {
            let lines = Lines::new(count);
            assert_eq!(lines.len(), count);
            assert!(lines.iter().all(Line::is_free));
            assert!((lines.bytes() - count * 64) < PAGE);
        }
    }
}
