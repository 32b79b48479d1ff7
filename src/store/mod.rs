//! Where a history is kept beyond the process.
//!
//! A store is given to `History::store`. A thread of the publisher stores each event, and then
//! delivers it, so that a client never sees an event that a restart could forget. At the next start the history is read
//! from the store, and clients resume as if the program had never ended.
//!
//! ```
//! # #[cfg(feature = "sqlite")] {
//! use server_sent_events::{History, Publisher, Resumption, store::Sqlite};
//! use std::time::Duration;
//!
//! # let folder = std::env::temp_dir().join(format!("sse_doc_{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let file = folder.join("events.db");
//! let build = || Publisher::builder().history(History::new().store(Sqlite::at(&file))).build();
//! let publisher = build()?;
//! let receipt = publisher.publish_confirmed("chat", "seen", Duration::from_secs(2))?;
//! publisher.publish_to("chat", "missed");
//! drop(publisher); // the program ends, and starts again
//!
//! let publisher = build()?;
//! let client = publisher.subscription(()).channels("chat").last_event_id(receipt.id());
//! let mut subscription = client.open()?;
//! # subscription.next(); // the start id
//! assert_eq!(subscription.resumption(), Resumption::Complete);
//! assert!(subscription.next().unwrap().starts_with("data: missed\n"));
//! # drop((subscription, publisher));
//! # std::fs::remove_dir_all(folder)?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With `Redis`, several processes share one history. An event is delivered once it comes back from there. See there for
//! what differs.
//!
//! What differs with a store of one process:
//!
//! * [`publish`](crate::Publisher::publish) does not wait. It refuses an event if too many wait to be stored
//!   ([`Receipt::is_refused`](crate::Receipt::is_refused)). Its receipt has no ID yet.
//! * [`publish_confirmed`](crate::Publisher::publish_confirmed) waits until the event is stored and delivered.
//! * A closure of [`publish_with`](crate::Publisher::publish_with) ends with the program: afterwards, clients of its
//!   channels get a `gap` event. [`publish_through`](crate::Publisher::publish_through) can be stored.
//! * [`Overflow::Block`](crate::Overflow::Block) is refused: one subscriber would stop the store.
//! * An event that is larger than the store allows is refused.
//! * If the store fails, events are delivered without it, [`Publisher::store_state`](crate::Publisher::store_state) is
//!   [`StoreState::Broken`], and the next start reports a gap.

#[cfg(test)]
pub(crate) mod fake;
mod pipeline;
#[cfg(feature = "redis")]
mod redis;
// Only Redis is shared.
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
pub(crate) mod shared;
#[cfg(feature = "sqlite")]
mod sqlite;
mod state;
// Only a client follows.
#[cfg_attr(not(feature = "client"), allow(dead_code))]
mod upstream;

use std::borrow::Cow;
use std::collections::BTreeMap;
#[cfg(any(feature = "sqlite", feature = "redis", test))]
use std::fmt;
use std::sync::Arc;

use crate::error::{InvalidSetting, StoreError};

#[cfg(feature = "redis")]
pub use self::redis::Redis;
pub(crate) use pipeline::{Confirmed, NotAccepted, Pipeline, Sink, WindowLimits};
pub(crate) use shared::{Committed, OnCommit, OpenShared, SharedLog, SharedSink, SharedStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{Sqlite, SyncPolicy};
pub use state::StoreState;
#[cfg(any(feature = "client", test))]
pub use upstream::HistoryUpstream;
pub(crate) use upstream::{Connection, FollowSink, StopFollowing, UnexpectedLine, Upstream};

/// A store for a [history](crate::History); made from the settings of one.
#[cfg(any(feature = "sqlite", feature = "redis", test))]
pub struct HistoryStore(pub(crate) KeptIn);

/// Where a history is kept.
#[derive(Clone)]
pub(crate) enum KeptIn {
    /// A store that one publisher uses.
    #[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
    Own(Arc<dyn OpenStore>),
    /// A store that several publishers share.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    Shared(Arc<dyn OpenShared>),
}

impl KeptIn {
    pub(crate) fn check(&self) -> Result<(), InvalidSetting> {
        match self {
            Self::Own(store) => store.check(),
            Self::Shared(store) => store.check(),
        }
    }
}

#[cfg(any(feature = "sqlite", feature = "redis", test))]
impl fmt::Debug for HistoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryStore").finish_non_exhaustive()
    }
}

