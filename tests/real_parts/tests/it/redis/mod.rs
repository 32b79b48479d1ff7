//! Several publishers whose history is in one Redis.

mod disconnect;
mod faults;
mod reading;

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use real_parts::common::{PATIENCE, eventually};
use real_parts::redis::{Link, Redis as Server};
use server_sent_events::store::{Redis, StoreState};
use server_sent_events::{
    BuildError, DEFAULT_CHANNEL, Event, History, OpenError, Overflow, PublishError, Publisher, Resumption, Subscription,
};

/// Starts a publisher, and waits until it has read the history.
#[track_caller]
fn publisher(redis: Redis) -> Publisher {
    let publisher = starting(redis);
    eventually("it has read the history", || publisher.subscribe().is_ok());
    publisher
}

fn starting(redis: Redis) -> Publisher {
    let history = History::new().max_events_per_channel(1_000_000).store(redis);
    Publisher::builder().heartbeat(None).history(history).build().unwrap()
}

#[track_caller]
fn node(server: &Server) -> Publisher {
    publisher(Redis::at(server.url()))
}

/// A subscriber of the default channel, as an application sees it.
struct Client {
    subscription: Subscription,
    last_id: Option<String>,
}

impl Client {
    #[track_caller]
    fn new(publisher: &Publisher, last_id: Option<String>) -> Self {
        let subscription = publisher.subscription(()).last_event_id(last_id.as_deref()).open().unwrap();
        Self { subscription, last_id }
    }

    /// Returns the data of the next event, or "GAP".
    #[track_caller]
    fn next(&mut self) -> String {
        self.next_within(PATIENCE).expect("an event is missing")
    }

    fn next_within(&mut self, time: Duration) -> Option<String> {
        loop {
            let frame = self.subscription.recv_timeout(time).ok()?;
            let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let Some(id) = field("id: ") {
                self.last_id = Some(id);
            }
            if field("event: ").is_some_and(|event_type| event_type == "gap") {
                return Some("GAP".into());
            }
            if let Some(data) = field("data: ") {
                return Some(data);
            }
        }
    }

    #[track_caller]
    fn reads(&mut self, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            assert_eq!(self.next(), number.to_string());
        }
    }
}

/// Waits until all streams of these publishers have ended, and resumes each with a gap.
#[track_caller]
fn end_and_resume_with_a_gap(live: &mut [Client], nodes: &[Publisher]) {
    for (client, node) in live.iter_mut().zip(nodes) {
        while client.subscription.recv_timeout(PATIENCE).is_ok() {}
        eventually("it has read the history again", || node.subscribe().is_ok());
        *client = Client::new(node, client.last_id.clone());
        assert_eq!(client.subscription.resumption(), Resumption::Gap);
        assert_eq!(client.next(), "GAP");
    }
}

#[track_caller]
fn confirm(publisher: &Publisher, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        publisher.publish_confirmed(DEFAULT_CHANNEL, number.to_string(), PATIENCE).unwrap();
    }
}

#[test]
fn all_publishers_have_one_order_and_the_same_ids() {
    let server = Server::start(&[]);
    let nodes: Vec<Publisher> = (0..3).map(|_| node(&server)).collect();
    let mut clients: Vec<Client> = nodes.iter().map(|node| Client::new(node, None)).collect();
    for number in 0..300 {
        nodes[number % 3].publish(number.to_string());
    }
    let read: Vec<Vec<(String, Option<String>)>> =
        clients.iter_mut().map(|client| (0..300).map(|_| (client.next(), client.last_id.clone())).collect()).collect();
    assert_eq!(read[0], read[1]);
    assert_eq!(read[0], read[2]);
    for start in 0..3 {
        let of_node =
            read[0].iter().filter_map(|(data, _)| data.parse().ok()).filter(|number: &usize| number % 3 == start);
        assert!(of_node.eq((start..300).step_by(3)), "a publisher's own order");
    }
}

#[test]
fn a_client_resumes_on_another_publisher_also_on_one_that_has_just_started() {
    let server = Server::start(&[]);
    let first = node(&server);
    let mut client = Client::new(&first, None);
    confirm(&first, 0..100);
    client.reads(0..50);
    drop(first);
    let second = node(&server);
    let mut client = Client::new(&second, client.last_id);
    assert_eq!(client.subscription.resumption(), Resumption::Complete);
    client.reads(50..100);
}

