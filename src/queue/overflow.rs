//! The overflow policies of a queue.

use std::time::Duration;

/// The policy for an event that does not fit into a subscriber's queue.
///
/// [`PublisherBuilder::overflow`](crate::PublisherBuilder::overflow) sets the policy of all subscribers, and
/// [`SubscriptionBuilder::overflow`](crate::SubscriptionBuilder::overflow) that of one.
/// [`max_queued_events`](crate::PublisherBuilder::max_queued_events) and
/// [`max_queued_bytes`](crate::PublisherBuilder::max_queued_bytes) set the limits of a queue.
///
/// | policy | the publisher | the slow subscriber | for |
/// |---|---|---|---|
/// | `Disconnect` | continues | is disconnected, and resumes after the last event it saw | everything that has a history |
/// | `DropOldest` | continues | loses the oldest events, and is sent how many | logs, samples |
/// | `LatestPerKey` | continues | keeps the newest event of each key | dashboards |
/// | `Block` | waits up to a timeout | gets every event, or is disconnected after the timeout | pipelines within one program |
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
    /// The stream ends at once, with [`EndCause::QueueFull`](crate::EndCause::QueueFull), and its queue is dropped. The
    /// default.
    ///
    /// A client that reconnects resumes after the last event it saw, so no event is missing in the middle.
    #[default]
    Disconnect,
    /// The oldest events are dropped until the new one fits.
    ///
    /// Then an event of type `gap` reports how many were lost, once per run of losses. Its data is `{"lost":3}`.
    DropOldest,
    /// Of the events with the same [key](crate::Event::key) only the newest is queued, even if the queue has room.
    ///
    /// If the queue is full of other keys or of events without a key, the stream ends as with `Disconnect`.
    LatestPerKey,
    /// [`publish`](crate::Publisher::publish) blocks until every such subscriber has room, or this timeout passes. Then
    /// it queues the event for all subscribers, so that all of them see one order.
    ///
    /// A subscriber whose queue is still full after the timeout is disconnected as with `Disconnect`.
    ///
    /// Only publishers to this subscriber wait, in the order in which they came. A thread that both publishes and reads
    /// the subscription would wait for itself.
    ///
    /// While a publisher waits for several subscribers, other publishers may use the room that one of them makes. A
    /// subscriber that had room meanwhile then gets the event beyond its limits. So the limits are exceeded by at most
    /// one event per thread that publishes to several subscribers.
    Block(Duration),
}
