//! A name service for the nodes of a network of their own: each node is told of all others by a name, which stands for the addresses
//! that they have at that moment, or for nothing yet, or is asked about in vain. As a headless service of Kubernetes is, whose
//! records come late and change.
//!
//! Each node asks for a name of its own, so that what one of them is told is nobody else's. Nodes find this service by files that are
//! mounted over those of the machine, in a mount namespace of the node.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::network::Network;

const PORT: u16 = 53;
/// How often it is looked whether all is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What all names end with.
const SUFFIX: &str = "peers.test";
/// How a node is started that sees other files than the machine has: those of this directory.
const SCRIPT: &str = "for name in resolv.conf nsswitch.conf; do \
                      if [ -e /etc/$name ]; then mount --bind \"$0/$name\" /etc/$name || exit 70; fi; done; exec \"$@\"";

/// How a name is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// It does not exist.
    Unknown,
    /// Nobody answers.
    Unanswered,
}

/// How a question is told of one that is not answered with addresses.
#[derive(Debug, Clone, Copy)]
struct Hiding {
    how: Hidden,
    /// Questions so far.
    asked: u64,
}

/// What the service knows.
#[derive(Debug)]
struct Known {
    net: Arc<Network>,
    nodes: u8,
    hidden: Mutex<BTreeMap<u8, Hiding>>,
    over: AtomicBool,
}

/// A name service; gone when this value is dropped.
#[derive(Debug)]
pub(crate) struct Names {
    known: Arc<Known>,
    directory: PathBuf,
    answers: Option<JoinHandle<()>>,
}

impl Names {
    /// Serves names for the first `nodes` nodes of a network. `directory` gets the files that lead nodes here.
    pub(crate) fn serve(net: Arc<Network>, nodes: u8, directory: &Path) -> Result<Self, String> {
        let Network::Namespaces(namespaces) = &*net else {
            return Err("nodes are led to a name service in network namespaces only".to_owned());
        };
        let address = IpAddr::from(namespaces.address_of_test());
        let within = |what: &str, error: std::io::Error| format!("{what}: {error}");
        let socket = UdpSocket::bind((address, PORT))
            .map_err(|error| within(&format!("no name service at {address}:{PORT}"), error))?;
        socket.set_read_timeout(Some(LOOK_EVERY)).map_err(|error| within("the name service", error))?;
        write_files(directory, address).map_err(|error| within("files for the name service", error))?;
        let known = Arc::new(Known { net, nodes, hidden: Mutex::default(), over: AtomicBool::new(false) });
        let answers = {
            let known = Arc::clone(&known);
            thread::Builder::new()
                .name("names".to_owned())
                .spawn(move || known.answer_all(&socket))
                .map_err(|error| within("the name service", error))?
        };
        Ok(Self { known, directory: directory.to_owned(), answers: Some(answers) })
    }

    /// The name by which a node finds all of them.
    pub(crate) fn of_node(&self, node: u8) -> String {
        format!("n{node}.{SUFFIX}")
    }

    /// How to start a program as a node that asks here, in its network namespace, where it has a mount namespace of its own as well. It is
    /// the process that is started, not a child of it.
    pub(crate) fn command(&self, net: &Network, node: u8, program: &Path) -> Command {
        let mut command = net.command(node, Path::new("sh"));
        command.args(["-c", SCRIPT]).arg(&self.directory).arg(program);
        command
    }

    /// The name that this node asks for stands for nothing from now on.
    pub(crate) fn hide(&self, node: u8, how: Hidden) {
        let mut hidden = self.known.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        hidden.insert(node, Hiding { how, asked: 0 });
    }

    /// It stands for all nodes again.
    pub(crate) fn show(&self, node: u8) {
        let mut hidden = self.known.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        hidden.remove(&node);
    }

    /// How often it was asked for in vain so far.
    pub(crate) fn asked_in_vain(&self, node: u8) -> u64 {
        let hidden = self.known.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        hidden.get(&node).map_or(0, |hiding| hiding.asked)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.known.over.store(true, Relaxed);
        if let Some(answers) = self.answers.take() {
            let _ = answers.join();
        }
    }
}

/// Why nodes cannot be led to a name service here, if so.
pub(crate) fn hindrance() -> Option<String> {
    let tried = tempfile::tempdir().and_then(|directory| {
        write_files(directory.path(), [127, 0, 0, 1].into())?;
        if !Path::new("/etc/resolv.conf").exists() {
            return Err(std::io::Error::other("there is no /etc/resolv.conf"));
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", SCRIPT]).arg(directory.path()).arg("true");
        let ended = command.output()?;
        let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
        if ended.status.success() { Ok(()) } else { Err(std::io::Error::other(said)) }
    });
    tried.err().map(|error| error.to_string())
}

fn write_files(directory: &Path, server: IpAddr) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    let servers = format!("nameserver {server}\noptions timeout:1 attempts:1\n");
    fs::write(directory.join("resolv.conf"), servers)?;
    fs::write(directory.join("nsswitch.conf"), "hosts: files dns\n")
}

