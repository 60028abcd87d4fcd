//! Asks name servers for the hosts of a service, as resolv.conf(5) says: which servers, how long each is waited for, and what is
//! added to a name that is not a whole one.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE, rdata::RData};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::fabric;

const CONFIGURATION: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// As the system's own resolver has them.
const MAX_SERVERS: usize = 3;
const MAX_SUFFIXES: usize = 6;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_ATTEMPTS: u32 = 2;
const MAX_ATTEMPTS: u32 = 5;
const MAX_DOTS: usize = 15;
/// What an answer by UDP has without an extension that says more. A longer one is asked for by TCP.
const MAX_DATAGRAM_BYTES: usize = 512;

/// What the system's configuration says.
#[derive(Debug, PartialEq, Eq)]
struct Configuration {
    servers: Vec<SocketAddr>,
    /// What is added to names.
    suffixes: Vec<String>,
    /// A name with so many dots is tried as it is first.
    dots: usize,
    timeout: Duration,
    attempts: u32,
}

impl Configuration {
    fn read(text: &str) -> Self {
        let mut read = Self {
            servers: Vec::new(),
            suffixes: Vec::new(),
            dots: 1,
            timeout: DEFAULT_TIMEOUT,
            attempts: DEFAULT_ATTEMPTS,
        };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if read.servers.len() < MAX_SERVERS => {
                    // With the name of an interface behind it, it is on a link; that is left to the system.
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    read.servers.extend(address.map(|address| SocketAddr::new(address, PORT)));
                }
                // The last one counts.
                Some("search" | "domain") => {
                    read.suffixes = words.take(MAX_SUFFIXES).map(str::to_owned).collect();
                }
                Some("options") => words.for_each(|option| read.option(option)),
                _ => {}
            }
        }
        if read.servers.is_empty() {
            read.servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
        }
        read
    }

    fn option(&mut self, option: &str) {
        let Some((name, Ok(value))) =
            option.split_once(':').map(|(name, value)| (name, value.parse::<u32>()))
        else {
            return;
        };
        match name {
            "ndots" => self.dots = (value as usize).min(MAX_DOTS),
            "timeout" => self.timeout = Duration::from_secs(value.max(1).into()).min(MAX_TIMEOUT),
            "attempts" => self.attempts = value.clamp(1, MAX_ATTEMPTS),
            _ => {}
        }
    }

    /// The whole names that a name may stand for, in the order in which they are tried.
    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(whole) = name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let with_suffix = |suffix: &String| format!("{name}.{}", suffix.trim_matches('.'));
        let mut names: Vec<String> =
            self.suffixes.iter().filter(|suffix| *suffix != ".").map(with_suffix).collect();
        let place = if name.matches('.').count() >= self.dots { 0 } else { names.len() };
        names.insert(place, name.to_owned());
        names
    }
}

/// The hosts of a service, and the port of each.
pub(super) async fn hosts_of(service: &str) -> io::Result<Vec<(String, u16)>> {
    let text = fabric::blocking(|| fs::read_to_string(CONFIGURATION)).await.map_err(io::Error::other)?;
    // Without a file the system asks this machine.
    let configuration = Configuration::read(&text.unwrap_or_default());
    let mut fault = None;
    for name in configuration.candidates(service) {
        match ask_any(&name, &configuration).await {
            Ok(hosts) if !hosts.is_empty() => return Ok(hosts),
            Ok(_) => {}
            // It would not answer about the next one either.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
            Err(error) => fault = Some(error),
        }
    }
    Err(fault.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the service has no SRV record")))
}

/// Asks one server after the other until one knows: no host, if it knows that there is none.
async fn ask_any(name: &str, configuration: &Configuration) -> io::Result<Vec<(String, u16)>> {
    let mut fault = None;
    for _ in 0..configuration.attempts {
        for server in &configuration.servers {
            match timeout(configuration.timeout, ask(name, *server)).await {
                Ok(Ok(hosts)) => return Ok(hosts),
                Ok(Err(error)) => fault = Some(error),
                Err(_) => {
                    let silent = format!("the name server {server} does not answer");
                    fault = Some(io::Error::new(io::ErrorKind::TimedOut, silent));
                }
            }
        }
    }
    Err(fault.unwrap_or_else(|| io::Error::other("no name server was asked")))
}

async fn ask(name: &str, server: SocketAddr) -> io::Result<Vec<(String, u16)>> {
    let id = u16::from_be_bytes(fabric::random_bytes());
    let question = question(name, id)?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    // What others send to it is not read.
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut bytes = [0; MAX_DATAGRAM_BYTES];
    loop {
        let length = socket.recv(&mut bytes).await?;
        match hosts_in(&bytes[..length], name, id)? {
            Answered::Hosts(hosts) => return Ok(hosts),
            Answered::CutOff => break,
            Answered::SomethingElse => {}
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&(question.len() as u16).to_be_bytes()).await?;
    stream.write_all(&question).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    match hosts_in(&bytes, name, id)? {
        Answered::Hosts(hosts) => Ok(hosts),
        Answered::CutOff | Answered::SomethingElse => {
            Err(refused(server, "its answer is none to the question"))
        }
    }
}

fn question(name: &str, id: u16) -> io::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(invalid)?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::SRV), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(invalid)
}

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
enum Answered {
    Hosts(Vec<(String, u16)>),
    /// It would be longer.
    CutOff,
    /// No answer to this question.
    SomethingElse,
}

