//! What an application reads from a request.

use tiny_http::Request;

use crate::adapter::body;
use crate::error::{BodyError, OriginRefused};
use crate::http::{self, LAST_EVENT_ID};
use crate::origin::OriginPolicy;

/// Returns the ID of the last event that the client saw, if the request has one.
///
/// The ID comes from the header `Last-Event-ID`, else from `lastEventId` in the query, for clients that cannot set a
/// header. The client may send any text of any length. An empty ID counts as none.
///
/// ```
/// use server_sent_events::adapter::tiny_http::last_event_id;
///
/// let request: tiny_http::Request = tiny_http::TestRequest::new().with_path("/news?lastEventId=a%2D7").into();
/// assert_eq!(last_event_id(&request).as_deref(), Some("a-7"));
/// ```
pub fn last_event_id(request: &Request) -> Option<String> {
    let header = request.headers().iter().find(|header| header.field.equiv(LAST_EVENT_ID));
    http::last_event_id(header.map(|header| header.value.as_str()), request.url())
}

/// Reads the whole body of the request, or rejects it. Blocks until the body has arrived or the connection has ended.
///
/// It reads exactly as many bytes as `Content-Length` announces. [`Request::as_reader`](tiny_http::Request::as_reader)
/// alone has two faults. If the client offers an upgrade, the body never ends (`curl --http2` and Java's `HttpClient`
/// offer HTTP/2 on each plain request). And a truncated body looks whole.
///
/// A request without `Content-Length` has an empty body. A client that waits for `100 Continue` is sent it, unless the
/// body is rejected.
///
/// # Errors
///
/// Returns a [`BodyError`], which has a status for the response:
///
/// * 400 for a body that ends early, for a length that is not one number, and for an encoding other than chunked.
/// * 411 for a chunked body, because `tiny_http` does not report whether it is whole.
/// * 413 for a body larger than `max_bytes`.
///
/// A body is rejected with 411 or 413 before any of it is read.
///
/// ```no_run
/// use server_sent_events::{Publisher, adapter::tiny_http::{Server, read_body}};
/// use tiny_http::Response;
///
/// let publisher = Publisher::new();
/// for mut request in Server::bind("127.0.0.1:5000")?.incoming_requests() {
///     match read_body(&mut request, 64 * 1024) {
///         Ok(body) => {
///             publisher.publish(String::from_utf8_lossy(&body));
///             request.respond(Response::empty(204))?;
///         }
///         Err(error) => {
///             request.respond(Response::from_string(error.to_string()).with_status_code(error.status()))?;
///         }
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_body(request: &mut Request, max_bytes: usize) -> Result<Vec<u8>, BodyError> {
    match body::length(headers(request), max_bytes)? {
        0 => Ok(Vec::new()),
        length => body::read(request.as_reader(), length),
    }
}

/// Checks whether the policy allows the request, by its method, `Host` and `Origin`.
///
/// # Errors
///
/// Returns the errors of [`OriginPolicy::check`], which have a status and a text for the response.
///
/// ```
/// use server_sent_events::{OriginPolicy, adapter::tiny_http::check_origin};
/// use tiny_http::{Header, Method, Request, TestRequest};
///
/// let policy = OriginPolicy::builder().build(([127, 0, 0, 1], 5000))?;
/// let post = |origin: &str| -> Request {
///     let request = TestRequest::new().with_method(Method::Post).with_header("Host: localhost:5000".parse().unwrap());
///     request.with_header(Header::from_bytes("Origin", origin).unwrap()).into()
/// };
/// assert!(check_origin(&post("http://localhost:5000"), &policy).is_ok());
/// assert_eq!(check_origin(&post("https://evil.example"), &policy).unwrap_err().status(), 403);
/// # Ok::<(), server_sent_events::OriginPolicyError>(())
/// ```
pub fn check_origin(request: &Request, policy: &OriginPolicy) -> Result<(), OriginRefused> {
    policy.check(request.method().as_str(), headers(request))
}

/// Returns the names and values of the request's headers, in order.
fn headers(request: &Request) -> impl Iterator<Item = (&str, &str)> {
    request.headers().iter().map(|header| (header.field.as_str().as_str(), header.value.as_str()))
}
