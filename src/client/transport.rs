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
            Err(_) => self.look_up(name, timeout)?.into_iter().take(16).for_each(|address| resolved.push(address)),
        }
        if resolved.is_empty() { Err(Error::HostNotFound) } else { Ok(resolved) }
    }
}

impl StoppableResolver {
    fn look_up(&self, name: String, timeout: NextTimeout) -> Result<Vec<SocketAddr>, Error> {
        let (sender, addresses) = bounded(1);
        let look_up = move || {
            let found = name.to_socket_addrs().map(Iterator::collect);
            // The client may have stopped.
            let _ = sender.send(found);
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
pub(super) struct StoppableConnector(pub(super) Arc<StopSignal>);

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
            if result.is_ok() || self.0.is_stopped() {
                break;
            }
        }
        let (config, socket) = (details.config, result?);
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Connection { socket, buffers, read_timeout: None, write_timeout: None }))
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
            if self.0.wait(pause) {
                return Err(stopped());
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        let socket = TcpStream::from(socket);
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        let socket = Arc::new(socket);
        self.0.set_socket(&socket).map_err(|_| stopped())?;
        Ok(socket)
    }
}

impl fmt::Debug for StoppableConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoppableConnector").finish_non_exhaustive()
    }
}

/// A connected socket, which the stop signal can shut down.
pub(super) struct Connection {
    socket: Arc<TcpStream>,
    buffers: LazyBuffers,
    /// The socket's timeouts, to set them only when they change.
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        let wanted = Some(remaining(timeout, Duration::ZERO)?);
        if wanted != self.write_timeout {
            self.socket.set_write_timeout(wanted)?;
            self.write_timeout = wanted;
        }
        let written = (&*self.socket).write_all(&self.buffers.output()[..amount]);
        written.map_err(|error| timed_out(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let (timeout, started) = (timeout.for_read(), Instant::now());
        let mut wanted = Some(remaining(timeout, Duration::ZERO)?);
        let count = loop {
            if wanted != self.read_timeout {
                self.socket.set_read_timeout(wanted)?;
                self.read_timeout = wanted;
            }
            match (&*self.socket).read(self.buffers.input_append_buf()) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    wanted = Some(remaining(timeout, started.elapsed())?);
                }
                Err(error) => return Err(timed_out(error, timeout)),
            }
        };
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

/// Returns what is left of a timeout. It is short enough for each system.
fn remaining(timeout: NextTimeout, elapsed: Duration) -> Result<Duration, Error> {
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    match timeout.after.saturating_sub(elapsed) {
        Duration::ZERO => Err(Error::Timeout(timeout.reason)),
        left => Ok(left.min(LONGEST)),
    }
}

fn timed_out(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

fn stopped() -> Error {
    io::Error::from(io::ErrorKind::Interrupted).into()
}
