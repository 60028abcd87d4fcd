//! The promise: who attacks the ports takes a bounded part of a node, and others are answered meanwhile. `bench/attacks` measures
//! how fast; here attacks run as they are.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};
use tidegate_jepsen::{
    cluster::{Cluster, Node, wait_for},
    history::monotonic,
    load::path_of,
};

use crate::kit::{
    self,
    frames::{ENVOY, PREFACE, REQUEST, frame, head_of},
    rules::PATIENCE,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const GUBERNATOR: &str = "/pb.gubernator.V1/GetRateLimits";
const ATTACKER: [u8; 4] = [127, 0, 0, 9];
const HONEST: [u8; 4] = [127, 0, 0, 2];

fn connect_from(source: impl Into<IpAddr>, to: SocketAddr) -> TcpStream {
    connect(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap(), source, to)
}

/// A connection for which the kernels keep little of what is not read.
fn connect_narrow(source: impl Into<IpAddr>, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.set_tcp_mss(536).unwrap();
    connect(socket, source, to)
}

fn connect(socket: Socket, source: impl Into<IpAddr>, to: SocketAddr) -> TcpStream {
    socket.bind(&SocketAddr::from((source.into(), 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A connection of HTTP/2, and the frames that have come and were not asked for yet: kind, stream, what they carry.
struct Frames {
    stream: TcpStream,
    heard: Vec<(u8, u32, Vec<u8>)>,
}

impl Frames {
    /// With so many bytes of each answer that it takes.
    fn new(source: [u8; 4], address: SocketAddr, window: u32) -> Self {
        Self::over(connect_from(source, address), window)
    }

    fn over(stream: TcpStream, window: u32) -> Self {
        let mut frames = Self { stream, heard: Vec::new() };
        let initial_window_size = [&[0, 4][..], &window.to_be_bytes()].concat();
        frames.say(&[PREFACE, &frame(SETTINGS, 0, 0, &initial_window_size)].concat());
        frames
    }

    fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next frame of this kind on a stream: what it carries, or with what the stream was reset.
    fn hear(&mut self, kind: u8, stream: u32) -> Result<Vec<u8>, u32> {
        loop {
            let is_meant = |of: &(u8, u32, Vec<u8>)| of.1 == stream && [kind, RST_STREAM].contains(&of.0);
            if let Some(place) = self.heard.iter().position(is_meant) {
                let (heard, _, payload) = self.heard.remove(place);
                return match heard {
                    RST_STREAM if kind != RST_STREAM => Err(u32::from_be_bytes(payload.try_into().unwrap())),
                    _ => Ok(payload),
                };
            }
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.stream.read_exact(&mut payload).unwrap();
            self.heard.push((head[3], u32::from_be_bytes(head[5..9].try_into().unwrap()), payload));
        }
    }
}

fn call(stream: u32, path: &str, message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u32).to_be_bytes();
    let body = [&[0], &length[..], message].concat();
    [frame(HEADERS, END_HEADERS, stream, &head_of(path, 0)), frame(DATA, END_STREAM, stream, &body)].concat()
}

#[test]
fn answers_that_nobody_takes_take_bounded_memory() {
    const ENHANCE_YOUR_CALM: u32 = 11;
    let _machine = kit::alone();
    let cluster = kit::patient_nodes(1, "rules: []\n");
    let node = &cluster.nodes[0];
    let before = node.resident_bytes().unwrap();
    // Two bytes for an item, and 38 for its answer: 31 are all that fit the window of the node.
    let batch = [0x0a, 0].repeat(1_000);
    let calls: Vec<u8> = (0..31).flat_map(|number| call(number * 2 + 1, GUBERNATOR, &batch)).collect();
    let mut held: Vec<Frames> = (0..200)
        .map(|_| {
            let mut connection = Frames::new(ATTACKER, node.grpc, 0);
            connection.say(&calls);
            connection
        })
        .collect();
    let given_up = held.last_mut().unwrap().hear(DATA, 61);
    assert_eq!(given_up, Err(ENHANCE_YOUR_CALM), "there is no room for what it does not take");
    let most = node.resident_bytes().unwrap();
    // All answers are 236 MB, and one client may have 16 MiB; the rest is what deciding and HTTP/2 take on a busy machine.
    assert!(most < before + (128 << 20), "{before} bytes before, {most} then");
    let mut honest = Frames::new(HONEST, node.grpc, 1 << 20);
    honest.say(&call(1, GUBERNATOR, &batch));
    assert_eq!(honest.hear(DATA, 1).map(|answer| answer[0]), Ok(0), "another client has room");
}

/// Until the node has decided all batches that have come.
fn await_decided(node: &Node) {
    let mut before = 0.0;
    wait_for("all batches are decided", PATIENCE, || {
        thread::sleep(Duration::from_millis(300));
        let decided = node.metric("tidegate_batches_total").unwrap_or(0.0);
        std::mem::replace(&mut before, decided) >= decided && decided > 0.0
    });
}

/// The windows of HTTP/2 are the client's word: what counts is what it reads.
#[test]
fn answers_for_which_a_client_has_windows_and_that_it_does_not_read_are_given_up() {
    const CANCEL: u32 = 8;
    const ENHANCE_YOUR_CALM: u32 = 11;
    const MOST: u32 = (1 << 31) - 1;
    let _machine = kit::alone();
    let cluster = kit::patient_nodes(1, "rules: []\n");
    let node = &cluster.nodes[0];
    let batch = [0x0a, 0].repeat(1_000);
    let calls: Vec<u8> = (0..31).flat_map(|number| call(number * 2 + 1, GUBERNATOR, &batch)).collect();
    let open = frame(WINDOW_UPDATE, 0, 0, &(MOST - 65_535).to_be_bytes());
    let mut held: Vec<Frames> = (0..40)
        .map(|_| {
            let mut connection = Frames::over(connect_narrow(ATTACKER, node.grpc), MOST);
            connection.say(&[&open[..], &calls].concat());
            connection
        })
        .collect();
    await_decided(node);
    let mut honest = Frames::new(HONEST, node.grpc, 1 << 20);
    honest.say(&call(1, GUBERNATOR, &batch));
    assert_eq!(honest.hear(DATA, 1).map(|answer| answer[0]), Ok(0), "another client has room");
    let last = held.last_mut().unwrap();
    // Now it reads what there is.
    SockRef::from(&last.stream).set_recv_buffer_size(1 << 20).unwrap();
    let given_up = (0..31).filter_map(|number| last.hear(DATA, number * 2 + 1).err()).collect::<Vec<_>>();
    assert!(given_up.len() > 10, "there is no room for what it does not take: {given_up:?}");
    assert!(given_up.iter().all(|code| [CANCEL, ENHANCE_YOUR_CALM].contains(code)), "{given_up:?}");
}

#[test]
fn batches_that_wait_for_an_owner_that_hangs_take_bounded_memory() {
    let _machine = kit::alone();
    let cluster = kit::patient_nodes(3, "rules: []\n");
    let (node, hangs) = (&cluster.nodes[0], &cluster.nodes[2]);
    let before = node.resident_bytes().unwrap();
    // The first of each batch go to all nodes, and the others are small and wait for them.
    let item = |key: u8| {
        [&b"\x0a\x0e\x0a\x01a\x12\x02"[..], &[b'k', b'a' + key], b"\x18\x01\x20\x0a\x28\xe8\x07"].concat()
    };
    let batch = [(0..8).flat_map(item).collect::<Vec<u8>>(), [0x0a, 0].repeat(990)].concat();
    let calls: Vec<u8> = (0..30).flat_map(|number| call(number * 2 + 1, GUBERNATOR, &batch)).collect();
    hangs.pause();
    let held: Vec<Frames> = (0..200)
        .map(|_| {
            let mut connection = Frames::new(ATTACKER, node.grpc, 1 << 20);
            connection.say(&calls);
            connection
        })
        .collect();
    let most = (0..100).map(|_| {
        thread::sleep(Duration::from_millis(30));
        node.resident_bytes().unwrap()
    });
    let most = most.max().unwrap();
    drop(held);
    // 720 MB of items have come; links to other nodes keep so many checks at a time, and the rest is answered at once.
    assert!(most < before + (200 << 20), "{before} bytes before, {most} then");
}

#[test]
fn a_call_that_goes_on_and_on_begins_with_a_whole_small_message() {
    const WATCH: &str = "/grpc.health.v1.Health/Watch";
    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let cluster = kit::patient_nodes(1, "rules: []\n");
    let mut client = Frames::new(HONEST, cluster.nodes[0].grpc, 1 << 20);
    // Of 256 bytes some come; or many of 4 MiB.
    let half = [&[0, 0, 0, 1, 0][..], &[0; 16]].concat();
    let large = [&[0, 0, 0x3f, 0xff, 0xff][..], &[0; 8 << 10]].concat();
    let calls = [(WATCH, &half), (WATCH, &large), (REFLECTION, &half), (REFLECTION, &large)];
    for (stream, (path, begun)) in (1..).step_by(2).zip(calls) {
        client.say(&frame(HEADERS, END_HEADERS, stream, &head_of(path, 0)));
        client.say(&frame(DATA, 0, stream, begun));
    }
    for stream in [1, 3, 5, 7] {
        assert!(client.hear(HEADERS, stream).is_ok(), "{stream} is answered");
        assert!(client.hear(RST_STREAM, stream).is_ok(), "{stream} is over");
    }
    // Field 7 lists the services; what it says is for nobody.
    let list = [&[0, 0, 0, 0x0f, 0xa3, 0x3a, 0xa0, 0x1f][..], &[b'a'; 4_000]].concat();
    client.say(&frame(HEADERS, END_HEADERS, 9, &head_of(REFLECTION, 0)));
    client.say(&frame(DATA, 0, 9, &list));
    assert_eq!(client.hear(DATA, 9).map(|answer| answer[0]), Ok(0), "a question is answered");
    for _ in 0..11 {
        client.say(&frame(DATA, 0, 9, &list));
    }
    assert!(client.hear(RST_STREAM, 9).is_ok(), "and not without end");
    client.say(&call(11, WATCH, &[]));
    assert_eq!(client.hear(DATA, 11), Ok(vec![0, 0, 0, 0, 2, 8, 1]), "the connection goes on");
}

#[test]
fn http_answers_that_nobody_takes_take_bounded_memory_and_more_are_refused_uncharged() {
    let _machine = kit::alone();
    let cluster = kit::patient_nodes(1, "rules:\n  - { name: per-user, key: [user], limit: 5000/1d }\n");
    let node = &cluster.nodes[0];
    let batch = |user: &str| {
        let checks = vec![format!("{{\"attributes\":{{\"user\":\"{user}\"}}}}"); 1_000].join(",");
        let body = format!("{{\"checks\":[{checks}]}}");
        format!("POST /v1/check/batch HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let before = node.resident_bytes().unwrap();
    let of_others = batch("others");
    let _held: Vec<TcpStream> = (0..150)
        .map(|_| {
            let mut stream = connect_narrow(ATTACKER, node.http);
            stream.write_all(of_others.as_bytes()).unwrap();
            stream
        })
        .collect();
    await_decided(node);
    let most = node.resident_bytes().unwrap();
    assert!(most < before + (64 << 20), "{before} bytes before, {most} then");
    let first_line = |source: [u8; 4], user: &str| {
        let mut stream = connect_from(source, node.http);
        stream.write_all(batch(user).as_bytes()).unwrap();
        let mut line = [0; 12];
        stream.read_exact(&mut line).unwrap();
        String::from_utf8(line.to_vec()).unwrap()
    };
    assert_eq!(first_line(ATTACKER, "refused"), "HTTP/1.1 503");
    assert_eq!(first_line(HONEST, "answered"), "HTTP/1.1 200", "another client has room");
    for (user, remaining) in [("refused", 5_000), ("answered", 4_000)] {
        let check = node.client(PATIENCE).get(&format!("/v1/check?user={user}&cost=0")).unwrap().json();
        assert_eq!(check["remaining"], remaining, "{user}: {check}");
    }
}

#[test]
fn an_answer_waits_for_its_client_and_not_for_ever() {
    const CANCEL: u32 = 8;
    let cluster = kit::patient_nodes(1, "rules: []\n");
    let mut client = Frames::new(HONEST, cluster.nodes[0].grpc, 0);
    // A check that is answered at once, and a call that tonic answers.
    let batch = [0x0a, 0];
    client.say(&[call(1, ENVOY, &REQUEST), call(3, GUBERNATOR, &batch)].concat());
    client.say(&[call(5, ENVOY, &REQUEST), call(7, GUBERNATOR, &batch)].concat());
    for stream in [1, 3, 5, 7] {
        assert!(client.hear(HEADERS, stream).is_ok());
    }
    thread::sleep(Duration::from_millis(200));
    for stream in [1, 3] {
        client.say(&frame(WINDOW_UPDATE, 0, stream, &1_000_u32.to_be_bytes()));
        assert_eq!(client.hear(DATA, stream).map(|answer| answer[0]), Ok(0), "{stream}");
        assert!(client.hear(HEADERS, stream).is_ok(), "trailers of {stream}");
    }
    for stream in [5, 7] {
        assert_eq!(client.hear(DATA, stream), Err(CANCEL), "{stream}");
    }
    client.say(&call(9, ENVOY, &REQUEST));
    assert!(client.hear(HEADERS, 9).is_ok(), "the connection goes on");
}

/// Sends requests on many connections, as fast as they are answered, until it is told to stop.
fn flood(address: SocketAddr, requests: &[u8], answered: &AtomicU64, stop: &AtomicBool) {
    let mut connections: Vec<(TcpStream, usize)> = (0..32)
        .map(|_| {
            let stream = connect_from(ATTACKER, address);
            stream.set_nonblocking(true).unwrap();
            (stream, 0)
        })
        .collect();
    let mut waste = vec![0; 256 << 10];
    while !stop.load(Relaxed) {
        let mut moved = false;
        for (stream, sent) in &mut connections {
            match stream.write(&requests[*sent..]) {
                Ok(more) => {
                    *sent = (*sent + more) % requests.len();
                    moved = true;
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            if let Ok(read) = stream.read(&mut waste) {
                answered.fetch_add(read as u64, Relaxed);
                moved = true;
            }
        }
        if !moved {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_client_with_many_connections_that_always_ask_makes_nobody_wait() {
    let _machine = kit::alone();
    let mut settings = kit::settings(&kit::per_user("1000000/1s", 1_000_000, "share"));
    settings.flags = ["--workers", "1"].map(str::to_owned).to_vec();
    let cluster = Cluster::start(1, settings);
    let node = &cluster.nodes[0];
    let request = format!("GET {} HTTP/1.1\r\nhost: a\r\n\r\n", path_of(1));
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flooding = {
        let (stop, answered, address) = (Arc::clone(&stop), Arc::clone(&answered), node.http);
        let requests = request.repeat(1_000).into_bytes();
        thread::spawn(move || flood(address, &requests, &answered, &stop))
    };
    let mut honest = connect_from(HONEST, node.http);
    let mut took: Vec<u64> = (0..300)
        .map(|_| {
            let asked = monotonic();
            honest.write_all(request.as_bytes()).unwrap();
            let mut answer = [0; 2048];
            let read = honest.read(&mut answer).unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
            thread::sleep(Duration::from_millis(2));
            monotonic() - asked
        })
        .collect();
    stop.store(true, Relaxed);
    flooding.join().unwrap();
    took.sort_unstable();
    let median = Duration::from_nanos(took[took.len() / 2]);
    assert!(answered.load(Relaxed) > 1 << 20, "it is a flood");
    // One round of the node is less than a millisecond; 32 connections that are answered as long as they have something to say are
    // hundreds.
    assert!(
        median < Duration::from_millis(30),
        "{median:?}, at most {:?}",
        Duration::from_nanos(took[took.len() - 1])
    );
}
