//! Channels that anything can publish to and anything can watch, over HTTP: a program to run.
//!
//! ```text
//! cargo run --release --features server,client,sqlite,redis --example hub -- --help
//! cargo install --path . --no-default-features --features server,client,sqlite,redis --example hub
//! ```
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | a page with live figures, which also watches channels and sends to them |
//! | `GET /CHANNEL` or `/A,B` | the event stream of the channel, or of both |
//! | `POST /CHANNEL` or `/A,B`, with `?event=TYPE` and `?retry=MS` if wanted | publishes the body: 204 with its ID in `Event-Id` |
//! | `GET /stats` | statistics, for Prometheus |
//! | `GET /stats/live` | an event stream with the page's figures, once per second |
//! | `GET /CHANNEL?follow` | the stream as another hub, an edge, follows it |
//! | `GET /healthz` | 200, or 503 if events are no longer stored, if they have not arrived yet from an origin or from Redis, or if that has been away for 30 s; for health checks |
//!
//! With the feature `sqlite`, `--history FILE` keeps the events in a file: a restart is no gap.
//!
//! With the feature `redis`, `--redis URL` shares the events with all hubs of this Redis: each of them serves any client.
//! `docs/scale.md` has more.
//!
//! With `--upstream URL CHANNEL...` it is an edge: it follows channels of another hub, its origin, and serves them with the
//! same IDs. A client can resume on the origin and on each edge. `docs/edges.md` has more.
//!
//! `hub watch URL` and `hub publish URL` are its clients for a terminal.
//!
//! On SIGINT (Ctrl+C) or SIGTERM, every stream gets an event of type `shutdown` and a reconnection time of its own. The
//! program ends within some seconds, and at once on a second signal.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use answer::Hub;
use options::{Command, Options};
use server_sent_events::server::{EventServer, EventServerBuilder};
use server_sent_events::{Event, History, Publisher, Shutdown};
use signals::EndSignals;

mod answer;
mod edge;
mod live;
mod options;
#[path = "../common/output.rs"]
mod output;
mod page;
mod publish;
#[path = "../common/signals.rs"]
mod signals;
mod statistics;
mod store;
mod watch;

/// A larger body is answered with 413.
const MAX_BODY: usize = 1024 * 1024;
/// The largest name of a channel, in bytes.
const MAX_CHANNEL: usize = 256;
/// The limit of channels per stream and per post. Each channel costs a post some work while all other posts wait.
const MAX_CHANNELS: usize = 64;
/// The number of descriptors for everything but streams.
const SPARE_DESCRIPTORS: u64 = 64;
const DEFAULT_MAX_STREAMS: u64 = 10_000;
/// How long a shutdown may take.
const GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mut options = Options::from_command_line();
    let result = match options.command.take() {
        Some(Command::Watch(options)) => watch::run(options),
        Some(Command::Publish(options)) => publish::run(options),
        None => serve(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::log(format_args!("hub: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    let signals = EndSignals::catch()?;
    let store = Arc::new(options.store());
    let max_streams = max_streams(options.max_streams)?;
    let server = settings(&options).max_streams(max_streams).bind(options.address());
    let server = server.map_err(|error| options::bind_error(options.address(), error))?;
    let history = store.history(History::new().max_events_per_channel(options.history_events));
    let publisher = Publisher::builder()
        .max_subscribers(max_streams)
        .max_channel_name_len(MAX_CHANNEL)
        .max_channels_per_subscriber(MAX_CHANNELS)
        // Room for a few of the largest events at once. Their frames are shared by all streams.
        .max_queued_bytes(4 * MAX_BODY)
        .history(history)
        .build()
        .map_err(options::build_error)?;
    let live = live::start(publisher.downgrade(), Arc::clone(&store))?;

    output::say(format_args!("listening on http://{}", server.local_addr()));
    let (streams, figures, stop_handle) = (publisher.clone(), live.clone(), server.stop_handle());
    signals.at_the_first(move || {
        shut_down(&streams, &figures);
        // `main` then drops the last handle, which waits for the history's file to be closed.
        drop((streams, figures));
        stop_handle.stop();
    });
    let hub = Hub::new(publisher, live, options.publish_token, store);
    Ok(server.serve(move |request| hub.answer(request))?)
}

fn settings(options: &Options) -> EventServerBuilder {
    let mut server = EventServer::builder()
        .max_body(MAX_BODY)
        // The headers that a page of an allowed origin needs to publish.
        .allow_header("Authorization")
        .allow_header("Content-Type")
        .trust_forwarded_for(options.trusted_proxies.iter().copied());
    for origin in &options.allowed_origins {
        server = server.allow_origin(origin);
    }
    for host in &options.public_hosts {
        server = server.public_host(host);
    }
    if let Some(streams) = options.max_streams_per_ip {
        server = server.max_streams_per_ip(streams);
    }
    server
}

/// Returns the limit of streams, if there are enough descriptors for it.
fn max_streams(wanted: Option<usize>) -> Result<usize, String> {
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1_024);
    let fitting = descriptors.saturating_sub(SPARE_DESCRIPTORS).max(1);
    match wanted {
        Some(wanted) if wanted as u64 > fitting => {
            let needed = wanted as u64 + SPARE_DESCRIPTORS;
            Err(format!(
                "--max-streams {wanted} needs {needed} open files, the limit is {descriptors}: raise it (ulimit -n)"
            ))
        }
        Some(wanted) => Ok(wanted),
        None => Ok(fitting.min(DEFAULT_MAX_STREAMS) as usize),
    }
}

fn shut_down(publisher: &Publisher, live: &Publisher) {
    let farewell = Event::new("the hub ends").event("shutdown").expect("BUG: a plain word is an event type");
    let disconnected = thread::scope(|threads| {
        threads.spawn(|| live.shutdown(GRACE));
        publisher.shutdown_with(Shutdown::new(GRACE).farewell(farewell))
    });
    if disconnected > 0 {
        output::log(format_args!("disconnected {disconnected} streams: they took longer than {GRACE:?}"));
    }
}
