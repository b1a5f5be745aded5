//! Records received from the files of an adapter.

use rustix::io::Errno;

use crate::io::bundle::{Bundle, Intake, MAX_BUNDLE, Piece};
use crate::io::counters::Counters;
use crate::io::descriptor::receive;
use crate::io::stop::{Flow, Stop};
use crate::io::waiting::Ready;
use crate::packet::record::{Measure, Record};

/// The intake of an adapter.
pub(crate) struct TunIntake<'a> {
    vnet_header: bool,
    counters: Counters<'a>,
    memory: Vec<u8>,
    /// The end in `memory` of each record.
    ends: Vec<usize>,
    pieces: Vec<Piece>,
}

impl<'a> TunIntake<'a> {
    /// Receive bundles of at most `size` bytes.
    pub(crate) fn new(vnet_header: bool, counters: Counters<'a>, size: usize) -> Self {
        let (ends, pieces) = (Vec::with_capacity(MAX_BUNDLE), Vec::with_capacity(MAX_BUNDLE));
        Self { vnet_header, counters, memory: vec![0; size], ends, pieces }
    }

    /// Find and measure the records that were received.
    fn measure(&mut self) -> Measure {
        self.pieces.clear();
        let mut total = Measure::NOTHING;
        let mut start = 0;
        for end in &self.ends {
            let place = start..*end;
            start = *end;
            let record = &self.memory[place.clone()];
            let measure = if self.vnet_header {
                Record::parse(record).map_or(Measure::MALFORMED, |record| record.measure())
            } else {
                Measure::of_packet(record)
            };
            total = total.and(measure);
            self.pieces.push(Piece { place, measure });
        }
        total
    }
}

impl Intake for TunIntake<'_> {
    fn receive(&mut self, ready: Ready<'_>, limit: usize) -> Flow<Option<Bundle<'_>>> {
        self.ends.clear();
        if let Err(error) = receive(ready.source, &mut self.memory, limit, &mut self.ends) {
            return Flow::Break(Stop::Source(error));
        }
        if self.ends.is_empty() {
            // A source that hung up is always ready, so the loop would spin.
            return if ready.hung_up { Flow::Break(Stop::Source(Errno::PIPE)) } else { Flow::Continue(None) };
        }
        let total = self.measure();
        self.counters.add_bundle(total);
        let Self { memory, pieces, vnet_header, .. } = self;
        Flow::Continue(Some(Bundle {
            memory,
            pieces,
            total,
            vnet_header: *vnet_header,
            received: total.size,
            last: false,
        }))
    }
}
