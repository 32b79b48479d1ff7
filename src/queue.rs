//! One subscriber's queue: what waits for it, within which bounds, and whose turn it is.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use crate::event::{self, Event, Frame};
use crate::overflow::{Overflow, Shelf};
use crate::stats::{Counters, EndCause};

/// What the application says about one subscriber, without its type: only `publisher.rs` knows that.
#[derive(Clone)]
pub(crate) struct Properties(Option<Arc<dyn Any + Send + Sync>>);

impl Properties {
    pub(crate) fn new(properties: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(properties)))
    }

    pub(crate) fn as_any(&self) -> &dyn Any {
        &**self.0.as_ref().expect("BUG: properties are taken out only to be dropped")
    }

    pub(crate) fn downcast<P: Any + Send + Sync>(&self) -> Arc<P> {
        let properties = self.0.clone().expect("BUG: properties are taken out only to be dropped");
        properties.downcast().expect("BUG: properties of another type")
    }
}

impl Drop for Properties {
    /// The last reference may be dropped by a server's thread, or by another thread's `publish`.
    fn drop(&mut self) {
        drop_caught(self.0.take());
    }
}

/// What `publish_with` was given, without the properties' type.
type Closure = dyn Fn(&dyn Any) -> Option<Event> + Send + Sync;

/// An event that each subscriber gets rendered for its own properties, on the thread that takes it out of
/// the queue.
pub(crate) struct Render {
    /// Always there, until it is dropped.
    closure: Option<Box<Closure>>,
    size: usize,
    /// The event's id: the one that was published with it, or the history's.
    id: Option<String>,
    /// Its place in the history; 0 if it has none.
    sequence: u64,
    /// A key was published with it.
    has_key: bool,
}

impl Render {
    /// `id` is used where no history gives it another.
    pub(crate) fn new<F>(closure: F, id: Option<String>, has_key: bool) -> Self
    where
        F: Fn(&dyn Any) -> Option<Event> + Send + Sync + 'static,
    {
        // What the closure's captures own elsewhere cannot be known; the bound by frames holds for those.
        let size = size_of::<Self>() + size_of::<F>();
        Self { closure: Some(Box::new(closure)), size, id, sequence: 0, has_key }
    }

    /// Renders the event for these properties; `None` skips the subscriber. A panic costs it this event, and the frame
    /// reports that.
    pub(crate) fn frame(&self, properties: &Properties, counters: &Counters) -> Option<Frame> {
        let closure = self.closure.as_deref().expect("BUG: a closure is taken out only to be dropped");
        // Unwind safety: what a broken closure leaves behind is its own captures, which it asked for by
        // being `Sync`; nothing of ours is borrowed mutably across the call.
        let event = match catch_unwind(AssertUnwindSafe(|| closure(properties.as_any()))) {
            Ok(event) => event?,
            Err(payload) => {
                counters.count_panicked();
                drop_caught(payload);
                event::gap_in_place(self.id.as_deref())
            }
        };
        // The history and the queues were given the event before the closure made it.
        let loses_id = self.id.is_some() && event.own_id().is_some_and(|own| Some(own) != self.id.as_deref());
        let loses_key = !self.has_key && event.own_key().is_some();
        if loses_id || loses_key {
            counters.count_unusable_field();
        }
        let id = self.id.as_deref().or(event.own_id());
        let mut frame = event.encode_unsealed();
        frame.seal(id, self.sequence);
        Some(frame)
    }
}

impl Drop for Render {
    /// The last to let an event go may be a writer thread, or somebody else's `publish`.
    fn drop(&mut self) {
        drop_caught(self.closure.take());
    }
}

/// Drops what is the application's, whose `Drop` may panic, and must take nobody else along.
pub(crate) fn drop_caught<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // Its own `Drop` may panic too, and so on.
        std::mem::forget(payload);
    }
}

/// How long to wait for the next frame.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    Not,
    Until(Instant),
    Forever,
}

