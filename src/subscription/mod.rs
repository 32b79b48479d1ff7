//! The receiving half: blocking iterator, heartbeat, end, Drop.

mod background;
mod handle;
mod reader;

use std::fmt;
use std::io::{self, Write};
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::deliver::{Batch, Drained, FrameSource, NoFrame, Wait, WriterPool};
use crate::error::{RecvTimeoutError, TryRecvError};
use crate::event::Frame;
use crate::history::Resumption;
use crate::stats::EndCause;

pub use background::BackgroundOptions;
pub use handle::SubscriptionHandle;
pub use reader::Reader;

/// The receiving half: a blocking iterator over the frames of one subscriber.
///
/// Each item is one event or comment, encoded, ready to be written to a response body. The iterator blocks
/// until there is one, and ends when [the stream does](EndCause); then [`end_cause`](Self::end_cause) says why.
/// When nothing came for the heartbeat's interval (15 s by default), it gives a comment, so that a server
/// notices a client that has gone and a proxy keeps the connection.
///
/// Dropping it takes the subscriber out of the publisher at once. It does not keep the publisher alive.
///
/// ```
/// use server_sent_events::Publisher;
///
/// let publisher = Publisher::new();
/// let subscription = publisher.subscribe()?;
/// publisher.publish("one");
/// publisher.publish("two");
/// publisher.close();
/// assert_eq!(subscription.collect::<Vec<_>>(), ["data: one\n\n", "data: two\n\n"]);
/// # Ok::<(), server_sent_events::OpenError>(())
/// ```
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    source: FrameSource,
    pool: Arc<WriterPool>,
    resumption: Resumption,
}

impl Subscription {
    pub(crate) fn new(source: FrameSource, pool: Arc<WriterPool>, resumption: Resumption) -> Self {
        Self { source, pool, resumption }
    }

    /// Returns the next frame without a copy of its text; blocks as the iterator does. `None` when the stream has ended.
    ///
    /// ```
    /// # let publisher = server_sent_events::Publisher::new();
    /// # let mut subscription = publisher.subscribe()?;
    /// publisher.publish("hello");
    /// assert_eq!(subscription.recv().unwrap(), "data: hello\n\n");
    /// publisher.close();
    /// assert_eq!(subscription.recv(), None);
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn recv(&mut self) -> Option<Frame> {
        self.source.take(Wait::Forever).ok()
    }

    /// Returns the next frame, if one comes within this time. Blocks that long at most, and while a closure given to
    /// [`publish_with`](crate::Publisher::publish_with) runs.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError`] says whether the time is over or the stream has ended.
    ///
    /// ```
    /// # use {server_sent_events::{Publisher, RecvTimeoutError}, std::time::Duration};
    /// # let publisher = Publisher::new();
    /// # let mut subscription = publisher.subscribe()?;
    /// assert_eq!(subscription.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
    /// publisher.publish("hello");
    /// assert_eq!(subscription.recv_timeout(Duration::from_millis(1)).unwrap(), "data: hello\n\n");
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Frame, RecvTimeoutError> {
        // A time so long that no clock shows its end is no bound at all.
        let wait = Instant::now().checked_add(timeout).map_or(Wait::Forever, Wait::Until);
        self.source.take(wait).map_err(|no_frame| match no_frame {
            NoFrame::Timeout => RecvTimeoutError::Timeout,
            NoFrame::Ended => RecvTimeoutError::Ended,
        })
    }

    /// Returns the next frame, if one is there already. Does not wait for one.
    ///
    /// Closures given to [`publish_with`](crate::Publisher::publish_with) run in here, also those of events that
    /// then skip this subscriber.
    ///
    /// # Errors
    ///
    /// [`TryRecvError`] says whether nothing is there yet or the stream has ended.
    ///
    /// ```
    /// # use server_sent_events::{Publisher, TryRecvError};
    /// # let publisher = Publisher::new();
    /// # let mut subscription = publisher.subscribe()?;
    /// assert_eq!(subscription.try_recv(), Err(TryRecvError::Empty));
    /// publisher.close();
    /// assert_eq!(subscription.try_recv(), Err(TryRecvError::Ended));
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn try_recv(&mut self) -> Result<Frame, TryRecvError> {
        self.source.take(Wait::Not).map_err(|no_frame| match no_frame {
            NoFrame::Timeout => TryRecvError::Empty,
            NoFrame::Ended => TryRecvError::Ended,
        })
    }

