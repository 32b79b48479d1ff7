//! Why the server rejects a request by itself.

/// The status and the reason with which the server rejects a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) status: u16,
    pub(super) reason: &'static str,
    /// The client may try again soon, because only the server's state was in the way.
    pub(super) is_temporary: bool,
}

impl Rejection {
    pub(super) const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason, is_temporary: false }
    }

    /// Creates a rejection after which the client may try again soon.
    pub(super) const fn temporary(status: u16, reason: &'static str) -> Self {
        Self { status, reason, is_temporary: true }
    }

    /// Creates a rejection with status 400.
    pub(super) const fn bad(reason: &'static str) -> Self {
        Self::new(400, reason)
    }
}
