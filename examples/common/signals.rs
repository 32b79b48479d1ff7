//! How a program ends: in good order at the first signal, and at once at the second.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// SIGINT (Ctrl+C) and SIGTERM, caught.
pub struct EndSignals {
    signals: Signals,
    was_sent: Arc<AtomicBool>,
}

impl EndSignals {
    /// Catches the signals from now on.
    pub fn catch() -> io::Result<Self> {
        // Once it is set, a signal ends the program at once. That comes before what sets it: the first must not see it set.
        // With an exit code, because process 1 of a container ignores the default action of a signal.
        let was_sent = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&was_sent))?;
        }
        Ok(Self { signals: Signals::new([SIGINT, SIGTERM])?, was_sent })
    }

    /// At the first signal, calls `end` on a thread of its own. If `main` has not returned a second later, ends the program.
    pub fn at_the_first(mut self, end: impl FnOnce() + Send + 'static) {
        thread::spawn(move || {
            if self.signals.forever().next().is_some() {
                self.was_sent.store(true, Ordering::Relaxed);
                end();
                // A request whose body is still on its way may take that long.
                thread::sleep(Duration::from_secs(1));
                process::exit(0);
            }
        });
    }
}
