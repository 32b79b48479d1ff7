//! The rules that a request must pass before it is answered: `Host` and `Origin`, the method, and CORS.

use std::io;
use std::net::SocketAddr;

use super::Request;
use crate::http;
use crate::origin::{OriginPolicy, OriginPolicyBuilder};

/// The settings that [`EventServerBuilder`](super::EventServerBuilder) collects for a [`Policy`].
#[derive(Clone, Debug, Default)]
pub(super) struct PolicySettings {
    pub(super) origins: OriginPolicyBuilder,
    pub(super) allow_credentials: bool,
    pub(super) headers: Vec<String>,
}

impl PolicySettings {
    /// Checks the settings, and returns the policy of a server that is bound to `address`.
    ///
    /// # Errors
    ///
    /// Returns an error of the kind `InvalidInput` for a header name that is not a token, and for the settings that
    /// [`OriginPolicyBuilder::build`] rejects.
    pub(super) fn build(self, address: SocketAddr, accepts_bodies: bool) -> io::Result<Policy> {
        let Self { origins, allow_credentials, headers } = self;
        let origins = origins.build(address)?;
        if let Some(name) = headers.iter().find(|name| !http::is_token(name.as_bytes())) {
            let text = format!("invalid header name {name:?}: expected letters, digits and !#$%&'*+-.^_`|~");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut allowed_headers = String::from("Last-Event-ID, Cache-Control");
        for name in headers {
            allowed_headers.extend([", ", &name]);
        }
        Ok(Policy { origins, accepts_bodies, allow_credentials, allowed_headers })
    }
}

/// The rules that a request must pass.
#[derive(Debug)]
pub(super) struct Policy {
    origins: OriginPolicy,
    /// `true` if the handler answers methods other than `GET` and `HEAD`.
    accepts_bodies: bool,
    allow_credentials: bool,
    /// The value of `Access-Control-Allow-Headers`.
    allowed_headers: String,
}

/// The policy's decision about a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The handler may answer. Its response must carry these header lines.
    Allow { headers: String },
    /// The server answers without the handler.
    Respond { status: u16, headers: String, text: String },
}

impl Policy {
    /// Checks a request.
    pub(super) fn check(&self, request: &Request) -> Verdict {
        let allowed = match self.origins.allowed_origin(request.method(), request.headers()) {
            Ok(allowed) => allowed,
            // Before the method: a foreign page is refused, whatever it sends.
            Err(refused) => {
                let (status, headers) = (refused.status(), self.vary().into());
                return Verdict::Respond { status, headers, text: refused.to_string() };
            }
        };
        let headers = self.cors(allowed);
        match request.method() {
            "GET" | "HEAD" => Verdict::Allow { headers },
            "OPTIONS" if self.has_cors() => self.preflight(request, allowed.is_some(), &headers),
            _ if self.accepts_bodies => Verdict::Allow { headers },
            _ => self.method_not_allowed(&headers),
        }
    }

