//! A chat for everybody who opens the page: `cargo run --release --example chat [ADDRESS]`.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /subscribe?username=NAME` | the event stream: `message` events, `joined` and `left`, and `users`, who is here |
//! | `POST /publish` with the form fields `username` and `message` | 204; everybody but the sender gets it |
//!
//! A tab that loses its connection says where it was when it comes back, and gets what it has missed; a new one begins
//! with what is said from then on.
//!
//! Told to end, by SIGINT (Ctrl+C) or SIGTERM, it ends all streams, so that their tabs come back, each after a time of
//! its own, and ends within some seconds. Told again, it ends at once.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::error::Error;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use server_sent_events::adapter::tiny_http as sse;
use server_sent_events::{Event, History, Publisher, Shutdown};
use signals::EndSignals;
use tiny_http::{Header, Method, Request, Response};

#[path = "../common/output.rs"]
mod output;
#[path = "../common/signals.rs"]
mod signals;

/// A name longer than this breaks the page.
const MAX_NAME: usize = 40;
/// A longer form is refused.
const MAX_FORM: usize = 16 * 1024;
/// What is kept for tabs that reconnect. A history does not count what a closure holds, so the two bound its memory
/// together: 64 MiB. More than a queue and the kernels of both ends hold, so that a slow tab misses nothing either.
const KEPT: usize = 4_096;

/// How long somebody without a tab is still here: a tab that is loaded anew, or whose connection broke, comes back.
const MOMENT: Duration = Duration::from_secs(2);
/// How long the streams may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// One connected page.
struct User {
    name: String,
}

/// What became of a tab of somebody with this name.
enum Change {
    Opened(String),
    Ended(String),
}

fn main() -> Result<(), Box<dyn Error>> {
    let signals = EndSignals::catch()?;
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:5000".into());
    let server = sse::Server::bind(address)?;
    output::say(format_args!("listening on http://{}", server.local_addr()));

    // A hook runs on whatever thread opened or ended a stream, however that came about: it does no more than tell.
    let (opened, changes) = channel();
    let ended = opened.clone();
    // A tab that is closed is noticed within two heartbeats.
    // The server needs two descriptors for each, of the 1,024 that a program mostly may have.
    // Who is here, who joined and who left is kept too. That does no harm: each list is whole, and the newest comes last.
    let chat = Publisher::builder_for::<User>()
        .heartbeat(Duration::from_secs(2))
        .max_subscribers(400)
        .history(History::new().max_events_per_channel(KEPT))
        // An error means that the chat is over.
        .on_open(move |tab| drop(opened.send(Change::Opened(tab.properties.name.clone()))))
        .on_end(move |tab| drop(ended.send(Change::Ended(tab.properties.name.clone()))))
        .build()?;
    let teller = chat.clone();
    thread::spawn(move || tell_who_is_here(&teller, &changes));

    let (streams, stop_handle) = (chat.clone(), server.stop_handle());
    signals.at_the_first(move || {
        streams.shutdown_with(Shutdown::new(GRACE).retry_between(Duration::from_secs(1), Duration::from_secs(5)));
        stop_handle.stop();
    });
    server.serve(4, |request| {
        answer(&chat, request).inspect_err(|error| output::log(format_args!("a request got no answer: {error}")))
    })?;
    Ok(())
}

fn answer(chat: &Publisher<User>, mut request: Request) -> io::Result<()> {
    let url = request.url().to_owned();
    let (path, query) = url.split_once('?').unwrap_or((&url, ""));
    match (request.method(), path) {
        (Method::Get | Method::Head, "/") => {
            let html = Header::from_bytes("Content-Type", "text/html; charset=utf-8").expect("two plain texts");
            request.respond(Response::from_string(include_str!("page.html")).with_header(html))
        }
        // No HEAD: nobody joins by asking what joining would look like.
        (Method::Get, "/subscribe") => match name(&fields(query.as_bytes())) {
            Ok(name) => subscribe(chat, User { name }, request),
            Err(reason) => refuse(request, 400, &reason),
        },
        (Method::Post, "/publish") => {
            let form = match sse::read_body(&mut request, MAX_FORM) {
                Ok(form) => form,
                Err(error) => return refuse(request, error.status(), &error.to_string()),
            };
            match publish(chat, &fields(&form)) {
                Ok(()) => request.respond(Response::empty(204)),
                Err(reason) => refuse(request, 400, &reason),
            }
        }
        (_, "/" | "/subscribe" | "/publish") => {
            let allow = Header::from_bytes("Allow", if path == "/publish" { "POST" } else { "GET" });
            let text = "GET / and /subscribe, POST /publish\n";
            let response = Response::from_string(text).with_status_code(405);
            request.respond(response.with_header(allow.expect("two plain texts")))
        }
        _ => refuse(request, 404, "there are /, /subscribe and /publish"),
    }
}

