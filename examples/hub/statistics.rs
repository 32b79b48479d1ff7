//! What the publisher counts, as text for Prometheus.

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use server_sent_events::store::StoreState::{Running, Starting};
use server_sent_events::{EndCounts, Publisher, Stats};

use crate::store::Store;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All numbers of one moment. No label is made of what clients say, such as the names of channels: there would be no
/// end of them.
pub fn text(publisher: &Publisher, store: &Store) -> String {
    let stats = publisher.stats();
    let mut metrics = Registry::with_prefix("sse");
    let now = |number: usize| ConstGauge::new(number as i64);
    metrics.register("subscribers", "Streams that are open", now(stats.subscribers));
    metrics.register("channels", "Channels that somebody watches", now(stats.channels));
    metrics.register("history_events", "Events that are kept", now(stats.history.events));
    metrics.register_with_unit("history", "What is kept", Unit::Bytes, now(stats.history.bytes));
    metrics.register("history_channels", "Channels of which events are kept", now(stats.history.channels));
    metrics.register("pending_events", "Events that wait to be stored", now(stats.store.pending));
    if store.is_remote() {
        register_connection(&mut metrics, publisher, &stats);
    }
    for (name, help, number) in [
        ("published_events", "Events published", stats.events_published),
        ("queued_events", "Events put into a queue, once for each stream", stats.events_queued),
        ("delivered_events", "Events written to a connection", stats.events_delivered),
        ("skipped_events", "Events that were not meant for a stream", stats.events_skipped),
        ("panicked_events", "Events that failed for a stream", stats.closures_panicked),
        ("dropped_events", "Events dropped from a full queue", stats.events_dropped),
        ("refused_streams", "Streams refused", stats.subscriptions_refused),
        ("stored_events", "Events stored beyond this hub's memory", stats.store.events_stored),
        ("unstored_events", "Events delivered, but not stored", stats.store.events_not_stored),
        ("refused_events", "Events refused because too many wait to be stored", stats.store.events_refused),
        ("losses_found", "Losses of events that only the ID of a client showed", stats.store.losses_found),
    ] {
        metrics.register(name, help, ConstCounter::new(number));
    }
    metrics.register("ended_streams", "Streams that ended", ended_streams(&stats.ended));

    let mut text = String::new();
    text::encode(&mut text, &metrics).expect("a string takes everything");
    text
}

fn ended_streams(ended: &EndCounts) -> Family<[(&'static str, &'static str); 1], Counter> {
    let causes = Family::<_, Counter>::default();
    for (cause, number) in [
        ("closed", ended.closed),
        ("unsubscribed", ended.unsubscribed),
        ("queue_full", ended.queue_full),
        ("connection_lost", ended.connection_lost),
        ("write_timed_out", ended.write_timed_out),
        ("dropped", ended.dropped),
        ("disconnected", ended.disconnected),
        ("expired", ended.expired),
        ("replaced", ended.replaced),
    ] {
        causes.get_or_create(&[("cause", cause)]).inc_by(number);
    }
    causes
}

fn register_connection(metrics: &mut Registry, publisher: &Publisher, stats: &Stats) {
    let is_connected = matches!(publisher.store_state(), Some(Running { .. } | Starting { reason: None, .. }));
    let connected = ConstGauge::new(i64::from(is_connected));
    metrics.register("store_connected", "1 while the origin or Redis can be reached", connected);
    let lost = ConstCounter::new(stats.store.connections_lost);
    metrics.register("store_connections_lost", "Connections to the origin or to Redis that were lost", lost);
    let duplicates = ConstCounter::new(stats.store.duplicates_dropped);
    metrics.register("duplicate_events", "Events that came twice from Redis, and were delivered once", duplicates);
}
