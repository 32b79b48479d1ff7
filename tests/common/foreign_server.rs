//! A server whose every byte the test writes, for the client.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use super::eventually;
use super::http::Client;

/// The head of an event stream that ends with the connection.
pub const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

/// The head of an event stream in chunks.
pub const CHUNKED: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

pub struct ForeignServer(TcpListener);

impl ForeignServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address())
    }

    /// Returns the next connection, if there is one.
    pub fn try_accept(&self) -> Option<Client> {
        match self.0.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false).unwrap();
                Some(Client::on(socket))
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                None
            }
        }
    }

    #[track_caller]
    pub fn accepts(&self) -> Client {
        let mut connection = None;
        eventually("the client connects", || {
            connection = self.try_accept();
            connection.is_some()
        });
        connection.unwrap()
    }

    /// Accepts the next connection and reads the request's head. Returns both.
    #[track_caller]
    pub fn gets_request(&self) -> (Client, String) {
        let mut connection = self.accepts();
        let head = connection.reads_until("\r\n\r\n");
        (connection, head)
    }

    /// Answers the next request with these bytes. Returns the connection, which stays open.
    #[track_caller]
    pub fn answers(&self, response: impl AsRef<[u8]>) -> Client {
        let (mut connection, _) = self.gets_request();
        connection.send(&response);
        connection
    }
}

/// Returns the values of a header in a request's head.
pub fn header<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    fields.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}
