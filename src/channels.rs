//! The types that name one channel or several.

/// The channel that [`publish`](crate::Publisher::publish) and [`subscribe`](crate::Publisher::subscribe) use.
pub const DEFAULT_CHANNEL: &str = "default channel";

/// One channel name or several: any text, or anything that iterates over texts.
///
/// One name can be `"chat"`, a `String`, an `Arc<str>`, or any type that implements `AsRef<str>`. Several names can be
/// an array, a slice, a vector, a set or an iterator of these. Names are compared byte by byte, and duplicates count
/// once. An event can be published to a name of any length. The length of a name in a subscription is
/// [limited](crate::PublisherBuilder::max_channel_name_len).
///
/// The parameter `By` distinguishes one name from several, and is always inferred. This trait is sealed: implement
/// `AsRef<str>` or `IntoIterator` instead.
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

/// The sealed half of [`Channels`](super::Channels). Without the parameter the two blanket implementations would
/// overlap.
pub(crate) mod names {
    /// Marks a single name.
    #[derive(Debug)]
    pub struct One;

    /// Marks several names.
    #[derive(Debug)]
    pub struct Several;

    /// Calls `then` with the names, without duplicates, in the order in which they were first given.
    ///
    /// The caller's code (`as_ref`, the iterator) runs before `then`, so never under a lock that `then` takes. A single
    /// name is not allocated.
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
