//! How a publisher is built from its settings.

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use super::super::core::Followed;
use super::super::event_store::{EventStore, Shared};
use super::super::hooks::HooksOf;
use super::super::shared::Sharing;
use super::super::stored::{self, Restoring};
use super::super::{Core, Handles, Publisher};
use super::PublisherBuilder;
use crate::deliver::WriterPool;
use crate::error::{BuildError, InvalidSetting};
use crate::history::{EventLog, History};
use crate::log::RateLimitedLog;
use crate::queue::Payload;
use crate::registry::{Hooks, Limits, Registry};
use crate::stats::Counters;
use crate::store::KeptIn;

impl<P: Send + Sync + 'static> PublisherBuilder<P> {
    /// Builds the publisher with these settings.
    ///
    /// If the history has a [store](crate::store) of one process, blocks while its events are read.
    ///
    /// # Errors
    ///
    /// Returns a [`BuildError`] that names a setting that is not allowed, or why the store cannot be used.
    pub fn build(mut self) -> Result<Publisher<P>, BuildError> {
        self.check()?;
        let warnings = Arc::new(RateLimitedLog::new());
        let counters = Arc::new(Counters::new(Arc::clone(&warnings)));
        let clock = self.settings.source.clock;
        let open_store = self.history.as_mut().and_then(History::take_store);
        let upstream = self.history.as_mut().and_then(History::take_upstream);
        let bytes_limit = self.history.as_ref().map_or(0, History::bytes_limit);
        let (log, store) = match (self.history, &open_store) {
            (Some(history), Some(KeptIn::Own(open))) => {
                let history = history.on(clock);
                let Restoring { log, store } = stored::restore(history, &**open, &self.transforms, &warnings)?;
                (Some(log), Some((store, open.window_limits())))
            }
            (history, _) => (history.map(|history| EventLog::new(history.on(clock))), None),
        };
        let sequence = log.as_ref().map_or(0, EventLog::sequence);
        let Self { on_open, on_end, .. } = self;
        let has_hooks = on_open.is_some() || on_end.is_some();
        let hooks = has_hooks.then(|| Arc::new(HooksOf { publisher: OnceLock::new(), on_open, on_end }));
        let to_call = hooks.clone().map(|hooks| hooks as Arc<dyn Hooks>);
        let registry = Registry::new(self.limits, log, Arc::clone(&counters), to_call, Arc::clone(&warnings));
        let registry = Arc::new(registry);
        let retained = self.max_retained_bytes;
        let pool = WriterPool::new(self.writer_threads, self.writer_stack_size, retained, Arc::clone(&warnings), clock);
        let store: Option<Box<dyn EventStore>> = match (store, &open_store) {
            (Some((store, limits)), _) => {
                Some(Box::new(stored::start(store, sequence, limits, &registry, &pool, &warnings)?))
            }
            (None, Some(KeptIn::Shared(shared))) => {
                let capacity = EventLog::<Payload>::most_events(bytes_limit);
                let sink = Sharing::new(&registry, &pool, &self.transforms, &warnings, capacity);
                registry.follow(Vec::new());
                let shared = shared.start(Box::new(sink)).map_err(|reason| BuildError::SharedStore { reason })?;
                Some(Box::new(Shared(shared)))
            }
            _ => None,
        };
        let upstream = upstream.map(|upstream| Followed::start(&*upstream, &registry, &pool)).transpose()?;
        let (settings, transforms) = (self.settings, self.transforms);
        let core = Arc::new(Core { registry, counters, pool, settings, transforms, warnings, store, upstream });
        let weak = Arc::downgrade(&core);
        let core = Arc::new(Handles(core));
        if let Some(hooks) = hooks {
            assert!(hooks.publisher.set((Arc::downgrade(&core), weak)).is_ok(), "BUG: set once");
        }
        Ok(Publisher { core, properties: PhantomData })
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        let Limits { subscribers, channels, channel_name_len, per_channel, per_quota_key, quota_policy: _ } =
            self.limits;
        InvalidSetting::check("max_subscribers", subscribers == 0)?;
        InvalidSetting::check("max_channels_per_subscriber", channels == 0)?;
        InvalidSetting::check("max_channel_name_len", channel_name_len == 0)?;
        InvalidSetting::check("max_subscribers_per_channel", per_channel == 0)?;
        InvalidSetting::check("max_subscribers_per_quota_key", per_quota_key == 0)?;
        InvalidSetting::check("max_retained_bytes", self.max_retained_bytes == 0)?;
        InvalidSetting::check("max_writer_threads", self.writer_threads == 0)?;
        InvalidSetting::check("writer_stack_size", self.writer_stack_size == 0)?;
        self.settings.check(self.history.as_ref().is_some_and(History::has_thread))?;
        self.history.as_ref().map_or(Ok(()), History::check)
    }
}
