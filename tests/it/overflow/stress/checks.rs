//! Compares what one subscriber received with what was sent to it.

use super::plan::{Plan, Reads};
use super::publishers::{PUBLISHERS, Sent};
use super::readers::Seen;
use server_sent_events::{EndCause, Overflow};

/// What one subscriber received, next to what was sent to it.
pub struct Subscriber<'a> {
    pub number: usize,
    pub plan: &'a Plan,
    pub seen: Vec<Seen>,
    pub cause: EndCause,
    pub skipped: u64,
}

impl Subscriber<'_> {
    /// Returns whether it stayed to the end, so that everything queued for it is delivered.
    pub fn stayed(&self) -> bool {
        self.cause == EndCause::Closed && !matches!(self.plan.led, Some((_, true)))
    }

    pub fn events(&self) -> impl Iterator<Item = (usize, usize, &Option<String>)> {
        self.seen.iter().filter_map(|seen| match seen {
            Seen::Event(thread, number, id) => Some((*thread, *number, id)),
            Seen::Gap(_) => None,
        })
    }

    pub fn reported(&self) -> u64 {
        self.seen.iter().map(|seen| if let Seen::Gap(lost) = seen { *lost } else { 0 }).sum()
    }

    fn skips(&self, sent: &Sent) -> bool {
        sent.skips == Some(self.number % 2)
    }

    /// Checks this subscriber alone. Returns how many events were dropped for it, if that is known.
    pub fn check(&self, log: &[Sent], one_by_one: bool, has_history: bool) -> Option<u64> {
        let sent: Vec<&Sent> = log.iter().filter(|sent| sent.to >> self.number & 1 == 1).collect();
        let delivered = self.events().count() as u64;

        // Each publisher's order is kept, and nothing comes twice.
        let mut next = [0; PUBLISHERS];
        for (thread, number, id) in self.events() {
            assert!(next[thread] <= number, "thread {thread}: {number} is out of order, or comes twice");
            next[thread] = number + 1;
            let Some(sent) = sent.iter().find(|sent| (sent.thread, sent.number) == (thread, number)) else {
                panic!("{thread} {number} was not for it")
            };
            assert_eq!(*id, sent.id);
            assert!(!self.skips(sent));
        }

        // With a history the order of all events is known, without one only that of each publisher.
        let wanted = |thread: Option<usize>| {
            let of_thread = sent.iter().filter(move |sent| thread.is_none_or(|thread| sent.thread == thread));
            of_thread.filter(|sent| !self.skips(sent)).map(|sent| (sent.thread, sent.number)).collect::<Vec<_>>()
        };
        let got = |thread: Option<usize>| {
            let of_thread = self.events().filter(move |event| thread.is_none_or(|thread| event.0 == thread));
            of_thread.map(|event| (event.0, event.1)).collect::<Vec<_>>()
        };
        let orders = if has_history { vec![None] } else { (0..PUBLISHERS).map(Some).collect() };
        if !self.plan.may_lose() {
            assert_eq!(self.reported(), 0);
            for order in orders {
                let (wanted, got) = (wanted(order), got(order));
                assert!(wanted.starts_with(&got), "an event is missing");
                assert!(!self.stayed() || wanted == got, "it stayed, and misses an event");
            }
        } else if has_history && self.plan.overflow == Overflow::DropOldest {
            self.gaps_stand_where_something_is_lost(&sent);
        } else if has_history {
            self.has_the_newest(&sent);
        }

        // What was queued for it.
        let queued: u64 = match (self.stayed(), one_by_one) {
            (true, _) => {
                assert!(sent.iter().all(|sent| sent.queued > 0));
                sent.len() as u64
            }
            (false, true) => sent.iter().map(|sent| sent.queued as u64).sum(),
            (false, false) => return None,
        };
        let rest =
            queued.checked_sub(delivered + self.skipped + self.reported()).expect("more events came out than in");
        match (self.cause, self.plan.overflow) {
            (EndCause::Closed, Overflow::LatestPerKey) => {
                let keyed = sent.iter().filter(|sent| sent.key.is_some()).count() as u64;
                assert!(rest <= keyed, "{rest} of {keyed} were replaced");
                return Some(rest);
            }
            (EndCause::Closed, _) => assert_eq!(rest, 0, "events were lost without a gap"),
            (_, Overflow::LatestPerKey | Overflow::DropOldest) => return None,
            _ => {
                // Apart from the queue, what the reader held when the stream was disconnected: one payload, or a batch.
                let batch = if matches!(self.plan.reads, Reads::Iterator | Reads::Late) { 1 } else { 1_025 };
                assert!(rest <= (self.plan.frames + batch) as u64, "{rest} of {} were left", self.plan.frames);
            }
        }
        Some(self.reported())
    }

    /// Checks that between any two events it received, as many are missing as the gaps there report.
    fn gaps_stand_where_something_is_lost(&self, sent: &[&Sent]) {
        let mut rest = sent.iter();
        let mut reported = 0;
        for seen in &self.seen {
            let (thread, number) = match seen {
                Seen::Gap(lost) => {
                    reported += lost;
                    assert!(*lost > 0);
                    continue;
                }
                Seen::Event(thread, number, _) => (*thread, *number),
            };
            let missing: Vec<_> =
                rest.by_ref().take_while(|sent| (sent.thread, sent.number) != (thread, number)).collect();
            // Of the events that skip it, some may be lost as well.
            let (most, least) = (missing.len(), missing.iter().filter(|sent| !self.skips(sent)).count());
            assert!((least as u64..=most as u64).contains(&reported), "{reported} reported, {least} to {most} missing");
            reported = 0;
        }
        if self.stayed() {
            let (most, least) = (rest.clone().count(), rest.filter(|sent| !self.skips(sent)).count());
            assert!(
                least as u64 <= reported && reported <= most as u64,
                "{reported} reported at the end, {least} to {most} missing"
            );
        }
    }

    /// Checks that it has the newest event of each key and all events without one, in order.
    fn has_the_newest(&self, sent: &[&Sent]) {
        let place =
            |thread, number| sent.iter().position(|sent| (sent.thread, sent.number) == (thread, number)).unwrap();
        let places: Vec<usize> = self.events().map(|(thread, number, _)| place(thread, number)).collect();
        assert!(places.is_sorted_by(|a, b| a < b), "out of order");
        let until = if self.stayed() { sent.len() } else { places.last().map_or(0, |last| last + 1) };
        for (at, missing) in sent[..until].iter().enumerate() {
            if self.skips(missing) || places.binary_search(&at).is_ok() {
                continue;
            }
            // It was replaced by a later event of its key, which is here or was replaced in turn.
            let newer = sent[at + 1..].iter().any(|newer| newer.key == missing.key);
            assert!(missing.key.is_some() && newer, "{missing:?} is missing");
        }
    }
}
