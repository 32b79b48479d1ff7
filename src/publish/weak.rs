//! A handle that does not keep the publisher alive.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Weak};

use super::{Handles, Publisher};

impl<P: Send + Sync + 'static> Publisher<P> {
    /// Returns a handle that does not keep the publisher alive, for use in properties and closures, which the publisher
    /// holds itself.
    ///
    /// ```
    /// # use server_sent_events::Publisher;
    /// let publisher = Publisher::new();
    /// let weak = publisher.downgrade();
    /// assert!(weak.upgrade().is_some());
    /// drop(publisher);
    /// assert!(weak.upgrade().is_none());
    /// ```
    pub fn downgrade(&self) -> WeakPublisher<P> {
        WeakPublisher { core: Arc::downgrade(&self.core), properties: PhantomData }
    }
}

/// A handle to a [`Publisher`] that does not keep it alive; from [`Publisher::downgrade`].
pub struct WeakPublisher<P = ()> {
    core: Weak<Handles>,
    properties: PhantomData<fn(P) -> P>,
}

impl<P> WeakPublisher<P> {
    /// Returns the publisher, or `None` if its last handle has been dropped.
    pub fn upgrade(&self) -> Option<Publisher<P>> {
        self.core.upgrade().map(|core| Publisher { core, properties: PhantomData })
    }
}

impl<P> Clone for WeakPublisher<P> {
    fn clone(&self) -> Self {
        Self { core: Weak::clone(&self.core), properties: PhantomData }
    }
}

impl<P> fmt::Debug for WeakPublisher<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakPublisher").finish_non_exhaustive()
    }
}
