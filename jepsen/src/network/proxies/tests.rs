//! This program is node 1 for streams: its process is the one that connects. Node 2 is a listener where node 2 should be.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use super::Proxies;
use crate::{cluster::wait_for, history::monotonic};

const SOON: Duration = Duration::from_secs(20);
/// Long enough for what is not cut to arrive.
const A_WHILE: Duration = Duration::from_millis(300);

fn network() -> Proxies {
    let net = Proxies::create(2).unwrap();
    net.started(1, std::process::id());
    net
}

/// Where node 2 would accept streams.
fn node_2(net: &Proxies) -> TcpListener {
    TcpListener::bind(net.passage.node(2)).unwrap()
}

fn connect(net: &Proxies) -> TcpStream {
    let stream = TcpStream::connect(net.passage.proxy(2)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A stream from node 1 to node 2: its ends.
fn stream(net: &Proxies, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let caller = connect(net);
    let (accepted, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), net.address_for_peers(1), "a node is seen where it says that it is");
    (caller, accepted)
}

/// What arrives within this time, up to a kilobyte.
fn hears(stream: &mut TcpStream, within: Duration) -> String {
    stream.set_read_timeout(Some(within)).unwrap();
    let mut buffer = [0; 1024];
    match stream.read(&mut buffer) {
        Ok(length) => String::from_utf8(buffer[..length].to_vec()).unwrap(),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => "silence".to_owned(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_cut_is_silent_in_one_direction_and_what_was_said_arrives_when_it_heals() {
    let net = network();
    let listener = node_2(&net);
    let (mut one, mut two) = stream(&net, &listener);
    one.write_all(b"before").unwrap();
    assert_eq!(hears(&mut two, SOON), "before");

    net.set(&[(1, 2)], |link| link.cut = true);
    one.write_all(b"meanwhile").unwrap();
    assert_eq!(hears(&mut two, A_WHILE), "silence");
    assert!(net.hits() > 0);
    two.write_all(b"the other way").unwrap();
    assert_eq!(hears(&mut one, SOON), "the other way");
    // A new one is not refused, and does not arrive; nor does one that is closed before the network is healed, ever.
    let mut new = connect(&net);
    new.write_all(b"hello").unwrap();
    drop(connect(&net));
    listener.set_nonblocking(true).unwrap();
    thread::sleep(A_WHILE);
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(hears(&mut new, A_WHILE), "silence");

    net.heal();
    assert_eq!(net.hits(), 0);
    assert_eq!(hears(&mut two, SOON), "meanwhile");
    listener.set_nonblocking(false).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.set_nonblocking(false).unwrap();
    assert_eq!(hears(&mut accepted, SOON), "hello");
    listener.set_nonblocking(true).unwrap();
    thread::sleep(A_WHILE);
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn that_a_side_has_gone_is_told_the_other_but_not_through_a_cut() {
    let net = network();
    let listener = node_2(&net);
    let (one, mut two) = stream(&net, &listener);
    net.set(&[(1, 2)], |link| link.cut = true);
    drop(one);
    assert_eq!(hears(&mut two, A_WHILE), "silence");
    net.heal();
    assert_eq!(hears(&mut two, SOON), "");
    // Nobody listens any more: who connects is told.
    drop((listener, two));
    let mut lost = connect(&net);
    lost.set_read_timeout(Some(SOON)).unwrap();
    assert!(matches!(lost.read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn what_a_cut_holds_back_is_bounded_and_nothing_of_it_is_lost() {
    let net = network();
    let listener = node_2(&net);
    let (mut one, mut two) = stream(&net, &listener);
    net.set(&[(1, 2)], |link| link.cut = true);
    one.set_write_timeout(Some(A_WHILE)).unwrap();
    let part: Vec<u8> = (0..=255).cycle().take(64 << 10).collect();
    let mut written = 0;
    while let Ok(length) = one.write(&part[written % part.len()..]) {
        written += length;
        // The system's own buffers are some megabytes.
        assert!(written < 64 << 20, "the proxy takes more than it may hold");
    }
    assert!(written > 1 << 20);
    net.heal();
    drop(one);
    let mut read = Vec::new();
    two.set_read_timeout(Some(SOON)).unwrap();
    two.read_to_end(&mut read).unwrap();
    assert_eq!(read.len(), written);
    assert!(read.iter().zip(part.iter().cycle()).all(|(read, sent)| read == sent));
}

#[test]
fn a_stream_keeps_its_order_when_its_parts_are_late_lost_or_overtaken() {
    let net = network();
    let listener = node_2(&net);
    let (mut one, mut two) = stream(&net, &listener);
    net.set(&[(1, 2)], |link| {
        (link.delay, link.jitter) = (Duration::from_millis(60), Duration::from_millis(40));
        (link.disorder, link.loss) = (30, 3);
    });
    let begun = monotonic();
    let sending = thread::spawn(move || {
        for number in 0..200_u64 {
            one.write_all(&number.to_be_bytes()).unwrap();
            thread::sleep(Duration::from_millis(2));
        }
        one
    });
    two.set_read_timeout(Some(SOON)).unwrap();
    for number in 0..200_u64 {
        let mut bytes = [0; 8];
        two.read_exact(&mut bytes).unwrap();
        assert!(number > 0 || monotonic() - begun >= 60_000_000, "it is late");
        assert_eq!(u64::from_be_bytes(bytes), number);
    }
    assert!(net.hits() > 20);
    sending.join().unwrap();
}

#[test]
fn a_slow_link_takes_its_time_and_all_streams_of_a_node_share_it() {
    let net = network();
    let listener = node_2(&net);
    let mut streams = [stream(&net, &listener), stream(&net, &listener)];
    net.set_all_from(1, |link| link.kilobits = Some(512));
    let begun = monotonic();
    let bytes = 32 << 10;
    for (one, _) in &mut streams {
        one.write_all(&vec![7; bytes]).unwrap();
    }
    for (_, two) in &mut streams {
        two.set_read_timeout(Some(SOON)).unwrap();
        two.read_exact(&mut vec![0; bytes]).unwrap();
    }
    // A second for both.
    let passed = Duration::from_nanos(monotonic() - begun);
    assert!(passed > Duration::from_millis(900), "{passed:?}");
    // A busy machine passes more on at once.
    assert!(net.hits() > 5);
}

#[test]
fn a_node_that_refuses_connections_keeps_those_that_it_has() {
    let net = network();
    let listener = node_2(&net);
    let (mut one, mut two) = stream(&net, &listener);
    net.set_all_to(2, |link| link.refuses = true);
    let mut refused = connect(&net);
    refused.set_read_timeout(Some(SOON)).unwrap();
    assert!(matches!(refused.read(&mut [0]), Ok(0) | Err(_)));
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(net.hits() > 0);
    one.write_all(b"on").unwrap();
    assert_eq!(hears(&mut two, SOON), "on");
    two.write_all(b"and back").unwrap();
    assert_eq!(hears(&mut one, SOON), "and back");
}

#[test]
fn an_answer_that_is_lost_takes_its_stream_with_it_and_no_question_is() {
    let net = network();
    let listener = node_2(&net);
    net.set(&[(2, 1)], |link| link.lost_answers = 100);
    let (mut one, mut two) = stream(&net, &listener);
    one.write_all(b"question").unwrap();
    assert_eq!(hears(&mut two, SOON), "question");
    two.write_all(b"answer").unwrap();
    one.set_read_timeout(Some(SOON)).unwrap();
    let failed = one.read(&mut [0]).unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::ConnectionReset);
    assert!(net.hits() > 0);
    // The other side sees it too.
    two.set_read_timeout(Some(SOON)).unwrap();
    assert!(matches!(two.read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn who_is_no_node_is_not_let_in() {
    let net = Proxies::create(2).unwrap();
    let listener = node_2(&net);
    listener.set_nonblocking(true).unwrap();
    let mut stranger = connect(&net);
    stranger.set_read_timeout(Some(SOON)).unwrap();
    assert!(matches!(stranger.read(&mut [0]), Ok(0) | Err(_)));
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn networks_side_by_side_do_not_meet() {
    let nets = [network(), network(), network()];
    let places: std::collections::BTreeSet<_> = nets.iter().map(|net| net.address(1)).collect();
    assert_eq!(places.len(), nets.len());
}

/// Numbers that one node sends to the other, in the order in which they arrive: until nothing has come for a while.
fn numbers(net: &Proxies, one: &UdpSocket, two: &UdpSocket, count: u32) -> Vec<u32> {
    for number in 0..count {
        one.send_to(&number.to_be_bytes(), net.passage.proxy(2)).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    two.set_read_timeout(Some(A_WHILE * 2)).unwrap();
    let mut bytes = [0; 4];
    let mut arrived = Vec::new();
    while let Ok((4, from)) = two.recv_from(&mut bytes) {
        assert_eq!(from, net.passage.proxy(1), "a node is seen where it says that it is");
        arrived.push(u32::from_be_bytes(bytes));
    }
    arrived
}

#[test]
fn datagrams_are_lost_doubled_late_or_overtaken_and_answers_come_back() {
    let net = network();
    let (one, two) =
        (UdpSocket::bind(net.passage.node(1)).unwrap(), UdpSocket::bind(net.passage.node(2)).unwrap());
    let all: Vec<u32> = (0..100).collect();
    let sent = |change: &dyn Fn(&mut super::Link)| {
        net.heal();
        net.set(&[(1, 2)], change);
        let mut arrived = numbers(&net, &one, &two, 100);
        let in_order = arrived.is_sorted();
        arrived.sort_unstable();
        (arrived, in_order, net.hits())
    };
    assert_eq!(sent(&|_| {}), (all.clone(), true, 0));
    assert_eq!(sent(&|link| link.cut = true), (Vec::new(), true, 100));
    let twice: Vec<u32> = all.iter().flat_map(|number| [*number; 2]).collect();
    assert_eq!(sent(&|link| link.doubled = true), (twice, true, 100));
    let (arrived, in_order, hits) = sent(&|link| link.disorder = 30);
    assert_eq!((arrived, in_order), (all, false));
    assert!((1..100).contains(&hits));
    let (arrived, _, hits) = sent(&|link| link.loss = 50);
    assert!((10..90).contains(&arrived.len()), "{}", arrived.len());
    assert_eq!(arrived.len() as u64 + hits, 100);

    net.heal();
    two.send_to(b"back", net.passage.proxy(1)).unwrap();
    wait_for("an answer", SOON, || {
        one.set_read_timeout(Some(SOON)).unwrap();
        let mut bytes = [0; 16];
        one.recv_from(&mut bytes).unwrap() == (4, net.passage.proxy(2))
    });
}

#[test]
fn a_node_that_moves_is_found_elsewhere_takes_its_faults_along_and_may_get_the_address_of_another() {
    let net = network();
    let listener = node_2(&net);
    let (former, others) = (net.passage.proxy(2), net.passage.proxy(1));
    net.set(&[(1, 2)], |link| link.cut = true);
    net.move_to(&[(2, 99)]).unwrap();
    assert_eq!(net.host(2), 99);
    assert_eq!(net.passage.proxy(1), others, "the others stay");
    assert!(TcpStream::connect(former).is_err(), "nobody is there");
    let hits = net.hits();
    let mut new = connect(&net);
    new.write_all(b"hello").unwrap();
    listener.set_nonblocking(true).unwrap();
    thread::sleep(A_WHILE);
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(net.hits() > hits, "it is cut off there too");
    net.heal();
    listener.set_nonblocking(false).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    assert_eq!(hears(&mut accepted, SOON), "hello");

    // Each at the address of the other: what is sent comes from where its sender is now.
    net.move_to(&[(1, 99), (2, 1)]).unwrap();
    assert_eq!((net.host(1), net.host(2)), (99, 1));
    let (_caller, accepted) = stream(&net, &listener);
    assert_eq!(accepted.peer_addr().unwrap().ip(), net.address_for_peers(1));
    let (one, two) =
        (UdpSocket::bind(net.passage.node(1)).unwrap(), UdpSocket::bind(net.passage.node(2)).unwrap());
    two.set_read_timeout(Some(SOON)).unwrap();
    one.send_to(b"gossip", net.passage.proxy(2)).unwrap();
    let (length, from) = two.recv_from(&mut [0; 16]).unwrap();
    assert_eq!((length, from), (6, net.passage.proxy(1)));
}
