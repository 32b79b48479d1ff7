//! The examples do what their first lines say, with real clients.
#![cfg(feature = "tiny_http")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
#[cfg(feature = "server")]
use std::thread;
#[cfg(target_os = "linux")]
use std::{
    fs::File,
    net::{TcpListener, TcpStream},
};

use common::eventually;
#[cfg(target_os = "linux")]
use common::example::broken_pipe;
use common::example::{Example, built_examples};
use common::http::{Client, Events};

/// Status and text of an answer.
fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, String) {
    let mut response = response.unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn get(url: &str) -> (u16, String) {
    answer(agent().get(url).call())
}

fn post(url: &str, body: impl ureq::AsSendBody) -> (u16, String) {
    answer(agent().post(url).send(body))
}

#[test]
fn visits_shows_each_visit_to_every_viewer() {
    for name in ["visits"].into_iter().chain(cfg!(feature = "server").then_some("visits_event_server")) {
        shows_each_visit_to_every_viewer(&Example::start(name));
    }
}

fn shows_each_visit_to_every_viewer(visits: &Example) {
    assert!(get(&visits.url).1.contains("<!doctype html>"));
    let mut viewers = [(); 2].map(|()| visits.events("/visits"));
    for viewer in &mut viewers {
        viewer.gets("data: 1 visits so far\n\n");
    }
    get(&visits.url);
    for viewer in &mut viewers {
        viewer.gets("data: visit number 2\n\n");
    }
    assert_eq!(get(&format!("{}/nothing", visits.url)).0, 404);
}

/// An event stream with ids, that has had its start id.
struct Watcher {
    events: Events,
    last_event_id: String,
}

impl Watcher {
    #[track_caller]
    fn new(example: &Example, path: &str) -> Self {
        let mut events = example.events(path);
        let start = events.next_frame().unwrap();
        assert!(start.starts_with("id: ") && start.lines().count() == 2, "{start:?} is no start id");
        Self { events, last_event_id: start["id: ".len()..].trim().into() }
    }

    /// All of the next event but its id; heartbeats are none.
    fn next_event(&mut self) -> String {
        loop {
            let frame = self.events.next_frame().unwrap();
            if frame == ":\n" {
                continue;
            }
            let (ids, rest): (Vec<&str>, Vec<&str>) =
                frame.split_inclusive('\n').partition(|line| line.starts_with("id: "));
            assert_eq!(ids.len(), 1, "{frame:?} has no id");
            if rest != ["\n"] {
                self.last_event_id = ids[0]["id: ".len()..].trim().into();
                return rest.concat();
            }
        }
    }

    #[track_caller]
    fn gets(&mut self, event: &str) {
        assert_eq!(self.next_event(), event);
    }
}

struct Chat(Example);

impl Chat {
    fn join(&self, name: &str) -> Watcher {
        Watcher::new(&self.0, &format!("/subscribe?username={name}"))
    }

    fn says(&self, name: &str, message: &str) -> (u16, String) {
        answer(agent().post(format!("{}/publish", self.0.url)).send_form([("username", name), ("message", message)]))
    }
}

/// Who says what in the next message, without who joins, leaves and is here.
fn next_message(watcher: &mut Watcher) -> (String, String) {
    loop {
        let event = watcher.next_event();
        if let Some(data) = event.strip_prefix("data: ") {
            let said: serde_json::Value = serde_json::from_str(data).unwrap();
            assert!(said["time"].is_u64(), "{data}");
            return ["username", "message"].map(|field| said[field].as_str().unwrap().to_owned()).into();
        }
        let event_type = event.strip_prefix("event: ").unwrap().lines().next().unwrap();
        assert!(["joined", "left", "users"].contains(&event_type), "{event}");
    }
}

#[track_caller]
fn is_told(watcher: &mut Watcher, username: &str, message: &str) {
    assert_eq!(next_message(watcher), (username.to_owned(), message.to_owned()));
}

#[test]
fn chat_gives_a_message_to_everybody_but_its_sender() {
    let chat = Chat(Example::start("chat"));
    let mut ada = chat.join("Ada");
    ada.gets("event: joined\ndata: {\"username\":\"Ada\"}\n\n");
    ada.gets("event: users\ndata: [\"Ada\"]\n\n");
    let mut bob = chat.join("Bob%20%26%20Co");
    for watcher in [&mut ada, &mut bob] {
        watcher.gets("event: joined\ndata: {\"username\":\"Bob & Co\"}\n\n");
        watcher.gets("event: users\ndata: [\"Ada\",\"Bob & Co\"]\n\n");
    }

    assert_eq!(chat.says("Ada", "one"), (204, String::new()));
    is_told(&mut bob, "Ada", "one");
    assert_eq!(chat.says("Bob & Co", "two").0, 204);
    is_told(&mut ada, "Bob & Co", "two");
    assert_eq!(chat.says("a stranger", "<b>ü</b>\nnext line").0, 204);
    is_told(&mut ada, "a stranger", "<b>ü</b>\nnext line");
    is_told(&mut bob, "a stranger", "<b>ü</b>\nnext line");

    drop(bob);
    ada.gets("event: left\ndata: {\"username\":\"Bob & Co\"}\n\n");
    ada.gets("event: users\ndata: [\"Ada\"]\n\n");
}

#[test]
fn chat_sends_a_tab_that_reconnects_each_missed_message_once() {
    let chat = Chat(Example::start("chat"));
    let mut bob = chat.join("Bob");
    chat.says("Ada", "seen");
    is_told(&mut bob, "Ada", "seen");
    let id = bob.last_event_id.clone();
    drop(bob);
    chat.says("Ada", "missed");
    chat.says("Bob", "said from another tab");

    // By the page's own reconnect.
    let mut bob = chat.join(&format!("Bob&lastEventId={id}"));
    chat.says("Ada", "live");
    is_told(&mut bob, "Ada", "missed");
    is_told(&mut bob, "Ada", "live");

    // By the browser's, with the same address: its header is the newer one.
    let mut browser = chat.0.connect();
    let newer = &bob.last_event_id;
    chat.says("Ada", "missed too");
    browser.send(&format!("GET /subscribe?username=Bob&lastEventId={id} HTTP/1.1\r\nHost: localhost\r\n"));
    browser.send(&format!("Last-Event-ID: {newer}\r\n\r\n"));
    let replay = browser.reads_until("missed too");
    assert!(replay.contains(&format!("id: {newer}\n")), "{replay}");
    assert!(!replay.contains("event: gap") && replay.matches("\"message\"").count() == 1, "{replay}");

    // A new one begins with what is said from then on.
    let mut carol = chat.join("Carol");
    chat.says("Ada", "newest");
    is_told(&mut carol, "Ada", "newest");
}

#[test]
fn chat_rejects_a_bad_request_with_the_reason() {
    let chat = Chat(Example::start("chat"));
    let missing_name = (400, "the field `username` is missing\n".to_owned());
    assert_eq!(get(&format!("{}/subscribe", chat.0.url)), missing_name);
    assert_eq!(chat.says("", "x"), missing_name);
    assert_eq!(chat.says("Ada", ""), (400, "the field `message` is missing\n".into()));
    let long = "the username has 41 characters: at most 40 are allowed\n";
    assert_eq!(chat.says(&"ü".repeat(41), "x"), (400, long.into()));
    assert_eq!(
        chat.says("Ada", &"x".repeat(16 * 1024)),
        (413, "body too large: at most 16384 bytes are allowed\n".into())
    );
    assert_eq!(get(&format!("{}/publish", chat.0.url)).0, 405);
    assert_eq!(get(&format!("{}/nothing", chat.0.url)).0, 404);
}

fn start_job(progress: &Example, name: &str) -> (u16, String) {
    answer(agent().post(format!("{}/jobs", progress.url)).send_form([("name", name)]))
}

/// What an event of a job says: number, name, state, percent, step.
type Told = (u64, String, String, u64, String);

fn next_told(watcher: &mut Watcher) -> Told {
    let event = watcher.next_event();
    let told: serde_json::Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
    assert!(told["time"].is_u64(), "{event}");
    let [name, state, step] = ["name", "state", "step"].map(|field| told[field].as_str().unwrap().to_owned());
    (told["job"].as_u64().unwrap(), name, state, told["percent"].as_u64().unwrap(), step)
}

#[test]
fn progress_shows_a_late_viewer_the_state_of_all_jobs() {
    let progress = Example::start("progress");
    let name = "<b>fail</b> & ü";
    assert_eq!(start_job(&progress, &format!(" {name} ")), (201, "{\"job\":3}".into()));

    // Live until the third has failed, with all that the others do meanwhile.
    let mut live = Watcher::new(&progress, "/events");
    let mut all: Vec<Told> = Vec::new();
    while !all.last().is_some_and(|(job, _, state, ..)| *job == 3 && state == "failed") {
        all.push(next_told(&mut live));
    }
    let jobs: BTreeSet<u64> = all.iter().map(|(job, ..)| *job).collect();
    assert_eq!(jobs, BTreeSet::from([1, 2, 3]));
    let third: Vec<Told> = all.iter().filter(|(job, ..)| *job == 3).cloned().collect();
    let of_third = |state: &str, percent, step: &str| (3, name.into(), state.into(), percent, step.into());
    assert_eq!(third[0], of_third("queued", 0, "waiting for a free worker"));
    for (n, step) in ["reading"; 10].into_iter().chain(["checking"; 10]).chain(["converting"; 5]).enumerate() {
        assert_eq!(third[1 + n], of_third("running", 2 * n as u64, step));
    }
    assert_eq!(third[26..], [of_third("failed", 50, "converting was not possible")]);

    // Late, and the same; the stream of one job has what is its own.
    let mut late = Watcher::new(&progress, "/events");
    for told in &all {
        assert_eq!(next_told(&mut late), *told);
    }
    assert_eq!(late.last_event_id, live.last_event_id);
    let mut alone = Watcher::new(&progress, "/events?job=3");
    for told in &third {
        assert_eq!(next_told(&mut alone), *told);
    }
    assert_eq!(alone.last_event_id, live.last_event_id);

    // One that comes back goes on there.
    let mut back = Watcher::new(&progress, &format!("/events?lastEventId={}", live.last_event_id));
    for _ in 0..3 {
        assert_eq!(next_told(&mut back), next_told(&mut live));
    }
}

#[test]
fn progress_queues_at_most_20_jobs() {
    let progress = Example::start("progress");
    let mut answers = (0..30).map(|n| start_job(&progress, &format!("number {n}")));
    let started = answers.by_ref().take_while(|(status, _)| *status == 201).count() as u64;
    assert_eq!(answers.next().unwrap(), (503, "20 jobs are waiting already: try again later\n".into()));
    // One of them runs, for two others did before; more, if it takes very long to start them.
    assert!((20..30).contains(&started), "{started}");
    let newest = started + 2;
    let mut waiting = Watcher::new(&progress, &format!("/events?job={newest}"));
    let name = format!("number {}", started - 1);
    assert_eq!(next_told(&mut waiting), (newest, name, "queued".into(), 0, "waiting for a free worker".into()));
}

#[test]
fn progress_rejects_a_bad_request_with_the_reason() {
    let progress = Example::start("progress");
    let url = |path: &str| format!("{}{path}", progress.url);
    assert_eq!(post(&url("/jobs"), ""), (400, "the field `name` is missing\n".into()));
    assert_eq!(start_job(&progress, " \n"), (400, "the field `name` is missing\n".into()));
    let long = "the name has 61 characters: at most 60 are allowed\n";
    assert_eq!(start_job(&progress, &"ü".repeat(61)), (400, long.into()));
    let large = (413, "body too large: at most 65536 bytes are allowed\n".into());
    assert_eq!(start_job(&progress, &"x".repeat(64 * 1024)), large);
    for path in ["/events?job=x", "/?job=x"] {
        assert_eq!(get(&url(path)), (400, "job=x is not a job's number\n".into()));
    }
    for (path, allowed) in [("/", "GET, HEAD"), ("/events", "GET, HEAD"), ("/jobs", "POST")] {
        let response = agent().put(url(path)).send("x").unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &allowed.parse().unwrap()));
    }
    assert_eq!(get(&url("/nothing")), (404, "there are /, /events and /jobs\n".into()));
    assert_eq!(start_job(&progress, "the first that was right"), (201, "{\"job\":3}".into()));
}

