//! Clients that take every blank line for a message, or a text without a charset for Latin-1, receive only the events.

use std::process::Command;
use std::time::Duration;

use real_parts::client::Client;
use real_parts::common::eventually;
use real_parts::common::http::Running;
use real_parts::installed::{node, python};
use real_parts::relay::{Cut, Relay};
use serde_json::json;
use server_sent_events::server::{EventServer, Request, Response, RunningServer};
use server_sent_events::{Event, History, Publisher};

/// Short, so that several come between two events.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// The number of heartbeats that come before each event.
const HEARTBEATS: usize = 2;

/// `✅`, `Å`, `х` and `🅰` have the byte 0x85, which is a line end for Python in a text that it takes for Latin-1.
const TEXTS: [&str; 4] =
    ["plain", "✅ Å х 🅰 at the start", "within … 日本, grüße, 🦀, and at the end ✅", "two\nlines ✅"];

/// Sent while the client is disconnected.
const MISSED: [&str; 2] = ["missed ✅", "missed\ntoo"];

/// The source of the events' IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    None,
    /// The application, without a history: only events carry an ID.
    Application,
    /// The history, which also sends an ID without an event where a stream starts.
    History,
}

#[derive(Clone, Copy, Debug)]
enum Front {
    TinyHttp,
    EventServer,
}

/// A client, and the events and the servers that suit it.
struct Kind {
    /// Its script, without arguments.
    command: fn() -> Command,
    /// Returns the event that carries a text for it.
    event: fn(&str) -> Event,
    /// Chat clients post their request, which only tiny_http answers.
    fronts: &'static [Front],
    /// Whether it ends at a message without data, or skips it; its script then has an argument to report such a
    /// message.
    hides_empty: bool,
    /// Where a connection may break if it is to resume without a loss or a duplicate; `None` if it does not reconnect.
    resumes: Option<Cut>,
}

impl Default for Kind {
    fn default() -> Self {
        Self {
            command: || unreachable!(),
            event: |text| Event::new(text),
            fronts: &[Front::TinyHttp, Front::EventServer],
            hides_empty: false,
            resumes: None,
        }
    }
}

fn fetch_event_source() -> Kind {
    Kind {
        command: || node(include_str!("../../clients/fetch_event_source.mjs")),
        event: |text| Event::new(json!(text).to_string()),
        hides_empty: true,
        // It resumes after an ID whose event is incomplete.
        resumes: Some(Cut::After),
        ..Kind::default()
    }
}

fn httpx_sse() -> Kind {
    Kind { command: || python("httpx_sse_client.py"), resumes: Some(Cut::Within), ..Kind::default() }
}

fn openai() -> Kind {
    Kind {
        command: || python("openai_client.py"),
        event: |text| {
            let choice = json!({ "index": 0, "delta": { "content": text }, "finish_reason": null });
            let object = "chat.completion.chunk";
            let chunk = json!({ "id": "chat", "object": object, "created": 0, "model": "none", "choices": [choice] });
            Event::new(chunk.to_string())
        },
        fronts: &[Front::TinyHttp],
        hides_empty: true,
        ..Kind::default()
    }
}

fn anthropic() -> Kind {
    Kind {
        command: || python("anthropic_client.py"),
        event: |text| {
            let kind = "content_block_delta";
            let delta = json!({ "type": kind, "index": 0, "delta": { "type": "text_delta", "text": text } });
            Event::new(delta.to_string()).event(kind).unwrap()
        },
        fronts: &[Front::TinyHttp],
        hides_empty: true,
        ..Kind::default()
    }
}

fn sseclient() -> Kind {
    // It takes half a message and the start of the next stream for one message.
    Kind { command: || python("sseclient_client.py"), resumes: Some(Cut::After), ..Kind::default() }
}

fn requests() -> Kind {
    Kind { command: || python("requests_client.py"), ..Kind::default() }
}

/// Answers each request with a stream; stops when dropped.
enum Server {
    TinyHttp(Running),
    EventServer(RunningServer),
}

