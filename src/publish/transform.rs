//! Closures with a name, which a store can keep by that name.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use super::{Publisher, Receipt, of_this_type};
use crate::channels::Channels;
use crate::error::UnknownTransform;
use crate::event::Event;
use crate::queue::{Payload, Render, TransformCall};
use crate::registry::NewEvent;

/// A closure that makes a subscriber's event from its properties, an event and an argument.
type Transform = dyn Fn(&dyn Any, &Event, &str) -> Option<Event> + Send + Sync;

/// The transforms of one publisher, by their names.
#[derive(Clone, Default)]
pub(super) struct Transforms(HashMap<Arc<str>, Arc<Transform>>);

impl Transforms {
    pub(super) fn insert<P: 'static>(
        &mut self,
        name: Arc<str>,
        transform: impl Fn(&P, &Event, &str) -> Option<Event> + Send + Sync + 'static,
    ) {
        let transform = move |properties: &dyn Any, event: &Event, argument: &str| {
            transform(of_this_type(properties), event, argument)
        };
        self.0.insert(name, Arc::new(transform));
    }

    /// Returns the call of a transform with this event and this argument, or `None` if the name is unknown.
    pub(super) fn payload(&self, name: &str, event: Event, argument: &str) -> Option<Payload> {
        let (name, transform) = self.0.get_key_value(name)?;
        let call = TransformCall { name: Arc::clone(name), argument: argument.into(), event };
        let transform = Arc::clone(transform);
        Some(Payload::Closure(Arc::new(Render::transform(call, move |properties, call| {
            transform(properties, &call.event, &call.argument)
        }))))
    }
}

impl<P: Send + Sync + 'static> Publisher<P> {
    /// Publishes to each subscriber of these channels the event that a
    /// [transform](crate::PublisherBuilder::transform) makes from its properties, the event and the argument.
    ///
    /// It is as [`publish_with`](Self::publish_with), except that a [store](crate::store) can keep the event: by the
    /// transform's name, the event and the argument. The [key](Event::key) and the [ID](Event::id) of the given event
    /// count. Those that the transform sets are ignored.
    ///
    /// # Errors
    ///
    /// Returns an [`UnknownTransform`] if the publisher has no transform with this name. Nothing is published then.
    ///
    /// ```
    /// use server_sent_events::{Event, Publisher};
    ///
    /// struct User { name: String }
    /// let publisher = Publisher::builder_for::<User>()
    ///     .transform("not to the sender", |user: &User, event: &Event, sender: &str| {
    ///         (user.name != sender).then(|| event.clone())
    ///     })
    ///     .build()?;
    /// let mut ada = publisher.subscription(User { name: "Ada".into() }).channels("chat").open()?;
    /// let mut bob = publisher.subscription(User { name: "Bob".into() }).channels("chat").open()?;
    /// publisher.publish_through("not to the sender", "chat", "hello", "Ada")?;
    /// assert_eq!(bob.try_recv()?, "data: hello\n\n");
    /// assert!(ada.try_recv().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn publish_through<By>(
        &self,
        transform: &str,
        channels: impl Channels<By>,
        event: impl Into<Event>,
        argument: &str,
    ) -> Result<Receipt, UnknownTransform> {
        let event = event.into();
        let (own_id, key) = (event.event_id().map(Into::into), event.shared_key().cloned());
        let payload = self.core.transforms.payload(transform, event, argument);
        let payload = payload.ok_or_else(|| UnknownTransform::new(transform))?;
        Ok(self.send(channels, || NewEvent { payload, own_id, key, is_comment: false, at: None, sequence: None }))
    }
}
