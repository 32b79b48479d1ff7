//! Why the server rejects a request by itself.

/// The status and the reason with which the server rejects a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) status: u16,
    pub(super) reason: &'static str,
}

impl Rejection {
    pub(super) const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }

    /// Creates a rejection with status 400.
    pub(super) const fn bad(reason: &'static str) -> Self {
        Self::new(400, reason)
    }
}
