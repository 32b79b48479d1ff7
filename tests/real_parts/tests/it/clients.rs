//! Clients of other projects receive from hub what the standard defines, and resume automatically.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use real_parts::client::Client;
use real_parts::common::example::Example;
use real_parts::common::http::Events;
use real_parts::common::{PATIENCE, eventually, free_address, parsed};
use real_parts::installed::{node, python, spawn};
use real_parts::relay::Relay;
use serde_json::json;

/// The type and data of what is published. What arrives has a line feed for each CR, LF and CRLF, and is otherwise
/// unchanged.
const EVENTS: &[(&str, &str)] = &[
    ("message", "plain"),
    ("done", "of a type"),
    ("zwölf Uhr", "of a type with a space, not ASCII"),
    ("message", "one\ntwo\nthree"),
    ("message", "one\r\ntwo\r\nthree"),
    ("message", "one\rtwo\rthree"),
    ("message", "one\r\n\rtwo\n\rthree\r\r\nfour"),
    ("message", " one space before"),
    ("message", "   three\n  two\n and one"),
    ("message", "a space and a tab after \t"),
    ("message", ""),
    ("done", ""),
    ("message", "\n"),
    ("message", "\r"),
    ("message", "newline at the end\n"),
    ("message", "two at the end\r\n\r\n"),
    ("message", "\nnewline at the beginning"),
    ("message", "a blank line\n\nwithin"),
    ("message", ": no comment"),
    ("message", "id: none\nretry: 1\nevent: none\ndata: the data"),
    ("message", "grüße, 日本, 🦀"),
    ("message", "\u{feff}no line ends here: \u{b} \u{c} \u{85} \u{2028} \u{2029} \0 \u{1e}"),
];

/// What is published while the client is disconnected.
const MISSED: &[(&str, &str)] = &[("message", "missed"), ("done", "missed\r\ntoo"), ("message", "")];

/// The types that a test publishes, and hub's own.
const TYPES: [&str; 4] = ["message", "done", "zwölf Uhr", "gap"];

#[derive(Clone, Debug, PartialEq)]
struct Arrived {
    kind: String,
    data: String,
    id: String,
}

/// How a client is started, and where it deviates from the standard or has a choice.
struct Kind {
    command: fn() -> Command,
    /// What the client returns for the right data.
    takes: fn(&str) -> String,
    /// The retry time that the server sends, in ms: different from the client's default.
    retry: u64,
    /// The minimum time that it waits after this retry time.
    waits: fn(u64) -> u64,
    /// Whether it resumes after an ID that came without data.
    resumes_after_id_alone: bool,
}

impl Default for Kind {
    fn default() -> Self {
        Self {
            command: || unreachable!(),
            takes: str::to_owned,
            retry: 300,
            waits: |retry| retry,
            resumes_after_id_alone: true,
        }
    }
}

fn npm_eventsource() -> Kind {
    Kind {
        command: || node(include_str!("../../clients/eventsource.mjs")),
        // Its default is 3 s.
        retry: 3_300,
        ..Kind::default()
    }
}

fn python_requests_sse() -> Kind {
    Kind {
        command: || python("requests_sse_client.py"),
        // It strips all spaces from the beginning of a line, and all newlines from the end of the data.
        takes: |data| {
            let lines: Vec<&str> = data.split('\n').map(|line| line.trim_start_matches(' ')).collect();
            lines.join("\n").trim_end_matches('\n').to_owned()
        },
        // It doubles even the first delay.
        waits: |retry| 2 * retry,
        ..Kind::default()
    }
}

fn python_launchdarkly() -> Kind {
    Kind {
        command: || python("launchdarkly_client.py"),
        // It parses `retry`, and ignores it: the program chooses the delay.
        waits: |_| 100,
        resumes_after_id_alone: false,
        ..Kind::default()
    }
}

fn rust_eventsource_client() -> Kind {
    Kind {
        command: || Command::new(env!("CARGO_BIN_EXE_eventsource_client")),
        // A random time between half of it and all of it.
        waits: |retry| retry / 2,
        // Its parser stores the ID, but its reconnecting part reads only events.
        resumes_after_id_alone: false,
        ..Kind::default()
    }
}

