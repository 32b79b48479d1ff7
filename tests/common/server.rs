//! EventServer, the resources it holds, and its responses as an independent parser reads them.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use server_sent_events::Publisher;
use server_sent_events::server::{EventServer, EventServerBuilder, Response, RunningServer};

use super::PATIENCE;
use super::http::{Client, FIRST_CHUNK, GET};

/// Starts a server with these settings that answers every request with a stream of the default channel.
#[track_caller]
pub fn serve(settings: EventServerBuilder, publisher: &Publisher) -> RunningServer {
    let publisher = publisher.clone();
    let streams = move |request: &server_sent_events::server::Request| -> Response {
        publisher.subscription(()).last_event_id(request.last_event_id()).open().into()
    };
    settings.bind("127.0.0.1:0").unwrap().spawn(streams).unwrap()
}

/// Starts one with the default settings.
#[track_caller]
pub fn streams(publisher: &Publisher) -> RunningServer {
    serve(EventServer::builder(), publisher)
}

/// Opens a connection and sends this on it.
#[track_caller]
pub fn send(address: SocketAddr, request: impl AsRef<[u8]>) -> Client {
    let mut client = Client::connect(address);
    client.send(&request);
    client
}

/// Opens a stream and reads the response headers and the first comment.
#[track_caller]
pub fn opened(address: SocketAddr) -> Client {
    let mut client = send(address, GET);
    client.reads_head();
    client.reads(FIRST_CHUNK);
    client
}

/// Requests a stream on a connection whose own kernel buffers as little as possible, and does not read.
#[track_caller]
pub fn stalled(address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut socket: TcpStream = socket.into();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(GET.as_bytes()).unwrap();
    socket
}

/// A whole response.
#[derive(Debug)]
pub struct ParsedResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl ParsedResponse {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// Sends this and returns the response, which must be well-formed and the only one if the server then closes the
/// connection.
#[track_caller]
pub fn response_to(address: SocketAddr, request: impl AsRef<[u8]>) -> ParsedResponse {
    let is_head = request.as_ref().starts_with(b"HEAD ");
    reads_response(&mut send(address, request), is_head)
}

/// Reads the next response on a connection, which stays open if the response allows it.
#[track_caller]
pub fn reads_response(client: &mut Client, is_head: bool) -> ParsedResponse {
    let head = client.reads_head();
    let length: usize = head.values("Content-Length").first().map_or(0, |length| length.parse().unwrap());
    let body = match head.values("Connection")[..] {
        ["close"] => client.reads_all(),
        _ if is_head => String::new(),
        _ => client.reads_bytes(length),
    };
    well_formed(&format!("{}\r\n\r\n{body}", head.0), is_head)
}

/// Parses one response with httparse, and checks that it is well-formed.
#[track_caller]
pub fn well_formed(text: &str, is_head: bool) -> ParsedResponse {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = parsed.parse(text.as_bytes()) else {
        panic!("no answer: {text:?}");
    };
    let value = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_owned();
    let headers = parsed.headers.iter().map(|field| (field.name.to_owned(), value(field.value))).collect();
    let response = ParsedResponse { status: parsed.code.unwrap(), headers, body: text[length..].to_owned() };
    let stated_length = response.header("Content-Length").map(|length| length.parse::<usize>().unwrap());
    let is_chunked = response.header("Transfer-Encoding") == Some("chunked");
    if is_head || response.status == 204 {
        assert_eq!(response.body, "", "{text:?}");
    } else if !is_chunked {
        assert!(stated_length.is_none_or(|length| length == response.body.len()), "{text:?}");
    }
    assert!(response.status != 204 || stated_length.is_none(), "{text:?}");
    assert!(matches!(response.header("Connection"), None | Some("close")), "{text:?}");
    assert!(httpdate::parse_http_date(response.header("Date").expect("a date")).is_ok(), "{text:?}");
    response
}
