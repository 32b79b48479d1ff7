//! Channels that anything can publish to and anything can watch:
//! `cargo run --release --example hub [ADDRESS [STREAMS_ADDRESS]]`.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | a page to watch channels and send to them |
//! | `GET /CHANNEL` or `/A,B` | the event stream of the channel, or of both |
//! | `POST /CHANNEL` or `/A,B`, with `?event=TYPE` and `?retry=MS` if wanted | 204; the body was published as data, to as many as the header `X-Watchers` says |
//! | `GET /stats` | statistics, for Prometheus |
//!
//! Each channel keeps its last 8,192 events, 64 MiB in all, for clients that reconnect. No channel can have the name
//! `stats`, however it is written: to watch it or to publish to it is refused.
//!
//! A body may have 1 MiB, and that much may wait for each stream too: two bodies of 600 KB at once can disconnect every
//! stream of their channel; a browser then resumes. For bodies that large, set `max_queued_bytes` to four times `MAX_BODY`.
//!
//! Told to end, by SIGINT (Ctrl+C) or SIGTERM, it says goodbye to every stream with an event of type `shutdown` and a
//! time of its own after which to come back, and ends within some seconds. Told again, it ends at once.
//!
//! With `--features server` and a second address, the streams are served there too, by an `EventServer`, for many or for
//! strangers; its own page then watches there.
//!
//! ```text
//! curl -N http://127.0.0.1:5000/builds
//! curl --data-binary 'all green' 'http://127.0.0.1:5000/builds?event=done'
//! ```

use std::error::Error;
use std::io;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use server_sent_events::adapter::tiny_http as sse;
use server_sent_events::{Event, History, Publisher, Shutdown};
use signals::EndSignals;
use tiny_http::{Header, Method, Request, Response};

#[path = "../common/output.rs"]
mod output;
#[path = "../common/signals.rs"]
mod signals;
mod statistics;
#[cfg(feature = "server")]
mod streams;

/// A longer body is refused.
const MAX_BODY: usize = 1024 * 1024;
/// The bytes of a channel's name; a longer one is refused.
const MAX_CHANNEL: usize = 256;
/// The channels of one stream or one post; each costs the post some work while all other posts wait.
const MAX_CHANNELS: usize = 64;
/// Descriptors for everything that is no stream.
const SPARE_DESCRIPTORS: u64 = 200;
/// How long the goodbye may take.
const GRACE: Duration = Duration::from_secs(5);
/// No channel's name: there the statistics are.
const STATS: &str = "stats";

fn main() -> Result<(), Box<dyn Error>> {
    let signals = EndSignals::catch()?;
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:5000".into());
    let server = sse::Server::bind(address)?;
    output::say(format_args!("listening on http://{}", server.local_addr()));

    // The server needs two descriptors for each stream, and without a free one it accepts nobody ever again.
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1_024);
    let streams = (descriptors.saturating_sub(SPARE_DESCRIPTORS) / 2).clamp(1, 10_000);
    let publisher = Publisher::builder()
        .max_subscribers(streams as usize)
        .max_channel_name_len(MAX_CHANNEL)
        .max_channels_per_subscriber(MAX_CHANNELS)
        .history(History::new())
        .build()?;

    // Dropped at the end, when the streams have ended: that stops it.
    #[cfg(feature = "server")]
    let streams = match std::env::args().nth(2) {
        Some(address) => Some(streams::serve(&address, server.local_addr(), &publisher)?),
        None => None,
    };
    #[cfg(feature = "server")]
    let streams_port = streams.as_ref().map_or(String::new(), |streams| streams.local_addr().port().to_string());
    #[cfg(not(feature = "server"))]
    let streams_port = String::new();
    #[cfg(feature = "server")]
    if let Some(streams) = &streams {
        output::say(format_args!("streams on http://{}", streams.local_addr()));
    }
    #[cfg(not(feature = "server"))]
    if std::env::args().nth(2).is_some() {
        return Err("a second address needs `--features server`".into());
    }
    let page = include_str!("page.html").replace("STREAMS_PORT", &streams_port);

    let (watched, stop_handle) = (publisher.clone(), server.stop_handle());
    signals.at_the_first(move || {
        shut_down(&watched);
        stop_handle.stop();
    });
    server.serve(4, |request| {
        answer(&publisher, &page, request)
            .inspect_err(|error| output::log(format_args!("a request got no answer: {error}")))
    })?;
    Ok(())
}

