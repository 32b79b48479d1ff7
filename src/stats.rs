//! Counters, and one snapshot of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndCause {
    /// [`Publisher::close`](crate::Publisher::close) was called, or the last handle was dropped. What was
    /// queued before is delivered.
    Closed,
    /// [`Publisher::unsubscribe`](crate::Publisher::unsubscribe) took it out of its last channel. What was
    /// queued before is delivered.
    Unsubscribed,
    /// The subscriber was slow: its queue was full when the next event came. What was queued is thrown away,
    /// so that the client can resume from what it has seen, instead of missing one event in the middle.
    QueueFull,
    /// The peer went away, or the program dropped the [`Subscription`](crate::Subscription).
    Disconnected,
}

/// What a publisher has counted since it was built, and what it holds now; from
/// [`Publisher::stats`](crate::Publisher::stats).
///
/// The numbers belong to one moment, except [`panicked`](Self::panicked), which subscribers count by themselves.
///
/// ```
/// use server_sent_events::Publisher;
///
/// let publisher = Publisher::new();
/// let subscription = publisher.subscribe()?;
/// publisher.publish("hello");
/// drop(subscription);
///
/// let stats = publisher.stats();
/// assert_eq!((stats.subscribers, stats.published, stats.queued), (0, 1, 1));
/// assert_eq!(stats.ended.disconnected, 1);
/// # Ok::<(), server_sent_events::OpenError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Subscribers now.
    pub subscribers: usize,
    /// Channels that have a subscriber now.
    pub channels: usize,
    /// Events published, also those that reached nobody.
    pub published: u64,
    /// How often an event was put into a subscriber's queue.
    pub queued: u64,
    /// How often a closure given to [`publish_with`](crate::Publisher::publish_with) panicked, each of
    /// which cost one subscriber one event.
    pub panicked: u64,
    /// Streams that ended, by their cause.
    pub ended: Ended,
}

/// How many streams ended of each [`EndCause`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// [`EndCause::Closed`].
    pub closed: u64,
    /// [`EndCause::Unsubscribed`].
    pub unsubscribed: u64,
    /// [`EndCause::QueueFull`].
    pub queue_full: u64,
    /// [`EndCause::Disconnected`].
    pub disconnected: u64,
}

/// The running counts behind [`Stats`].
///
/// Relaxed throughout: each is a number of its own. What makes a snapshot consistent is that all but
/// `panicked` change under the registry's lock, where the snapshot is taken too.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    published: AtomicU64,
    queued: AtomicU64,
    panicked: AtomicU64,
    closed: AtomicU64,
    unsubscribed: AtomicU64,
    queue_full: AtomicU64,
    disconnected: AtomicU64,
}

impl Counters {
    pub(crate) fn count_published(&self, queued: usize) {
        self.published.fetch_add(1, Relaxed);
        self.queued.fetch_add(queued as u64, Relaxed);
    }

    pub(crate) fn count_panicked(&self) {
        self.panicked.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_ended(&self, cause: EndCause) {
        let counter = match cause {
            EndCause::Closed => &self.closed,
            EndCause::Unsubscribed => &self.unsubscribed,
            EndCause::QueueFull => &self.queue_full,
            EndCause::Disconnected => &self.disconnected,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self, subscribers: usize, channels: usize) -> Stats {
        Stats {
            subscribers,
            channels,
            published: self.published.load(Relaxed),
            queued: self.queued.load(Relaxed),
            panicked: self.panicked.load(Relaxed),
            ended: Ended {
                closed: self.closed.load(Relaxed),
                unsubscribed: self.unsubscribed.load(Relaxed),
                queue_full: self.queue_full.load(Relaxed),
                disconnected: self.disconnected.load(Relaxed),
            },
        }
    }
}
