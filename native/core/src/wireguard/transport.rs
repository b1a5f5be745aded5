//! Transport: the keys of one keypair, used by several threads at once.
//!
//! The twin of `Transport` in `threepipe.core.transport`.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Mutex, RwLock};

use crate::locks::{if_free, unpoisoned};
use crate::wireguard::sealing::{KEY_SIZE, Key, Messages, Opened, REJECT_AFTER_MESSAGES, WINDOW_SIZE, open};

/// Bytes of a state: the local and the remote index (32 bits each), the counter of the next message (64 bits), the keys to
/// send and to receive with, and the replay window. Numbers are little-endian.
pub const STATE_SIZE: usize = KEYS + 2 * KEY_SIZE + WINDOW_SIZE;
/// Where the keys begin in a state.
const KEYS: usize = 16;

/// The keys and indices of a keypair, the counter of messages sent, and the replay window of those received.
pub struct Transport {
    local_index: u32,
    remote_index: u32,
    counter: AtomicU64,
    /// True once the keys are wiped, or are about to be by the threads that still use them.
    wiped: AtomicBool,
    send: RwLock<Key>,
    receive: Mutex<(Key, Box<[u8; WINDOW_SIZE]>)>,
}

/// The reason why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSealed {
    /// The keys were wiped.
    Wiped,
    /// There are more messages than counters, or the counters were not reserved.
    Counters,
}

impl Transport {
    /// Make a transport of two keys of 32 bytes. Return None if a key has another size.
    #[must_use]
    pub fn new(send: &[u8], receive: &[u8], local_index: u32, remote_index: u32) -> Option<Self> {
        Some(Self {
            local_index,
            remote_index,
            counter: AtomicU64::new(0),
            wiped: AtomicBool::new(false),
            send: RwLock::new(Key::new(send)?),
            receive: Mutex::new((Key::new(receive)?, Box::new([0; WINDOW_SIZE]))),
        })
    }

    /// Make a transport that goes on from a [state](Self::write_state). Return None for one of another size.
    #[must_use]
    pub fn from_state(state: &[u8]) -> Option<Self> {
        let state: &[u8; STATE_SIZE] = state.try_into().ok()?;
        let (header, rest) = state.split_first_chunk::<KEYS>()?;
        let (send, rest) = rest.split_at(KEY_SIZE);
        let (receive, window) = rest.split_at(KEY_SIZE);
        let header = u128::from_le_bytes(*header);
        let transport = Self::new(send, receive, header as u32, (header >> 32) as u32)?;
        transport.set_counter((header >> 64) as u64);
        unpoisoned(transport.receive.lock()).1.copy_from_slice(window);
        Some(transport)
    }

