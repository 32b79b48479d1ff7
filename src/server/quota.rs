//! The limits of concurrent streams, in total and per client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// The limits of streams, and the current counts.
#[derive(Debug)]
pub(super) struct Quota {
    max_streams: usize,
    max_streams_per_ip: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    streams: usize,
    by_client: HashMap<IpAddr, usize>,
}

impl Quota {
    pub(super) fn new(max_streams: usize, max_streams_per_ip: usize) -> Arc<Self> {
        Arc::new(Self { max_streams, max_streams_per_ip, counts: Mutex::default() })
    }

    /// Takes a slot for a stream to this address. Returns `None` if a limit is reached.
    pub(super) fn try_acquire(self: &Arc<Self>, ip: IpAddr) -> Option<StreamSlot> {
        let client = client(ip);
        let mut counts = self.counts.lock();
        let of_client = counts.by_client.get(&client).copied().unwrap_or(0);
        if counts.streams >= self.max_streams || of_client >= self.max_streams_per_ip {
            return None;
        }
        counts.streams += 1;
        counts.by_client.insert(client, of_client + 1);
        Some(StreamSlot { quota: Arc::clone(self), client })
    }
}

/// The right to one stream, released on drop.
#[derive(Debug)]
pub(super) struct StreamSlot {
    quota: Arc<Quota>,
    client: IpAddr,
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut counts = self.quota.counts.lock();
        counts.streams -= 1;
        let of_client = counts.by_client.get_mut(&self.client).expect("BUG: the client of a slot is not counted");
        *of_client -= 1;
        if *of_client == 0 {
            counts.by_client.remove(&self.client);
        }
    }
}

/// Returns the address that represents a client.
///
/// An IPv6 client usually has a whole /64 and can take any address in it, so the /64 counts. An IPv4 client of an IPv6
/// socket counts as IPv4, since all IPv4-mapped addresses share one /64.
fn client(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_dropped_slot_is_free_again() {
        let quota = Quota::new(2, 2);
        let slots = [quota.try_acquire(ip("192.0.2.1")), quota.try_acquire(ip("192.0.2.2"))];
        assert!(slots.iter().all(Option::is_some));
        assert!(quota.try_acquire(ip("192.0.2.3")).is_none());
        drop(slots);
        assert!(quota.try_acquire(ip("192.0.2.3")).is_some());
        let counts = quota.counts.lock();
        assert_eq!((counts.streams, counts.by_client.len()), (0, 0));
    }

    #[test]
    fn an_ipv6_client_counts_by_its_64_and_a_mapped_one_as_ipv4() {
        for (first, second, is_one_client) in [
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
        ] {
            let quota = Quota::new(10, 1);
            let _slot = quota.try_acquire(ip(first)).unwrap();
            assert_eq!(quota.try_acquire(ip(second)).is_none(), is_one_client, "{first} and {second}");
        }
    }
}
