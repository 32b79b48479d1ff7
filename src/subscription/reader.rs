//! A subscription as `io::Read`, for servers that read a response's body.

use std::io::{self, BufRead, Read};
use std::time::{Duration, Instant};

use super::Subscription;
use crate::deliver::{Drained, Sink, Wait};

impl Subscription {
    /// Turns the stream into a reader, for a server that reads a response's body.
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
        Reader { subscription: self, bytes: Vec::new(), read: 0, server: Server::new(0), padding: 0 }
    }
}

/// An event stream as the body of a response; from [`Subscription::into_reader`].
///
/// `read` returns what is ready, which may end in the middle of a frame. If nothing is ready, it blocks until the next
/// frame, at most for the heartbeat's interval. `Ok(0)` is the end of the stream; then
/// [`end_cause`](Subscription::end_cause) of the [subscription](Self::get_ref) returns why. `read` returns no errors.
/// It takes up to 64 KiB of queued frames at once.
///
/// Many servers collect a body in a buffer before they send it, and an event would wait there for later ones. If that
/// buffer cannot be switched off, [`pad_to`](Self::pad_to) pushes events through it.
///
/// Dropping the reader ends the stream, as dropping the subscription does. A server drops it when the connection is
/// lost.
#[derive(Debug)]
#[must_use = "dropping it ends the stream"]
pub struct Reader {
    subscription: Subscription,
    /// The bytes that were taken out of the queue; the first `read` bytes have been read.
    bytes: Vec<u8>,
    read: usize,
    server: Server,
    /// The number of bytes of padding that are still to be read.
    padding: usize,
}

impl Reader {
    /// The maximum length of one comment. Longer padding is several comments, so that it takes no more memory than
    /// this.
    const COMMENT: usize = 64 * 1024;

    /// Pushes events through a server that collects `size` bytes before it sends them. Defaults to 0, for a server that
    /// collects nothing.
    ///
    /// Comments fill the server's buffer and one byte more whenever events wait in it. An event that comes after a
    /// pause is pushed through at once. Otherwise the buffer is filled when its oldest event is 40 ms old. So no event
    /// waits longer than that, and a stream whose events fill the buffer sooner gets no padding. Each quiet event costs
    /// less than `size` bytes of padding, at most 25 times per second. A heartbeat is padded too.
    ///
    /// The size counts from the body's first byte, so this must be called before any byte is read. A server that sends
    /// each 8,192 bytes as one HTTP chunk, such as `tiny_http`'s own `respond`, needs 8,192.
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

    /// Returns the subscription.
    pub fn get_ref(&self) -> &Subscription {
        &self.subscription
    }

