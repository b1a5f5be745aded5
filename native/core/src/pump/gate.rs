//! Gate: lets the second thread of a pump forward its direction, or has the first thread forward both.

use std::sync::{Condvar, Mutex, MutexGuard};

use crate::locks::unpoisoned;

/// The gate. It is shut at first.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Shut,
    Open,
    Ended,
}

impl Gate {
    /// Return True if the second thread forwards its direction.
    pub(super) fn is_open(&self) -> bool {
        *self.state() == State::Open
    }

    /// Have the second thread forward its direction.
    pub(super) fn open(&self) {
        self.set(State::Open);
    }

    /// Have the first thread forward both directions.
    pub(super) fn shut(&self) {
        self.set(State::Shut);
    }

    /// End all waiting, now and in the future.
    pub(super) fn end(&self) {
        self.set(State::Ended);
    }

    /// Wait until the gate is open. Return False if it has ended.
    pub(super) fn wait(&self) -> bool {
        let state = self.changed.wait_while(self.state(), |state| *state == State::Shut);
        *unpoisoned(state) == State::Open
    }

    fn set(&self, new: State) {
        let mut state = self.state();
        if *state != State::Ended {
            *state = new;
            self.changed.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.state.lock())
    }
}
