//! Disconnecting a quota key on all publishers.

use server_sent_events::EndCause;

use super::*;

/// Opens a stream of a quota key.
#[track_caller]
fn of_key(publisher: &Publisher, key: &str) -> Client {
    let subscription = publisher.subscription(()).quota_key(key).open().unwrap();
    Client { subscription, last_id: None }
}

/// Waits until the stream ends, and drops what comes before.
#[track_caller]
fn is_disconnected(client: &mut Client) {
    while client.subscription.recv_timeout(PATIENCE).is_ok() {}
    assert_eq!(client.subscription.end_cause(), Some(EndCause::Disconnected));
}

#[test]
fn a_quota_key_is_disconnected_on_all_publishers_and_resumes_without_a_gap() {
    let server = Server::start(&[]);
    let nodes = [node(&server), node(&server)];
    let mut left: Vec<Client> = nodes.iter().map(|node| of_key(node, "Mallory")).collect();
    let mut stay: Vec<Client> = nodes.iter().map(|node| of_key(node, "Ada")).collect();
    confirm(&nodes[0], 0..3);
    left.iter_mut().for_each(|client| client.reads(0..3));
    nodes[0].disconnect_everywhere("Mallory").unwrap();
    left.iter_mut().for_each(is_disconnected);
    // At its place in the order: what is opened behind it stays.
    nodes[0].flush(PATIENCE).unwrap();
    let before = nodes[0].last_event_id();
    let mut later = of_key(&nodes[0], "Mallory");
    confirm(&nodes[1], 3..6);
    later.reads(3..6);
    stay.iter_mut().for_each(|client| client.reads(0..6));
    // It is no event: those that resume across it miss nothing, also on a publisher that starts now.
    let fresh = node(&server);
    for (client, node) in left.iter().zip([&nodes[1], &fresh]) {
        let mut resumed = Client::new(node, client.last_id.clone());
        assert_eq!(resumed.subscription.resumption(), Resumption::Complete);
        resumed.reads(3..6);
    }
    assert_eq!(Client::new(&fresh, before).subscription.resumption(), Resumption::Complete);
    let stored: u64 = nodes.iter().map(|node| node.stats().store.events_stored).sum();
    assert_eq!(stored, 6);
}

#[test]
fn to_disconnect_everywhere_is_refused_while_redis_is_away_or_not_read_yet() {
    let mut server = Server::durable();
    let node = node(&server);
    let mut stays = of_key(&node, "Ada");
    server.kill();
    eventually("it is away", || matches!(node.store_state(), Some(StoreState::Away { .. })));
    assert_eq!(node.disconnect_everywhere("Ada"), Err(PublishError::Away));
    let starting = starting(Redis::at(server.url()));
    assert_eq!(starting.disconnect_everywhere("Ada"), Err(PublishError::Away));
    server.run();
    confirm(&node, 0..1);
    stays.reads(0..1);
    eventually("it works again", || node.disconnect_everywhere("Ada").is_ok());
    is_disconnected(&mut stays);
}

#[test]
fn what_disconnects_and_is_sent_twice_is_read_once() {
    let server = Server::start(&[]);
    let node = node(&server);
    let other = |number: &str| {
        let entry = ["XADD", "events", "1-*", "by", number, "disconnect", "Ada", "skip", ""];
        server.cli(&entry);
    };
    let mut first = of_key(&node, "Ada");
    other("other:1");
    is_disconnected(&mut first);
    let mut second = of_key(&node, "Ada");
    other("other:1");
    confirm(&node, 0..1);
    second.reads(0..1);
    other("other:2");
    is_disconnected(&mut second);
    assert_eq!(node.stats().store.duplicates_dropped, 1);
}

#[test]
fn a_publisher_that_misses_entries_disconnects_all_quota_keys() {
    let server = Server::start(&[]);
    let busy = publisher(Redis::at(server.url()).max_events(100));
    let link = Link::to(server.address());
    let away = publisher(Redis::at(link.url()).max_events(100));
    let (mut keyed, mut keyless) = (of_key(&away, "Ada"), Client::new(&away, None));
    confirm(&busy, 0..1);
    keyed.reads(0..1);
    link.goes_down();
    eventually("it is away", || matches!(away.store_state(), Some(StoreState::Away { .. })));
    busy.disconnect_everywhere("Ada").unwrap();
    for number in 1..2_000 {
        busy.publish(number.to_string());
    }
    busy.flush(PATIENCE).unwrap();
    link.comes_up();
    // What disconnects it is trimmed.
    is_disconnected(&mut keyed);
    assert_eq!(Client::new(&away, keyed.last_id).subscription.resumption(), Resumption::Gap);
    keyless.reads(0..1);
    assert_eq!(keyless.next(), "GAP");
}
