//! Snapshots: a page that starts from the application's state, and applies every later event once.

use std::cell::{Cell, RefCell};

use crate::common::gets_nothing;
use server_sent_events::{
    Event, Frame, History, Overflow, Publisher, Resumption, Snapshot, Subscription, SubscriptionBuilder,
};

/// An application that counts, and publishes each change.
struct Application {
    publisher: Publisher,
    count: Cell<u64>,
    /// What happens between the making of a snapshot and the opening of the subscription.
    meanwhile: RefCell<Box<dyn FnMut()>>,
}

impl Application {
    fn new(events_kept: usize) -> Self {
        let history = History::new().max_events_per_channel(events_kept);
        let publisher = Publisher::builder().history(history).heartbeat(None).max_queued_events(50);
        let publisher = publisher.overflow(Overflow::Disconnect).build().unwrap();
        Self { publisher, count: Cell::new(0), meanwhile: RefCell::new(Box::new(|| {})) }
    }

    fn count(&self) {
        self.count.set(self.count.get() + 1);
        self.publisher.publish("+1");
    }

    fn snapshot(&self) -> Snapshot {
        let event = Event::new(self.count.get().to_string()).event("state").unwrap();
        let snapshot = Snapshot { after: self.publisher.last_event_id(), events: vec![event] };
        (self.meanwhile.borrow_mut())();
        snapshot
    }

    fn builder(&self, last_event_id: Option<&str>) -> SubscriptionBuilder<'_, ()> {
        self.publisher.subscription(()).last_event_id(last_event_id)
    }
}

/// A page that shows the count.
#[derive(Default)]
struct Page {
    count: Option<u64>,
    last_event_id: Option<String>,
    /// It has received a gap.
    has_gap: bool,
    snapshots: usize,
}

impl Page {
    fn takes(&mut self, frame: &Frame) {
        let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if let Some(id) = field("id") {
            self.last_event_id = Some(id.to_owned());
        }
        match (field("event"), field("data")) {
            (Some("state"), Some(data)) => {
                self.count = Some(data.parse().unwrap());
                self.snapshots += 1;
            }
            (Some("gap"), _) => self.has_gap = true,
            (None, Some("+1")) => self.count = self.count.map(|count| count + 1),
            (None, None) => {}
            other => panic!("{other:?} in {frame:?}"),
        }
    }

    /// Takes up to this many frames. Returns whether the stream may go on.
    fn reads(&mut self, subscription: &mut Subscription, frames: usize) -> bool {
        for _ in 0..frames {
            match subscription.try_recv() {
                Ok(frame) => self.takes(&frame),
                Err(_) => return subscription.end_cause().is_none(),
            }
        }
        true
    }
}

#[test]
fn a_newcomer_gets_the_state_and_then_what_is_newer() {
    let application = Application::new(100);
    (0..10).for_each(|_| application.count());
    let mut subscription = application.builder(None).snapshot_with(|| application.snapshot()).open().unwrap();
    (0..3).for_each(|_| application.count());
    let mut page = Page::default();
    page.reads(&mut subscription, 100);
    assert_eq!((page.count, page.snapshots, page.has_gap), (Some(13), 1, false));
    assert_eq!(subscription.resumption(), Resumption::NotRequested);
}

#[test]
fn events_between_the_snapshot_and_the_opening_are_replayed_once() {
    let application = Application::new(100);
    let (publisher, mut left) = (application.publisher.clone(), 5);
    *application.meanwhile.borrow_mut() = Box::new(move || {
        for _ in 0..std::mem::take(&mut left) {
            publisher.publish("+1");
        }
    });
    let mut subscription = application.builder(None).snapshot_with(|| application.snapshot()).open().unwrap();
    let mut page = Page::default();
    page.reads(&mut subscription, 100);
    assert_eq!((page.count, page.snapshots, page.has_gap), (Some(5), 1, false));
}

#[test]
fn a_client_that_resumes_with_every_event_gets_no_snapshot() {
    let application = Application::new(100);
    let id = application.publisher.last_event_id();
    application.count();
    let refuse = || -> Snapshot { panic!("the snapshot closure was called") };
    let mut subscription = application.builder(id.as_deref()).snapshot_with(refuse).open().unwrap();
    assert_eq!(subscription.resumption(), Resumption::Complete);
    let mut page = Page { count: Some(0), ..Page::default() };
    page.reads(&mut subscription, 100);
    assert_eq!(page.count, Some(1));
}

#[test]
fn a_client_that_missed_too_much_gets_a_snapshot_instead_of_a_gap() {
    for id in ["unknown", "0-0"] {
        let application = Application::new(2);
        (0..10).for_each(|_| application.count());
        let builder = application.builder(Some(id)).initial_data([Event::comment("first")]);
        let mut subscription = builder.snapshot_with(|| application.snapshot()).open().unwrap();
        assert_eq!(subscription.resumption(), Resumption::Gap);
        assert_eq!(subscription.next().as_deref(), Some(": first\n"));
        let frame = subscription.next().unwrap();
        assert!(frame.starts_with("event: state\ndata: 10\nid: "), "{frame}");
        gets_nothing(&mut subscription);
    }
}

