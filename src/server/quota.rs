//! Which client an address stands for, when streams are counted.

use std::net::{IpAddr, Ipv6Addr};

/// Returns the address that stands for the client in [`max_streams_per_ip`](super::EventServerBuilder).
///
/// An IPv6 client usually has a whole /64 and can take any address in it, so the /64 counts. An IPv4 client that reaches
/// an IPv6 socket counts as IPv4: all of those would share one /64.
pub(super) fn client(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn client_of(ip: &str) -> IpAddr {
        client(ip.parse().unwrap())
    }

    #[test]
    fn an_ipv6_client_is_its_64_and_a_mapped_one_its_ipv4_address() {
        assert_eq!(client_of("2001:db8:0:1::1"), client_of("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_ne!(client_of("2001:db8:0:1::1"), client_of("2001:db8:0:2::1"));
        assert_eq!(client_of("::ffff:192.0.2.1"), client_of("192.0.2.1"));
        assert_ne!(client_of("::ffff:192.0.2.1"), client_of("::ffff:192.0.2.2"));
    }
}
