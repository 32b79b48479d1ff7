//! A subscription as io::Read, for servers that want a body.

use std::io::{self, BufRead, Read};
use std::time::{Duration, Instant};

use super::Subscription;
use crate::deliver::{Drained, Sink, Wait};

impl Subscription {
    /// Turns the stream into a body that can be read, for a server that takes one.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    ///
    /// let publisher = Publisher::new();
    /// let body = publisher.subscribe()?.into_reader();
    /// publisher.publish("hello");
    /// publisher.close();
    /// assert_eq!(std::io::read_to_string(body)?, "data: hello\n\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_reader(self) -> Reader {
        Reader { subscription: self, bytes: Vec::new(), read: 0, server: Server::new(0), comment: 0 }
    }
}

/// An event stream as the body of a response; from [`Subscription::into_reader`].
///
/// `read` gives what is there, which may end in the middle of a frame. When there is nothing it blocks, for the
/// heartbeat's interval at the most; `Ok(0)` is the stream's end, and then
/// [`end_cause`](Subscription::end_cause) of the [subscription](Self::get_ref) says why. It gives no errors. Up to
/// 64 KiB that wait are taken out of the queue at once.
///
/// Many servers collect a body in a buffer before they send it on, and an event would wait in there for later ones.
/// Where that buffer cannot be switched off, [`pad_to`](Self::pad_to) pushes events through it.
///
/// Dropping it ends the stream, as dropping the subscription does. That is how a server says that the client has gone.
#[derive(Debug)]
#[must_use = "dropping it ends the stream"]
pub struct Reader {
    subscription: Subscription,
    /// What was taken out of the queue; up to `read` it has been read.
    bytes: Vec<u8>,
    read: usize,
    server: Server,
    /// How many bytes of filling are still to be given.
    comment: usize,
}

impl Reader {
    /// A longer comment is given as several: filling takes no more memory than this.
    const COMMENT: usize = 64 * 1024;

    /// Pushes events through a server that collects `size` bytes before it sends them on; 0, the default, if it
    /// collects none.
    ///
    /// Comments fill the server's buffer up to one byte more than it holds, as often as events wait in it: at once for
    /// an event that comes after a pause, otherwise when the oldest that waits is 40 ms old. So no event waits longer
    /// than that, a stream whose events fill the buffer sooner has no filling at all, and the price is less than
    /// `size` bytes for each quiet event, 25 times a second at the most. The heartbeat is filled up too.
    ///
    /// The size is counted from the body's first byte on, so this must be called before any is read. For a server
    /// that sends each write of 8,192 bytes as a chunk of HTTP, such as `tiny_http`'s own `respond`, it is 8,192.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    /// use std::io::Read;
    ///
    /// let publisher = Publisher::new();
    /// let mut body = publisher.subscribe()?.into_reader().pad_to(100);
    /// publisher.publish("hello");
    /// let mut bytes = [0; 101];
    /// body.read_exact(&mut bytes)?;
    /// assert_eq!(bytes[..15], *b"data: hello\n\n: ");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pad_to(mut self, size: usize) -> Self {
        self.server = Server::new(size);
        self
    }

    /// The subscription that is read.
    pub fn get_ref(&self) -> &Subscription {
        &self.subscription
    }

    /// Takes what there is, or waits for it; nothing at the stream's end.
    fn take(&mut self) {
        self.bytes.clear();
        // A quiet stream should not hold what its busiest moment took.
        self.bytes.shrink_to(4096);
        self.read = 0;
        // All that was given before has been taken by the server, as a write would have.
        self.subscription.source.written(Instant::now());
        if self.comment == 0 {
            self.take_frames();
        }
        // Between two frames, or it would be part of one.
        if self.bytes.is_empty() && self.comment > 0 {
            let size = self.comment.min(Self::COMMENT);
            fill(&mut self.bytes, size);
            self.comment -= size;
        }
    }

    /// Takes the frames that there are, or waits for one; nothing when the server is to be filled up, or at the end.
    fn take_frames(&mut self) {
        loop {
            let drained = self.subscription.source.fill(&mut self.bytes, true);
            let now = Instant::now();
            if !self.bytes.is_empty() {
                return self.server.takes(self.bytes.len(), now);
            }
            let frame = match (drained, self.server.due) {
                (Drained::Ended, _) => return,
                (Drained::Full, _) => continue,
                (Drained::NeedsCall, _) => unreachable!("BUG: callbacks are allowed"),
                (Drained::Empty, None) => self.subscription.source.wait_for(Wait::Forever).ok(),
                (Drained::Empty, Some(due)) if due <= now => {
                    self.comment = self.server.fill_up();
                    return;
                }
                (Drained::Empty, Some(due)) => self.subscription.source.wait_for(Wait::Until(due)).ok(),
            };
            if let Some(frame) = frame {
                Sink::append(&mut self.bytes, &frame);
            }
        }
    }

    /// Appends what is there already, from a mebibyte on no more frames; does not wait.
    #[cfg(feature = "rouille")]
    pub(crate) fn take_what_is_there(&mut self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.bytes[self.read..]);
        self.read = self.bytes.len();
        while bytes.len() < 1024 * 1024 && self.subscription.source.fill(bytes, true) == Drained::Full {}
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Asked for nothing, it would block, and say then that this is the end.
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.read == self.bytes.len() {
            self.take();
        }
        Ok(&self.bytes[self.read..])
    }

    fn consume(&mut self, amount: usize) {
        self.read = (self.read + amount).min(self.bytes.len());
    }
}

