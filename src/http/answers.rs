//! Large answers, until their clients have taken them: they take room, of which each client has a part only.
//!
//! hyper keeps what a client does not take, so the bytes themselves hold the room until they are dropped. An answer to something that
//! was charged has its room before anything is charged: [`reserve`].

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Response, body::Body as _};

use super::response::Body;
use crate::{
    check::{Problem, ProblemKind},
    parts::Part,
};

/// Bytes of an answer that take no room.
const SMALL_BYTES: usize = 16 << 10;
/// A longer answer counts as one of so many bytes, an eighth of the room: a backup may be larger than all of it.
const MOST_COUNTED: usize = 8 << 20;

/// Room that an answer has before it is there: an extension of its response.
#[derive(Debug, Clone, Default)]
pub(super) struct Reserved(Arc<Part>);

/// An answer with its room.
struct Held {
    bytes: Bytes,
    _room: Arc<Part>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Room for an answer of about so many bytes.
///
/// # Errors
/// When there is none.
pub(super) fn reserve(mut part: Part, length: usize) -> Result<Reserved, Problem> {
    if length > SMALL_BYTES && !part.grow_to(length.min(MOST_COUNTED)) {
        return Err(Problem::new(
            ProblemKind::Busy,
            "this node holds as many answers as it has room for, or as one client can leave untaken: read those that you have asked for, \
             and ask again in a moment",
        ));
    }
    Ok(Reserved(Arc::new(part)))
}

/// An answer that keeps its room until it is taken: what was reserved for it, or else a part of this.
///
/// # Errors
/// When nothing was reserved, and there is no room.
pub(super) async fn in_room(
    response: Response<axum::body::Body>,
    part: Part,
) -> Result<Response<Body>, Problem> {
    let length = usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX);
    if length <= SMALL_BYTES {
        return Ok(response.map(Body::Right));
    }
    let (mut head, body) = response.into_parts();
    let reserved = head.extensions.remove::<Reserved>();
    let has_reserved = reserved.is_some();
    let Reserved(mut room) = reserved.map_or_else(|| reserve(part, length), Ok)?;
    if has_reserved && let Some(part) = Arc::get_mut(&mut room) {
        // It was charged, so it is told, also where it has become longer than there is room for.
        part.grow_to(length.min(MOST_COUNTED));
    }
    // A body of ours is one piece, which is not copied.
    let Ok(whole) = body.collect().await else {
        return Err(Problem::new(ProblemKind::Busy, "the answer could not be put together; ask again"));
    };
    let held = Held { bytes: whole.to_bytes(), _room: room };
    Ok(Response::from_parts(head, Body::Left(Full::new(Bytes::from_owner(held)))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::Room;

    fn response(length: usize) -> Response<axum::body::Body> {
        Response::new(vec![b'x'; length].into())
    }

    #[tokio::test]
    async fn a_large_answer_has_room_until_its_bytes_are_dropped() {
        let room = Room::new(64 << 10, 64 << 10);
        let small = in_room(response(SMALL_BYTES), room.part(None)).await.unwrap();
        assert_eq!((room.taken(), small.body().size_hint().exact()), (0, Some(SMALL_BYTES as u64)));
        let large = in_room(response(40 << 10), room.part(None)).await.unwrap();
        assert_eq!((room.taken(), large.body().size_hint().exact()), (40 << 10, Some(40 << 10)));
        // As hyper has it: the body is gone, its bytes wait to be written.
        let bytes = large.into_body().collect().await.unwrap().to_bytes();
        assert_eq!((room.taken(), bytes.len()), (40 << 10, 40 << 10));
        let refused = in_room(response(40 << 10), room.part(None)).await.unwrap_err();
        assert_eq!(refused.kind, ProblemKind::Busy);
        drop(bytes);
        assert_eq!(room.taken(), 0);
    }

    #[tokio::test]
    async fn what_was_reserved_suffices_and_is_given_back_where_it_is_not_needed() {
        let room = Room::new(64 << 10, 64 << 10);
        let mut large = response(60 << 10);
        large.extensions_mut().insert(reserve(room.part(None), 50 << 10).unwrap());
        assert!(reserve(room.part(None), 20 << 10).is_err() && reserve(room.part(None), 1 << 10).is_ok());
        let large = in_room(large, room.part(None)).await.unwrap();
        assert_eq!(room.taken(), 60 << 10);
        drop(large);
        let mut large = response(70 << 10);
        large.extensions_mut().insert(reserve(room.part(None), 50 << 10).unwrap());
        let told = in_room(large, room.part(None)).await;
        assert!(told.is_ok(), "it was charged");
        drop(told);
        let mut small = response(100);
        small.extensions_mut().insert(reserve(room.part(None), 50 << 10).unwrap());
        drop(in_room(small, room.part(None)).await);
        assert_eq!(room.taken(), 0);
    }
}