#[test]
fn a_confirmed_event_has_its_id_and_the_subscribers_of_its_own_publisher() {
    let server = Server::start(&[]);
    let (one, other) = (node(&server), node(&server));
    let _client = one.subscribe().unwrap();
    let mut reader = Client::new(&other, None);
    let receipt = one.publish_confirmed(DEFAULT_CHANNEL, "x", PATIENCE).unwrap();
    assert_eq!(receipt.subscribers(), 1);
    assert_eq!(reader.next(), "x");
    assert_eq!(receipt.id(), reader.last_id.as_deref());
    let unconfirmed = one.publish("y");
    assert_eq!((unconfirmed.id(), unconfirmed.is_refused()), (None, false));
}

#[test]
fn everything_of_an_event_travels() {
    let server = Server::start(&[]);
    let build = || {
        let history = History::new().store(Redis::at(server.url()));
        let builder = Publisher::builder().heartbeat(None).history(history);
        let publisher =
            builder.transform("twice", |_: &(), event: &Event, _: &str| Some(event.clone())).build().unwrap();
        eventually("it has read the history", || publisher.subscribe().is_ok());
        publisher
    };
    let (one, other) = (build(), build());
    let mut client = other.subscribe().unwrap();
    let event = Event::new("two\nlines \u{2705}").event("greeting").unwrap().id("own").unwrap();
    one.publish(event.key("k").retry(Duration::from_secs(3)).unwrap());
    one.publish_through("twice", DEFAULT_CHANNEL, Event::new("through"), "argument").unwrap();
    let mut next = || loop {
        let frame = client.recv_timeout(PATIENCE).unwrap();
        if frame.contains("data:") {
            return frame;
        }
    };
    let frame = next();
    for line in ["event: greeting", "data: two", "data: lines \u{2705}", "id: own", "retry: 3000"] {
        assert!(frame.lines().any(|own| own == line), "{line} in {frame}");
    }
    assert_eq!((frame.matches("id: ").count(), frame.matches("\n\n").count()), (1, 1), "{frame}");
    assert!(next().contains("data: through"));
    // A publisher that starts later has them too.
    let late = build();
    let mut late = late.subscription(()).last_event_id("own").open().unwrap();
    assert_eq!(late.resumption(), Resumption::Complete);
    assert!(late.recv_timeout(PATIENCE).unwrap().contains("own"));
    assert!(late.recv_timeout(PATIENCE).unwrap().contains("data: through"));
}

#[test]
fn what_cannot_travel_is_refused() {
    let server = Server::start(&[]);
    let publisher = node(&server);
    let receipt = publisher.publish_with(DEFAULT_CHANNEL, |_: &()| Some(Event::new("x")));
    assert!(receipt.is_refused());
    let history = History::new().store(Redis::at(server.url()));
    let blocking = Publisher::<()>::builder().overflow(Overflow::Block(PATIENCE)).history(history).build();
    assert!(matches!(blocking, Err(BuildError::InvalidSetting(setting)) if setting.setting() == "overflow"));
    let wrong = Publisher::<()>::builder().history(History::new().store(Redis::at("http://x"))).build();
    assert!(matches!(wrong, Err(BuildError::SharedStore { .. })), "{wrong:?}");
    let nameless = Publisher::<()>::builder().history(History::new().store(Redis::at(server.url()).stream(""))).build();
    assert!(matches!(nameless, Err(BuildError::SharedStore { reason }) if reason.contains("name of the stream")));
}

#[test]
fn a_restart_of_redis_that_loses_nothing_is_no_gap() {
    let mut server = Server::durable();
    let (one, other) = (node(&server), node(&server));
    let (mut live, mut left) = (Client::new(&other, None), Client::new(&other, None));
    confirm(&one, 0..10);
    left.reads(0..5);
    drop(left.subscription);
    // Confirmed is what its own publisher has read.
    live.reads(0..10);
    server.kill();
    for number in 10..20 {
        assert!(!one.publish(number.to_string()).is_refused());
    }
    eventually("it is away", || matches!(other.store_state(), Some(StoreState::Away { .. })));
    let mut resumed = Client::new(&other, left.last_id);
    resumed.reads(5..10);
    server.run();
    live.reads(10..20);
    resumed.reads(10..20);
    eventually("it works again", || matches!(one.store_state(), Some(StoreState::Running { pending: 0, .. })));
    assert!(one.stats().store.connections_lost > 0);
}