fn shut_down(publisher: &Publisher) {
    let farewell = Event::new("the hub ends").event("shutdown").expect("a plain word");
    let cut = publisher.shutdown_with(Shutdown::new(GRACE).farewell(farewell));
    if cut > 0 {
        output::log(format_args!("disconnected {cut} streams: they took longer than {GRACE:?}"));
    }
}

fn answer(publisher: &Publisher, page: &str, mut request: Request) -> io::Result<()> {
    let url = request.url().to_owned();
    let (path, query) = url.split_once('?').unwrap_or((&url, ""));
    let reads = matches!(request.method(), Method::Get | Method::Head);
    if path == "/" && reads {
        let html = Header::from_bytes("Content-Type", "text/html; charset=utf-8").expect("two plain texts");
        return request.respond(Response::from_string(page).with_header(html));
    }
    if path == "/stats" && reads {
        let text = Header::from_bytes("Content-Type", statistics::CONTENT_TYPE).expect("two plain texts");
        return request.respond(Response::from_string(statistics::text(&publisher.stats())).with_header(text));
    }
    if !reads && *request.method() != Method::Post {
        let allow = Header::from_bytes("Allow", "GET, HEAD, POST").expect("two plain texts");
        let text = "GET watches a channel, POST publishes to it\n";
        return request.respond(Response::from_string(text).with_status_code(405).with_header(allow));
    }
    let channels = match channels(path) {
        Ok(channels) => channels,
        Err(reason) => return refuse(request, 400, &reason),
    };
    if reads {
        return match publisher.subscription(()).channels(&channels).last_event_id_from(&request).open() {
            Ok(subscription) => subscription.respond(request),
            Err(error) if error.is_temporary() => publisher.respond_busy(request, Duration::from_secs(5)),
            Err(error) => refuse(request, 400, &error.to_string()),
        };
    }
    let body = match sse::read_body(&mut request, MAX_BODY) {
        Ok(body) => body,
        Err(error) => return refuse(request, error.status(), &error.to_string()),
    };
    match event(body, query) {
        Ok(event) => {
            let queued = publisher.publish_to(&channels, event).subscribers();
            let watchers = Header::from_bytes("X-Watchers", queued.to_string()).expect("two plain texts");
            request.respond(Response::empty(204).with_header(watchers))
        }
        Err(reason) => refuse(request, 400, &reason),
    }
}

/// The channels that a path names.
fn channels(path: &str) -> Result<Vec<String>, String> {
    // Split first: a comma within a name is written `%2C`.
    let names = path.trim_start_matches('/').split(',').map(|name| percent_decode_str(name).decode_utf8());
    let channels: Result<Vec<String>, _> = names.map(|name| name.map(String::from)).collect();
    let channels = channels.map_err(|_| "the channel's name is not UTF-8")?;
    if channels.len() > MAX_CHANNELS {
        return Err(format!("the path names {} channels: at most {MAX_CHANNELS} are allowed", channels.len()));
    }
    if channels.iter().any(|channel| channel == STATS) {
        return Err("no channel can have the name `stats`: GET /stats has the statistics".into());
    }
    match channels.iter().map(String::len).find(|length| !(1..=MAX_CHANNEL).contains(length)) {
        Some(0) => Err("a channel's name is empty: /CHANNEL or /A,B".into()),
        Some(length) => Err(format!("a channel's name is {length} bytes long: at most {MAX_CHANNEL} are allowed")),
        None => Ok(channels),
    }
}

/// The event that a request asks for.
fn event(body: Vec<u8>, query: &str) -> Result<Event, String> {
    let data = String::from_utf8(body).map_err(|error| format!("the body is not UTF-8: {}", error.utf8_error()))?;
    let mut event = Event::new(data);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        event = match &*name {
            "event" => event.event(value),
            "retry" => {
                let milliseconds = value.parse().map_err(|_| format!("retry={value} is not a number of ms"))?;
                event.retry(Duration::from_millis(milliseconds))
            }
            _ => return Err(format!("{name:?} is unknown: `event` and `retry` are allowed")),
        }
        .map_err(|error| error.to_string())?;
    }
    Ok(event)
}

fn refuse(request: Request, status: u16, reason: &str) -> io::Result<()> {
    request.respond(Response::from_string(format!("{reason}\n")).with_status_code(status))
}
