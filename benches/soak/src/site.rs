//! What the origin and the edge have in common: their limits, their streams and their commands.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use server_sent_events::server::{EventServer, Request, Response, RunningServer};
use server_sent_events::{History, OpenError, Overflow, Publisher, PublisherBuilder, SubscriptionBuilder};

use crate::CHANNELS;

/// Small, so that a client that stalls fills its queue.
pub const SEND_BUFFER: usize = 32 * 1024;

/// The seconds by which the history's clock has jumped.
#[derive(Clone, Default)]
pub struct Jumps(Arc<AtomicU64>);

impl Jumps {
    /// Returns a history that holds a few seconds, so that a client which is away for longer gets a gap.
    pub fn history(&self) -> History {
        let (start, jumps) = (Instant::now(), self.clone());
        History::new()
            .max_events_per_channel(300)
            .max_bytes(4 * 1024 * 1024)
            .max_age(Duration::from_secs(60))
            .clock(move || start.elapsed() + Duration::from_secs(jumps.0.load(Relaxed)))
    }
}

/// Returns the settings of a publisher. The properties of a subscriber are a random number below 100.
pub fn publisher(history: History) -> PublisherBuilder<u64> {
    Publisher::builder_for()
        .history(history)
        .max_queued_events(100)
        .max_queued_bytes(256 * 1024)
        .heartbeat(Duration::from_secs(1))
        .max_lifetime(Duration::from_secs(15))
}

/// Returns the stream of a target: `/a,b`, `/a?drop` for one that drops the oldest events, or `/follow`.
pub fn stream<'p>(publisher: &'p Publisher<u64>, target: &str) -> SubscriptionBuilder<'p, u64> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let stream = publisher.subscription(fastrand::u64(..100));
    if path == "/follow" {
        // An edge that is 5 s behind reports a gap to clients that come from elsewhere, though nothing is lost.
        let stream = stream.channels(CHANNELS).for_follower().max_lifetime(None);
        return stream.max_queued_events(10_000).max_queued_bytes(16 * 1024 * 1024);
    }
    let stream = stream.channels(path.trim_start_matches('/').split(',').collect::<Vec<_>>());
    if query == "drop" { stream.overflow(Overflow::DropOldest) } else { stream }
}

pub fn serve(publisher: &Publisher<u64>) -> Result<RunningServer, Box<dyn Error>> {
    let publisher = publisher.clone();
    let server = EventServer::builder().write_timeout(Duration::from_secs(5)).send_buffer_size(SEND_BUFFER);
    Ok(server.bind("127.0.0.1:0")?.spawn(move |request: &Request| -> Result<Response, OpenError> {
        let stream = stream(&publisher, request.target()).last_event_id(request.last_event_id());
        Ok(stream.open()?.into())
    })?)
}

/// Obeys a command. Returns whether it is known.
pub fn obey(publisher: &Publisher<u64>, jumps: &Jumps, command: &str, value: u64) -> bool {
    match command {
        "clock" => drop(jumps.0.fetch_add(value, Relaxed)),
        "disconnect" => drop(publisher.disconnect_if(|number| *number < value)),
        "unsubscribe" => drop(publisher.unsubscribe_if(CHANNELS, |number| *number < value)),
        "subscribers" => println!("subscribers {}", publisher.stats().subscribers),
        _ => return false,
    }
    true
}
