//! Lets the adapter for tiny_http refuse a request.

use std::sync::{Arc, Weak};

use super::Publisher;
use crate::deliver::{FrameSource, SourceSettings};
use crate::event::Frame;
use crate::history::Resumption;
use crate::queue::{Payload, Properties, Subscriber, SubscriberId};
use crate::stats::EndCause;
use crate::subscription::Subscription;
use crate::sync::channel::bounded;

impl<P: Send + Sync + 'static> Publisher<P> {
    /// Returns whether streams can begin whose first write may block.
    pub(crate) fn can_begin_streams(&self) -> bool {
        self.core.pool.can_begin_streams()
    }

    /// Creates a subscription that nothing can be published to, and that ends after this frame.
    pub(crate) fn detached(&self, frame: Frame) -> Subscription {
        let settings = self.core.settings.clone();
        let (bell, rings) = bounded(1);
        let id = SubscriberId(0);
        let subscriber = Subscriber::new(id, Properties::new(()), None, settings.queue, bell);
        drop(subscriber.close(EndCause::Closed));
        let nobody = Weak::new();
        let counters = Arc::clone(&self.core.counters);
        let settings = SourceSettings { heartbeat: None, lifetime: None, min_interval: None, ..settings.source };
        let mut source = FrameSource::new(subscriber, rings, nobody, counters, settings);
        source.begin([Payload::Frame(frame)].into(), 0, None);
        Subscription::new(source, Arc::clone(&self.core.pool), Resumption::NotRequested, None)
    }
}
