//! Subscriptions: a blocking iterator over the frames of one subscriber.

mod background;
mod handle;
mod reader;
mod writing;

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::Duration;

use crate::deliver::{FrameSource, NoFrame, Wait, WriterPool};
use crate::error::{RecvTimeoutError, TryRecvError};
use crate::event::Frame;
use crate::history::Resumption;
#[cfg(feature = "tiny_http")]
use crate::log::Subject;
use crate::stats::EndCause;

pub use background::BackgroundOptions;
pub use handle::SubscriptionHandle;
pub use reader::Reader;

/// The receiving half of a subscriber: a blocking iterator over its frames.
///
/// Each item is one encoded event or comment, ready to be written to a response body. The iterator blocks until there
/// is one, and ends when [the stream does](EndCause). Then [`end_cause`](Self::end_cause) returns why. If no event
/// comes within the heartbeat's interval (15 s by default), the iterator yields a heartbeat. So a server detects a lost
/// connection, and a proxy keeps the connection open.
///
/// Dropping the subscription removes the subscriber from the publisher at once. The subscription does not keep the
/// publisher alive.
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
    /// The last event ID that the client sent.
    last_event_id: Option<Arc<str>>,
}

impl Subscription {
    pub(crate) fn new(
        source: FrameSource,
        pool: Arc<WriterPool>,
        resumption: Resumption,
        last_event_id: Option<Arc<str>>,
    ) -> Self {
        Self { source, pool, resumption, last_event_id }
    }

    #[cfg(all(test, any(sse_loom, sse_shuttle)))]
    pub(crate) fn pool(&self) -> Arc<WriterPool> {
        Arc::clone(&self.pool)
    }

    /// Returns the next frame without copying its text, or `None` when the stream has ended. Blocks as the iterator
    /// does.
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

    /// Returns the next frame, if one comes within this time.
    ///
    /// Blocks for at most this time, plus the run time of closures given to
    /// [`publish_with`](crate::Publisher::publish_with).
    ///
    /// # Errors
    ///
    /// Returns [`RecvTimeoutError::Timeout`] if no frame came in time, and [`RecvTimeoutError::Ended`] if the stream
    /// has ended.
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
        // A timeout beyond the range of the clock counts as no timeout.
        let wait = self.source.clock().now().checked_add(timeout).map_or(Wait::Forever, Wait::Until);
        self.source.take(wait).map_err(|no_frame| match no_frame {
            NoFrame::Timeout => RecvTimeoutError::Timeout,
            NoFrame::Ended => RecvTimeoutError::Ended,
        })
    }

    /// Returns the next frame, if one is ready. Does not wait for one.
    ///
    /// Closures given to [`publish_with`](crate::Publisher::publish_with) run during the call, including those that
    /// then skip this subscriber.
    ///
    /// # Errors
    ///
    /// Returns [`TryRecvError::Empty`] if no frame is ready, and [`TryRecvError::Ended`] if the stream has ended.
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

    /// Returns a handle that controls the subscription from any thread, even while it is written in the background.
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
        let (registry, id) = (self.source.registry().clone(), self.source.subscriber().id());
        SubscriptionHandle::new(registry, Arc::downgrade(&self.pool), id, self.last_event_id.clone())
    }

    /// Returns whether the history still had every past event that the subscription asked for.
    pub fn resumption(&self) -> Resumption {
        self.resumption
    }

    /// Returns why the stream ended, once the iterator has returned `None`; `None` before.
    pub fn end_cause(&self) -> Option<EndCause> {
        self.source.end_cause()
    }

    /// Puts a comment first, because some proxies hold back a response's head until its body begins.
    #[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
    pub(crate) fn begin_with_comment(&mut self) {
        self.source.begin_with_comment();
    }

    /// Ends the stream at once, with this cause unless it has ended already.
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
            let subscriber = self.source.subscriber();
            let channels = registry.channels_of(subscriber.id());
            let quota_key = subscriber.quota_key().map(|key| &**key);
            registry.count_cannot_begin(Subject { quota_key, channels: &channels });
        }
    }

    /// Ends the stream before anything is sent, for a response without a body.
    #[cfg(feature = "tiny_http")]
    pub(crate) fn end_unsent(&mut self) {
        self.source.end_unsent();
    }
}

impl Iterator for Subscription {
    type Item = String;

    /// Blocks until there is a frame, and returns `None` when the stream has ended.
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
