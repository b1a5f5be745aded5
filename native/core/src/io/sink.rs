//! The target of an outlet: a file that records are written to, waiting while it has no room.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;

use rustix::io::Errno;

use crate::io::counters::Counters;
use crate::io::descriptor::write_record;
use crate::io::stop::{Flow, Stop};
use crate::io::waiting::RoomWait;
use crate::locks::unpoisoned;
use crate::packet::record::Measure;

/// The outcome of writing one record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It was written.
    Written,
    /// The target does not accept such a record (EINVAL).
    Refused,
    /// The link is down: this record and the rest of the bundle are dropped.
    LinkDown,
    /// A bell rang while there was no room: the caller gets this record and the rest of the bundle back.
    Kept,
}

/// Writes and counts the records of one bundle after the other.
pub(super) struct Sink<'a> {
    target: BorrowedFd<'a>,
    /// True if the target's virtio headers are wide.
    wide: bool,
    room: RoomWait<'a>,
    counters: Counters<'a>,
    /// The records that were written and not yet counted.
    uncounted: Measure,
    /// Packets of this bundle that were written and counted.
    written: u64,
    /// True after the link of this bundle was found down.
    link_down: bool,
    /// True after a bell rang while this bundle waited for room.
    rung: bool,
    /// The records of this bundle that had no room when a bell rang.
    kept: &'a Mutex<Vec<Vec<u8>>>,
    /// The packets that they stand for.
    kept_packets: u64,
}

impl<'a> Sink<'a> {
    pub(super) fn new(
        target: BorrowedFd<'a>,
        wide: bool,
        room: RoomWait<'a>,
        counters: Counters<'a>,
        kept: &'a Mutex<Vec<Vec<u8>>>,
    ) -> Self {
        Self {
            target,
            wide,
            room,
            counters,
            uncounted: Measure::NOTHING,
            written: 0,
            link_down: false,
            rung: false,
            kept,
            kept_packets: 0,
        }
    }

    /// Write one record of the given measure. Wait while there is no room. If a bell rings meanwhile, keep the record.
    pub(super) fn put(&mut self, record: &[IoSlice<'_>], measure: Measure) -> Flow<Put> {
        while !self.link_down && !self.rung {
            let error = match write_record(self.target, record, self.wide) {
                Ok(_) => {
                    self.uncounted = self.uncounted.and(measure);
                    return Flow::Continue(Put::Written);
                }
                Err(Errno::INTR) => continue,
                Err(error) => error,
            };
            self.count();
            match error {
                Errno::AGAIN => {
                    let waited = self.room.wait(self.target);
                    self.note_bell(waited)?;
                }
                // No memory means no room, but the target is writable, so waiting for that would return at once.
                Errno::NOBUFS | Errno::NOMEM => {
                    let paused = self.room.pause();
                    self.note_bell(paused)?;
                }
                Errno::INVAL => return Flow::Continue(Put::Refused),
                Errno::IO => self.link_down = true, // It may come up again.
                error => return Flow::Break(Stop::Target(error)),
            }
        }
        if self.link_down {
            return Flow::Continue(Put::LinkDown);
        }
        unpoisoned(self.kept.lock()).push(record.iter().flat_map(|part| part.iter().copied()).collect());
        self.kept_packets += measure.packets;
        Flow::Continue(Put::Kept)
    }

    /// End a bundle that stands for `packets`: count those that were written, and the rest as dropped unless kept.
    /// Stop if a bell rang.
    pub(super) fn end_bundle(&mut self, packets: u64) -> Flow {
        self.count();
        self.counters.add_dropped(packets - std::mem::take(&mut self.written) - std::mem::take(&mut self.kept_packets));
        self.link_down = false;
        if self.rung { Flow::Break(Stop::Bell) } else { Flow::Continue(()) }
    }

    fn note_bell(&mut self, waited: Flow) -> Flow {
        match waited {
            Flow::Break(Stop::Bell) => self.rung = true,
            other => other?,
        }
        Flow::Continue(())
    }

    fn count(&mut self) {
        let uncounted = std::mem::replace(&mut self.uncounted, Measure::NOTHING);
        if uncounted.packets > 0 {
            self.counters.add_bundle(uncounted);
            self.written += uncounted.packets;
        }
    }
}
