//! The overflow policies of a queue.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::ParseOverflowError;

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
/// let publisher = Publisher::builder().max_queued_events(2).overflow(Overflow::DropOldest).build()?;
/// let mut subscription = publisher.subscribe()?;
/// for n in 0..5 {
///     publisher.publish(n.to_string());
/// }
/// assert_eq!(subscription.next().unwrap(), "event: gap\ndata: {\"lost\":3}\n\n");
/// assert_eq!(subscription.next().unwrap(), "data: 3\n\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// For settings files and command lines, each policy has a text form, which [`Display`](fmt::Display) writes and
/// [`FromStr`] reads: `disconnect`, `drop-oldest`, `latest-per-key`, and `block:` with a time. The time is a whole
/// number and one of the units `s`, `ms`, `us` and `ns`, without a space. All letters are lower case.
///
/// ```
/// use server_sent_events::Overflow;
/// use std::time::Duration;
///
/// assert_eq!("drop-oldest".parse(), Ok(Overflow::DropOldest));
/// assert_eq!("block:5s".parse(), Ok(Overflow::Block(Duration::from_secs(5))));
/// assert_eq!(Overflow::Block(Duration::from_millis(1_500)).to_string(), "block:1500ms");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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
    /// Of the events of one channel with the same [key](crate::Event::key) only the newest is queued, even if the queue
    /// has room.
    ///
    /// This concerns queued events only. A new subscriber does not get the current values, and a replay has every event:
    /// with [`History::latest_per_key`](crate::History::latest_per_key), both get the newest event of each key.
    ///
    /// If the queue is full of other keys or of events without a key, the stream ends as with `Disconnect`.
    LatestPerKey,
    /// [`publish`](crate::Publisher::publish) blocks until every such subscriber has room, or this timeout passes. Then
    /// it queues the event for all subscribers, so that all of them see one order.
    ///
    /// A subscriber whose queue is still full after the timeout is disconnected as with `Disconnect`. A timeout of zero
    /// (`block:0s`) does not wait, so it works as `Disconnect`.
    ///
    /// Only publishers to this subscriber wait, in the order in which they came. A thread that both publishes and reads
    /// the subscription would wait for itself.
    ///
    /// While a publisher waits for several subscribers, other publishers may use the room that one of them makes. A
    /// subscriber that had room meanwhile then gets the event beyond its limits. So the limits are exceeded by at most
    /// one event per thread that publishes to several subscribers.
    Block(Duration),
}

/// The units of the time in `block:TIME`, and how many nanoseconds each has; the longest first.
const UNITS: [(&str, u128); 4] = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];

impl fmt::Display for Overflow {
    /// Writes the text form, with the longest unit in which the time is a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnect => f.pad("disconnect"),
            Self::DropOldest => f.pad("drop-oldest"),
            Self::LatestPerKey => f.pad("latest-per-key"),
            Self::Block(time) => {
                let nanoseconds = time.as_nanos();
                let is_whole = |(_, size): &&(&str, u128)| nanoseconds.is_multiple_of(*size);
                let (unit, size) = UNITS.iter().find(is_whole).expect("BUG: a time is no whole number of nanoseconds");
                f.pad(&format!("block:{}{unit}", nanoseconds / size))
            }
        }
    }
}

impl FromStr for Overflow {
    type Err = ParseOverflowError;

    /// Reads the text form.
    ///
    /// # Errors
    ///
    /// Returns a [`ParseOverflowError`] for another text; its own text lists what is allowed.
    fn from_str(text: &str) -> Result<Self, ParseOverflowError> {
        match text {
            "disconnect" => Ok(Self::Disconnect),
            "drop-oldest" => Ok(Self::DropOldest),
            "latest-per-key" => Ok(Self::LatestPerKey),
            _ => match text.strip_prefix("block:") {
                Some(time) => match parse_time(time) {
                    Some(time) => Ok(Self::Block(time)),
                    None => Err(ParseOverflowError::InvalidTime { text: time.into() }),
                },
                None => Err(ParseOverflowError::UnknownPolicy { text: text.into() }),
            },
        }
    }
}

/// Returns the time that this text has: a whole number and a unit.
fn parse_time(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, given) = text.split_at(digits);
    let (_, size) = UNITS.iter().find(|(unit, _)| *unit == given)?;
    let nanoseconds = number.parse::<u128>().ok()?.checked_mul(*size)?;
    let seconds = (nanoseconds / 1_000_000_000).try_into().ok()?;
    Some(Duration::new(seconds, (nanoseconds % 1_000_000_000) as u32))
}
