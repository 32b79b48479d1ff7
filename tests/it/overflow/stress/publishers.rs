//! The publishers, and what they have sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use fastrand::Rng;
use server_sent_events::{Event, Publisher, SubscriptionHandle};

pub const PUBLISHERS: usize = 8;
pub const EVENTS: usize = 120;

/// What a publisher has sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub thread: usize,
    pub number: usize,
    /// The subscribers it was sent to, as bits.
    pub to: u32,
    pub key: Option<u32>,
    /// It skips subscribers with an odd number, or with an even one.
    pub skips: Option<usize>,
    pub queued: usize,
    /// Its place in the history.
    pub id: Option<String>,
    pub sequence: u64,
}

/// Publishes, and returns what it has sent.
pub fn publishes(
    publisher: &Publisher<usize>,
    thread: usize,
    handles: &[(Option<(usize, bool)>, SubscriptionHandle)],
    one_by_one: bool,
    skipped: &Arc<Vec<AtomicU64>>,
    rng: &mut Rng,
) -> Vec<Sent> {
    let everybody = (1 << handles.len()) - 1;
    let mut log = Vec::new();
    for number in 0..EVENTS {
        if thread == 0 {
            for (led, handle) in handles {
                match led {
                    Some((after, true)) if *after == number => drop(handle.close()),
                    Some((after, false)) if *after == number => drop(handle.disconnect()),
                    _ => {}
                }
            }
        }
        let one = rng.usize(..handles.len());
        let (to, channels) = match rng.u32(..3) {
            _ if one_by_one => (1 << one, vec![one.to_string()]),
            0 => (everybody, vec!["all".to_owned()]),
            1 => (everybody, vec![one.to_string(), "all".to_owned()]),
            _ => {
                let other = rng.usize(..handles.len());
                (1 << one | 1 << other, vec![one.to_string(), other.to_string()])
            }
        };
        let data = format!("{thread} {number} {}", "x".repeat(*rng.choice(&[0, 0, 10, 150]).unwrap()));
        let key = rng.bool().then(|| rng.u32(..3));
        let skips = (rng.u32(..4) == 0).then(|| rng.usize(..2));
        let receipt = match skips {
            Some(parity) => {
                let skipped = Arc::clone(skipped);
                publisher.publish_with(&channels, move |subscriber| {
                    if subscriber % 2 == parity {
                        skipped[*subscriber].fetch_add(1, SeqCst);
                    }
                    (subscriber % 2 != parity).then(|| Event::new(&data))
                })
            }
            None => {
                let event = key.iter().fold(Event::new(data), |event, key| event.key(key.to_string()));
                publisher.publish_to(&channels, event)
            }
        };
        let id = receipt.id().map(str::to_owned);
        let sequence = id.as_ref().map_or(0, |id| id.rsplit('-').next().unwrap().parse().unwrap());
        let key = key.filter(|_| skips.is_none());
        log.push(Sent { thread, number, to, key, skips, queued: receipt.subscribers(), id, sequence });
    }
    log
}
