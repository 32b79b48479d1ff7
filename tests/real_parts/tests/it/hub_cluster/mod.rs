//! Several hubs whose history is in one Redis: they are one hub.

#[path = "../../../../it/examples/hub_edges/client.rs"]
mod client;
mod kills;
mod log;
mod oracle;
mod ways;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use client::{Block, Client};
use real_parts::common::http::Events;
use real_parts::common::hub::Hub;
use real_parts::common::{PATIENCE, eventually};
use real_parts::redis::{Link, Redis};

/// Creates a hub that is not started yet.
fn stopped(redis: &str) -> Hub {
    Hub::stopped(["--history-events", "1000000", "--redis", redis])
}

/// Starts a hub, and waits until it has read the history.
#[track_caller]
fn start(redis: &str) -> Hub {
    let mut hub = stopped(redis);
    hub.start();
    hub.is_healthy();
    hub
}

/// Posts an event, and returns its ID.
#[track_caller]
fn store(hub: &Hub, path: &str, data: &str) -> String {
    match post(&agent(), &hub.at(path), data) {
        Answer::Stored(id) => id,
        other => panic!("{path} {data}: {other:?}"),
    }
}

/// What a hub answers to a post.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It is stored, with this ID.
    Stored(String),
    /// It is not stored, for this reason.
    Refused(String),
    /// It may be stored or not.
    Unknown,
}

