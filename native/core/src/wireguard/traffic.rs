//! Traffic of a peer: counters, and the times from which its timers run.
//!
//! The twin of `Traffic` in `threepipe.core.transport`.

use std::sync::{Mutex, MutexGuard};

use crate::locks::unpoisoned;

/// The traffic of one peer, shared by the threads that forward and the one that keeps the timers.
#[derive(Debug, Default)]
pub struct Traffic(Mutex<Notes>);

/// Counters and times; times are seconds of the clock of `wireguard::clock`.
#[derive(Clone, Debug)]
pub struct Notes {
    /// Bytes of authentic messages received.
    pub rx_bytes: u64,
    /// Bytes of messages sent.
    pub tx_bytes: u64,
    /// The time of the first data sent since anything was received.
    pub unanswered_since: Option<f64>,
    /// The time of the first data received since anything was sent.
    pub keepalive_owed_since: Option<f64>,
    /// True if more data followed it.
    pub need_another_keepalive: bool,
    /// The time of the last authentic message in either direction.
    pub last_traversal: f64,
    /// True while a timer check is scheduled; the check clears it first.
    pub check_scheduled: bool,
}

impl Default for Notes {
    fn default() -> Self {
        Self {
            rx_bytes: 0,
            tx_bytes: 0,
            unanswered_since: None,
            keepalive_owed_since: None,
            need_another_keepalive: false,
            last_traversal: f64::NEG_INFINITY,
            check_scheduled: false,
        }
    }
}

impl Traffic {
    /// Lock the notes, to read or change them.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        unpoisoned(self.0.lock())
    }

    /// Note that messages were sent. Return True if the caller has to schedule a timer check.
    pub fn sent(&self, now: f64, data: bool, bytes: u64) -> bool {
        let mut notes = self.notes();
        notes.tx_bytes += bytes;
        notes.keepalive_owed_since = None;
        notes.last_traversal = now;
        if data && notes.unanswered_since.is_none() {
            notes.unanswered_since = Some(now);
        }
        !std::mem::replace(&mut notes.check_scheduled, true)
    }

    /// Note that authentic messages were received. Return True if the caller has to schedule a timer check.
    pub fn received(&self, now: f64, data: bool, bytes: u64) -> bool {
        let mut notes = self.notes();
        notes.rx_bytes += bytes;
        notes.unanswered_since = None;
        notes.last_traversal = now;
        if data {
            notes.need_another_keepalive |= notes.keepalive_owed_since.is_some();
            notes.keepalive_owed_since.get_or_insert(now);
        }
        !std::mem::replace(&mut notes.check_scheduled, true)
    }
}