/// Starts a client that reads the stream at this URL.
#[track_caller]
fn start(kind: &Kind, url: &str) -> Client {
    Client::start((kind.command)().arg(url).args(TYPES))
}

/// Checks that this is the next message that the client receives.
#[track_caller]
fn gets(client: &mut Client, expected: &Arrived) {
    let message = client.next(expected);
    let field = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(Arrived { kind: field("type"), data: field("data"), id: field("id") }, *expected);
}

/// Waits until it has connected this many times.
#[track_caller]
fn comes(client: &mut Client, relay: &Relay, times: usize) {
    eventually("the client connects", || {
        client.runs();
        relay.visits().len() >= times
    });
}

/// hub, a watcher that stays connected and so has the IDs, and the relay between hub and the client.
struct Scene {
    hub: Example,
    witness: Events,
    relay: Relay,
    takes: fn(&str) -> String,
}

/// Two channels: IDs share one sequence.
const CHANNELS: &str = "/c,d";

impl Scene {
    fn new(kind: &Kind) -> Self {
        let hub = Example::start_at("hub", free_address());
        let relay = Relay::to(address(&hub));
        Self { witness: hub.events(CHANNELS), hub, relay, takes: kind.takes }
    }

    fn url(&self) -> String {
        format!("http://{}{CHANNELS}", self.relay.address)
    }

    /// Publishes. Returns the number of subscribers and what must arrive.
    #[track_caller]
    fn publishes(&mut self, to: &str, data: &str) -> (usize, Arrived) {
        let response = ureq::post(format!("{}{to}", self.hub.url)).send(data).unwrap();
        let watchers = response.headers()["x-watchers"].to_str().unwrap().parse().unwrap();
        let start = Instant::now();
        let (kind, id) = loop {
            let frame = self.witness.next_frame().unwrap();
            let id = frame.lines().find_map(|line| line.strip_prefix("id: ")).unwrap_or_default();
            match &parsed(&frame)[..] {
                // Comments and IDs alone, which go on forever.
                [] => assert!(start.elapsed() < PATIENCE, "{data:?} was published, and has not arrived"),
                [event] => break (event.event.clone(), id.to_owned()),
                events => panic!("{data:?} became {events:?}"),
            }
        };
        let data = data.replace("\r\n", "\n").replace('\r', "\n");
        (watchers, Arrived { kind, data: (self.takes)(&data), id })
    }

    /// Publishes these events to one channel, to the other, and to both.
    fn publishes_all(&mut self, events: &[(&str, &str)]) -> Vec<Arrived> {
        let publish = |((kind, data), to): (&(&str, &str), _)| {
            let (_, event) = self.publishes(&format!("{to}{}", query(kind)), data);
            assert_eq!(event.kind, *kind);
            event
        };
        events.iter().zip(["/c", "/d", CHANNELS].into_iter().cycle()).map(publish).collect()
    }

    /// Publishes until the client receives its first event: before it subscribes, no event reaches it.
    fn first(&mut self, client: &mut Client) -> Arrived {
        let mut first = None;
        eventually("the client subscribes", || {
            client.runs();
            let (watchers, event) = self.publishes("/c", "are you there?");
            first = Some(event);
            watchers > 1
        });
        first.unwrap()
    }

    /// Returns the start ID of the client's nth stream.
    fn started(&self, nth: usize) -> Option<String> {
        let visits = self.relay.visits();
        let (id, _) = visits[nth - 1].answer.split_once("\nid: ")?.1.split_once("\n\n")?;
        Some(id.to_owned())
    }

    /// Returns the last event ID that the client sent when it last connected.
    fn came_with(&self) -> Option<String> {
        let visits = self.relay.visits();
        visits.last().and_then(|visit| visit.header("last-event-id")).map(str::to_owned)
    }

    fn restarts_hub(&mut self) {
        self.hub = Example::start_at("hub", address(&self.hub));
        self.witness = self.hub.events(CHANNELS);
    }
}

/// Returns the request that makes hub publish an event of this type.
fn query(kind: &str) -> String {
    let encoded = kind.replace(' ', "+").replace('ö', "%C3%B6");
    if kind == "message" { String::new() } else { format!("?event={encoded}") }
}