/// A page in which text of others could become HTML has one of these. Seen in many chat demos: HTML in a name or a text runs.
#[test]
fn no_page_turns_text_into_html() {
    for page in ["visits", "chat", "progress"].into_iter().chain(cfg!(feature = "server").then_some("hub")) {
        let example = Example::start(page);
        let (_, html) = get(&example.url);
        assert!(html.contains("textContent"), "{page}");
        for dangerous in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!html.contains(dangerous), "{page}: {dangerous}");
        }
    }
}

#[cfg(feature = "server")]
#[test]
fn hub_publishes_to_channels() {
    let hub = Example::start("hub");
    assert!(get(&hub.url).1.contains("<!doctype html>"));
    let mut builds = Watcher::new(&hub, "/builds");
    let mut both = Watcher::new(&hub, "/builds,caf%C3%A9%20news");
    let url = |path: &str| format!("{}{path}", hub.url);

    assert_eq!(post(&url("/builds"), "two\nlines"), (204, String::new()));
    assert_eq!(post(&url("/caf%C3%A9%20news?event=flash&retry=1500"), ""), (204, String::new()));
    assert_eq!(post(&url("/builds,caf%C3%A9%20news?event=a%26b"), "once").0, 204);
    builds.gets("data: two\ndata: lines\n\n");
    builds.gets("event: a&b\ndata: once\n\n");
    both.gets("data: two\ndata: lines\n\n");
    both.gets("event: flash\nretry: 1500\ndata: \n\n");
    both.gets("event: a&b\ndata: once\n\n");

    let mut comma = Watcher::new(&hub, "/a%2Cb");
    assert_eq!(post(&url("/a,b"), "to two others").0, 204);
    assert_eq!(post(&url("/a%2Cb"), "to the one with a comma").0, 204);
    comma.gets("data: to the one with a comma\n\n");
}

