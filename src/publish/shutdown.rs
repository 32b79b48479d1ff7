//! The orderly end of a publisher.

use std::time::{Duration, Instant};

use super::Publisher;
use crate::event::Event;
use crate::queue::SubscriberId;
use crate::spread;

impl<P: Send + Sync + 'static> Publisher<P> {
    /// Lets nobody in any more, says goodbye, and ends every stream after what is queued for it; blocks until all
    /// subscriptions are dropped and those handed over are written, but for `grace` only. Returns how many were cut off
    /// then.
    ///
    /// Not to be called where it would wait for itself: in a hook, a closure, or on the thread that reads a
    /// subscription.
    ///
    /// As [`shutdown_with`](Self::shutdown_with) with [`Shutdown::new(grace)`](crate::Shutdown::new).
    pub fn shutdown(&self, grace: Duration) -> usize {
        self.shutdown_with(Shutdown::new(grace))
    }

    /// [`shutdown`](Self::shutdown) with a farewell, or other times after which clients come back.
    ///
    /// Each client is sent what is queued for it, the farewell, and a `retry:` of its own, so that they do not all come
    /// back in the same instant. Then its stream ends: one that is handed over when all of that is written, any other
    /// when its subscription is dropped. Who subscribes meanwhile or later is refused with
    /// [`OpenError::ShuttingDown`](crate::OpenError::ShuttingDown), which the adapters answer so that a browser comes
    /// back. Publishing goes on, and reaches nobody.
    ///
    /// ```
    /// use server_sent_events::{Event, Publisher, Shutdown};
    /// use std::time::Duration;
    ///
    /// let publisher = Publisher::new();
    /// let mut subscription = publisher.subscribe()?;
    /// let reader = std::thread::spawn(move || subscription.by_ref().collect::<Vec<_>>());
    ///
    /// let farewell = Event::new("a new version comes").event("restart")?;
    /// let cut = publisher.shutdown_with(Shutdown::new(Duration::from_secs(10)).farewell(farewell));
    /// assert_eq!(cut, 0);
    /// let frames = reader.join().unwrap();
    /// assert_eq!(frames[0], "event: restart\ndata: a new version comes\n\n");
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
        let began = Instant::now();
        self.core.registry.shut_down(last).finish();
        let until = began.checked_add(grace).unwrap_or(began + Duration::from_secs(365 * 86_400));
        self.core.registry.wait_until_empty(until)
    }
}

/// How a publisher [shuts down](crate::Publisher::shutdown_with).
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is given to `shutdown_with`"]
pub struct Shutdown {
    grace: Duration,
    farewell: Option<Event>,
    retry: Duration,
    spread: Duration,
}

impl Shutdown {
    /// Waits up to `grace` until the streams have ended. Sends no farewell. Clients reconnect between 1 s and 11 s
    /// later.
    pub fn new(grace: Duration) -> Self {
        Self { grace, farewell: None, retry: Duration::from_secs(1), spread: Duration::from_secs(10) }
    }

    /// What every subscriber gets last. Defaults to nothing.
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
