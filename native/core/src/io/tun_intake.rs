//! Records received from the files of an adapter.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::io::bundle::{Bundle, Intake, MAX_BUNDLE, Piece};
use crate::io::counters::Counters;
use crate::io::descriptor::receive_record;
use crate::io::stop::{Flow, Stop};
use crate::io::waiting::Ready;
use crate::packet::record::{Measure, Record};
use crate::packet::tunnel::{MAX_WIDE_RECORD, Tunnel, narrow};

/// The intake of an adapter.
pub(crate) struct TunIntake<'a> {
    vnet_header: bool,
    /// True if the virtio headers are wide in the files.
    wide: bool,
    counters: Counters<'a>,
    /// Records are received into its first `size` bytes. Runs may exceed these.
    memory: Vec<u8>,
    size: usize,
    pieces: Vec<Piece>,
}

impl<'a> TunIntake<'a> {
    /// Receive bundles of at most `size` bytes.
    pub(crate) fn new(vnet_header: bool, wide: bool, counters: Counters<'a>, size: usize) -> Self {
        Self { vnet_header, wide, counters, memory: vec![0; size], size, pieces: Vec::with_capacity(MAX_BUNDLE) }
    }

    /// Receive up to `limit` records. The runs of a tunnel superpacket are put right behind it.
    fn receive_records(&mut self, source: BorrowedFd<'_>, limit: usize) -> Result<(), Errno> {
        self.pieces.clear();
        let mut used = 0;
        for index in 0..limit {
            if self.size < used + MAX_WIDE_RECORD {
                break;
            }
            let start = used;
            match receive_record(source, &mut self.memory[used..self.size]) {
                Ok(Some(size)) => used += size,
                Err(error) if index == 0 => return Err(error),
                Ok(None) | Err(_) => break, // The next call meets the error again.
            }
            let record = &mut self.memory[start..used];
            if !self.wide {
                self.note(start..used);
            } else if let Some(tunnel) = Tunnel::parse(record) {
                let sizes: Vec<usize> = tunnel.sizes().collect();
                self.write_runs(start..used, sizes.iter().sum());
                for size in sizes {
                    self.note(used..used + size);
                    used += size;
                }
            } else {
                let start = start + narrow(record);
                self.note(start..used);
            }
        }
        Ok(())
    }

    /// Write the runs of the tunnel superpacket at `place`, of `size` bytes, behind it.
    fn write_runs(&mut self, place: Range<usize>, size: usize) {
        if self.memory.len() < place.end + size {
            self.memory.resize(place.end + size, 0);
        }
        let (received, rest) = self.memory.split_at_mut(place.end);
        if let Some(tunnel) = Tunnel::parse(&received[place.start..]) {
            tunnel.write(rest);
        }
    }

    /// Note and measure a record in the memory.
    fn note(&mut self, place: Range<usize>) {
        let record = &self.memory[place.clone()];
        let measure = if self.vnet_header {
            Record::parse(record).map_or(Measure::MALFORMED, |record| record.measure())
        } else {
            Measure::of_packet(record)
        };
        self.pieces.push(Piece { place, measure });
    }
}

impl Intake for TunIntake<'_> {
    fn receive(&mut self, ready: Ready<'_>, limit: usize) -> Flow<Option<Bundle<'_>>> {
        if let Err(error) = self.receive_records(ready.source, limit) {
            return Flow::Break(Stop::Source(error));
        }
        if self.pieces.is_empty() {
            // A source that hung up is always ready, so the loop would spin.
            return if ready.hung_up { Flow::Break(Stop::Source(Errno::PIPE)) } else { Flow::Continue(None) };
        }
        let total = self.pieces.iter().fold(Measure::NOTHING, |total, piece| total.and(piece.measure));
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