#[cfg(feature = "server")]
#[test]
fn hub_rejects_a_bad_request_with_the_reason_and_publishes_nothing() {
    let hub = Example::start("hub");
    let mut watcher = Watcher::new(&hub, "/c");
    let url = |path: &str| format!("{}{path}", hub.url);
    let refused = |(status, text): (u16, String), expected_status: u16, expected: &str| {
        assert_eq!((status, text.trim_end()), (expected_status, expected));
    };
    let mebibyte = vec![b'x'; 1024 * 1024 + 1];

    refused(
        post(&url("/c"), &b"\xff"[..]),
        400,
        "the body is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0",
    );
    refused(post(&url("/c"), &mebibyte[..]), 413, "the body is larger than this server allows");
    let text = "invalid character '\\n' at byte 1 of the event type: remove CR, LF and NUL";
    refused(post(&url("/c?event=a%0Adata:b"), "x"), 400, text);
    refused(post(&url("/c?retry=soon"), "x"), 400, "retry=soon is not a number of ms");
    let text = "retry time too long (2147483648 ms): use at most 2147483647 ms";
    refused(post(&url("/c?retry=2147483648"), "x"), 400, text);
    refused(post(&url("/c?kind=x"), "x"), 400, "\"kind\" is unknown: `event` and `retry` are allowed");
    refused(post(&url("/"), "x"), 400, "a channel's name is empty: /CHANNEL or /A,B");
    refused(post(&url("/c,"), "x"), 400, "a channel's name is empty: /CHANNEL or /A,B");
    let many = format!("/{}", vec!["c"; 65].join(","));
    refused(post(&url(&many), "x"), 400, "the path names 65 channels: at most 64 are allowed");
    refused(post(&url("/%ff"), "x"), 400, "the path is not UTF-8");
    let long = "x".repeat(257);
    let text = "a channel's name is 257 bytes long: at most 256 are allowed";
    refused(post(&url(&format!("/{long}")), "x"), 400, text);
    refused(get(&url(&format!("/{long}"))), 400, text);
    let many = (0..65).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let text = "the path names 65 channels: at most 64 are allowed";
    refused(get(&url(&format!("/{many}"))), 400, text);
    let text = "no channel can have the name `stats`: the hub itself answers GET /stats";
    refused(post(&url("/stats"), "x"), 400, text);
    for path in ["/c,stats", "/%73tats", "/stats,"] {
        refused(get(&url(path)), 400, text);
    }
    let put = answer(agent().put(url("/c")).send("x"));
    refused(put, 405, "GET watches a channel, POST publishes to it");

    let exactly = &mebibyte[1..];
    assert_eq!(post(&url("/c"), exactly).0, 204);
    assert_eq!(watcher.next_event().len(), "data: \n\n".len() + exactly.len());
}

