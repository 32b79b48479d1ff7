//! A connection of a client: the crate's `EventSource`, or a plain socket with the crate's parser.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use server_sent_events::RecvTimeoutError;
use server_sent_events::client::{EventSource, Message, Parser};
use socket2::{Domain, SockRef, Socket, Type};

/// Longer than a server is stopped.
const PATIENCE: Duration = Duration::from_secs(10);
/// Small, so that a client that stalls makes the server wait.
const RECEIVE_BUFFER: usize = 16 * 1024;

pub enum Connection {
    Source {
        source: Box<EventSource>,
        /// The source has reconnected since the last message.
        is_new: Arc<AtomicBool>,
    },
    Plain {
        body: BufReader<TcpStream>,
        parser: Box<Parser>,
        messages: VecDeque<Message>,
        /// The ID of the last message that was taken.
        last_event_id: Arc<str>,
    },
}

/// What has arrived.
pub enum Received {
    /// A message. The connection may be a new one since the last message.
    Message { message: Message, is_new: bool },
    /// Nothing within the time.
    Nothing,
    /// The connection has ended.
    End,
}

impl Connection {
    /// Connects a plain socket. Fails if the server refuses the stream for now.
    pub fn plain(url: &str, target: &str, last_event_id: &str) -> io::Result<Self> {
        let address = url.trim_start_matches("http://").parse::<SocketAddr>().map_err(io::Error::other)?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.connect_timeout(&address.into(), PATIENCE)?;
        let mut socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE))?;
        // The body of a response to HTTP/1.0 is the plain stream.
        let id = if last_event_id.is_empty() { String::new() } else { format!("Last-Event-ID: {last_event_id}\r\n") };
        socket.write_all(format!("GET {target} HTTP/1.0\r\nHost: {address}\r\n{id}\r\n").as_bytes())?;
        let mut body = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if body.read_line(&mut head)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let is_ok = head.split(' ').nth(1) == Some("200") && head.contains("text/event-stream");
        is_ok.then_some(()).ok_or_else(|| io::Error::other(head))?;
        let parser = Box::new(Parser::new().resume_after(last_event_id));
        Ok(Self::Plain { body, parser, messages: VecDeque::new(), last_event_id: last_event_id.into() })
    }

    /// Starts an `EventSource`.
    pub fn source(url: &str, target: &str, last_event_id: &str) -> io::Result<Self> {
        let is_new = Arc::new(AtomicBool::new(false));
        let lost = Arc::clone(&is_new);
        let source = EventSource::builder(format!("{url}{target}"))
            .last_event_id(last_event_id)
            .retry_server_errors(true)
            .reconnection_time(Duration::from_millis(100))
            .max_reconnection_delay(Duration::from_millis(500))
            .connect_timeout(PATIENCE)
            .read_timeout(PATIENCE)
            .on_connection_lost(move |_| lost.store(true, SeqCst))
            .connect()?;
        Ok(Self::Source { source: Box::new(source), is_new })
    }

    pub fn last_event_id(&self) -> &Arc<str> {
        match self {
            Self::Source { source, .. } => source.last_event_id(),
            // What was parsed and not taken yet is requested again.
            Self::Plain { parser, messages, last_event_id, .. } => {
                if messages.is_empty() {
                    parser.last_event_id()
                } else {
                    last_event_id
                }
            }
        }
    }

    /// Waits for the next message. Fails if the stream is not valid.
    pub fn receive(&mut self, patience: Duration) -> Result<Received, String> {
        match self {
            Self::Source { source, is_new } => match source.recv_timeout(patience) {
                Ok(message) => Ok(Received::Message { message, is_new: is_new.swap(false, SeqCst) }),
                Err(RecvTimeoutError::Timeout) => Ok(Received::Nothing),
                Err(RecvTimeoutError::Ended) => Err(format!("the client has ended: {:?}", source.end_cause())),
            },
            Self::Plain { body, parser, messages, last_event_id } => {
                if messages.is_empty() {
                    body.get_ref().set_read_timeout(Some(patience)).map_err(|error| error.to_string())?;
                    let mut buffer = [0; 8 * 1024];
                    match body.read(&mut buffer) {
                        Ok(count @ 1..) => {
                            messages.extend(parser.push(&buffer[..count]).map_err(|error| error.to_string())?);
                        }
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                        Ok(0) | Err(_) => return Ok(Received::End),
                    }
                }
                let Some(message) = messages.pop_front() else { return Ok(Received::Nothing) };
                *last_event_id = Arc::clone(&message.id);
                Ok(Received::Message { message, is_new: false })
            }
        }
    }

    /// Resets the connection, in the middle of whatever is being sent. An `EventSource` closes it.
    pub fn reset(self) {
        if let Self::Plain { body, .. } = self {
            let _ = SockRef::from(body.get_ref()).set_linger(Some(Duration::ZERO));
        }
    }
}
