//! Faults of Redis: of its files, its memory, its clock, and long ones.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};

use super::*;

#[test]
fn a_truncated_append_only_file_is_a_gap_on_every_publisher() {
    let mut server = Server::durable();
    let nodes = [node(&server), node(&server)];
    let mut live: Vec<Client> = nodes.iter().map(|node| Client::new(node, None)).collect();
    confirm(&nodes[0], 0..20);
    live.iter_mut().for_each(|client| client.reads(0..20));
    server.kill();
    let files = fs::read_dir(server.folder().join("appendonlydir")).unwrap().map(|file| file.unwrap().path());
    let log = files.into_iter().find(|file| file.to_str().unwrap().ends_with(".incr.aof")).unwrap();
    // In the middle of a command: as a power loss leaves it.
    let length = fs::metadata(&log).unwrap().len();
    fs::File::options().write(true).open(&log).unwrap().set_len(length - 300).unwrap();
    server.run();
    end_and_resume_with_a_gap(&mut live, &nodes);
    confirm(&nodes[1], 20..25);
    for client in &mut live {
        while client.next() != "20" {}
        client.reads(21..25);
    }
    let losses = server.cli(&["XRANGE", "events", "-", "+"]).lines().filter(|line| *line == "loss").count();
    assert_eq!(losses, 1);
}

/// Fills the memory with other keys, until Redis evicts this one.
fn evict(server: &Server, key: &str) {
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "maxmemory-samples", "64"]);
    let used = server.cli(&["INFO", "memory"]);
    let used: usize = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory", &(used + (2 << 20)).to_string()]);
    let fill = "for n = 1, 50 do redis.call('SET', ARGV[1] .. n, string.rep('x', 10000)) end";
    let mut round = 0;
    eventually("Redis evicts it", || {
        round += 1;
        server.cli(&["EVAL", fill, "0", &format!("other {round} ")]);
        if key != "events" {
            // It is in use, and stays.
            server.cli(&["XLEN", "events"]);
        }
        server.cli(&["EXISTS", key]) == "0"
    });
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
}

#[test]
fn a_stream_or_its_meta_key_that_redis_evicts_is_another_history() {
    let server = Server::start(&[]);
    let link = Link::to(server.address());
    let nodes = [(); 2].map(|()| publisher(Redis::at(link.url())));
    confirm(&nodes[0], 0..100);
    for key in ["events", "{events}:history"] {
        let mut live: Vec<Client> = nodes.iter().map(|node| Client::new(node, None)).collect();
        confirm(&nodes[0], 100..101);
        live.iter_mut().for_each(|client| client.reads(100..101));
        // What is not used is evicted first.
        link.goes_down();
        evict(&server, key);
        link.comes_up();
        end_and_resume_with_a_gap(&mut live, &nodes);
        confirm(&nodes[1], 200..205);
        live.iter_mut().for_each(|client| client.reads(200..205));
        assert_eq!(nodes[0].last_event_id(), nodes[1].last_event_id());
    }
}

#[test]
fn no_clock_has_a_part_in_the_order_or_in_the_ids() {
    let server = Server::start(&[]);
    let nodes = [node(&server), node(&server)];
    let mut live: Vec<Client> = nodes.iter().map(|node| Client::new(node, None)).collect();
    confirm(&nodes[0], 0..1);
    // Of publishers whose clocks are wrong by years.
    for (number, at) in (1..).zip(["0", "99999999999999", "1", "18446744073709551615"]) {
        let (data, by) = (format!("data: {number}\n"), format!("other:{number}"));
        let event = ["by", &by, "at", at, "to", DEFAULT_CHANNEL, "fields", &data];
        server.cli(&[&["XADD", "events", "1-*"][..], &event[..]].concat());
    }
    confirm(&nodes[1], 5..6);
    live.iter_mut().for_each(|client| client.reads(0..6));
    // Redis has counted, from the entry that begins the era on: its own clock is in no ID.
    let first = live[0].last_id.as_ref().map(|id| id.replace(".1-7", ".1-2"));
    let mut resumed = Client::new(&node(&server), first);
    assert_eq!(resumed.subscription.resumption(), Resumption::Complete, "{:?}", live[0].last_id);
    resumed.reads(1..6);
}

/// Starts a server that answers everything with this line.
fn answers(line: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while client.read(&mut buffer).is_ok_and(|read| read > 0) {
                    // One for each command that it may contain.
                    client.write_all(line.repeat(4).as_bytes())?;
                }
                io::Result::Ok(())
            });
        }
    });
    address
}

