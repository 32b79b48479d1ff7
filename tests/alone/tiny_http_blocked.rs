//! tiny_http: connections whose first response cannot be written leave nothing behind.

use crate::common::blocked::{Attacked, BEHIND_ANOTHER, BODY_MISSING, small};
use crate::common::http::{Client, FIRST_CHUNK, GET};
use crate::common::process::{descriptors, threads};
use crate::common::{Watchdog, eventually};
use crate::own_process::own_process;

#[test]
fn clients_that_leave_while_streams_are_refused_leave_nothing_behind() {
    own_process!();
    let _watchdog = Watchdog::new("blocked responses");
    for request in [BODY_MISSING, BEHIND_ANOTHER] {
        let attacked = Attacked::by(request, small());
        let early: Vec<Client> = (0..20).map(|_| attacked.server.send(GET)).collect();
        drop(early);
        eventually("all others are refused", || attacked.is_full(request, 0));
        attacked.refused(GET);
        let before = descriptors();
        for left in [GET, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", BODY_MISSING, BEHIND_ANOTHER, &GET.repeat(50)] {
            for _ in 0..20 {
                drop(attacked.server.send(left));
            }
            attacked.refused(GET);
            eventually("their subscribers are gone", || attacked.is_full(request, 0));
            eventually("their descriptors are closed", || descriptors() <= before);
        }
    }
}

#[test]
fn blocked_clients_leave_nothing_behind() {
    own_process!();
    let _watchdog = Watchdog::new("blocked responses");
    for request in [BODY_MISSING, BEHIND_ANOTHER] {
        let (descriptors_before, threads_before) = (descriptors(), threads("sse "));
        let mut attacked = Attacked::by(request, small());
        eventually("all others are refused", || attacked.is_full(request, 0));
        attacked.clients.clear();
        eventually("their subscribers are gone", || attacked.publisher.stats().subscribers == 0);
        let mut client = attacked.server.send(GET);
        client.reads_head();
        client.reads(FIRST_CHUNK);
        drop((client, attacked));
        eventually("their threads are gone", || threads("sse ") <= threads_before);
        eventually("their descriptors are closed", || descriptors() <= descriptors_before);
    }
}
