//! Raw HTTP over a socket, to check each byte, and a real client for everything else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
#[cfg(feature = "tiny_http")]
use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

#[cfg(feature = "tiny_http")]
use server_sent_events::{Publisher, adapter::tiny_http::Server};
#[cfg(feature = "tiny_http")]
use tiny_http::Request;

use super::PATIENCE;

/// A request for a stream of the default channel.
pub const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The chunks of the servers whose chunks this crate writes: a stream's first, an event "hello", and the last.
pub const FIRST_CHUNK: &str = "00000002\r\n:\n\r\n";
pub const HELLO_CHUNK: &str = "0000000d\r\ndata: hello\n\n\r\n";
pub const LAST_CHUNK: &str = "0\r\n\r\n";

/// Starts a server that answers its requests on one thread with this function.
#[cfg(feature = "tiny_http")]
pub struct Running {
    pub address: SocketAddr,
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

#[cfg(feature = "tiny_http")]
impl Running {
    pub fn new(mut answer: impl FnMut(Request) + Send + 'static) -> Self {
        // Tests with hundreds of clients run in parallel, and both ends of each connection are in this process.
        super::raise_open_files();
        let server = Arc::new(Server::bind("127.0.0.1:0").unwrap());
        let address = server.local_addr().unwrap();
        let requests = Arc::clone(&server);
        let thread = thread::spawn(move || {
            for request in requests.incoming_requests() {
                answer(request);
            }
        });
        Self { address, server, thread: Some(thread) }
    }

