//! A stream that a newer one of its quota key replaces.

use super::*;
use crate::common::eventually;
use crate::common::server::{opened, stalled};
use server_sent_events::{Publisher, QuotaPolicy};

/// Starts a server with one stream per user, all of one user.
fn one_stream(publisher: &Publisher) -> RunningServer {
    let publisher = publisher.clone();
    answers(move |_| publisher.subscription(()).quota_key("Ada").open().into())
}

fn newest_wins() -> Publisher {
    let settings = Publisher::builder().max_subscribers_per_quota_key(1).max_queued_bytes(100_000_000);
    settings.quota_policy(QuotaPolicy::DisconnectOldest).build().unwrap()
}

#[test]
fn an_idle_stream_is_sent_its_reconnection_time() {
    let publisher = newest_wins();
    let server = one_stream(&publisher);
    let mut old = opened(server.local_addr());
    let _newer = opened(server.local_addr());
    let rest = old.reads_all();
    assert!(rest.contains("\r\nretry: ") && rest.ends_with("\n\n\r\n0\r\n\r\n"), "{rest:?}");
}

#[test]
fn a_stream_whose_client_does_not_read_leaves_no_connection() {
    let publisher = newest_wins();
    let server = one_stream(&publisher);
    let clients: Vec<_> = (1..=30)
        .map(|n| {
            let client = stalled(server.local_addr());
            eventually("it is open", || publisher.stats().ended.replaced == n - 1);
            eventually("it is the only one", || publisher.stats().subscribers == 1);
            for _ in 0..20 {
                publisher.publish("x".repeat(100_000));
            }
            client
        })
        .collect();
    let mut last = opened(server.local_addr());
    publisher.publish("hello");
    last.reads_until("data: hello\n\n\r\n");
    assert_eq!(publisher.stats().subscriptions_refused, 0);
    drop(clients);
}
