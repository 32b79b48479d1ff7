//! Where in the history a subscription begins, and how it proceeds from there to the live events.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Deferred, Registry, State};
use crate::error::OpenError;
use crate::event::{self, Event, Frame};
use crate::follow::{Begin, Line};
use crate::history::{EventLog, Place, Resumption, Span};
use crate::queue::{Full, Payload, Phase, QueueLimits, Subscriber};
use crate::stats::EndCause;
use crate::sync::MutexGuard;

/// The past events that a subscription asks for.
#[derive(Debug)]
pub(crate) enum ReplayFrom {
    /// No past events, or the state if the history keeps the newest event of each key.
    Now,
    /// All events that are newer than this ID.
    Id(String),
    /// This many of the newest events.
    Last(usize),
    /// All events that are newer than this ID, or all that there are, for a follower.
    Follow(Option<String>),
}

impl ReplayFrom {
    /// Returns what a client with this ID asks for, and one without an ID.
    pub(crate) fn new(id: Option<String>, last: Option<usize>, is_follower: bool) -> Self {
        match (id, last) {
            (id, _) if is_follower => Self::Follow(id),
            (Some(id), _) => Self::Id(id),
            (None, Some(events)) => Self::Last(events),
            (None, None) => Self::Now,
        }
    }

    fn resumption(&self, is_gap: bool) -> Resumption {
        match self {
            _ if is_gap => Resumption::Gap,
            Self::Now => Resumption::NotRequested,
            Self::Id(_) | Self::Last(_) | Self::Follow(_) => Resumption::Complete,
        }
    }

    /// Returns the ID that the client sent; empty if it sent none.
    fn id(&self) -> &str {
        if let Self::Id(id) | Self::Follow(Some(id)) = self { id } else { "" }
    }
}

/// The beginning of a subscription.
pub(crate) struct Opening {
    pub(crate) resumption: Resumption,
    /// `None` without a history.
    pub(crate) start: Option<StartId>,
    /// The first payloads from the history.
    pub(crate) first_slice: Vec<Payload>,
    /// `true` if more payloads follow, from [`Registry::next_slice`].
    pub(crate) is_replaying: bool,
}

/// The place in a history where a stream begins.
pub(crate) struct StartId {
    /// The last event ID that the client must hold before its first event.
    id: String,
    /// The client has everything up to this sequence, or is sent a gap for it.
    pub(crate) sequence: u64,
    gap: Option<Event>,
    announces_ids: bool,
    /// What a follower is sent instead.
    for_follower: Option<Box<Begin>>,
}

impl StartId {
    fn new(
        log: &EventLog<Payload>,
        channels: &[Arc<str>],
        replay_from: &ReplayFrom,
        cursor: u64,
        is_gap: bool,
    ) -> Self {
        let id = match replay_from {
            ReplayFrom::Id(id) | ReplayFrom::Follow(Some(id)) if !is_gap => id.clone(),
            _ => log.id(cursor),
        };
        let gap = is_gap.then(|| log.gap(replay_from.id(), &id)).flatten();
        let follows = matches!(replay_from, ReplayFrom::Follow(_));
        let is_whole = matches!(replay_from, ReplayFrom::Follow(None));
        let for_follower = follows.then(|| Box::new(log.begin(channels, cursor, is_whole)));
        Self { id, sequence: cursor, gap, announces_ids: log.announces_ids(), for_follower }
    }

    /// Returns the first frames of a stream that begins here, with this initial data.
    ///
    /// A client that loses its connection after the start ID resumes from there, as if it had seen everything before.
    /// So the ID is sent with the last block that the client must have seen: of the initial data, or else the gap. If
    /// there is neither, the ID is sent alone.
    pub(crate) fn frames(self, initial_data: Vec<Event>) -> Vec<Frame> {
        if let Some(begin) = self.for_follower {
            return vec![event::follow_alone(&Line::Begin(*begin), Some(&self.id), 0)];
        }
        let mut events: Vec<Event> = self.gap.into_iter().chain(initial_data).collect();
        match events.pop() {
            Some(last) => {
                let last = if last.event_id().is_some() { last } else { last.with_id(&self.id) };
                events.push(last);
                events.iter().map(Event::encode).collect()
            }
            None if self.announces_ids => vec![event::id_alone(&self.id)],
            None => Vec::new(),
        }
    }
}

