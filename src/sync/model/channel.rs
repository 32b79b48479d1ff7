//! Channels with the methods and errors of crossbeam-channel.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

pub(crate) use crossbeam_channel::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

use super::{Condvar, Mutex, MutexGuard};

struct Channel<T> {
    state: Mutex<State<T>>,
    /// Notified when there is a message, and when the last sender is dropped.
    changed: Condvar,
}

struct State<T> {
    messages: VecDeque<T>,
    capacity: usize,
    has_senders: bool,
    has_receivers: bool,
}

/// All senders of one channel. Dropping it disconnects the channel.
struct Senders<T>(Arc<Channel<T>>);

/// All receivers of one channel. Dropping it disconnects the channel.
struct Receivers<T>(Arc<Channel<T>>);

pub(crate) struct Sender<T>(Arc<Senders<T>>);

pub(crate) struct Receiver<T>(Arc<Receivers<T>>);

pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { messages: VecDeque::new(), capacity, has_senders: true, has_receivers: true };
    let channel = Arc::new(Channel { state: Mutex::new(state), changed: Condvar::new() });
    (Sender(Arc::new(Senders(Arc::clone(&channel)))), Receiver(Arc::new(Receivers(channel))))
}

pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    bounded(usize::MAX)
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Senders<T> {
    fn drop(&mut self) {
        self.0.state.lock().has_senders = false;
        self.0.changed.notify_all();
    }
}

impl<T> Drop for Receivers<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.has_receivers = false;
        let messages = std::mem::take(&mut state.messages);
        drop(state);
        drop(messages);
    }
}

impl<T> Sender<T> {
    pub(crate) fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let channel = &self.0.0;
        let mut state = channel.state.lock();
        if !state.has_receivers {
            return Err(TrySendError::Disconnected(message));
        }
        if state.messages.len() == state.capacity {
            return Err(TrySendError::Full(message));
        }
        state.messages.push_back(message);
        drop(state);
        channel.changed.notify_one();
        Ok(())
    }

    pub(crate) fn send(&self, message: T) -> Result<(), SendError<T>> {
        match self.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(message)) => Err(SendError(message)),
            Err(TrySendError::Full(_)) => unreachable!("BUG: no thread waits until it can send"),
        }
    }
}

impl<T> Receiver<T> {
    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut state = self.0.0.state.lock();
        let empty = if state.has_senders { TryRecvError::Empty } else { TryRecvError::Disconnected };
        state.messages.pop_front().ok_or(empty)
    }

    pub(crate) fn recv(&self) -> Result<T, RecvError> {
        let wait = |changed: &Condvar, state: &mut MutexGuard<'_, State<T>>| {
            changed.wait(state);
            true
        };
        self.take(wait).map_err(|_| RecvError)
    }

    pub(crate) fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.take(|changed, state| !changed.wait_until(state, deadline).timed_out())
    }

    /// Takes the next message. While there is none, calls `wait`, which returns `false` once the time is over.
    fn take(&self, wait: impl Fn(&Condvar, &mut MutexGuard<'_, State<T>>) -> bool) -> Result<T, RecvTimeoutError> {
        let channel = &self.0.0;
        let mut state = channel.state.lock();
        loop {
            if let Some(message) = state.messages.pop_front() {
                return Ok(message);
            }
            if !state.has_senders {
                return Err(RecvTimeoutError::Disconnected);
            }
            if !wait(&channel.changed, &mut state) {
                return Err(RecvTimeoutError::Timeout);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.0.state.lock().messages.len()
    }
}
