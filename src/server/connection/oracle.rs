//! Judges what a connection makes of bytes that arrive in any pieces. Another parser (httparse) must read the same requests,
//! and the responses as responses.

use super::*;
use crate::http::ResponseHeaders;
use crate::server::encode::{self, Content};
use crate::server::response::Body;

pub(super) const MAX_BODY: usize = 8_000;
const MAX_REQUESTS: usize = 6;

/// A request as a parser reads it. Every value is text as the handler sees it, except the body.
#[derive(Clone, Debug, PartialEq)]
struct Read {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Read {
    fn closes(&self, version: u8) -> bool {
        let asks = |(name, value): &(String, String)| {
            let mut options = value.split(',').map(str::trim);
            name.eq_ignore_ascii_case("Connection") && options.any(|option| option.eq_ignore_ascii_case("close"))
        };
        version == 0 || self.headers.iter().any(asks)
    }
}

/// The requests in these bytes, as far as another parser reads them: each with the index behind it, and whether it ends
/// the connection.
fn read_by_another(bytes: &[u8]) -> Vec<(Read, usize, bool)> {
    let (mut all, mut at) = (Vec::new(), 0);
    while let Some((read, length, closes)) = next_by_another(&bytes[at..]) {
        at += length;
        all.push((read, at, closes));
    }
    all
}

fn next_by_another(bytes: &[u8]) -> Option<(Read, usize, bool)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(head) = parsed.parse(bytes).ok()? else { return None };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<(String, String)> =
        parsed.headers.iter().map(|field| (field.name.to_owned(), text(field.value))).collect();
    let named = |name: &str| headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| &**value);
    // Of several announcements each parser takes another.
    let announces = |name: &str| ["content-length", "transfer-encoding"].contains(&&*name.to_lowercase());
    if headers.iter().filter(|(name, _)| announces(name)).count() > 1 {
        return None;
    }
    let (body, length) = match (named("Transfer-Encoding"), named("Content-Length")) {
        (Some(_), _) => chunks_by_another(&bytes[head..])?,
        (None, Some(length)) => {
            let length = length.parse().ok()?;
            (bytes[head..].get(..length)?.to_vec(), length)
        }
        (None, None) => (Vec::new(), 0),
    };
    let target = match parsed.path?.split_once("://") {
        Some((scheme, rest)) if ["http", "https"].contains(&&*scheme.to_lowercase()) => {
            let path = rest.find(['/', '?']).map_or("", |at| &rest[at..]);
            format!("{}{path}", if path.starts_with('/') { "" } else { "/" })
        }
        _ => parsed.path?.to_owned(),
    };
    let read = Read { method: parsed.method?.to_owned(), target, headers, body };
    let closes = read.closes(parsed.version?);
    Some((read, head + length, closes))
}

fn chunks_by_another(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let httparse::Status::Complete((line, size)) = httparse::parse_chunk_size(&bytes[at..]).ok()? else {
            return None;
        };
        at += line;
        if size == 0 {
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let trailer = httparse::parse_headers(&bytes[at..], &mut fields).ok()?;
            let httparse::Status::Complete((length, _)) = trailer else { return None };
            return Some((body, at + length));
        }
        let end = at.checked_add(size.try_into().ok()?)?;
        body.extend_from_slice(bytes.get(at..end)?);
        at = end + 2;
        if bytes.get(end..at)? != b"\r\n" {
            return None;
        }
    }
}

/// A connection with a handler that sends each body back, sometime.
struct Driver<'a> {
    connection: Connection,
    budget: Arc<BodyBudget>,
    choose: Box<dyn FnMut(usize) -> usize + 'a>,
    /// The request that the handler has.
    pending: Option<Box<Incoming>>,
    handled: Vec<Read>,
    sent: Vec<u8>,
    /// The connection takes no more requests.
    is_over: bool,
}

impl<'a> Driver<'a> {
    fn new(choose: impl FnMut(usize) -> usize + 'a) -> Self {
        Self {
            connection: Connection::new(([127, 0, 0, 1], 1).into()),
            budget: BodyBudget::new(2 * MAX_BODY),
            choose: Box::new(choose),
            pending: None,
            handled: Vec::new(),
            sent: Vec::new(),
            is_over: false,
        }
    }

    fn apply(&mut self, mut action: Action) {
        loop {
            action = match action {
                Action::Wait | Action::Read | Action::AwaitHandler => return,
                Action::Admit(request, framing) => self.admit(request, framing),
                Action::Continue => {
                    self.sent.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    self.connection.resume()
                }
                Action::Dispatch(incoming) => {
                    let request = &incoming.request;
                    let (method, target, body) = (request.method(), request.target(), request.body());
                    let headers = request.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                    self.handled.push(Read {
                        method: method.into(),
                        target: target.into(),
                        headers,
                        body: body.into(),
                    });
                    self.connection.dispatched(CallId(1), matches!(method, "GET" | "HEAD"));
                    self.pending = Some(incoming);
                    return;
                }
                Action::Reject { rejection, with_body } => {
                    self.connection.respond(encode::rejection(rejection, "", with_body))
                }
                Action::Write => {
                    let (choose, sent) = (&mut self.choose, &mut self.sent);
                    let written = self.connection.write(|slices| {
                        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
                        let count = if choose(2) == 0 { bytes.len() } else { 1 + choose(bytes.len()) };
                        sent.extend_from_slice(&bytes[..count]);
                        Ok(count)
                    });
                    written.expect("a response").unwrap()
                }
                Action::Linger | Action::Close | Action::Withdraw(..) => {
                    self.is_over = true;
                    return;
                }
                Action::MakeRoom | Action::EndStream(..) => panic!("not with these requests: {action:?}"),
            }
        }
    }