#[test]
fn other_answers_than_expected_are_shown_and_the_next_attempt_may_succeed() {
    let server = Server::start(&[]);
    for line in [
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-READONLY You can't write against a read only replica.\r\n",
        "-NOSCRIPT No matching script.\r\n",
        "-ERR unknown command\r\n",
        "+OK\r\n",
        "*1\r\n$1\r\nx\r\n",
        "HTTP/1.1 400 Bad Request\r\n",
    ] {
        let link = Link::to(answers(line));
        let node = starting(Redis::at(link.url()));
        eventually(line, || matches!(node.store_state(), Some(StoreState::Starting { reason: Some(_), .. })));
        link.leads_to(server.address());
        link.cuts();
        eventually("it has read the history", || node.subscribe().is_ok());
        confirm(&node, 0..1);
    }
}

/// How long Redis is stopped or cut off, in seconds: `PAUSES`, separated by commas.
fn pauses() -> Vec<u64> {
    let pauses = std::env::var("PAUSES").unwrap_or_else(|_| "1,6".into());
    pauses.split(',').map(|seconds| seconds.parse().unwrap()).collect()
}

#[test]
fn a_pause_of_redis_or_of_the_network_loses_nothing() {
    let server = Server::start(&[]);
    let link = Link::to(server.address());
    let (cut_off, other) = (publisher(Redis::at(link.url())), node(&server));
    let mut live: Vec<Client> = [&cut_off, &other].iter().map(|node| Client::new(node, None)).collect();
    let mut next = 0;
    for seconds in pauses() {
        for is_network in [true, false] {
            if is_network {
                link.holds(true)
            } else {
                server.signal("STOP")
            }
            let end = Instant::now() + Duration::from_secs(seconds);
            for _ in 0..10 {
                assert!(!cut_off.publish(next.to_string()).is_refused(), "it waits");
                next += 1;
            }
            // The streams stay open, and clients resume.
            while Instant::now() < end {
                assert_eq!(Client::new(&cut_off, live[0].last_id.clone()).next_within(Duration::from_millis(20)), None);
                assert_eq!(live[0].next_within(Duration::from_millis(200)), None);
            }
            if is_network {
                link.holds(false)
            } else {
                server.signal("CONT")
            }
            cut_off.flush(6 * PATIENCE).unwrap();
            live.iter_mut().for_each(|client| client.reads(next - 10..next));
        }
    }
    assert_eq!(cut_off.stats().store.events_refused, 0);
}

/// `ENTRIES` sets the number; 1,000,000 take some minutes.
#[test]
fn many_entries_are_read_trimmed_and_survive_a_restart() {
    let many: usize = std::env::var("ENTRIES").map_or(20_000, |entries| entries.parse().unwrap());
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let url = server.url();
    let settings = || Redis::at(&url).max_events(2 * many);
    let first = publisher(settings());
    confirm(&first, 0..1);
    // As a publisher adds them, in parts: a script stops Redis.
    let add = "for n = ARGV[1], ARGV[2] do redis.call('XADD', KEYS[1], '1-*', 'by', 'other:' .. n, 'at', '0', 'to', \
               'default channel', 'fields', 'data: ' .. n .. '\\n') end";
    for start in (1..many).step_by(10_000) {
        let end = (start + 9_999).min(many);
        server.cli(&["EVAL", add, "1", "events", &start.to_string(), &end.to_string()]);
    }
    reads_all(&first, many);
    let start = Instant::now();
    let second = starting(settings());
    reads_all(&second, many);
    println!("{many} entries are read in {:?}", start.elapsed());
    let id = |number: usize| {
        second.last_event_id().unwrap().rsplit_once('-').map(|(log, _)| format!("{log}-{}", number + 2))
    };
    let mut client = Client::new(&second, id(many - 100));
    assert_eq!(client.subscription.resumption(), Resumption::Complete);
    client.reads(many - 99..many + 1);
    server.kill();
    server.run();
    confirm(&first, many + 1..many + 2);
    client.reads(many + 1..many + 2);
    // A publisher that keeps fewer trims the stream.
    let few = starting(Redis::at(&url).max_events(1_000));
    reads_all(&few, many + 1);
    // Redis removes 10,000 entries at a time.
    let mut next = many + 2;
    eventually("it is trimmed", || {
        confirm(&few, next..next + 1);
        next += 1;
        let left: usize = server.cli(&["XLEN", "events"]).parse().unwrap();
        assert!(left >= 1_000);
        left < 1_200
    });
    client.reads(many + 2..next);
    let late = publisher(settings());
    assert_eq!(Client::new(&late, client.last_id.clone()).subscription.resumption(), Resumption::Complete);
    assert_eq!(Client::new(&late, id(0)).subscription.resumption(), Resumption::Gap);
}

/// Waits until a publisher has read so many entries, for as long as it goes on.
#[track_caller]
fn reads_all(publisher: &Publisher, entries: usize) {
    let newest = || publisher.last_event_id().and_then(|id| id.rsplit_once('-')?.1.parse::<usize>().ok());
    let mut before = None;
    while newest() < Some(entries + 2) {
        eventually("it reads more", || newest() != before);
        before = newest();
    }
    eventually("it has begun", || publisher.subscribe().is_ok());
}
