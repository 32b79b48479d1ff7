//! What the publisher counts, as text for Prometheus.

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use server_sent_events::Stats;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All numbers of one moment. No label is made of what clients say, such as the names of channels: there would be no
/// end of them.
pub fn text(stats: &Stats) -> String {
    let mut metrics = Registry::with_prefix("sse");
    let now = |number: usize| ConstGauge::new(number as i64);
    metrics.register("subscribers", "Streams that are open", now(stats.subscribers));
    metrics.register("channels", "Channels that somebody watches", now(stats.channels));
    metrics.register("history_events", "Events that are kept", now(stats.history.events));
    metrics.register_with_unit("history", "What is kept", Unit::Bytes, now(stats.history.bytes));
    metrics.register("history_channels", "Channels of which events are kept", now(stats.history.channels));
    metrics.register("pending_events", "Events that wait to be stored", now(stats.store.pending));
    for (name, help, number) in [
        ("published_events", "Events published", stats.events_published),
        ("queued_events", "Events put into a queue, once for each stream", stats.events_queued),
        ("delivered_events", "Events written to a connection", stats.events_delivered),
        ("skipped_events", "Events that were not meant for a stream", stats.events_skipped),
        ("panicked_events", "Events that failed for a stream", stats.closures_panicked),
        ("dropped_events", "Events dropped from a full queue", stats.events_dropped),
        ("refused_streams", "Streams refused", stats.subscriptions_refused),
        ("stored_events", "Events stored in the history's file", stats.store.events_stored),
        ("unstored_events", "Events delivered, but not stored", stats.store.events_not_stored),
        ("refused_events", "Events refused because too many wait to be stored", stats.store.events_refused),
    ] {
        metrics.register(name, help, ConstCounter::new(number));
    }
    let causes = Family::<[(&str, &str); 1], Counter>::default();
    for (cause, number) in [
        ("closed", stats.ended.closed),
        ("unsubscribed", stats.ended.unsubscribed),
        ("queue_full", stats.ended.queue_full),
        ("connection_lost", stats.ended.connection_lost),
        ("write_timed_out", stats.ended.write_timed_out),
        ("dropped", stats.ended.dropped),
        ("disconnected", stats.ended.disconnected),
        ("expired", stats.ended.expired),
    ] {
        causes.get_or_create(&[("cause", cause)]).inc_by(number);
    }
    metrics.register("ended_streams", "Streams that ended", causes);

    let mut text = String::new();
    text::encode(&mut text, &metrics).expect("a string takes everything");
    text
}
