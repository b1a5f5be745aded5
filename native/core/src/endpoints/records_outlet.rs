//! Packets sent as records of a stream.

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, write};

use crate::endpoints::records::{Handler, LENGTH, Stream};
use crate::io::bundle::{Bundle, Outlet};
use crate::io::counters::Counters;
use crate::io::packets::Packets;
use crate::io::stop::{Flow, raised};
use crate::io::waiting::RoomWait;
use crate::packet::record::Measure;

/// Write the records so far once they have this many bytes.
const ENOUGH: usize = 1 << 17;

/// The outlet of a stream. Records that it has accepted when it stops are given back, to be written later.
pub(crate) struct RecordsOutlet<'a> {
    target: BorrowedFd<'a>,
    stream: &'a Stream,
    handler: Option<&'a dyn Handler>,
    counters: Counters<'a>,
    room: RoomWait<'a>,
    records: Packets,
    /// Bytes of the records that are written.
    written: usize,
    /// The packets of a bundle that were written or given back.
    accepted: Measure,
}

impl<'a> RecordsOutlet<'a> {
    pub(crate) fn new(
        target: BorrowedFd<'a>,
        stream: &'a Stream,
        handler: Option<&'a dyn Handler>,
        counters: Counters<'a>,
        room: RoomWait<'a>,
    ) -> Self {
        let records = Packets::new(LENGTH);
        Self { target, stream, handler, counters, room, records, written: 0, accepted: Measure::NOTHING }
    }

    /// Write the records added so far. Forget them if the other end reads no more.
    fn flush(&mut self) -> Flow {
        match self.handler {
            Some(handler) => self.hand_over(handler)?,
            None => self.write()?,
        }
        self.accept(self.written);
        self.written = 0;
        self.records.clear();
        Flow::Continue(())
    }

    /// Have the handler write the records.
    fn hand_over(&mut self, handler: &dyn Handler) -> Flow {
        let mut rest = &self.records.memory()[..self.records.size()];
        self.written = rest.len(); // The handler keeps them if this is to stop.
        while let Some(is_written) = handler.send(rest).map_or_else(raised, Flow::Continue)? {
            if is_written {
                return Flow::Continue(());
            }
            self.room.wait(self.target)?;
            rest = &[];
        }
        self.written = 0; // The intake meets the end, after the packets that were sent before it.
        Flow::Continue(())
    }

    fn write(&mut self) -> Flow {
        while self.written < self.records.size() {
            match write(self.target, &self.records.memory()[self.written..self.records.size()]) {
                Ok(size) => self.written += size,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.room.wait(self.target)?,
                Err(Errno::NOBUFS | Errno::NOMEM) => self.room.pause()?,
                Err(_) => break, // The intake meets the end, after the packets that were sent before it.
            }
        }
        Flow::Continue(())
    }

    /// Note that the packets up to `end` are accepted.
    fn accept(&mut self, end: usize) {
        let whole = self.records.places().partition_point(|place| place.end <= end);
        self.accepted = self.accepted.and(Packets::measure(&self.records.places()[..whole]));
    }
}

impl Outlet for RecordsOutlet<'_> {
    /// When it is to stop, it accepts the whole bundle: a part of a record may be written.
    fn send(&mut self, bundle: &Bundle<'_>) -> Flow {
        let mut flow = Flow::Continue(());
        for (record, measure) in bundle.records() {
            if measure.valid {
                self.records.add(record, bundle.vnet_header, |_| false);
                if flow.is_continue() && self.records.size() >= ENOUGH {
                    flow = self.flush();
                }
            }
        }
        if flow.is_continue() {
            flow = self.flush();
        }
        if flow.is_break() {
            self.accept(self.records.size());
        }
        let accepted = std::mem::replace(&mut self.accepted, Measure::NOTHING);
        if accepted.packets > 0 {
            self.counters.add_bundle(accepted);
        }
        self.counters.add_dropped(bundle.total.packets - accepted.packets);
        flow
    }
}

impl Drop for RecordsOutlet<'_> {
    fn drop(&mut self) {
        let unsent = self.records.memory()[..self.records.size()].get(self.written..).unwrap_or_default().to_vec();
        self.stream.with(|state| state.unsent = unsent);
    }
}