/// A subscriber's progress through the history.
pub(super) struct Replay {
    /// The parts of channels that it delivers.
    spans: Vec<Span>,
    /// The sequence up to which it has taken everything.
    cursor: u64,
    /// The sequence up to which it delivers the newest event of each key, and nothing else; 0 if the client resumes.
    state_until: u64,
    /// Events that were sent to this subscriber alone, each with the sequence of the event before it.
    sent: VecDeque<(u64, Payload)>,
    sent_bytes: usize,
    /// The limits of these events.
    limits: Arc<QueueLimits>,
    /// Events are missing in all channels, which the subscriber has not been sent a gap for.
    has_lost: bool,
}

impl Replay {
    fn new(
        log: &EventLog<Payload>,
        channels: &[Arc<str>],
        replay_from: &ReplayFrom,
        cursor: u64,
        subscriber: &Subscriber,
    ) -> Self {
        // The opening reports what each channel has evicted so far.
        let span = |channel| Span::new(channel, log.floor(channel).max(cursor));
        Self {
            spans: channels.iter().map(span).collect(),
            cursor,
            state_until: if matches!(replay_from, ReplayFrom::Now) { log.sequence() } else { 0 },
            sent: VecDeque::new(),
            sent_bytes: 0,
            limits: Arc::clone(subscriber.limits()),
            has_lost: false,
        }
    }

    /// Puts an event behind those up to this sequence, within the limits of the subscriber's queue.
    pub(super) fn send(&mut self, payload: &Payload, sequence: u64) -> Result<(), Full> {
        let bytes = self.sent_bytes + payload.size();
        let is_full = self.sent.len() >= self.limits.events || bytes > self.limits.bytes;
        if is_full && !self.sent.is_empty() {
            return Err(Full);
        }
        self.sent_bytes = bytes;
        self.sent.push_back((sequence, payload.clone()));
        Ok(())
    }

    /// Notes that events are missing in all channels.
    pub(super) fn note_loss(&mut self) {
        self.has_lost = true;
    }

    /// Adds channels that the subscriber joins during the replay, from this sequence on.
    pub(super) fn join(&mut self, channels: &[Arc<str>], sequence: u64) {
        self.spans.extend(channels.iter().map(|channel| Span::new(channel, sequence)));
    }

    /// Ends channels that the subscriber leaves during the replay. What was published to them before is still
    /// delivered.
    pub(super) fn leave(&mut self, channels: &[Arc<str>], sequence: u64) {
        for span in self.spans.iter_mut().filter(|span| channels.contains(&span.channel)) {
            span.until = span.until.min(sequence);
        }
        let cursor = self.cursor;
        self.spans.retain(|span| span.until > span.from.max(cursor));
    }

    /// Ends the replay at this sequence. Later events are not delivered.
    pub(super) fn end_at(&mut self, sequence: u64) {
        for span in &mut self.spans {
            span.until = span.until.min(sequence);
        }
    }
}

/// The next part of a replay.
pub(crate) enum Slice {
    Payloads {
        /// The event that precedes the payloads if some of the replay was evicted before it was taken.
        gap: Option<Frame>,
        payloads: Vec<Payload>,
        /// `true` if the subscriber is live now: everything newer is queued for it.
        is_last: bool,
    },
    /// Some of the replay was evicted before it was taken, so the subscriber must be disconnected and resume.
    Overtaken,
    /// Hooks would be called or closures dropped, which is not allowed.
    NeedsCall,
}