    /// Returns a handle with which other threads control the subscription, also when it is written in the background.
    ///
    /// ```
    /// # use server_sent_events::Publisher;
    /// let publisher = Publisher::new();
    /// let mut subscription = publisher.subscription(()).channels("lobby").open()?;
    /// let handle = subscription.handle();
    ///
    /// handle.join("room 7")?;
    /// handle.leave("lobby");
    /// publisher.publish_to("room 7", "you are in");
    /// handle.close();
    /// assert_eq!(subscription.next().unwrap(), "data: you are in\n\n");
    /// assert_eq!(subscription.next(), None);
    /// # Ok::<(), server_sent_events::OpenError>(())
    /// ```
    pub fn handle(&self) -> SubscriptionHandle {
        SubscriptionHandle::new(self.source.registry(), self.source.subscriber().id())
    }

    /// Returns how the subscription begins: whether everything newer than the id that it came with is still there.
    pub fn resumption(&self) -> Resumption {
        self.resumption
    }

    /// Returns why the stream ended, once the iterator has returned `None`; `None` before.
    pub fn end_cause(&self) -> Option<EndCause> {
        self.source.end_cause()
    }

    /// Writes the stream to this writer until it ends: this thread is the connection's thread.
    ///
    /// Blocks until the stream ends, and returns why it did. Frames that wait together are written together, with
    /// one `write_all` and one `flush`, so an event never waits for a later one; from 64 KiB on, no further frame is
    /// added to a write. A frame of 16 KiB or more is written by itself, from where it is. The bytes are the bare event stream: the response's head and any framing are the caller's.
    ///
    /// # Errors
    ///
    /// The writer's error, unchanged; most often the client has gone. The subscription is over then.
    ///
    /// ```
    /// use server_sent_events::{EndCause, Publisher};
    ///
    /// let publisher = Publisher::new();
    /// let subscription = publisher.subscribe()?;
    /// publisher.publish("hello");
    /// publisher.close();
    /// let mut body = Vec::new();
    /// assert_eq!(subscription.write_to(&mut body)?, EndCause::Closed);
    /// assert_eq!(body, b"data: hello\n\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_to(mut self, mut writer: impl Write) -> io::Result<EndCause> {
        let mut batch = Batch::default();
        loop {
            batch.begin(b"", false);
            // Blocks here, and nowhere else, until there is something.
            if let Ok(frame) = self.source.wait_for(Wait::Forever) {
                crate::deliver::Sink::append(&mut batch, &frame);
            }
            let drained = self.source.fill(&mut batch, true);
            let write = batch.seal(drained == Drained::Ended);
            if let Err(error) = batch.write_all(&write, &mut writer).and_then(|()| writer.flush()) {
                self.source.leave(EndCause::ConnectionLost(error.kind()));
                return Err(error);
            }
            self.source.written(Instant::now());
            if drained == Drained::Ended {
                return Ok(self.end_cause().expect("BUG: a stream ended without a cause"));
            }
            batch.clear();
        }
    }

    /// Puts a comment before everything else: some proxies hold back a response's head until its body has begun.
    #[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
    pub(crate) fn begin_with_comment(&mut self) {
        self.source.begin_with_comment();
    }

    /// Ends the stream at once, for this reason unless it has ended for another.
    #[cfg(feature = "server")]
    pub(crate) fn leave(&mut self, cause: EndCause) {
        self.source.leave(cause);
    }

    /// Returns whether the stream can begin, if its first write may block.
    #[cfg(feature = "tiny_http")]
    pub(crate) fn can_begin(&self) -> bool {
        self.pool.can_begin_streams()
    }

    /// Counts and logs it as refused, unless it is detached.
    #[cfg(feature = "tiny_http")]
    pub(crate) fn count_refused(&self) {
        if let Some(registry) = self.source.registry().upgrade() {
            registry.count_cannot_begin();
        }
    }

    /// Ends the stream before anything is sent, for a response that has a head only.
    #[cfg(feature = "tiny_http")]
    pub(crate) fn end_unsent(&mut self) {
        self.source.end_unsent();
    }
}

impl Iterator for Subscription {
    type Item = String;

    /// Blocks until a frame is there; `None` when the stream has ended.
    fn next(&mut self) -> Option<String> {
        self.recv().map(String::from)
    }
}

impl FusedIterator for Subscription {}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("id", &self.source.subscriber().id().0)
            .field("queued", &self.source.waiting())
            .field("ended", &self.end_cause())
            .finish_non_exhaustive()
    }
}