impl Known {
    fn answer_all(&self, socket: &UdpSocket) {
        let mut bytes = [0; 512];
        while !self.over.load(Relaxed) {
            let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
            if let Some(answer) = self.answer(&bytes[..length]) {
                // Whoever has asked may be gone.
                let _ = socket.send_to(&answer, from);
            }
        }
    }

    /// `None`: it is not answered.
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let question = Question::read(question)?;
        let Some(node) = question.node() else { return Some(question.answered(UNKNOWN, &[])) };
        let mut hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hiding) = hidden.get_mut(&node) {
            hiding.asked += 1;
            return match hiding.how {
                Hidden::Unknown => Some(question.answered(UNKNOWN, &[])),
                Hidden::Unanswered => None,
            };
        }
        drop(hidden);
        let all = (1..=self.nodes).map(|node| self.net.address_for_peers(node));
        let of_type: Vec<[u8; 4]> = all
            .filter_map(|address| match address {
                IpAddr::V4(address) if question.kind == ADDRESS => Some(address.octets()),
                _ => None,
            })
            .collect();
        Some(question.answered(0, &of_type))
    }
}

/// An address of version 4 is asked for.
const ADDRESS: u16 = 1;
/// There is no such name.
const UNKNOWN: u8 = 3;

/// A question as RFC 1035 writes it.
#[derive(Debug, PartialEq, Eq)]
struct Question<'a> {
    id: [u8; 2],
    name: String,
    kind: u16,
    /// The name, its type and its class, as they were sent.
    asked: &'a [u8],
}

impl<'a> Question<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<2>()?;
        let asked = rest.get(10..)?;
        let (mut at, mut labels) = (0, Vec::new());
        loop {
            let length = usize::from(*asked.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            // Nobody asks with pointers.
            let label = asked.get(at..at + length).filter(|_| length < 64)?;
            labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
            at += length;
        }
        let kind = u16::from_be_bytes(asked.get(at..at + 2)?.try_into().ok()?);
        Some(Self { id: *id, name: labels.join("."), kind, asked: asked.get(..at + 4)? })
    }

    /// The node whose name it is.
    fn node(&self) -> Option<u8> {
        self.name.strip_suffix(SUFFIX)?.strip_suffix('.')?.strip_prefix('n')?.parse().ok()
    }

    fn answered(&self, code: u8, addresses: &[[u8; 4]]) -> Vec<u8> {
        let head = [0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0];
        let mut bytes = [&self.id[..], &head, self.asked].concat();
        for address in addresses {
            // The name of the question again, its type, IN, for no time at all, four bytes.
            bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            bytes.extend(address);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Form;

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes
    }

    #[test]
    fn a_name_stands_for_all_nodes_where_they_are_unless_it_is_hidden() {
        let net = Arc::new(Form::Proxies.create(3).unwrap());
        let known =
            Known { net: Arc::clone(&net), nodes: 2, hidden: Mutex::default(), over: AtomicBool::new(false) };
        let addresses = |node: u8| -> Option<Vec<IpAddr>> {
            let answer = known.answer(&question(&format!("N{node}.peers.TEST"), ADDRESS))?;
            assert_eq!(answer[..2], [7, 9]);
            let all = answer[question(&format!("n{node}.{SUFFIX}"), ADDRESS).len()..].chunks(16);
            Some(all.map(|one| IpAddr::from(<[u8; 4]>::try_from(&one[12..]).unwrap())).collect())
        };
        let of = |nodes: [u8; 2]| nodes.map(|node| net.address_for_peers(node)).to_vec();
        assert_eq!(addresses(1).unwrap(), of([1, 2]));
        net.move_to(&[(1, 99)]);
        assert!(net.address_for_peers(1).to_string().ends_with(".99"));
        assert_eq!(addresses(2).unwrap(), of([1, 2]));

        known.hidden.lock().unwrap().insert(2, Hiding { how: Hidden::Unanswered, asked: 0 });
        assert_eq!(addresses(2), None);
        known.hidden.lock().unwrap().insert(2, Hiding { how: Hidden::Unknown, asked: 0 });
        assert_eq!(addresses(2).unwrap(), [] as [IpAddr; 0]);
        assert_eq!(addresses(1).unwrap(), of([1, 2]), "others are told");
        assert_eq!(known.hidden.lock().unwrap()[&2].asked, 1);
    }

    #[test]
    fn what_is_no_question_is_not_answered_and_another_name_is_unknown() {
        let net = Arc::new(Form::Proxies.create(1).unwrap());
        let known = Known { net, nodes: 1, hidden: Mutex::default(), over: AtomicBool::new(false) };
        let whole = question("n1.peers.test", ADDRESS);
        assert!((0..whole.len()).all(|length| known.answer(&whole[..length]).is_none()));
        let code = |name: &str| known.answer(&question(name, ADDRESS)).unwrap()[3] & 15;
        assert_eq!(
            (code("n1.peers.test"), code("example.com"), code("nx.peers.test")),
            (0, UNKNOWN, UNKNOWN)
        );
        // No address of version 6, but the name is there.
        let other = known.answer(&question("n1.peers.test", 28)).unwrap();
        assert_eq!((other[3] & 15, other[7]), (0, 0));
    }
}
