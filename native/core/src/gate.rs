//! Gate: whether the two directions of a tunnel are apart, each with a thread of its own, or one has both.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Together at first.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Together,
    Apart,
    Over,
}

impl Gate {
    /// Whether they are apart.
    pub(crate) fn is_open(&self) -> bool {
        *self.state() == State::Apart
    }

    /// Have the other thread take its direction.
    pub(crate) fn open(&self) {
        self.change(State::Apart);
    }

    /// Have one thread take both.
    pub(crate) fn shut(&self) {
        self.change(State::Together);
    }

    /// Have nobody wait any more.
    pub(crate) fn end(&self) {
        self.change(State::Over);
    }

    /// Wait until they are apart; false at the end of all.
    pub(crate) fn wait(&self) -> bool {
        let waited = self.changed.wait_while(self.state(), |state| *state == State::Together);
        *waited.unwrap_or_else(PoisonError::into_inner) == State::Apart
    }

    fn change(&self, to: State) {
        let mut state = self.state();
        if *state != State::Over {
            *state = to;
            self.changed.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
