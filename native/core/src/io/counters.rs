//! Counters of one direction of an end.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::packet::record::Measure;

/// Packets, bytes, bundles and dropped packets, in memory that other threads read meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Counters<'a> {
    packets: &'a AtomicU64,
    bytes: &'a AtomicU64,
    bundles: &'a AtomicU64,
    dropped: &'a AtomicU64,
}

impl<'a> From<&'a [AtomicU64; 4]> for Counters<'a> {
    fn from([packets, bytes, bundles, dropped]: &'a [AtomicU64; 4]) -> Self {
        Self { packets, bytes, bundles, dropped }
    }
}

impl Counters<'_> {
    /// Count the packets of one bundle.
    pub(crate) fn add_bundle(self, bundle: Measure) {
        for (counter, added) in [(self.packets, bundle.packets), (self.bytes, bundle.size), (self.bundles, 1)] {
            counter.fetch_add(added, Ordering::Relaxed);
        }
    }

    /// Count dropped packets.
    pub(crate) fn add_dropped(self, packets: u64) {
        if packets > 0 {
            self.dropped.fetch_add(packets, Ordering::Relaxed);
        }
    }
}