#[cfg(feature = "server")]
#[test]
fn hub_reports_its_statistics_to_prometheus() {
    let hub = Example::start("hub");
    let url = |path: &str| format!("{}{path}", hub.url);
    let mut watcher = Watcher::new(&hub, "/a,b");
    assert_eq!(post(&url("/a"), "x"), (204, String::new()));
    assert_eq!(post(&url("/nobody's"), "x"), (204, String::new()));
    watcher.gets("data: x\n\n");
    let mut response = agent().get(url("/stats")).call().unwrap();
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &content_type.parse().unwrap())
    );
    let text = response.body_mut().read_to_string().unwrap();

    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.pop(), Some("# EOF"));
    let (about, samples): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| line.starts_with("# "));
    let bytes: u64 = samples.iter().find_map(|line| line.strip_prefix("sse_history_bytes ")).unwrap().parse().unwrap();
    assert!((100..10_000).contains(&bytes), "{bytes}");
    let bytes = format!("sse_history_bytes {bytes}");
    let expected = [
        "sse_subscribers 1",
        "sse_channels 2",
        "sse_published_events_total 2",
        "sse_queued_events_total 1",
        "sse_delivered_events_total 1",
        "sse_skipped_events_total 0",
        "sse_panicked_events_total 0",
        "sse_dropped_events_total 0",
        "sse_refused_streams_total 0",
        "sse_ended_streams_total{cause=\"closed\"} 0",
        "sse_ended_streams_total{cause=\"unsubscribed\"} 0",
        "sse_ended_streams_total{cause=\"queue_full\"} 0",
        "sse_ended_streams_total{cause=\"connection_lost\"} 0",
        "sse_ended_streams_total{cause=\"write_timed_out\"} 0",
        "sse_ended_streams_total{cause=\"dropped\"} 0",
        "sse_ended_streams_total{cause=\"disconnected\"} 0",
        "sse_ended_streams_total{cause=\"expired\"} 0",
        "sse_history_events 2",
        &bytes,
        "sse_history_channels 2",
    ];
    assert_eq!(samples.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from(expected));
    assert_eq!(samples.len(), expected.len(), "{text}");
    for sample in &samples {
        let name = sample.split(['{', ' ']).next().unwrap();
        let of_type = name.strip_suffix("_total").map_or(format!("{name} gauge"), |name| format!("{name} counter"));
        assert!(about.contains(&&*format!("# TYPE {of_type}")), "{text}");
    }

    drop(watcher);
    let left = "\nsse_ended_streams_total{cause=\"connection_lost\"} 1\n";
    eventually("that the client went away is counted", || {
        post(&url("/a"), "x");
        get(&url("/stats")).1.contains(left)
    });
}

