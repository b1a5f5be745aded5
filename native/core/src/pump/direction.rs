//! One direction of a pump, and the two threads that forward both.

use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, read};

use crate::io::bundle::{Intake, Outlet};
use crate::io::stop::{Flow, Stop};
use crate::io::waiting::{Ready, Sources};
use crate::locks::unpoisoned;
use crate::pump::end::End;
use crate::pump::gate::Gate;
use crate::pump::pace::Pace;

/// More bytes than this after one wake-up are much traffic: more than a packet or two.
const MUCH: u64 = 3000;
/// A direction is calm after so many wake-ups in a row without much traffic.
const CALM: u32 = 64;

/// The way from one end to the other. One thread at a time uses it.
pub(super) struct Direction<'a> {
    intake: Box<dyn Intake + 'a>,
    outlet: Box<dyn Outlet + 'a>,
    limits: &'static [usize],
}

impl<'a> Direction<'a> {
    /// Prepare to forward; sending watches `bells` while it waits for room.
    pub(super) fn new(from: &End<'a>, to: &End<'a>, bells: &[BorrowedFd<'a>], pace: &Pace) -> Self {
        Self { intake: from.intake(pace.bundle_size), outlet: to.outlet(bells), limits: pace.limits }
    }

    /// Forward the packets of a source. Return True if that was much traffic.
    fn forward(&mut self, ready: Ready<'_>) -> Flow<bool> {
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

/// State that the two threads share.
pub(super) struct Shared<'a> {
    second: Mutex<Direction<'a>>,
    gate: Gate,
    first_is_busy: AtomicBool,
    one_thread_if_calm: bool,
}

impl<'a> Shared<'a> {
    /// Make the state of a pump whose second direction is `second`.
    pub(super) fn new(second: Direction<'a>, pace: &Pace) -> Self {
        let gate = Gate::default();
        if !pace.one_thread_if_calm {
            gate.open();
        }
        let one_thread_if_calm = pace.one_thread_if_calm;
        Self { second: Mutex::new(second), gate, first_is_busy: AtomicBool::new(false), one_thread_if_calm }
    }

    /// Be the first thread until there is a reason to stop. The second thread stops with it.
    ///
    /// `sources` are those of the two directions; `nudge` is readable when the gate was shut.
    pub(super) fn run_first(
        &self,
        direction: Direction<'a>,
        sources: [&[BorrowedFd<'a>]; 2],
        bells: &[BorrowedFd<'a>],
        nudge: &'a PipeReader,
    ) -> Stop {
        let _end = EndAtDrop(&self.gate);
        let mut thread = match FirstThread::new(self, direction, sources, bells, nudge) {
            Ok(thread) => thread,
            Err(error) => return Stop::Source(error),
        };
        loop {
            if let Flow::Break(stop) = thread.step() {
                return stop;
            }
        }
    }

    /// Be the second thread until there is a reason to stop, or the first thread has stopped.
    ///
    /// It writes to `nudge` after it has shut the gate.
    pub(super) fn run_second(&self, sources: &[BorrowedFd<'a>], bells: &[BorrowedFd<'a>], nudge: PipeWriter) -> Stop {
        let mut thread = match Sources::new(sources, bells) {
            Ok(sources) => SecondThread { shared: self, sources, nudge, calm: 0 },
            Err(error) => return Stop::Source(error),
        };
        while self.gate.wait() {
            if let Flow::Break(stop) = thread.step() {
                return stop;
            }
        }
        Stop::Bell
    }

    fn forward_second(&self, ready: Ready<'_>) -> Flow<bool> {
        unpoisoned(self.second.lock()).forward(ready)
    }
}

/// The thread that forwards the first direction, and both while the gate is shut.
struct FirstThread<'s, 'a> {
    shared: &'s Shared<'a>,
    direction: Direction<'a>,
    /// The number of sources of the first direction.
    sources: usize,
    /// The sources of the first direction, and the nudge.
    apart: Sources<'a>,
    /// The sources of both directions, the first one's first. None if the gate is always open, as every wake-up costs
    /// more with a second `epoll` that watches the same source.
    together: Option<Sources<'a>>,
    nudge: BorrowedFd<'a>,
}

impl<'s, 'a> FirstThread<'s, 'a> {
    /// Prepare the thread. `sources` are those of the two directions; `nudge` is readable when the gate was shut.
    fn new(
        shared: &'s Shared<'a>,
        direction: Direction<'a>,
        sources: [&[BorrowedFd<'a>]; 2],
        bells: &[BorrowedFd<'a>],
        nudge: &'a PipeReader,
    ) -> Result<Self, Errno> {
        let [first, second] = sources;
        let nudge = nudge.as_fd();
        let apart = Sources::new(&[first, &[nudge]].concat(), bells)?;
        let together = shared.one_thread_if_calm.then(|| Sources::new(&[first, second].concat(), bells)).transpose()?;
        Ok(Self { shared, direction, sources: first.len(), apart, together, nudge })
    }

    fn step(&mut self) -> Flow {
        let is_open = self.shared.gate.is_open();
        let ready = match &mut self.together {
            Some(together) if !is_open => together.wait()?,
            _ => self.apart.wait()?,
        };
        let much = if ready.index < self.sources {
            let much = self.direction.forward(ready)?;
            self.shared.first_is_busy.store(much, Ordering::Relaxed);
            much
        } else if is_open {
            let _ = read(self.nudge, &mut [0; 16]); // The next step checks the gate.
            false
        } else {
            self.shared.forward_second(ready)?
        };
        if much && !is_open {
            self.shared.gate.open();
        }
        Flow::Continue(())
    }
}

/// The thread that forwards the second direction while the gate is open.
struct SecondThread<'s, 'a> {
    shared: &'s Shared<'a>,
    sources: Sources<'a>,
    nudge: PipeWriter,
    /// Wake-ups since there was much traffic.
    calm: u32,
}

impl SecondThread<'_, '_> {
    fn step(&mut self) -> Flow {
        let ready = self.sources.wait()?;
        self.calm = if self.shared.forward_second(ready)? { 0 } else { self.calm.saturating_add(1) };
        let shared = self.shared;
        if shared.one_thread_if_calm && self.calm >= CALM && !shared.first_is_busy.load(Ordering::Relaxed) {
            self.calm = 0;
            shared.gate.shut();
            let _ = self.nudge.write_all(b"!"); // This fails only if the first thread is over.
        }
        Flow::Continue(())
    }
}

/// Ends the waiting at a gate, also after a panic.
struct EndAtDrop<'a>(&'a Gate);

impl Drop for EndAtDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
