//! What publishing an event returns.

/// The result of publishing an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    pub(super) subscribers: usize,
    pub(super) id: Option<String>,
    pub(super) is_refused: bool,
}

impl Receipt {
    /// Returns how many subscribers the event was queued for. It does not say whether they receive it.
    ///
    /// With a [store](crate::store), the event is queued later, once it is stored. Then this is how many subscribers its
    /// channels had when it was published.
    pub fn subscribers(&self) -> usize {
        self.subscribers
    }

    /// Returns the event's ID: its own, or the one that the [history](crate::History) assigned. Returns `None` for a
    /// comment, and without a history.
    ///
    /// With a [store](crate::store), the ID is assigned once the event is stored. Only
    /// [`publish_confirmed`](crate::Publisher::publish_confirmed) waits for that.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns `true` if the event was refused, and reaches nobody.
    ///
    /// With a [store](crate::store): more events wait than the limits allow, the event is too large, the publisher is
    /// being dropped, or it is a closure that a shared store cannot take. With a history that follows another one, every
    /// event but a comment is refused. Otherwise always `false`.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }
}
