//! Transport: the keys of one keypair at work, for whoever seals and opens at the same time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use crate::sealing::{KEY_SIZE, Key, Opened, Plan, REJECT_AFTER_MESSAGES, WINDOW_SIZE, unseal};

/// Keys, indices, the counter of the next message, and the window of those that came.
pub struct Transport {
    local_index: u32,
    remote_index: u32,
    counter: AtomicU64,
    send: RwLock<Secret>,
    receive: Mutex<(Secret, Box<[u8; WINDOW_SIZE]>)>,
}

/// A key until it is wiped.
struct Secret {
    key: Key,
    wiped: bool,
}

impl Secret {
    fn new(bytes: &[u8]) -> Option<Self> {
        Key::new(bytes).map(|key| Self { key, wiped: false })
    }

    /// Write zeros where the key was.
    fn wipe(&mut self) {
        self.wiped = true;
        if let Some(zeros) = Key::new(&[0; KEY_SIZE]) {
            self.key = zeros;
        }
    }
}

impl Transport {
    /// From two keys of 32 bytes; None where there are more or fewer.
    #[must_use]
    pub fn new(send: &[u8], receive: &[u8], local_index: u32, remote_index: u32) -> Option<Self> {
        Some(Self {
            local_index,
            remote_index,
            counter: AtomicU64::new(0),
            send: RwLock::new(Secret::new(send)?),
            receive: Mutex::new((Secret::new(receive)?, Box::new([0; WINDOW_SIZE]))),
        })
    }

    /// The index of what is received.
    #[must_use]
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// The index of what is sent.
    #[must_use]
    pub fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// Of the next message.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.counter.load(Ordering::Relaxed)
    }

    /// Go on with another counter: for tests of the last ones.
    pub fn set_counter(&self, counter: u64) {
        self.counter.store(counter, Ordering::Relaxed);
    }

    /// The first of so many counters, which are nobody else's now; None where there are no more so many.
    #[must_use]
    pub fn take(&self, messages: u64) -> Option<u64> {
        let next = |counter: u64| counter.checked_add(messages).filter(|next| *next <= REJECT_AFTER_MESSAGES);
        self.counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()
    }

    /// Write the messages of `plan` to `memory`, with counters from `counter` on; false where the key was wiped.
    ///
    /// # Panics
    ///
    /// Where `memory` is too small.
    pub fn seal(&self, plan: &Plan<'_>, counter: u64, memory: &mut [u8]) -> bool {
        let secret = self.send.read().unwrap_or_else(PoisonError::into_inner);
        if !secret.wiped {
            plan.seal(&secret.key, self.remote_index, counter, memory);
        }
        !secret.wiped
    }

    /// Open messages in place, as [`unseal`]; nothing is authentic any more once the key was wiped.
    pub fn unseal(&self, memory: &mut [u8], size: usize) -> Opened {
        let mut receiving = self.receive.lock().unwrap_or_else(PoisonError::into_inner);
        let (secret, window) = &mut *receiving;
        if secret.wiped {
            return Opened { used: memory.len(), ..Opened::default() };
        }
        unseal(&secret.key, self.local_index, &mut window[..], memory, size)
    }

    /// Write zeros over both keys: nothing is sealed and opened from now on.
    pub fn wipe(&self) {
        self.send.write().unwrap_or_else(PoisonError::into_inner).wipe();
        self.receive.lock().unwrap_or_else(PoisonError::into_inner).0.wipe();
    }
}
