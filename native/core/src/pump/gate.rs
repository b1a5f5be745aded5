//! Gate: lets the second thread of a pump forward one direction, or has the first thread forward both.

use std::sync::{Condvar, Mutex, MutexGuard};

use crate::locks::unpoisoned;

/// The gate. It is shut at first. The two directions have the indexes 0 and 1.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    position: Position,
    /// For each direction, true while it waits for room.
    waiting: [bool; 2],
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Position {
    #[default]
    Shut,
    /// Open for the direction of that index.
    Open(usize),
    Ended,
}

impl Gate {
    /// Return the direction that the second thread forwards, if any.
    pub(super) fn second(&self) -> Option<usize> {
        match self.state().position {
            Position::Open(direction) => Some(direction),
            Position::Shut | Position::Ended => None,
        }
    }

    /// Have the second thread forward `direction`, if it forwards none.
    pub(super) fn open(&self, direction: usize) {
        self.open_in(&mut self.state(), direction);
    }

    /// Have the first thread forward both directions. Return False if it waits for room; then nothing changes.
    ///
    /// Only the second thread may call it.
    pub(super) fn shut(&self) -> bool {
        let mut state = self.state();
        let free = state.waiting == [false; 2];
        if free && state.position != Position::Ended {
            state.position = Position::Shut;
        }
        free
    }

    /// Note whether `direction` waits for room. While it does, its thread forwards nothing else, so the second thread
    /// forwards the other direction.
    pub(super) fn set_waiting(&self, direction: usize, waiting: bool) {
        let mut state = self.state();
        state.waiting[direction] = waiting;
        if waiting {
            self.open_in(&mut state, 1 - direction);
        }
    }

    /// End all waiting for the gate, now and in the future.
    pub(super) fn end(&self) {
        self.state().position = Position::Ended;
        self.changed.notify_all();
    }

    /// Wait until the gate is open. Return the direction to forward, or None if the gate has ended.
    pub(super) fn wait(&self) -> Option<usize> {
        let state = self.changed.wait_while(self.state(), |state| state.position == Position::Shut);
        match unpoisoned(state).position {
            Position::Open(direction) => Some(direction),
            Position::Shut | Position::Ended => None,
        }
    }

    fn open_in(&self, state: &mut State, direction: usize) {
        if state.position == Position::Shut {
            state.position = Position::Open(direction);
            self.changed.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.state.lock())
    }
}