/// What waits in a queue. Small, because a channel that has had an item has a block of 31 of them: 1,500 bytes with items of
/// 16 bytes, 2,240 with 40. A test holds it to that.
#[derive(Clone)]
pub(crate) enum Item {
    Frame(Frame),
    Render(Arc<Render>),
    /// One that waits on the shelf, or did.
    Shelved,
    /// So many were lost.
    Gap(u64),
    /// The last item. It travels in the queue, so that whoever waits there sees it after all that was
    /// queued before, and needs no second thing to wait for. Why, the queue says.
    End,
}

impl Item {
    /// Gives the event its id and its place in the history, which are known under the lock only.
    pub(crate) fn seal(&mut self, id: Option<&str>, sequence: u64) {
        match self {
            Self::Frame(frame) => frame.seal(id, sequence),
            Self::Render(render) => {
                let render = Arc::get_mut(render).expect("BUG: a closure was shared before it had its id");
                render.id = id.map(str::to_owned);
                render.sequence = sequence;
            }
            Self::Shelved | Self::Gap(_) | Self::End => unreachable!("BUG: it has no id"),
        }
    }

    /// The bytes that count towards the queue's bound.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Render(render) => render.size,
            Self::Shelved | Self::Gap(_) | Self::End => 0,
        }
    }
}

/// How much may wait for one subscriber, and what happens above that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueBounds {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
    pub(crate) overflow: Overflow,
}

/// What stands on the shelf: an item, and what it weighs with its key.
type Shelved = (Item, u64);

/// There is no room, and none can be made.
#[derive(Debug)]
pub(crate) struct Full;

// # The wake protocol
//
// One atomic location for each stream, `Turn`, with the bits NOTIFIED and RUNNING, and one owner of the
// stream at a time.
//
//     producer                                  writer thread
//     1  queue the item                         a  take the stream from the run queue
//     2  old = fetch_or(NOTIFIED)               b  swap(RUNNING)
//     3  if old == 0: to the run queue          c  drain the queue, until it is seen empty
//                                               d  write
//                                               e  compare_exchange(RUNNING, 0); if it fails: to the run queue
//
// What can happen, by where the producer's 1 and 2 fall; 3 follows from 2:
//
//     I    1, 2 before a, the stream idle: old is 0, 3 puts it on the run queue; c finds the item.
//     II   1, 2 before a, the stream on the run queue already: old has a bit, and the a to come finds the item.
//     III  1 before c, 2 between b and e: c finds the item, and e fails; the turn to come finds nothing. One
//          look too many, none too few.
//     IV   1 after c, 2 before e: e fails, and the turn to come finds the item.
//     V    1 after c, 2 after e: old is 0, 3 puts it on the run queue.
//     VI   1 before c, 2 after e: c finds the item, 3 puts the stream on the run queue; as III.
//     VII  1 before b, 2 between a and b: swap clears NOTIFIED; c comes after b and finds the item.
//     VIII two producers, both 2 after e: only the first sees 0, so the stream is on the run queue once.
//     IX   the stream is not handed over yet: it begins as RUNNING, so 2 never sees 0, and handing over puts it
//          on the run queue itself, whose first c finds what was queued before.
//
// The tests at the end of this file walk through every order of these steps there is. `race_window` marks where a
// test build lingers.
//
// # The oldest item
//
// Who is handed over and keeps up has one item in its queue at a time. That one needs no channel, of which four cache lines
// and a block of memory would be touched for it: it stands in the queue itself, in `oldest`.
//
//     producer                                  reader
//     1  waited = fetch_add(weight)             a  lock `oldest`
//     2  if waited == 0: into `oldest`,         b  take it, or else the first of the channel
//        else into the channel                  c  unlock
//                                               d  fetch_sub(weight)
//
// What is in `oldest` is older than all that is in the channel. Items are put in one at a time, under the registry's lock: when
// 1 sees 0, each item before was taken at b, and those after it see more than 0 until it is taken itself. And what b
// finds in the channel is older than what is put into `oldest` after a, which is why b looks at both under one lock. That is
// held for these few steps only, never for something that waits. Tokens of the shelf weigh nothing, so one may be left when 1
// sees 0; the shelf asks for no other then, and no token is older than another.
//
// Who waits on the channel itself, an iterator, would not be woken by `oldest`, so it is for streams that are handed over.

