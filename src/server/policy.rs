//! The rules that a request must pass before it is answered: `Host`, `Origin` (CORS), and the method.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Request;

/// The settings that [`EventServerBuilder`](super::EventServerBuilder) collects for a [`Policy`].
#[derive(Clone, Debug, Default)]
pub(super) struct PolicySettings {
    pub(super) origins: Vec<String>,
    pub(super) allow_null_origin: bool,
    pub(super) allow_credentials: bool,
    pub(super) headers: Vec<String>,
    pub(super) hosts: Vec<String>,
    pub(super) allow_any_host: bool,
}

impl PolicySettings {
    /// Checks the settings, and returns the policy of a server that is bound to `address`.
    ///
    /// # Errors
    ///
    /// Returns an error text for an origin that no browser sends, a header name that is not a token, and a host with a
    /// scheme, a port or a path.
    pub(super) fn build(self, address: SocketAddr, accepts_bodies: bool) -> Result<Policy, String> {
        let Self { mut origins, allow_null_origin, allow_credentials, headers, hosts, allow_any_host } = self;
        for origin in &origins {
            check_origin(origin)
                .map_err(|reason| format!("invalid origin {origin:?}: expected scheme://host[:port]; {reason}"))?;
        }
        if let Some(name) = headers.iter().find(|name| !is_token(name)) {
            return Err(format!("invalid header name {name:?}: expected letters, digits and !#$%&'*+-.^_`|~"));
        }
        if let Some(host) = hosts.iter().find(|host| !is_host(&host.to_ascii_lowercase())) {
            return Err(format!(
                "invalid host {host:?}: expected a name, an IPv4 address or an IPv6 address in brackets, without a port"
            ));
        }
        if allow_null_origin {
            origins.push("null".into());
        }
        let bound = address.ip().to_canonical();
        // A server outside the loopback answers to any host, unless the program names some.
        let hosts = if allow_any_host || (hosts.is_empty() && !bound.is_loopback()) {
            None
        } else {
            Some(Hosts::new(hosts, bound))
        };
        let mut allowed_headers = String::from("Last-Event-ID, Cache-Control");
        for name in headers {
            allowed_headers.extend([", ", &name]);
        }
        Ok(Policy { hosts, origins, allow_credentials, allowed_headers, accepts_bodies })
    }
}

/// The rules that a request must pass.
#[derive(Debug)]
pub(super) struct Policy {
    /// `None` allows any host.
    hosts: Option<Hosts>,
    /// The foreign origins that may read the streams. If there are none, `Origin` is ignored.
    origins: Vec<String>,
    allow_credentials: bool,
    /// The value of `Access-Control-Allow-Headers`.
    allowed_headers: String,
    /// Other methods than `GET` and `HEAD` reach the handler.
    accepts_bodies: bool,
}

/// The policy's decision about a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The handler may answer. Its response must carry these header lines.
    Allow { headers: String },
    /// The server answers without the handler.
    Respond { status: u16, headers: String, text: &'static str },
}

impl Policy {
    /// Checks a request.
    pub(super) fn check(&self, request: &Request) -> Verdict {
        let refuse = |status, text| Verdict::Respond { status, headers: self.vary().into(), text };
        let host = request.header("Host");
        if self.hosts.as_ref().is_some_and(|hosts| !host.is_some_and(|host| hosts.allow(host))) {
            return refuse(403, "this Host is not allowed");
        }
        let origin = request.header("Origin").filter(|_| self.has_cors());
        let allowed = origin.filter(|origin| self.origins.iter().any(|allowed| allowed == origin));
        let is_foreign = |origin: &str| !host.is_some_and(|host| is_same_origin(origin, host));
        if allowed.is_none() && origin.is_some_and(is_foreign) {
            return refuse(403, "this Origin is not allowed");
        }
        let headers = self.cors(allowed);
        match request.method() {
            "GET" | "HEAD" => Verdict::Allow { headers },
            "OPTIONS" if self.has_cors() => self.preflight(allowed.is_some(), &headers),
            _ if self.accepts_bodies => Verdict::Allow { headers },
            _ => {
                let headers = format!("{}{headers}", self.allow());
                Verdict::Respond { status: 405, headers, text: "only GET and HEAD are supported" }
            }
        }
    }

