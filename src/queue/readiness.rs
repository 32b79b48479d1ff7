//! Where a stream waits until its non-blocking socket takes more.

use std::io;
use std::task::Waker;
#[cfg(feature = "server")]
use std::time::Duration;
use std::time::Instant;

use super::race_window;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

// A stream whose socket takes no more is parked. It stays RUNNING, but no thread owns it until the event loop that
// watches the socket reports readiness.
//
//     writer thread                             event loop
//     -  write, until it would block            1  `set_ready`: set READY
//     a  `clear_ready`: set WRITING             2  if PARKED was set: put the stream on the run queue
//     b  write, until it would block
//     c  `park`: set PARKED, unless READY is
//        set; then put it on the run queue
//
// If readiness comes before a, the write in b uses it. Between a and c, it makes `park` fail. After c, step 2 finds
// PARKED, once.
//
// Steps 1 and 2 also wake a stream that is aborted. The write in b does not notice an abort, and `clear_ready` forgets
// a wake-up before a. So after c the writer thread checks whether the stream was aborted, and does steps 1 and 2
// itself.

/// What a stream may be blocked at.
pub(crate) trait Interrupt: Send + Sync {
    /// Frees the stream, which was aborted.
    fn interrupt(&self);
}

impl<W: NonBlockingWrite> Interrupt for W {
    fn interrupt(&self) {
        self.readiness().set_ready();
    }
}

/// A writer that does not block, shared with the event loop that watches its socket.
pub(crate) trait NonBlockingWrite: Interrupt {
    /// Writes as much as the writer takes now. Returns an error of the kind `WouldBlock` if it takes nothing.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Returns where the stream waits for room.
    fn readiness(&self) -> &Readiness;

    /// Reports that the stream has ended and nothing more is written. `took_all` is set if the writer took every byte.
    fn finished(&self, took_all: bool);
}

/// The place where a stream waits for its socket.
pub(crate) struct Readiness {
    state: AtomicU8,
    /// The time at which the stream was parked, in microseconds since `made`.
    since: AtomicU64,
    made: Instant,
    timed_out: AtomicBool,
    /// The parked stream. The reference goes from its pass to here, and to the run queue when the socket is ready. So
    /// nothing refers to a stream that has ended.
    parked: Mutex<Option<Waker>>,
}

impl Readiness {
    const WRITING: u8 = 0;
    const PARKED: u8 = 1;
    const READY: u8 = 2;

    #[cfg(any(feature = "server", test))]
    pub(crate) fn new() -> Self {
        let (state, since) = (AtomicU8::new(Self::WRITING), AtomicU64::new(0));
        Self { state, since, made: Instant::now(), timed_out: AtomicBool::new(false), parked: Mutex::new(None) }
    }

    /// Forgets readiness that was reported before. A write must follow, which finds it.
    pub(crate) fn clear_ready(&self) {
        // A swap costs what a store costs. With a store, loom would not keep the order of all changes.
        self.state.swap(Self::WRITING, SeqCst);
    }

    /// Parks the stream after a write that would have blocked, to be woken by this. Gives the waker back if the socket
    /// is ready again; the caller still owns the stream then.
    pub(crate) fn park(&self, waker: Waker) -> Result<(), Waker> {
        self.since.store(self.made.elapsed().as_micros() as u64, SeqCst);
        *self.parked.lock() = Some(waker);
        race_window();
        match self.state.compare_exchange(Self::WRITING, Self::PARKED, SeqCst, Relaxed) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.take_parked()),
        }
    }

    fn take_parked(&self) -> Waker {
        self.parked.lock().take().expect("BUG: a parked stream has no waker")
    }

    /// Reports that the socket takes more, or that the stream must run for another reason.
    pub(crate) fn set_ready(&self) {
        if self.state.swap(Self::READY, SeqCst) == Self::PARKED {
            self.take_parked().wake();
        }
    }

    /// Returns how long the stream has been parked, if it is.
    #[cfg(feature = "server")]
    pub(crate) fn parked_for(&self) -> Option<Duration> {
        let is_parked = self.state.load(SeqCst) == Self::PARKED;
        is_parked.then(|| self.made.elapsed().saturating_sub(Duration::from_micros(self.since.load(SeqCst))))
    }

    /// Wakes the stream to end it, because it was parked for too long.
    #[cfg(feature = "server")]
    pub(crate) fn expire(&self) {
        self.timed_out.store(true, SeqCst);
        self.set_ready();
    }

    pub(crate) fn has_timed_out(&self) -> bool {
        self.timed_out.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU8);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// Tries every order of the writer thread's three steps and the event loop's.
    #[test]
    fn readiness_at_any_time_wakes_a_parked_stream_once() {
        for ready_at in 0..4 {
            let (readiness, woken) = (Readiness::new(), Arc::new(Woken::default()));
            let mut would_block = true;
            let mut step = 0;
            let mut may_become_ready = |would_block: &mut bool| {
                if step == ready_at {
                    *would_block = false;
                    readiness.set_ready();
                }
                step += 1;
            };
            may_become_ready(&mut would_block);
            readiness.clear_ready();
            may_become_ready(&mut would_block);
            let blocked = would_block;
            may_become_ready(&mut would_block);
            let continues_by_itself = !blocked || readiness.park(Waker::from(Arc::clone(&woken))).is_err();
            may_become_ready(&mut would_block);
            let wakes = woken.0.load(SeqCst);
            assert_eq!(u8::from(continues_by_itself) + wakes, 1, "ready at step {ready_at}");
        }
    }
}
