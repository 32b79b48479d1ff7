//! Where in the history a subscription begins, and how it gets from there to the live events.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::{Registry, State};
use crate::error::OpenError;
use crate::event::{self, Event, Frame};
use crate::history::{EventLog, Resumption, Span};
use crate::queue::{Payload, Subscriber};
use crate::registry::Deferred;
use crate::stats::EndCause;

/// What a subscription asks of the history.
#[derive(Debug)]
pub(crate) enum ReplayFrom {
    /// The live events only.
    Now,
    /// All that is newer than this id.
    Id(String),
    /// So many of the newest.
    Last(usize),
}

impl ReplayFrom {
    /// The id that a client came with; empty if it came with none.
    fn id(&self) -> &str {
        if let Self::Id(id) = self { id } else { "" }
    }
}

/// How a subscription begins.
pub(crate) struct Opening {
    pub(crate) resumption: Resumption,
    /// `None` without a history.
    pub(crate) start: Option<StartId>,
    /// What comes of the history first.
    pub(crate) first_slice: Vec<Payload>,
    /// More of it is there: [`Registry::next_slice`] gives it.
    pub(crate) is_replaying: bool,
}

/// Where a stream of a history begins.
pub(crate) struct StartId {
    /// What the client is to hold as its last event id before its first event.
    id: String,
    /// The client has everything up to here, or was sent a gap for it.
    pub(crate) sequence: u64,
    gap: Option<Event>,
    announces_ids: bool,
}

impl StartId {
    /// Returns the first frames of a stream that begins here, with this initial data.
    ///
    /// A client whose connection breaks behind the start id resumes from there, as one that has seen everything before. So
    /// the id comes with the last block that it must have seen: of the initial data, or the gap. If there is neither,
    /// it comes alone.
    pub(crate) fn frames(self, initial_data: Vec<Event>) -> Vec<Frame> {
        let mut events: Vec<Event> = self.gap.into_iter().chain(initial_data).collect();
        match events.pop() {
            Some(last) => {
                let last = if last.own_id().is_some() { last } else { last.with_id(&self.id) };
                events.push(last);
                events.iter().map(Event::encode).collect()
            }
            None if self.announces_ids => vec![event::id_alone(&self.id)],
            None => Vec::new(),
        }
    }
}

/// A subscriber's way through the history.
pub(super) struct Replay {
    /// Of which channels it gets what.
    spans: Vec<Span>,
    /// It was given everything up to this sequence.
    cursor: u64,
}

impl Replay {
    /// A channel that is joined meanwhile counts from here on.
    pub(super) fn join(&mut self, channels: &[Arc<str>], sequence: u64) {
        self.spans.extend(channels.iter().map(|channel| Span::new(channel, sequence)));
    }

    /// What was published to these channels before is still delivered.
    pub(super) fn leave(&mut self, channels: &[Arc<str>], sequence: u64) {
        for span in self.spans.iter_mut().filter(|span| channels.contains(&span.channel)) {
            span.until = span.until.min(sequence);
        }
        let cursor = self.cursor;
        self.spans.retain(|span| span.until > span.from.max(cursor));
    }

    /// What is published from now on is not for it.
    pub(super) fn end_at(&mut self, sequence: u64) {
        for span in &mut self.spans {
            span.until = span.until.min(sequence);
        }
    }
}

/// The next part of a replay.
pub(crate) enum Slice {
    Payloads {
        /// Comes before the payloads: some of the replay was evicted before it was taken.
        gap: Option<Frame>,
        payloads: Vec<Payload>,
        /// The subscriber is live now: everything newer is queued for it.
        is_last: bool,
    },
    /// Some of the replay was evicted before it was taken, and the subscriber is to resume.
    Overtaken,
    /// Hooks would be called, or closures dropped, which is not allowed.
    NeedsCall,
}

impl Registry {
    /// Adds a subscriber to these channels, each named once. What is published afterwards is queued for it, or comes with its
    /// replay; what was published before, and is asked for, comes with its replay.
    pub(crate) fn open(
        &self,
        subscriber: &Arc<Subscriber>,
        channels: &[Arc<str>],
        replay_from: &ReplayFrom,
    ) -> Result<Opening, OpenError> {
        // Everything that can be refused without the lock is refused without it.
        if channels.is_empty() {
            return Err(OpenError::NoChannels);
        }
        if channels.len() > self.limits.channels {
            return Err(OpenError::TooManyChannels { given: channels.len(), limit: self.limits.channels });
        }
        self.check_names(channels)?;

        let mut deferred = Deferred::default();
        let opened = self.open_locked(&mut self.state.lock(), subscriber, channels, replay_from, &mut deferred);
        deferred.finish();
        opened
    }