    /// Returns the header line for every response, including responses to invalid input. Without it, a cache could give
    /// one origin the response to another.
    pub(super) fn vary(&self) -> &'static str {
        if self.has_cors() { "Vary: Origin\r\n" } else { "" }
    }

    fn has_cors(&self) -> bool {
        !self.origins.is_empty()
    }

    fn allow(&self) -> &'static str {
        if self.has_cors() { "Allow: GET, HEAD, OPTIONS\r\n" } else { "Allow: GET, HEAD\r\n" }
    }

    /// Returns the header lines that let a page of the allowed origin read the response.
    fn cors(&self, allowed: Option<&str>) -> String {
        let vary = self.vary();
        let Some(origin) = allowed else { return vary.into() };
        let credentials = if self.allow_credentials { "Access-Control-Allow-Credentials: true\r\n" } else { "" };
        format!("Access-Control-Allow-Origin: {origin}\r\n{vary}{credentials}")
    }

    fn preflight(&self, is_allowed: bool, cors: &str) -> Verdict {
        let mut headers = String::from(self.allow());
        if is_allowed {
            headers.extend(["Access-Control-Allow-Methods: GET, HEAD\r\n", "Access-Control-Allow-Headers: "]);
            headers.extend([&*self.allowed_headers, "\r\nAccess-Control-Max-Age: 86400\r\n"]);
        }
        headers.push_str(cors);
        Verdict::Respond { status: 204, headers, text: "" }
    }
}

/// The hosts that a server answers to.
#[derive(Debug)]
struct Hosts {
    names: Vec<String>,
    /// The server's own address.
    bound: IpAddr,
}

impl Hosts {
    fn new(mut names: Vec<String>, bound: IpAddr) -> Self {
        if bound.is_loopback() {
            names.extend(["localhost", "127.0.0.1", "[::1]"].map(String::from));
        }
        Self { names, bound }
    }

    /// Returns whether the value of a `Host` header names an allowed host, on any port.
    fn allow(&self, host: &str) -> bool {
        let (name, _) = split_port(host);
        // The server's address is allowed in every spelling. A foreign page can redirect a name to another machine, but
        // not an address.
        let is_bound = address(name).is_some_and(|address| address == self.bound && !address.is_unspecified());
        is_bound || self.names.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

/// Returns the address if the host is one.
fn address(host: &str) -> Option<IpAddr> {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = match literal {
        Some(literal) => literal.parse::<Ipv6Addr>().ok()?.into(),
        None => host.parse::<Ipv4Addr>().ok()?.into(),
    };
    Some(IpAddr::to_canonical(&address))
}

/// Splits `host[:port]`. A port that is not a number stays part of the host.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => {
            (name, Some(port).filter(|port| !port.is_empty()))
        }
        _ => (host, None),
    }
}

/// Returns whether a page of this origin comes from the server that the `Host` header names.
///
/// The scheme is ignored, since a server behind a TLS proxy does not know it.
fn is_same_origin(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let (origin_host, origin_port) = split_port(authority);
    let (host, port) = split_port(host);
    let default = default_port(scheme);
    origin_host.eq_ignore_ascii_case(host) && origin_port.or(default) == port.or(default)
}

/// Returns the port that browsers leave out for this scheme.
fn default_port(scheme: &str) -> Option<&'static str> {
    match scheme {
        "http" => Some("80"),
        "https" => Some("443"),
        _ => None,
    }
}

/// Checks that a browser may send this as the value of `Origin` (RFC 6454 6.2, WHATWG URL).
///
/// # Errors
///
/// Returns the reason why no browser sends it.
fn check_origin(origin: &str) -> Result<(), &'static str> {
    if origin == "null" {
        return Err("`allow_null_origin` allows null");
    }
    let (scheme, authority) = origin.split_once("://").ok_or("`://` is missing")?;
    let is_scheme_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    if !origin.is_ascii() {
        return Err("browsers send a host that is not ASCII as Punycode (xn--...)");
    }
    if origin.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("browsers send lower case");
    }
    if !scheme.starts_with(|first: char| first.is_ascii_lowercase()) || !scheme.bytes().all(is_scheme_byte) {
        return Err("invalid scheme");
    }
    for (separator, reason) in [
        ('/', "browsers send no path"),
        ('?', "browsers send no query"),
        ('#', "browsers send no fragment"),
        ('@', "browsers send no user"),
        ('*', "each origin is allowed by its full name"),
    ] {
        if authority.contains(separator) {
            return Err(reason);
        }
    }
    check_authority(scheme, authority)
}

fn check_authority(scheme: &str, authority: &str) -> Result<(), &'static str> {
    let (host, port) = match authority.rfind(':') {
        // This colon is within the brackets of an IPv6 address.
        Some(colon) if !authority[colon..].contains(']') => (&authority[..colon], Some(&authority[colon + 1..])),
        _ => (authority, None),
    };
    if !is_host(host) {
        return Err("invalid host");
    }
    let Some(port) = port else { return Ok(()) };
    if port.parse().ok().is_none_or(|number: u16| number.to_string() != port) {
        return Err("invalid port");
    }
    if default_port(scheme) == Some(port) {
        return Err("browsers leave out the default port");
    }
    Ok(())
}