#[test]
fn a_publisher_that_starts_while_redis_is_away_begins_once_it_is_back() {
    let mut server = Server::durable();
    let first = node(&server);
    confirm(&first, 0..3);
    let last_id = first.last_event_id();
    server.kill();
    let second = starting(Redis::at(server.url()));
    assert!(matches!(second.subscribe(), Err(OpenError::Starting)));
    eventually("it shows why", || matches!(second.store_state(), Some(StoreState::Starting { reason: Some(_), .. })));
    second.publish("3");
    server.run();
    eventually("it has begun", || second.subscribe().is_ok());
    let mut client = Client::new(&second, last_id);
    assert_eq!(client.subscription.resumption(), Resumption::Complete);
    client.reads(3..4);
}

#[test]
fn a_full_window_refuses_and_recovers() {
    let server = Server::start(&[]);
    let publisher = publisher(Redis::at(server.url()).max_pending_events(10));
    let mut client = Client::new(&publisher, None);
    server.signal("STOP");
    let accepted = (0..20).filter(|number| !publisher.publish(number.to_string()).is_refused()).count();
    assert_eq!(accepted, 10);
    assert_eq!(publisher.publish_confirmed(DEFAULT_CHANNEL, "x", PATIENCE), Err(PublishError::Full));
    assert_eq!(publisher.flush(Duration::from_millis(10)), Err(PublishError::TimedOut));
    server.signal("CONT");
    publisher.flush(PATIENCE).unwrap();
    client.reads(0..10);
    confirm(&publisher, 10..11);
    client.reads(10..11);
    let stats = publisher.stats().store;
    assert_eq!((stats.events_refused, stats.events_stored, stats.pending), (11, 11, 0));
}

#[test]
fn events_that_redis_has_lost_are_a_gap_on_every_publisher() {
    let mut server = Server::durable();
    let nodes = [node(&server), node(&server)];
    let mut live: Vec<Client> = nodes.iter().map(|node| Client::new(node, None)).collect();
    confirm(&nodes[0], 0..10);
    live.iter_mut().for_each(|client| client.reads(0..10));
    let kept = Client { subscription: nodes[0].subscribe().unwrap(), last_id: live[0].last_id.clone() };
    let saved = tempfile::tempdir().unwrap();
    let files = server.folder().join("appendonlydir");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        fs::create_dir_all(to).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    copy(&files, saved.path());
    confirm(&nodes[1], 10..20);
    live.iter_mut().for_each(|client| client.reads(10..20));
    server.kill();
    copy(saved.path(), &files);
    server.run();
    // Their streams end, since they have seen lost events. The clients resume.
    end_and_resume_with_a_gap(&mut live, &nodes);
    confirm(&nodes[0], 20..25);
    for client in &mut live {
        while client.next() != "20" {}
        client.reads(21..25);
    }
    // Also a client that had not seen what is lost.
    for node in &nodes {
        let client = Client::new(node, kept.last_id.clone());
        assert_eq!(client.subscription.resumption(), Resumption::Gap);
    }
    let losses = server.cli(&["XRANGE", "events", "-", "+"]).lines().filter(|line| *line == "loss").count();
    assert_eq!(losses, 1);
}