impl Server {
    fn start(front: Front, publisher: &Publisher) -> Self {
        let publisher = publisher.clone();
        match front {
            Front::TinyHttp => Self::TinyHttp(Running::new(move |request| {
                let subscription = publisher.subscription(()).last_event_id_from(&request).open().unwrap();
                // The client may be gone.
                let _ = subscription.respond(request);
            })),
            Front::EventServer => {
                let answer = move |request: &Request| -> Response {
                    publisher.subscription(()).last_event_id(request.last_event_id()).open().into()
                };
                Self::EventServer(EventServer::bind("127.0.0.1:0").unwrap().spawn(answer).unwrap())
            }
        }
    }

    fn relay(&self) -> Relay {
        Relay::to(match self {
            Self::TinyHttp(running) => running.address,
            Self::EventServer(running) => running.local_addr(),
        })
    }
}

/// What the client must receive.
#[derive(Debug)]
struct Expected {
    text: String,
    id: String,
}

/// A client, and the server that it reads through a relay.
struct Scene {
    client: Client,
    relay: Relay,
    ids: Ids,
    event: fn(&str) -> Event,
    published: usize,
    /// The number of messages without data that may come: one per ID without an event, which a history sends where a
    /// stream starts.
    may_be_empty: usize,
    publisher: Publisher,
    _server: Server,
}

impl Scene {
    #[track_caller]
    fn start(kind: &Kind, front: Front, ids: Ids, reports_empty: bool) -> Self {
        println!("{front:?}, ids: {ids:?}, the script reports messages without data: {reports_empty}");
        let mut builder = Publisher::builder().heartbeat(HEARTBEAT);
        if ids == Ids::History {
            builder = builder.history(History::new());
        }
        let publisher = builder.build().unwrap();
        let server = Server::start(front, &publisher);
        let relay = server.relay();
        let mut command = (kind.command)();
        command.arg(format!("http://{}", relay.address));
        if reports_empty {
            command.arg("reports-empty");
        }
        let mut scene = Self {
            client: Client::start(&mut command),
            relay,
            ids,
            event: kind.event,
            published: 0,
            may_be_empty: usize::from(ids == Ids::History),
            publisher,
            _server: server,
        };
        scene.waits_for_the_stream(1);
        scene
    }

    /// Waits until the client's nth stream has begun.
    #[track_caller]
    fn waits_for_the_stream(&mut self, nth: usize) {
        eventually(&format!("stream {nth} has begun"), || {
            self.client.runs();
            self.relay.visits().get(nth - 1).is_some_and(|visit| visit.heartbeats > 0)
        });
    }

    /// Waits until the client's stream has carried some more heartbeats.
    #[track_caller]
    fn waits_for_heartbeats(&mut self) {
        let heartbeats = || self.relay.visits().iter().map(|visit| visit.heartbeats).sum::<usize>();
        let enough = heartbeats() + HEARTBEATS;
        eventually("heartbeats come", || {
            self.client.runs();
            heartbeats() >= enough
        });
    }

    fn publishes(&mut self, text: &str) -> Expected {
        self.published += 1;
        let own = (self.ids == Ids::Application).then(|| format!("own-{}", self.published));
        let event = (self.event)(text);
        let event = if let Some(id) = &own { event.id(id).unwrap() } else { event };
        let receipt = self.publisher.publish(event);
        let id = own.or(receipt.id().map(str::to_owned)).unwrap_or_default();
        Expected { text: text.to_owned(), id }
    }

    /// Checks that this is the next message with data, and that no more messages without data come before it than
    /// allowed.
    #[track_caller]
    fn receives(&mut self, expected: &Expected) {
        let mut message = self.client.next(expected);
        while message["data"] == "" {
            assert!(self.may_be_empty > 0, "before {expected:?} a message without data: {message}");
            self.may_be_empty -= 1;
            message = self.client.next(expected);
        }
        assert_eq!(message["data"], expected.text);
        // Not every client reports IDs.
        if let Some(id) = message.get("id") {
            assert_eq!(*id, expected.id);
        }
        self.may_be_empty = 0;
    }

