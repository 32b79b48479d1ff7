//! The answers to requests.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use server_sent_events::server::{HandlerError, Request, Response};
use server_sent_events::{Event, Publisher};
use subtle::ConstantTimeEq;

use crate::page::{Page, Publishing};
use crate::store::Store;
use crate::{MAX_CHANNEL, MAX_CHANNELS, live, statistics};

/// The paths, without the slash, that the hub itself answers. No channel can have such a name.
const RESERVED: [&str; 3] = ["stats", "stats/live", "healthz"];

/// The longest time that a post waits for its event to be stored.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// The silence after which an edge is sent the newest ID, so that it can tell an ID that will come from a forged one.
const FOLLOWER_HEARTBEAT: Duration = Duration::from_secs(2);

/// Everything that an answer needs.
pub struct Hub {
    publisher: Publisher,
    live: Publisher,
    page: Page,
    publish_token: Option<String>,
    store: Arc<Store>,
}

impl Hub {
    pub fn new(publisher: Publisher, live: Publisher, publish_token: Option<String>, store: Arc<Store>) -> Self {
        let publishing = match (store.edge(), &publish_token) {
            (Some(edge), _) => Publishing::Elsewhere(edge),
            (None, Some(_)) => Publishing::WithToken,
            (None, None) => Publishing::Open,
        };
        Self { publisher, live, page: Page::new(&publishing), publish_token, store }
    }

    pub fn answer(&self, request: &Request) -> Result<Response, HandlerError> {
        // Not decoded: a comma within a channel's name is written `%2C`.
        let path = request.target().split('?').next().unwrap_or_default();
        match (request.method(), path) {
            ("GET" | "HEAD", "/") => self.page.respond(),
            ("GET" | "HEAD", "/healthz") => uncached(self.health()?),
            ("GET" | "HEAD", "/stats") => {
                let text = statistics::text(&self.publisher, &self.store).into_bytes();
                uncached(Response::bytes(statistics::CONTENT_TYPE, text)?)
            }
            ("GET" | "HEAD", "/stats/live") => live::watch(&self.live, request),
            ("GET" | "HEAD", _) => self.watch(&channels(path)?, request),
            (method, _) => match self.store.edge() {
                Some(edge) => edge.refuse_method(path),
                None if method != "POST" => {
                    let text = "GET watches a channel, POST publishes to it\n";
                    Response::text(text).with_status(405)?.header("Allow", "GET, HEAD, POST")
                }
                None if !self.may_publish(request) => unauthorized(),
                None => self.publish(&channels(path)?, request),
            },
        }
    }

    fn watch(&self, channels: &[String], request: &Request) -> Result<Response, HandlerError> {
        if let Some(edge) = self.store.edge() {
            edge.check(channels)?;
        }
        let mut subscription =
            self.publisher.subscription(()).channels(channels).last_event_id(request.last_event_id());
        if request.query().any(|(name, _)| name == "follow") {
            subscription = subscription.for_follower().heartbeat(FOLLOWER_HEARTBEAT);
        }
        Ok(subscription.open()?.into())
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
        let event = event(request)?;
        // A post that waited in vain would keep others waiting.
        if let Some(reason) = self.store.refusal(&self.publisher) {
            return try_again(&format!("{reason}: try again later"));
        }
        let receipt = match self.publisher.publish_confirmed(channels, event, STORE_TIMEOUT) {
            Ok(receipt) => receipt,
            Err(error) => return try_again(&error.to_string()),
        };
        let id = receipt.id().unwrap_or_default();
        Response::status(204)?.header("Event-Id", id)?.header("X-Watchers", &receipt.subscribers().to_string())
    }

    fn health(&self) -> Result<Response, HandlerError> {
        match self.store.illness(&self.publisher) {
            Some(reason) => Response::text(format!("{reason}\n")).with_status(503),
            None => Ok(Response::text("ok\n")),
        }
    }
}

fn try_again(reason: &str) -> Result<Response, HandlerError> {
    Response::text(format!("{reason}\n")).with_status(503)?.header("Retry-After", "1")
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
    // The server rejects a path that is not UTF-8.
    let names = path.trim_start_matches('/').split(',').map(|name| percent_decode_str(name).decode_utf8_lossy());
    let channels: Vec<String> = names.map(String::from).collect();
    check_channels(&channels).map_err(|reason| HandlerError::new(400, reason))?;
    Ok(channels)
}

/// Checks the number and the names of channels. Returns the reason if they are not allowed.
pub fn check_channels(channels: &[String]) -> Result<(), String> {
    if channels.len() > MAX_CHANNELS {
        return Err(format!("{} channels are named: at most {MAX_CHANNELS} are allowed", channels.len()));
    }
    if let Some(name) = channels.iter().find(|name| RESERVED.contains(&name.as_str())) {
        return Err(format!("no channel can have the name `{name}`: the hub itself answers GET /{name}"));
    }
    match channels.iter().map(String::len).find(|length| !(1..=MAX_CHANNEL).contains(length)) {
        Some(0) => Err("a channel's name is empty: /CHANNEL or /A,B".into()),
        Some(length) => Err(format!("a channel's name is {length} bytes long: at most {MAX_CHANNEL} are allowed")),
        None => Ok(()),
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
