//! What a connection is called: by the node with a number, by its client with a name if it has given one (`CLIENT SETNAME`).

use std::sync::atomic::{AtomicI64, Ordering};

/// Bytes of a name.
const MAX_NAME_BYTES: usize = 256;

/// The number of the next connection of this process. They begin with 1, as in Redis.
static NEXT: AtomicI64 = AtomicI64::new(1);

#[derive(Debug, Default)]
pub(super) struct Identity {
    pub(super) id: i64,
    /// Empty: none.
    pub(super) name: Vec<u8>,
}

impl Identity {
    /// That of a new connection.
    pub(super) fn new() -> Self {
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), name: Vec::new() }
    }
}

/// A name as Redis takes them, since lists of clients have them between spaces; the empty one takes a name away.
pub(super) fn checked_name(name: &[u8]) -> Result<&[u8], String> {
    if !name.iter().all(u8::is_ascii_graphic) {
        let error = "ERR Client names cannot contain spaces, newlines or special characters.";
        return Err(error.to_owned());
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("ERR a client name has at most {MAX_NAME_BYTES} bytes, this one {}", name.len()));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_spaces_and_an_end() {
        assert_eq!(checked_name(b"shop-1"), Ok(&b"shop-1"[..]));
        assert_eq!(checked_name(b""), Ok(&b""[..]));
        for wrong in [&b"a b"[..], b"a\n", "\u{e4}".as_bytes(), &[b'x'; MAX_NAME_BYTES + 1]] {
            assert!(checked_name(wrong).unwrap_err().starts_with("ERR "), "{wrong:?}");
        }
        let (one, other) = (Identity::new(), Identity::new());
        assert!(one.id > 0 && other.id > one.id);
    }
}
