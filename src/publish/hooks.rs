//! The hooks of a publisher: their arguments, and their calls.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock, Weak};

use super::{Core, Handles, Publisher, of_this_type};
use crate::queue::{Properties, call_caught};
use crate::registry::Hooks;
use crate::stats::EndCause;

/// The argument of the hook [`PublisherBuilder::on_open`](crate::PublisherBuilder::on_open): an opened subscription.
#[non_exhaustive]
pub struct Opened<'a, P> {
    /// The publisher.
    pub publisher: &'a Publisher<P>,
    /// The subscriber's properties.
    pub properties: &'a P,
    /// The names of its channels.
    pub channels: &'a [&'a str],
}

/// The argument of the hook [`PublisherBuilder::on_end`](crate::PublisherBuilder::on_end): a subscriber that has ended.
#[non_exhaustive]
pub struct Ended<'a, P> {
    /// The publisher.
    pub publisher: &'a Publisher<P>,
    /// The subscriber's properties.
    pub properties: &'a P,
    /// The names of the channels that it was in.
    pub channels: &'a [&'a str],
    /// Why its stream ended.
    pub cause: EndCause,
}

impl<P> fmt::Debug for Opened<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("channels", &self.channels).finish_non_exhaustive()
    }
}

impl<P> fmt::Debug for Ended<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended").field("channels", &self.channels).field("cause", &self.cause).finish_non_exhaustive()
    }
}

/// The application's hooks.
pub(super) struct HooksOf<P> {
    /// Set once the publisher is built.
    pub(super) publisher: OnceLock<(Weak<Handles>, Weak<Core>)>,
    pub(super) on_open: Option<Box<OnOpen<P>>>,
    pub(super) on_end: Option<Box<OnEnd<P>>>,
}

pub(super) type OnOpen<P> = dyn Fn(Opened<'_, P>) + Send + Sync;
pub(super) type OnEnd<P> = dyn Fn(Ended<'_, P>) + Send + Sync;

impl<P: Send + Sync + 'static> HooksOf<P> {
    /// Calls a hook with its arguments. Catches a panic, which the panic hook has reported: the caller may be another
    /// thread's `publish`, or a writer thread.
    fn call(&self, properties: &Properties, channels: &[Arc<str>], hook: impl FnOnce(&Publisher<P>, &P, &[&str])) {
        let Some((handles, core)) = self.publisher.get() else { return };
        // Dropping the last handle ends its subscribers. The hook then gets a temporary handle.
        let handles = handles.upgrade().or_else(|| Some(Arc::new(Handles(core.upgrade()?))));
        let Some(core) = handles else { return };
        let publisher = Publisher { core, properties: PhantomData };
        let names: Vec<&str> = channels.iter().map(|name| &**name).collect();
        call_caught(|| hook(&publisher, of_this_type(properties.as_any()), &names));
    }
}

impl<P: Send + Sync + 'static> Hooks for HooksOf<P> {
    fn guard(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        Some(self.publisher.get()?.1.upgrade()?)
    }

    fn opened(&self, properties: &Properties, channels: &[Arc<str>]) {
        if let Some(hook) = &self.on_open {
            self.call(properties, channels, |publisher, properties, channels| {
                hook(Opened { publisher, properties, channels });
            });
        }
    }

    fn ended(&self, properties: &Properties, channels: &[Arc<str>], cause: EndCause) {
        if let Some(hook) = &self.on_end {
            self.call(properties, channels, |publisher, properties, channels| {
                hook(Ended { publisher, properties, channels, cause });
            });
        }
    }
}
