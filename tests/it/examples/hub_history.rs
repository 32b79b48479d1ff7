//! The examples hub and chat keep their history in a file: a restart is no gap, and neither is `kill -9`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use super::*;
use crate::common::example::built_examples;
use crate::common::{PATIENCE, Watchdog, seed};

/// A folder of one test, removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}_{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Returns the path of the history.
    pub fn history(&self) -> PathBuf {
        self.0.join("events.db")
    }

    pub fn start(&self, example: &str) -> Example {
        let mut command = Command::new(built_examples().join(example));
        command.arg("--history").arg(self.history());
        Example::run(command)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ends the example as an operator does, and waits for it.
fn end(mut example: Example) {
    let kill = Command::new("kill").arg(example.process.id().to_string()).status().unwrap();
    assert!(kill.success() && example.process.wait().unwrap().success());
    std::mem::forget(example);
}

/// Posts an event. Returns its ID if hub answers that it is stored.
pub fn post_event(agent: &ureq::Agent, url: &str, data: &str) -> Option<String> {
    let response = agent.post(url).send(data).ok()?;
    (response.status() == 204).then(|| response.headers()["event-id"].to_str().unwrap().to_owned())
}

/// A client that reconnects with its last event ID, as an `EventSource` does.
#[derive(Default)]
struct Resuming {
    last_event_id: String,
    /// The ID and the data of each event.
    events: Vec<(String, String)>,
}

impl Resuming {
    /// Reads one response until it ends, or the events suffice.
    fn read(&mut self, url: &str, suffice: impl Fn(&[(String, String)]) -> bool) {
        let agent: ureq::Agent = ureq::Agent::config_builder().timeout_recv_body(Some(PATIENCE)).build().into();
        let Ok(response) = agent.get(url).header("Last-Event-ID", &self.last_event_id).call() else { return };
        let (mut data, mut id) = (None, None);
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let Ok(line) = line else { return };
            match line.split_once(": ") {
                Some(("data", text)) => data = Some(text.to_owned()),
                Some(("id", text)) => id = Some(text.to_owned()),
                Some(("event", "gap")) => panic!("a gap after {:?}", self.last_event_id),
                None if line.is_empty() => {
                    self.last_event_id = id.take().unwrap_or(std::mem::take(&mut self.last_event_id));
                    self.events.extend(data.take().map(|data| (self.last_event_id.clone(), data)));
                    if suffice(&self.events) {
                        return;
                    }
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_client_of_hub_resumes_after_a_restart_as_if_there_had_been_none() {
    let folder = Folder::new("hub_restart");
    let hub = folder.start("hub");
    let mut client = Resuming { last_event_id: Watcher::new(&hub, "/c").last_event_id, ..Resuming::default() };
    let (agent, url) = (agent(), format!("{}/c", hub.url));
    let ids: Vec<String> = (0..1_000).map(|n| post_event(&agent, &url, &n.to_string()).unwrap()).collect();
    client.read(&format!("{}/c", hub.url), |events| events.len() == 500);
    end(hub);
    assert!(!folder.0.join("events.db-wal").exists(), "the file was closed");

    let hub = folder.start("hub");
    client.read(&format!("{}/c", hub.url), |events| events.len() == 1_000);
    assert!(client.events.iter().map(|(id, _)| id).eq(&ids));
    assert!(client.events.iter().map(|(_, data)| data.parse::<usize>().unwrap()).eq(0..1_000));
}

#[test]
fn nothing_that_was_answered_or_seen_is_lost_when_hub_is_killed_again_and_again() {
    let rounds: u32 = std::env::var("KILL_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let _watchdog = Watchdog::with_limit("hub is killed", Watchdog::LIMIT + Duration::from_secs(5 * u64::from(rounds)));
    let mut random = fastrand::Rng::with_seed(seed("kills"));
    let folder = Folder::new("hub_kills");
    let mut hub = folder.start("hub");
    let url = Mutex::new(format!("{}/c", hub.url));
    let current = || url.lock().unwrap().clone();
    let start = Watcher::new(&hub, "/c").last_event_id;
    let (over, last) = (AtomicBool::new(false), format!("last {}", random.u64(..)));
    let (answered, readers) = thread::scope(|threads| {
        let publishers: Vec<_> = (0..2)
            .map(|publisher| {
                let (current, over) = (&current, &over);
                threads.spawn(move || {
                    let (agent, mut answered) = (agent(), Vec::new());
                    for n in (0..).take_while(|_| !over.load(SeqCst)) {
                        let data = format!("{publisher} {n}");
                        match post_event(&agent, &current(), &data) {
                            Some(id) => answered.push((id, data)),
                            None => thread::sleep(Duration::from_millis(1)),
                        }
                    }
                    answered
                })
            })
            .collect();
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (current, start, last) = (&current, &start, &last);
                threads.spawn(move || {
                    let mut client = Resuming { last_event_id: start.clone(), ..Resuming::default() };
                    let has_last = |events: &[(String, String)]| events.last().is_some_and(|(_, data)| data == last);
                    while !has_last(&client.events) {
                        client.read(&current(), has_last);
                        thread::sleep(Duration::from_millis(1));
                    }
                    client.events
                })
            })
            .collect();
        for _ in 0..rounds {
            thread::sleep(Duration::from_millis(random.u64(20..150)));
            drop(hub);
            hub = folder.start("hub");
            *url.lock().unwrap() = format!("{}/c", hub.url);
        }
        over.store(true, SeqCst);
        let mut answered: Vec<_> = publishers.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        answered.push((post_event(&agent(), &current(), &last).unwrap(), last.clone()));
        (answered, readers.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>())
    });

    println!("{rounds} kills, {} events answered, {} seen", answered.len(), readers[0].len());
    for events in &readers {
        assert!(events == &readers[0], "all see the same events in the same order");
    }
    let seen: HashMap<&str, &str> = readers[0].iter().map(|(id, data)| (&**id, &**data)).collect();
    let different: HashSet<&str> = seen.values().copied().collect();
    assert_eq!((seen.len(), different.len()), (readers[0].len(), readers[0].len()), "each once, each with its own ID");
    for (id, data) in &answered {
        assert_eq!(seen.get(&**id), Some(&&**data), "answered, but not seen");
    }
    for publisher in ["0 ", "1 "] {
        let numbers = readers[0].iter().filter_map(|(_, data)| data.strip_prefix(publisher));
        assert!(numbers.map(|n| n.parse::<u32>().unwrap()).is_sorted(), "in the publisher's order");
    }
}

#[test]
fn a_tab_of_the_chat_misses_nothing_over_a_restart_and_gets_no_message_of_its_own() {
    let folder = Folder::new("chat_restart");
    let chat = folder.start("chat");
    let send = |chat: &Example, name: &str, message: &str| {
        let form = [("username", name), ("message", message)];
        assert_eq!(answer(agent().post(format!("{}/publish", chat.url)).send_form(form)).0, 204);
    };
    let mut bob = Watcher::new(&chat, "/subscribe?username=Bob");
    send(&chat, "Ada", "seen");
    while !bob.next_event().contains("seen") {}
    let id = bob.last_event_id.clone();
    drop(bob);
    send(&chat, "Ada", "missed");
    send(&chat, "Bob", "from another tab");
    end(chat);

    let chat = folder.start("chat");
    let mut bob = chat.events(&format!("/subscribe?username=Bob&lastEventId={id}"));
    send(&chat, "Ada", "live");
    let mut messages = Vec::new();
    while messages.len() < 2 {
        let event = bob.next_event().unwrap();
        assert!(!event.contains("gap") && !event.contains("from another tab"), "{event}");
        let message = event.split_once("\"message\":\"").map(|(_, rest)| rest.split('"').next().unwrap().to_owned());
        messages.extend(message);
    }
    assert_eq!(messages, ["missed", "live"]);
}
