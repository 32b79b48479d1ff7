//! The example chat: every user except the sender gets each message once.

use super::*;

struct Chat(Example);

impl Chat {
    fn join(&self, name: &str) -> Watcher {
        Watcher::new(&self.0, &format!("/subscribe?username={name}"))
    }

    fn posts(&self, name: &str, message: &str) -> (u16, String) {
        answer(agent().post(format!("{}/publish", self.0.url)).send_form([("username", name), ("message", message)]))
    }
}

/// Returns the sender and the text of the next message, and skips events about users.
fn next_message(watcher: &mut Watcher) -> (String, String) {
    loop {
        let event = watcher.next_event();
        if let Some(data) = event.strip_prefix("data: ") {
            let message: serde_json::Value = serde_json::from_str(data).unwrap();
            assert!(message["time"].is_u64(), "{data}");
            return ["username", "message"].map(|field| message[field].as_str().unwrap().to_owned()).into();
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

    assert_eq!(chat.posts("Ada", "one"), (204, String::new()));
    is_told(&mut bob, "Ada", "one");
    assert_eq!(chat.posts("Bob & Co", "two").0, 204);
    is_told(&mut ada, "Bob & Co", "two");
    assert_eq!(chat.posts("a stranger", "<b>ü</b>\nnext line").0, 204);
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
    chat.posts("Ada", "seen");
    is_told(&mut bob, "Ada", "seen");
    let id = bob.last_event_id.clone();
    drop(bob);
    chat.posts("Ada", "missed");
    chat.posts("Bob", "said from another tab");

    // The page itself reconnects.
    let mut bob = chat.join(&format!("Bob&lastEventId={id}"));
    chat.posts("Ada", "live");
    is_told(&mut bob, "Ada", "missed");
    is_told(&mut bob, "Ada", "live");

    // The browser reconnects with the same address: its header is the newer one.
    let mut browser = chat.0.connect();
    let newer = &bob.last_event_id;
    chat.posts("Ada", "missed too");
    browser.send(&format!("GET /subscribe?username=Bob&lastEventId={id} HTTP/1.1\r\nHost: localhost\r\n"));
    browser.send(&format!("Last-Event-ID: {newer}\r\n\r\n"));
    let replay = browser.reads_until("missed too");
    assert!(replay.contains(&format!("id: {newer}\n")), "{replay}");
    assert!(!replay.contains("event: gap") && replay.matches("\"message\"").count() == 1, "{replay}");

    // A new stream begins with the next message.
    let mut carol = chat.join("Carol");
    chat.posts("Ada", "newest");
    is_told(&mut carol, "Ada", "newest");
}

#[test]
fn chat_rejects_a_bad_request_with_the_reason() {
    let chat = Chat(Example::start("chat"));
    let missing_name = (400, "the field `username` is missing\n".to_owned());
    assert_eq!(get(&format!("{}/subscribe", chat.0.url)), missing_name);
    assert_eq!(chat.posts("", "x"), missing_name);
    assert_eq!(chat.posts("Ada", ""), (400, "the field `message` is missing\n".into()));
    let long = "the username has 41 characters: at most 40 are allowed\n";
    assert_eq!(chat.posts(&"ü".repeat(41), "x"), (400, long.into()));
    assert_eq!(
        chat.posts("Ada", &"x".repeat(16 * 1024)),
        (413, "body too large: at most 16384 bytes are allowed\n".into())
    );
    assert_eq!(get(&format!("{}/publish", chat.0.url)).0, 405);
    assert_eq!(get(&format!("{}/nothing", chat.0.url)).0, 404);
}