/// Whose turn it is with a stream that is handed over: the protocol that loses no wake-up, see above.
///
/// Two bits. While they are not both 0 the stream is somebody's: it is on the run queue or about to be put there, waits
/// for its first turn, or a writer thread has it.
pub(crate) struct Turn(AtomicU8);

impl Turn {
    /// Something was queued that no turn has looked at yet.
    const NOTIFIED: u8 = 0b01;
    /// Somebody owns the stream: a writer thread, or, before it is handed over, its iterator.
    const RUNNING: u8 = 0b10;

    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(Self::RUNNING))
    }

    /// After something was queued. `true`: nobody else will look, the caller puts the stream on the run queue.
    pub(crate) fn notify(&self) -> bool {
        self.0.fetch_or(Self::NOTIFIED, SeqCst) == 0
    }

    /// Before the queue is looked at: what comes from here on notifies anew.
    pub(crate) fn start(&self) {
        self.0.swap(Self::RUNNING, SeqCst);
    }

    /// After the queue was seen empty. `false`: something came meanwhile, and the turn is not over.
    pub(crate) fn end(&self) -> bool {
        self.0.compare_exchange(Self::RUNNING, 0, SeqCst, SeqCst).is_ok()
    }
}

/// Where the queues stand whose streams are to be looked at.
pub(crate) trait RunQueue: Send + Sync {
    /// Puts a queue behind the others.
    fn put(&self, queue: Arc<Queue>);
}

/// Who writes what is queued.
struct HandedOver {
    run_queue: Arc<dyn RunQueue>,
    stream: Box<dyn Any + Send + Sync>,
}

/// Puts these queues, all of one publisher, on their run queue.
pub(crate) fn wake(queues: impl IntoIterator<Item = Arc<Queue>>) {
    let mut run_queue = None;
    for queue in queues {
        run_queue.get_or_insert_with(|| Arc::clone(&queue.handed_over().run_queue)).put(queue);
    }
}

/// One subscriber's queue: the registry holds it to put items in, the subscription to take them out.
///
/// Both halves of the channel are in it, so it never disconnects: a stream ends by `Item::End` and by
/// nothing else. The channel is unbounded, since crossbeam allocates all slots of a bounded one at once
/// (1.5 MB for 65,536); the bounds are kept by `offer`, which is called under the registry's lock only.
// What each event touches stands first and close together, as in `Subscription`.
#[repr(C)]
pub(crate) struct Queue {
    /// Set before the first `Turn::end`.
    handed_over: OnceLock<HandedOver>,
    pub(crate) turn: Turn,
    /// A publisher waits for room.
    awaited: AtomicBool,
    /// The stream ends at once: nothing that is still queued may be delivered.
    cut: AtomicBool,
    /// Whether the application was told that it opened, and whether it has left, in bits: it is told of the end after the
    /// beginning, whichever comes first.
    told: AtomicU8,
    /// How many items wait, times `ITEM`, and their size: one location for both bounds, which each push writes anyway
    /// (asking the channel for its length as well reads a cache line that its reader writes, 0.1 us of 7 for a
    /// delivery). Added to before an item can be taken, subtracted from after.
    waiting: AtomicU64,
    /// The item that came when nothing waited, if the stream was handed over.
    oldest: Mutex<Option<Item>>,
    /// Where the items are if some may be lost; then those in the queue are tokens.
    shelf: Option<Box<Shelf<Shelved>>>,
    bounds: QueueBounds,
    sender: Sender<Item>,
    receiver: Receiver<Item>,
    /// Why the stream ends: set as the subscriber leaves the registry.
    end: OnceLock<EndCause>,
    /// Where the stream may be parked, if its socket does not block.
    parks_at: OnceLock<Weak<dyn NonBlocking>>,
}

impl Queue {
    /// One item in `waiting`; below it there is room for a terabyte.
    const ITEM: u64 = 1 << 40;

    const OPENED: u8 = 0b01;
    const LEFT: u8 = 0b10;

    fn weight(size: usize) -> u64 {
        Self::ITEM + size as u64
    }

    fn weighed(item: Item) -> Shelved {
        let weight = Self::weight(item.size());
        (item, weight)
    }