/// Returns whether this is a host as browsers write it: a name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    if let Some(literal) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        // Browsers write an IPv4-mapped address in hexadecimal, the standard library with dots.
        let is_canonical = |address: Ipv6Addr| address.to_ipv4_mapped().is_some() || address.to_string() == literal;
        return !literal.contains('.') && literal.parse().is_ok_and(is_canonical);
    }
    let is_name_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    let ends_in_number = host.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    let is_name = !host.is_empty() && host.bytes().all(is_name_byte);
    // A browser takes a name whose last label is a number as an IPv4 address.
    is_name && (host.ends_with('.') || !ends_in_number || host.parse::<Ipv4Addr>().is_ok())
}

/// Returns whether this is a valid header name (RFC 9110 5.6.2).
fn is_token(name: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_that_a_browser_sends_is_accepted() {
        for origin in [
            "https://example.org",
            "http://example.org:8080",
            "https://example.org:80",
            "http://localhost",
            "http://127.0.0.1:5000",
            "http://[::1]:5000",
            "http://[::ffff:7f00:1]",
            "https://xn--bcher-kva.example",
            "https://a_b.example.org.",
            "tauri://localhost",
            "capacitor://localhost",
            "ionic://localhost:80",
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            "moz-extension://4a5e2c1f-11aa-4c0d-9c2b-7d7d3a1f0e11",
            "vscode-webview://1abc2def",
        ] {
            assert_eq!(check_origin(origin), Ok(()), "{origin}");
        }
    }

    #[test]
    fn an_origin_that_no_browser_sends_is_rejected_with_the_reason() {
        for (origin, reason) in [
            ("*", "`://` is missing"),
            ("", "`://` is missing"),
            ("example.org", "`://` is missing"),
            ("null", "`allow_null_origin` allows null"),
            ("https://example.org:443", "browsers leave out the default port"),
            ("http://example.org:80", "browsers leave out the default port"),
            ("http://user@x", "browsers send no user"),
            ("https://example.org/", "browsers send no path"),
            ("file:///", "browsers send no path"),
            ("https://example.org?a", "browsers send no query"),
            ("https://example.org#a", "browsers send no fragment"),
            ("https://Example.org", "browsers send lower case"),
            ("HTTPS://example.org", "browsers send lower case"),
            ("https://b\u{fc}cher.example", "browsers send a host that is not ASCII as Punycode (xn--...)"),
            ("https://*.example.org", "each origin is allowed by its full name"),
            ("://example.org", "invalid scheme"),
            ("1a://example.org", "invalid scheme"),
            ("https://", "invalid host"),
            ("https://:8080", "invalid host"),
            ("https://a b", "invalid host"),
            ("https://a\r\nx: y", "invalid host"),
            ("http://127.1", "invalid host"),
            ("http://[::1", "invalid host"),
            ("http://[0:0::1]", "invalid host"),
            ("http://::1", "invalid host"),
            ("https://example.org:", "invalid port"),
            ("https://example.org:0443", "invalid port"),
            ("https://example.org:65536", "invalid port"),
        ] {
            assert_eq!(check_origin(origin), Err(reason), "{origin:?}");
        }
    }

    #[test]
    fn the_same_origin_is_that_of_host_whatever_the_scheme() {
        for (origin, host, is_same) in [
            ("http://localhost:5000", "localhost:5000", true),
            ("https://localhost:5000", "localhost:5000", true),
            ("https://example.org", "example.org", true),
            ("https://example.org", "EXAMPLE.org:443", true),
            ("http://example.org", "example.org:80", true),
            ("http://[::1]:5000", "[::1]:5000", true),
            ("https://example.org", "example.org:80", false),
            ("http://localhost:5001", "localhost:5000", false),
            ("http://localhost", "localhost:5000", false),
            ("http://localhost:5000", "localhost", false),
            ("http://127.0.0.1:5000", "localhost:5000", false),
            ("http://a.example.org", "example.org", false),
            ("null", "null", false),
            ("localhost", "localhost", false),
        ] {
            assert_eq!(is_same_origin(origin, host), is_same, "{origin} at {host}");
        }
    }

    #[test]
    fn a_server_answers_at_its_own_address_in_every_spelling() {
        let hosts = |bound: &str| Hosts::new(Vec::new(), bound.parse::<IpAddr>().unwrap().to_canonical());
        for (bound, host, is_allowed) in [
            ("127.0.0.2", "127.0.0.2:5000", true),
            ("127.0.0.2", "localhost", true),
            ("127.0.0.2", "127.0.0.3", false),
            ("::ffff:127.0.0.1", "[::ffff:127.0.0.1]:5000", true),
            ("::ffff:127.0.0.1", "[::ffff:7f00:1]", true),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
            ("::ffff:127.0.0.1", "example.org", false),
            ("::1", "[0:0:0:0:0:0:0:1]", true),
            ("192.0.2.1", "192.0.2.1:80", true),
            ("192.0.2.1", "localhost", false),
            ("0.0.0.0", "0.0.0.0", false),
            ("::", "[::]", false),
        ] {
            assert_eq!(hosts(bound).allow(host), is_allowed, "{host} at {bound}");
        }
    }
}
