//! One direction of a pump.

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, read};

use crate::io::bundle::{Intake, Outlet};
use crate::io::stop::{Flow, Stop};
use crate::io::waiting::{Ready, RoomWait, Sources};
use crate::pump::end::End;
use crate::pump::pace::Pace;

/// More bytes than this after one wake-up are much traffic: more than a packet or two.
const MUCH: u64 = 3000;

/// The way from one end to the other. One thread at a time uses it.
pub(super) struct Direction<'a> {
    sources: Sources<'a>,
    /// The index of the nudge among the sources: the last one.
    nudge: usize,
    intake: Box<dyn Intake + 'a>,
    outlet: Box<dyn Outlet + 'a>,
    limits: &'static [usize],
}

impl<'a> Direction<'a> {
    /// Prepare to forward. `nudge` is a non-blocking pipe that ends a wait for packets; `room` waits for room.
    ///
    /// # Errors
    ///
    /// Return the system's error if it cannot wait for the sources.
    pub(super) fn new(
        from: &End<'a>,
        to: &End<'a>,
        nudge: BorrowedFd<'a>,
        bells: &[BorrowedFd<'a>],
        room: RoomWait<'a>,
        pace: &Pace,
    ) -> Result<Self, Errno> {
        Ok(Self {
            sources: Sources::new(&[from.sources(), &[nudge]].concat(), bells)?,
            nudge: from.sources().len(),
            intake: from.intake(pace.bundle_size),
            outlet: to.outlet(room),
            limits: pace.limits,
        })
    }

    /// Wait for a source or the nudge, and forward the packets of a source. Return True if that was much traffic.
    pub(super) fn step(&mut self) -> Flow<bool> {
        let ready = self.sources.wait()?;
        if ready.index == self.nudge {
            let _ = read(ready.source, &mut [0; 16]); // Another wait may have read it.
            return Flow::Continue(false);
        }
        self.forward(ready)
    }

    /// Forward the packets of a source. Return True if that was much traffic.
    pub(super) fn forward(&mut self, ready: Ready<'_>) -> Flow<bool> {
        let mut received = 0;
        for limit in self.limits {
            let Some(bundle) = self.intake.receive(ready, *limit)? else {
                break;
            };
            received += bundle.received;
            if !bundle.pieces.is_empty() {
                self.outlet.send(&bundle)?;
            }
            if bundle.last {
                return Flow::Break(Stop::Bell);
            }
        }
        Flow::Continue(received > MUCH)
    }
}