    /// Returns the subscription, which goes on with the frames that the reader has not taken out of its queue.
    ///
    /// The reader may have taken more than was read, and those bytes are lost. If [`fill_buf`](BufRead::fill_buf)
    /// returned bytes, [consume](BufRead::consume) them all first; then the body ends with a whole frame.
    ///
    /// ```
    /// use server_sent_events::Publisher;
    /// use std::io::BufRead;
    ///
    /// let publisher = Publisher::new();
    /// let mut body = publisher.subscribe()?.into_reader();
    /// publisher.publish("first");
    /// let length = body.fill_buf()?.len();
    /// body.consume(length);
    ///
    /// publisher.publish("second");
    /// let mut subscription = body.into_inner();
    /// assert_eq!(subscription.next().unwrap(), "data: second\n\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_inner(mut self) -> Subscription {
        // What was read has reached its reader.
        self.subscription.source.written(self.subscription.source.clock().now());
        self.subscription
    }

    /// Takes what is ready, or waits for it. Takes nothing at the end of the stream.
    fn take(&mut self) {
        self.bytes.clear();
        // A quiet stream must not keep the memory of its busiest moment.
        self.bytes.shrink_to(4096);
        self.read = 0;
        // The server has taken all bytes that it read before, as a writer would have.
        self.subscription.source.written(self.subscription.source.clock().now());
        if self.padding == 0 {
            self.take_frames();
        }
        // Padding comes between two frames, or it would be part of one.
        if self.bytes.is_empty() && self.padding > 0 {
            let size = self.padding.min(Self::COMMENT);
            pad(&mut self.bytes, size);
            self.padding -= size;
        }
    }

    /// Takes the frames that are ready, or waits for one. Takes nothing if padding is due, and at the end of the
    /// stream.
    fn take_frames(&mut self) {
        loop {
            let drained = self.subscription.source.fill(&mut self.bytes, true);
            let now = self.subscription.source.clock().now();
            if !self.bytes.is_empty() {
                return self.server.takes(self.bytes.len(), now);
            }
            let frame = match (drained, self.server.due) {
                (Drained::Ended, _) => return,
                (Drained::Full, _) => continue,
                (Drained::NeedsCall, _) => unreachable!("BUG: callbacks are allowed"),
                (Drained::Empty | Drained::Paused, None) => self.subscription.source.wait_for(Wait::Forever).ok(),
                (Drained::Empty | Drained::Paused, Some(due)) if due <= now => {
                    self.padding = self.server.fill_up();
                    return;
                }
                (Drained::Empty | Drained::Paused, Some(due)) => {
                    self.subscription.source.wait_for(Wait::Until(due)).ok()
                }
            };
            if let Some(frame) = frame {
                Sink::append(&mut self.bytes, &frame);
            }
        }
    }

    /// Appends what is ready, without waiting. From 1 MiB on it appends no further frames.
    #[cfg(feature = "rouille")]
    pub(crate) fn take_ready(&mut self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.bytes[self.read..]);
        self.read = self.bytes.len();
        while bytes.len() < 1024 * 1024 && self.subscription.source.fill(bytes, true) == Drained::Full {}
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // An empty buffer would wait for a frame, and then report the end of the stream.
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

/// Appends this many bytes without a meaning: a comment, or a line end if one byte is asked for.
fn pad(bytes: &mut Vec<u8>, size: usize) {
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

/// A model of the server's buffer: the server collects `size` bytes, and sends them when there is one more.
#[derive(Debug)]
struct Server {
    /// 0 if the server collects nothing.
    size: usize,
    /// The bytes that the server holds unsent: at most `size`.
    holds: usize,
    /// The time at which the held bytes must be pushed through; `None` if no event is among them.
    due: Option<Instant>,
    /// The time at which the server took events last.
    took: Option<Instant>,
}

impl Server {
    /// The time for which an event may wait for others. People do not notice such a delay, and the padding stays small
    /// even for a mobile connection. A pause is at least this long.
    const WAIT: Duration = Duration::from_millis(40);

    fn new(size: usize) -> Self {
        Self { size, holds: 0, due: None, took: None }
    }

    /// Notes that the server takes this many bytes of events.
    fn takes(&mut self, bytes: usize, now: Instant) {
        if self.size == 0 {
            return;
        }
        let after_a_pause = self.took.replace(now).is_none_or(|took| now.duration_since(took) >= Self::WAIT);
        let wait = if after_a_pause { Duration::ZERO } else { Self::WAIT };
        // The server sends nothing, or everything that it held before.
        let room = self.size - self.holds;
        let sends = bytes > room;
        if sends || self.due.is_none() {
            self.due = Some(now + wait);
        }
        self.holds = if sends { (bytes - room - 1) % self.size + 1 } else { self.holds + bytes };
    }

    /// Returns how many bytes make the server send all events that it holds. The last byte stays in the buffer.
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

        /// Waits `after` ms, then lets the server take bytes. Checks how many it then holds, and when they are due.
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
    fn what_the_server_has_sent_no_longer_waits() {
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
    fn padding_has_every_size_and_no_meaning() {
        for size in 0..200 {
            let mut bytes = Vec::new();
            pad(&mut bytes, size);
            assert_eq!(bytes.len(), size);
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'));
            assert!(text.lines().all(|line| line.is_empty() || line.starts_with(':')), "{text:?}");
        }
    }
}
