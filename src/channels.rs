//! What may name one channel or several.

/// The channel that [`publish`](crate::Publisher::publish) and [`subscribe`](crate::Publisher::subscribe)
/// use, as in the Python library.
pub const DEFAULT_CHANNEL: &str = "default channel";

/// What may name one channel or several: any text, or anything that can be iterated to texts.
///
/// One: `"chat"`, `String`, `Arc<str>`, a type of yours that is `AsRef<str>`. Several: arrays, slices,
/// vectors, sets, iterators of these. Names are compared byte by byte; naming a channel twice is naming it
/// once. A name of any length may be published to; how long one may be that is subscribed to is a
/// [setting](crate::PublisherBuilder::max_channel_name_len).
///
/// The parameter `By` tells the two ways apart; it is always inferred. This trait is sealed: for a type of yours, implement
/// `AsRef<str>` or `IntoIterator`.
///
/// ```
/// use server_sent_events::Publisher;
///
/// let publisher = Publisher::new();
/// publisher.publish_to("chat", "hello");
/// publisher.publish_to(["chat", "news"], "hello");
/// publisher.publish_to((1..=3).map(|job| format!("job {job}")), "hello");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name channels",
    note = "one channel: anything that is `AsRef<str>`; several: anything that can be iterated to such"
)]
pub trait Channels<By>: names::Names<By> {}

impl<By, C: names::Names<By>> Channels<By> for C {}

/// The sealed half. Without the parameter the two blanket implementations would overlap.
pub(crate) mod names {
    /// Named by a text.
    #[derive(Debug)]
    pub struct One;

    /// Named by an iteration.
    #[derive(Debug)]
    pub struct Several;

    /// Gives the names to `then`, each once, in the order in which they were first named.
    ///
    /// The caller's code (`as_ref`, the iterator) runs before `then` does, so never under a lock that `then`
    /// takes; one name costs no allocation.
    pub trait Names<By> {
        fn with_names<R>(self, then: impl FnOnce(&[&str]) -> R) -> R;
    }

    impl<T: AsRef<str>> Names<One> for T {
        fn with_names<R>(self, then: impl FnOnce(&[&str]) -> R) -> R {
            then(&[self.as_ref()])
        }
    }

    impl<I: IntoIterator<Item: AsRef<str>>> Names<Several> for I {
        fn with_names<R>(self, then: impl FnOnce(&[&str]) -> R) -> R {
            let given: Vec<I::Item> = self.into_iter().collect();
            let mut names: Vec<&str> = Vec::with_capacity(given.len());
            let mut seen = std::collections::HashSet::with_capacity(given.len());
            for name in &given {
                let name = name.as_ref();
                if seen.insert(name) {
                    names.push(name);
                }
            }
            then(&names)
        }
    }
}
