//! The two threads of a pump, which share its two directions.

use std::io::{PipeWriter, Write};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::io::stop::{Flow, Stop};
use crate::io::waiting::Sources;
use crate::locks::unpoisoned;
use crate::pump::direction::Direction;
use crate::pump::gate::Gate;

/// A direction is calm after so many wake-ups in a row without much traffic.
const CALM: u32 = 64;

/// The reason why a thread stopped, and the direction that it was forwarding.
pub(super) struct Stopped {
    pub(super) direction: usize,
    pub(super) stop: Stop,
}

/// The sources of both directions, for the first thread while the gate is shut.
pub(super) struct Together<'a> {
    pub(super) sources: Sources<'a>,
    /// How many are of the first direction; they come first.
    pub(super) of_first: usize,
}

/// State that the two threads share.
pub(super) struct Shared<'a> {
    directions: [Mutex<Direction<'a>>; 2],
    gate: &'a Gate,
    first_is_busy: AtomicBool,
}

impl<'a> Shared<'a> {
    pub(super) fn new(directions: [Direction<'a>; 2], gate: &'a Gate) -> Self {
        Self { directions: directions.map(Mutex::new), gate, first_is_busy: AtomicBool::new(false) }
    }

    /// Be the first thread until there is a reason to stop. The second thread stops with it.
    ///
    /// Without `together` the gate must be open, and stays so.
    pub(super) fn run_first(&self, mut together: Option<Together<'a>>) -> Stopped {
        let _end = EndAtDrop(self.gate);
        loop {
            let flow = match (self.gate.second(), &mut together) {
                (None, Some(together)) => self.forward_either(together),
                (second, _) => self.forward_own(second.map_or(0, |second| 1 - second)),
            };
            if let ControlFlow::Break(stopped) = flow {
                return stopped;
            }
        }
    }

    /// Be the second thread until there is a reason to stop, or the first thread has stopped.
    ///
    /// If it may shut the gate, it then writes to `nudge`.
    pub(super) fn run_second(&self, mut nudge: Option<PipeWriter>) -> Stopped {
        let mut calm = 0; // Wake-ups since there was much traffic.
        while let Some(direction) = self.gate.wait() {
            match self.with(direction, Direction::step) {
                ControlFlow::Continue(true) => calm = 0,
                ControlFlow::Continue(false) => calm += 1,
                ControlFlow::Break(stopped) => return stopped,
            }
            if let Some(nudge) = &mut nudge
                && calm >= CALM
                && !self.first_is_busy.load(Ordering::Relaxed)
                && self.gate.shut()
            {
                calm = 0;
                let _ = nudge.write_all(b"!"); // This fails only if the first thread is over.
            }
        }
        Stopped { direction: 1, stop: Stop::Bell }
    }

    /// Forward the packets of the next source of both directions. Open the gate if that was much traffic.
    fn forward_either(&self, together: &mut Together<'a>) -> ControlFlow<Stopped> {
        let ready = match together.sources.wait() {
            Flow::Continue(ready) => ready,
            Flow::Break(stop) => return ControlFlow::Break(Stopped { direction: 0, stop }),
        };
        let direction = usize::from(ready.index >= together.of_first);
        let much = self.with(direction, |way| way.forward(ready))?;
        if direction == 0 {
            self.first_is_busy.store(much, Ordering::Relaxed);
        }
        if much {
            self.gate.open(1);
        }
        ControlFlow::Continue(())
    }

    /// Forward the packets of the next source of the first thread's own direction.
    fn forward_own(&self, direction: usize) -> ControlFlow<Stopped> {
        let much = self.with(direction, Direction::step)?;
        self.first_is_busy.store(much, Ordering::Relaxed);
        ControlFlow::Continue(())
    }

    fn with(
        &self,
        direction: usize,
        work: impl FnOnce(&mut Direction<'a>) -> Flow<bool>,
    ) -> ControlFlow<Stopped, bool> {
        let mut way = unpoisoned(self.directions[direction].lock());
        match work(&mut way) {
            Flow::Continue(much) => ControlFlow::Continue(much),
            Flow::Break(stop) => ControlFlow::Break(Stopped { direction, stop }),
        }
    }
}

/// Ends the waiting at a gate, also after a panic.
struct EndAtDrop<'a>(&'a Gate);

impl Drop for EndAtDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