#[cfg(feature = "server")]
#[test]
fn hub_serves_300_streams_that_open_at_once() {
    let hub = Example::start("hub");
    let mut clients: Vec<Client> = (0..300).map(|_| hub.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&format!("GET /all,{n} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }
    for client in &mut clients {
        client.reads_head();
        client.reads_until(":\nid: ");
    }
    assert_eq!(post(&format!("{}/all", hub.url), "hello").0, 204);
    for client in &mut clients {
        client.reads_until("data: hello\n");
    }
}

/// How many threads of ours and descriptors the process has, how many watch the channel, and how many threads there
/// are in all, in steps of 32.
#[cfg(all(feature = "server", target_os = "linux"))]
fn held(hub: &Example, channel: &str) -> [usize; 4] {
    let of = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", hub.process.id())).unwrap();
    let names = of("task").filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let ours = names.filter(|name| name.starts_with("sse ")).count();
    let response = agent().post(format!("{}/{channel}", hub.url)).header("connection", "close").send("x").unwrap();
    let watchers = response.headers()["x-watchers"].to_str().unwrap().parse().unwrap();
    [ours, of("fd").count(), watchers, of("task").count() / 32]
}

#[cfg(all(feature = "server", target_os = "linux"))]
#[test]
fn hub_keeps_nothing_of_10_000_clients_that_connect_and_reset() {
    let hub = Example::start("hub");
    drop(hub.events("/c"));
    eventually("the first watcher has gone", || held(&hub, "c")[2] == 0);
    let before = held(&hub, "c");
    thread::scope(|threads| {
        for thread in 0..20 {
            let hub = &hub;
            threads.spawn(move || {
                for n in 0..500 {
                    let mut client = hub.connect();
                    client.send("GET /c HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    if (thread + n) % 2 == 0 {
                        client.reads_head();
                    }
                    client.resets();
                }
            });
        }
    });
    // There is a writer thread for each processor when all are needed.
    let processors = thread::available_parallelism().unwrap().get();
    let before = [before[0] + processors, before[1] + 4, before[2], before[3]];
    eventually("threads, descriptors and watchers are where they were", || {
        let now = held(&hub, "c");
        println!("ours, descriptors, watchers, threads / 32: {now:?}, and {before:?} before");
        now.iter().zip(before).all(|(now, before)| *now <= before)
    });
}

#[cfg(feature = "server")]
#[test]
fn hub_reports_a_gap_once_after_a_restart() {
    let mut before = Example::start("hub");
    let mut client = before.events("/c");
    let start = client.next_frame().unwrap();
    post(&format!("{}/c", before.url), "one");
    let id = client.next_frame().unwrap().strip_prefix("data: one\nid: ").unwrap().trim().to_owned();
    assert_ne!(start.trim(), format!("id: {id}"));
    let address = before.url.strip_prefix("http://").unwrap().to_owned();
    before.process.kill().unwrap();
    before.process.wait().unwrap();

    let mut command = Command::new(built_examples().join("hub"));
    command.arg(address);
    let after = Example::run_as_it_is(command);
    post(&format!("{}/c", after.url), "two");
    let reconnect = |id: &str| Events::get(&format!("{}/c?lastEventId={id}", after.url));
    let mut client = reconnect(&id);
    client.gets(":\n");
    let gap = client.next_frame().unwrap();
    assert!(gap.starts_with("event: gap\n"), "{gap}");
    let id = gap.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    assert!(client.next_frame().unwrap().starts_with("data: two\n"));
    drop(client);

    let mut client = reconnect(&id);
    client.gets(":\n");
    client.gets(&format!("id: {id}\n\n"));
    assert!(client.next_frame().unwrap().starts_with("data: two\n"), "told once");
    post(&format!("{}/c", after.url), "three");
    assert!(client.next_frame().unwrap().starts_with("data: three\n"));
}

#[cfg(feature = "server")]
#[test]
fn hub_serves_many_publishers_at_once() {
    let hub = Example::start("hub");
    let mut watcher = Watcher::new(&hub, "/c");
    thread::scope(|threads| {
        for thread in 0..8 {
            let hub = &hub;
            threads.spawn(move || {
                for n in 0..50 {
                    assert_eq!(post(&format!("{}/c", hub.url), format!("{thread} {n}")).0, 204);
                }
            });
        }
    });
    let frames: BTreeSet<String> = (0..400).map(|_| watcher.next_event()).collect();
    assert_eq!(frames.len(), 400);
}

/// For hub, chat and progress: where to watch, where to post, and a body with the text that watchers then see.
const POSTS: &[(&str, &str, &str, &str, &str)] = &[
    #[cfg(feature = "server")]
    ("hub", "/c", "/c", "hello", "data: hello\n"),
    ("chat", "/subscribe?username=Bob", "/publish", "username=Ada&message=hello", "\"message\":\"hello\""),
    ("progress", "/events", "/jobs", "name=hello", "\"name\":\"hello\",\"percent\":0,\"state\":\"queued\""),
];

/// A connection that has read the head and the beginning of a stream.
fn watches(example: &Example, path: &str) -> Client {
    let mut watcher = example.connect();
    watcher.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    watcher.reads_until(":\nid: ");
    watcher
}

/// What curl and Java's HttpClient send if they may use HTTP/2. The body must not last as long as the connection.
#[test]
fn a_post_that_offers_an_upgrade_is_answered_at_once_and_published_once() {
    for (name, stream, path, body, seen) in POSTS.iter().copied() {
        let example = Example::start(name);
        let mut watcher = watches(&example, stream);
        // As many as there are threads that answer, and one more.
        let mut clients: Vec<Client> = (0..5).map(|_| example.connect()).collect();
        for client in &mut clients {
            client.send(&format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"));
            client.send("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n");
            client.send(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        }
        for client in &mut clients {
            let status = client.reads_head().status().to_owned();
            assert!(status.starts_with("HTTP/1.1 20"), "{name}: {status}");
        }
        let mut stream = String::new();
        for _ in &clients {
            stream += &watcher.reads_until(seen);
        }
        drop(clients);
        // Whatever an end of a connection publishes comes before this.
        let last = body.replace("hello", "the last");
        assert!(matches!(post(&format!("{}{path}", example.url), &last).0, 201 | 204), "{name}");
        let until_last = watcher.reads_until(&seen.replace("hello", "the last"));
        assert!(!until_last.contains(seen), "{name}: {until_last}");
        assert_eq!(stream.matches(seen).count(), 5, "{name}");
    }
}

#[test]
fn a_post_of_curl_that_may_use_http_2_is_answered_at_once() {
    if Command::new("curl").arg("--version").output().is_err() {
        return println!("skipped: there is no curl");
    }
    for (name, stream, path, body, seen) in POSTS.iter().copied() {
        let example = Example::start(name);
        let mut watcher = watches(&example, stream);
        let mut curl = Command::new("curl");
        curl.args(["--http2", "--silent", "--show-error", "--fail", "--max-time", "10", "-d", body]);
        let output = curl.arg(format!("{}{path}", example.url)).output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        watcher.reads_until(seen);
    }
}

#[test]
fn half_a_body_is_not_published() {
    for (name, stream, path, body, seen) in POSTS.iter().copied() {
        let example = Example::start(name);
        let mut watcher = watches(&example, stream);
        let half = format!("{}{}", body.replace("hello", "half"), "+".repeat(2_000));
        for head in [
            "Content-Length: 5000\r\n",
            "Content-Length: 5000\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
            "Content-Length: 5000\r\nExpect: 100-continue\r\n",
            "Transfer-Encoding: chunked\r\n",
        ] {
            let mut client = example.connect();
            let chunk = if head.starts_with("Transfer") { "1388\r\n" } else { "" };
            client.send(&format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n{chunk}{half}"));
            client.says_no_more();
            let response = String::from_utf8(client.reads_all_there_is()).unwrap();
            // tiny_http does not report whether a chunked body is whole.
            let is_unknown = head.starts_with("Transfer") && name != "hub";
            let status = if is_unknown { "HTTP/1.1 411 " } else { "HTTP/1.1 400 " };
            assert!(response.contains(status), "{name}, {head:?}: {response}");
        }
        assert!(matches!(post(&format!("{}{path}", example.url), body).0, 201 | 204), "{name}");
        let stream = watcher.reads_until(seen);
        assert!(!stream.contains("half"), "{name}: {stream}");
    }
}

/// `println!` and its kin panic if nobody reads the output or the disk is full, and a thread that answers ends with that.
#[test]
fn examples_use_no_macro_that_panics_when_output_fails() {
    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
        let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
        let rust = files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
        rust.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
    }
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"));
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        for (number, line) in code {
            for name in ["print!", "println!", "eprint!", "eprintln!", "dbg!"] {
                assert!(!line.contains(name), "{}:{}: {name}", file.display(), number + 1);
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn examples_serve_whatever_becomes_of_their_output() {
    let on_event_server = cfg!(feature = "server").then_some(["hub", "visits_event_server"]).into_iter().flatten();
    let on_rouille = cfg!(feature = "rouille").then_some("rouille");
    let names = ["visits", "chat", "progress"].into_iter().chain(on_event_server).chain(on_rouille);
    for name in names {
        // Nobody can read where it listens.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(built_examples().join(name));
        command.arg(address.to_string()).stderr(broken_pipe()).stdout(File::create("/dev/full").unwrap());
        let mut process = command.spawn().unwrap();
        eventually("it listens", || {
            assert!(process.try_wait().unwrap().is_none(), "{name} has ended");
            TcpStream::connect(address).is_ok()
        });
        // More of each than there are threads that answer.
        for path in ["/publish", "/jobs"].repeat(5) {
            for text in ["Transfer-Encoding: chunked\r\n\r\nzz", "Content-Length: 5000\r\n\r\nnot all of it"] {
                let mut client = Client::connect(address);
                client.send(&format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{text}"));
                client.says_no_more();
                client.reads_all_there_is();
            }
        }
        assert_eq!(get(&format!("http://{address}/")).0, 200, "{name}");
        process.kill().unwrap();
        process.wait().unwrap();
    }
}
