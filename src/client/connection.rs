//! One request at a time: its headers, and the body of its response.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use ureq::config::AutoHeaderValue;
use ureq::http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, LOCATION, TRANSFER_ENCODING,
};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::{Connector, RustlsConnector};
use ureq::{Agent, Body, BodyReader, Error, Timeout};

use super::error::{ConnectError, ConnectionError};
use super::event_source::EndCause;
use super::patience::Patience;
use super::redirect;
use super::stop::StopSignal;
use super::transport::{StoppableConnector, StoppableResolver};

/// The limit of redirects, as in browsers (Fetch 4.4).
const MAX_REDIRECTS: u32 = 20;

/// The number of bytes that are read at once. Each connection has one such buffer.
pub(super) const READ: usize = 64 * 1024;

/// A response's head must fit.
const MAX_HEAD_LEN: usize = 32 * 1024;

/// A header of the request must fit. Each connection has one such buffer.
const OUTPUT_BUFFER: usize = 16 * 1024;

/// A longer timeout counts as this one: ureq adds it to the time.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The settings of all requests.
pub(super) struct RequestSettings {
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) root_certificates: Option<Vec<u8>>,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Option<Duration>,
    pub(super) retry_server_errors: bool,
}

/// The body of a response.
pub(super) type Stream = BodyReader<'static>;

/// The reason why there is no stream to read.
pub(super) enum Failure {
    /// The client does not reconnect.
    End(EndCause),
    /// The client reconnects.
    Lost(ConnectionError),
}

/// Makes the requests.
pub(super) struct Requests {
    agent: Agent,
    url: Uri,
    headers: HeaderMap,
    retry_server_errors: bool,
}

impl Requests {
    pub(super) fn new(
        settings: RequestSettings,
        signal: &Arc<StopSignal>,
        patience: &Arc<Patience>,
    ) -> Result<Self, ConnectError> {
        let RequestSettings { url, headers, root_certificates, connect_timeout, read_timeout, retry_server_errors } =
            settings;
        let connect_timeout = Some(connect_timeout.min(LONGEST_TIMEOUT));
        let read_timeout = read_timeout.map(|timeout| timeout.min(LONGEST_TIMEOUT));
        let mut tls = TlsConfig::builder();
        if let Some(pem) = root_certificates {
            tls = tls.root_certs(certificates(&pem)?);
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .accept_encoding(AutoHeaderValue::None)
            .user_agent(concat!("server-sent-events/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(0)
            .input_buffer_size(READ)
            .max_response_header_size(MAX_HEAD_LEN)
            .output_buffer_size(OUTPUT_BUFFER)
            .timeout_resolve(connect_timeout)
            .timeout_connect(connect_timeout)
            .timeout_send_request(connect_timeout)
            .timeout_recv_response(connect_timeout)
            .timeout_per_read(read_timeout)
            .build();
        let connector = StoppableConnector { signal: Arc::clone(signal), patience: Arc::clone(patience) };
        let connector = Connector::<()>::chain(connector, RustlsConnector::default());
        let agent = Agent::with_parts(config, connector, StoppableResolver(Arc::clone(signal)));
        Ok(Self {
            agent,
            headers: parsed_headers(headers)?,
            url: redirect::parsed(&url).ok_or(ConnectError::Url { url })?,
            retry_server_errors,
        })
    }

    /// Requests the stream, and follows redirects. Returns the body.
    pub(super) fn open(&self, last_event_id: &str) -> Result<Stream, Failure> {
        let (mut url, mut headers) = (self.url.clone(), self.headers.clone());
        // An ID with characters that no header can have is not sent.
        if !last_event_id.is_empty()
            && let Ok(id) = HeaderValue::from_bytes(last_event_id.as_bytes())
        {
            headers.insert(LAST_EVENT_ID, id);
        }
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::get(url.clone()).body(()).expect("BUG: the URL is parsed");
            *request.headers_mut() = headers.clone();
            let response = self.agent.run(request).map_err(|error| Failure::Lost(lost_while_connecting(error)))?;
            let Some(location) = location(&response) else {
                self.check(&response)?;
                return Ok(response.into_body().into_reader());
            };
            let location = String::from_utf8_lossy(location.as_bytes());
            let Some(target) = redirect::target(&url, &location) else {
                return Err(failed(format!("the server redirects to an invalid URL: {location:?}")));
            };
            if !redirect::is_same_origin(&url, &target) {
                headers.remove(AUTHORIZATION);
            }
            headers.remove(COOKIE);
            url = target;
        }
        Err(failed(format!("more than {MAX_REDIRECTS} redirects")))
    }

    fn check(&self, response: &Response<Body>) -> Result<(), Failure> {
        let status = response.status();
        match status {
            StatusCode::OK => {}
            StatusCode::NO_CONTENT => return Err(Failure::End(EndCause::NoContent)),
            _ if self.retry_server_errors && (status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS) => {
                return Err(Failure::Lost(ConnectionError::Status(status.as_u16())));
            }
            _ => return Err(Failure::End(EndCause::Status(status.as_u16()))),
        }
        // Of several, the last one counts.
        let content_type = response.headers().get_all(CONTENT_TYPE).iter().next_back();
        let content_type = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let essence = content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default();
        if essence.trim_matches([' ', '\t']).eq_ignore_ascii_case("text/event-stream") {
            return Ok(());
        }
        Err(Failure::End(EndCause::ContentType(content_type)))
    }
}

/// Returns the `Location` of a redirect. A redirect without one is a response like any other (Fetch).
fn location(response: &Response<Body>) -> Option<&HeaderValue> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    response.headers().get(LOCATION).filter(|_| is_redirect)
}

fn failed(text: String) -> Failure {
    Failure::Lost(ConnectionError::Response { text })
}

/// Reads the next bytes of a body, at least one. Returns `None` if none came in time.
pub(super) fn read(body: &mut Stream, buffer: &mut [u8]) -> Result<Option<usize>, ConnectionError> {
    match body.read(buffer) {
        Ok(0) => Err(ConnectionError::Ended),
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(lost_while_reading(error.into())),
    }
}

fn certificates(pem: &[u8]) -> Result<RootCerts, ConnectError> {
    let items = parse_pem(pem).collect::<Result<Vec<_>, _>>().map_err(|_| ConnectError::Certificates)?;
    let certificates = items.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = certificates.collect();
    if certificates.is_empty() { Err(ConnectError::Certificates) } else { Ok(certificates.into()) }
}

fn parsed_headers(given: Vec<(String, String)>) -> Result<HeaderMap, ConnectError> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(&value).ok());
        match parsed {
            Some((name, value)) if ![LAST_EVENT_ID, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) => {
                headers.append(name, value);
            }
            _ => return Err(ConnectError::Header { name }),
        }
    }
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("text/event-stream"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
    Ok(headers)
}

fn lost_while_connecting(error: Error) -> ConnectionError {
    match error {
        Error::Timeout(_) => ConnectionError::ConnectTimeout,
        other => lost(other),
    }
}

fn lost_while_reading(error: Error) -> ConnectionError {
    match error {
        Error::Timeout(Timeout::PerRead) => ConnectionError::ReadTimeout,
        other => lost(other),
    }
}

fn lost(error: Error) -> ConnectionError {
    match error {
        Error::Io(error) => ConnectionError::Io { kind: error.kind(), text: error.to_string() },
        Error::HostNotFound => {
            ConnectionError::Io { kind: io::ErrorKind::NotFound, text: "the host has no address".into() }
        }
        other => ConnectionError::Response { text: other.to_string() },
    }
}