    fn admit(&mut self, request: Request, framing: Framing) -> Action {
        let with_body = request.method() != "HEAD";
        let reader = match BodyReader::new(framing, MAX_BODY) {
            _ if !request.expects_only_continue() => Err(Rejection::new(417, "")),
            reader => reader,
        };
        match reader {
            Ok(reader) => {
                let keep_alive = request.keeps_alive() && self.connection.requests() < MAX_REQUESTS;
                let headers = String::new();
                let incoming = Incoming { request, headers, keep_alive, is_followed: false, body_bytes: None };
                self.connection.admitted(Box::new(incoming), reader, &self.budget)
            }
            Err(rejection) => self.connection.respond(encode::rejection(rejection, "", with_body)),
        }
    }

    /// Has the handler respond.
    fn respond(&mut self) {
        let Some(incoming) = self.pending.take() else { return };
        let Incoming { mut request, headers, keep_alive, body_bytes, .. } = *incoming;
        let body = Body::Shared(std::mem::take(&mut request.body).into());
        let content = Content { status: 201, content_type: "text/plain", body, own: &ResponseHeaders::new() };
        let mut outgoing = encode::content(content, &request, &headers, keep_alive);
        drop(body_bytes);
        let action = if outgoing.keep_alive && (self.choose)(2) == 0 {
            // The handler's thread writes the response itself.
            let write = |slices: &[IoSlice<'_>]| {
                let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
                self.sent.extend_from_slice(&bytes);
                Ok(bytes.len())
            };
            assert!(outgoing.write(write).unwrap());
            self.connection.responded_by_handler()
        } else {
            self.connection.respond(outgoing)
        };
        self.apply(action);
    }

    /// Reads all these bytes, in pieces, and then the end of the client's side.
    fn read(&mut self, bytes: &[u8], largest: usize) {
        let mut at = 0;
        while at < bytes.len() && !self.is_over {
            let limit = self.connection.read_limit().min(bytes.len() - at);
            if limit > 0 {
                let count = 1 + (self.choose)(limit.min(largest));
                let action = self.connection.received(&bytes[at..at + count]);
                at += count;
                self.apply(action);
            }
            if limit == 0 || (self.choose)(2) == 0 {
                self.respond();
            }
        }
        while self.pending.is_some() {
            self.respond();
        }
        if !self.is_over {
            let action = self.connection.input_ended(io::ErrorKind::UnexpectedEof);
            self.apply(action);
        }
    }
}

/// The responses in these bytes: status, body, and whether it closes the connection. Fails if they are none.
fn responses(mut bytes: &[u8], is_head: impl Fn(usize) -> bool) -> Vec<(u16, Vec<u8>, bool)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(head)) = parsed.parse(bytes) else {
            panic!("no response: {:?}", String::from_utf8_lossy(bytes));
        };
        bytes = &bytes[head..];
        let named = |name: &str| parsed.headers.iter().find(|field| field.name == name).map(|field| field.value);
        if parsed.code == Some(100) {
            continue;
        }
        let length = std::str::from_utf8(named("Content-Length").unwrap()).unwrap().parse().unwrap();
        let length = if is_head(all.len()) { 0 } else { length };
        all.push((parsed.code.unwrap(), bytes[..length].to_vec(), named("Connection") == Some(b"close")));
        bytes = &bytes[length..];
    }
    all
}

/// Checks what became of these bytes, in pieces of at most this length. If they are valid, all of them must have been
/// handled. `choose` returns a number below another one, by which pieces and pauses are chosen.
pub fn check(bytes: &[u8], largest: usize, choose: impl FnMut(usize) -> usize, is_valid: bool) {
    let mut driver = Driver::new(choose);
    driver.read(bytes, largest);
    let foreign = read_by_another(bytes);
    let handled = &driver.handled;
    assert!(driver.is_over && driver.pending.is_none(), "it waits for more");
    for (n, read) in handled.iter().enumerate() {
        assert_eq!(Some(read), foreign.get(n).map(|(read, ..)| read), "request {n}");
        assert!(n == 0 || !foreign[n - 1].2, "request {n} follows one that ends the connection");
    }
    let before = |n: usize| if n == 0 { 0 } else { foreign[n - 1].1 };
    let responses = responses(&driver.sent, |n| bytes[before(n)..].starts_with(b"HEAD "));
    assert!((handled.len()..=handled.len() + 1).contains(&responses.len()), "{} responses", responses.len());
    for (n, (status, body, closes)) in responses.iter().enumerate() {
        let is_last = n + 1 == responses.len();
        assert!(!closes || is_last, "a response follows one that closes the connection");
        match handled.get(n) {
            Some(read) if read.method == "HEAD" => assert_eq!((*status, &**body), (201, &b""[..])),
            Some(read) => assert_eq!((*status, body), (201, &read.body), "response {n}"),
            None => assert!(*closes && (400..=505).contains(status), "response {n} has status {status}"),
        }
    }
    if is_valid {
        let all = foreign.iter().position(|(.., closes)| *closes).map_or(foreign.len(), |at| at + 1).min(MAX_REQUESTS);
        assert_eq!((handled.len(), responses.len()), (all, all));
    }
}