impl Registry {
    /// Adds a subscriber to these channels, which must be distinct.
    ///
    /// Events published later are queued for it, or come with its replay. Past events that it asks for come with its
    /// replay.
    pub(crate) fn open(
        &self,
        subscriber: &Arc<Subscriber>,
        channels: &[Arc<str>],
        replay_from: &ReplayFrom,
    ) -> Result<Opening, OpenError> {
        let opened = self.open_if(subscriber, channels, replay_from, true)?;
        Ok(opened.expect("BUG: a subscription was not opened because of a gap"))
    }

    /// Adds a subscriber as [`open`](Self::open) does, unless some of the events that it asks for are evicted. Returns
    /// `None` then.
    pub(crate) fn open_without_gap(
        &self,
        subscriber: &Arc<Subscriber>,
        channels: &[Arc<str>],
        replay_from: &ReplayFrom,
    ) -> Result<Option<Opening>, OpenError> {
        self.open_if(subscriber, channels, replay_from, false)
    }

    fn open_if(
        &self,
        subscriber: &Arc<Subscriber>,
        channels: &[Arc<str>],
        replay_from: &ReplayFrom,
        allow_gap: bool,
    ) -> Result<Option<Opening>, OpenError> {
        // Checks that need no lock come before it.
        if channels.len() > self.limits.channels {
            return Err(OpenError::TooManyChannels { given: channels.len(), limit: self.limits.channels });
        }
        self.check_names(channels)?;

        let mut deferred = Deferred::default();
        let mut state = self.state.lock();
        let opened = self.open_locked(&mut state, subscriber, channels, replay_from, allow_gap, &mut deferred);
        drop(state);
        deferred.finish();
        opened
    }

    fn open_locked(
        &self,
        state: &mut State,
        subscriber: &Arc<Subscriber>,
        channels: &[Arc<str>],
        replay_from: &ReplayFrom,
        allow_gap: bool,
        deferred: &mut Deferred,
    ) -> Result<Option<Opening>, OpenError> {
        let replaced = state.check_limits(channels, subscriber.quota_key(), &self.limits)?;
        let Some(log) = &mut state.log else {
            if let Some(oldest) = replaced {
                self.replace(state, oldest, deferred);
            }
            state.add(subscriber, channels);
            let resumption = Resumption::NotRequested;
            return Ok(Some(Opening { resumption, start: None, first_slice: Vec::new(), is_replaying: false }));
        };
        log.expire(&mut deferred.payloads);
        let replay_from = if needs_all(log, channels, replay_from) { &ReplayFrom::Follow(None) } else { replay_from };
        let (cursor, is_gap) = self.find_start(log, channels, replay_from, deferred);
        if is_gap && !allow_gap {
            return Ok(None);
        }
        let start = StartId::new(log, channels, replay_from, cursor, is_gap);
        let mut replay = Replay::new(log, channels, replay_from, cursor, subscriber);
        let (first_slice, is_last) = replay.take_slice(log);
        let is_ahead = cursor > log.sequence();
        if let Some(oldest) = replaced {
            self.replace(state, oldest, deferred);
        }
        state.add(subscriber, channels);
        if is_ahead && let Some(following) = &mut state.following {
            subscriber.set_phase(Phase::Ahead);
            following.add_ahead(subscriber.id(), &start.id, cursor);
        }
        if !is_last {
            subscriber.set_phase(Phase::Replaying);
            state.replays.insert(subscriber.id(), replay);
        }
        let resumption = replay_from.resumption(is_gap);
        Ok(Some(Opening { resumption, start: Some(start), first_slice, is_replaying: !is_last }))
    }

    /// Takes the next part of the subscriber's replay.
    ///
    /// Taking the last part makes the subscriber live in the same critical section. So there is neither a gap nor a
    /// duplicate between the replay and the live events.
    pub(crate) fn next_slice(&self, subscriber: &Subscriber, allow_callbacks: bool) -> Slice {
        let mut deferred = Deferred::default();
        let mut state = self.state.lock();
        let slice = state.next_slice(subscriber, allow_callbacks, &mut deferred);
        // The fair unlock hands the lock to a waiting thread. Otherwise this thread would usually lock it again at
        // once, and a publisher would wait for many slices.
        MutexGuard::unlock_fair(state);
        deferred.finish();
        slice
    }

