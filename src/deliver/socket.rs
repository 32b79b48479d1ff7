//! The sockets that are recognized among writers, so that a blocked write can be ended.

use std::any::Any;
use std::io::{self, BufWriter, Write};
use std::net::{Shutdown, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::queue::{Interrupt, Subscriber};
use crate::stats::EndCause;
use crate::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// A connected socket.
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Calls a method that both kinds of sockets have.
macro_rules! forward {
    ($socket:expr, $own:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($own) => $call,
            #[cfg(unix)]
            Socket::Unix($own) => $call,
        }
    };
}

impl Socket {
    /// Recognizes a writer that is a socket, or a `BufWriter` of one. Returns it with the bytes that were buffered.
    /// Returns any other writer unchanged.
    pub(crate) fn recognize<W: 'static>(writer: W) -> Result<(Self, Vec<u8>), W> {
        let mut writer = Some(writer);
        if let Some(found) = find(&mut writer, Self::Tcp) {
            return Ok(found);
        }
        #[cfg(unix)]
        if let Some(found) = find(&mut writer, Self::Unix) {
            return Ok(found);
        }
        Err(writer.expect("BUG: a writer that is no socket was taken out"))
    }

    /// Ends the connection. Frees a blocked write within microseconds.
    pub(super) fn shut_down(&self) {
        // An error means that the client has closed the connection.
        let _ = forward!(self, socket => socket.shutdown(Shutdown::Both));
    }

    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        // Zero would be an error.
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        forward!(self, socket => socket.set_write_timeout(timeout))
    }
}

/// Takes the writer out if it is a socket of this type, or a `BufWriter` of one.
fn find<S: Write + 'static>(writer: &mut dyn Any, socket: fn(S) -> Socket) -> Option<(Socket, Vec<u8>)> {
    if let Some(found) = writer.downcast_mut::<Option<S>>() {
        return Some((socket(found.take()?), Vec::new()));
    }
    let (found, buffered) = writer.downcast_mut::<Option<BufWriter<S>>>()?.take()?.into_parts();
    Some((socket(found), buffered.unwrap_or_else(|panicked| panicked.into_inner())))
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        forward!(self, socket => (&mut &*socket).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket that a thread of the application writes to. An abort of its stream ends a blocked write.
pub(crate) struct WatchedSocket {
    socket: Socket,
    /// The timeout of one write.
    timeout: Duration,
    /// `true` while a write that an abort must end is under way.
    is_writing: AtomicBool,
}

impl WatchedSocket {
    /// The write timeout of a socket that has none.
    const TIMEOUT: Duration = Duration::from_secs(30);

    /// The time for the last block of an aborted stream, whose socket takes it at once unless it is blocked.
    const FAREWELL: Duration = Duration::from_millis(10);

    pub(crate) fn new(socket: Socket) -> io::Result<Self> {
        forward!(&socket, socket => socket.set_nonblocking(false))?;
        let timeout = forward!(&socket, socket => socket.write_timeout())?.unwrap_or(Self::TIMEOUT);
        socket.set_write_timeout(timeout)?;
        Ok(Self { socket, timeout, is_writing: AtomicBool::new(false) })
    }

    /// Lets this closure write to the socket, for the subscriber's stream. The write ends with an error after the
    /// timeout, and soon after an abort.
    pub(crate) fn write(
        &self,
        subscriber: &Subscriber,
        write: impl FnOnce(&mut TimedWrite<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let (timeout, current) = (self.timeout, self.timeout);
        let mut writer = TimedWrite { socket: &self.socket, timeout, current, began: Instant::now() };
        // An abort after this line shuts the socket down. An abort before it is seen in the next line.
        self.is_writing.store(true, SeqCst);
        if subscriber.is_aborted() {
            self.is_writing.store(false, SeqCst);
            writer.timeout = Self::FAREWELL;
        }
        let mut written = write(&mut writer);
        self.is_writing.store(false, SeqCst);
        if writer.current != self.timeout {
            written = written.and_then(|()| self.socket.set_write_timeout(self.timeout));
        }
        if written.is_err() {
            self.socket.shut_down();
        }
        written
    }

    /// Returns why a write with this error has failed, if its client is not the cause: the stream was aborted, or the
    /// write took too long.
    pub(crate) fn cause_of(&self, subscriber: &Subscriber, error: &io::Error) -> Option<EndCause> {
        // A connection that TCP has given up has an error of the system with the same kind, except on Windows.
        let has_timed_out = match error.kind() {
            io::ErrorKind::WouldBlock => true,
            io::ErrorKind::TimedOut => cfg!(windows) || error.raw_os_error().is_none(),
            _ => false,
        };
        let aborted = subscriber.end_cause().filter(|_| subscriber.is_aborted());
        aborted.or(has_timed_out.then_some(EndCause::WriteTimedOut))
    }
}

impl Interrupt for WatchedSocket {
    fn interrupt(&self) {
        if self.is_writing.load(SeqCst) {
            self.socket.shut_down();
        }
    }
}

/// One write to a socket, in parts.
pub(crate) struct TimedWrite<'a> {
    socket: &'a Socket,
    timeout: Duration,
    /// The socket's own timeout, which counts from the beginning of each part.
    current: Duration,
    began: Instant,
}

impl Write for TimedWrite<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.timeout.saturating_sub(self.began.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // A healthy client takes the whole write within a small part of the timeout, without another system call.
        if self.current > left + left / 2 {
            self.socket.set_write_timeout(left)?;
            self.current = left;
        }
        let mut socket = self.socket;
        socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
