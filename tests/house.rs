//! The house is as its plan says: which file is for what, and who may use whom.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each file below `src`, its charter, and the modules of ours that it may use.
const HOUSE: &[(&str, &str, &[&str])] = &[
    ("event.rs", "one event: build it, check it, encode it as text/event-stream, once", &["error"]),
    ("history.rs", "the bounded memory of past events, and what comes after an id", &["event", "error"]),
    ("error.rs", "every public error: what failed, exact texts", &[]),
    ("channels.rs", "what may name one channel or several", &[]),
    (
        "registry.rs",
        "who subscribes to what, behind the one ordering lock",
        &["history", "subscription", "queue", "notices", "channels", "event", "stats", "error"],
    ),
    (
        "registry/tickets.rs",
        "publishers that wait for room: whose turn it is, and who is to blame when the time is over",
        &["queue", "subscription"],
    ),
    (
        "publisher.rs",
        "the sending half: the public handle",
        &["channels", "error", "event", "history", "queue", "registry", "stats", "subscription", "writers"],
    ),
    (
        "publisher/builders.rs",
        "what is chosen of a publisher before it is built, and of a subscription before it is opened",
        &[
            "channels",
            "error",
            "event",
            "history",
            "notices",
            "overflow",
            "queue",
            "registry",
            "stats",
            "subscription",
            "writers",
        ],
    ),
    (
        "subscription.rs",
        "the receiving half: blocking iterator, heartbeat, end, Drop",
        &["queue", "history", "channels", "event", "stats", "error"],
    ),
    (
        "queue.rs",
        "one subscriber's queue: what waits for it, within which bounds, and whose turn it is",
        &["overflow", "event", "stats"],
    ),
    ("overflow.rs", "what happens when a queue is full", &[]),
    ("notices.rs", "what an operator must know, as log lines: few, and without the content of any event", &[]),
    ("reader.rs", "a subscription as io::Read, for servers that want a body", &["subscription"]),
    (
        "writers.rs",
        "the writer threads: many handed-over subscriptions on few threads",
        &["subscription", "queue", "http", "notices", "event", "stats", "error"],
    ),
    (
        "writers/supervisor.rs",
        "the thread that watches the writer threads, and schedules heartbeats and the ends of lifetimes",
        &["queue"],
    ),
    (
        "writers/turns.rs",
        "the turns of streams: what is to be written is put together, written, and looked for again, for several at a time",
        &["subscription", "queue", "http", "stats"],
    ),
    ("stats.rs", "counters, and one snapshot of them", &["notices"]),
    (
        "http.rs",
        "the HTTP words every server shares: head, headers, chunked framing, Last-Event-ID",
        &["event", "error"],
    ),
    ("server.rs", "EventServer: a strict server for event streams and nothing else", &[]),
    ("server/builder.rs", "the settings of an EventServer, checked before it is bound", &["sockets", "EndCause"]),
    (
        "server/event_loop.rs",
        "the thread that accepts connections, reads requests, and watches sockets",
        &["notices", "queue"],
    ),
    ("server/acceptor.rs", "the listening socket, and the pauses after it has failed", &["notices"]),
    (
        "server/connection.rs",
        "one connection as a state machine: bytes and deadlines in, actions out, without a socket",
        &["subscription"],
    ),
    ("server/deadlines.rs", "points in time at which something is due for a connection, at most one each", &[]),
    ("server/quota.rs", "how many streams there may be at once, in all and per client", &[]),
    ("server/policy.rs", "the rules a request must pass before it is answered: Host, Origin (CORS), method", &[]),
    ("server/request.rs", "one request, parsed strictly, so that nobody can understand it in another way", &["http"]),
    (
        "server/handlers.rs",
        "the threads that run application code: the handler for requests, and what hooks do at a stream's end",
        &["event", "queue", "stats", "subscription"],
    ),
    (
        "server/notifier.rs",
        "how handlers and writer threads reach the event loop, and the socket they share with it",
        &["queue", "subscription"],
    ),
    ("server/response.rs", "what the handler answers, and the bytes of a response", &["error", "http", "subscription"]),
    ("sockets.rs", "listening sockets with the options that event streams need", &[]),
    ("adapter/mod.rs", "index of the adapters, and what each can and cannot promise", &[]),
    (
        "adapter/tiny_http.rs",
        "Event streams as answers to requests of [`tiny_http`](https://docs.rs/tiny_http)",
        &["adapter::knocker", "http", "sockets", "publisher", "subscription", "event", "stats", "error"],
    ),
    ("adapter/knocker.rs", "what keeps the connections of tiny_http from starving in its pool", &[]),
    (
        "adapter/rouille.rs",
        "Event streams as answers to requests of [`rouille`](https://docs.rs/rouille)",
        &["adapter::knocker", "http", "publisher", "reader", "subscription", "event", "error"],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let ours = entries.filter(|path| !path.ends_with("target") && !path.ends_with(".git"));
    ours.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn source(file: &str) -> String {
    fs::read_to_string(root().join("src").join(file)).unwrap()
}

/// The lines that are code: without comments, and without the tests at the end.
fn code(file: &str) -> String {
    let source = source(file);
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_file_has_a_place_and_its_header_is_its_charter() {
    let src = root().join("src");
    let found: BTreeSet<String> =
        files(&src).iter().map(|path| path.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/")).collect();
    let planned: BTreeSet<String> = HOUSE.iter().map(|(file, ..)| file.to_string()).chain(["lib.rs".into()]).collect();
    assert_eq!(found, planned);
    for (file, charter, _) in HOUSE {
        let source = source(file);
        let first = source.lines().next().unwrap().to_lowercase();
        assert_eq!(first, format!("//! {}.", charter.to_lowercase()), "{file}");
    }
}

#[test]
fn nobody_uses_what_it_may_not() {
    for (file, _, may_use) in HOUSE {
        let code = code(file);
        for used in code.split("crate::").skip(1) {
            // Of the adapters' own rooms, which one.
            let depth = if used.starts_with("adapter::") { 2 } else { 1 };
            let words = used
                .split("::")
                .take(depth)
                .map(|word| word.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap());
            let used = &*words.collect::<Vec<_>>().join("::");
            assert!(may_use.contains(&used), "{file} uses {used}");
        }
        // Part of a room, if it is one, may use all of it.
        assert!(file.contains('/') || !code.contains("super::"), "{file} reaches around its own plan");
    }
}

#[test]
fn foreign_names_stay_in_their_rooms() {
    for (file, ..) in HOUSE {
        let code = code(file);
        let has = |name: &str| code.contains(name);
        // The writers' locks guard threads and turns, those of a queue and its shelf what one subscriber takes from; the order of
        // events hangs on none of them.
        // Of the server, calls that wait for a thread, and counts of streams.
        let locks = [
            "registry.rs",
            "writers.rs",
            "writers/supervisor.rs",
            "queue.rs",
            "overflow.rs",
            "server/handlers.rs",
            "server/quota.rs",
        ]
        .contains(file);
        assert!(locks || !(has("Mutex") || has("RwLock") || has("parking_lot")), "{file} has a lock");
        let sockets = ["sockets.rs", "adapter/knocker.rs"].contains(file);
        assert!(sockets || !has("socket2"), "{file} knows sockets");
        assert!(*file == "adapter/tiny_http.rs" || !has("tiny_http::"), "{file} knows a server");
        assert!(
            file.starts_with("server") || !(has("mio::") || has("httparse")),
            "{file} knows sockets that do not block"
        );
        let names_adapters = ["adapter/rouille.rs", "adapter/mod.rs"].contains(file);
        assert!(names_adapters || !has("rouille::"), "{file} knows a server");
    }
}

/// Documents go stale where they name a file that is not there.
#[test]
fn every_file_that_is_named_is_there() {
    for document in files(root()).into_iter().filter(|path| {
        let path = path.strip_prefix(root()).unwrap();
        let known = path.starts_with("src") || path.starts_with("tests") || path.starts_with("examples");
        known || path.extension().is_some_and(|extension| extension == "md")
    }) {
        let Ok(text) = fs::read_to_string(&document) else { continue };
        for word in text.split(|c: char| c.is_whitespace() || "`\"'()[]<>,;:".contains(c)) {
            let named = word.trim_end_matches('.');
            let is_path = ["src/", "tests/", "examples/", "benches/"].iter().any(|folder| named.starts_with(folder));
            if is_path && named.contains('.') && !named.contains('*') {
                assert!(root().join(named).exists(), "{} names {named}", document.display());
            }
        }
    }
}

/// So that what people copy is what the tests run.
#[test]
fn the_documents_show_the_nginx_lines_that_are_tested() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let block = readme.split_once("```nginx\n").unwrap().1.split_once("```").unwrap().0;
    assert_eq!(block.trim(), fs::read_to_string(root().join("examples/nginx.conf")).unwrap().trim());
    let docs = fs::read_to_string(root().join("src/server.rs")).unwrap().replace("//! ", "");
    let block = docs.split_once("```nginx\n").unwrap().1.split_once("```").unwrap().0;
    assert_eq!(block.trim(), fs::read_to_string(root().join("examples/nginx-streams.conf")).unwrap().trim());
}