    /// Returns the header line for every response, including responses to invalid input. Without it, a cache could give
    /// one origin the response to another.
    pub(super) fn vary(&self) -> &'static str {
        if self.has_cors() { "Vary: Origin\r\n" } else { "" }
    }

    fn has_cors(&self) -> bool {
        self.origins.allows_foreign_origins()
    }

    /// Returns the methods that the handler answers.
    fn methods(&self) -> &'static str {
        if self.accepts_bodies { "GET, HEAD, POST, PUT, PATCH, DELETE" } else { "GET, HEAD" }
    }

    fn allow(&self) -> String {
        let options = if self.has_cors() { ", OPTIONS" } else { "" };
        format!("Allow: {}{options}\r\n", self.methods())
    }

    /// Returns the header lines that let a page of the allowed origin read the response.
    fn cors(&self, allowed: Option<&str>) -> String {
        let vary = self.vary();
        let Some(origin) = allowed else { return vary.into() };
        let credentials = if self.allow_credentials { "Access-Control-Allow-Credentials: true\r\n" } else { "" };
        format!("Access-Control-Allow-Origin: {origin}\r\n{vary}{credentials}")
    }

    fn preflight(&self, request: &Request, is_allowed: bool, cors: &str) -> Verdict {
        let mut headers = self.allow();
        if is_allowed {
            headers.extend(["Access-Control-Allow-Methods: ", self.methods(), "\r\n"]);
            headers.extend(["Access-Control-Allow-Headers: ", &self.allowed_headers, "\r\n"]);
            // A page of the internet asks for a server in a private network or on the loopback.
            if request.header("Access-Control-Request-Private-Network") == Some("true") {
                headers.push_str("Access-Control-Allow-Private-Network: true\r\n");
            }
            headers.push_str("Access-Control-Max-Age: 86400\r\n");
        }
        headers.push_str(cors);
        Verdict::Respond { status: 204, headers, text: String::new() }
    }

    fn method_not_allowed(&self, cors: &str) -> Verdict {
        let headers = format!("{}{cors}", self.allow());
        Verdict::Respond { status: 405, headers, text: format!("method not allowed: use one of {}", self.methods()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::head::{Parsed, parse};

    const ALLOWED: &str = "https://example.org";

    fn policy(accepts_bodies: bool) -> Policy {
        let origins = OriginPolicy::builder().allow_origin(ALLOWED);
        let settings = PolicySettings { origins, ..PolicySettings::default() };
        settings.build(([127, 0, 0, 1], 5000).into(), accepts_bodies).unwrap()
    }

    fn request(method: &str, origin: &str) -> Request {
        let head = format!("{method} / HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n");
        match parse(head.as_bytes(), ([127, 0, 0, 1], 1).into()) {
            Parsed::Complete(request, ..) => request,
            other => panic!("{other:?}"),
        }
    }

    /// Returns the status with which the server answers itself, or 200.
    fn status(policy: &Policy, method: &str, origin: &str) -> u16 {
        match policy.check(&request(method, origin)) {
            Verdict::Allow { headers } => {
                assert!(headers.contains("Vary: Origin\r\n"), "{headers}");
                assert_eq!(headers.contains("Access-Control-Allow-Origin: "), origin == ALLOWED, "{headers}");
                200
            }
            Verdict::Respond { status, headers, .. } => {
                assert!(headers.contains("Vary: Origin\r\n"), "{headers}");
                status
            }
        }
    }

    #[test]
    fn the_handler_answers_other_methods_if_it_takes_bodies() {
        for (method, without_bodies, with_bodies) in
            [("GET", 200, 200), ("HEAD", 200, 200), ("OPTIONS", 204, 204), ("POST", 405, 200), ("BREW", 405, 200)]
        {
            for origin in [ALLOWED, "http://localhost"] {
                assert_eq!(status(&policy(false), method, origin), without_bodies, "{method} of {origin}");
                assert_eq!(status(&policy(true), method, origin), with_bodies, "{method} of {origin}");
            }
            for origin in ["https://example.com", "tauri://localhost", "null"] {
                assert_eq!(status(&policy(false), method, origin), 403, "{method} of {origin}");
                assert_eq!(status(&policy(true), method, origin), 403, "{method} of {origin}");
            }
        }
    }

    #[test]
    fn without_cors_options_is_a_method_as_any_other() {
        let verdict = |accepts_bodies| {
            let policy = PolicySettings::default().build(([127, 0, 0, 1], 5000).into(), accepts_bodies).unwrap();
            policy.check(&request("OPTIONS", "http://localhost"))
        };
        let (headers, text) = ("Allow: GET, HEAD\r\n".into(), "method not allowed: use one of GET, HEAD".into());
        assert_eq!(verdict(false), Verdict::Respond { status: 405, headers, text });
        assert_eq!(verdict(true), Verdict::Allow { headers: String::new() });
    }

    #[test]
    fn a_preflight_names_the_methods_that_the_handler_answers() {
        for (accepts_bodies, methods) in [(false, "GET, HEAD"), (true, "GET, HEAD, POST, PUT, PATCH, DELETE")] {
            let verdict = policy(accepts_bodies).check(&request("OPTIONS", ALLOWED));
            let Verdict::Respond { status: 204, headers, .. } = verdict else { panic!("{verdict:?}") };
            assert!(headers.contains(&format!("Allow: {methods}, OPTIONS\r\n")), "{headers}");
            assert!(headers.contains(&format!("Access-Control-Allow-Methods: {methods}\r\n")), "{headers}");
        }
    }
}
