//! Counters, and one snapshot of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::notices::Notices;

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndCause {
    /// [`Publisher::close`](crate::Publisher::close), [`shutdown`](crate::Publisher::shutdown) or
    /// [`SubscriptionHandle::close`](crate::SubscriptionHandle::close) was called, or the last handle was dropped. What was
    /// queued before is delivered, unless a shutdown's grace was over first.
    Closed,
    /// [`Publisher::unsubscribe`](crate::Publisher::unsubscribe) took it out of its last channel. What was
    /// queued before is delivered.
    Unsubscribed,
    /// The subscriber was slow: its queue was full when the next event came. What was queued is thrown away,
    /// so that the client can resume from what it has seen, instead of missing one event in the middle.
    QueueFull,
    /// The peer went away: writing to it failed, with an error of this kind. A writer that panicked counts as
    /// [`Other`](io::ErrorKind::Other).
    Disconnected(io::ErrorKind),
    /// A socket that was [handed over](crate::Subscription::hand_over) did not take all of one write within its write
    /// deadline; or it hung for a second and more while the publisher had no writer thread left.
    WriteTimedOut,
    /// The program dropped the [`Subscription`](crate::Subscription). So does a server that gives an
    /// iterator up because its client has gone.
    Dropped,
    /// The program ended it at once, by [`Publisher::disconnect`](crate::Publisher::disconnect) or
    /// [`SubscriptionHandle::disconnect`](crate::SubscriptionHandle::disconnect). What was queued is thrown away.
    Cut,
    /// Its [lifetime](crate::SubscriptionBuilder::max_lifetime) was over. What was queued before is delivered.
    Expired,
}

/// What a publisher has counted since it was built, and what it holds now; from
/// [`Publisher::stats`](crate::Publisher::stats).
///
/// The numbers belong to one moment, except those that subscribers count by themselves: [`delivered`](Self::delivered),
/// [`skipped`](Self::skipped), [`panicked`](Self::panicked). These are never ahead of the others: of what is
/// [`queued`](Self::queued), a part is delivered, a part skipped, a part [`dropped`](Self::dropped), and the rest
/// waits, or waited when its stream ended.
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
/// assert_eq!(stats.ended.dropped, 1);
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
    /// How often an event was put into a subscriber's queue; each of the last words of a
    /// [shutdown](crate::Publisher::shutdown_with) counts as one.
    pub queued: u64,
    /// How often an event was taken out of a queue and given to whoever reads the subscription; to a writer, when the
    /// write was no error.
    pub delivered: u64,
    /// How often a closure given to [`publish_with`](crate::Publisher::publish_with) had nothing for a subscriber.
    pub skipped: u64,
    /// How often an event was dropped to make room for others, as the [overflow](crate::Overflow) policies `DropOldest` and
    /// `Latest` do.
    pub dropped: u64,
    /// How many subscriptions were refused because of a limit, or during a [shutdown](crate::Publisher::shutdown).
    pub refused: u64,
    /// How often a closure given to [`publish_with`](crate::Publisher::publish_with) panicked, each of
    /// which cost one subscriber one event.
    pub panicked: u64,
    /// How often an event of a closure given to [`publish_with`](crate::Publisher::publish_with) carried a key, or in place
    /// of the history's id one of its own. Neither is used: see
    /// [`PublishOptions`](crate::PublishOptions).
    pub unusable_fields: u64,
    /// Streams that ended, by their cause.
    pub ended: Ended,
    /// What the [history](crate::History) holds; nothing without one.
    pub history: Kept,
}

/// What a [history](crate::History) holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// Events.
    pub events: usize,
    /// Bytes, as [`History::max_bytes`](crate::History::max_bytes) counts them.
    pub bytes: usize,
    /// Channels that have an event.
    pub channels: usize,
}

impl Kept {
    pub(crate) fn new(events: usize, bytes: usize, channels: usize) -> Self {
        Self { events, bytes, channels }
    }
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
    /// [`EndCause::Disconnected`], whatever the error.
    pub disconnected: u64,
    /// [`EndCause::WriteTimedOut`].
    pub write_timed_out: u64,
    /// [`EndCause::Dropped`].
    pub dropped: u64,
    /// [`EndCause::Cut`].
    pub cut: u64,
    /// [`EndCause::Expired`].
    pub expired: u64,
}