fn subscribe(chat: &Publisher<User>, user: User, request: Request) -> io::Result<()> {
    match chat.subscription(user).channels("chat").last_event_id_from(&request).open() {
        Ok(subscription) => subscription.respond(request),
        Err(_full) => chat.respond_busy(request, Duration::from_secs(5)),
    }
}

fn publish(chat: &Publisher<User>, fields: &HashMap<String, String>) -> Result<(), String> {
    let sender = name(fields)?;
    let message =
        fields.get("message").filter(|message| !message.is_empty()).ok_or("the field `message` is missing")?;
    // With the time: a tab that was away sees it later.
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let data = json!({ "username": sender, "message": message, "time": time }).to_string();
    // Asked again when a tab comes back, and goes by the name: so nobody ever gets what they said themselves.
    chat.publish_with("chat", move |user: &User| (user.name != sender).then(|| Event::new(&*data)));
    Ok(())
}

/// Tells who joins, who leaves, and who is here then.
///
/// On one thread, so that an older list never comes after a newer one. Changes that come together share a list, ten a
/// second at the most: each goes to everybody. The names count, not the tabs.
fn tell_who_is_here(chat: &Publisher<User>, changes: &Receiver<Change>) {
    let tell = |event_type, data: serde_json::Value| {
        let event = Event::new(data.to_string()).event(event_type).expect("a plain word");
        chat.publish_to("chat", event);
    };
    let mut tabs: BTreeMap<String, usize> = BTreeMap::new();
    // Who had no tab left, and when that will have been a moment ago.
    let mut leaving: VecDeque<(Instant, String)> = VecDeque::new();
    loop {
        let first = match leaving.front() {
            Some((when, _)) => changes.recv_timeout(when.saturating_duration_since(Instant::now())),
            None => changes.recv().map_err(RecvTimeoutError::from),
        };
        if let Err(RecvTimeoutError::Disconnected) = first {
            return;
        }
        let mut is_new = false;
        for change in first.into_iter().chain(changes.try_iter()) {
            match change {
                Change::Opened(name) => {
                    // Also if it is the second of somebody: the tab has no list yet.
                    is_new = true;
                    match tabs.entry(name) {
                        Entry::Occupied(tabs) => *tabs.into_mut() += 1,
                        Entry::Vacant(name) => {
                            tell("joined", json!({ "username": name.key() }));
                            name.insert(1);
                        }
                    }
                }
                Change::Ended(name) => {
                    let open = tabs.get_mut(&name).expect("what has ended was opened before");
                    *open -= 1;
                    if *open == 0 {
                        leaving.push_back((Instant::now() + MOMENT, name));
                    }
                }
            }
        }
        while leaving.front().is_some_and(|(when, _)| *when <= Instant::now()) {
            let (_, name) = leaving.pop_front().expect("looked at a line above");
            if tabs.get(&name) == Some(&0) {
                is_new = true;
                tell("left", json!({ "username": name }));
                tabs.remove(&name);
            }
        }
        if is_new {
            tell("users", json!(tabs.keys().collect::<Vec<_>>()));
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn fields(form: &[u8]) -> HashMap<String, String> {
    form_urlencoded::parse(form).into_owned().collect()
}

fn name(fields: &HashMap<String, String>) -> Result<String, String> {
    let name = fields.get("username").map(|name| name.trim()).unwrap_or("");
    match name.chars().count() {
        1..=MAX_NAME => Ok(name.to_owned()),
        0 => Err("the field `username` is missing".into()),
        length => Err(format!("the username has {length} characters: at most {MAX_NAME} are allowed")),
    }
}

fn refuse(request: Request, status: u16, reason: &str) -> io::Result<()> {
    request.respond(Response::from_string(format!("{reason}\n")).with_status_code(status))
}