/// Appends so many bytes that mean nothing: a comment, and for the least sizes less.
fn fill(bytes: &mut Vec<u8>, size: usize) {
    match size {
        0 => {}
        1 => bytes.push(b'\n'),
        size => {
            bytes.push(b':');
            bytes.resize(bytes.len() + size - 2, b' ');
            bytes.push(b'\n');
        }
    }
}

/// What a server does with the body, as far as it can be told from outside: it collects so many bytes, and sends them
/// when there is one more.
#[derive(Debug)]
struct Server {
    /// 0 if it collects nothing.
    size: usize,
    /// What it has and has not sent: at most `size`.
    holds: usize,
    /// When what it holds is to be pushed through; `None` if there is no event in it.
    due: Option<Instant>,
    /// When it took events last.
    took: Option<Instant>,
}

impl Server {
    /// How long an event may wait for others. The eye takes no notice of it, and 25 buffers of 8 KiB a second are no
    /// burden, not even on a mobile connection. Also how long no event must have come for it to be a pause.
    const WAIT: Duration = Duration::from_millis(40);

    fn new(size: usize) -> Self {
        Self { size, holds: 0, due: None, took: None }
    }

    /// It takes so many bytes of events.
    fn takes(&mut self, bytes: usize, now: Instant) {
        if self.size == 0 {
            return;
        }
        let after_a_pause = self.took.replace(now).is_none_or(|took| now.duration_since(took) >= Self::WAIT);
        let wait = if after_a_pause { Duration::ZERO } else { Self::WAIT };
        // It sends nothing of these bytes, or all that it held before.
        let room = self.size - self.holds;
        let sends = bytes > room;
        if sends || self.due.is_none() {
            self.due = Some(now + wait);
        }
        self.holds = if sends { (bytes - room - 1) % self.size + 1 } else { self.holds + bytes };
    }

    /// How many bytes make it send all events that it holds. The last of them stays.
    fn fill_up(&mut self) -> usize {
        self.due = None;
        let missing = self.size - self.holds;
        self.holds = 1;
        missing.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that collects 100 bytes, and a clock.
    struct Clock {
        server: Server,
        now: Instant,
    }

    impl Clock {
        fn new() -> Self {
            Self { server: Server::new(100), now: Instant::now() }
        }

        /// After so many milliseconds it takes so many bytes; then it holds so many, to be pushed through in so many ms.
        #[track_caller]
        fn takes(&mut self, after: u64, bytes: usize, holds: usize, due_in: Option<u64>) {
            self.now += Duration::from_millis(after);
            self.server.takes(bytes, self.now);
            assert_eq!(self.server.holds, holds);
            assert_eq!(self.server.due, due_in.map(|due| self.now + Duration::from_millis(due)));
        }

        #[track_caller]
        fn fills_up(&mut self, after: u64, with: usize) {
            self.now += Duration::from_millis(after);
            assert_eq!(self.server.fill_up(), with);
            assert_eq!((self.server.holds, self.server.due), (1, None));
        }
    }

    #[test]
    fn an_event_after_a_pause_is_pushed_through_at_once_and_others_when_the_oldest_has_waited() {
        let mut clock = Clock::new();
        clock.takes(0, 30, 30, Some(0));
        clock.fills_up(0, 71);
        clock.takes(39, 30, 31, Some(40));
        clock.takes(30, 30, 61, Some(10));
        clock.fills_up(10, 40);
        clock.takes(40, 30, 31, Some(0));
    }

    #[test]
    fn bytes_that_the_server_has_sent_wait_no_longer() {
        let mut clock = Clock::new();
        clock.takes(0, 100, 100, Some(0));
        clock.takes(10, 1, 1, Some(40));
        clock.takes(30, 99, 100, Some(10));
        clock.takes(5, 100, 100, Some(40));
        clock.takes(5, 301, 1, Some(40));
        clock.takes(5, 99, 100, Some(35));
        clock.takes(5, 250, 50, Some(40));
        clock.fills_up(40, 51);
    }

    #[test]
    fn a_server_that_collects_nothing_is_never_filled_up() {
        let mut server = Server::new(0);
        server.takes(1_000, Instant::now());
        assert_eq!(server.due, None);
    }

    #[test]
    fn filling_has_every_size_and_means_nothing() {
        for size in 0..200 {
            let mut bytes = Vec::new();
            fill(&mut bytes, size);
            assert_eq!(bytes.len(), size);
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'));
            assert!(text.lines().all(|line| line.is_empty() || line.starts_with(':')), "{text:?}");
        }
    }
}
