//! Counters, and one snapshot of them.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::log::RateLimitedLog;

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndCause {
    /// [`Publisher::close`](crate::Publisher::close), [`shutdown`](crate::Publisher::shutdown) or
    /// [`SubscriptionHandle::close`](crate::SubscriptionHandle::close) was called, or the last handle was dropped. What
    /// was queued before is delivered, unless a shutdown's grace was over first.
    Closed,
    /// [`Publisher::unsubscribe_if`](crate::Publisher::unsubscribe_if) took it out of its last channel. What was
    /// queued before is delivered.
    Unsubscribed,
    /// The subscriber was slow: its queue was full when the next event came, or it was among the slowest when slow
    /// streams held more than [`max_retained_bytes`](crate::PublisherBuilder::max_retained_bytes). What was queued is
    /// dropped, so that the client can resume from what it has seen, instead of missing one event in the middle.
    QueueFull,
    /// The client's side ended the connection: writing to it failed, with an error of this kind. A writer that panicked
    /// counts as [`Other`](io::ErrorKind::Other).
    ConnectionLost(io::ErrorKind),
    /// A socket, [written in the background](crate::Subscription::write_in_background) or by
    /// [`write_to`](crate::Subscription::write_to), did not accept a whole write within the write timeout; or a write was blocked for a second while the publisher had no writer thread left; or
    /// the stream could not [begin](crate::PublisherBuilder::max_writer_threads) in time.
    WriteTimedOut,
    /// The program dropped the [`Subscription`](crate::Subscription). So does a server that gives an
    /// iterator up because its client has gone.
    Dropped,
    /// The program disconnected it, by [`Publisher::disconnect_if`](crate::Publisher::disconnect_if),
    /// [`Publisher::disconnect_everywhere`](crate::Publisher::disconnect_everywhere) or
    /// [`SubscriptionHandle::disconnect`](crate::SubscriptionHandle::disconnect). A publisher also disconnects subscribers
    /// whose history has lost events. What was queued is thrown away.
    Disconnected,
    /// Its [lifetime](crate::SubscriptionBuilder::max_lifetime) was over. What was queued before is delivered.
    Expired,
    /// A newer subscription with the same [quota key](crate::SubscriptionBuilder::quota_key) took its place:
    /// [`QuotaPolicy::DisconnectOldest`](crate::QuotaPolicy::DisconnectOldest). What was queued is dropped.
    Replaced,
}

/// Writes the cause in a few words, for a log line: `closed`, `queue full`, `connection lost: broken pipe`.
impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Closed => "closed",
            Self::Unsubscribed => "unsubscribed",
            Self::QueueFull => "queue full",
            Self::ConnectionLost(kind) => return f.pad(&format!("connection lost: {kind}")),
            Self::WriteTimedOut => "write timed out",
            Self::Dropped => "dropped",
            Self::Disconnected => "disconnected",
            Self::Expired => "lifetime expired",
            Self::Replaced => "replaced",
        })
    }
}

/// What a publisher has counted since it was built, and what it holds now; from
/// [`Publisher::stats`](crate::Publisher::stats).
///
/// The numbers belong to one moment, except those that the subscribers count:
/// [`events_delivered`](Self::events_delivered), [`events_skipped`](Self::events_skipped),
/// [`closures_panicked`](Self::closures_panicked). These are never ahead of the others. Of the
/// [`events_queued`](Self::events_queued), some are delivered, some skipped, and some [dropped](Self::events_dropped);
/// the rest are still queued, or were when their stream ended.
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
/// assert_eq!((stats.subscribers, stats.events_published, stats.events_queued), (0, 1, 1));
/// assert_eq!(stats.ended.dropped, 1);
/// # Ok::<(), server_sent_events::OpenError>(())
/// ```
///
/// With the feature `serde`, these types implement `serde::Serialize`, for a page of statistics in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// Subscribers now.
    pub subscribers: usize,
    /// Channels that have a subscriber now.
    pub channels: usize,
    /// Events published, also those that reached nobody.
    pub events_published: u64,
    /// How often an event was put into a subscriber's queue; the last block of a
    /// [replaced](crate::QuotaPolicy::DisconnectOldest) subscriber and each one of a
    /// [shutdown](crate::Publisher::shutdown_with) count as one.
    pub events_queued: u64,
    /// How often an event was taken out of a queue and given to whoever reads the subscription; to a writer, when the
    /// write was no error.
    pub events_delivered: u64,
    /// How often a closure given to [`publish_with`](crate::Publisher::publish_with) had nothing for a subscriber.
    pub events_skipped: u64,
    /// How often an event was dropped to make room for others, as the [overflow](crate::Overflow) policies `DropOldest`
    /// and `LatestPerKey` do.
    pub events_dropped: u64,
    /// How many subscriptions were refused because of a limit, or during a [shutdown](crate::Publisher::shutdown).
    pub subscriptions_refused: u64,
    /// How often a closure given to [`publish_with`](crate::Publisher::publish_with) panicked, each of
    /// which cost one subscriber one event.
    pub closures_panicked: u64,
    /// How often an event of a closure given to [`publish_with`](crate::Publisher::publish_with) carried a key, or in
    /// place of the history's id one of its own. Neither is used: see [`PublishOptions`](crate::PublishOptions).
    pub unusable_fields: u64,
    /// Streams that ended, by their cause.
    pub ended: EndCounts,
    /// What the [history](crate::History) holds; nothing without one.
    pub history: HistoryStats,
    /// What the history's store has done; nothing without one.
    pub store: StoreStats,
}