#[test]
fn an_empty_redis_is_another_history() {
    let server = Server::start(&[]);
    let nodes = [node(&server), node(&server)];
    confirm(&nodes[0], 0..5);
    for command in [&["FLUSHALL"][..], &["DEL", "events"], &["DEL", "{events}:history"]] {
        let before = nodes[0].last_event_id().unwrap();
        let mut live: Vec<Client> = nodes.iter().map(|node| Client::new(node, None)).collect();
        server.cli(command);
        for client in &mut live {
            while client.subscription.recv_timeout(PATIENCE).is_ok() {}
        }
        for node in &nodes {
            eventually("it has read the history again", || node.subscribe().is_ok());
            let client = Client::new(node, Some(before.clone()));
            assert_eq!(client.subscription.resumption(), Resumption::Gap, "{command:?}");
        }
        let mut live: Vec<Client> = nodes.iter().map(|node| Client::new(node, None)).collect();
        confirm(&nodes[1], 100..110);
        live.iter_mut().for_each(|client| client.reads(100..110));
        let (one, other) = (nodes[0].last_event_id().unwrap(), nodes[1].last_event_id().unwrap());
        assert_eq!(one, other);
        assert_ne!(one.split('.').next(), before.split('.').next());
    }
}

#[test]
fn other_data_is_left_as_it_is() {
    let server = Server::start(&[]);
    server.cli(&["SET", "events", "mine"]);
    let refused = starting(Redis::at(server.url()));
    let reason = |publisher: &Publisher| match publisher.store_state() {
        Some(StoreState::Starting { reason: Some(reason), .. }) => reason,
        _ => String::new(),
    };
    eventually("it shows why", || reason(&refused).contains("hold other data: use another name"));
    assert_eq!(server.cli(&["GET", "events"]), "mine");
    server.cli(&["XADD", "theirs", "*", "field", "value"]);
    let refused = starting(Redis::at(server.url()).stream("theirs"));
    eventually("it shows why", || reason(&refused).contains("a stream of another program"));
    assert_eq!(server.cli(&["XLEN", "theirs"]), "1");
    let replica = Server::start(&[]);
    replica.cli(&["REPLICAOF", "127.0.0.1", &server.port.to_string()]);
    eventually("the replica follows", || replica.cli(&["INFO", "replication"]).contains("master_link_status:up"));
    let refused = starting(Redis::at(replica.url()));
    eventually("it shows why", || reason(&refused).contains("connect to the primary"));
    let wrong_password = starting(Redis::at(format!("redis://:wrong@{}", server.address())));
    eventually("it shows why", || !reason(&wrong_password).is_empty());
    assert!(!reason(&wrong_password).contains("wrong@"), "{}", reason(&wrong_password));
}

#[test]
fn a_publisher_that_was_away_for_longer_than_the_stream_holds_tells_a_gap() {
    let server = Server::start(&[]);
    let busy = publisher(Redis::at(server.url()).max_events(100));
    let link = Link::to(server.address());
    let away = publisher(Redis::at(link.url()).max_events(100));
    let mut live = Client::new(&away, None);
    confirm(&busy, 0..10);
    live.reads(0..10);
    link.goes_down();
    eventually("it is away", || matches!(away.store_state(), Some(StoreState::Away { .. })));
    for number in 10..2_000 {
        busy.publish(number.to_string());
    }
    busy.flush(PATIENCE).unwrap();
    link.comes_up();
    assert_eq!(live.next(), "GAP");
    let first: usize = live.next().parse().unwrap();
    assert!(first > 10, "{first}");
    live.reads(first + 1..2_000);
}

#[test]
fn dropping_a_publisher_waits_for_what_it_has_accepted() {
    let server = Server::start(&[]);
    let reader = node(&server);
    let mut client = Client::new(&reader, None);
    let writer = node(&server);
    for number in 0..1_000 {
        writer.publish(number.to_string());
    }
    drop(writer);
    client.reads(0..1_000);
    // While Redis is away, only for a time.
    let writer = node(&server);
    server.signal("STOP");
    writer.publish("lost");
    let start = Instant::now();
    drop(writer);
    assert!(start.elapsed() < PATIENCE);
    server.signal("CONT");
}

