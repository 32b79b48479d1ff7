//! A chat for everybody who opens the page: `cargo run --release --example chat -- [ADDRESS [PUBLIC_HOST]]`.
//!
//! | request | response |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /subscribe?username=NAME` | the event stream: `message`, `joined` and `left` events, and `users` with everybody in the chat |
//! | `POST /publish` with the form fields `username` and `message` | 204; all users but the sender get the message |
//!
//! A tab that loses its connection reconnects, sends its last event ID, and gets the events it missed. A new tab gets
//! the messages that are sent from then on.
//!
//! With the feature `sqlite`, `--history FILE` keeps the events in a file: after a restart, an open page reconnects, and
//! has missed nothing.
//!
//! Pages of other websites are refused. Behind a proxy, `PUBLIC_HOST` is the host in the browser's address bar.
//!
//! At SIGINT (Ctrl+C) or SIGTERM the program ends all streams, gives each tab its own reconnection delay, and ends
//! within some seconds. At a second signal it ends at once.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::error::Error;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use serde_json::json;
use server_sent_events::adapter::tiny_http as sse;
use server_sent_events::{Event, History, OriginPolicy, Publisher, Receipt, Shutdown, WeakPublisher};
use signals::EndSignals;
use tiny_http::{Header, Method, Request, Response};

#[path = "../common/output.rs"]
mod output;
#[path = "../common/signals.rs"]
mod signals;

/// The maximum length of a name. A longer one breaks the page.
const MAX_NAME: usize = 40;
/// The maximum length of a form in bytes. A longer one is rejected.
const MAX_FORM: usize = 16 * 1024;
/// The number of events in the history. It is more than a queue and the kernels of both ends hold, so that a slow tab
/// misses nothing either.
const KEPT: usize = 4_096;

/// The time after which a user without a tab has left. A tab that is reloaded or loses its connection reconnects
/// sooner.
const MOMENT: Duration = Duration::from_secs(2);
/// The grace of the shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// The transform of messages: each user gets those of the others.
const NOT_TO_THE_SENDER: &str = "not to the sender";

/// A chat for everybody who opens the page
#[derive(Parser)]
struct Options {
    /// The address to listen on
    #[arg(default_value = "127.0.0.1:5000")]
    address: String,

    /// The host in the browser's address bar, behind a proxy
    public_host: Option<String>,

    /// Keeps the events in this file, so that a restart is no gap
    #[cfg(feature = "sqlite")]
    #[arg(long, value_name = "FILE")]
    history: Option<std::path::PathBuf>,
}

/// One connected page.
struct User {
    name: String,
}

/// A change of the tabs of the user with this name.
enum Change {
    Opened(String),
    Ended(String),
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let signals = EndSignals::catch()?;
    let server = sse::Server::bind(&options.address)?;
    let policy = options.public_host.into_iter().fold(OriginPolicy::builder(), |policy, host| policy.public_host(host));
    let policy = policy.build(server.local_addr()?)?;
    output::say(format_args!("listening on http://{}", server.local_addr()?));

    // A hook runs on the thread that opens or ends a stream, so it only sends a message.
    let (opened, changes) = channel();
    let ended = opened.clone();
    let history = History::new().max_events_per_channel(KEPT);
    #[cfg(feature = "sqlite")]
    let history = match options.history {
        Some(file) => history.store(server_sent_events::store::Sqlite::at(file)),
        None => history,
    };
    // A closed tab is noticed within two heartbeats. The server needs two descriptors per stream, and the usual limit
    // is 1,024. The history also has the `users` events. Replaying them is harmless: each list is whole, and the newest
    // comes last.
    let chat = Publisher::builder_for::<User>()
        .heartbeat(Duration::from_secs(2))
        .max_subscribers(400)
        .history(history)
        // A replay calls it again. It compares names, so no tab of the sender ever gets the message.
        .transform(NOT_TO_THE_SENDER, |user: &User, event: &Event, sender: &str| {
            (user.name != sender).then(|| event.clone())
        })
        // An error means that the chat has ended.
        .on_open(move |tab| drop(opened.send(Change::Opened(tab.properties.name.clone()))))
        .on_end(move |tab| drop(ended.send(Change::Ended(tab.properties.name.clone()))))
        .build()?;
    // A handle would keep the chat alive, and its hooks keep this thread alive.
    let teller = chat.downgrade();
    thread::spawn(move || tell_who_is_here(&teller, &changes));

    let (streams, stop_handle) = (chat.clone(), server.stop_handle());
    signals.at_the_first(move || {
        streams.shutdown_with(Shutdown::new(GRACE).retry_between(Duration::from_secs(1), Duration::from_secs(5)));
        drop(streams);
        stop_handle.stop();
    });
    server.serve(4, |request| {
        answer(&chat, &policy, request)
            .inspect_err(|error| output::log(format_args!("a request got no answer: {error}")))
    })?;
    Ok(())
}

fn answer(chat: &Publisher<User>, policy: &OriginPolicy, mut request: Request) -> io::Result<()> {
    if let Err(refused) = sse::check_origin(&request, policy) {
        return refuse(request, refused.status(), &refused.to_string());
    }
    let url = request.url().to_owned();
    let (path, query) = url.split_once('?').unwrap_or((&url, ""));
    match (request.method(), path) {
        (Method::Get | Method::Head, "/") => {
            let html = Header::from_bytes("Content-Type", "text/html; charset=utf-8").expect("two plain texts");
            request.respond(Response::from_string(include_str!("page.html")).with_header(html))
        }
        // No HEAD: it would open a subscription, and the user would join.
        (Method::Get, "/subscribe") => match name(&fields(query.as_bytes())) {
            Ok(name) => chat.subscription(User { name }).channels("chat").respond(request),
            Err(reason) => refuse(request, 400, &reason),
        },
        (Method::Post, "/publish") => {
            let form = match sse::read_body(&mut request, MAX_FORM) {
                Ok(form) => form,
                Err(error) => return refuse(request, error.status(), &error.to_string()),
            };
            match publish(chat, &fields(&form)) {
                Ok(receipt) if receipt.is_refused() => refuse(request, 503, "too many messages: try again later"),
                Ok(_) => request.respond(Response::empty(204)),
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

fn publish(chat: &Publisher<User>, fields: &HashMap<String, String>) -> Result<Receipt, String> {
    let sender = name(fields)?;
    let message =
        fields.get("message").filter(|message| !message.is_empty()).ok_or("the field `message` is missing")?;
    // With the time, because a tab that reconnects shows the message later.
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let data = json!({ "username": sender, "message": message, "time": time }).to_string();
    chat.publish_through(NOT_TO_THE_SENDER, "chat", data, &sender).map_err(|error| error.to_string())
}

/// Publishes which users join and leave, and the list of users after each change.
///
/// It runs on one thread, so that an older list never comes after a newer one. Changes that come together share a list.
/// At most ten lists per second are published, because each goes to all tabs. A user counts once, whatever the number
/// of tabs.
fn tell_who_is_here(chat: &WeakPublisher<User>, changes: &Receiver<Change>) {
    let tell = |event_type, data: serde_json::Value| {
        let event = Event::new(data.to_string()).event(event_type).expect("a plain word");
        if let Some(chat) = chat.upgrade() {
            chat.publish_to("chat", event);
        }
    };
    let mut tabs: BTreeMap<String, usize> = BTreeMap::new();
    // Users without a tab, and when they will have left.
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
                    // Even for a user's second tab, because it has no list yet.
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