/// What a publisher knows of one channel now; from [`Publisher::channel_stats`](crate::Publisher::channel_stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStats {
    /// Its subscribers.
    pub subscribers: usize,
    /// How many items wait in their queues, also those of their other channels.
    pub waiting: usize,
    /// How many of its events the [history](crate::History) holds.
    pub kept: usize,
}

/// The running counts behind [`Stats`].
///
/// Relaxed throughout: each is a number of its own. What makes a snapshot consistent is that all but those of
/// the subscribers change under the registry's lock, where the snapshot is taken too; and an event is counted as queued
/// there before any subscriber can count it.
#[derive(Debug)]
pub(crate) struct Counters {
    notices: Arc<Notices>,
    published: AtomicU64,
    queued: AtomicU64,
    delivered: AtomicU64,
    skipped: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
    panicked: AtomicU64,
    unusable_fields: AtomicU64,
    closed: AtomicU64,
    unsubscribed: AtomicU64,
    queue_full: AtomicU64,
    disconnected: AtomicU64,
    write_timed_out: AtomicU64,
    dropped: AtomicU64,
    cut: AtomicU64,
    expired: AtomicU64,
}

impl Counters {
    /// Counts from 0, and logs there what an operator must know.
    pub(crate) fn new(notices: Arc<Notices>) -> Self {
        Self {
            notices,
            published: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            unusable_fields: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            unsubscribed: AtomicU64::new(0),
            queue_full: AtomicU64::new(0),
            disconnected: AtomicU64::new(0),
            write_timed_out: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        }
    }

    pub(crate) fn count_published(&self, queued: usize, dropped: usize) {
        self.published.fetch_add(1, Relaxed);
        self.queued.fetch_add(queued as u64, Relaxed);
        self.lost.fetch_add(dropped as u64, Relaxed);
    }

    /// What is no published event, and is delivered as they are: the last words of a shutdown.
    pub(crate) fn count_queued(&self, frames: usize) {
        self.queued.fetch_add(frames as u64, Relaxed);
    }

    pub(crate) fn count_delivered(&self, events: u64) {
        self.delivered.fetch_add(events, Relaxed);
    }

    pub(crate) fn count_skipped(&self) {
        self.skipped.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_panicked(&self) {
        self.panicked.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_unusable_field(&self) {
        self.unusable_fields.fetch_add(1, Relaxed);
        self.notices.unusable_field();
    }

    pub(crate) fn count_ended(&self, cause: EndCause) {
        let counter = match cause {
            EndCause::Closed => &self.closed,
            EndCause::Unsubscribed => &self.unsubscribed,
            EndCause::QueueFull => &self.queue_full,
            EndCause::Disconnected(_) => &self.disconnected,
            EndCause::WriteTimedOut => &self.write_timed_out,
            EndCause::Dropped => &self.dropped,
            EndCause::Cut => &self.cut,
            EndCause::Expired => &self.expired,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self, subscribers: usize, channels: usize, history: Kept) -> Stats {
        Stats {
            subscribers,
            channels,
            published: self.published.load(Relaxed),
            queued: self.queued.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            dropped: self.lost.load(Relaxed),
            refused: self.refused.load(Relaxed),
            panicked: self.panicked.load(Relaxed),
            unusable_fields: self.unusable_fields.load(Relaxed),
            ended: Ended {
                closed: self.closed.load(Relaxed),
                unsubscribed: self.unsubscribed.load(Relaxed),
                queue_full: self.queue_full.load(Relaxed),
                disconnected: self.disconnected.load(Relaxed),
                write_timed_out: self.write_timed_out.load(Relaxed),
                dropped: self.dropped.load(Relaxed),
                cut: self.cut.load(Relaxed),
                expired: self.expired.load(Relaxed),
            },
            history,
        }
    }
}