/// Redis stops, is killed and restarts without a loss, the connections of all publishers break, and clients hop between
/// the publishers: each sees each event once, in the order of all.
///
/// `REDIS_SECONDS` sets the duration.
#[test]
fn through_all_faults_each_client_gets_each_event_once_in_one_order() {
    let seconds = std::env::var("REDIS_SECONDS").map_or(15, |seconds| seconds.parse().unwrap());
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server = Server::durable();
    let links: Vec<Link> = (0..3).map(|_| Link::to(server.address())).collect();
    let nodes: Vec<Publisher> = links.iter().map(|link| publisher(Redis::at(link.url()))).collect();
    let (is_over, has_failed) = (AtomicBool::new(false), AtomicBool::new(false));
    let read: Vec<Vec<String>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..30)
            .map(|_| {
                let (nodes, has_failed, mut random) = (&nodes, &has_failed, random.fork());
                scope.spawn(move || hops(nodes, has_failed, &mut random))
            })
            .collect();
        let publishing: Vec<_> = (0..4)
            .map(|name| {
                let (nodes, is_over, mut random) = (&nodes, &is_over, random.fork());
                scope.spawn(move || publishes(name, nodes, is_over, &mut random))
            })
            .collect();
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            breaks(&mut server, &links, &mut random);
        }
        is_over.store(true, Relaxed);
        let published: Vec<String> = publishing.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        println!("{} events", published.len());
        // The last fault may take a connection its longest time to notice, and a busy machine is slow.
        let confirmed = |node: &Publisher| node.publish_confirmed(DEFAULT_CHANNEL, "the end", 6 * PATIENCE);
        let results: Vec<_> = nodes.iter().map(confirmed).collect();
        // Otherwise the clients would never end.
        has_failed.store(results.iter().any(Result::is_err), Relaxed);
        println!("{results:?}");
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(!has_failed.load(Relaxed), "see above");
    let longest = read.iter().max_by_key(|read| read.len()).unwrap();
    for read in &read {
        assert_eq!(read.iter().position(|data| data == "GAP"), None, "nothing was lost");
        // All have read to the end, and each has begun where it has connected first.
        assert_eq!(read[..], longest[longest.len() - read.len()..]);
    }
    let unique: HashSet<&String> = longest.iter().collect();
    assert_eq!(unique.len(), longest.len(), "no event comes twice");
    assert!(nodes.iter().any(|node| node.stats().store.connections_lost > 0));
    println!("duplicates: {:?}", nodes.iter().map(|node| node.stats().store.duplicates_dropped).collect::<Vec<_>>());
}

/// Reads events until the end, on one publisher after another.
fn hops(nodes: &[Publisher], has_failed: &AtomicBool, random: &mut fastrand::Rng) -> Vec<String> {
    let (mut read, mut last_id, mut ends) = (Vec::new(), None, 0);
    while !has_failed.load(Relaxed) {
        let node = random.choice(nodes).unwrap();
        let subscription = node.subscription(()).last_event_id(last_id.as_deref()).open();
        let Ok(subscription) = subscription else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let mut client = Client { subscription, last_id: last_id.take() };
        let count = random.usize(1..300);
        for _ in 0..count {
            let Some(data) = client.next_within(Duration::from_millis(300)) else { break };
            if data == "the end" {
                ends += 1;
                if ends == nodes.len() {
                    return read;
                }
            } else {
                read.push(data);
            }
        }
        last_id = client.last_id;
    }
    read
}

/// Publishes numbers on one publisher after another, each until it is accepted.
fn publishes(name: usize, nodes: &[Publisher], is_over: &AtomicBool, random: &mut fastrand::Rng) -> Vec<String> {
    let mut published = Vec::new();
    while !is_over.load(Relaxed) {
        let node = random.choice(nodes).unwrap();
        let data = format!("{name}:{}", published.len());
        while node.publish(&data).is_refused() {
            thread::sleep(Duration::from_millis(5));
        }
        published.push(data);
        if random.u8(..) < 64 {
            thread::sleep(Duration::from_millis(random.u64(0..5)));
        }
    }
    published
}

