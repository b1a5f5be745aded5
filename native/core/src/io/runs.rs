//! Runs of datagrams received from a socket, side by side in memory.

use rustix::io::Errno;

use crate::io::datagrams::{self, Arrival, LONGEST_RUN};
use crate::io::waiting::Ready;

/// Receive no more runs at a time once they have this many bytes.
const BUNDLE_SIZE: usize = 1 << 19;
/// The most runs of datagrams at a time.
const MAX_RUNS: usize = 64;
/// The most runs of datagrams received by one system call.
const RUNS_PER_CALL: usize = 8;
/// Bytes of memory for each run. Not a power of two: else the beginnings of runs would evict each other from the cache.
const STRIDE: usize = LONGEST_RUN + 1025;
/// Bytes of memory for all runs. Packets of a handler come after them.
const MEMORY: usize = MAX_RUNS * STRIDE;

/// The runs received at a time.
pub(crate) struct Runs {
    /// The bytes of the runs. More may be appended, until the next call of `receive`.
    pub(crate) memory: Vec<u8>,
    /// The runs, and where in the memory each begins.
    pub(crate) arrivals: Vec<(usize, Arrival)>,
}

impl Runs {
    pub(crate) fn new() -> Self {
        Self { memory: vec![0; MEMORY], arrivals: Vec::new() }
    }

    /// Receive up to `limit` runs, and return their bytes.
    ///
    /// # Errors
    ///
    /// Return the system's error if it has no first run.
    pub(crate) fn receive(&mut self, ready: Ready<'_>, limit: usize) -> Result<usize, Errno> {
        self.arrivals.clear();
        self.memory.truncate(MEMORY);
        let mut bytes = 0;
        while self.arrivals.len() < limit.min(MAX_RUNS) && bytes < BUNDLE_SIZE {
            let first = self.arrivals.len();
            let buffers = self.memory.chunks_exact_mut(STRIDE).skip(first).take(RUNS_PER_CALL.min(limit)).collect();
            let arrived = match datagrams::receive(ready.source, buffers) {
                Err(error) if first == 0 => return Err(error),
                result => result.unwrap_or_default(), // The next call meets the error again.
            };
            let count = arrived.len();
            bytes += arrived.iter().map(|arrival| arrival.bytes).sum::<usize>();
            self.arrivals
                .extend(arrived.into_iter().enumerate().map(|(index, arrival)| ((first + index) * STRIDE, arrival)));
            if count < RUNS_PER_CALL {
                break; // No more are ready.
            }
        }
        Ok(bytes)
    }
}
