//! What a subscriber is sent next: initial data, the replay, then what is queued for it, and a heartbeat when it is silent.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::Sink;
use crate::event::{self, Frame, FrameId, HeartbeatStyle};
use crate::queue::{Payload, Popped, Subscriber};
use crate::registry::{Registry, Slice};
use crate::stats::{Counters, EndCause};

/// How long to wait for the next frame.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    Not,
    Until(Instant),
    Forever,
}

/// Why there is no frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NoFrame {
    /// None came in the time given.
    Timeout,
    /// The stream has ended.
    Ended,
}

/// Why draining has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing waits.
    Empty,
    /// The batch is full.
    Full,
    /// What is next calls the application, which is not allowed, and nothing was appended.
    NeedsCall,
    /// The stream has ended.
    Ended,
}

/// What is next.
enum Next {
    Frame(Frame),
    /// A closure had nothing for this subscriber.
    Skipped,
    NeedsCall,
    Empty,
    Ended,
}

/// How the frames of a stream are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceSettings {
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) heartbeat_style: HeartbeatStyle,
    pub(crate) lifetime: Option<Duration>,
}

/// The reading side of a subscriber. Dropping it takes the subscriber out of the registry.
// What a pass touches first, and close together.
#[repr(C)]
pub(crate) struct FrameSource {
    subscriber: Arc<Subscriber>,
    /// Comes next: a gap was returned before it.
    after_gap: Option<Payload>,
    /// Comes before the queue, and does not count towards its limits.
    preamble: VecDeque<Payload>,
    /// The history that the preamble is refilled from, as long as the subscriber replays.
    replay: Option<Arc<Registry>>,
    expires: Option<Instant>,
    /// How many events were taken out of the queue that are not known to be delivered.
    undelivered: u64,
    counters: Arc<Counters>,
    /// When a frame was taken last: the heartbeat is counted from there.
    taken: Instant,
    /// The reader has seen the end.
    ended: bool,
    heartbeat: Option<Duration>,
    heartbeat_style: HeartbeatStyle,
    /// The highest place in the history that the stream was sent in any form.
    sent: u64,
    registry: Weak<Registry>,
    /// Rings when the queue was empty and has changed. `None` once the stream is written in the background.
    bell: Option<Receiver<()>>,
}

impl FrameSource {
    /// From how many bytes on no further frame is added to a batch: past it, copying costs more than the next system call.
    pub(crate) const BATCH: usize = 64 * 1024;

    /// How many payloads are taken for one batch at most, with those that are skipped.
    const PAYLOADS: usize = 1_024;

    pub(crate) fn new(
        subscriber: Arc<Subscriber>,
        bell: Receiver<()>,
        registry: Weak<Registry>,
        counters: Arc<Counters>,
        settings: SourceSettings,
    ) -> Self {
        let SourceSettings { heartbeat, heartbeat_style, lifetime } = settings;
        let taken = Instant::now();
        Self {
            subscriber,
            after_gap: None,
            preamble: VecDeque::new(),
            replay: None,
            expires: lifetime.and_then(|lifetime| taken.checked_add(lifetime)),
            undelivered: 0,
            counters,
            taken,
            ended: false,
            heartbeat,
            heartbeat_style,
            sent: 0,
            registry,
            bell: Some(bell),
        }
    }

    /// Sets what comes before the queue, up to which place in the history the client has everything, and the history that
    /// the rest of the replay is taken from.
    pub(crate) fn begin(&mut self, preamble: VecDeque<Payload>, sent: u64, replay: Option<Arc<Registry>>) {
        self.preamble = preamble;
        self.sent = sent;
        self.replay = replay;
    }

    /// Puts a comment before everything else: some proxies hold back a response's head until its body has begun.
    #[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
    pub(crate) fn begin_with_comment(&mut self) {
        self.preamble.push_front(Payload::Frame(event::heartbeat(self.heartbeat_style)));
    }

    /// Ends the stream before anything is sent, for a response that has a head only.
    #[cfg(feature = "tiny_http")]
    pub(crate) fn end_unsent(&mut self) {
        self.leave(EndCause::Dropped);
        self.ended = true;
    }

    pub(crate) fn subscriber(&self) -> &Arc<Subscriber> {
        &self.subscriber
    }

    pub(crate) fn registry(&self) -> &Weak<Registry> {
        &self.registry
    }

    pub(crate) fn heartbeat(&self) -> Option<Duration> {
        self.heartbeat
    }

    pub(crate) fn expires(&self) -> Option<Instant> {
        self.expires
    }

    /// Returns how many payloads wait that the source knows of.
    pub(crate) fn waiting(&self) -> usize {
        self.preamble.len() + self.subscriber.queued()
    }

    /// Returns the large frames that come before the queue.
    pub(super) fn large_frames(&self) -> impl Iterator<Item = FrameId> {
        self.after_gap.iter().chain(&self.preamble).filter_map(Payload::large_frame)
    }