fn address(hub: &Example) -> SocketAddr {
    hub.url.strip_prefix("http://").unwrap().parse().unwrap()
}

fn gets_all_and_resumes(kind: Kind) {
    let mut scene = Scene::new(&kind);
    let mut client = start(&kind, &scene.url());
    let first = scene.first(&mut client);
    gets(&mut client, &first);
    assert_eq!(scene.came_with(), None);
    for event in scene.publishes_all(EVENTS) {
        gets(&mut client, &event);
    }
    let long = scene.publishes("/c", &format!("{}\n{}", "long, ".repeat(20_000), "ü".repeat(50_000))).1;
    gets(&mut client, &long);
    let last = scene.publishes(&format!("/c?retry={}", kind.retry), "with a retry time").1;
    gets(&mut client, &last);

    // The connection breaks within an event, and hub goes on.
    scene.relay.cuts_within("cut off");
    scene.relay.holds();
    let cut_off = scene.publishes("/d", "cut off").1;
    let missed = scene.publishes_all(MISSED);
    eventually("the connection breaks", || scene.relay.cut().is_some());
    comes(&mut client, &scene.relay, 2);
    assert_eq!(scene.came_with(), Some(last.id));
    let away = scene.relay.visits()[1].at - scene.relay.cut().unwrap();
    assert!(away >= Duration::from_millis((kind.waits)(kind.retry)), "it reconnected after {away:?}");
    scene.relay.lets_go();
    gets(&mut client, &cut_off);
    for event in missed {
        gets(&mut client, &event);
    }
    let last = scene.publishes("/d?retry=20", "live again").1;
    gets(&mut client, &last);

    // hub itself is killed, and its history with it.
    scene.hub.process.kill().unwrap();
    scene.hub.process.wait().unwrap();
    // This is how the client detects that hub is gone.
    comes(&mut client, &scene.relay, 3);
    scene.restarts_hub();
    let after = [scene.publishes("/c", "after the restart").1, scene.publishes("/d", "and once more").1];
    let to = format!("{}-0", after[0].id.split_once('-').unwrap().0);
    let gap = Arrived { kind: "gap".into(), data: json!({ "from": &last.id, "to": &to }).to_string(), id: to };
    gets(&mut client, &gap);
    assert_eq!(scene.came_with(), Some(last.id));
    for event in after {
        gets(&mut client, &event);
    }
    gets(&mut client, &scene.publishes(CHANNELS, "live for good").1);
}

/// hub begins each stream with an ID, for connections that are lost before their first event.
fn resumes_before_its_first_event(kind: Kind) {
    let mut scene = Scene::new(&kind);
    let mut client = start(&kind, &scene.url());
    comes(&mut client, &scene.relay, 1);
    eventually("its stream begins", || scene.started(1).is_some());

    scene.relay.cuts_within("cut off");
    scene.relay.holds();
    let cut_off = scene.publishes("/c", "cut off").1;
    comes(&mut client, &scene.relay, 2);
    let came_with = scene.came_with();
    scene.relay.lets_go();
    if kind.resumes_after_id_alone {
        assert_eq!(came_with, Some(scene.started(1).unwrap()));
        gets(&mut client, &cut_off);
    } else {
        assert_eq!(came_with, None);
        eventually("its stream begins", || scene.started(2).is_some());
    }
    gets(&mut client, &scene.publishes("/d", "live").1);
}

#[test]
fn eventsource_of_npm_gets_all_and_resumes() {
    gets_all_and_resumes(npm_eventsource());
}

#[test]
fn requests_sse_of_python_gets_all_and_resumes() {
    gets_all_and_resumes(python_requests_sse());
}

#[test]
fn launchdarkly_eventsource_of_python_gets_all_and_resumes() {
    gets_all_and_resumes(python_launchdarkly());
}

#[test]
fn eventsource_client_of_rust_gets_all_and_resumes() {
    gets_all_and_resumes(rust_eventsource_client());
}

#[test]
fn eventsource_of_npm_resumes_before_its_first_event() {
    resumes_before_its_first_event(npm_eventsource());
}

