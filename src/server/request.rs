//! A request as the handler sees it.

use std::borrow::Cow;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::body::Framing;
use super::handler_error::HandlerError;
use super::head::{self, Parsed};

/// A request, for the handler given to [`EventServer::serve`](super::EventServer::serve).
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) method: String,
    pub(super) is_http_1_0: bool,
    pub(super) target: String,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) peer_addr: SocketAddr,
    pub(super) client_ip: IpAddr,
    pub(super) last_event_id: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// Returns a builder for a request, to test a handler without a server.
    ///
    /// ```
    /// use server_sent_events::server::{HandlerError, Request, Response};
    ///
    /// fn answer(request: &Request) -> Result<Response, HandlerError> {
    ///     match (request.method(), request.path()) {
    ///         ("POST", "/greet") => Ok(Response::text(format!("hello, {}", request.body_text()?))),
    ///         _ => Response::status(404),
    ///     }
    /// }
    ///
    /// let request = Request::builder("POST", "/greet").body("Ada").build()?;
    /// assert_eq!(answer(&request)?.body(), b"hello, Ada");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(method: &str, target: &str) -> RequestBuilder {
        RequestBuilder {
            start: format!("{method} {target} HTTP/1.1\r\n"),
            fields: String::new(),
            field_count: 0,
            has_host: false,
            body: Vec::new(),
            peer_addr: (Ipv4Addr::LOCALHOST, 50_000).into(),
        }
    }

    /// Returns the method. It is `GET` or `HEAD` unless the server accepts
    /// [bodies](super::EventServerBuilder::max_body).
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Returns the request's target unchanged: the path and the query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the path, percent-decoded, without the query. The segments `.` and `..` are resolved.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the fields of the query, decoded and in order.
    pub fn query(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes())
    }

    /// Returns the first field of this name in the query, decoded.
    pub fn query_value(&self, name: &str) -> Option<String> {
        self.query().find(|(field, _)| field == name).map(|(_, value)| value.into_owned())
    }

    /// Returns the first header of this name, ignoring case. Bytes that are not UTF-8 are replaced by `U+FFFD`.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns the headers in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns the value of the first cookie of this name, unchanged.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let fields = self.headers().filter(|(field, _)| field.eq_ignore_ascii_case("Cookie"));
        let mut cookies = fields.flat_map(|(_, value)| value.split(';')).filter_map(|cookie| cookie.split_once('='));
        cookies.find(|(cookie, _)| cookie.trim() == name).map(|(_, value)| value.trim())
    }

    /// Returns the address of the connection's other end. Behind a proxy, this is the proxy's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer_addr
    }

    /// Returns the client's IP address.
    ///
    /// It is the peer's address, unless that is a [trusted proxy](super::EventServerBuilder::trust_forwarded_for): then
    /// it is the address that the proxy reports.
    pub fn client_ip(&self) -> IpAddr {
        self.client_ip
    }

    /// Returns the ID of the last event that the client saw.
    ///
    /// It comes from the header `Last-Event-ID`, else from `lastEventId` in the query. The client may send any text of
    /// any length. An empty ID counts as none.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Returns the whole body; empty if there is none.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns the body as text.
    ///
    /// # Errors
    ///
    /// Returns an error with status 400 if the body is not UTF-8.
    pub fn body_text(&self) -> Result<&str, HandlerError> {
        std::str::from_utf8(&self.body)
            .map_err(|error| HandlerError::new(400, format!("the body is not UTF-8: {error}")))
    }

    /// Returns the fields of an HTML form in the body (`application/x-www-form-urlencoded`), decoded and in order.
    ///
    /// The type of the body is not checked. Bytes that are not UTF-8 are replaced by `U+FFFD`.
    pub fn form(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(&self.body)
    }

    /// Returns the first field of this name in an HTML form in the body, decoded.
    pub fn form_value(&self, name: &str) -> Option<String> {
        self.form().find(|(field, _)| field == name).map(|(_, value)| value.into_owned())
    }

    pub(super) fn is_http_1_0(&self) -> bool {
        self.is_http_1_0
    }

    /// Returns whether the connection can carry another request after this one (RFC 9112 9.3).
    pub(super) fn keeps_alive(&self) -> bool {
        !self.is_http_1_0 && !self.has_token("Connection", "close")
    }

    /// Returns whether the client waits for permission to send the body (RFC 9110 10.1.1).
    pub(super) fn expects_continue(&self) -> bool {
        !self.is_http_1_0 && self.has_token("Expect", "100-continue")
    }

    /// Returns whether the server can fulfill what the client expects.
    pub(super) fn expects_only_continue(&self) -> bool {
        self.tokens("Expect").all(|token| token.eq_ignore_ascii_case("100-continue"))
    }

    /// Takes the client's address from `X-Forwarded-For`, if the peer is one of these proxies.
    ///
    /// Each proxy appends the address of its own peer. So the client is the last address that is not a trusted proxy's;
    /// the client itself can forge everything before.
    pub(super) fn trust_forwarded_for(&mut self, proxies: &[IpAddr]) {
        if !proxies.contains(&self.client_ip) {
            return;
        }
        let hops: Vec<&str> = self.tokens("X-Forwarded-For").collect();
        let mut client = self.client_ip;
        for hop in hops.into_iter().rev() {
            let Some(ip) = address(hop) else { break };
            client = ip;
            if !proxies.contains(&ip) {
                break;
            }
        }
        self.client_ip = client;
    }

    pub(super) fn set_body(&mut self, body: Vec<u8>) {
        self.body = body;
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|own| own.eq_ignore_ascii_case(token))
    }

    /// Returns the elements of the lists in all headers of this name.
    fn tokens<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.headers().filter(move |(field, _)| field.eq_ignore_ascii_case(name));
        fields.flat_map(|(_, value)| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
    }
}