/// A log of events that outlives the process.
///
/// The store thread alone uses it, after the publisher was built.
pub(crate) trait Store: Send {
    /// Opens the store, begins an era, and returns the state of the log, without its events.
    fn attach(&mut self) -> Result<Attached, StoreError>;

    /// Reads the events that the store holds, in order.
    fn read(&mut self, event: &mut dyn FnMut(Record<'static>)) -> Result<(), StoreError>;

    /// Stores these events, which continue the sequence, and deletes what the history has evicted. Returns once the
    /// events would survive the end of the process.
    fn append(&mut self, records: &[Record<'_>], trim: Trim) -> Result<(), StoreError>;

    /// Notes that events up to this sequence are delivered that the store does not hold, so that the next start reports
    /// their loss.
    fn note_unstored(&mut self, sequence: u64);

    /// Makes everything durable, so that the next start finds nothing missing, unless events are appended later.
    fn settle(&mut self, trim: Trim) -> Result<(), StoreError>;

    /// Sets what is called, on any thread, if the store fails while it is not in use: at once if it has.
    fn report_failure(&mut self, report: ReportFailure);

    /// Settles the store, and closes it.
    fn close(&mut self, trim: Trim) -> Result<(), StoreError>;
}

/// Reports that a store has failed.
pub(crate) type ReportFailure = Box<dyn FnOnce(StoreError) + Send>;

/// The settings of a store, from which it is opened.
pub(crate) trait OpenStore: Send + Sync {
    /// Opens the store of a history with this limit of bytes.
    fn open(&self, max_bytes: usize) -> Result<Box<dyn Store>, StoreError>;

    /// Returns the limits of events that are accepted and not stored yet.
    fn window_limits(&self) -> WindowLimits;

    /// Checks the settings.
    fn check(&self) -> Result<(), InvalidSetting>;
}

/// The state of a log when its store was opened.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) lineage: String,
    /// The number and the first sequence of each era, the oldest first.
    pub(crate) eras: Vec<(u64, u64)>,
    /// The newest sequence that was assigned.
    pub(crate) sequence: u64,
    /// The sequence before which events are missing that the store should hold; 0 if none are.
    pub(crate) last_loss: u64,
    /// The highest sequence that each channel has evicted.
    pub(crate) floors: Vec<(Arc<str>, u64)>,
    /// The floor of every other channel.
    pub(crate) horizon: u64,
}

/// One event in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) sequence: u64,
    /// When it was published, in milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) channels: Cow<'a, [Arc<str>]>,
    /// The ID that the application gave it.
    pub(crate) own_id: Option<Cow<'a, str>>,
    /// `false` if the history has evicted an older event with the same ID, so that a client with this ID gets a gap.
    pub(crate) finds_own_id: bool,
    pub(crate) key: Option<Cow<'a, str>>,
    pub(crate) content: Content<'a>,
}

/// What an event consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// The lines of its fields, without the ID.
    Fields(Cow<'a, str>),
    /// A transform's name and argument, and the fields of the event that it is given.
    Transform { name: Cow<'a, str>, argument: Cow<'a, str>, fields: Cow<'a, str> },
    /// A closure, which ends with the process.
    Closure,
}

/// What a history has evicted, or found missing, since the store was last written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trim {
    /// The sequences of the evicted events.
    pub(crate) evicted: Vec<u64>,
    /// The floors that have changed; `None` for a channel whose floor is the horizon.
    pub(crate) floors: BTreeMap<Arc<str>, Option<u64>>,
    pub(crate) horizon: u64,
    /// The events whose own IDs no longer show a client's position.
    pub(crate) ambiguous: Vec<u64>,
    /// The sequence before which events turned out to be missing, which clients have seen; 0 if there is no news.
    pub(crate) last_loss: u64,
}
