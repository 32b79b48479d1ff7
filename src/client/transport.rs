//! How ureq resolves names and connects, so that a stop acts at once.
//!
//! ureq may change these two traits in a minor version, so `Cargo.toml` names the minor version.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{after, bounded, select};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};
use ureq::{Error, Timeout};

use super::patience::{Exhausted, Patience};
use super::stop::StopSignal;

/// Resolves names on a thread of their own, because the system's call cannot be interrupted.
pub(super) struct StoppableResolver(pub(super) Arc<StopSignal>);

impl Resolver for StoppableResolver {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let name = uri.scheme().zip(uri.authority());
        let name = name.and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority));
        let name = name.ok_or(Error::HostNotFound)?;
        let mut resolved = self.empty();
        match name.parse() {
            Ok(address) => resolved.push(address),
            Err(_) => self
                .look_up(move || name.to_socket_addrs().map(Iterator::collect), timeout)?
                .into_iter()
                .take(16)
                .for_each(|address| resolved.push(address)),
        }
        if resolved.is_empty() { Err(Error::HostNotFound) } else { Ok(resolved) }
    }
}

impl StoppableResolver {
    fn look_up(
        &self,
        find: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
        timeout: NextTimeout,
    ) -> Result<Vec<SocketAddr>, Error> {
        let (sender, addresses) = bounded(1);
        let look_up = move || {
            // The client may have stopped.
            let _ = sender.send(find());
        };
        thread::Builder::new().name("sse resolver".into()).spawn(look_up)?;
        select! {
            recv(addresses) -> found => Ok(found.map_err(|_| Error::HostNotFound)??),
            recv(self.0.stopped()) -> _ => Err(stopped()),
            recv(after(*timeout.after)) -> _ => Err(Error::Timeout(timeout.reason)),
        }
    }
}

impl fmt::Debug for StoppableResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoppableResolver").finish_non_exhaustive()
    }
}

/// Connects to the first address that accepts the connection.
pub(super) struct StoppableConnector {
    pub(super) signal: Arc<StopSignal>,
    pub(super) patience: Arc<Patience>,
}

impl<In: Transport> Connector<In> for StoppableConnector {
    type Out = Connection;

    fn connect(&self, details: &ConnectionDetails, _: Option<In>) -> Result<Option<Connection>, Error> {
        let deadline = Instant::now().checked_add(*details.timeout.after);
        let mut result = Err(Error::HostNotFound);
        for (index, address) in details.addrs.iter().enumerate() {
            // Each address gets its share of the time that is left.
            let share = deadline.map(|deadline| {
                deadline.saturating_duration_since(Instant::now()) / (details.addrs.len() - index) as u32
            });
            result = self.connect_to(*address, share);
            if result.is_ok() || self.signal.is_stopped() {
                break;
            }
        }
        let (config, socket) = (details.config, result?);
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        let (patience, heard) = (Arc::clone(&self.patience), Instant::now());
        Ok(Some(Connection { socket, buffers, patience, heard, read_timeout: None, write_timeout: None }))
    }
}

impl StoppableConnector {
    /// Waits for the stop, and looks at the socket meanwhile: a socket that connects cannot be shut down on every
    /// system.
    fn connect_to(&self, address: SocketAddr, timeout: Option<Duration>) -> Result<Arc<TcpStream>, Error> {
        const LONGEST_PAUSE: Duration = Duration::from_millis(10);

        let socket = mio::net::TcpStream::connect(address)?;
        let started = Instant::now();
        let mut pause = Duration::from_micros(50);
        while socket.peer_addr().is_err() {
            if let Some(error) = socket.take_error()? {
                return Err(error.into());
            }
            if timeout.is_some_and(|timeout| started.elapsed() >= timeout) {
                return Err(Error::Timeout(Timeout::Connect));
            }
            if self.signal.wait(pause) {
                return Err(stopped());
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        let socket = TcpStream::from(socket);
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        let socket = Arc::new(socket);
        self.signal.set_socket(&socket).map_err(|_| stopped())?;
        Ok(socket)
    }
}

impl fmt::Debug for StoppableConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoppableConnector").finish_non_exhaustive()
    }
}

/// The time until which a read may wait.
#[derive(Clone, Copy)]
struct Limit {
    at: Option<Instant>,
    /// The timeout that it stands for; `None` for the deadline of the program's call.
    reason: Option<Timeout>,
}