/// Parses an address as proxies write it: with a port or without.
fn address(hop: &str) -> Option<IpAddr> {
    let bracketed = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let ip = bracketed.parse().ok().or_else(|| hop.parse().ok().map(|address: SocketAddr| address.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}

/// Builds a [`Request`] for a test; from [`Request::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct RequestBuilder {
    start: String,
    fields: String,
    field_count: usize,
    has_host: bool,
    body: Vec<u8>,
    peer_addr: SocketAddr,
}

impl RequestBuilder {
    /// Adds a header. Without a `Host`, the request gets `Host: localhost`.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.has_host |= name.eq_ignore_ascii_case("Host");
        self.fields.extend([name, ": ", value, "\r\n"]);
        self.field_count += 1;
        self
    }

    /// Sets the body, and adds its `Content-Length`. Defaults to no body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the address of the connection's other end, which is also the client's. Defaults to an address of the
    /// loopback.
    pub fn peer_addr(mut self, peer_addr: SocketAddr) -> Self {
        self.peer_addr = peer_addr;
        self
    }

    /// Builds the request as the server would read it.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) with the server's reason if the server would reject such a
    /// request.
    pub fn build(self) -> io::Result<Request> {
        let Self { start, fields, field_count, has_host, body, peer_addr } = self;
        let host = if has_host { "" } else { "Host: localhost\r\n" };
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{start}{host}{fields}{length}\r\n");
        let invalid = |reason| io::Error::new(io::ErrorKind::InvalidInput, reason);
        let (mut request, framing) = match head::parse(head.as_bytes(), peer_addr) {
            Parsed::Complete(request, framing, length) if length == head.len() => (request, framing),
            Parsed::Invalid(rejection) => return Err(invalid(rejection.reason)),
            Parsed::Incomplete | Parsed::Complete(..) => return Err(invalid("the head is malformed")),
        };
        if framing == Framing::Chunked {
            return Err(invalid("set the body without a Transfer-Encoding"));
        }
        if request.headers.len() != field_count + usize::from(!has_host) + usize::from(!body.is_empty()) {
            return Err(invalid("a header or the target contains a line end"));
        }
        request.body = body;
        Ok(request)
    }
}
