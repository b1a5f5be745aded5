//! Packets received from peers: datagrams of UDP sockets, opened.

use crate::io::bundle::{Bundle, Intake};
use crate::io::counters::Counters;
use crate::io::datagrams::{self, Arrival, LONGEST_RUN};
use crate::io::stop::{Flow, Stop};
use crate::io::waiting::Ready;
use crate::packet::record::Measure;
use crate::wireguard::clock::now;
use crate::wireguard::handler::Handler;
use crate::wireguard::opener::Opener;
use crate::wireguard::router::Router;

/// Receive no more runs for a bundle once it has this many bytes.
const BUNDLE_SIZE: usize = 1 << 19;
/// The most runs of datagrams in a bundle.
const MAX_RUNS: usize = 64;
/// The most runs of datagrams received by one system call.
const RUNS_PER_CALL: usize = 8;
/// Bytes of memory for each run. Not a power of two: else the beginnings of runs would evict each other from the cache.
const STRIDE: usize = LONGEST_RUN + 1025;
/// Bytes of memory for all runs. Packets of the handler come after them.
const MEMORY: usize = MAX_RUNS * STRIDE;

/// The intake of a device's peers.
pub(crate) struct PeersIntake<'a> {
    opener: Opener<'a>,
    counters: Counters<'a>,
    memory: Vec<u8>,
    /// The runs of a bundle, and where in the memory each begins.
    arrivals: Vec<(usize, Arrival)>,
}

impl<'a> PeersIntake<'a> {
    pub(crate) fn new(router: &'a Router, handler: &'a dyn Handler, counters: Counters<'a>) -> Self {
        Self { opener: Opener::new(router, handler), counters, memory: vec![0; MEMORY], arrivals: Vec::new() }
    }

    /// Receive up to `limit` runs, and return their bytes.
    fn receive_runs(&mut self, ready: Ready<'_>, limit: usize) -> usize {
        self.arrivals.clear();
        self.memory.truncate(MEMORY);
        let mut bytes = 0;
        while self.arrivals.len() < limit.min(MAX_RUNS) && bytes < BUNDLE_SIZE {
            let first = self.arrivals.len();
            let buffers = self.memory.chunks_exact_mut(STRIDE).skip(first).take(RUNS_PER_CALL.min(limit)).collect();
            let arrived = datagrams::receive(ready.source, buffers);
            let count = arrived.len();
            bytes += arrived.iter().map(|arrival| arrival.bytes).sum::<usize>();
            self.arrivals
                .extend(arrived.into_iter().enumerate().map(|(index, arrival)| ((first + index) * STRIDE, arrival)));
            if count < RUNS_PER_CALL {
                break; // No more are ready.
            }
        }
        bytes
    }
}

impl Intake for PeersIntake<'_> {
    fn receive(&mut self, ready: Ready<'_>, limit: usize) -> Flow<Option<Bundle<'_>>> {
        let received = self.receive_runs(ready, limit) as u64;
        if self.arrivals.is_empty() {
            return Flow::Continue(None);
        }
        let pieces = match self.opener.open(&mut self.memory, &self.arrivals, now()) {
            Ok(pieces) => pieces,
            Err(raised) => return Flow::Break(Stop::Raised(raised)),
        };
        let total = pieces.iter().fold(Measure::NOTHING, |total, piece| total.and(piece.measure));
        if !pieces.is_empty() {
            self.counters.add_bundle(total);
        }
        Flow::Continue(Some(Bundle { memory: &self.memory, pieces, total, vnet_header: false, received }))
    }
}
