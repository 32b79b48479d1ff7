//! The log has what an operator must know: each kind at once, few lines, and nothing of any event.

use std::io;
use std::sync::Mutex;
use std::time::Instant;

use crate::common::eventually;
use crate::own_process::own_process;
use log::{Level, LevelFilter, Log, Metadata, Record};
use server_sent_events::Publisher;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps the lines, and publishes each one, as a log viewer does. So it must not be called under a lock.
struct Keeps(Publisher);

impl Log for Keeps {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        // tiny_http logs details.
        if record.level() == Level::Debug && record.target().starts_with("tiny_http") {
            return;
        }
        assert_eq!(record.target(), "server_sent_events");
        LINES.lock().unwrap().push(format!("{}: {}", record.level(), record.args()));
        self.0.publish("a line was logged");
        let _ = (self.0.stats(), self.0.subscribe().is_ok());
    }

    fn flush(&self) {}
}

fn logs(text: &str) {
    eventually("it is logged", || LINES.lock().unwrap().iter().any(|line| line.starts_with(text)));
}

/// There is one logger per process.
#[test]
fn slow_subscribers_refusals_and_failed_threads_are_logged_in_few_lines() {
    own_process!();
    let start = Instant::now();
    let publisher = Publisher::builder().max_subscribers(100).max_queued_events(1).build().unwrap();
    log::set_boxed_logger(Box::new(Keeps(publisher.clone()))).unwrap();
    log::set_max_level(LevelFilter::Debug);

    let open = |key: &str| publisher.subscription(()).quota_key(key).open();
    let _slow: Vec<_> = (0..100).map(|n| open(&format!("user {n}")).unwrap()).collect();
    publisher.publish("a secret");
    publisher.publish("a secret");
    logs("WARN: disconnected 100 slow subscribers: queue full; quota key \"user 99\", channel \"default channel\"");

    // The logger above was refused first, within the same second.
    eventually("a refusal is logged with its key and channels", || {
        assert!(publisher.subscription(()).quota_key("Ada").channels(["a", "b"]).open().is_err());
        let about = "the last one: subscriber limit reached (100); quota key \"Ada\", channels \"a\", \"b\"";
        LINES.lock().unwrap().iter().any(|line| line.starts_with("WARN: refused ") && line.ends_with(about))
    });
    for _ in 0..1_000 {
        assert!(publisher.subscribe().is_err());
    }

    let quotas = Publisher::builder().max_subscribers_per_quota_key(1).build().unwrap();
    let ended = quotas.subscription(()).quota_key("Ada").channels("chat").open().unwrap();
    // Clients choose the key in many applications.
    let endless = "x".repeat(1_000_000);
    let _only = quotas.subscription(()).quota_key(&*endless).open().unwrap();
    assert!(quotas.subscription(()).quota_key(&*endless).open().is_err());
    logs("WARN: refused 1 subscriptions, the last one: subscriber limit of quota key \"xxx");
    ended.handle().close();
    logs("DEBUG: 1 streams ended, the last one: closed; quota key \"Ada\", channel \"chat\"");

    let huge = Publisher::builder().writer_stack_size(usize::MAX / 4).build().unwrap();
    assert!(huge.subscribe().unwrap().write_in_background(io::sink()).is_err());
    logs("WARN: failed to start 1 writer threads: ");

    #[cfg(feature = "tiny_http")]
    {
        failed_handlers_are_served_and_logged(&publisher);
        logs("WARN: the handler panicked on 1 requests");
        logs("WARN: failed to answer 1 requests, the last one: out of paper");
    }

    #[cfg(feature = "sqlite")]
    {
        a_loss_is_shown_by_clients();
        logs("WARN: events are lost, as only the ID of a client has shown (1 times): clients that miss them get a gap");
    }

    let lines = LINES.lock().unwrap();
    // One per kind and second.
    let most = 20 + start.elapsed().as_secs() as usize;
    assert!(lines.len() < most, "{} lines for a thousand refusals", lines.len());
    assert!(lines.iter().all(|line| !line.contains("secret")), "{lines:?}");
    assert!(lines.iter().all(|line| line.len() < 1_000), "{lines:?}");
}

/// Puts an older copy of a history back, without the note of what was delivered.
#[cfg(feature = "sqlite")]
fn a_loss_is_shown_by_clients() {
    use std::fs;
    use std::time::Duration;

    use server_sent_events::{History, Resumption, store::Sqlite};

    let folder = std::env::temp_dir().join(format!("sse_log_{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (file, copy) = (folder.join("events.db"), folder.join("copy"));
    let second = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let build = || {
        // Eras that begin in the same second are in any order.
        let now = second();
        eventually("the next second begins", || second() > now);
        Publisher::builder().history(History::new().store(Sqlite::at(&file))).build().unwrap()
    };
    let publish = |publisher: &Publisher| {
        publisher.publish_confirmed("a", "a secret", Duration::from_secs(20)).unwrap().id().unwrap().to_owned()
    };
    publish(&build());
    fs::copy(&file, &copy).unwrap();
    let lost = publish(&build());
    fs::rename(&copy, &file).unwrap();
    fs::remove_file(folder.join("events.db.lock")).unwrap();
    let publisher = build();
    publish(&publisher);
    for _ in 0..100 {
        let client = publisher.subscription(()).channels("a").last_event_id(lost.as_str()).open().unwrap();
        assert_eq!(client.resumption(), Resumption::Gap);
    }
    assert_eq!(publisher.stats().store.losses_found, 1);
    drop(publisher);
    fs::remove_dir_all(folder).unwrap();
}

#[cfg(feature = "tiny_http")]
fn failed_handlers_are_served_and_logged(publisher: &Publisher) {
    use std::io::Write;
    use std::net::TcpStream;

    use server_sent_events::adapter::tiny_http::Server;

    let server = Server::bind("127.0.0.1:0").unwrap();
    let stop_handle = server.stop_handle();
    for _ in 0..3 {
        TcpStream::connect(server.local_addr().unwrap())
            .unwrap()
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
    }
    let number = std::sync::atomic::AtomicUsize::new(0);
    let answer = |request| match number.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0 => panic!("a secret"),
        1 => Err(io::Error::other("out of paper")),
        _ => {
            stop_handle.stop();
            publisher.respond(request)
        }
    };
    server.serve(1, answer).unwrap();
}