    /// Starts a server that answers every request with a stream of the default channel.
    pub fn streams(publisher: &Publisher) -> Self {
        let publisher = publisher.clone();
        Self::new(move |request| match publisher.subscribe() {
            Ok(subscription) => subscription.respond(request).unwrap(),
            Err(_) => publisher.respond_busy(request, std::time::Duration::from_secs(5)).unwrap(),
        })
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Opens a connection and sends this on it.
    pub fn send(&self, request: &str) -> Client {
        let mut client = self.connect();
        client.send(request);
        client
    }

    /// An event stream as a real client reads it, without the transfer encoding.
    pub fn events(&self) -> Events {
        Events::get(&format!("http://{}/", self.address))
    }
}

#[cfg(feature = "tiny_http")]
impl Drop for Running {
    fn drop(&mut self) {
        self.server.unblock();
        let result = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            result.unwrap().unwrap();
        }
    }
}

/// One connection, byte by byte.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    pub fn on(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(socket))
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &(impl AsRef<[u8]> + ?Sized)) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Returns whether unread data, or the end, has arrived.
    pub fn has_something(&self) -> bool {
        let socket = self.0.get_ref();
        socket.set_nonblocking(true).unwrap();
        let something = socket.peek(&mut [0]).is_ok();
        socket.set_nonblocking(false).unwrap();
        something
    }

    /// Shuts down the sending direction; the client still reads. The server may have closed the connection before.
    pub fn shuts_down_writing(&self) {
        let _ = self.0.get_ref().shutdown(std::net::Shutdown::Write);
    }

    /// Returns the client's own address.
    pub fn address(&self) -> SocketAddr {
        self.0.get_ref().local_addr().unwrap()
    }

    /// Reads until the server closes the connection, gracefully or with a reset.
    pub fn reads_all_there_is(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("not closed in time"),
            _ => bytes,
        }
    }

    /// Resets the connection.
    pub fn resets(self) {
        socket2::SockRef::from(self.0.get_ref()).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    /// Sends this, unless the server has closed the connection.
    pub fn sends_if_it_can(&mut self, bytes: &(impl AsRef<[u8]> + ?Sized)) {
        let _ = self.0.get_mut().write_all(bytes.as_ref());
    }

    pub fn socket(&self) -> &TcpStream {
        self.0.get_ref()
    }

    /// Returns the connection together with the buffered bytes.
    pub fn into_reader(self) -> impl Read {
        self.0
    }

    pub fn into_socket(self) -> TcpStream {
        self.0.into_inner()
    }

    /// Reads response headers, unless the server closes the connection.
    pub fn reads_head_if_it_comes(&mut self) {
        let mut line = String::new();
        while self.0.read_line(&mut line).is_ok_and(|read| read > 2) {
            line.clear();
        }
    }

    /// Reads chunks and appends their data until the text contains this.
    #[track_caller]
    pub fn reads_chunks_until(&mut self, body: &mut String, text: &str) {
        while !body[body.len().saturating_sub(64 * 1024)..].contains(text) {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let size = usize::from_str_radix(line.trim_end(), 16).expect(&line);
            assert_ne!(size, 0, "the stream ended before {text:?}");
            let mut chunk = vec![0; size + 2];
            self.0.read_exact(&mut chunk).unwrap();
            body.push_str(std::str::from_utf8(&chunk[..size]).unwrap());
        }
    }

    /// Reads until the text ends with this, and returns all of it.
    #[track_caller]
    pub fn reads_until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(1) => text.push(byte[0]),
                other => panic!("{other:?} before {end:?}, after {:?}", String::from_utf8_lossy(&text)),
            }
        }
        String::from_utf8(text).unwrap()
    }

    /// Checks that these are the next bytes.
    #[track_caller]
    pub fn reads(&mut self, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        if let Err(error) = self.0.read_exact(&mut bytes) {
            panic!("{error} instead of {expected:?}, after {:?}", String::from_utf8_lossy(&bytes));
        }
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    /// Returns the next bytes, exactly this many.
    #[track_caller]
    pub fn reads_bytes(&mut self, count: usize) -> String {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Reads the response's status line and headers, without the blank line.
    #[track_caller]
    pub fn reads_head(&mut self) -> Head {
        Head(self.reads_until("\r\n\r\n").trim_end().to_owned())
    }

    /// Reads everything until the server closes the connection gracefully.
    #[track_caller]
    pub fn reads_all(&mut self) -> String {
        let mut text = String::new();
        self.0.read_to_string(&mut text).expect("the connection's end");
        text
    }

    /// Checks that the server closes the connection here.
    #[track_caller]
    pub fn reads_the_end(&mut self) {
        assert_eq!(self.reads_all(), "");
    }
}

/// The status line and headers of a response.
pub struct Head(pub String);

impl Head {
    pub fn status(&self) -> &str {
        self.0.split_once("\r\n").map_or(&*self.0, |(line, _)| line)
    }

    /// Returns the values of all headers of this name.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let headers = self.0.lines().skip(1).map(|line| line.split_once(": ").expect("a header"));
        headers.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

/// An event stream as a real HTTP client reads it.
pub struct Events(Box<dyn BufRead + Send>);

impl Events {
    #[track_caller]
    pub fn get(url: &str) -> Self {
        let response = ureq::get(url).call().unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        Self(Box::new(BufReader::new(response.into_body().into_reader())))
    }

    /// Returns the next frame or heartbeat; `None` when the body has ended properly.
    pub fn next_frame(&mut self) -> Option<String> {
        let mut frame = String::new();
        // An empty comment has no blank line after it.
        let is_whole = |frame: &str| {
            frame.ends_with("\n\n") || frame.strip_suffix('\n').is_some_and(|line| line.trim_end() == ":")
        };
        while !is_whole(&frame) {
            if self.0.read_line(&mut frame).unwrap() == 0 {
                assert_eq!(frame, "", "the stream ended within a frame");
                return None;
            }
        }
        Some(frame)
    }

    /// Checks that this is the next frame.
    #[track_caller]
    pub fn gets(&mut self, frame: &str) {
        assert_eq!(self.next_frame().as_deref(), Some(frame));
    }

    /// Returns the next frame that is more than an empty comment or an empty line: rouille's streams are padded with
    /// those.
    pub fn next_event(&mut self) -> Option<String> {
        loop {
            let frame = self.next_frame()?;
            if !["", ":"].contains(&frame.trim()) {
                return Some(frame.trim_start_matches('\n').to_owned());
            }
        }
    }

    #[track_caller]
    pub fn gets_event(&mut self, frame: &str) {
        assert_eq!(self.next_event().as_deref(), Some(frame));
    }

    /// Checks that the stream has ended.
    #[track_caller]
    pub fn ends(&mut self) {
        assert_eq!(self.next_frame(), None);
    }
}
