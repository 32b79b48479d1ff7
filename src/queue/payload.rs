//! The payload of queues and the history: an encoded frame, or a closure that renders one.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::event::{self, Event, Frame, FrameId};
use crate::stats::Counters;

/// The properties of one subscriber, without their type, which only the publisher knows.
#[derive(Clone)]
pub(crate) struct Properties(Option<Arc<dyn Any + Send + Sync>>);

impl Properties {
    pub(crate) fn new(properties: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(properties)))
    }

    pub(crate) fn as_any(&self) -> &dyn Any {
        &**self.0.as_ref().expect("BUG: properties are taken out only to be dropped")
    }

    pub(crate) fn downcast<P: Any + Send + Sync>(&self) -> Arc<P> {
        let properties = self.0.clone().expect("BUG: properties are taken out only to be dropped");
        properties.downcast().expect("BUG: properties of another type")
    }
}

impl Drop for Properties {
    /// The last reference may be dropped by a server's thread, or by another thread's `publish`.
    fn drop(&mut self) {
        drop_caught(self.0.take());
    }
}

/// Calls application code, and catches a panic in it, which the panic hook has reported. So the current thread survives.
pub(crate) fn call_caught(call: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
        drop_caught(payload);
    }
}

/// Drops a value of the application's, and catches a panic in its `Drop`, so that the current thread survives.
pub(crate) fn drop_caught<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // Dropping the panic's payload may panic too, and so on.
        std::mem::forget(payload);
    }
}

/// An entry of a queue or the history. Cloning it copies no text.
#[derive(Clone)]
pub(crate) enum Payload {
    Frame(Frame),
    Closure(Arc<Render>),
}

impl Payload {
    /// Returns whether this is a closure without a name, which only this process can call.
    pub(crate) fn is_nameless(&self) -> bool {
        matches!(self, Self::Closure(render) if render.transform_call().is_none())
    }

    /// Gives up this reference. If it is the last one to a closure, whose `Drop` is application code, returns it.
    pub(crate) fn release(self) -> Option<Self> {
        match self {
            // A frame is text, so it may be dropped anywhere.
            Self::Frame(_) => None,
            Self::Closure(render) => Arc::into_inner(render).map(|render| Self::Closure(Arc::new(render))),
        }
    }

    /// Sets the event's ID and its sequence in the history. Both are known only under the ordering lock.
    pub(crate) fn seal(&mut self, id: Option<&str>, sequence: u64) {
        match self {
            Self::Frame(frame) => frame.seal(id, sequence),
            Self::Closure(render) => {
                let render = Arc::get_mut(render).expect("BUG: a closure was shared before it was sealed");
                render.id = id.map(str::to_owned);
                render.sequence = sequence;
            }
        }
    }

    /// Returns which large frame this is, if it is one.
    pub(crate) fn large_frame(&self) -> Option<FrameId> {
        if let Self::Frame(frame) = self { frame.is_large().then(|| frame.frame_id()) } else { None }
    }

    /// Returns the event's sequence in the history; 0 if it has none.
    pub(crate) fn sequence(&self) -> u64 {
        match self {
            Self::Frame(frame) => frame.sequence(),
            Self::Closure(render) => render.sequence,
        }
    }

    /// Returns the bytes that count towards the limits.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Closure(render) => render.size,
        }
    }

    /// Returns the frame for a subscriber with these properties, or `None` if the closure skips the subscriber.
    pub(crate) fn render(self, properties: &Properties, counters: &Counters) -> Option<Frame> {
        match self {
            Self::Frame(frame) => Some(frame),
            Self::Closure(render) => render.frame(properties, counters),
        }
    }
}

/// The closure given to `publish_with`, without the properties' type.
type Closure = dyn Fn(&dyn Any) -> Option<Event> + Send + Sync;

/// The arguments of a transform, which a store can keep.
pub(crate) struct TransformCall {
    pub(crate) name: Arc<str>,
    pub(crate) argument: Box<str>,
    pub(crate) event: Event,
}

/// An event that is rendered per subscriber, on the thread that takes it out of the queue.
pub(crate) struct Render {
    /// `Some` until it is dropped.
    closure: Option<Box<Closure>>,
    /// The call that the closure makes, if it is one of a transform.
    transform: Option<Arc<TransformCall>>,
    size: usize,
    /// The event's ID: the one it was published with, or the history's.
    id: Option<String>,
    /// Its sequence in the history; 0 if it has none.
    sequence: u64,
    /// `true` if it was published with a key.
    has_key: bool,
}

impl Render {
    /// Creates an event to render. `id` applies if no history assigns another.
    pub(crate) fn new<F>(closure: F, id: Option<String>, has_key: bool) -> Self
    where
        F: Fn(&dyn Any) -> Option<Event> + Send + Sync + 'static,
    {
        // Memory that the closure's captures own is unknown; the limit by number bounds those events.
        let size = size_of::<Self>() + size_of::<F>();
        Self { closure: Some(Box::new(closure)), transform: None, size, id, sequence: 0, has_key }
    }

    /// Creates an event that a transform makes.
    pub(crate) fn transform<F>(call: TransformCall, transform: F) -> Self
    where
        F: Fn(&dyn Any, &TransformCall) -> Option<Event> + Send + Sync + 'static,
    {
        let call = Arc::new(call);
        let text = call.argument.len() + call.event.encode_unsealed().len();
        let (id, has_key) = (call.event.event_id().map(str::to_owned), call.event.shared_key().is_some());
        let shared = Arc::clone(&call);
        let mut render = Self::new(move |properties| transform(properties, &shared), id, has_key);
        render.size += text;
        render.transform = Some(call);
        render
    }

    /// Returns the transform's call that the event consists of, if it is one.
    pub(crate) fn transform_call(&self) -> Option<&TransformCall> {
        self.transform.as_deref()
    }

    /// Renders the event for one subscriber. If the closure panics, the subscriber gets a `gap` event instead.
    fn frame(&self, properties: &Properties, counters: &Counters) -> Option<Frame> {
        let closure = self.closure.as_deref().expect("BUG: a closure is taken out only to be dropped");
        // Unwind safety: a closure that panics can leave only its own captures inconsistent. It accepts that by being
        // `Sync`, and the call borrows nothing else mutably.
        let event = match catch_unwind(AssertUnwindSafe(|| closure(properties.as_any()))) {
            Ok(event) => event?,
            Err(payload) => {
                counters.count_panicked();
                drop_caught(payload);
                event::gap_in_place(self.id.as_deref())
            }
        };
        // The history and the queues took the event before the closure rendered it, so its ID and key come too late.
        let loses_id = self.id.is_some() && event.event_id().is_some_and(|id| Some(id) != self.id.as_deref());
        let loses_key = !self.has_key && event.shared_key().is_some();
        if loses_id || loses_key {
            counters.count_unusable_field();
        }
        let id = self.id.as_deref().or(event.event_id());
        let mut frame = event.encode_unsealed();
        frame.seal(id, self.sequence);
        frame.mark_private();
        Some(frame)
    }
}

impl Drop for Render {
    /// The last reference may be dropped by a writer thread, or by another thread's `publish`.
    fn drop(&mut self) {
        drop_caught(self.closure.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_takes_16_bytes() {
        assert_eq!(size_of::<Payload>(), 16);
    }
}