    /// Checks that events arrive, each after some heartbeats.
    #[track_caller]
    fn receives_all(&mut self, texts: &[&str]) {
        for text in texts {
            self.waits_for_heartbeats();
            let expected = self.publishes(text);
            self.receives(&expected);
        }
    }

    /// The connection breaks at an event, more are published, and the client resumes where it was.
    #[track_caller]
    fn resumes(&mut self, cut: Cut) {
        let mut last = self.publishes("before the break ✅");
        self.receives(&last);
        self.relay.cuts(cut, "at the break");
        self.relay.holds();
        let mut missed = vec![self.publishes("at the break ✅")];
        eventually("the connection breaks", || self.relay.cut().is_some());
        if cut == Cut::After {
            last = missed.pop().unwrap();
            self.receives(&last);
        }
        for text in MISSED {
            missed.push(self.publishes(text));
        }
        eventually("the client reconnects", || {
            self.client.runs();
            self.relay.visits().len() == 2
        });
        assert_eq!(self.relay.visits()[1].header("last-event-id"), Some(&*last.id));
        self.may_be_empty = 1;
        self.relay.lets_go();
        for event in &missed {
            self.receives(event);
        }
        self.receives_all(&["live ✅", "again"]);
        assert_eq!(self.relay.visits().len(), 2, "the client has reconnected once more");
    }
}

/// Heartbeats and the first comment are no messages for it, and the text is exact.
#[track_caller]
fn receives_only_events(kind: &Kind) {
    for &front in kind.fronts {
        for ids in [Ids::None, Ids::Application] {
            for reports_empty in [false, true] {
                if reports_empty && !kind.hides_empty {
                    continue;
                }
                let mut scene = Scene::start(kind, front, ids, reports_empty);
                scene.receives_all(&TEXTS);
                scene.receives_all(&["the end"]);
                assert_eq!(scene.relay.visits().len(), 1, "the client has reconnected");
            }
        }
    }
}

/// With a history the IDs without an event are messages without data for it, one per stream, and no heartbeat is.
#[track_caller]
fn receives_only_events_with_a_history(kind: &Kind) {
    for &front in kind.fronts {
        let mut scene = Scene::start(kind, front, Ids::History, kind.hides_empty);
        scene.receives_all(&TEXTS);
        match kind.resumes {
            Some(cut) => scene.resumes(cut),
            None => scene.receives_all(&["the end"]),
        }
    }
}

#[test]
fn fetch_event_source_of_npm_receives_only_events() {
    receives_only_events(&fetch_event_source());
}

#[test]
fn httpx_sse_of_python_receives_only_events() {
    receives_only_events(&httpx_sse());
}

#[test]
fn openai_of_python_receives_only_events() {
    receives_only_events(&openai());
}

#[test]
fn anthropic_of_python_receives_only_events() {
    receives_only_events(&anthropic());
}

#[test]
fn sseclient_of_python_receives_only_events() {
    receives_only_events(&sseclient());
}

#[test]
fn requests_of_python_reads_only_events() {
    receives_only_events(&requests());
}

#[test]
fn fetch_event_source_of_npm_receives_only_events_with_a_history_and_resumes() {
    receives_only_events_with_a_history(&fetch_event_source());
}

#[test]
fn httpx_sse_of_python_receives_only_events_with_a_history_and_resumes() {
    receives_only_events_with_a_history(&httpx_sse());
}

#[test]
fn openai_of_python_receives_only_events_with_a_history() {
    receives_only_events_with_a_history(&openai());
}

#[test]
fn anthropic_of_python_receives_only_events_with_a_history() {
    receives_only_events_with_a_history(&anthropic());
}

#[test]
fn sseclient_of_python_receives_only_events_with_a_history_and_resumes() {
    receives_only_events_with_a_history(&sseclient());
}

#[test]
fn requests_of_python_reads_only_events_with_a_history() {
    receives_only_events_with_a_history(&requests());
}