fn post(agent: &ureq::Agent, url: &str, data: &str) -> Answer {
    let Ok(mut response) = agent.post(url).send(data) else { return Answer::Unknown };
    match response.status().as_u16() {
        204 => Answer::Stored(response.headers()["event-id"].to_str().unwrap().to_owned()),
        503 => {
            assert_eq!(response.headers()["retry-after"], "1");
            let Ok(reason) = response.body_mut().read_to_string() else { return Answer::Unknown };
            if reason.contains("may still be stored") { Answer::Unknown } else { Answer::Refused(reason) }
        }
        status => panic!("{url}: {status}"),
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn durable() -> Redis {
    Redis::start(&["--appendonly", "yes", "--appendfsync", "everysec"])
}

#[test]
fn an_event_of_one_hub_is_read_at_another_and_a_client_resumes_at_a_third() {
    let redis = durable();
    let hubs = [(); 3].map(|()| start(&redis.url()));
    let mut client = Client::new();
    assert!(!client.read(&hubs[1].at("/a"), Duration::from_millis(300), |_| false), "its start is an ID");
    let mut ids = Vec::new();
    for (n, data) in (0..).zip(["one", "two", "three"]) {
        ids.push((store(&hubs[n], "/a,b", data), data.to_owned()));
        client.reads_until(&hubs[(n + 1) % 3].at("/a"), data);
    }
    assert_eq!((client.events(), client.gaps()), (ids.clone(), 0));

    let mut fresh = stopped(&redis.url());
    fresh.start();
    fresh.is_healthy();
    let mut resuming = Client::after(&ids[0].0);
    resuming.reads_until(&fresh.at("/b"), "three");
    assert_eq!((resuming.events(), resuming.gaps()), (ids[1..].to_vec(), 0));
    hubs[2].has_figure("sse_store_connected 1");
    hubs[2].has_figure("sse_store_connections_lost_total 0");
    hubs[2].has_figure("sse_duplicate_events_total 0");
    hubs[2].has_figure("sse_stored_events_total 1");
}

#[test]
fn hubs_of_other_streams_share_nothing() {
    let redis = durable();
    let (one, mut other) = (start(&redis.url()), stopped(&redis.url()));
    other.arguments.extend(["--stream", "other"].map(Into::into));
    other.start();
    other.is_healthy();
    store(&one, "/a", "of one");
    store(&other, "/a", "of the other");
    let mut client = Client::after("an ID from nowhere");
    client.reads_until(&other.at("/a"), "of the other");
    assert_eq!(client.data(), ["of the other"]);
    assert_eq!(redis.cli(&["EXISTS", "events", "other"]), "2");
}

/// Opens a stream, and returns it after its first ID.
fn watch(hub: &Hub, path: &str) -> Events {
    let mut events = hub.running.as_ref().unwrap().events(path);
    assert!(events.next_frame().unwrap().starts_with("id: "));
    events
}

/// Reads the next event, and skips heartbeats.
#[track_caller]
fn gets(events: &mut Events, data: &str) {
    loop {
        let frame = events.next_frame().expect("the stream is open");
        if frame.lines().any(|line| line == format!("data: {data}")) {
            return;
        }
        assert!(!frame.contains("data: "), "{frame:?} instead of {data:?}");
    }
}

/// Away for 10 s: killed, or stopped so that it answers nothing.
#[test]
fn while_redis_is_away_streams_stay_open_and_resume_and_posts_are_refused() {
    let mut redis = durable();
    let hubs = [(); 2].map(|()| start(&redis.url()));
    let mut live = watch(&hubs[1], "/a");
    for is_killed in [true, false] {
        let first = store(&hubs[0], "/a", "first");
        store(&hubs[0], "/a", "second");
        gets(&mut live, "first");
        gets(&mut live, "second");
        let away = Instant::now();
        if is_killed {
            redis.kill()
        } else {
            redis.signal("STOP")
        }
        for hub in &hubs {
            hub.has_figure("sse_store_connected 0");
            let (asked, answer) = (Instant::now(), post(&agent(), &hub.at("/a"), "refused"));
            assert!(matches!(&answer, Answer::Refused(reason) if reason.starts_with("Redis is away: ")), "{answer:?}");
            assert!(asked.elapsed() < Duration::from_secs(4), "it does not wait for Redis");
            let mut client = Client::after(&first);
            client.reads_until(&hub.at("/a"), "second");
            assert_eq!((client.data(), client.gaps()), (vec!["second".to_owned()], 0));
            assert_eq!(hub.get("/healthz"), (200, "ok\n".into()), "it serves clients");
        }
        thread::sleep(Duration::from_secs(10).saturating_sub(away.elapsed()));
        if is_killed {
            redis.run()
        } else {
            redis.signal("CONT")
        }
        for hub in &hubs {
            eventually("it works again", || matches!(post(&agent(), &hub.at("/b"), "x"), Answer::Stored(_)));
            hub.has_figure("sse_store_connected 1");
        }
        store(&hubs[1], "/a", "after");
        gets(&mut live, "after");
    }
    let log = redis.cli(&["XRANGE", "events", "-", "+"]);
    assert!(!log.contains("refused"), "{log}");
}

/// For `PAUSE` seconds.
#[test]
fn a_hub_that_is_stopped_for_a_while_misses_nothing() {
    let pause = std::env::var("PAUSE").map_or(6, |seconds| seconds.parse().unwrap());
    let redis = durable();
    let hubs = [(); 2].map(|()| start(&redis.url()));
    let mut live = watch(&hubs[1], "/a");
    store(&hubs[0], "/a", "first");
    gets(&mut live, "first");
    let signal = |signal: &str| {
        let process = hubs[1].running.as_ref().unwrap().process.id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    };
    signal("-STOP");
    let end = Instant::now() + Duration::from_secs(pause);
    let mut posted = Vec::new();
    while Instant::now() < end {
        posted.push(posted.len().to_string());
        store(&hubs[0], "/a", posted.last().unwrap());
        thread::sleep(Duration::from_millis(50));
    }
    signal("-CONT");
    posted.iter().for_each(|data| gets(&mut live, data));
    eventually("it takes posts", || matches!(post(&agent(), &hubs[1].at("/a"), "last"), Answer::Stored(_)));
    gets(&mut live, "last");
}

#[test]
fn a_hub_is_not_healthy_without_events_or_if_redis_is_away_for_long() {
    let redis = durable();
    let link = Link::to(redis.address());
    let served = start(&link.url());
    let mut live = watch(&served, "/a");
    link.goes_down();
    let away = Instant::now();
    let mut starting = stopped(&link.url());
    starting.start();
    eventually("the reason is known", || {
        let (status, text) = starting.get("/healthz");
        assert_eq!(status, 503);
        text.starts_with("the events of Redis have not arrived yet: ")
    });
    let (status, text) = starting.get("/a");
    assert!(status == 200 && text.contains("\nretry: "), "reconnect later: {text}");
    let answer = post(&agent(), &starting.at("/a"), "x");
    assert!(matches!(&answer, Answer::Refused(reason) if reason.contains("have not arrived yet")), "{answer:?}");

    served.has_figure("sse_store_connected 0");
    while away.elapsed() < Duration::from_secs(25) {
        assert_eq!(served.get("/healthz").0, 200);
        thread::sleep(Duration::from_millis(200));
    }
    eventually("it is away for too long", || {
        let (status, text) = served.get("/healthz");
        status == 503 && text.starts_with("Redis has been away for 3")
    });
    link.comes_up();
    served.is_healthy();
    starting.is_healthy();
    store(&starting, "/a", "after");
    gets(&mut live, "after");
}
