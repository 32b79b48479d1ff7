//! What happens when a queue is full.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::ParseOverflowError;

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
/// [`FromStr`] reads: `disconnect`, `drop-oldest`, `latest-per-key`, and `block:` with a time in `s`, `ms`, `us` or `ns`.
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
