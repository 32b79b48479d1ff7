//! One encoded event or comment, shared by all queues and the history.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use super::push_line;

/// One encoded event or comment, ready to be sent. An event ends with a blank line, a comment with its last line.
///
/// A frame is shared: its text is in memory once for all subscribers, and cloning it does not copy the text. It
/// dereferences to `str`.
///
/// ```
/// use server_sent_events::Publisher;
///
/// let publisher = Publisher::new();
/// let mut subscription = publisher.subscribe()?;
/// publisher.publish("hello");
/// let frame = subscription.recv().expect("an event is queued");
/// assert!(frame.starts_with("data: "));
/// assert_eq!(frame, "data: hello\n\n");
/// # Ok::<(), server_sent_events::OpenError>(())
/// ```
// A thin pointer to the text's buffer. An `Arc<str>` would save an indirection, but would take two words in every queue
// of every subscriber, and one copy of the text per event.
#[derive(Clone)]
pub struct Frame(Arc<Encoded>);

struct Encoded {
    text: String,
    /// The event's sequence in the history; 0 if it has none.
    sequence: u64,
    /// Only one subscriber gets it: a closure rendered it.
    is_private: bool,
}

/// Identifies a frame in memory, and has its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FrameId {
    address: usize,
    pub(crate) bytes: usize,
    /// Its place in the history; 0 if no history holds it.
    pub(crate) sequence: u64,
}

impl Frame {
    /// The size in bytes from which a frame is large. A large frame is counted, and written without a copy, since a
    /// copy would cost more than a system call.
    pub(crate) const LARGE: usize = 16 * 1024;

    pub(super) fn new(text: String) -> Self {
        Self(Arc::new(Encoded { text, sequence: 0, is_private: false }))
    }

    /// Creates a frame of these lines, with room for an ID of this length.
    pub(crate) fn unsealed(fields: &str, id: &str) -> Self {
        let mut text = String::with_capacity(fields.len() + id.len() + "id: \n\n".len());
        text.push_str(fields);
        Self::new(text)
    }

    /// Marks the frame as one subscriber's. It must not be shared yet.
    pub(crate) fn mark_private(&mut self) {
        Arc::get_mut(&mut self.0).expect("BUG: a frame was shared before it was marked").is_private = true;
    }

    pub(crate) fn is_large(&self) -> bool {
        self.len() >= Self::LARGE
    }

    pub(crate) fn frame_id(&self) -> FrameId {
        let sequence = if self.0.is_private { 0 } else { self.0.sequence };
        FrameId { address: Arc::as_ptr(&self.0).addr(), bytes: self.len(), sequence }
    }

    /// Adds the ID and the blank line to an unsealed frame, which has room for both.
    pub(crate) fn seal(&mut self, id: Option<&str>, sequence: u64) {
        let frame = Arc::get_mut(&mut self.0).expect("BUG: a frame was shared before it was sealed");
        if let Some(id) = id {
            push_line(&mut frame.text, "id", id);
        }
        // A parser ignores a comment's lines, so no blank line need close them.
        if id.is_some() || frame.text.lines().any(|line| !line.starts_with(':')) {
            frame.text.push('\n');
        }
        frame.sequence = sequence;
    }

    /// Gives a complete frame, which only one subscriber gets, a sequence in the history.
    pub(super) fn seal_as(&mut self, sequence: u64) {
        let frame = Arc::get_mut(&mut self.0).expect("BUG: a frame was shared before it was sealed");
        frame.sequence = sequence;
        frame.is_private = true;
    }

    /// Returns the event's sequence in the history; 0 if it has none.
    pub(crate) fn sequence(&self) -> u64 {
        self.0.sequence
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Frame {}

/// Hashes the text alone, as [`Borrow`] demands: a set or a map of frames finds one by its text.
impl Hash for Frame {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl Borrow<str> for Frame {
    fn borrow(&self) -> &str {
        self
    }
}

impl Deref for Frame {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.text
    }
}

impl AsRef<str> for Frame {
    fn as_ref(&self) -> &str {
        self
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl From<Frame> for String {
    fn from(frame: Frame) -> Self {
        match Arc::try_unwrap(frame.0) {
            Ok(encoded) => encoded.text,
            Err(shared) => shared.text.clone(),
        }
    }
}

impl PartialEq<str> for Frame {
    fn eq(&self, other: &str) -> bool {
        &**self == other
    }
}

impl PartialEq<&str> for Frame {
    fn eq(&self, other: &&str) -> bool {
        &**self == *other
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
