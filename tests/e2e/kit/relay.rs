//! Somebody on the path to a node: passes on what goes to a port of 127.0.0.2 to the same port of 127.0.0.1, and changes some.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// What it does to a stream after the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Attack {
    /// A bit is another.
    Flip,
    /// What was read comes twice.
    Repeat,
    /// What was read is left out.
    Leave,
    /// A record of its own is put in.
    Inject,
    /// What came on another stream is put in.
    Splice,
    /// What was read last on the other direction of this stream is put in.
    Reflect,
    /// The stream ends in the middle.
    Cut,
}

impl Attack {
    pub const ALL: [Self; 7] =
        [Self::Flip, Self::Repeat, Self::Leave, Self::Inject, Self::Splice, Self::Reflect, Self::Cut];
}

#[derive(Default)]
struct Orders {
    attack: Mutex<Option<Attack>>,
    made: [AtomicUsize; Attack::ALL.len()],
    injected: Mutex<Vec<u8>>,
    /// What was read last on any stream.
    other: Mutex<Vec<u8>>,
}

/// It passes on until the test ends.
pub struct Relay(Arc<Orders>);

impl Relay {
    pub fn start(port: u16) -> Self {
        let orders = Arc::new(Orders::default());
        let (from, to): (SocketAddr, SocketAddr) =
            ((Ipv4Addr::new(127, 0, 0, 2), port).into(), (Ipv4Addr::LOCALHOST, port).into());
        let listener = TcpListener::bind(from).unwrap();
        let datagrams = UdpSocket::bind(from).unwrap();
        thread::spawn(move || pass_datagrams(&datagrams, to));
        let shared = Arc::clone(&orders);
        thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(to)) else { continue };
                let back = Arc::new(Mutex::new(Vec::new()));
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let _ = from.set_nodelay(true);
                    let (orders, back) = (Arc::clone(&shared), Arc::clone(&back));
                    thread::spawn(move || pass(from, to, &orders, &back));
                }
            }
        });
        Self(orders)
    }

    pub fn set(&self, attack: Option<Attack>) {
        *self.0.attack.lock().unwrap() = attack;
    }

    /// How often an attack was made.
    pub fn attacks(&self, attack: Attack) -> usize {
        self.0.made[attack as usize].load(Relaxed)
    }

    /// The call that is put in.
    pub fn inject(&self, call: Vec<u8>) {
        let frame =
            |kind: u8, payload: &[u8]| [&[kind][..], &(payload.len() as u32).to_le_bytes(), payload].concat();
        let record =
            |frames: Vec<u8>| [&(frames.len() as u32).to_le_bytes()[..], &[0x5a; 16], &frames].concat();
        // Control, then the call.
        *self.0.injected.lock().unwrap() = [record(frame(10, &[])), record(frame(11, &call))].concat();
    }
}

/// One direction of one stream. `back`: what was read last on the other one.
fn pass(mut from: TcpStream, mut to: TcpStream, orders: &Orders, back: &Mutex<Vec<u8>>) {
    /// A handshake is over after so many bytes.
    const HANDSHAKE: usize = 150;
    let mut bytes = [0; 16 << 10];
    let (mut passed, mut turn) = (0, 0);
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let mut chunk = bytes[..count].to_vec();
        let after_handshake = passed >= HANDSHAKE;
        passed += count;
        turn += 1;
        let attack = orders.attack.lock().unwrap().filter(|_| after_handshake && turn % 2 == 0);
        let mut cut = false;
        if let Some(attack) = attack {
            let other = orders.other.lock().unwrap().clone();
            let reflected = back.lock().unwrap().clone();
            let made = match attack {
                Attack::Flip => {
                    chunk[count / 2] ^= 1 << (turn % 8);
                    true
                }
                Attack::Repeat => {
                    chunk.extend_from_within(..);
                    true
                }
                Attack::Leave => {
                    chunk.clear();
                    true
                }
                Attack::Inject => {
                    chunk.splice(..0, orders.injected.lock().unwrap().iter().copied());
                    true
                }
                Attack::Splice => {
                    chunk.splice(..0, other.iter().copied());
                    !other.is_empty()
                }
                Attack::Reflect => {
                    chunk.splice(..0, reflected.iter().copied());
                    !reflected.is_empty()
                }
                Attack::Cut => {
                    chunk.truncate(count / 2);
                    cut = true;
                    true
                }
            };
            orders.made[attack as usize].fetch_add(usize::from(made), Relaxed);
        } else if after_handshake {
            *orders.other.lock().unwrap() = bytes[..count].to_vec();
            *back.lock().unwrap() = bytes[..count].to_vec();
        }
        if to.write_all(&chunk).is_err() || cut {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Datagrams go on as they are; answers come back by the way that the question took.
fn pass_datagrams(near: &UdpSocket, to: SocketAddr) {
    let mut ways: HashMap<SocketAddr, UdpSocket> = HashMap::new();
    let mut bytes = vec![0; 65_535];
    while let Ok((count, from)) = near.recv_from(&mut bytes) {
        let way = ways.entry(from).or_insert_with(|| {
            let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            far.connect(to).unwrap();
            far.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let (back, near) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            thread::spawn(move || {
                let mut bytes = vec![0; 65_535];
                while let Ok(count) = back.recv(&mut bytes) {
                    let _ = near.send_to(&bytes[..count], from);
                }
            });
            far
        });
        let _ = way.send(&bytes[..count]);
    }
}
