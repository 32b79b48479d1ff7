//! The answers to requests.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use server_sent_events::server::{HandlerError, Request, Response};
use server_sent_events::store::StoreState;
use server_sent_events::{Event, Publisher};
use subtle::ConstantTimeEq;

use crate::page::Page;
use crate::{MAX_CHANNEL, MAX_CHANNELS, live, statistics};

/// The paths, without the slash, that the hub itself answers. No channel can have such a name.
const RESERVED: [&str; 3] = ["stats", "stats/live", "healthz"];

/// The longest time that a post waits for its event to be stored.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that an answer needs.
pub struct Hub {
    publisher: Publisher,
    live: Publisher,
    page: Page,
    publish_token: Option<String>,
}

impl Hub {
    pub fn new(publisher: Publisher, live: Publisher, publish_token: Option<String>) -> Self {
        Self { publisher, live, page: Page::new(publish_token.is_some()), publish_token }
    }

    pub fn answer(&self, request: &Request) -> Result<Response, HandlerError> {
        // Not decoded: a comma within a channel's name is written `%2C`.
        let path = request.target().split('?').next().unwrap_or_default();
        match (request.method(), path) {
            ("GET" | "HEAD", "/") => self.page.respond(),
            ("GET" | "HEAD", "/healthz") => uncached(self.health()?),
            ("GET" | "HEAD", "/stats") => {
                let text = statistics::text(&self.publisher.stats()).into_bytes();
                uncached(Response::bytes(statistics::CONTENT_TYPE, text)?)
            }
            ("GET" | "HEAD", "/stats/live") => live::watch(&self.live, request),
            ("GET" | "HEAD", _) => {
                let subscription = self.publisher.subscription(()).channels(channels(path)?);
                Ok(subscription.last_event_id(request.last_event_id()).open()?.into())
            }
            ("POST", _) if !self.may_publish(request) => unauthorized(),
            ("POST", _) => self.publish(&channels(path)?, request),
            _ => {
                let text = "GET watches a channel, POST publishes to it\n";
                Ok(Response::text(text).with_status(405)?.header("Allow", "GET, HEAD, POST")?)
            }
        }
    }

    fn may_publish(&self, request: &Request) -> bool {
        let Some(expected) = &self.publish_token else { return true };
        let Some((scheme, token)) = request.header("Authorization").and_then(|value| value.split_once(' ')) else {
            return false;
        };
        // In constant time, so that the time of an answer reveals no part of the token.
        scheme.eq_ignore_ascii_case("Bearer") && bool::from(expected.as_bytes().ct_eq(token.trim().as_bytes()))
    }

    fn publish(&self, channels: &[String], request: &Request) -> Result<Response, HandlerError> {
        let receipt = match self.publisher.publish_confirmed(channels, event(request)?, STORE_TIMEOUT) {
            Ok(receipt) => receipt,
            Err(error) => {
                let response = Response::text(format!("{error}\n")).with_status(503)?;
                return response.header("Retry-After", "1");
            }
        };
        let id = receipt.id().unwrap_or_default();
        Response::status(204)?.header("Event-Id", id)?.header("X-Watchers", &receipt.subscribers().to_string())
    }

    fn health(&self) -> Result<Response, HandlerError> {
        match self.publisher.store_state() {
            Some(StoreState::Broken { reason, .. }) => {
                Response::text(format!("events are no longer stored: {reason}\n")).with_status(503)
            }
            _ => Ok(Response::text("ok\n")),
        }
    }
}

fn unauthorized() -> Result<Response, HandlerError> {
    let text = "publishing needs the header `Authorization: Bearer TOKEN` with the hub's publish token\n";
    Response::text(text).with_status(401)?.header("WWW-Authenticate", "Bearer realm=\"hub\"")
}

fn uncached(response: Response) -> Result<Response, HandlerError> {
    response.header("Cache-Control", "no-store")
}

/// Returns the channels that a path names.
fn channels(path: &str) -> Result<Vec<String>, HandlerError> {
    let invalid = |reason: String| Err(HandlerError::new(400, reason));
    // The server rejects a path that is not UTF-8.
    let names = path.trim_start_matches('/').split(',').map(|name| percent_decode_str(name).decode_utf8_lossy());
    let channels: Vec<String> = names.map(String::from).collect();
    if channels.len() > MAX_CHANNELS {
        return invalid(format!("the path names {} channels: at most {MAX_CHANNELS} are allowed", channels.len()));
    }
    if let Some(name) = channels.iter().find(|name| RESERVED.contains(&name.as_str())) {
        return invalid(format!("no channel can have the name `{name}`: the hub itself answers GET /{name}"));
    }
    match channels.iter().map(String::len).find(|length| !(1..=MAX_CHANNEL).contains(length)) {
        Some(0) => invalid("a channel's name is empty: /CHANNEL or /A,B".into()),
        Some(length) => invalid(format!("a channel's name is {length} bytes long: at most {MAX_CHANNEL} are allowed")),
        None => Ok(channels),
    }
}

/// Returns the event that a post describes.
fn event(request: &Request) -> Result<Event, HandlerError> {
    let mut event = Event::new(request.body_text()?);
    for (name, value) in request.query() {
        event = match &*name {
            "event" => event.event(value)?,
            "retry" => {
                let milliseconds = value.parse();
                let milliseconds =
                    milliseconds.map_err(|_| HandlerError::new(400, format!("retry={value} is not a number of ms")))?;
                event.retry(Duration::from_millis(milliseconds))?
            }
            _ => {
                let reason = format!("{name:?} is unknown: `event` and `retry` are allowed");
                return Err(HandlerError::new(400, reason));
            }
        };
    }
    Ok(event)
}
