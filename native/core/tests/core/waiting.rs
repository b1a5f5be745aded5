//! Waiting for another thread.

use std::thread;
use std::time::{Duration, Instant};

/// Wait until `condition` is true; panic after 20 seconds.
pub(crate) fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "this takes too long");
        thread::yield_now();
    }
}