    /// Write the whole state to `state`. Return False, and write nothing, once the keys were wiped.
    ///
    /// The caller sees to it that only one transport goes on from here: a counter that is used twice gives away what both
    /// messages say.
    #[must_use]
    pub fn write_state(&self, state: &mut [u8; STATE_SIZE]) -> bool {
        let written = self.unless_wiped(|| {
            let receiving = unpoisoned(self.receive.lock());
            let send = unpoisoned(self.send.read());
            if self.is_wiped() {
                return None;
            }
            state[..4].copy_from_slice(&self.local_index.to_le_bytes());
            state[4..8].copy_from_slice(&self.remote_index.to_le_bytes());
            state[8..KEYS].copy_from_slice(&self.counter().to_le_bytes());
            let (send_key, rest) = state[KEYS..].split_at_mut(KEY_SIZE);
            let (receive_key, window) = rest.split_at_mut(KEY_SIZE);
            send_key.copy_from_slice(send.bytes());
            receive_key.copy_from_slice(receiving.0.bytes());
            window.copy_from_slice(&receiving.1[..]);
            Some(())
        });
        written.is_some()
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

    /// Write `messages`, with the first of `counters`, to `memory`.
    ///
    /// # Errors
    ///
    /// If the keys were wiped; or if there are not as many counters as messages, or if they were not reserved, since a
    /// counter that is used twice gives away what both messages say.
    ///
    /// # Panics
    ///
    /// If `memory` is too small.
    pub fn seal(&self, messages: &Messages<'_>, counters: Range<u64>, memory: &mut [u8]) -> Result<(), NotSealed> {
        let taken = counters.end.saturating_sub(counters.start);
        if messages.count() > taken || counters.end > self.counter() {
            return Err(NotSealed::Counters);
        }
        let sealed = self.unless_wiped(|| {
            let key = unpoisoned(self.send.read());
            (!self.is_wiped()).then(|| messages.seal(&key, self.remote_index, counters.start, memory))
        });
        sealed.ok_or(NotSealed::Wiped)
    }

    /// Open messages in place, as [`sealing::open`](open) does. Once the keys were wiped, no message is authentic.
    pub fn open(&self, memory: &mut [u8], size: usize) -> Opened {
        let used = memory.len();
        let opened = self.unless_wiped(|| {
            let mut receiving = unpoisoned(self.receive.lock());
            let (key, window) = &mut *receiving;
            (!self.is_wiped()).then(|| open(key, self.local_index, window, memory, size))
        });
        opened.unwrap_or(Opened { used, ..Opened::default() })
    }

    /// Have both keys overwritten with zeros. Nothing more is sealed or opened from now on.
    ///
    /// Waits for no lock, so that a forked child can call it: there, threads that no longer exist may hold them. A key
    /// that a thread uses at this moment is overwritten by that thread when it is done.
    pub fn wipe(&self) {
        self.wiped.store(true, Ordering::SeqCst);
        self.overwrite_if_wiped();
    }

    fn is_wiped(&self) -> bool {
        self.wiped.load(Ordering::SeqCst)
    }

    /// Call `work`, which locks a key and then looks whether it was wiped, and overwrite the keys if that happens
    /// meanwhile. After a wipe, touch no lock.
    fn unless_wiped<Done>(&self, work: impl FnOnce() -> Option<Done>) -> Option<Done> {
        if self.is_wiped() {
            return None;
        }
        let done = work();
        self.overwrite_if_wiped();
        done
    }

    /// Overwrite the keys that no other thread uses.
    fn overwrite_if_wiped(&self) {
        // Either this sees the flag of a wipe, or that wipe sees that this thread no longer holds the lock.
        fence(Ordering::SeqCst);
        if !self.is_wiped() {
            return;
        }
        if let (Some(mut key), Some(zeros)) = (if_free(self.send.try_write()), Key::new(&[0; KEY_SIZE])) {
            *key = zeros;
        }
        if let (Some(mut receiving), Some(zeros)) = (if_free(self.receive.try_lock()), Key::new(&[0; KEY_SIZE])) {
            receiving.0 = zeros;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SHORT: [u8; 20] = [0x45; 20];

    fn transport() -> Transport {
        Transport::new(&[1; KEY_SIZE], &[1; KEY_SIZE], 1, 1).unwrap()
    }

    fn seal(transport: &Transport, count: usize, counters: Range<u64>) -> Result<Vec<u8>, NotSealed> {
        let messages = Messages::new(vec![&SHORT; count], false, 0).unwrap();
        let mut memory = vec![0; messages.size()];
        transport.seal(&messages, counters, &mut memory).map(|()| memory)
    }

    #[test]
    fn seal_takes_no_counters_but_those_that_were_reserved_for_its_messages() {
        let transport = transport();
        assert_eq!((transport.reserve(3), transport.reserve(2)), (Some(0), Some(3)));
        assert!(seal(&transport, 3, 0..3).is_ok() && seal(&transport, 1, 3..5).is_ok());
        for (count, counters) in [(4, 0..3), (2, 4..5), (2, 4..6), (1, 5..6), (1, 0..0), (0, 6..7)] {
            assert_eq!(seal(&transport, count, counters), Err(NotSealed::Counters));
        }
    }

    #[test]
    fn a_transport_from_a_state_goes_on_with_its_counter_and_window() {
        let first = transport();
        assert_eq!(first.reserve(3), Some(0));
        let mut sealed = seal(&first, 3, 0..3).unwrap();
        assert_eq!(first.open(&mut sealed[..64], 64).authentic, 1);
        let mut state = [0; STATE_SIZE];
        assert!(first.write_state(&mut state));
        let second = Transport::from_state(&state).unwrap();
        assert_eq!((second.local_index(), second.remote_index(), second.reserve(1)), (1, 1, Some(3)));
        let mut replay = seal(&first, 3, 0..3).unwrap();
        assert_eq!(second.open(&mut replay, 64).authentic, 2);
        assert!(Transport::from_state(&state[1..]).is_none());
        first.wipe();
        assert!(!first.write_state(&mut state));
    }

    #[test]
    fn wipe_while_a_thread_holds_a_key_waits_for_nothing_and_the_thread_overwrites_it() {
        let transport = transport();
        assert_eq!(transport.reserve(1), Some(0));
        let (mut wanted, other) = (seal(&transport, 1, 0..1).unwrap(), Key::new(&[0; KEY_SIZE]).unwrap());
        let held = transport.send.read().unwrap();
        transport.wipe();
        drop(held);
        assert_eq!(seal(&transport, 1, 0..1), Err(NotSealed::Wiped));
        assert_eq!(transport.open(&mut wanted.clone(), 48).authentic, 0);
        transport.overwrite_if_wiped();
        let messages = Messages::new(vec![&SHORT], false, 0).unwrap();
        messages.seal(&transport.send.read().unwrap(), 1, 0, &mut wanted);
        let mut zeroed = vec![0; messages.size()];
        messages.seal(&other, 1, 0, &mut zeroed);
        assert_eq!(wanted, zeroed);
    }

    #[test]
    fn a_wiped_transport_touches_no_lock() {
        let transport = transport();
        assert_eq!(transport.reserve(1), Some(0));
        let (_sending, _receiving) = (transport.send.write().unwrap(), transport.receive.lock().unwrap());
        transport.wipe();
        assert_eq!(seal(&transport, 1, 0..1), Err(NotSealed::Wiped));
        assert_eq!(transport.open(&mut [0; 48], 48), Opened { used: 48, ..Opened::default() });
    }
}
