//! A stream of records as the two directions of a pump leave it. A record is the length of a packet, 16 bits
//! big-endian, and the packet; see `threepipe.endpoints.connection`.

use std::sync::Mutex;

use rustix::io::Errno;

use crate::io::stop::Raised;
use crate::locks::unpoisoned;

/// Bytes before each packet.
pub(crate) const LENGTH: usize = 2;

/// The state that a pump takes over from the owner of a stream, and gives back at its end.
#[derive(Default)]
pub struct Stream(Mutex<State>);

/// Bytes on their way, and the reason to return.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Bytes that were received beyond the last whole record.
    pub unread: Vec<u8>,
    /// Bytes of records that were accepted and not written yet.
    pub unsent: Vec<u8>,
    /// The owner's turn, if there is something for it to do.
    pub turn: Option<Turn>,
}

/// The reason why the owner has to go on with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It has ended, or its next record is not a packet.
    Look,
    /// Reading failed.
    Failed(Errno),
}

/// The caller's code, which the pump's threads call for a stream whose files have encrypted bytes.
///
/// The twin of `RecordsHandler` in `threepipe.core.ends`. An error that it returns ends the pump.
pub trait Handler: Sync {
    /// Receive to the start of `memory`, and return the number of bytes: None if none are ready, 0 if it is the owner's
    /// turn. Nothing is ready then that the file to read from does not show.
    ///
    /// # Errors
    ///
    /// Any; it ends the pump.
    fn receive(&self, memory: &mut [u8]) -> Result<Option<usize>, Raised>;

    /// Accept `data`, and return true once all that was accepted is written. Until then `data` must be empty. None: it
    /// is lost, as the other end reads no more.
    ///
    /// # Errors
    ///
    /// Any; it ends the pump.
    fn send(&self, data: &[u8]) -> Result<Option<bool>, Raised>;
}

impl Stream {
    /// Take over a stream. `unread` was received from it before.
    #[must_use]
    pub fn new(unread: Vec<u8>) -> Self {
        Self(Mutex::new(State { unread, ..State::default() }))
    }

    /// Return the state after the pump.
    #[must_use]
    pub fn into_state(self) -> State {
        unpoisoned(self.0.into_inner())
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = unpoisoned(self.0.lock());
        change(&mut state)
    }
}
