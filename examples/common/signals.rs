//! How a program ends: gracefully at the first signal, and at once at the second.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// The caught signals: SIGINT (Ctrl+C) and SIGTERM.
pub struct EndSignals {
    signals: Signals,
    was_sent: Arc<AtomicBool>,
}

impl EndSignals {
    /// Catches the signals from now on.
    pub fn catch() -> io::Result<Self> {
        // Once the flag is set, a signal ends the program at once. This is registered before the code that sets the
        // flag, so the first signal does not see it set. The program ends with an exit code, because process 1 of a
        // container ignores the default action of a signal.
        let was_sent = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&was_sent))?;
        }
        Ok(Self { signals: Signals::new([SIGINT, SIGTERM])?, was_sent })
    }

    /// Calls `end` on a thread of its own at the first signal. Ends the program if `main` has not returned a second after
    /// `end`.
    pub fn at_the_first(mut self, end: impl FnOnce() + Send + 'static) {
        thread::spawn(move || {
            if self.signals.forever().next().is_some() {
                self.was_sent.store(true, Ordering::Relaxed);
                end();
                // A request whose body is still arriving may take that long.
                thread::sleep(Duration::from_secs(1));
                process::exit(0);
            }
        });
    }
}
