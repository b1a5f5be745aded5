//! Packets received from peers: datagrams of UDP sockets, opened.

use crate::io::bundle::{Bundle, Intake};
use crate::io::counters::Counters;
use crate::io::runs::Runs;
use crate::io::stop::{Flow, Stop};
use crate::io::waiting::Ready;
use crate::packet::record::Measure;
use crate::wireguard::clock::now;
use crate::wireguard::handler::Handler;
use crate::wireguard::opener::Opener;
use crate::wireguard::router::Router;

/// The intake of a device's peers.
pub(crate) struct PeersIntake<'a> {
    opener: Opener<'a>,
    counters: Counters<'a>,
    runs: Runs,
}

impl<'a> PeersIntake<'a> {
    pub(crate) fn new(router: &'a Router, handler: &'a dyn Handler, counters: Counters<'a>) -> Self {
        Self { opener: Opener::new(router, handler), counters, runs: Runs::new() }
    }
}

impl Intake for PeersIntake<'_> {
    fn receive(&mut self, ready: Ready<'_>, limit: usize) -> Flow<Option<Bundle<'_>>> {
        // Some errors report on a datagram that was sent before.
        let Ok(received) = self.runs.receive(ready, limit) else {
            return Flow::Continue(None);
        };
        let Runs { memory, arrivals } = &mut self.runs;
        let pieces = match self.opener.open(memory, arrivals, now()) {
            Ok(pieces) => pieces,
            Err(raised) => return Flow::Break(Stop::Raised(raised)),
        };
        let total = pieces.iter().fold(Measure::NOTHING, |total, piece| total.and(piece.measure));
        if !pieces.is_empty() {
            self.counters.add_bundle(total);
        }
        Flow::Continue(Some(Bundle {
            memory,
            pieces,
            total,
            vnet_header: false,
            received: received as u64,
            last: false,
        }))
    }
}
