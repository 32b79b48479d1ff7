//! The shutdown of a publisher.

use std::time::Duration;

use super::Publisher;
use super::stored::far_deadline;
use crate::event::Event;
use crate::queue::SubscriberId;
use crate::spread;
use crate::sync::MonotonicClock;

impl<P: Send + Sync + 'static> Publisher<P> {
    /// Refuses new subscriptions, delivers queued events, and ends every stream. Returns how many it had to disconnect.
    ///
    /// With a [store](crate::store), it first waits until the published events are stored; if it is a file, on the disk.
    ///
    /// Blocks until every subscription is dropped and every stream in the background is written, for at most `grace`.
    /// Then it disconnects the rest. No farewell is sent, and each client gets a reconnection delay of its own between
    /// 1 s and 11 s: the settings of [`Shutdown::new`](crate::Shutdown::new). Other settings are given to
    /// [`shutdown_with`](Self::shutdown_with).
    ///
    /// Do not call this from a hook, from a publishing closure, or from a thread that reads a subscription: it would
    /// wait for itself.
    pub fn shutdown(&self, grace: Duration) -> usize {
        self.shutdown_with(Shutdown::new(grace))
    }

    /// Shuts down as [`shutdown`](Self::shutdown) does, with a farewell or other reconnection delays.
    ///
    /// Each client is sent its queued events, the farewell, and a `retry:` field of its own, so that clients do not all
    /// reconnect at once. Then its stream ends. A stream in the background has ended once all of that is written, any
    /// other once its subscription is dropped.
    ///
    /// Later subscriptions are refused with [`OpenError::ShuttingDown`](crate::OpenError::ShuttingDown). The adapters
    /// respond to them so that a browser reconnects later. Events can still be published, and reach no subscriber.
    ///
    /// ```
    /// use server_sent_events::{Event, Publisher, Shutdown};
    /// use std::time::Duration;
    ///
    /// let publisher = Publisher::new();
    /// let mut subscription = publisher.subscribe()?;
    /// let reader = std::thread::spawn(move || subscription.by_ref().collect::<Vec<_>>());
    ///
    /// let farewell = Event::new("a new version starts soon").event("restart")?;
    /// let disconnected = publisher.shutdown_with(Shutdown::new(Duration::from_secs(10)).farewell(farewell));
    /// assert_eq!(disconnected, 0);
    /// let frames = reader.join().unwrap();
    /// assert_eq!(frames[0], "event: restart\ndata: a new version starts soon\n\n");
    /// assert!(frames[1].starts_with("retry: "));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_with(&self, shutdown: Shutdown) -> usize {
        let Shutdown { grace, farewell, retry, spread: retry_spread } = shutdown;
        let start = spread::random();
        let retry = |id: SubscriberId| {
            let share = spread::even_share(start, id.0);
            let longest = Duration::from_millis(i32::MAX as u64);
            let retry = retry.saturating_add(retry_spread.min(longest).mul_f64(share)).min(longest);
            Event::retry_alone(retry).encode()
        };
        let farewell = farewell.map(|event| event.encode());
        let last = |id| farewell.clone().into_iter().chain([retry(id)]).collect();
        let until = far_deadline(MonotonicClock::now(), grace);
        if let Some(store) = &self.core.store {
            store.settle(until);
        }
        self.core.registry.shut_down(last).finish();
        self.core.registry.wait_until_empty(until)
    }
}

/// The settings of a [shutdown](crate::Publisher::shutdown_with).
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is given to `shutdown_with`"]
pub struct Shutdown {
    grace: Duration,
    farewell: Option<Event>,
    retry: Duration,
    spread: Duration,
}

impl Shutdown {
    /// Creates a shutdown that waits up to `grace` for the streams to end. It sends no farewell, and clients reconnect
    /// between 1 s and 11 s later.
    pub fn new(grace: Duration) -> Self {
        Self { grace, farewell: None, retry: Duration::from_secs(1), spread: Duration::from_secs(10) }
    }

    /// Sets the last event of every subscriber. Defaults to none.
    pub fn farewell(mut self, event: impl Into<Event>) -> Self {
        self.farewell = Some(event.into());
        self
    }

    /// Sets the earliest and the latest reconnection time. Defaults to 1 s and 11 s.
    ///
    /// Each client gets a `retry` time of its own between the two, so that they do not all reconnect at once. If `max`
    /// is less than `min`, all get `min`. No time exceeds 2,147,483,647 ms, about 24 days.
    pub fn retry_between(mut self, min: Duration, max: Duration) -> Self {
        (self.retry, self.spread) = (min, max.saturating_sub(min));
        self
    }
}