    pub(crate) fn new(bounds: QueueBounds) -> Self {
        let (sender, receiver) = unbounded();
        let may_lose = matches!(bounds.overflow, Overflow::DropOldest | Overflow::LatestPerKey);
        Self {
            sender,
            receiver,
            oldest: Mutex::new(None),
            bounds,
            shelf: may_lose.then(|| Box::new(Shelf::new())),
            awaited: AtomicBool::new(false),
            waiting: AtomicU64::new(0),
            end: OnceLock::new(),
            cut: AtomicBool::new(false),
            told: AtomicU8::new(0),
            turn: Turn::new(),
            handed_over: OnceLock::new(),
            parks_at: OnceLock::new(),
        }
    }

    /// Whether an item of this size still fits. An empty queue has room for any, or one large event would
    /// end even those who keep up.
    pub(crate) fn has_room(&self, size: usize) -> bool {
        let waiting = self.waiting.load(Relaxed);
        let (items, bytes) = (waiting / Self::ITEM, waiting % Self::ITEM);
        items == 0 || (items < self.bounds.frames as u64 && bytes + size as u64 <= self.bounds.bytes as u64)
    }

    /// Queues an item as the bounds allow, and returns the queue if it is to be woken, without the lock. What waits no more
    /// because of it goes into `dropped`.
    pub(crate) fn offer(
        self: &Arc<Self>,
        item: &Item,
        key: Option<&Arc<str>>,
        dropped: &mut Vec<Item>,
    ) -> Result<Option<Arc<Self>>, Full> {
        let size = item.size();
        let Some(shelf) = &self.shelf else {
            return if self.has_room(size) { Ok(self.push(item.clone())) } else { Err(Full) };
        };
        let mut drops = |(item, weight): Shelved| {
            self.waiting.fetch_sub(weight, Relaxed);
            dropped.push(item);
        };
        let loses = self.bounds.overflow == Overflow::DropOldest;
        let key = key.filter(|_| !loses);
        let size = size + key.map_or(0, |key| key.len());
        if let Some(older) = key.and_then(|key| shelf.replace(key)) {
            drops(older);
        }
        while loses && !self.has_room(size) {
            // None is left where the reader holds the last: that is room enough.
            let Some(oldest) = shelf.lose() else { break };
            drops(oldest);
        }
        if !loses && !self.has_room(size) {
            return Err(Full);
        }
        let waited = self.waiting.fetch_add(Self::weight(size), Relaxed);
        if shelf.put((item.clone(), Self::weight(size)), key) {
            self.send(Item::Shelved, waited);
        }
        race_window();
        Ok(self.notify())
    }

    /// Queues an item whatever the bounds say, behind all others. Returns the queue if it is to be woken, without the lock.
    #[must_use = "a stream that is not woken never goes on"]
    pub(crate) fn push(self: &Arc<Self>, item: Item) -> Option<Arc<Self>> {
        let waited = self.waiting.fetch_add(Self::weight(item.size()), Relaxed);
        self.send(item, waited);
        race_window();
        self.notify()
    }

    /// Puts an item where it is the last, if so much `waited` before it.
    fn send(&self, item: Item, waited: u64) {
        if waited == 0 && self.handed_over.get().is_some() {
            race_window();
            let older = self.oldest.lock().replace(item);
            assert!(older.is_none(), "BUG: an item waited that was not counted");
            return;
        }
        self.sender.send(item).expect("BUG: a queue holds its own receiver");
    }

    /// For how long a publisher waits for room.
    pub(crate) fn blocks(&self) -> Option<Duration> {
        if let Overflow::Block(deadline) = self.bounds.overflow { Some(deadline) } else { None }
    }

    /// Whether there is room; if not, who takes something out is told that somebody waits for it.
    pub(crate) fn has_room_or_is_awaited(&self, size: usize) -> bool {
        self.awaited.store(true, SeqCst);
        // Either this sees what the reader has taken, or the reader sees the flag.
        fence(SeqCst);
        self.has_room(size)
    }

    pub(crate) fn is_awaited_no_more(&self) {
        self.awaited.store(false, SeqCst);
    }

    /// Whether a publisher waits for the room that the reader has just made.
    pub(crate) fn is_awaited(&self) -> bool {
        self.blocks().is_some() && {
            fence(SeqCst);
            self.awaited.load(SeqCst)
        }
    }