    /// Returns why the stream ended, once the end was returned.
    pub(crate) fn end_cause(&self) -> Option<EndCause> {
        self.subscriber.end_cause().filter(|_| self.ended)
    }

    /// Has the writer threads read it from now on: there is no bell any longer.
    pub(super) fn drop_bell(&mut self) {
        self.bell = None;
    }

    /// Leaves the registry: the stream ends at once, for this reason unless it has ended for another.
    pub(crate) fn leave(&mut self, cause: EndCause) {
        if let Some(registry) = self.registry.upgrade() {
            registry.end(self.subscriber.id(), cause, true);
        }
    }

    /// Appends what is there to the batch; or the heartbeat, if that is due and nothing is. Never blocks, except in closures
    /// of the application's if callbacks are allowed.
    pub(crate) fn fill(&mut self, batch: &mut impl Sink, allow_callbacks: bool) -> Drained {
        // The clock is looked at only where it matters, and not before this pass: a stream that is woken because of the
        // time is woken once.
        if let Some(expires) = self.expires {
            let now = Instant::now();
            if !allow_callbacks && expires <= now {
                return Drained::NeedsCall;
            }
            self.expire(now);
        }
        let empty = batch.len();
        let drained = self.drain(batch, empty, allow_callbacks);
        let is_silent = drained == Drained::Empty && batch.len() == empty;
        if !is_silent || self.heartbeat_due().is_none_or(|due| due > Instant::now()) {
            return drained;
        }
        let heartbeat = self.make_heartbeat();
        let drained = self.drain(batch, empty, allow_callbacks);
        if drained == Drained::Empty && batch.len() == empty {
            batch.append(&self.send_heartbeat(heartbeat));
        }
        drained
    }

    /// Appends what waits to the batch, where this stream's part of it begins at `empty`.
    fn drain(&mut self, batch: &mut impl Sink, empty: usize, allow_callbacks: bool) -> Drained {
        for _ in 0..Self::PAYLOADS {
            match self.next(allow_callbacks) {
                Next::Frame(frame) => batch.append(&frame),
                Next::Skipped => {}
                // Not looked for again: what comes meanwhile has notified the next pass.
                Next::Empty => return Drained::Empty,
                Next::NeedsCall if batch.len() > empty => return Drained::Full,
                Next::NeedsCall => return Drained::NeedsCall,
                Next::Ended => return Drained::Ended,
            }
            if batch.len() - empty >= Self::BATCH {
                break;
            }
        }
        Drained::Full
    }

    /// Notes that all that was taken is written, now: the heartbeat is counted from here.
    pub(crate) fn written(&mut self, now: Instant) {
        self.taken = now;
        self.count_delivered();
    }

    /// Notes that all that was taken has reached its reader.
    fn count_delivered(&mut self) {
        if self.undelivered > 0 {
            self.counters.count_delivered(std::mem::take(&mut self.undelivered));
        }
    }

    /// Ends the stream, after what is queued, if its lifetime is over.
    fn expire(&mut self, now: Instant) {
        if self.expires.is_some_and(|expires| expires <= now) {
            self.expires = None;
            if let Some(registry) = self.registry.upgrade() {
                registry.end(self.subscriber.id(), EndCause::Expired, false);
            }
        }
    }

    /// Makes the heartbeat, before the queue is seen empty: then the stream has been sent everything up to the id in it.
    ///
    /// With a history, that is the id of the newest event, as a block without data, if the stream was not sent it yet: so a
    /// client in a quiet channel does not fall behind what the history holds.
    fn make_heartbeat(&self) -> (u64, Frame) {
        let newest = self.registry.upgrade().and_then(|registry| registry.newest_announced(self.sent));
        match newest {
            Some((sequence, id)) => (sequence, event::id_alone(&id)),
            None => (0, event::heartbeat(self.heartbeat_style)),
        }
    }

    /// Notes that the heartbeat is sent.
    fn send_heartbeat(&mut self, (sequence, frame): (u64, Frame)) -> Frame {
        self.sent = self.sent.max(sequence);
        frame
    }

    fn heartbeat_due(&self) -> Option<Instant> {
        self.taken.checked_add(self.heartbeat?)
    }

    /// Returns the next frame, for a reader that takes frames one by one; waits for it as `wait` says.
    pub(crate) fn take(&mut self, wait: Wait) -> Result<Frame, NoFrame> {
        let next = self.wait_for(wait);
        self.count_delivered();
        next
    }

