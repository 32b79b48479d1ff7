//! What happens when a queue is full.

use std::time::Duration;

/// What happens when an event does not fit into a subscriber's queue any more.
///
/// Chosen for all by [`PublisherBuilder::overflow`](crate::PublisherBuilder::overflow), and for one subscriber by
/// [`SubscriptionBuilder::overflow`](crate::SubscriptionBuilder::overflow). How much fits is said by
/// [`max_queued_events`](crate::PublisherBuilder::max_queued_events) and [`max_queued_bytes`](crate::PublisherBuilder::max_queued_bytes).
///
/// | policy | the publisher | the slow subscriber | for |
/// |---|---|---|---|
/// | `Disconnect` | goes on | is ended, and resumes from what it has seen | everything that has a history |
/// | `DropOldest` | goes on | loses the oldest, and is told how many | logs, samples |
/// | `LatestPerKey` | goes on | keeps the newest of each key | dashboards |
/// | `Block` | waits | is waited for, then ended | pipelines within one program |
///
/// ```
/// use server_sent_events::{Overflow, Publisher};
///
/// let publisher = Publisher::<()>::builder().max_queued_events(2).overflow(Overflow::DropOldest).build()?;
/// let mut subscription = publisher.subscribe()?;
/// for n in 0..5 {
///     publisher.publish(n.to_string());
/// }
/// assert_eq!(subscription.next().unwrap(), "event: gap\ndata: {\"lost\":3}\n\n");
/// assert_eq!(subscription.next().unwrap(), "data: 3\n\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The stream ends at once, with [`EndCause::QueueFull`](crate::EndCause::QueueFull), and the queue is thrown away: a
    /// client that comes back goes on from what it has seen, and one event in the middle is never missing. The default.
    #[default]
    Disconnect,
    /// The oldest events go until the new one fits. Then an event of type `gap` says how many were lost, once for each
    /// run of losses: its data is `{"lost":3}`.
    DropOldest,
    /// Of events that were published with the same [key](crate::Event::key) only the newest waits. That is so whether the
    /// queue is full or not; when it is full all the same, of other keys or of events without one, the stream ends as with
    /// `Disconnect`.
    LatestPerKey,
    /// [`publish`](crate::Publisher::publish) waits for so long until every such subscriber has room, and then queues
    /// the event for all, these and others, so that all see one order. Who is still full then is ended as with
    /// `Disconnect`.
    ///
    /// Only publishers to this subscriber wait, and in their order; all else goes on. One that publishes to several may find
    /// room now here, now there, because others are quicker: who had room meanwhile then gets its event beyond the bounds, so
    /// these are exceeded by no more than one event for each thread that publishes to several. A thread that both publishes and reads the subscription would wait for itself.
    Block(Duration),
}