    /// The queue, if it is to be woken so that somebody looks at it: nobody does, and it is handed over.
    #[must_use = "a stream that is not woken never goes on"]
    pub(crate) fn notify(self: &Arc<Self>) -> Option<Arc<Self>> {
        self.turn.notify().then(|| Arc::clone(self))
    }

    fn handed_over(&self) -> &HandedOver {
        self.handed_over.get().expect("BUG: nobody's turn, and not handed over")
    }

    /// What it was handed over with.
    pub(crate) fn stream(&self) -> &(dyn Any + Send + Sync) {
        &*self.handed_over().stream
    }

    /// From now on there is somebody to wake. The stream's own first turn follows.
    pub(crate) fn hand_over(
        self: &Arc<Self>,
        run_queue: Arc<dyn RunQueue>,
        stream: Box<dyn Any + Send + Sync>,
        parks_at: Option<&Arc<dyn NonBlocking>>,
    ) {
        if let Some(parks_at) = parks_at {
            parks_at.parking().is_for(Arc::downgrade(self));
            // Not held: a descriptor is to be free again as soon as the stream is over.
            let _ = self.parks_at.set(Arc::downgrade(parks_at));
        }
        let handed_over = HandedOver { run_queue, stream };
        assert!(self.handed_over.set(handed_over).is_ok(), "BUG: a subscription was handed over twice");
    }

    /// Says why the stream ends. Called once, by whoever took the subscriber out of the registry.
    pub(crate) fn end(&self, cause: EndCause) {
        assert!(self.end.set(cause).is_ok(), "BUG: a subscriber left the registry twice");
    }

    /// The application has been told that it opened. Whether it has left meanwhile, which is to be told now.
    pub(crate) fn opened_after_it_ended(&self) -> bool {
        self.told.fetch_or(Self::OPENED, SeqCst) & Self::LEFT != 0
    }

    /// It has left, and whether that is to be told now; otherwise whoever opens it does.
    pub(crate) fn ends_after_it_opened(&self) -> bool {
        self.told.fetch_or(Self::LEFT, SeqCst) & Self::OPENED != 0
    }

    /// Ends the stream at once, after `end`. Where others than its reader do that, `throw_away` must follow,
    /// without the lock.
    pub(crate) fn cut(&self) {
        self.cut.store(true, SeqCst);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(SeqCst)
    }

    /// Drops what a queue holds whose stream is cut or over, so that its memory is back even while the reader hangs in a
    /// write, and wakes the reader, if there is one. Nothing is pushed any more: the subscriber has left the registry.
    ///
    /// The reader may take items at the same time, and so see one behind some that were dropped here. It
    /// delivers none of them, because it looks at `cut` after each take: the flag was set before the first
    /// drop, and both sides take under the lock of `oldest`, or where nothing is in it, through the channel's atomic head.
    pub(crate) fn throw_away(self: &Arc<Self>) {
        let items = std::iter::from_fn(|| self.first()).filter(|item| !matches!(item, Item::Shelved));
        let unshelved = items.map(Self::weighed);
        let shelved = self.shelf.iter().flat_map(|shelf| shelf.clear());
        for (_item, weight) in unshelved.chain(shelved) {
            self.waiting.fetch_sub(weight, Relaxed);
        }
        wake(self.push(Item::End));
        // It would wait for a socket that need not ever have room.
        self.parks_at.get().and_then(Weak::upgrade).into_iter().for_each(|writer| writer.parking().has_room());
    }

    /// Why the stream has ended or is about to, also when its reader has not come that far.
    pub(crate) fn ending(&self) -> Option<EndCause> {
        self.end.get().copied()
    }

    pub(crate) fn len(&self) -> usize {
        (self.waiting.load(Relaxed) / Self::ITEM) as usize
    }

    /// The next item as it is queued, if there is one.
    fn first(&self) -> Option<Item> {
        // Who keeps up would look into its channel for nothing, each time.
        if self.waiting.load(Relaxed) == 0 {
            return None;
        }
        let mut oldest = self.oldest.lock();
        oldest.take().or_else(|| {
            race_window();
            self.receiver.try_recv().ok()
        })
    }