#[test]
fn a_snapshot_without_events_still_carries_the_start_id() {
    let application = Application::new(100);
    application.count();
    let empty = || Snapshot { after: application.publisher.last_event_id(), events: Vec::new() };
    let mut subscription = application.builder(None).snapshot_with(empty).open().unwrap();
    let id = application.publisher.last_event_id().unwrap();
    assert_eq!(subscription.next(), Some(format!("id: {id}\n\n")));
}

#[test]
fn a_snapshot_that_is_always_too_old_comes_with_a_gap() {
    let application = Application::new(2);
    let (publisher, calls) = (application.publisher.clone(), std::rc::Rc::new(Cell::new(0)));
    let counts = calls.clone();
    *application.meanwhile.borrow_mut() = Box::new(move || {
        counts.set(counts.get() + 1);
        (0..3).for_each(|_| drop(publisher.publish("+1")));
    });
    let mut subscription = application.builder(None).snapshot_with(|| application.snapshot()).open().unwrap();
    assert_eq!((calls.get(), subscription.resumption()), (3, Resumption::Gap));
    let mut page = Page::default();
    page.reads(&mut subscription, 100);
    assert!(page.has_gap && page.snapshots == 1);
}

#[test]
fn without_a_history_a_snapshot_is_made_after_the_opening() {
    let publisher = Publisher::new();
    let (news, mut made) = (publisher.clone(), 0);
    let make = || {
        made += 1;
        news.publish("meanwhile");
        Snapshot { after: None, events: vec![Event::new("state")] }
    };
    let mut subscription = publisher.subscription(()).last_event_id("7").snapshot_with(make).open().unwrap();
    assert_eq!(made, 1);
    assert_eq!(subscription.next().unwrap(), "data: state\n\n");
    assert_eq!(subscription.next().unwrap(), "data: meanwhile\n\n");
}

#[test]
fn a_refused_subscription_asks_for_no_more_than_it_needs_and_leaves_nothing() {
    let application = Application::new(2);
    application.publisher.close();
    let made = Cell::new(0);
    let make = || {
        made.set(made.get() + 1);
        panic!("as it should")
    };
    let opens = || application.builder(None).snapshot_with(make).open();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(opens)).is_err());
    assert_eq!((made.get(), application.publisher.stats().subscribers), (1, 0));
}

/// Whatever is published, evicted, resumed or disconnected: a page without a gap shows the application's count.
#[test]
fn a_page_without_a_gap_shows_the_state() {
    let steps = std::env::var("MODEL_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(50_000);
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let application = std::rc::Rc::new(Application::new(8));
    let meanwhile = (std::rc::Rc::downgrade(&application), RefCell::new(rng.fork()));
    *application.meanwhile.borrow_mut() = Box::new(move || {
        let application = meanwhile.0.upgrade().unwrap();
        let mut rng = meanwhile.1.borrow_mut();
        for _ in 0..if rng.bool() { rng.usize(..20) } else { 0 } {
            application.count();
        }
    });
    let mut pages: Vec<(Page, Option<Subscription>)> = (0..4).map(|_| (Page::default(), None)).collect();
    let (mut snapshots, mut resumed, mut gaps) = (0, 0, 0);
    for _ in 0..steps {
        let (page, stream) = &mut pages[rng.usize(..4)];
        match (rng.u8(..10), &mut *stream) {
            (0..4, _) => application.count(),
            (4..8, Some(subscription)) => {
                let frames = rng.usize(..12);
                if !page.reads(subscription, frames) {
                    *stream = None;
                }
            }
            (8, Some(_)) => *stream = None,
            (_, Some(subscription)) => {
                page.reads(subscription, usize::MAX);
                if subscription.end_cause().is_none() && !page.has_gap {
                    assert_eq!(page.count, Some(application.count.get()), "SEED={seed}");
                }
            }
            (_, None) => {
                // A page that has received a gap reloads itself.
                if page.has_gap {
                    gaps += 1;
                    snapshots += page.snapshots;
                    *page = Page::default();
                }
                let builder = application.builder(page.last_event_id.as_deref());
                let opened = builder.snapshot_with(|| application.snapshot()).open().unwrap();
                resumed += usize::from(opened.resumption() == Resumption::Complete);
                *stream = Some(opened);
            }
        }
        if page.has_gap {
            *stream = None;
        }
    }
    snapshots += pages.iter().map(|(page, _)| page.snapshots).sum::<usize>();
    println!("{snapshots} snapshots, {resumed} resumed with every event, {gaps} gaps");
    assert!(snapshots > steps / 1_000 && resumed > steps / 1_000 && gaps > 0, "{snapshots}, {resumed}, {gaps}");
}