    /// Returns the next frame, or a heartbeat if one is due; waits for it as `wait` says.
    pub(crate) fn wait_for(&mut self, wait: Wait) -> Result<Frame, NoFrame> {
        loop {
            let next = self.next(true);
            let now = Instant::now();
            self.expire(now);
            match next {
                Next::Frame(frame) => {
                    self.taken = now;
                    return Ok(frame);
                }
                Next::Ended => return Err(NoFrame::Ended),
                Next::Skipped | Next::Empty => {}
                Next::NeedsCall => unreachable!("BUG: callbacks are allowed"),
            }
            // Also after a skipped event: a stream whose events are skipped again and again is silent all the same.
            if self.heartbeat_due().is_some_and(|due| due <= now) {
                let heartbeat = self.make_heartbeat();
                let frame = match self.next(true) {
                    Next::Ended => return Err(NoFrame::Ended),
                    Next::Empty => self.send_heartbeat(heartbeat),
                    Next::Frame(frame) => frame,
                    Next::Skipped => continue,
                    Next::NeedsCall => unreachable!("BUG: callbacks are allowed"),
                };
                self.taken = now;
                return Ok(frame);
            }
            let is_empty = matches!(next, Next::Empty);
            match wait {
                Wait::Not if is_empty => return Err(NoFrame::Timeout),
                Wait::Until(deadline) if deadline <= now => return Err(NoFrame::Timeout),
                _ if is_empty => self.wait_at_bell(wait),
                _ => {}
            }
        }
    }

    /// Blocks until the queue has changed, a heartbeat or the end of the lifetime is due, or the wait is over.
    fn wait_at_bell(&self, wait: Wait) {
        let bell = self.bell.as_ref().expect("BUG: a stream in the background waits for its queue");
        let deadline = if let Wait::Until(deadline) = wait { Some(deadline) } else { None };
        // The bell stays connected as long as the queue listens; it stops when there is nothing to wait for.
        match deadline.into_iter().chain(self.heartbeat_due()).chain(self.expires).min() {
            Some(until) => drop(bell.recv_deadline(until)),
            None => drop(bell.recv()),
        }
    }

    /// Returns what is next, without a heartbeat and without waiting.
    fn next(&mut self, allow_callbacks: bool) -> Next {
        if self.ended {
            return Next::Ended;
        }
        if self.after_gap.is_some() && self.subscriber.is_aborted() {
            return self.see_end();
        }
        if let Some(payload) = self.after_gap.take() {
            return self.deliver(payload, allow_callbacks);
        }
        if (!self.preamble.is_empty() || self.replay.is_some())
            && let Some(next) = self.next_of_preamble(allow_callbacks)
        {
            return next;
        }
        match self.subscriber.pop(allow_callbacks) {
            Popped::Payload { lost, payload, publisher_waits } => {
                if publisher_waits && let Some(registry) = self.registry.upgrade() {
                    registry.made_room(self.subscriber.id());
                }
                if lost > 0 {
                    self.after_gap = Some(payload);
                    return Next::Frame(event::gap_of(lost));
                }
                self.deliver(payload, true)
            }
            Popped::NeedsCall => Next::NeedsCall,
            Popped::Empty => Next::Empty,
            Popped::Ended => self.see_end(),
        }
    }

    /// Returns what comes before the queue; `None` if that is over.
    fn next_of_preamble(&mut self, allow_callbacks: bool) -> Option<Next> {
        if self.subscriber.is_aborted() {
            return Some(self.see_end());
        }
        while self.preamble.is_empty() {
            let registry = self.replay.as_ref()?;
            match registry.next_slice(&self.subscriber, allow_callbacks) {
                Slice::Payloads { gap, payloads, is_last } => {
                    self.preamble.extend(gap.map(Payload::Frame).into_iter().chain(payloads));
                    if is_last {
                        self.replay = None;
                    }
                }
                Slice::NeedsCall => return Some(Next::NeedsCall),
                Slice::Overtaken => {
                    registry.end_overtaken(&self.subscriber);
                    return Some(self.see_end());
                }
            }
        }
        if !allow_callbacks && matches!(self.preamble.front(), Some(Payload::Closure(_))) {
            return Some(Next::NeedsCall);
        }
        let payload = self.preamble.pop_front()?;
        if self.preamble.is_empty() {
            self.preamble = VecDeque::new();
        }
        // Not counted as delivered: it was not queued.
        let frame = payload.render(self.subscriber.properties(), &self.counters);
        Some(frame.map_or(Next::Skipped, |frame| self.send(frame)))
    }

    /// Returns what a payload of the queue is for this subscriber.
    fn deliver(&mut self, payload: Payload, allow_callbacks: bool) -> Next {
        if !allow_callbacks && matches!(payload, Payload::Closure(_)) {
            self.after_gap = Some(payload);
            return Next::NeedsCall;
        }
        match payload.render(self.subscriber.properties(), &self.counters) {
            Some(frame) => {
                self.undelivered += 1;
                self.send(frame)
            }
            None => {
                self.counters.count_skipped();
                Next::Skipped
            }
        }
    }

    /// Notes that the frame is sent.
    fn send(&mut self, frame: Frame) -> Next {
        self.sent = self.sent.max(frame.sequence());
        Next::Frame(frame)
    }

    fn see_end(&mut self) -> Next {
        self.ended = true;
        Next::Ended
    }
}

impl Drop for FrameSource {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.remove_dropped(&self.subscriber);
        }
    }
}
