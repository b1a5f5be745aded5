//! Packets received from a datagram socket, one in each datagram.

use std::ops::Range;
use std::sync::Arc;

use rustix::io::Errno;

use crate::endpoints::datagrams::{Handler, Received, Way, Ways};
use crate::io::bundle::{Bundle, Intake, Piece};
use crate::io::counters::Counters;
use crate::io::datagrams::{Arrival, forget_errors};
use crate::io::runs::Runs;
use crate::io::stop::{Flow, Raised, Stop};
use crate::io::waiting::Ready;
use crate::packet::record::Measure;

/// The intake of a datagram socket.
pub(crate) struct DatagramsIntake<'a> {
    ways: &'a Ways,
    handler: &'a dyn Handler,
    counters: Counters<'a>,
    runs: Runs,
    pieces: Vec<Piece>,
}

impl<'a> DatagramsIntake<'a> {
    pub(crate) fn new(ways: &'a Ways, handler: &'a dyn Handler, counters: Counters<'a>) -> Self {
        Self { ways, handler, counters, runs: Runs::new(), pieces: Vec::new() }
    }

    fn fail(&mut self, error: Errno, ready: Ready<'_>) -> Result<(), Raised> {
        match error {
            Errno::INTR => Ok(()),
            Errno::AGAIN => {
                if ready.failed {
                    forget_errors(ready.source);
                }
                Ok(())
            }
            error => self.handler.receive_failed(error),
        }
    }

    /// Find the packets in the runs that were received.
    fn find_packets(&mut self) -> Result<Measure, Raised> {
        self.pieces.clear();
        let mut total = Measure::NOTHING;
        let mut way = self.ways.get();
        for index in 0..self.runs.arrivals.len() {
            let (start, arrival) = self.runs.arrivals[index];
            if arrival.bytes == 0 {
                continue; // An empty datagram is a probe, whether somebody is there.
            }
            let place = start..start + arrival.bytes;
            let first = self.pieces.len();
            if way.as_ref().is_some_and(|way| way.is_of_peer(&arrival)) && self.take(place.clone(), arrival.size) {
                // They are packets, as nearly always.
            } else {
                self.pieces.truncate(first);
                way = self.hand_up(place, &arrival)?;
            }
            total = self.pieces[first..].iter().fold(total, |total, piece| total.and(piece.measure));
        }
        Ok(total)
    }

    /// Add the datagrams of a run as packets. Return False if one is not a packet.
    fn take(&mut self, place: Range<usize>, size: usize) -> bool {
        for start in place.clone().step_by(size) {
            let place = start..place.end.min(start + size);
            let measure = Measure::of_packet(&self.runs.memory[place.clone()]);
            if !measure.valid {
                return false;
            }
            self.pieces.push(Piece { place, measure });
        }
        true
    }

    /// Add the packets that the handler finds in a run, behind all runs in memory. Return the way from now on.
    fn hand_up(&mut self, place: Range<usize>, arrival: &Arrival) -> Result<Option<Arc<Way>>, Raised> {
        let Received { packets, way } = self.handler.receive(&self.runs.memory[place], arrival)?;
        self.ways.set(way);
        for packet in packets {
            let start = self.runs.memory.len();
            self.runs.memory.extend_from_slice(&packet);
            let measure = Measure::of_packet(&packet);
            self.pieces.push(Piece { place: start..start + packet.len(), measure });
        }
        Ok(self.ways.get())
    }
}

impl Intake for DatagramsIntake<'_> {
    fn receive(&mut self, ready: Ready<'_>, limit: usize) -> Flow<Option<Bundle<'_>>> {
        let received = match self.runs.receive(ready, limit) {
            Ok(bytes) => bytes as u64,
            Err(error) => {
                return match self.fail(error, ready) {
                    Ok(()) => Flow::Continue(None),
                    Err(raised) => Flow::Break(Stop::Raised(raised)),
                };
            }
        };
        let total = match self.find_packets() {
            Ok(total) => total,
            Err(raised) => return Flow::Break(Stop::Raised(raised)),
        };
        if !self.pieces.is_empty() {
            self.counters.add_bundle(total);
        }
        let Self { runs, pieces, .. } = self;
        Flow::Continue(Some(Bundle { memory: &runs.memory, pieces, total, vnet_header: false, received, last: false }))
    }
}
