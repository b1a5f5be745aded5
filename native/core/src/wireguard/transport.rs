//! Transport: the keys of one keypair, used by several threads at once.
//!
//! The twin of `Transport` in `threepipe.core.transport`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};

use crate::locks::unpoisoned;
use crate::wireguard::sealing::{KEY_SIZE, Key, Messages, Opened, REJECT_AFTER_MESSAGES, WINDOW_SIZE, open};

/// The keys and indices of a keypair, the counter of messages sent, and the replay window of those received.
pub struct Transport {
    local_index: u32,
    remote_index: u32,
    counter: AtomicU64,
    send: RwLock<Secret>,
    receive: Mutex<(Secret, Box<[u8; WINDOW_SIZE]>)>,
}

/// A key that can be wiped.
struct Secret {
    key: Key,
    wiped: bool,
}

impl Secret {
    fn new(bytes: &[u8]) -> Option<Self> {
        Key::new(bytes).map(|key| Self { key, wiped: false })
    }

    /// Overwrite the key with zeros.
    fn wipe(&mut self) {
        self.wiped = true;
        if let Some(zeros) = Key::new(&[0; KEY_SIZE]) {
            self.key = zeros;
        }
    }
}

impl Transport {
    /// Make a transport of two keys of 32 bytes. Return None if a key has another size.
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

    /// Return the index of messages to receive.
    #[must_use]
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// Return the index of messages to send.
    #[must_use]
    pub fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// Return the counter of the next message to send.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.counter.load(Ordering::Relaxed)
    }

    /// Set the counter of the next message, for tests of the last counters.
    pub fn set_counter(&self, counter: u64) {
        self.counter.store(counter, Ordering::Relaxed);
    }

    /// Reserve `messages` counters. Return the first, or None when they are exhausted.
    #[must_use]
    pub fn reserve(&self, messages: u64) -> Option<u64> {
        let next = |counter: u64| counter.checked_add(messages).filter(|next| *next <= REJECT_AFTER_MESSAGES);
        self.counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()
    }

    /// Write `messages`, with counters from `counter` on, to `memory`. Return False if the key was wiped.
    ///
    /// # Panics
    ///
    /// If `memory` is too small.
    #[must_use]
    pub fn seal(&self, messages: &Messages<'_>, counter: u64, memory: &mut [u8]) -> bool {
        let secret = unpoisoned(self.send.read());
        if !secret.wiped {
            messages.seal(&secret.key, self.remote_index, counter, memory);
        }
        !secret.wiped
    }

    /// Open messages in place, as [`sealing::open`](open) does. Once the key was wiped, no message is authentic.
    pub fn open(&self, memory: &mut [u8], size: usize) -> Opened {
        let mut receiving = unpoisoned(self.receive.lock());
        let (secret, window) = &mut *receiving;
        if secret.wiped {
            return Opened { used: memory.len(), ..Opened::default() };
        }
        open(&secret.key, self.local_index, window, memory, size)
    }

    /// Overwrite both keys with zeros. Nothing is sealed or opened after that.
    pub fn wipe(&self) {
        unpoisoned(self.send.write()).wipe();
        unpoisoned(self.receive.lock()).0.wipe();
    }
}
