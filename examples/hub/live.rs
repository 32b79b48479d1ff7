//! The live figures: an event per second, and the last minute for a page that begins to watch.

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use server_sent_events::server::{HandlerError, Request, Response};
use server_sent_events::{History, Publisher, Stats, WeakPublisher};

use crate::output;
use crate::store::Store;

const PERIOD: Duration = Duration::from_secs(1);
const SAMPLES: usize = 60;

/// Starts a thread that publishes the figures of `hub`, until `hub` is dropped. Returns their publisher, which `hub`
/// does not count.
pub fn start(hub: WeakPublisher, store: Arc<Store>) -> Result<Publisher, Box<dyn Error>> {
    let live = Publisher::builder().history(History::new().max_events_per_channel(SAMPLES)).build()?;
    let samples = live.clone();
    thread::Builder::new().name("hub live figures".into()).spawn(move || publish_samples(&hub, &store, &samples))?;
    Ok(live)
}

/// Answers with the stream of figures.
pub fn watch(live: &Publisher, request: &Request) -> Result<Response, HandlerError> {
    let subscription = live.subscription(()).replay_last(SAMPLES).last_event_id(request.last_event_id());
    Ok(subscription.open()?.into())
}

fn publish_samples(hub: &WeakPublisher, store: &Store, live: &Publisher) {
    let stats = || hub.upgrade().map(|hub| (hub.stats(), Instant::now()));
    let Some((mut before, mut since)) = stats() else { return };
    let mut is_in_trouble = false;
    loop {
        thread::sleep(PERIOD);
        let Some((stats, now)) = stats() else { return };
        let trouble = hub.upgrade().and_then(|hub| store.trouble(&hub));
        let was_in_trouble = std::mem::replace(&mut is_in_trouble, trouble.is_some());
        match trouble {
            Some(trouble) if !was_in_trouble => output::log(trouble),
            None if was_in_trouble => output::log(store.end_of_trouble()),
            _ => {}
        }
        live.publish(sample(&before, &stats, now - since));
        (before, since) = (stats, now);
    }
}

/// Returns the figures of a period as JSON.
fn sample(before: &Stats, stats: &Stats, period: Duration) -> String {
    let per_second = |count: u64| (count as f64 / period.as_secs_f64()).round() as u64;
    json!({
        "streams": stats.subscribers,
        "published": per_second(stats.events_published - before.events_published),
        "delivered": per_second(stats.events_delivered - before.events_delivered),
        "slow": stats.ended.queue_full + stats.ended.write_timed_out,
    })
    .to_string()
}