    fn open_locked(
        &self,
        state: &mut State,
        subscriber: &Arc<Subscriber>,
        channels: &[Arc<str>],
        replay_from: &ReplayFrom,
        deferred: &mut Deferred,
    ) -> Result<Opening, OpenError> {
        state.check_limits(channels, subscriber.quota_key(), &self.limits)?;
        let Some(log) = &mut state.log else {
            state.add(subscriber, channels);
            let resumption = Resumption::NotRequested;
            return Ok(Opening { resumption, start: None, first_slice: Vec::new(), is_replaying: false });
        };
        log.expire(&mut deferred.payloads);
        let (cursor, is_gap) = find_start(log, channels, replay_from);
        let id = match replay_from {
            ReplayFrom::Id(id) if !is_gap => id.clone(),
            _ => log.id(cursor),
        };
        let gap = is_gap.then(|| log.gap(replay_from.id(), &id)).flatten();
        let start = StartId { id, sequence: cursor, gap, announces_ids: self.announces_ids };
        // The opening reports what each channel has lost so far.
        let span = |channel| Span::new(channel, log.floor(channel).max(cursor));
        let mut replay = Replay { spans: channels.iter().map(span).collect(), cursor };
        let (first_slice, is_last) = replay.take_slice(log);
        state.add(subscriber, channels);
        if !is_last {
            subscriber.set_replaying(true);
            state.replays.insert(subscriber.id(), replay);
        }
        let resumption = match replay_from {
            _ if is_gap => Resumption::Gap,
            ReplayFrom::Now => Resumption::NotRequested,
            ReplayFrom::Id(_) | ReplayFrom::Last(_) => Resumption::Complete,
        };
        Ok(Opening { resumption, start: Some(start), first_slice, is_replaying: !is_last })
    }

    /// Takes the next part of the subscriber's replay. The critical section that takes the last part makes the subscriber
    /// live, so that replay meets live with neither a gap nor a duplicate.
    pub(crate) fn next_slice(&self, subscriber: &Subscriber, allow_callbacks: bool) -> Slice {
        let mut deferred = Deferred::default();
        let mut state = self.state.lock();
        let slice = state.next_slice(subscriber, allow_callbacks, &mut deferred);
        // Handed to whoever waits: let go and taken again at once, it would mostly come back to this thread, and a
        // publisher would wait for many slices.
        MutexGuard::unlock_fair(state);
        deferred.finish();
        slice
    }

    /// Disconnects a subscriber whose replay was overtaken, so that it resumes and is sent a gap. It may have left before,
    /// and was to get the rest.
    pub(crate) fn end_overtaken(&self, subscriber: &Subscriber) {
        if !self.end(subscriber.id(), EndCause::QueueFull, true) {
            drop(subscriber.abort(EndCause::QueueFull));
        }
    }
}

impl State {
    fn next_slice(&mut self, subscriber: &Subscriber, allow_callbacks: bool, deferred: &mut Deferred) -> Slice {
        let (Some(log), Some(replay)) = (&mut self.log, self.replays.get_mut(&subscriber.id())) else {
            return Slice::Payloads { gap: None, payloads: Vec::new(), is_last: true };
        };
        if !allow_callbacks && log.has_expired() {
            return Slice::NeedsCall;
        }
        log.expire(&mut deferred.payloads);
        let is_overtaken = replay.spans.iter().any(|span| span.is_overtaken(replay.cursor, log.floor(&span.channel)));
        if is_overtaken && !subscriber.drops_oldest() {
            return if allow_callbacks { Slice::Overtaken } else { Slice::NeedsCall };
        }
        let gap = if is_overtaken { replay.skip_evicted(log) } else { None };
        let (payloads, is_last) = replay.take_slice(log);
        if is_last {
            self.replays.remove(&subscriber.id());
            subscriber.set_replaying(false);
        }
        Slice::Payloads { gap, payloads, is_last }
    }
}

impl Replay {
    /// Takes the next part, and returns whether it is the last.
    fn take_slice(&mut self, log: &EventLog<Payload>) -> (Vec<Payload>, bool) {
        let (events, is_last) = log.slice(&self.spans, self.cursor);
        self.cursor = events.last().map_or(self.cursor, |(sequence, _)| *sequence);
        (events.into_iter().map(|(_, payload)| payload).collect(), is_last)
    }

    /// Continues behind what its channels have lost, and returns the event that reports it.
    fn skip_evicted(&mut self, log: &EventLog<Payload>) -> Option<Frame> {
        let mut behind = self.cursor;
        for span in &mut self.spans {
            let floor = log.floor(&span.channel);
            if span.is_overtaken(self.cursor, floor) {
                span.from = floor;
                behind = behind.max(floor);
            }
        }
        let id = log.id(self.cursor);
        log.gap(&id, &log.id(behind)).map(|event| event.with_id(&id).encode())
    }
}

/// Returns the sequence behind which the replay begins, and whether something newer than what was asked for is lost.
fn find_start(log: &EventLog<Payload>, channels: &[Arc<str>], replay_from: &ReplayFrom) -> (u64, bool) {
    let floors = || channels.iter().map(|channel| log.floor(channel));
    match replay_from {
        ReplayFrom::Now => (log.sequence(), false),
        ReplayFrom::Last(events) => log.before_last(channels, *events),
        ReplayFrom::Id(id) => match log.sequence_of(id, channels) {
            Some(sequence) if floors().all(|floor| floor <= sequence) => (sequence, false),
            // The lowest floor: from there on, what is not replayed is known to be lost. A higher one would be
            // above events of another channel that are still there.
            sequence => (sequence.unwrap_or(0).max(floors().min().unwrap_or(0)), true),
        },
    }
}