impl Limit {
    fn has_passed(self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    fn left(self, now: Instant) -> Duration {
        self.at.map_or(LONGEST_WAIT, |at| at.saturating_duration_since(now).min(LONGEST_WAIT))
    }

    fn error(self) -> Error {
        self.reason.map_or_else(would_block, Error::Timeout)
    }
}

/// A connected socket, which the stop signal can shut down.
pub(super) struct Connection {
    socket: Arc<TcpStream>,
    buffers: LazyBuffers,
    patience: Arc<Patience>,
    /// The time of the last byte that arrived, or of the connection.
    heard: Instant,
    /// The socket's timeouts, to set them only when they change. A zero stands for a socket that does not block.
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Connection {
    /// Returns the limit of the next read. Fails if it has passed already, and no byte may be read any longer.
    fn next_read(&self, timeout: NextTimeout, started: Instant, now: Instant) -> Result<Limit, Error> {
        let call = self.patience.next_read(now).map_err(|Exhausted| would_block())?;
        let silence = timeout.per_read.and_then(|limit| self.heard.checked_add(*limit));
        let mut limit = Limit { at: call, reason: None };
        for (at, reason) in [(silence, Timeout::PerRead), (started.checked_add(*timeout.after), timeout.reason)] {
            if at.is_some_and(|at| limit.at.is_none_or(|earliest| at < earliest)) {
                limit = Limit { at, reason: Some(reason) };
            }
        }
        // A head that arrives slowly ends the request.
        let is_late = limit.reason == Some(timeout.reason) && limit.has_passed(now);
        if is_late { Err(limit.error()) } else { Ok(limit) }
    }

    /// Limits the wait of the next read; zero for a read that does not wait.
    fn set_read_timeout(&mut self, left: Duration) -> io::Result<()> {
        // It need not be exact: one system call less for each read.
        if self.read_timeout.is_some_and(|set| set >= left && set - left <= left / 16) {
            return Ok(());
        }
        let was_blocking = self.read_timeout != Some(Duration::ZERO);
        // It is set again if this fails.
        self.read_timeout = None;
        if left.is_zero() {
            self.socket.set_nonblocking(true)?;
        } else {
            if !was_blocking {
                self.socket.set_nonblocking(false)?;
            }
            self.socket.set_read_timeout(Some(left))?;
        }
        self.read_timeout = Some(left);
        Ok(())
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        if timeout.after.is_zero() {
            return Err(Error::Timeout(timeout.reason));
        }
        let wanted = Some((*timeout.after).min(LONGEST_WAIT));
        if wanted != self.write_timeout {
            self.socket.set_write_timeout(wanted)?;
            self.write_timeout = wanted;
        }
        let written = (&*self.socket).write_all(&self.buffers.output()[..amount]);
        written.map_err(|error| if is_timeout(&error) { Error::Timeout(timeout.reason) } else { error.into() })
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let started = Instant::now();
        let mut now = started;
        let count = loop {
            let limit = self.next_read(timeout, started, now)?;
            self.set_read_timeout(limit.left(now))?;
            let read = (&*self.socket).read(self.buffers.input_append_buf());
            now = Instant::now();
            match read {
                Ok(count) => break count,
                Err(error) if is_timeout(&error) && limit.has_passed(now) => return Err(limit.error()),
                Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        };
        self.heard = now;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    /// No connection is used again.
    fn is_open(&mut self) -> bool {
        false
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// A timeout that each system can set.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The error of a read whose call must end.
fn would_block() -> Error {
    io::Error::from(io::ErrorKind::WouldBlock).into()
}

fn stopped() -> Error {
    io::Error::from(io::ErrorKind::Interrupted).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The system's call may block for a long time.
    #[test]
    fn a_stop_ends_the_wait_for_a_name() {
        let signal = Arc::new(StopSignal::new());
        let resolver = StoppableResolver(Arc::clone(&signal));
        let (begins, has_begun) = bounded(1);
        let (release, released) = bounded::<()>(0);
        let find = move || {
            begins.send(()).unwrap();
            let _ = released.recv();
            Ok(Vec::new())
        };
        let waiting = thread::spawn(move || resolver.look_up(find, NextTimeout::default()).is_err());
        has_begun.recv().unwrap();
        signal.stop();
        assert!(waiting.join().unwrap());
        drop(release);
    }
}
