//! Many clients of tiny_http whose first response cannot be written.

use std::time::Duration;

use super::eventually;
use super::http::{Client, FIRST_CHUNK, GET, LAST_CHUNK, Running};
use server_sent_events::{Publisher, PublisherBuilder};

/// The number of clients that block a response.
pub const MANY: usize = 250;

/// Requests whose response must wait: for a body that does not arrive, or for the end of an earlier response.
pub const BODY_MISSING: &str = "GET /c HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n";
pub const BEHIND_ANOTHER: &str = "GET /c HTTP/1.1\r\nHost: x\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\n\r\n";

/// Half of the writer threads of a small publisher.
pub const HALF: usize = 2;

/// Returns a publisher with few writer threads, whose streams send their first heartbeat after 200 ms.
pub fn small() -> PublisherBuilder {
    Publisher::builder().max_writer_threads(2 * HALF).heartbeat(Duration::from_millis(200))
}

/// Returns the number of streams that run on the connections of an attack.
fn running(request: &str) -> usize {
    if request == BEHIND_ANOTHER { MANY } else { 0 }
}

/// The streams of a publisher whose first writes are blocked by as many clients as it allows, and by many more.
pub struct Attacked {
    pub publisher: Publisher,
    pub server: Running,
    pub clients: Vec<Client>,
}

impl Attacked {
    pub fn by(request: &str, settings: PublisherBuilder) -> Self {
        let publisher = settings.build().unwrap();
        let answers = publisher.clone();
        let server = Running::new(move |request| answers.respond(request).unwrap());
        let mut clients: Vec<Client> = (0..MANY).map(|_| server.connect()).collect();
        if request == BEHIND_ANOTHER {
            for client in &mut clients {
                client.send(GET);
            }
            for client in &mut clients {
                client.reads_head();
                client.reads(FIRST_CHUNK);
            }
            for client in &mut clients {
                client.send(GET);
            }
        } else {
            for client in &mut clients {
                client.send(request);
            }
        }
        let attacked = Self { publisher, server, clients };
        // A later request would otherwise get a place, since tiny_http may take new connections in any order.
        eventually("the first blocked responses are there", || {
            attacked.publisher.stats().subscribers >= running(request) + HALF
        });
        attacked
    }

    /// Returns whether every stream that is neither blocked nor running has been refused: of the attack, and of this many
    /// other requests.
    pub fn is_full(&self, request: &str, others: usize) -> bool {
        let stats = self.publisher.stats();
        // A stream that waits until the first writes are known to be blocked is refused when it times out.
        let refused = stats.subscriptions_refused + stats.ended.write_timed_out;
        stats.subscribers == running(request) + HALF && refused >= (MANY - HALF + others) as u64
    }

    /// Connects a client that is refused, and reads the refusal.
    #[track_caller]
    pub fn refused(&self, request: &str) -> Client {
        let mut client = self.server.send(request);
        assert_eq!(client.reads_head().status(), "HTTP/1.1 200 OK");
        client.reads_until(":\n: busy\nretry: ");
        client.reads_until(LAST_CHUNK);
        client
    }
}