fn hosts_in(bytes: &[u8], name: &str, id: u16) -> io::Result<Answered> {
    let packet = match Packet::parse(bytes) {
        Ok(packet) => packet,
        // Whoever guesses the port need not write what can be read.
        Err(_) if bytes.first_chunk() != Some(&id.to_be_bytes()) => return Ok(Answered::SomethingElse),
        Err(error) => return Err(invalid(error)),
    };
    let asks = |question: &Question<'_>| question.qname.to_string().eq_ignore_ascii_case(name);
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !packet.questions.iter().any(asks) {
        return Ok(Answered::SomethingElse);
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Ok(Answered::CutOff);
    }
    match packet.rcode() {
        RCODE::NoError | RCODE::NameError => {}
        code => return Err(io::Error::other(format!("the name server answers {code:?}"))),
    }
    let hosts = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::SRV(service) => Some((service.target.to_string(), service.port)),
        _ => None,
    });
    // With the root as its host a service says that it is not to be had.
    Ok(Answered::Hosts(hosts.filter(|(host, port)| !host.is_empty() && *port != 0).collect()))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn refused(server: SocketAddr, why: &str) -> io::Error {
    io::Error::other(format!("the name server {server}: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_configuration_is_read_as_the_system_reads_it() {
        let text = "# a comment\nnameserver 10.0.0.1 ; the first\nnameserver fe80::1%eth0\nnameserver ::1\n\
                    domain example.org\nsearch default.svc.cluster.local svc.cluster.local\n\
                    options ndots:5 timeout:1 attempts:9 rotate\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n";
        let read = Configuration::read(text);
        let servers = ["10.0.0.1:53", "[::1]:53", "10.0.0.3:53"].map(|one| one.parse().unwrap());
        assert_eq!(read.servers, servers);
        assert_eq!((read.dots, read.timeout, read.attempts), (5, Duration::from_secs(1), MAX_ATTEMPTS));
        assert_eq!(
            read.candidates("_tidegate._udp.peers"),
            [
                "_tidegate._udp.peers.default.svc.cluster.local",
                "_tidegate._udp.peers.svc.cluster.local",
                "_tidegate._udp.peers"
            ]
        );
        assert_eq!(read.candidates("_t._udp.example.com."), ["_t._udp.example.com"]);
        let none = Configuration::read("");
        assert_eq!(none.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(none.candidates("_t._udp.a"), ["_t._udp.a"]);
    }

    /// An answer as a server writes it, with the name of the question used again.
    fn answer(id: u16, flags: u16, hosts: &[(&str, u16)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [id, flags, 1, hosts.len() as u16, 0, 0] {
            bytes.extend(number.to_be_bytes());
        }
        let name = |bytes: &mut Vec<u8>, name: &str| {
            for label in name.split('.').filter(|label| !label.is_empty()) {
                bytes.push(label.len() as u8);
                bytes.extend(label.as_bytes());
            }
            bytes.push(0);
        };
        name(&mut bytes, "_T._udp.example.com");
        bytes.extend([0, 33, 0, 1]);
        for (host, port) in hosts {
            let mut target = Vec::new();
            name(&mut target, host);
            bytes.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
            bytes.extend((target.len() as u16 + 6).to_be_bytes());
            bytes.extend([0, 10, 0, 5]);
            bytes.extend(port.to_be_bytes());
            bytes.extend(target);
        }
        bytes
    }

    #[test]
    fn the_hosts_of_a_service_are_those_of_its_records() {
        let read = |bytes: &[u8]| hosts_in(bytes, "_t._udp.example.com", 7);
        let two = answer(7, 0x8180, &[("n1.example.com", 7803), ("n2.example.com", 7813), ("", 9)]);
        let hosts = [("n1.example.com", 7803), ("n2.example.com", 7813)];
        let hosts = hosts.map(|(host, port)| (host.to_owned(), port)).to_vec();
        assert_eq!(read(&two).unwrap(), Answered::Hosts(hosts));
        assert_eq!(read(&answer(8, 0x8180, &[])).unwrap(), Answered::SomethingElse, "another question's");
        assert_eq!(read(&answer(7, 0x0100, &[])).unwrap(), Answered::SomethingElse, "no answer at all");
        assert_eq!(read(&answer(7, 0x8380, &[])).unwrap(), Answered::CutOff);
        assert_eq!(read(&answer(7, 0x8183, &[])).unwrap(), Answered::Hosts(Vec::new()), "there is none");
        assert!(read(&answer(7, 0x8182, &[])).is_err(), "the server has failed");
        assert!(read(&two[..40]).is_err());
        let other = question("_t._udp.example.org", 7).unwrap();
        assert_eq!(hosts_in(&other, "_t._udp.example.com", 7).unwrap(), Answered::SomethingElse);
        assert!(question(&"x".repeat(70), 7).is_err());
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = hosts_in(&bytes, "_t._udp.example.com", 7);
        }

        #[test]
        fn a_damaged_answer_is_read_or_refused(place in 0usize..100, byte in any::<u8>()) {
            let mut bytes = answer(7, 0x8180, &[("n1.example.com", 7803), ("n2.example.com", 7813)]);
            let place = place % bytes.len();
            bytes[place] = byte;
            let _ = hosts_in(&bytes, "_t._udp.example.com", 7);
        }
    }
}
