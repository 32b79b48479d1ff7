//! The types of this layer in a model: those of loom or shuttle, with the methods of parking_lot and crossbeam-channel.

// What a model checker lacks, and what stands for it here:
//
//     parking_lot        the checker's locks, without their poisoning
//     crossbeam-channel  a queue behind such a lock, and a condition variable
//     time               stands still, except that a wait with a timeout may end at any moment (shuttle). The time is
//                        then that of its end. A wait of `FOREVER` or longer has no end. With loom, none has
//     notifications      one that finds a thread in a wait with a timeout also wakes a thread that waits without one

pub(crate) mod channel;

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

#[cfg(sse_loom)]
pub(crate) use loom as checker;
#[cfg(sse_shuttle)]
pub(crate) use shuttle as checker;

pub(crate) use checker::sync::atomic;

pub(crate) mod thread {
    use std::io;
    use std::num::NonZero;

    #[allow(unused_imports)] // each checker's models use some
    pub(crate) use super::checker::thread::{Builder, JoinHandle, spawn, yield_now};

    /// Returns the number of processors of every model.
    pub(crate) fn available_parallelism() -> io::Result<NonZero<usize>> {
        Ok(NonZero::<usize>::MIN.saturating_add(1))
    }
}

/// Declares a variable that each thread of the model has its own of.
macro_rules! model_thread_local {
    ($(#[$attribute:meta])* static $name:ident: $type:ty = const { $init:expr };) => {
        crate::sync::checker::thread_local! {
            $(#[$attribute])* static $name: $type = $init;
        }
    };
}
pub(crate) use model_thread_local as thread_local;

/// A wait of this time or longer does not time out.
#[cfg(sse_shuttle)]
pub(crate) const FOREVER: Duration = Duration::from_secs(3_600);

/// The time of the model.
pub(crate) struct MonotonicClock;

std::thread_local! {
    /// The current time. A checker runs all threads of a model on one thread. No model needs the time to begin at zero.
    static NOW: std::cell::Cell<Instant> = std::cell::Cell::new(Instant::now());
}

impl MonotonicClock {
    pub(crate) fn now() -> Instant {
        NOW.get()
    }

    #[cfg(sse_shuttle)]
    fn advance_to(time: Instant) {
        NOW.set(NOW.get().max(time));
    }
}

#[derive(Default)]
pub(crate) struct Mutex<T>(checker::sync::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    /// `None` while a condition variable has it.
    guard: Option<checker::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(checker::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let guard = Some(self.0.lock().unwrap_or_else(PoisonError::into_inner));
        MutexGuard { lock: self, guard }
    }
}

impl<T> MutexGuard<'_, T> {
    pub(crate) fn unlock_fair(guard: Self) {
        drop(guard);
    }

    /// Unlocks the mutex, lets other threads run, and locks it again.
    #[cfg(sse_shuttle)]
    fn yield_lock(&mut self) {
        self.guard = None;
        checker::thread::yield_now();
        *self = self.lock.lock();
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("BUG: a condition variable has the lock")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("BUG: a condition variable has the lock")
    }
}

pub(crate) struct RwLock<T>(checker::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(checker::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> checker::sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> checker::sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(crate) struct Condvar {
    condvar: checker::sync::Condvar,
    /// The number of notifications, for threads that wait with a timeout.
    #[cfg(sse_shuttle)]
    notified: std::sync::atomic::AtomicUsize,
}

pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notify_one(&self) {
        self.count();
        self.condvar.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.count();
        self.condvar.notify_all();
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let inner = guard.guard.take().expect("BUG: a condition variable has the lock");
        guard.guard = Some(self.condvar.wait(inner).unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, timeout: Duration) -> WaitTimeoutResult {
        self.wait_until(guard, MonotonicClock::now() + timeout)
    }
}

#[cfg(sse_loom)]
impl Condvar {
    fn count(&self) {}

    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: Instant) -> WaitTimeoutResult {
        let _ = guard.lock;
        self.wait(guard);
        WaitTimeoutResult(false)
    }
}

#[cfg(sse_shuttle)]
impl Condvar {
    fn count(&self) {
        self.notified.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }

    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> WaitTimeoutResult {
        use shuttle::rand::{Rng, thread_rng};

        if deadline.saturating_duration_since(MonotonicClock::now()) >= FOREVER {
            self.wait(guard);
            return WaitTimeoutResult(false);
        }
        let notified = || self.notified.load(std::sync::atomic::Ordering::SeqCst);
        let before = notified();
        loop {
            if deadline <= MonotonicClock::now() || thread_rng().gen_bool(0.25) {
                MonotonicClock::advance_to(deadline);
                return WaitTimeoutResult(true);
            }
            guard.yield_lock();
            if notified() != before {
                return WaitTimeoutResult(false);
            }
        }
    }
}
