//! What crosses a wire: types and codecs, no sockets.
//!
//! In the order in which a forwarded check meets them:
//!
//! - [`frame`]: the 12 byte header around each message, its limits and its checksum.
//! - [`peer`]: the messages: the handshake, checks and their answers, undo, ping.
//! - [`codec`]: the bytes of a message; the only file that names the serialisation crate.
//!
//! And what the gRPC front ends say to clients: [`grpc`]; [`batch`] is the one message that is read by hand.

pub mod batch;
pub mod codec;
pub mod frame;
pub mod grpc;
pub mod peer;

pub use codec::CodecError;
pub use frame::{
    Frame, FrameError, HEADER_BYTES, Kind, MAX_CALL_BYTES, MAX_HANDSHAKE_BYTES, MAX_PAYLOAD_BYTES,
    WIRE_VERSION,
};
