//! A small HTTP/1.1 client: one connection, kept open, one question at a time, each with a deadline.
//!
//! It is small on purpose: many of them must not take the processors away from the nodes that they ask.

use std::{
    fmt::Write as _,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none, with the body in the message: for tests.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|fault| panic!("not JSON ({fault}): {} {}", self.status, self.text()))
    }
}

/// Where a node answers, which may change while others ask it.
#[derive(Debug, Clone)]
pub struct Place(Arc<Mutex<SocketAddr>>);

impl Place {
    /// There now.
    pub fn get(&self) -> SocketAddr {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Elsewhere from now on, for all who ask this node.
    pub(crate) fn set(&self, address: SocketAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self(Arc::new(Mutex::new(address)))
    }
}

/// A connection to a node, opened when it is needed.
#[derive(Debug)]
pub struct Client {
    place: Place,
    deadline: Duration,
    stream: Option<TcpStream>,
    /// Where that goes.
    asked: Option<SocketAddr>,
    unread: Vec<u8>,
}

impl Client {
    /// Will ask `address`, and give a question up after `deadline`.
    pub fn new(address: SocketAddr, deadline: Duration) -> Self {
        Self::following(address.into(), deadline)
    }

    /// The same, wherever the node is when it is asked.
    pub fn following(place: Place, deadline: Duration) -> Self {
        Self { place, deadline, stream: None, asked: None, unread: Vec::new() }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// When no whole answer came in time.
    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: node\r\n\r\n").as_bytes())
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// When no whole answer came in time.
    pub fn post(&mut self, path: &str, json: &str) -> io::Result<Response> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            json.len()
        );
        self.send([head.as_bytes(), json.as_bytes()].concat().as_slice())
    }

    /// `METHOD path` with headers and a body.
    ///
    /// # Errors
    /// When no whole answer came in time.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Response> {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: node\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            let _ = write!(request, "{name}: {value}\r\n");
        }
        request.push_str("\r\n");
        request.push_str(body);
        self.send(request.as_bytes())
    }

    /// Sends these bytes as they are, and reads one answer.
    ///
    /// # Errors
    /// When no whole answer came in time.
    pub fn send(&mut self, request: &[u8]) -> io::Result<Response> {
        let result = self.try_send(request);
        let closes =
            |response: &Response| response.header("connection").is_some_and(|value| value == "close");
        if result.as_ref().map_or(true, closes) {
            // Whatever still comes on this connection belongs to a question that was given up.
            self.stream = None;
            self.unread.clear();
        }
        result
    }

    /// Opens a connection to the node if there is none, and never asks somebody else who has got the node's former address.
    fn connect(&mut self) -> io::Result<()> {
        let address = self.place.get();
        if self.asked != Some(address) {
            self.stream = None;
            self.unread.clear();
        }
        if self.stream.is_some() {
            return Ok(());
        }
        let stream = TcpStream::connect_timeout(&address, self.deadline)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.deadline))?;
        stream.set_write_timeout(Some(self.deadline))?;
        if self.place.get() != address {
            return Err(io::Error::other("the node has moved meanwhile"));
        }
        (self.asked, self.stream) = (Some(address), Some(stream));
        Ok(())
    }

    fn try_send(&mut self, request: &[u8]) -> io::Result<Response> {
        self.connect()?;
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        // A node that refuses a large request answers before it has read it: then the rest cannot be written.
        let written = stream.write_all(request);
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some((response, length)) = parse(&self.unread)? {
                self.unread.drain(..length);
                return Ok(response);
            }
            match stream.read(&mut buffer) {
                Ok(0) => return Err(written.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
                Err(error) => return Err(written.err().unwrap_or(error)),
            }
        }
    }
}

/// The first response in `bytes` and its length; `None`: more must come.
fn parse(bytes: &[u8]) -> io::Result<Option<(Response, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_length) = head.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(Ok(0), |(_, length)| length.parse().map_err(io::Error::other))?;
    let end = head_length + length;
    let Some(body) = bytes.get(head_length..end) else { return Ok(None) };
    let status = head.code.ok_or_else(|| io::Error::other("an answer without a status"))?;
    Ok(Some((Response { status, headers, body: body.to_vec() }, end)))
}