#[test]
fn requests_sse_of_python_resumes_before_its_first_event() {
    resumes_before_its_first_event(python_requests_sse());
}

/// Their last ID is the one of their last event.
#[test]
fn launchdarklys_clients_reconnect_without_an_id_before_their_first_event() {
    for kind in [python_launchdarkly(), rust_eventsource_client()] {
        resumes_before_its_first_event(kind);
    }
}

/// curl with its output, killed when it is dropped.
struct Curl(Child, BufReader<ChildStdout>);

impl Curl {
    #[track_caller]
    fn start(arguments: &[&str]) -> Self {
        let mut process = spawn(Command::new("curl").args(["--silent", "--show-error", "--no-buffer"]).args(arguments));
        let output = BufReader::new(process.stdout.take().unwrap());
        Self(process, output)
    }

    /// Checks that these are the next bytes. It needs no time limit, since curl has one.
    #[track_caller]
    fn reads(&mut self, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        let result = self.1.read_exact(&mut bytes);
        assert_eq!(String::from_utf8_lossy(&bytes), expected, "{result:?}");
    }

    #[track_caller]
    fn reads_line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "curl has ended after {line:?}");
        line
    }
}

impl Drop for Curl {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Publishes with curl. Returns the frame without its ID.
#[track_caller]
fn curl_publishes(url: &str, kind: &str, data: &str) -> String {
    let url = format!("{url}{}", query(kind));
    let arguments = ["--silent", "--show-error", "--fail", "--data-binary", "@-", &url];
    let mut curl = spawn(Command::new("curl").args(arguments).stdin(Stdio::piped()));
    curl.stdin.take().unwrap().write_all(data.as_bytes()).unwrap();
    assert!(curl.wait().unwrap().success());
    let mut frame = if kind == "message" { String::new() } else { format!("event: {kind}\n") };
    for line in data.replace("\r\n", "\n").replace('\r', "\n").split('\n') {
        frame.push_str(&format!("data: {line}\n"));
    }
    frame
}

#[test]
fn curl_sees_each_byte_and_resumes_by_header_and_by_query() {
    let hub = Example::start("hub");
    let url = format!("{}/c", hub.url);
    let limit = PATIENCE.as_secs().to_string();
    let watch = |arguments: &[&str]| Curl::start(&[&["--max-time", &limit], arguments].concat());

    let mut curl = watch(&["--include", &url]);
    assert_eq!(curl.reads_line(), "HTTP/1.1 200 OK\r\n");
    let mut head = Vec::new();
    while head.last().is_none_or(|line| line != "\r\n") {
        head.push(curl.reads_line());
    }
    assert!(head.contains(&"Content-Type: text/event-stream; charset=utf-8\r\n".to_owned()), "{head:?}");
    curl.reads(":\n");
    let start = curl.reads_line();
    assert!(start.starts_with("id: "), "{start:?}");
    curl.reads("\n");

    let mut frames = Vec::new();
    for (kind, data) in EVENTS {
        let frame = curl_publishes(&url, kind, data);
        curl.reads(&frame);
        let id = curl.reads_line();
        assert!(id.starts_with("id: "), "{id:?}");
        curl.reads("\n");
        frames.push((frame, id));
    }
    drop(curl);
    for (kind, data) in MISSED {
        frames.push((curl_publishes(&url, kind, data), String::new()));
    }

    // From the start on, and from the middle.
    let ids: Vec<String> = [&start].into_iter().chain(frames.iter().map(|(_, id)| id)).cloned().collect();
    for seen in [0, 1, EVENTS.len() / 2, EVENTS.len()] {
        let id = ids[seen].strip_prefix("id: ").unwrap().trim();
        let header = format!("Last-Event-ID: {id}");
        for arguments in [&["--header", &header, &url][..], &[&format!("{url}?lastEventId={id}")]] {
            let mut curl = watch(arguments);
            curl.reads(&format!(":\nid: {id}\n\n"));
            for (frame, id) in &frames[seen..] {
                curl.reads(frame);
                let got = curl.reads_line();
                assert!(got == *id || id.is_empty() && got.starts_with("id: "), "{got:?}, not {id:?}");
                curl.reads("\n");
            }
        }
    }
}
