//! The frames of one subscriber, in order: initial data, the replay, its queue, and heartbeats in silence.

mod follower;
mod waiting;

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use self::follower::Follower;
use super::Sink;
use super::outcome::Drained;
use super::pace::Pace;
use crate::clock::Clock;
use crate::event::{self, Frame, FrameId, HeartbeatStyle};
use crate::queue::{Payload, Popped, Subscriber};
use crate::registry::{Registry, Slice};
use crate::stats::{Counters, EndCause};
use crate::sync::channel::Receiver;

/// The next thing for the subscriber.
enum Next {
    Frame(Frame),
    /// The closure skips this subscriber.
    Skipped,
    NeedsCall,
    Empty,
    /// What is queued must wait until the interval is over.
    Paused,
    Ended,
}

/// The times of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceSettings {
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) heartbeat_style: HeartbeatStyle,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) min_interval: Option<Duration>,
    pub(crate) clock: Clock,
}

/// The reading side of a subscriber. Dropping it removes the subscriber from the registry.
// The fields that a pass touches first come first, close together.
#[repr(C)]
pub(crate) struct FrameSource {
    subscriber: Arc<Subscriber>,
    /// The payload that follows a gap, which was returned before.
    after_gap: Option<Payload>,
    /// The payloads that come before the queue, outside its limits.
    preamble: VecDeque<Payload>,
    /// The registry whose history refills the preamble, while the subscriber replays.
    replay: Option<Arc<Registry>>,
    expires: Option<Instant>,
    /// Boxed, since few streams have a minimum interval.
    pace: Option<Box<Pace>>,
    /// What a follower is sent. Boxed, since few streams are a follower's.
    follower: Option<Box<Follower>>,
    /// The number of events that were taken out of the queue, but are not known to be delivered.
    undelivered: u64,
    counters: Arc<Counters>,
    /// The time at which a frame was taken last, from which the heartbeat's interval counts.
    taken: Instant,
    /// `true` if the reader has seen the end.
    ended: bool,
    heartbeat: Option<Duration>,
    heartbeat_style: HeartbeatStyle,
    clock: Clock,
    /// The highest sequence that the stream was sent in any form.
    sent: u64,
    registry: Weak<Registry>,
    /// Rings when the queue has changed after it was seen empty. `None` once the stream is written in the background.
    bell: Option<Receiver<()>>,
}

impl FrameSource {
    /// A batch of this many bytes takes no further frame: beyond it, copying costs more than another system call.
    pub(crate) const BATCH: usize = 64 * 1024;

    /// The maximum number of payloads per batch, including skipped ones.
    const PAYLOADS: usize = 1_024;

    pub(crate) fn new(
        subscriber: Arc<Subscriber>,
        bell: Receiver<()>,
        registry: Weak<Registry>,
        counters: Arc<Counters>,
        settings: SourceSettings,
    ) -> Self {
        let SourceSettings { heartbeat, heartbeat_style, lifetime, min_interval, clock } = settings;
        let taken = clock.now();
        Self {
            subscriber,
            after_gap: None,
            preamble: VecDeque::new(),
            replay: None,
            expires: lifetime.and_then(|lifetime| taken.checked_add(lifetime)),
            pace: min_interval.map(|interval| Box::new(Pace::new(interval, taken))),
            undelivered: 0,
            counters,
            taken,
            ended: false,
            heartbeat,
            heartbeat_style,
            clock,
            sent: 0,
            follower: None,
            registry,
            bell: Some(bell),
        }
    }

    /// Sets what comes before the queue. `sent` is the sequence up to which the client has everything. `replay` gives
    /// the rest of the replay.
    pub(crate) fn begin(&mut self, preamble: VecDeque<Payload>, sent: u64, replay: Option<Arc<Registry>>) {
        self.preamble = preamble;
        self.sent = sent;
        self.replay = replay;
    }

    /// Puts a comment first, because some proxies hold back a response's head until its body begins.
    #[cfg(any(feature = "tiny_http", feature = "rouille", feature = "server"))]
    pub(crate) fn begin_with_comment(&mut self) {
        self.preamble.push_front(Payload::Frame(event::heartbeat(self.heartbeat_style)));
    }