    /// The next item and how many were lost before it, waiting for it as `wait` says; `None` when none came in that time.
    pub(crate) fn take(&self, wait: Wait) -> Option<(u64, Item)> {
        if self.is_cut() {
            // Left to who throws it away: the last to let go of a closure calls the application.
            return Some((0, Item::End));
        }
        let item = match self.first() {
            Some(item) => item,
            None => match wait {
                Wait::Not => return None,
                Wait::Until(deadline) => self.receiver.recv_deadline(deadline).ok()?,
                Wait::Forever => self.receiver.recv().expect("BUG: a queue holds its own sender"),
            },
        };
        let taken = match (item, &self.shelf) {
            // Nothing is there for a token whose item was dropped, if others took its place that had none.
            (Item::Shelved, Some(shelf)) => shelf.take(),
            (item, _) => Some((0, Self::weighed(item))),
        };
        let taken = taken.map(|(lost, (item, weight))| {
            self.waiting.fetch_sub(weight, Relaxed);
            (lost, item)
        });
        race_window();
        if self.is_cut() { Some((0, Item::End)) } else { Some(taken.unwrap_or((0, Item::Shelved))) }
    }
}

// # Parking
//
// A stream whose socket takes no more, and does not block, is parked: it is RUNNING and nobody's, until whoever watches
// the socket says that there is room again.
//
//     writer thread                             who watches
//     -  write, until it would block
//     a  state = TRIES                          1  old = swap(ROOM)
//     b  write, until it would block            2  if old == PARKED: to the run queue
//     c  compare_exchange(TRIES, PARKED);
//        if it fails: to the run queue
//
// Room that came before a is found by b; between a and c, c fails; after c, 2 finds PARKED, once.
//
// A stream that is cut is woken by 1 and 2 too, and that is no room which b could find: came it before a, it is forgotten.
// So after c the writer thread looks whether the queue was cut, and does 1 and 2 itself.

/// What is written to without blocking, shared with whoever watches it.
pub(crate) trait NonBlocking: Send + Sync {
    /// Writes as much as it takes now; an error of the kind `WouldBlock` where that is nothing.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Where the stream waits for room.
    fn parking(&self) -> &Parking;

    /// The stream has ended, and nothing is written any more. Whether all of it was taken.
    fn is_over(&self, took_all: bool);
}

/// Where a stream waits for its socket.
pub(crate) struct Parking {
    state: AtomicU8,
    /// When it was parked, in microseconds since this was made.
    since: AtomicU64,
    made: Instant,
    timed_out: AtomicBool,
    queue: OnceLock<Weak<Queue>>,
}

impl Parking {
    const TRIES: u8 = 0;
    const PARKED: u8 = 1;
    const ROOM: u8 = 2;

    #[cfg(any(feature = "server", test))]
    pub(crate) fn new() -> Self {
        let (state, since) = (AtomicU8::new(Self::TRIES), AtomicU64::new(0));
        Self { state, since, made: Instant::now(), timed_out: AtomicBool::new(false), queue: OnceLock::new() }
    }

    /// Whom it wakes. Set before the stream's first turn.
    pub(crate) fn is_for(&self, queue: Weak<Queue>) {
        assert!(self.queue.set(queue).is_ok(), "BUG: two streams in one place");
    }

    /// A write follows.
    pub(crate) fn tries(&self) {
        self.state.store(Self::TRIES, SeqCst);
    }

    /// The write would have blocked. `false`: there is room again.
    pub(crate) fn parks(&self) -> bool {
        self.since.store(self.made.elapsed().as_micros() as u64, SeqCst);
        race_window();
        self.state.compare_exchange(Self::TRIES, Self::PARKED, SeqCst, Relaxed).is_ok()
    }

    /// There is room again, or the stream is to look for another reason.
    pub(crate) fn has_room(&self) {
        if self.state.swap(Self::ROOM, SeqCst) == Self::PARKED {
            wake(self.queue.get().and_then(Weak::upgrade));
        }
    }

