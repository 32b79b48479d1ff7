//! A pool without a supervisor, for models: the supervisor waits for times, and loom has none.

use std::sync::Arc;

use super::pool::{Job, WriterPool};

impl WriterPool {
    /// Starts a writer thread without a supervisor.
    pub(crate) fn start_unsupervised(self: &Arc<Self>) {
        let mut threads = self.threads.lock();
        threads.supervised = true;
        self.start_thread(&mut threads).unwrap();
    }

    /// Ends the writer thread, as the supervisor does after the last stream has ended.
    pub(crate) fn end_unsupervised(&self) {
        self.threads.lock().leaving += 1;
        self.put(Job::Leave);
    }
}
