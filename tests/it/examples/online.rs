//! The online list of the example chat, as another user sees it: every user joins once and leaves once, however they
//! leave.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::eventually;
use crate::common::example::{Example, built_examples};
use crate::common::http::Client;

fn chat() -> Example {
    let mut command = Command::new(built_examples().join("chat"));
    // tiny_http's threads panic, one by one, over connections that were reset before they were read.
    command.stderr(Stdio::null());
    Example::run(command)
}

fn connect(chat: &Example, name: &str) -> Client {
    let mut client = chat.connect();
    client.send(&format!("GET /subscribe?username={name} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    client
}

/// A user whose connection buffers little, and whose client never reads it.
fn who_never_reads(chat: &Example, name: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let address: SocketAddr = chat.url.strip_prefix("http://").unwrap().parse().unwrap();
    socket.connect(&address.into()).unwrap();
    let mut client = TcpStream::from(socket);
    write!(client, "GET /subscribe?username={name} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    client
}

fn say(chat: &Example, message: &str) {
    let url = format!("{}/publish", chat.url);
    ureq::post(url).send_form([("username", "a stranger"), ("message", message)]).unwrap();
}

/// What a user of the chat receives about the others.
struct Observer {
    events: Receiver<(String, String)>,
    reader: JoinHandle<()>,
    /// How often each of the others joined and left.
    changes: BTreeMap<String, [usize; 2]>,
    /// The names in the newest list.
    here: Vec<String>,
}

impl Observer {
    fn new(chat: &Example) -> Self {
        let mut stream = chat.events("/subscribe?username=observer");
        let (sender, events) = channel();
        let reader = thread::spawn(move || {
            while let Some(frame) = stream.next_frame() {
                let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                if let (Some(event_type), Some(data)) = (field("event: "), field("data: ")) {
                    assert_ne!(event_type, "gap");
                    let _ = sender.send((event_type, data));
                }
            }
        });
        Self { events, reader, changes: BTreeMap::new(), here: Vec::new() }
    }

    fn looks(&mut self) {
        for (event_type, data) in self.events.try_iter() {
            let data: serde_json::Value = serde_json::from_str(&data).unwrap();
            match &*event_type {
                "users" => self.here = serde_json::from_value(data).unwrap(),
                "joined" | "left" => {
                    let name = data["username"].as_str().unwrap();
                    let changes = self.changes.entry(name.to_owned()).or_default();
                    changes[usize::from(event_type == "left")] += 1;
                    assert!(changes[0] == changes[1] || changes[0] == changes[1] + 1, "{name} left before joining");
                }
                other => panic!("an event of type {other}"),
            }
        }
    }

    /// Returns whether no other user is listed.
    fn is_alone(&mut self) -> bool {
        self.looks();
        self.here == ["observer"]
    }

    /// Ends the chat, and the observer's stream with it, in good order.
    fn goes_home(self, mut chat: Example) {
        assert!(Command::new("kill").args(["-TERM", &chat.process.id().to_string()]).status().unwrap().success());
        self.reader.join().unwrap();
        assert!(chat.process.wait().unwrap().success());
    }

    /// Returns how many of these users joined, and how many left.
    fn count(&mut self, of: &str) -> [usize; 2] {
        self.looks();
        let names = self.changes.iter().filter(|(name, _)| name.starts_with(of)).map(|(_, changes)| changes);
        names.fold([0, 0], |sum, changes| [sum[0] + changes[0], sum[1] + changes[1]])
    }
}

#[test]
fn each_user_joins_once_and_leaves_once_however_it_leaves() {
    const EACH: usize = 20;
    let chat = chat();
    let mut observer = Observer::new(&chat);
    eventually("the observer is there", || observer.is_alone());

    let some = |way: &str| (0..EACH).map(|n| connect(&chat, &format!("{way}{n}"))).collect::<Vec<Client>>();
    let [killed, closed] = ["killed", "closed"].map(some);
    let silent: Vec<TcpStream> = (0..EACH).map(|n| who_never_reads(&chat, &format!("silent{n}"))).collect();
    eventually("all have joined", || ["killed", "closed", "silent"].map(|of| observer.count(of)) == [[EACH, 0]; 3]);
    eventually("all are listed", || {
        observer.looks();
        observer.here.len() == 3 * EACH + 1
    });

    for client in killed {
        client.resets();
    }
    for mut client in closed {
        client.reads_head();
    }
    eventually("the killed and the closed clients have left", || {
        ["killed", "closed"].map(|of| observer.count(of)[1]) == [EACH; 2]
    });
    // They left before they could be answered: some never appear.
    for client in some("hasty") {
        client.resets();
    }
    assert_eq!(observer.count("silent"), [EACH, 0]);

    // Unread messages fill the kernels' buffers, and then the queues.
    let long = "x".repeat(15 * 1024);
    eventually("the clients that never read have left", || {
        say(&chat, &long);
        observer.count("silent")[1] == EACH
    });
    drop(silent);
    eventually("the observer is alone", || observer.is_alone());
    for (name, changes) in &observer.changes {
        assert_eq!(*changes, if name == "observer" { [1, 0] } else { [1, 1] }, "{name}");
    }
    let seen = observer.changes.len();
    println!("{seen} users appeared");
    assert!((3 * EACH + 1..=4 * EACH + 1).contains(&seen), "{seen}");
    observer.goes_home(chat);
}

/// A user who is away for as long as this has left.
const MOMENT: Duration = Duration::from_secs(2);

#[test]
fn a_user_with_two_tabs_or_a_quick_reconnect_neither_joins_again_nor_leaves() {
    // On a busy machine, not every reconnect is quick, which shows nothing.
    assert!((0..10).any(|_| reconnects_quickly()), "no reconnect is quick");
}

/// Returns whether the user was never away for a moment.
fn reconnects_quickly() -> bool {
    let chat = chat();
    let mut observer = Observer::new(&chat);
    let mut tab = connect(&chat, "Ada");
    tab.reads_until("event: users\n");
    let mut second = connect(&chat, "Ada");
    second.reads_until("event: users\n");
    tab.resets();
    let (mut others, mut longest) = (Vec::new(), Duration::ZERO);
    for n in 0..5 {
        let start = Instant::now();
        second.resets();
        // The chat writes to it, and so detects that its connection was lost. It sends its events in order.
        say(&chat, "are you there?");
        others.push(connect(&chat, &format!("Bob{n}")));
        eventually("the chat reports a later user", || observer.count("Bob") == [n + 1, 0]);
        second = connect(&chat, "Ada");
        second.reads_until("event: users\n");
        longest = longest.max(start.elapsed());
    }
    if longest >= MOMENT {
        return false;
    }
    assert_eq!(observer.count("Ada"), [1, 0]);
    second.resets();
    drop(others);
    eventually("the chat reports that Ada left", || observer.count("Ada")[1] == 1);
    eventually("the observer is alone", || observer.is_alone());
    assert_eq!(observer.count("Ada"), [1, 1]);
    observer.goes_home(chat);
    true
}
