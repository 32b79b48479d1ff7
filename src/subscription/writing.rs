//! A subscription that the current thread writes to a writer.

use super::Subscription;
use crate::deliver::{Batch, BatchedWrite, Drained, Sink, Socket, Wait, WatchedSocket};
use crate::queue::Interrupt;
use crate::stats::EndCause;
use std::io::{self, Write};
use std::sync::Arc;

impl Subscription {
    /// Writes the stream to this writer on the current thread, and returns why the stream ended.
    ///
    /// Blocks until the stream ends. Frames that are queued together are written with one `write_all` and one `flush`,
    /// so an event never waits for a later one. A write of 64 KiB or more takes no further frame. A frame of 16 KiB or
    /// more is written by itself, without a copy. The bytes are the bare event stream: the caller writes the response's
    /// head and any framing.
    ///
    /// A client that does not read blocks the writer. So a socket is recognized: a
    /// [`TcpStream`](std::net::TcpStream), a `UnixStream`, or a `BufWriter` of one. It is set to blocking mode. If one
    /// write takes longer than its timeout, the stream ends with [`EndCause::WriteTimedOut`], and the socket is shut
    /// down. The timeout is that of [`set_write_timeout`](std::net::TcpStream::set_write_timeout), or 30 s if none is
    /// set. An end at once also frees the thread: [`disconnect_if`](crate::Publisher::disconnect_if), a full queue, or a
    /// [`shutdown`](crate::Publisher::shutdown) whose grace is over.
    ///
    /// **Any other writer can block forever**, even after the stream has ended: a `Box<dyn Write>` or a TLS stream, for
    /// example. It must have a timeout of its own. A borrowed writer cannot be given; write the iterator's items to it.
    ///
    /// # Errors
    ///
    /// Returns the writer's error unchanged, except the timeout of a recognized socket. The usual cause is a lost
    /// connection. The stream has then ended.
    ///
    /// ```
    /// use server_sent_events::{EndCause, Publisher};
    /// use std::io;
    ///
    /// let publisher = Publisher::new();
    /// let subscription = publisher.subscribe()?;
    /// publisher.publish("hello");
    /// publisher.close();
    /// assert_eq!(subscription.write_to(io::stdout())?, EndCause::Closed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A server with a thread per connection, whose clients resume:
    ///
    /// ```no_run
    /// use server_sent_events::{History, Publisher, ResponseHeaders, http};
    /// use std::io::{self, BufRead, BufReader, Read, Write};
    /// use std::net::{TcpListener, TcpStream};
    /// use std::{thread, time::Duration};
    ///
    /// fn answer(publisher: &Publisher, mut connection: TcpStream) -> io::Result<()> {
    ///     connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    ///     let mut last_event_id = None;
    ///     for line in BufReader::new((&connection).take(8 * 1024)).lines() {
    ///         let line = line?;
    ///         match line.split_once(':') {
    ///             Some((name, id)) if name.eq_ignore_ascii_case("Last-Event-ID") => {
    ///                 last_event_id = Some(id.trim().to_owned());
    ///             }
    ///             _ if line.is_empty() => break, // the end of the request's head
    ///             _ => {}
    ///         }
    ///     }
    ///     let subscription = publisher.subscription(()).last_event_id(last_event_id).open()?;
    ///     connection.write_all(http::response_head(&ResponseHeaders::new()).as_bytes())?;
    ///     subscription.write_to(connection)?;
    ///     Ok(())
    /// }
    ///
    /// let publisher = Publisher::builder().history(History::new()).build()?;
    /// for connection in TcpListener::bind("127.0.0.1:5000")?.incoming() {
    ///     let (publisher, connection) = (publisher.clone(), connection?);
    ///     thread::spawn(move || answer(&publisher, connection));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_to(mut self, writer: impl Write + 'static) -> io::Result<EndCause> {
        let written = match Socket::recognize(writer) {
            Ok((socket, buffered)) => {
                let socket = Arc::new(WatchedSocket::new(socket)?);
                let subscriber = Arc::clone(self.source.subscriber());
                subscriber.set_socket(Arc::clone(&socket) as Arc<dyn Interrupt>);
                let write_all = |batch: &Batch, write: &BatchedWrite| {
                    socket.write(&subscriber, |writer| batch.write_all(write, writer))
                };
                self.write_batches(buffered, write_all)
                    .map_err(|error| socket.cause_of(&subscriber, &error).ok_or(error))
            }
            Err(mut writer) => {
                let write_all = |batch: &Batch, write: &BatchedWrite| {
                    batch.write_all(write, &mut writer)?;
                    writer.flush()
                };
                self.write_batches(Vec::new(), write_all).map_err(Err)
            }
        };
        match written {
            Ok(()) => Ok(self.end_cause().expect("BUG: a stream ended without a cause")),
            // The stream may have ended before, and only its last write has failed.
            Err(Ok(cause)) => {
                self.source.leave(cause);
                Ok(self.source.subscriber().end_cause().expect("BUG: a stream left without a cause"))
            }
            Err(Err(error)) => {
                self.source.leave(EndCause::ConnectionLost(error.kind()));
                Err(error)
            }
        }
    }

    /// Writes these bytes, and then the stream in batches with this closure, until the stream ends.
    fn write_batches(
        &mut self,
        mut head: Vec<u8>,
        mut write_all: impl FnMut(&Batch, &BatchedWrite) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut batch = Batch::default();
        loop {
            batch.begin(&std::mem::take(&mut head), false);
            // The loop blocks here until there is a frame, and in the writer.
            if let Ok(frame) = self.source.wait_for(Wait::Forever) {
                batch.append(&frame);
            }
            let drained = self.source.fill(&mut batch, true);
            let write = batch.seal(drained == Drained::Ended);
            write_all(&batch, &write)?;
            self.source.written(self.source.clock().now());
            if drained == Drained::Ended {
                return Ok(());
            }
            batch.clear();
        }
    }
}