    /// Disconnects a subscriber whose replay was overtaken, so that it resumes and is sent a gap.
    ///
    /// The subscriber may have left the registry before, with the rest of its replay still due.
    pub(crate) fn end_overtaken(&self, subscriber: &Subscriber) {
        if !self.end(subscriber.id(), EndCause::QueueFull, true) {
            drop(subscriber.abort(EndCause::QueueFull, None));
        }
    }
}

impl State {
    fn next_slice(&mut self, subscriber: &Subscriber, allow_callbacks: bool, deferred: &mut Deferred) -> Slice {
        let (Some(log), Some(replay)) = (&mut self.log, self.replays.get_mut(&subscriber.id())) else {
            return Slice::Payloads { gap: None, payloads: Vec::new(), is_last: true };
        };
        if allow_callbacks {
            log.expire(&mut deferred.payloads);
        } else if log.has_expired() {
            return Slice::NeedsCall;
        }
        let is_overtaken = replay.spans.iter().any(|span| span.is_overtaken(replay.cursor, log.floor(&span.channel)));
        if is_overtaken && !subscriber.drops_oldest() {
            return if allow_callbacks { Slice::Overtaken } else { Slice::NeedsCall };
        }
        let gap = if is_overtaken || replay.has_lost { replay.skip_evicted(log) } else { None };
        let (payloads, is_last) = replay.take_slice(log);
        if is_last {
            self.replays.remove(&subscriber.id());
            subscriber.set_phase(Phase::Live);
        }
        Slice::Payloads { gap, payloads, is_last }
    }
}

impl Replay {
    /// Takes the next part. Returns whether it is the last.
    fn take_slice(&mut self, log: &EventLog<Payload>) -> (Vec<Payload>, bool) {
        let (events, cursor, is_last) = log.slice(&self.spans, self.cursor, self.state_until);
        self.cursor = cursor;
        let mut payloads = Vec::with_capacity(events.len());
        for (sequence, payload) in events {
            self.take_sent(&mut payloads, sequence);
            payloads.push(payload);
        }
        if is_last {
            self.take_sent(&mut payloads, u64::MAX);
        }
        (payloads, is_last)
    }

    /// Moves the events that were sent before the event with this sequence.
    fn take_sent(&mut self, payloads: &mut Vec<Payload>, sequence: u64) {
        while self.sent.front().is_some_and(|(after, _)| *after < sequence) {
            let (_, payload) = self.sent.pop_front().expect("BUG: the first sent event has gone");
            self.sent_bytes -= payload.size();
            payloads.push(payload);
        }
    }

    /// Skips what the channels have evicted. Returns the gap that reports it.
    fn skip_evicted(&mut self, log: &EventLog<Payload>) -> Option<Frame> {
        self.has_lost = false;
        let mut newest_evicted = self.cursor.max(log.last_loss());
        for span in &mut self.spans {
            let floor = log.floor(&span.channel);
            if span.is_overtaken(self.cursor, floor) {
                span.from = floor;
                newest_evicted = newest_evicted.max(floor);
            }
        }
        let id = log.id(self.cursor);
        log.gap(&id, &log.id(newest_evicted)).map(|event| event.with_id(&id).encode())
    }
}

/// Returns whether a follower must begin anew, because the log is another one than it has followed, or has lost events.
fn needs_all(log: &mut EventLog<Payload>, channels: &[Arc<str>], replay_from: &ReplayFrom) -> bool {
    let ReplayFrom::Follow(Some(id)) = replay_from else { return false };
    match log.place(id, channels) {
        Place::Exact(sequence) => log.has_lost_after(sequence),
        Place::Ahead(_) => false,
        Place::Lost(_) | Place::Unknown => true,
    }
}
