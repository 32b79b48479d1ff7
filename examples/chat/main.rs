//! A chat for everybody who opens the page: `cargo run --release --example chat [ADDRESS]`.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /subscribe?username=NAME` | the event stream: `message` events, and `users`, who is here |
//! | `POST /publish` with the form fields `username` and `message` | 204; everybody but the sender gets it |
//!
//! A tab that loses its connection says where it was when it comes back, and gets what it has missed; a new one begins
//! with what is said from then on.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::io::{self, Read};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use server_sent_events::adapter::tiny_http as sse;
use server_sent_events::{Event, History, Publisher};
use tiny_http::{Header, Method, Request, Response};

/// A name longer than this breaks the page.
const MAX_NAME: usize = 40;
/// A longer form is refused.
const MAX_FORM: u64 = 16 * 1024;
/// What is kept for tabs that reconnect. A history does not count what a closure holds, so the two bound its memory
/// together: 64 MiB. More than a queue and the kernels of both ends hold, so that a slow tab misses nothing either.
const KEPT: usize = 4_096;

/// One connected page. Its properties are dropped with its stream, so this tells that somebody left, however that
/// came about.
struct User {
    name: String,
    changed: Sender<()>,
}

impl Drop for User {
    fn drop(&mut self) {
        // An error means that the chat is over.
        let _ = self.changed.send(());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:5000".into());
    let server = sse::Server::bind(address)?;
    println!("listening on http://{}", server.local_addr());

    // A tab that is closed is noticed within two heartbeats.
    // The server needs two descriptors for each, of the 1,024 that a program mostly may have.
    // The lists of who is here are kept too. That does no harm: each list is whole, and the newest comes last.
    let chat = Publisher::builder()
        .heartbeat(Duration::from_secs(2))
        .max_subscribers(400)
        .history(History::new().events(KEPT))
        .build()?;
    // One thread tells who is here, so that an older list never comes after a newer one. Many changes at once are
    // told once, ten times a second at the most: each list goes to everybody.
    let (changed, changes) = channel();
    let teller = chat.clone();
    thread::spawn(move || {
        while changes.recv().is_ok() {
            changes.try_iter().for_each(drop);
            tell_who_is_here(&teller);
            thread::sleep(Duration::from_millis(100));
        }
    });

    thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for request in server.incoming_requests() {
                    if let Err(error) = answer(&chat, &changed, request) {
                        eprintln!("a request got no answer: {error}");
                    }
                }
                // The server is over: the next thread is to see it too.
                server.unblock();
            });
        }
    });
    Ok(())
}

fn answer(chat: &Publisher<User>, changed: &Sender<()>, mut request: Request) -> io::Result<()> {
    let url = request.url().to_owned();
    let (path, query) = url.split_once('?').unwrap_or((&url, ""));
    match (request.method(), path) {
        (Method::Get | Method::Head, "/") => {
            let html = Header::from_bytes("Content-Type", "text/html; charset=utf-8").expect("two plain texts");
            request.respond(Response::from_string(include_str!("page.html")).with_header(html))
        }
        // No HEAD: nobody joins by asking what joining would look like.
        (Method::Get, "/subscribe") => match name(&fields(query.as_bytes())) {
            Ok(name) => subscribe(chat, User { name, changed: changed.clone() }, request),
            Err(reason) => refuse(request, 400, &reason),
        },
        (Method::Post, "/publish") => {
            let mut form = Vec::new();
            request.as_reader().take(MAX_FORM + 1).read_to_end(&mut form)?;
            if form.len() as u64 > MAX_FORM {
                return refuse(request, 413, "the form is larger than 16 KiB");
            }
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
    let changed = user.changed.clone();
    match chat.subscription(user).channels("chat").last_event_id_of(&request).open() {
        Ok(subscription) => {
            let _ = changed.send(());
            subscription.respond(request)
        }
        Err(_full) => chat.refuse(request, Duration::from_secs(5)),
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

/// Sends everybody the names of all.
fn tell_who_is_here(chat: &Publisher<User>) {
    let users = chat.subscribers("chat");
    let names: BTreeSet<&str> = users.iter().map(|user| &*user.name).collect();
    let event = Event::new(json!(names).to_string()).event("users").expect("a plain word");
    chat.publish_to("chat", event);
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