/// What the store of a [history](crate::History) has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct StoreStats {
    /// Events that are accepted, and neither stored nor delivered yet.
    pub pending: usize,
    /// Events that were stored, and then delivered.
    pub events_stored: u64,
    /// Events that were delivered, but not stored, because the store had failed.
    pub events_not_stored: u64,
    /// Events that were refused because too many were pending, or because they were larger than the store allows.
    pub events_refused: u64,
    /// How often the ID of a client showed that events are lost which were delivered, and nothing else had shown it.
    /// Clients that miss these events get a gap.
    pub losses_found: u64,
    /// How often the connection to the publisher that the history follows, or to the shared store, was lost.
    pub connections_lost: u64,
    /// Events of a shared store that came twice, and were delivered once, because a publisher did not know whether they
    /// were stored, and sent them again.
    pub duplicates_dropped: u64,
}

/// What a [history](crate::History) holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HistoryStats {
    /// Events.
    pub events: usize,
    /// Bytes, as [`History::max_bytes`](crate::History::max_bytes) counts them.
    pub bytes: usize,
    /// Channels that have an event.
    pub channels: usize,
}

impl HistoryStats {
    pub(crate) fn new(events: usize, bytes: usize, channels: usize) -> Self {
        Self { events, bytes, channels }
    }
}

/// How many streams ended of each [`EndCause`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct EndCounts {
    /// [`EndCause::Closed`].
    pub closed: u64,
    /// [`EndCause::Unsubscribed`].
    pub unsubscribed: u64,
    /// [`EndCause::QueueFull`].
    pub queue_full: u64,
    /// [`EndCause::ConnectionLost`], whatever the error.
    pub connection_lost: u64,
    /// [`EndCause::WriteTimedOut`].
    pub write_timed_out: u64,
    /// [`EndCause::Dropped`].
    pub dropped: u64,
    /// [`EndCause::Disconnected`].
    pub disconnected: u64,
    /// [`EndCause::Expired`].
    pub expired: u64,
    /// [`EndCause::Replaced`].
    pub replaced: u64,
}

/// What a publisher knows of one channel now; from [`Publisher::channel_stats`](crate::Publisher::channel_stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ChannelStats {
    /// Its subscribers.
    pub subscribers: usize,
    /// Events in the queues of its subscribers, those of their other channels included.
    pub queued: usize,
    /// Events of the channel in the [history](crate::History).
    pub history_events: usize,
}

/// The running counts behind [`Stats`].
///
/// Relaxed throughout: each is a number of its own. What makes a snapshot consistent is that all but those of
/// the subscribers change under the registry's lock, where the snapshot is taken too; and an event is counted as queued
/// there before any subscriber can count it.
#[derive(Debug)]
pub(crate) struct Counters {
    warnings: Arc<RateLimitedLog>,
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
    connection_lost: AtomicU64,
    write_timed_out: AtomicU64,
    dropped: AtomicU64,
    disconnected: AtomicU64,
    expired: AtomicU64,
    replaced: AtomicU64,
    losses: AtomicU64,
}

impl Counters {
    /// Counts from 0, and logs there what an operator must know.
    pub(crate) fn new(warnings: Arc<RateLimitedLog>) -> Self {
        Self {
            warnings,
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
            connection_lost: AtomicU64::new(0),
            write_timed_out: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            disconnected: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            losses: AtomicU64::new(0),
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
        self.warnings.unusable_field();
    }

    pub(crate) fn count_ended(&self, cause: EndCause) {
        let counter = match cause {
            EndCause::Closed => &self.closed,
            EndCause::Unsubscribed => &self.unsubscribed,
            EndCause::QueueFull => &self.queue_full,
            EndCause::ConnectionLost(_) => &self.connection_lost,
            EndCause::WriteTimedOut => &self.write_timed_out,
            EndCause::Dropped => &self.dropped,
            EndCause::Disconnected => &self.disconnected,
            EndCause::Expired => &self.expired,
            EndCause::Replaced => &self.replaced,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_loss(&self) {
        self.losses.fetch_add(1, Relaxed);
    }

    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Relaxed)
    }

    pub(crate) fn snapshot(&self, subscribers: usize, channels: usize, history: HistoryStats) -> Stats {
        Stats {
            subscribers,
            channels,
            events_published: self.published.load(Relaxed),
            events_queued: self.queued.load(Relaxed),
            events_delivered: self.delivered.load(Relaxed),
            events_skipped: self.skipped.load(Relaxed),
            events_dropped: self.lost.load(Relaxed),
            subscriptions_refused: self.refused.load(Relaxed),
            closures_panicked: self.panicked.load(Relaxed),
            unusable_fields: self.unusable_fields.load(Relaxed),
            ended: EndCounts {
                closed: self.closed.load(Relaxed),
                unsubscribed: self.unsubscribed.load(Relaxed),
                queue_full: self.queue_full.load(Relaxed),
                connection_lost: self.connection_lost.load(Relaxed),
                write_timed_out: self.write_timed_out.load(Relaxed),
                dropped: self.dropped.load(Relaxed),
                disconnected: self.disconnected.load(Relaxed),
                expired: self.expired.load(Relaxed),
                replaced: self.replaced.load(Relaxed),
            },
            history,
            store: StoreStats::default(),
        }
    }
}
