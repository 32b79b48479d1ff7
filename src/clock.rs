//! The time of a publisher: the system's, or one that a test advances.

use std::time::Instant;
#[cfg(feature = "test-util")]
use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use crate::sync::MonotonicClock;

/// The time of a publisher's heartbeats, lifetimes and write timeouts.
///
/// Without the feature `test-util` it is the system's, and has no size.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    #[cfg(feature = "test-util")]
    test: Option<TestClock>,
}

impl Clock {
    pub(crate) fn now(self) -> Instant {
        #[cfg(feature = "test-util")]
        if let Some(test) = self.test {
            return MonotonicClock::now() + test.advanced();
        }
        MonotonicClock::now()
    }

    /// Returns the system's time until which to wait for a time of this clock.
    pub(crate) fn wait_until(self, time: Instant) -> Instant {
        #[cfg(feature = "test-util")]
        if let Some(test) = self.test {
            // The clock can be advanced at any moment, so the time is looked at again soon.
            let soon = MonotonicClock::now() + TestClock::LOOK;
            return time.checked_sub(test.advanced()).map_or(soon, |time| time.min(soon));
        }
        time
    }

    /// Returns whether a test can advance the clock.
    #[cfg(feature = "test-util")]
    pub(crate) fn is_virtual(self) -> bool {
        self.test.is_some()
    }
}

/// A clock that a test advances, for heartbeats, lifetimes, write timeouts and the ages of a history.
///
/// Its time runs as the system's does. [`advance`](Self::advance) lets more time pass at once. Copies share the time.
///
/// ```
/// use server_sent_events::Publisher;
/// use server_sent_events::test_util::{TestClient, TestClock};
/// use std::time::Duration;
///
/// let clock = TestClock::new();
/// let publisher = Publisher::builder().clock(clock).build()?;
/// let mut client = TestClient::new(publisher.subscribe()?);
/// client.assert_no_frame();
/// clock.advance(Duration::from_secs(15));
/// assert_eq!(client.next_frame(), ":\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// The time is never freed, so that a clock can be copied. It takes 8 bytes of a test.
#[cfg(feature = "test-util")]
#[derive(Clone, Copy, Debug)]
pub struct TestClock {
    nanoseconds: &'static AtomicU64,
}

#[cfg(feature = "test-util")]
impl TestClock {
    /// The longest wait for a time that a test can reach at any moment.
    pub(crate) const LOOK: Duration = Duration::from_millis(1);

    /// Creates a clock with the system's time.
    #[allow(clippy::new_without_default)] // each clock has a time of its own
    pub fn new() -> Self {
        Self { nanoseconds: Box::leak(Box::default()) }
    }

    /// Lets this time pass at once. Does not wait for what is due then.
    ///
    /// # Panics
    ///
    /// Panics if the clock is advanced by more than 584 years in all.
    pub fn advance(&self, time: Duration) {
        let add = |advanced: u64| u64::try_from(time.as_nanos()).ok()?.checked_add(advanced);
        let advanced = self.nanoseconds.fetch_update(SeqCst, SeqCst, add);
        assert!(advanced.is_ok(), "a test clock cannot be advanced by more than 584 years");
    }

    fn advanced(self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(SeqCst))
    }

    pub(crate) fn into_clock(self) -> Clock {
        Clock { test: Some(self) }
    }
}
