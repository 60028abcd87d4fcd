//! The body of a response.

use bytes::Bytes;
use http_body_util::{Either, Full};

/// Bytes of ours, or what axum made.
pub(crate) type Body = Either<Full<Bytes>, axum::body::Body>;
