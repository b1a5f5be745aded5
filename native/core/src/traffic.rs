//! Traffic: what passed a `WireGuard` peer, and since when something is due for it. See `threepipe.wireguard.traffic`.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shared by those who pass messages and who keeps the time.
#[derive(Debug, Default)]
pub struct Traffic(Mutex<Notes>);

/// What is noted; times are seconds of the monotonic clock.
#[derive(Clone, Debug)]
pub struct Notes {
    /// Bytes of messages that were authentic.
    pub rx_bytes: u64,
    /// Bytes of messages that were sent.
    pub tx_bytes: u64,
    /// When the first data was sent that nothing came after.
    pub unanswered_since: Option<f64>,
    /// When the first data came that nothing was sent after.
    pub owed_since: Option<f64>,
    /// Whether it was not the last.
    pub owed_more: bool,
    /// When the last authentic message passed in any direction.
    pub traversed: f64,
    /// Whether somebody will look what is due, who has not looked yet.
    pub watched: bool,
}

impl Default for Notes {
    fn default() -> Self {
        Self {
            rx_bytes: 0,
            tx_bytes: 0,
            unanswered_since: None,
            owed_since: None,
            owed_more: false,
            traversed: f64::NEG_INFINITY,
            watched: false,
        }
    }
}

impl Traffic {
    /// Everything, to be read or changed.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Note that authentic messages were sent; whether nobody is going to look at what is due.
    pub fn sent(&self, now: f64, data: bool, bytes: u64) -> bool {
        let mut notes = self.notes();
        notes.tx_bytes += bytes;
        notes.owed_since = None;
        notes.traversed = now;
        if data && notes.unanswered_since.is_none() {
            notes.unanswered_since = Some(now);
        }
        !std::mem::replace(&mut notes.watched, true)
    }

    /// Note that authentic messages came; whether nobody is going to look at what is due.
    pub fn received(&self, now: f64, data: bool, bytes: u64) -> bool {
        let mut notes = self.notes();
        notes.rx_bytes += bytes;
        notes.unanswered_since = None;
        notes.traversed = now;
        if data {
            notes.owed_more |= notes.owed_since.is_some();
            notes.owed_since.get_or_insert(now);
        }
        !std::mem::replace(&mut notes.watched, true)
    }
}
