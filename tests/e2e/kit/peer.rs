//! A peer by hand: what the tests say to the peer port, with or without the cluster key.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use bytes::BytesMut;
use serde::ser::{Serialize, SerializeTuple as _, Serializer};
use tidegate_proto::{
    Greeting, Inbox, Kind, MAX_CALL_BYTES, MAX_PAYLOAD_BYTES, Outbox, codec,
    frame::Message,
    peer::{Control, Introduction, Refused, Welcome},
};

pub const PATIENCE: Duration = Duration::from_secs(10);

pub fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// As the cluster derives it; without a key it is zeros.
fn handshake_key(secret: Option<&str>) -> [u8; 32] {
    secret.map_or([0; 32], |secret| blake3::derive_key("tidegate 2026-11 peer handshake", secret.as_bytes()))
}

/// The keys of both directions, first that of the caller.
fn session_keys(secret: Option<&str>, hello: &[u8; 16], challenge: &[u8; 16]) -> ([u8; 16], [u8; 16]) {
    let mut hasher = blake3::Hasher::new_keyed(&handshake_key(secret));
    hasher.update(b"tidegate peer stream, wire version 7");
    hasher.update(hello);
    hasher.update(challenge);
    let mut keys = [0; 32];
    hasher.finalize_xof().fill(&mut keys);
    (keys[..16].try_into().unwrap(), keys[16..].try_into().unwrap())
}

/// Bytes of a message as they are.
pub struct Raw<const KIND: u8>(pub Vec<u8>);

impl<const KIND: u8> Serialize for Raw<KIND> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }
}

/// A call of the Raft group.
pub type RawCall = Raw<{ Kind::Call as u8 }>;

impl Message for RawCall {
    const KIND: Kind = Kind::Call;
    const MAX_BYTES: usize = MAX_CALL_BYTES;
}

/// Who it says that it is.
#[derive(Debug, Clone)]
pub struct Said {
    pub cluster: String,
    pub name: String,
    pub incarnation: u64,
    pub id: u64,
}

impl Said {
    pub fn stranger(id: u64) -> Self {
        Self { cluster: "tidegate".to_owned(), name: "stranger".to_owned(), incarnation: 1, id }
    }
}

/// A stream to a node that has let it in.
pub struct Stream {
    pub stream: TcpStream,
    pub outbox: Outbox,
    pub inbox: Inbox,
}

impl Stream {
    /// Greets and introduces itself; then the node has said welcome, or why not.
    pub fn open(address: SocketAddr, to: &str, secret: Option<&str>, said: &Said) -> Result<Self, String> {
        let mut stream = dial(address);
        let nonce: [u8; 16] = rand_nonce();
        stream.write_all(&Greeting::Hello(nonce).to_bytes()).unwrap();
        let mut greeting = [0; 20];
        stream.read_exact(&mut greeting).map_err(|error| error.to_string())?;
        let Ok(Some((Greeting::Challenge(challenge), _))) = Greeting::first(&greeting) else {
            return Err(format!("no challenge: {greeting:02x?}"));
        };
        let (mine, theirs) = session_keys(secret, &nonce, &challenge);
        let mut one = Self {
            stream,
            outbox: Outbox::new(mine),
            inbox: Inbox::new(theirs, BytesMut::new(), MAX_PAYLOAD_BYTES),
        };
        let introduction = Introduction {
            cluster: said.cluster.clone(),
            node: said.name.clone(),
            incarnation: said.incarnation,
            id: said.id,
            to: to.to_owned(),
        };
        one.send(&introduction);
        let mut first = [0; 5];
        one.stream.peek(&mut first).map_err(|error| error.to_string())?;
        if let Ok(Some((Greeting::Refusal(refusal), _))) = Greeting::first(&first) {
            return Err(refusal.to_string());
        }
        match one.receive()? {
            (Kind::Welcome, payload) => codec::decode::<Welcome>(&payload).unwrap(),
            (kind, _) => return Err(format!("{kind:?}")),
        };
        Ok(one)
    }

    /// Makes it a stream of calls.
    pub fn control(mut self) -> Self {
        self.send(&Control);
        self.inbox.set_limit(MAX_CALL_BYTES);
        self
    }

    pub fn send<M: Message>(&mut self, message: &M) {
        self.outbox.put(message).unwrap();
        let bytes = self.outbox.sealed().split();
        // If the node has closed the stream, that shows when it is read.
        let _ = self.stream.write_all(&bytes);
    }

    /// The next message; or why there is none.
    pub fn receive(&mut self) -> Result<(Kind, Vec<u8>), String> {
        loop {
            if let Some(frame) = self.inbox.first().map_err(|error| error.to_string())? {
                let (kind, payload, length) = (frame.kind, frame.payload.to_vec(), frame.length);
                self.inbox.take(length);
                if kind == Kind::Refused {
                    return Err(codec::decode::<Refused>(&payload).unwrap().reason);
                }
                return Ok((kind, payload));
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err("the stream has ended".to_owned()),
                Ok(count) => self.inbox.unread().extend_from_slice(&bytes[..count]),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Sends a call, and returns the reason for which it was refused; or none.
    pub fn call(&mut self, bytes: Vec<u8>) -> Result<Option<String>, String> {
        /// The place of `Refused` among the answers.
        const REFUSED: u32 = 13;
        self.send(&Raw(bytes) as &RawCall);
        let (kind, payload) = self.receive()?;
        assert_eq!(kind, Kind::Reply);
        let (place, rest) = payload.split_first_chunk().unwrap();
        Ok((u32::from_le_bytes(*place) == REFUSED).then(|| String::from_utf8_lossy(&rest[8..]).into_owned()))
    }
}

fn rand_nonce() -> [u8; 16] {
    use std::hash::{BuildHasher as _, RandomState};
    let half = || RandomState::new().hash_one(0u8).to_le_bytes();
    [half(), half()].concat().try_into().unwrap()
}

/// A call in its envelope.
pub fn envelope(cluster: &str, from: u64, to: u64, call: &[u8]) -> Vec<u8> {
    let cluster = u128::from_str_radix(cluster, 16).unwrap().to_be_bytes();
    [&cluster[..], &from.to_le_bytes(), &to.to_le_bytes(), call].concat()
}

/// `AppendEntries` without entries, by a leader of this term.
pub fn append(term: u64, leader: u64, commit: Option<(u64, u64)>) -> Vec<u8> {
    let commit = commit.map_or(vec![0], |(term, index)| {
        [&[1][..], &term.to_le_bytes(), &leader.to_le_bytes(), &index.to_le_bytes()].concat()
    });
    [
        &0u32.to_le_bytes()[..],
        &term.to_le_bytes(),
        &leader.to_le_bytes(),
        // Elected; no entry before, no entries.
        &[1, 0],
        &0u64.to_le_bytes(),
        &commit,
    ]
    .concat()
}

/// `Vote`, for a candidate of this term without a log.
pub fn vote(term: u64, candidate: u64) -> Vec<u8> {
    [&1u32.to_le_bytes()[..], &term.to_le_bytes(), &candidate.to_le_bytes(), &[0, 0]].concat()
}
