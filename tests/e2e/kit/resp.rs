//! A client of the Redis protocol that says and hears bytes.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use super::rules::PATIENCE;

pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    pub fn say(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).unwrap();
    }

    /// A line, without its end; empty when the connection has ended.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// One answer as text: what a line says, with its kind; the text of a bulk string; `[a b]` of an array.
    pub fn answer(&mut self) -> String {
        let line = self.line();
        let count = || line[1..].parse::<i64>().unwrap();
        match line.as_bytes().first() {
            Some(b'$') if count() >= 0 => {
                let mut text = vec![0; count() as usize + 2];
                self.reader.read_exact(&mut text).unwrap();
                String::from_utf8_lossy(&text[..text.len() - 2]).into_owned()
            }
            Some(b'*') if count() >= 0 => {
                let all: Vec<String> = (0..count()).map(|_| self.answer()).collect();
                format!("[{}]", all.join(" "))
            }
            _ => line,
        }
    }

    /// Says a command, and hears its answer.
    pub fn ask(&mut self, words: &[&str]) -> String {
        self.say(&command(words));
        self.answer()
    }

    pub fn five(&mut self) -> Vec<i64> {
        assert_eq!(self.line(), "*5");
        (0..5).map(|_| self.line().strip_prefix(':').unwrap().parse().unwrap()).collect()
    }

    pub fn ends(&mut self) -> bool {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).is_ok()
    }
}

pub fn command(words: &[&str]) -> String {
    let bulks: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{bulks}", words.len())
}
