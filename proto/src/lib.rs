//! What crosses a wire: types and codecs, no sockets.
//!
//! In the order in which a forwarded check meets them:
//!
//! - [`greeting`]: the first bytes of a stream, before anything is authenticated.
//! - [`record`]: what a stream consists of from then on: sealed, with whole frames in it. [`frame`]: what a frame holds.
//! - [`peer`]: the messages: the rest of the handshake, checks and their answers, undo, ping.
//! - [`codec`]: the bytes of a message; the only file that names the serialisation crate.
//!
//! And what the gRPC front ends say to clients: [`grpc`]; [`batch`] is the one message that is read by hand.

pub mod batch;
pub mod codec;
pub mod frame;
pub mod greeting;
pub mod grpc;
pub mod peer;
pub mod record;

pub use codec::CodecError;
pub use frame::{Frame, Kind, MAX_CALL_BYTES, MAX_HANDSHAKE_BYTES, MAX_PAYLOAD_BYTES, WIRE_VERSION};
pub use greeting::{Greeting, GreetingError, Refusal};
pub use record::{Inbox, Outbox, RecordError};
