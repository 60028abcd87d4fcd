//! A client that says and hears frames of HTTP/2.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use super::rules::PATIENCE;

/// A client, connected.
pub struct Frames(pub TcpStream);

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const RST_STREAM: u8 = 3;
pub const GOAWAY: u8 = 7;

impl Frames {
    pub fn new(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(PREFACE).unwrap();
        let mut frames = Self(stream);
        frames.say(4, 0, 0, &[]).unwrap();
        frames
    }

    pub fn say(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        self.0.write_all(&frame(kind, flags, stream, payload))
    }

    /// The next frame: its kind, its flags, its stream, and what it carries.
    pub fn any(&mut self) -> (u8, u8, u32, Vec<u8>) {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).unwrap();
        (head[3], head[4], u32::from_be_bytes(head[5..9].try_into().unwrap()), payload)
    }

    /// The next frame of this kind: its stream, and what it carries.
    pub fn hear(&mut self, kind: u8) -> (u32, Vec<u8>) {
        loop {
            let (found, _, stream, payload) = self.any();
            if found == kind {
                return (stream, payload);
            }
        }
    }

    /// The error code of the GOAWAY with which the node ends it; `None`: without one.
    pub fn ends_with(&mut self) -> Option<u32> {
        let mut all = Vec::new();
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = self.0.read(&mut bytes) {
            all.extend_from_slice(&bytes[..read]);
        }
        let mut rest = &all[..];
        let mut told = None;
        while rest.len() >= 9 {
            let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
            if rest[3] == GOAWAY && rest.len() >= 17 {
                told = Some(u32::from_be_bytes(rest[13..17].try_into().unwrap()));
            }
            rest = rest.get(9 + length..).unwrap_or_default();
        }
        told
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

pub const ENVOY: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// The domain "d", and a descriptor { a: "1" }.
pub const REQUEST: [u8; 13] = [0x0a, 1, b'd', 0x12, 8, 0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'1'];

/// Headers of a check, without compression of HPACK.
pub fn head(more: usize) -> Vec<u8> {
    head_of(ENVOY, more)
}

pub fn head_of(path: &str, more: usize) -> Vec<u8> {
    let mut block = Vec::new();
    let mut header = |name: &str, value: &str| {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    };
    header(":method", "POST");
    header(":scheme", "http");
    header(":path", path);
    header("content-type", "application/grpc");
    (0..more).for_each(|number| header(&format!("x-{number}"), &"v".repeat(100)));
    block
}
