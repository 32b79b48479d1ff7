//! Subscriptions that the publisher's writer threads write.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use super::Subscription;
use crate::deliver::{OnEnd, Output, Writer};
use crate::error::InvalidSetting;
use crate::stats::EndCause;

impl Subscription {
    /// Writes the stream to this writer on the publisher's writer threads. Returns at once.
    ///
    /// Each frame is written as soon as it is queued. Frames that are queued together are written with one `write_all`
    /// and one `flush`. The bytes are the bare event stream: the caller must write the response's head before, and the
    /// writer must do any framing. When the stream ends, the writer is dropped.
    ///
    /// A stream in the background occupies a thread only while a write to it is blocked. A
    /// [`TcpStream`](std::net::TcpStream), a `UnixStream`, or a `BufWriter` of one is recognized. It must be in blocking
    /// mode. It gets a write timeout of 30 s, after which it is shut down. For any other writer, such as a
    /// `Box<dyn Write>`, the caller must set a timeout: accepted sockets inherit `SO_SNDTIMEO` and `TCP_USER_TIMEOUT`
    /// from their listener.
    ///
    /// A heartbeat comes up to a quarter of its interval late, so that streams that fell silent together are not all
    /// written at once.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if no writer thread can be started. The subscription and the writer are
    /// then dropped.
    /// ```
    /// use server_sent_events::Publisher;
    /// use std::io::Read;
    /// use std::net::{TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let mut client = TcpStream::connect(listener.local_addr()?)?;
    /// let (connection, _) = listener.accept()?;
    ///
    /// let publisher = Publisher::new();
    /// publisher.subscribe()?.write_in_background(connection)?;
    /// publisher.publish("hello");
    /// publisher.close();
    ///
    /// let mut stream = String::new();
    /// client.read_to_string(&mut stream)?;
    /// assert_eq!(stream, "data: hello\n\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_in_background(self, writer: impl Write + Send + 'static) -> io::Result<()> {
        self.write_in_background_with_options(writer, BackgroundOptions::new())
    }

    /// Writes the stream as [`write_in_background`](Self::write_in_background) does, with these options.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`write_in_background`](Self::write_in_background), and
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a timeout of zero.
    pub fn write_in_background_with_options(
        self,
        writer: impl Write + Send + 'static,
        options: BackgroundOptions,
    ) -> io::Result<()> {
        let BackgroundOptions { write_timeout, on_end } = options;
        InvalidSetting::check_option("write_timeout", write_timeout)?;
        let (writer, head) = Writer::new(writer);
        self.write(Output { writer, write_timeout, head, chunked: false, can_refuse: false, on_end })
    }

    /// Writes the stream on the publisher's writer threads, as the body of a response.
    pub(crate) fn write(self, output: Output) -> io::Result<()> {
        self.pool.write(self.source, output)
    }
}

/// The options for [writing a subscription in the background](Subscription::write_in_background_with_options).
///
/// ```
/// use server_sent_events::{BackgroundOptions, EndCause, Publisher};
/// use std::{sync::mpsc, time::Duration};
///
/// let (ended, end) = mpsc::channel();
/// let options = BackgroundOptions::new()
///     .write_timeout(Duration::from_secs(5))
///     .on_end(move |cause| ended.send(cause).unwrap());
///
/// let publisher = Publisher::new();
/// publisher.subscribe()?.write_in_background_with_options(std::io::sink(), options)?;
/// publisher.close();
/// assert_eq!(end.recv()?, EndCause::Closed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "options do nothing until they are given to `write_in_background_with_options`"]
pub struct BackgroundOptions {
    write_timeout: Option<Duration>,
    on_end: Option<OnEnd>,
}

impl BackgroundOptions {
    /// Creates options with a write timeout of 30 s and no closure.
    pub fn new() -> Self {
        Self { write_timeout: Some(Duration::from_secs(30)), on_end: None }
    }

    /// Sets the timeout of one write to a recognized socket; `None` for no limit. Defaults to 30 s.
    ///
    /// After it, the socket is shut down, and the stream ends with [`EndCause::WriteTimedOut`]. A write of 64 KiB or
    /// more takes no further frame. The timeout is checked every 10 ms. For any
    /// other writer it limits only how long the stream waits
    /// [to begin](crate::PublisherBuilder::max_writer_threads).
    pub fn write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.write_timeout = timeout.into();
        self
    }

    /// Sets a closure that is called with the cause once the stream has ended. A later call replaces the closure.
    ///
    /// The closure is called exactly once, on a writer thread, without any lock. By then the subscriber has left the
    /// publisher, and the writer is dropped. The closure is not called if writing in the background returned an error.
    /// It may use the publisher. A panic in it is caught.
    pub fn on_end(mut self, closure: impl FnOnce(EndCause) + Send + 'static) -> Self {
        self.on_end = Some(Box::new(closure));
        self
    }
}

impl Default for BackgroundOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for BackgroundOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackgroundOptions").field("write_timeout", &self.write_timeout).finish_non_exhaustive()
    }
}