/// Breaks something, and mends it.
fn breaks(server: &mut Server, links: &[Link], random: &mut fastrand::Rng) {
    let link = random.choice(links).unwrap();
    let fault = random.u8(0..9);
    let mut pause = |most| thread::sleep(Duration::from_millis(random.u64(0..most)));
    match fault {
        0 => {
            server.kill();
            pause(500);
            server.run();
        }
        1 => {
            server.signal("STOP");
            pause(1_500);
            server.signal("CONT");
        }
        2 => {
            link.goes_down();
            pause(500);
            link.comes_up();
        }
        3 => {
            link.holds(true);
            pause(1_000);
            link.holds(false);
        }
        4 => {
            link.cuts_after(Some(5_000));
            link.cuts();
            pause(500);
            link.cuts_after(None);
        }
        5 => _ = server.cli(&["CLIENT", "KILL", "TYPE", "normal"]),
        6 => {
            link.delays(Duration::from_millis(30));
            pause(1_000);
            link.delays(Duration::ZERO);
        }
        _ => links.iter().for_each(Link::cuts),
    }
    pause(500);
}

#[test]
fn events_that_the_stream_drops_before_they_are_read_are_a_gap_and_stop_nothing() {
    let server = Server::start(&[]);
    let link = Link::to(server.address());
    // Redis drops entries in groups of 100.
    let node = publisher(Redis::at(link.url()).max_events(1));
    let mut live = Client::new(&node, None);
    link.holds(true);
    for number in 0..5_000 {
        assert!(!node.publish(number.to_string()).is_refused());
    }
    link.holds(false);
    node.flush(PATIENCE).unwrap();
    confirm(&node, 5_000..5_001);
    while live.next() != "5000" {}
}

/// A primary, a replica that has everything, and the link by which it follows.
fn pair() -> (Server, Server, Link) {
    let (primary, replica) = (Server::start(&[]), Server::start(&[]));
    let link = Link::to(primary.address());
    replica.cli(&["REPLICAOF", "127.0.0.1", &link.address.port().to_string()]);
    eventually("the replica follows", || replica.cli(&["INFO", "replication"]).contains("master_link_status:up"));
    (primary, replica, link)
}

/// Waits until the replica has the newest event.
#[track_caller]
fn replicated(primary: &Server, replica: &Server) {
    let newest = |server: &Server| server.cli(&["XREVRANGE", "events", "+", "-", "COUNT", "1"]);
    eventually("the replica has everything", || newest(replica) == newest(primary));
}

#[test]
fn a_primary_that_is_demoted_while_it_is_in_use_starves_nobody() {
    let (primary, replica, _replication) = pair();
    let links: Vec<Link> = (0..2).map(|_| Link::to(primary.address())).collect();
    let nodes: Vec<Publisher> = links.iter().map(|link| publisher(Redis::at(link.url()))).collect();
    let mut clients: Vec<Client> = nodes.iter().map(|node| Client::new(node, None)).collect();
    confirm(&nodes[0], 0..10);
    replicated(&primary, &replica);
    // Nobody dies, and no connection breaks.
    links.iter().for_each(|link| link.leads_to(replica.address()));
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    primary.cli(&["REPLICAOF", "127.0.0.1", &replica.port.to_string()]);
    confirm(&nodes[1], 10..20);
    confirm(&nodes[0], 20..30);
    clients.iter_mut().for_each(|client| client.reads(0..30));
}

#[test]
fn a_failover_to_a_replica_that_is_behind_is_a_gap_on_every_publisher() {
    let (mut primary, replica, replication) = pair();
    let links: Vec<Link> = (0..2).map(|_| Link::to(primary.address())).collect();
    let nodes: Vec<Publisher> = links.iter().map(|link| publisher(Redis::at(link.url()))).collect();
    let mut clients: Vec<Client> = nodes.iter().map(|node| Client::new(node, None)).collect();
    confirm(&nodes[0], 0..10);
    replicated(&primary, &replica);
    replication.goes_down();
    confirm(&nodes[1], 10..20);
    clients.iter_mut().for_each(|client| client.reads(0..20));
    primary.kill();
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    links.iter().for_each(|link| link.leads_to(replica.address()));
    end_and_resume_with_a_gap(&mut clients, &nodes);
    confirm(&nodes[0], 20..30);
    for client in &mut clients {
        while client.next() != "20" {}
        client.reads(21..30);
    }
}

