//! Stops an event source from any thread, whatever its own thread waits for.

use std::convert::Infallible;
use std::fmt;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use parking_lot::Mutex;

/// Stops an [`EventSource`](super::EventSource) from any thread.
///
/// ```no_run
/// use server_sent_events::client::EventSource;
/// use std::{thread, time::Duration};
///
/// let events = EventSource::builder("http://127.0.0.1:5000/builds").connect()?;
/// let stop_handle = events.stop_handle();
/// thread::spawn(move || {
///     thread::sleep(Duration::from_secs(60));
///     stop_handle.stop();
/// });
/// for message in events {
///     println!("{}", message.data);
/// }
/// # Ok::<(), server_sent_events::client::ConnectError>(())
/// ```
#[derive(Clone)]
pub struct StopHandle(Arc<StopSignal>);

impl StopHandle {
    pub(super) fn new(signal: Arc<StopSignal>) -> Self {
        Self(signal)
    }

    /// Stops the event source at once. Does not block.
    ///
    /// A thread that waits for a message returns without one. Messages that have arrived and were not taken are
    /// dropped. The connection is shut down, whether the client connects, waits for the response, reads or waits to
    /// reconnect.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Returns `true` if the event source was stopped or dropped.
    pub fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }
}

impl fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopHandle").field("is_stopped", &self.is_stopped()).finish()
    }
}

/// The signal that an event source is stopped, and the socket that is then shut down.
///
/// Whatever waits without the socket waits for `stopped` too. Whatever reads or writes the socket is woken by its
/// shutdown.
pub(super) struct StopSignal {
    state: Mutex<State>,
    /// Disconnected by the stop. Nothing is sent.
    stopped: Receiver<Infallible>,
}

struct State {
    /// Keeps `stopped` connected. `None` once the event source is stopped.
    running: Option<Sender<Infallible>>,
    /// The connected socket. The connection owns it.
    socket: Weak<TcpStream>,
}

impl StopSignal {
    pub(super) fn new() -> Self {
        let (running, stopped) = bounded(1);
        Self { state: Mutex::new(State { running: Some(running), socket: Weak::new() }), stopped }
    }

    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        state.running = None;
        let socket = state.socket.upgrade();
        drop(state);
        if let Some(socket) = socket {
            // It may be closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Returns a receiver that is disconnected by the stop.
    pub(super) fn stopped(&self) -> &Receiver<Infallible> {
        &self.stopped
    }

    /// Waits for this time. Returns `true` as soon as the event source is stopped.
    pub(super) fn wait(&self, time: Duration) -> bool {
        self.stopped.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }

    /// Sets the connected socket that a stop shuts down. Fails if the event source is stopped.
    pub(super) fn set_socket(&self, socket: &Arc<TcpStream>) -> Result<(), Stopped> {
        let mut state = self.state.lock();
        if state.running.is_none() {
            return Err(Stopped);
        }
        state.socket = Arc::downgrade(socket);
        Ok(())
    }
}

/// The event source is stopped.
pub(super) struct Stopped;