    /// Ends the stream before anything is sent, for a response without a body.
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

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) fn heartbeat(&self) -> Option<Duration> {
        self.heartbeat
    }

    pub(crate) fn expires(&self) -> Option<Instant> {
        self.expires
    }

    /// Returns the number of payloads that wait here or in the queue.
    pub(crate) fn waiting(&self) -> usize {
        self.preamble.len() + self.subscriber.queued()
    }

    /// Returns the large frames that come before the queue.
    pub(super) fn large_frames(&self) -> impl Iterator<Item = FrameId> {
        self.after_gap.iter().chain(&self.preamble).filter_map(Payload::large_frame)
    }

    /// Returns why the stream ended, once the reader has seen the end.
    pub(crate) fn end_cause(&self) -> Option<EndCause> {
        self.subscriber.end_cause().filter(|_| self.ended)
    }

    /// Drops the bell, because the writer threads read the queue from now on.
    pub(super) fn drop_bell(&mut self) {
        self.bell = None;
    }

    /// Leaves the registry. The stream ends at once, with this cause unless it has ended already.
    pub(crate) fn leave(&mut self, cause: EndCause) {
        if let Some(registry) = self.registry.upgrade() {
            registry.end(self.subscriber.id(), cause, true);
        }
    }

    /// Appends what is ready to the batch. If nothing is ready, appends the heartbeat if it is due. Blocks only in
    /// closures of the application, and only if callbacks are allowed.
    pub(crate) fn fill(&mut self, batch: &mut impl Sink, allow_callbacks: bool) -> Drained {
        // The clock is read only where it matters, and during this pass. So a stream that is woken because of the time
        // is woken once.
        if let Some(expires) = self.expires {
            let now = self.clock.now();
            if !allow_callbacks && expires <= now {
                return Drained::NeedsCall;
            }
            self.expire(now);
        }
        let empty = batch.len();
        let drained = self.drain(batch, empty, allow_callbacks);
        let is_silent = matches!(drained, Drained::Empty | Drained::Paused) && batch.len() == empty;
        if !is_silent || self.heartbeat_due().is_none_or(|due| due > self.clock.now()) {
            return drained;
        }
        if drained == Drained::Paused {
            batch.append(&event::heartbeat(self.heartbeat_style));
            return drained;
        }
        let heartbeat = self.make_heartbeat();
        let drained = self.drain(batch, empty, allow_callbacks);
        if drained == Drained::Empty && batch.len() == empty {
            batch.append(&self.send_heartbeat(heartbeat));
        }
        drained
    }

    /// Appends what is ready to the batch. `empty` is the length at which this stream's part of it begins.
    fn drain(&mut self, batch: &mut impl Sink, empty: usize, allow_callbacks: bool) -> Drained {
        for _ in 0..Self::PAYLOADS {
            match self.next(allow_callbacks) {
                Next::Frame(frame) => batch.append(&frame),
                Next::Skipped => {}
                // The queue is not checked again, since a push after this has notified the next pass.
                Next::Empty => return Drained::Empty,
                Next::Paused => return Drained::Paused,
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

    /// Marks everything that was taken as written at `now`. The heartbeat's interval begins here.
    pub(crate) fn written(&mut self, now: Instant) {
        self.taken = now;
        self.count_delivered();
    }

    /// Counts everything that was taken as delivered.
    fn count_delivered(&mut self) {
        if self.undelivered > 0 {
            self.counters.count_delivered(std::mem::take(&mut self.undelivered));
        }
    }

    /// Ends the stream after its queued events, if its lifetime is over.
    fn expire(&mut self, now: Instant) {
        if self.expires.is_some_and(|expires| expires <= now) {
            self.expires = None;
            if let Some(registry) = self.registry.upgrade() {
                registry.end(self.subscriber.id(), EndCause::Expired, false);
            }
        }
    }

    /// Makes the heartbeat. It must be made before the queue is seen empty, because then the stream has been sent
    /// everything up to its ID.
    ///
    /// If IDs are announced and the stream was not sent the newest one yet, the heartbeat is a block with that ID and
    /// no data. So a client in a quiet channel does not fall behind what the history holds.
    fn make_heartbeat(&self) -> (u64, Frame) {
        let registry = self.registry.upgrade();
        let newest = match &registry {
            Some(registry) if self.follower.is_some() => registry.newest_after(self.sent),
            Some(registry) => registry.newest_announced(self.sent),
            None => None,
        };
        match newest {
            Some((sequence, id)) if self.follower.is_some() => (sequence, follower::heartbeat(sequence, &id)),
            Some((sequence, id)) => (sequence, event::id_alone(&id)),
            None => (0, event::heartbeat(self.heartbeat_style)),
        }
    }

    /// Marks the heartbeat as sent.
    fn send_heartbeat(&mut self, (sequence, frame): (u64, Frame)) -> Frame {
        self.sent = self.sent.max(sequence);
        frame
    }

    fn heartbeat_due(&self) -> Option<Instant> {
        self.taken.checked_add(self.heartbeat?)
    }

    /// Leaves what is queued until the returned time. Only the end of the stream wakes its reader earlier. Returns
    /// `None` if the stream has ended, and nothing need wait.
    pub(super) fn pause(&self) -> Option<Instant> {
        let pace = self.pace.as_ref().expect("BUG: a stream without an interval was paused");
        self.subscriber.pause().then(|| pace.opens())
    }

    /// Returns the next thing for the subscriber, without heartbeats and without waiting.
    fn next(&mut self, allow_callbacks: bool) -> Next {
        if self.ended {
            return Next::Ended;
        }
        let has_more = self.after_gap.is_some() || !self.preamble.is_empty() || self.replay.is_some();
        // An aborted stream skips what comes before its queue.
        if has_more && !self.subscriber.is_aborted() {
            if let Some(payload) = self.after_gap.take() {
                return self.deliver(payload, allow_callbacks);
            }
            if let Some(next) = self.next_of_preamble(allow_callbacks) {
                return next;
            }
        }
        let (subscriber, clock) = (&self.subscriber, self.clock);
        // What is queued at the end of a stream does not wait.
        if let Some(pace) = &mut self.pace
            && !pace.admits(|| clock.now(), || subscriber.queued())
            && subscriber.end_cause().is_none()
        {
            return Next::Paused;
        }
        match subscriber.pop(allow_callbacks) {
            Popped::Payload { lost, payload, publisher_waits } => {
                self.count_taken(publisher_waits);
                if lost > 0 {
                    self.after_gap = Some(payload);
                    return Next::Frame(event::gap_of(lost));
                }
                self.deliver(payload, true)
            }
            Popped::NeedsCall => Next::NeedsCall,
            Popped::Empty => {
                if let Some(pace) = &mut self.pace {
                    pace.end_batch();
                }
                Next::Empty
            }
            Popped::Ended => self.see_end(),
        }
    }

    /// Notes that a payload was taken out of the queue.
    fn count_taken(&mut self, publisher_waits: bool) {
        let clock = self.clock;
        if let Some(pace) = &mut self.pace {
            pace.take(|| clock.now());
        }
        if publisher_waits && let Some(registry) = self.registry.upgrade() {
            registry.made_room(self.subscriber.id());
        }
    }

    /// Returns the next thing before the queue, or `None` if the preamble and the replay are over.
    fn next_of_preamble(&mut self, allow_callbacks: bool) -> Option<Next> {
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
        if self.follower.is_some() && payload.sequence() > 0 {
            return Some(self.deliver_to_follower(&payload));
        }
        // It does not count as delivered, since it was not queued.
        let frame = payload.render(self.subscriber.properties(), &self.counters);
        Some(frame.map_or(Next::Skipped, |frame| self.send(frame)))
    }

    /// Renders a payload of the queue for this subscriber.
    fn deliver(&mut self, payload: Payload, allow_callbacks: bool) -> Next {
        if !allow_callbacks && matches!(payload, Payload::Closure(_)) {
            self.after_gap = Some(payload);
            return Next::NeedsCall;
        }
        if self.follower.is_some() {
            self.undelivered += 1;
            return self.deliver_to_follower(&payload);
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

    /// Marks the frame as sent.
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