#[test]
fn a_server_that_was_a_replica_between_two_connections_begins_another_era() {
    let (first, second, _replication) = pair();
    let link = Link::to(first.address());
    let node = publisher(Redis::at(link.url()));
    confirm(&node, 0..3);
    replicated(&first, &second);
    link.goes_down();
    confirm_elsewhere(&first, 3);
    // The second one, which nobody uses, does not get the fourth event: it is lost when the first one follows it.
    second.cli(&["REPLICAOF", "NO", "ONE"]);
    second.cli(&["XTRIM", "events", "MAXLEN", "4"]);
    first.cli(&["REPLICAOF", "127.0.0.1", &second.port.to_string()]);
    eventually("it follows", || first.cli(&["INFO", "replication"]).contains("master_link_status:up"));
    first.cli(&["REPLICAOF", "NO", "ONE"]);
    link.comes_up();
    confirm(&node, 4..5);
    let eras = first.cli(&["HGET", "{events}:history", "eras"]);
    assert_eq!(eras.split_whitespace().count(), 2, "{eras}");
}

/// Adds an event as a publisher does.
fn confirm_elsewhere(server: &Server, number: usize) {
    let data = format!("data: {number}\n");
    let event = ["by", "other:1", "at", "0", "to", DEFAULT_CHANNEL, "fields", &data];
    server.cli(&[&["XADD", "events", "1-*"][..], &event[..]].concat());
}

#[test]
fn redis_without_memory_refuses_and_recovers() {
    let server = Server::start(&[]);
    let publisher = publisher(Redis::at(server.url()).max_pending_events(5));
    let mut client = Client::new(&publisher, None);
    confirm(&publisher, 0..1);
    client.reads(0..1);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    eventually("the window is full", || publisher.publish("1").is_refused());
    eventually(
        "it shows why",
        || matches!(publisher.store_state(), Some(StoreState::Away { reason, .. }) if reason.contains("memory")),
    );
    let mut resumed = Client::new(&publisher, client.last_id.clone());
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    publisher.flush(PATIENCE).unwrap();
    assert_eq!(resumed.next(), "1");
    assert_eq!(client.next(), "1");
    eventually("it works", || matches!(publisher.store_state(), Some(StoreState::Running { pending: 0, .. })));
}

#[test]
fn entries_that_somebody_deletes_or_adds_are_a_gap_where_they_are() {
    let server = Server::start(&[]);
    let node = node(&server);
    let mut live = Client::new(&node, None);
    confirm(&node, 0..1);
    // Of a later version: one that may be skipped, and one that may not.
    server.cli(&["XADD", "events", "1-*", "later", "x", "skip", "1"]);
    confirm(&node, 1..2);
    live.reads(0..2);
    server.cli(&["XADD", "events", "1-*", "later", "x"]);
    confirm(&node, 2..3);
    assert_eq!(live.next(), "GAP");
    live.reads(2..3);
    let late = publisher(Redis::at(server.url()));
    let client = Client::new(&late, live.last_id.clone());
    assert_eq!(client.subscription.resumption(), Resumption::Complete);
    // A deleted entry is missing for those who have not read it.
    confirm(&node, 3..6);
    live.reads(3..6);
    let entries = server.cli(&["XRANGE", "events", "-", "+"]);
    let id = |data: &str| {
        let mut ids = entries.lines().filter(|line| line.split_once('-').is_some_and(|(era, _)| era == "1"));
        ids.rfind(|id| server.cli(&["XRANGE", "events", id, id]).contains(&format!("data: {data}"))).unwrap()
    };
    server.cli(&["XDEL", "events", id("4")]);
    let later = publisher(Redis::at(server.url()));
    let before = |data: &str| Some(live.last_id.as_deref().unwrap().replace(id("5"), id(data)));
    assert_eq!(Client::new(&later, before("3")).subscription.resumption(), Resumption::Gap);
    assert_eq!(Client::new(&later, before("5")).subscription.resumption(), Resumption::Complete);
    assert_eq!(Client::new(&node, before("3")).subscription.resumption(), Resumption::Complete);
}