    /// How long it has been parked, if it is.
    #[cfg(feature = "server")]
    pub(crate) fn parked_for(&self) -> Option<Duration> {
        let is_parked = self.state.load(SeqCst) == Self::PARKED;
        is_parked.then(|| self.made.elapsed().saturating_sub(Duration::from_micros(self.since.load(SeqCst))))
    }

    /// It has been parked for too long: the stream ends.
    #[cfg(feature = "server")]
    pub(crate) fn times_out(&self) {
        self.timed_out.store(true, SeqCst);
        self.has_room();
    }

    pub(crate) fn has_timed_out(&self) -> bool {
        self.timed_out.load(SeqCst)
    }
}

/// Where a test build (`--cfg sse_race_windows`) stays a while, because another thread could come in between.
#[inline]
pub(crate) fn race_window() {
    #[cfg(sse_race_windows)]
    {
        use std::hash::{BuildHasher, RandomState};
        match RandomState::new().hash_one(0) % 16 {
            0 => std::thread::sleep(std::time::Duration::from_micros(50)),
            1..8 => std::thread::yield_now(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Arc<Queue> {
        Arc::new(Queue::new(QueueBounds { frames: 1, bytes: 1, overflow: Overflow::Disconnect }))
    }

    #[test]
    fn a_cut_queue_gives_nothing_but_its_end() {
        let queue = queue();
        assert!(queue.push(numbered(0)).is_none());
        queue.end(EndCause::QueueFull);
        queue.cut();
        assert!(matches!(queue.take(Wait::Not), Some((0, Item::End))), "delivered from a queue that was thrown away");
    }

    struct Woken(AtomicU8);

    impl RunQueue for Woken {
        fn put(&self, _: Arc<Queue>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn numbered(n: u32) -> Item {
        Item::Frame(Event::new(n.to_string()).encode())
    }

    fn number(item: &Item) -> u32 {
        let Item::Frame(frame) = item else { panic!("not what was queued") };
        frame.trim().strip_prefix("data: ").unwrap().parse().unwrap()
    }

    /// A queue of a stream that is handed over, in which `before` items waited already.
    fn handed_over(before: u32) -> Arc<Queue> {
        let queue = queue();
        (0..before).for_each(|n| assert!(queue.push(numbered(n)).is_none()));
        queue.hand_over(Arc::new(Woken(AtomicU8::new(0))), Box::new(()), None);
        queue
    }

    #[test]
    fn who_is_handed_over_and_keeps_up_needs_no_channel() {
        let queue = handed_over(2);
        let mut taken = Vec::new();
        let mut take = |queue: &Queue| taken.extend(queue.take(Wait::Not).map(|(_, item)| number(&item)));
        (2..4).for_each(|n| drop(queue.push(numbered(n))));
        assert_eq!(queue.receiver.len(), 4, "something waited when it came");
        (0..5).for_each(|_| take(&queue));
        for n in 4..8 {
            drop(queue.push(numbered(n)));
            assert_eq!(queue.receiver.len(), 0);
            take(&queue);
        }
        (8..11).for_each(|n| drop(queue.push(numbered(n))));
        assert_eq!((queue.receiver.len(), queue.len()), (2, 3));
        (0..4).for_each(|_| take(&queue));
        assert_eq!(taken, Vec::from_iter(0..11));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn no_item_overtakes_another_whoever_is_quicker() {
        const ITEMS: u32 = 20_000;
        let queue = handed_over(3);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for n in 3..ITEMS {
                    // Now and then who reads sees it empty.
                    (0..100).take_while(|_| n % 7 < 3 && queue.len() > 0).for_each(|_| std::thread::yield_now());
                    drop(queue.push(numbered(n)));
                }
            });
            let deadline = Instant::now() + Duration::from_secs(60);
            for expected in 0..ITEMS {
                let item = loop {
                    assert!(Instant::now() < deadline, "{expected} never came");
                    if let Some((_, item)) = queue.take(Wait::Not) {
                        break item;
                    }
                };
                assert_eq!(number(&item), expected);
            }
        });
    }

    /// The order of the three steps of a write, and of the one that says that there is room, that the essay lists.
    #[test]
    fn room_wakes_a_parked_stream_once_whenever_it_comes() {
        for room_comes in 0..4 {
            let (parking, woken) = (Parking::new(), Arc::new(Woken(AtomicU8::new(0))));
            let queue = queue();
            queue.hand_over(Arc::clone(&woken) as Arc<dyn RunQueue>, Box::new(()), None);
            parking.is_for(Arc::downgrade(&queue));
            let mut would_block = true;
            let mut step = 0;
            let mut room_may_come = |would_block: &mut bool| {
                if step == room_comes {
                    *would_block = false;
                    parking.has_room();
                }
                step += 1;
            };
            room_may_come(&mut would_block);
            parking.tries();
            room_may_come(&mut would_block);
            let blocks = would_block;
            room_may_come(&mut would_block);
            let goes_on_by_itself = !blocks || !parking.parks();
            room_may_come(&mut would_block);
            let wakes = woken.0.load(SeqCst);
            assert_eq!(u8::from(goes_on_by_itself) + wakes, 1, "room came at step {room_comes}");
        }
    }

    #[test]
    fn an_item_takes_16_bytes() {
        assert_eq!(size_of::<Item>(), 16);
    }

    /// The wake protocol with everything else taken away: its steps are those of the essay above.
    struct Model {
        turn: Turn,
        /// Items that wait.
        queued: usize,
        /// How often the stream stands on the run queue.
        on_run_queue: usize,
        /// What each writer thread does next, if it has taken the stream.
        threads: [Option<Step>; 2],
        /// What each producer does next.
        producers: [Option<Step>; 2],
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Step {
        Queue,
        Notify,
        Start,
        Drain,
        End,
    }

    impl Model {
        fn new(idle: bool) -> Self {
            let model = Self {
                turn: Turn::new(),
                queued: 0,
                on_run_queue: 1,
                threads: [None; 2],
                producers: [Some(Step::Queue); 2],
            };
            // Handing over puts it on the run queue itself; an idle one has had that turn.
            if idle {
                assert!(model.turn.end());
                return Self { on_run_queue: 0, ..model };
            }
            model
        }

        /// Does the next step of producer 0 or 1, or thread 2 or 3; `false` if it has none.
        fn step(&mut self, actor: usize) -> bool {
            if let Some(producer) = self.producers.get_mut(actor) {
                match producer.take() {
                    Some(Step::Queue) => {
                        self.queued += 1;
                        *producer = Some(Step::Notify);
                    }
                    Some(Step::Notify) => self.on_run_queue += usize::from(self.turn.notify()),
                    _ => return false,
                }
            } else {
                let thread = &mut self.threads[actor - 2];
                match thread.take() {
                    None if self.on_run_queue > 0 => {
                        self.on_run_queue -= 1;
                        *thread = Some(Step::Start);
                    }
                    Some(Step::Start) => {
                        self.turn.start();
                        *thread = Some(Step::Drain);
                    }
                    Some(Step::Drain) => {
                        self.queued = 0;
                        *thread = Some(Step::End);
                    }
                    Some(Step::End) => self.on_run_queue += usize::from(!self.turn.end()),
                    _ => return false,
                }
            }
            let owners = self.on_run_queue + self.threads.iter().flatten().count();
            assert!(owners <= 1, "the stream has {owners} owners");
            true
        }
    }

    /// Walks through every order of the steps of two producers and two threads, to the end of each.
    fn every_order(idle: bool) -> usize {
        let mut orders = 0;
        let mut prefixes = vec![Vec::new()];
        while let Some(prefix) = prefixes.pop() {
            let after = |prefix: &[usize]| {
                let mut model = Model::new(idle);
                assert!(prefix.iter().all(|actor| model.step(*actor)));
                model
            };
            let mut over = true;
            for actor in 0..4 {
                if after(&prefix).step(actor) {
                    over = false;
                    prefixes.push([&prefix[..], &[actor]].concat());
                }
            }
            if over {
                let model = after(&prefix);
                assert_eq!(model.queued, 0, "{prefix:?} lost a wake-up");
                assert!(model.turn.notify(), "{prefix:?} left the stream to nobody");
                orders += 1;
            }
        }
        orders
    }

    #[test]
    fn no_order_of_steps_loses_a_wake_up() {
        assert_eq!(every_order(true), 172);
        assert_eq!(every_order(false), 8148);
    }
}