#[test]
fn a_client_that_is_ahead_waits_and_one_with_a_forged_id_gets_a_gap() {
    let server = Server::start(&[]);
    let link = Link::to(server.address());
    let (ahead, behind) = (node(&server), publisher(Redis::at(link.url())));
    confirm(&ahead, 0..3);
    eventually("it has them", || behind.last_event_id() == ahead.last_event_id());
    link.holds(true);
    confirm(&ahead, 3..6);
    let mut client = Client::new(&behind, ahead.last_event_id());
    assert_eq!(client.subscription.resumption(), Resumption::Complete);
    link.holds(false);
    confirm(&ahead, 6..9);
    client.reads(6..9);
    let newest = ahead.last_event_id().unwrap();
    let (log, sequence) = newest.rsplit_once('-').unwrap();
    let mut forged = Client::new(&behind, Some(format!("{log}-{}", sequence.parse::<u64>().unwrap() + 1_000)));
    assert_eq!(forged.next(), "GAP");
    confirm(&ahead, 9..10);
    forged.reads(9..10);
    for unknown in ["x", "0.1-1", "-", ""] {
        let client = ahead.subscription(()).last_event_id(unknown).open().unwrap();
        let is_known = client.resumption() == Resumption::Complete;
        assert!(!is_known, "{unknown:?}");
    }
}

#[test]
fn large_events_travel_and_too_large_ones_are_refused() {
    let server = Server::start(&[]);
    let settings = || Redis::at(server.url()).max_pending_bytes(200 << 20);
    let (one, other) = (publisher(settings()), publisher(settings()));
    let large = "x".repeat(8 << 20);
    let mut subscription = other.subscription(()).max_queued_bytes(100 << 20).open().unwrap();
    for _ in 0..4 {
        one.publish(&large);
        one.publish("small");
    }
    let mut read = Vec::new();
    while read.len() < 8 {
        let frame = subscription.recv_timeout(PATIENCE).unwrap();
        read.extend(frame.contains("data:").then_some(frame.len() > large.len()));
    }
    assert_eq!(read, [true, false].repeat(4));
    let too_large = one.publish_confirmed(DEFAULT_CHANNEL, "x".repeat(17 << 20), PATIENCE);
    assert_eq!(too_large, Err(PublishError::TooLarge));
}

#[test]
fn entries_of_an_era_that_nobody_has_begun_are_an_error_that_is_shown() {
    let server = Server::start(&[]);
    let node = node(&server);
    confirm(&node, 0..3);
    server.cli(&["XADD", "events", "9-1", "by", "x:1", "at", "0", "to", "a", "fields", "data: x"]);
    eventually(
        "it shows why",
        || matches!(node.store_state(), Some(StoreState::Away { reason, .. }) if reason.contains("unknown era")),
    );
    server.cli(&["DEL", "events"]);
    eventually("it begins anew", || matches!(node.store_state(), Some(StoreState::Running { .. })));
    confirm(&node, 3..6);
}

#[test]
fn sentinels_are_asked_for_the_primary_before_each_connection() {
    let (mut primary, replica) = (Server::start(&[]), Server::start(&[]));
    replica.cli(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
    eventually("the replica follows", || replica.cli(&["INFO", "replication"]).contains("master_link_status:up"));
    let sentinel = Server::sentinel_of(&primary);
    eventually("it knows the replica", || sentinel.cli(&["SENTINEL", "REPLICAS", "primary"]).contains("slave"));
    // The first address is wrong, and the second one is used.
    let settings = || Redis::at("redis://primary").sentinels(["redis://127.0.0.1:1", &sentinel.url()]);
    let nodes = [publisher(settings()), publisher(settings())];
    let mut live: Vec<Client> = nodes.iter().map(|node| Client::new(node, None)).collect();
    confirm(&nodes[0], 0..10);
    replicated(&primary, &replica);
    primary.kill();
    // The failover takes some seconds.
    publish_until_confirmed(&nodes[1], 10);
    confirm(&nodes[0], 11..20);
    live.iter_mut().for_each(|client| client.reads(0..20));
    let unknown = starting(Redis::at("redis://other").sentinels([sentinel.url()]));
    eventually("it shows why", || {
        let state = unknown.store_state();
        matches!(state, Some(StoreState::Starting { reason: Some(reason), .. }) if reason.contains("does not know"))
    });
}

#[track_caller]
fn publish_until_confirmed(publisher: &Publisher, number: usize) {
    publisher.publish(number.to_string());
    publisher.flush(6 * PATIENCE).unwrap();
}
